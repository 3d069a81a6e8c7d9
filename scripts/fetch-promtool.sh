#!/usr/bin/env bash
# Prometheus's own checker, promtool, from the Debian package into the folder given, without installing anything.
set -euo pipefail
bin="${1:?usage: fetch-promtool.sh FOLDER}"
[ ! -x "$bin/promtool" ] || exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get download --quiet prometheus
dpkg -x prometheus_*.deb unpacked
mkdir -p "$bin"
install unpacked/usr/bin/promtool "$bin/promtool"

"""What schemas cannot know: whether rendered manifests and the Dockerfile speak of the server that is in the source.

check-deploy.py RENDERED: ports, paths of probes, names of variables and keys, users, times and versions. Prints every fault
and ends with 1 if there is one. The source is read by patterns; one that finds nothing is an error, never a pass.
"""

import re
import sys
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
SELECTING = {"StatefulSet", "Service", "PodDisruptionBudget", "NetworkPolicy"}
KINDS = SELECTING | {"ServiceAccount", "ConfigMap"}
faults = []


def check(good, fault):
    if not good:
        faults.append(fault)


def find(path, pattern):
    """All that `pattern` finds in a file of ours."""
    found = re.findall(pattern, (ROOT / path).read_text())
    if not found:
        sys.exit(f"{path}: nothing looks like {pattern}; scripts/check-deploy.py must learn the new form")
    return found


def port(address):
    return int(address.rsplit(":", 1)[1])


# The server, as its source tells it.
GRPC = port(find("server/src/config.rs", r'const LISTEN: &str = "(.*)"')[0])
OPS = port(find("server/src/config.rs", r'const OPS_LISTEN: &str = "(.*)"')[0])
PORTS = {"DIPTYCH_LISTEN": GRPC, "DIPTYCH_OPS_LISTEN": OPS}
KEYS = {variable: key for variable, key in find("server/src/config/flags.rs", r'env = "(DIPTYCH_\w+)".*\n\s*pub (\w+):')}
ROUTES = find("server/src/ops.rs", r'\.route\("(/\w+)"')
DRAIN = find("server/src/config.rs", r"const DRAIN: Duration = Duration::from_secs\((\d+)\)")[0] + "s"
DELAY = "0s" if find("server/src/config.rs", r"const DRAIN_DELAY: Duration = Duration::(\w+);") == ["ZERO"] else None
CUT = int(find("server/src/app/drain.rs", r"const CUT_TIME: Duration = Duration::from_secs\((\d+)\)")[0])
CLOSE = int(find("server/src/app/drain.rs", r"const CLOSE_TIME: Duration = Duration::from_secs\((\d+)\)")[0])
LAST = int(find("server/src/main.rs", r"const LAST_WAIT: Duration = Duration::from_secs\((\d+)\)")[0])
WORKSPACE = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]


def check_variables(where, env):
    for name in env:
        check(name in KEYS, f"{where}: the server knows no {name}")
    for name, right in PORTS.items():
        check(name in env and port(env[name]) == right, f"{where}: {name} is {env.get(name)}, the server's port is {right}")


def dockerfile():
    """Checks the Dockerfile; its variables and its user."""
    text = (ROOT / "deploy/Dockerfile").read_text()
    last = re.sub(r"\\\n", " ", text[text.rindex("\nFROM "):])
    line = lambda word: " ".join(re.findall(rf"^{word} (.*)$", last, re.M))
    env = dict(re.findall(r"(DIPTYCH_\w+)=(\S+)", line("ENV")))
    check_variables("Dockerfile", env)
    exposed = {int(number) for number in line("EXPOSE").split()}
    check(exposed == {GRPC, OPS}, f"Dockerfile: EXPOSE {exposed}, the server's ports are {GRPC} and {OPS}")
    volume = f'["{env.get("DIPTYCH_DATA_DIR")}"]'
    check(line("VOLUME") == volume, f"Dockerfile: VOLUME is {line('VOLUME')}, the data folder is {volume}")
    version, rust = (re.search(rf"^ARG {name}=(.*)$", text, re.M) for name in ("VERSION", "RUST_VERSION"))
    check(version and version[1] == WORKSPACE["version"], f"Dockerfile: VERSION is not {WORKSPACE['version']}")
    check(rust and rust[1] == WORKSPACE["rust-version"], f"Dockerfile: RUST_VERSION is not {WORKSPACE['rust-version']}")
    return env, int(line("USER").split(":")[0])


def check_settings(env, image_env, pod, container, objects):
    """The settings' file: mounted where the server is told, of known keys, none of them beaten by a variable."""
    volumes = {volume["configMap"]["name"]: volume["name"] for volume in pod["volumes"] if "configMap" in volume}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    settings = {}
    for config in (item for item in objects if item["kind"] == "ConfigMap"):
        folder = mounts.get(volumes.get(config["metadata"]["name"]))
        for name, text in config["data"].items():
            place = f"{folder}/{name}"
            check(env.get("DIPTYCH_CONFIG") == place, f"DIPTYCH_CONFIG is {env.get('DIPTYCH_CONFIG')}, the file is {place}")
            try:
                settings |= tomllib.loads(text)
            except tomllib.TOMLDecodeError as error:
                check(False, f"settings: {name}: {error}")
    for key in settings:
        variable = f"DIPTYCH_{key.upper()}"
        check(KEYS.get(variable) == key and key != "config", f"settings: the server knows no key {key}")
        check(variable not in env | image_env, f"settings: {key} is without effect, {variable} is set")
    return settings


def check_pod(name, spec, image_env, user, objects):
    pod = spec["template"]["spec"]
    servers = [each for each in pod["containers"] if each["name"] == "diptych-server"]
    check(servers, f"{name}: no container is named diptych-server")
    for container in servers:
        env = {each["name"]: each.get("value", "") for each in container["env"]}
        check_variables(name, env)
        ports = {each["name"]: each["containerPort"] for each in container["ports"]}
        check(ports == {"grpc": GRPC, "ops": OPS}, f"{name}: ports {ports}, the server's are {GRPC} and {OPS}")
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            asked = container.get(kind, {}).get("httpGet", {})
            right = ports.get(asked.get("port"), asked.get("port")) == OPS and asked.get("path") in ROUTES
            check(right, f"{name}: {kind} asks {asked}, the server answers {ROUTES} on {OPS}")
        claims = {claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]}
        kept = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] in claims]
        check(env.get("DIPTYCH_DATA_DIR") in kept, f"{name}: the data folder {env.get('DIPTYCH_DATA_DIR')} is on no volume")
        settings = check_settings(env, image_env, pod, container, objects)
        drain = settings.get("drain", DRAIN)
        delay = settings.get("drain_delay", DELAY)
        for key, time in (("drain", drain), ("drain_delay", delay)):
            check(time and time.endswith("s") and time[:-1].isdigit(), f"settings: {key} is {time}, write it in seconds")
        seconds = lambda time: int(re.sub(r"\D", "", time or "") or 0)
        # Services need a while to forget a pod, and nothing but the server waits for it.
        check(seconds(delay) >= 5, f"settings: drain_delay is {delay}, at least 5s in a cluster")
        check("preStop" not in container.get("lifecycle", {}), f"{name}: a preStop waits beside drain_delay")
        least = seconds(delay) + seconds(drain) + CUT + CLOSE + LAST
        check(pod["terminationGracePeriodSeconds"] >= least, f"{name}: the server may take {least} s to end, it gets less")
        version = container["image"].rpartition(":")[2]
        check("@" in container["image"] or version == WORKSPACE["version"], f"{name}: image {container['image']}")
    check_restricted(name, pod, user)


def check_restricted(name, pod, user):
    """The profile `restricted` of the Pod Security Standards, and the image's own user."""
    context = pod["securityContext"]
    check(context.get("runAsNonRoot") is True, f"{name}: may run as root")
    check(context.get("runAsUser") == context.get("fsGroup") == user, f"{name}: runs as another user than the image's, {user}")
    check(context.get("seccompProfile") == {"type": "RuntimeDefault"}, f"{name}: no seccomp profile")
    check(not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")), f"{name}: shares what is the host's")
    check(all({"configMap", "emptyDir", "secret", "image"} & set(each) for each in pod["volumes"]), f"{name}: a volume's kind")
    for container in pod["containers"] + pod.get("initContainers", []):
        own = container.get("securityContext", {})
        check(own.get("allowPrivilegeEscalation") is False, f"{name}: allows privilege escalation")
        check(own.get("capabilities") == {"drop": ["ALL"]}, f"{name}: keeps capabilities")
        check(own.get("readOnlyRootFilesystem") is True, f"{name}: the root file system can be written")


def check_selectors(objects):
    """Each selector finds the pods, each port beside it is gRPC's, the StatefulSet's Service is there and headless."""
    (server,) = (item for item in objects if item["kind"] == "StatefulSet")
    labels = server["spec"]["template"]["metadata"]["labels"].items()
    for item in objects:
        name, spec = f"{item['kind']} {item['metadata']['name']}", item.get("spec", {})
        selector = spec.get("selector", spec.get("podSelector", {}))
        selector = selector.get("matchLabels", selector)
        check(selector or item["kind"] not in SELECTING, f"{name}: selects nothing, or everything")
        check(selector.items() <= labels, f"{name}: selects {selector}, the pods have {dict(labels)}")
        rules = [rule for way in spec.get("ingress", []) for rule in way["ports"]]
        for each in [*spec.get("ports", []), *rules]:
            check(each.get("port") in (GRPC, "grpc"), f"{name}: port {each.get('port')}, the server's is {GRPC}")
            check(each.get("targetPort", GRPC) in (GRPC, "grpc"), f"{name}: targetPort {each.get('targetPort')}")
    headless = {item["metadata"]["name"] for item in objects if item.get("spec", {}).get("clusterIP") == "None"}
    check(server["spec"]["serviceName"] in headless, "the StatefulSet's serviceName is no headless Service")


def main():
    objects = [item for item in yaml.safe_load_all(Path(sys.argv[1]).read_text()) if item]
    missing = KINDS - {item["kind"] for item in objects}
    if missing:
        sys.exit(f"not rendered: {sorted(missing)}")
    image_env, user = dockerfile()
    for item in objects:
        if item["kind"] == "StatefulSet":
            check_pod(item["metadata"]["name"], item["spec"], image_env, user, objects)
    check_selectors(objects)
    sys.exit("\n".join(faults) or None)


main()

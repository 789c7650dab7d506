"""docker/kubernetes: rendered, held against the API's schemas, and tried in network namespaces.

What judges it is in build/vendor, where the Makefile puts it.
"""

import contextlib
import copy
import functools
import json
import os
import subprocess
import zipfile
from pathlib import Path

import jsonschema
import pytest
import yaml

import support
from support import wait_for

FOLDER = support.ROOT / "docker" / "kubernetes"
VENDOR = support.ROOT / "build" / "vendor"
VARIANTS = ("base", "mtls")
OLDEST = "v1.30.0"  # as base/kustomization.yaml says
# Of a block for documentation; they live in namespaces of their own.
POD, CLIENT = "192.0.2.1", "192.0.2.2"
ENVIRONMENT = {**os.environ, **support.SANITIZER, "KEYTRAIL_ROUTES_DIR": str(support.ROUTES.parent)}
# The names that kubectl gives the members of a secret, and the files of the PKI for them.
SECRETS = {"keytrail-tls": {"tls.crt": "server.pem", "tls.key": "server.key"},
           "key-service-tls": {"tls.crt": "kms.pem", "tls.key": "kms.key", "ca.crt": "ca.pem"},
           "keytrail-client": {"tls.crt": "client.pem", "tls.key": "client.key", "ca.crt": "ca.pem"}}


@functools.cache
def rendered(variant):
    """The objects of a variant."""
    assert (VENDOR / "kustomize").exists(), "`make integration` brings it"
    done = subprocess.run([VENDOR / "kustomize", "build", FOLDER / variant], check=True, text=True,
                          stdout=subprocess.PIPE)
    return list(yaml.safe_load_all(done.stdout))


def the(variant, kind, name=None):
    found = [o for o in rendered(variant)
             if o["kind"] == kind and name in (None, o["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} of {kind}"
    return copy.deepcopy(found[0])


def pod_of(variant):
    return the(variant, "StatefulSet")["spec"]["template"]["spec"]


def sidecar_of(variant):
    sidecar, = pod_of(variant)["initContainers"]
    return sidecar


def routes_of(variant):
    """What the sidecar's container reads, by the config map that the pod names."""
    mount = next(m for m in sidecar_of(variant)["volumeMounts"] if m["mountPath"].endswith(".json"))
    volume = next(v for v in pod_of(variant)["volumes"] if v["name"] == mount["name"])
    return json.loads(the(variant, "ConfigMap", volume["configMap"]["name"])["data"][mount["subPath"]])


# ---- the API's schemas ----


@functools.cache
def schemas():
    wheel, = (VENDOR / "kubernetes-validate").glob("*.whl")
    return zipfile.ZipFile(wheel)


def newest():
    versions = {name.split("/")[2].split("-")[0] for name in schemas().namelist() if "/v1." in name}
    return max(versions, key=lambda v: [int(part) for part in v[1:].split(".")])


@functools.cache
def schema(version, file):
    return json.loads(schemas().read(
        f"kubernetes_validate/kubernetes-json-schema/{version}-local-strict/{file}"))


def faults(thing, version):
    """What the API server of that version would not take."""
    group, _, number = thing["apiVersion"].rpartition("/")
    file = "-".join(filter(None, (thing["kind"].lower(), group.split(".")[0], number))) + ".json"
    resolver = jsonschema.RefResolver("", {}, handlers={
        scheme: lambda uri: schema(version, uri.rpartition("/")[2]) for scheme in ("", "https")})
    judge = jsonschema.Draft7Validator(schema(version, file), resolver=resolver)
    return [f"{'/'.join(map(str, e.absolute_path))}: {e.message[:200]}"
            for e in judge.iter_errors(thing)]


@pytest.mark.parametrize("version", [OLDEST, "newest"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_api_takes_every_object(variant, version):
    version = newest() if version == "newest" else version
    core = [o for o in rendered(variant) if not o["apiVersion"].startswith("monitoring.")]
    assert len(core) == 8
    assert {o["kind"]: found for o in core if (found := faults(o, version))} == {}


def test_the_api_minds_what_it_does_not_know():
    """So that the test above can fail, at any depth."""
    wrong = the("base", "StatefulSet")
    wrong["spec"]["template"]["spec"]["initContainers"][0]["readinessProb"] = {}
    wrong["spec"]["template"]["spec"]["securityContext"]["fsGroup"] = "65532"
    assert len(faults(wrong, OLDEST)) >= 2


def monitor_faults(monitor):
    """What the operator's own definition says of it, and the members that are not in there."""
    definition = yaml.safe_load((VENDOR / "podmonitors.yaml").read_text())
    version, = definition["spec"]["versions"]
    judge = jsonschema.Draft7Validator(closed(version["schema"]["openAPIV3Schema"]))
    return [f"{e.json_path}: {e.message[:200]}" for e in judge.iter_errors(monitor)]


def closed(thing):
    """A schema of which each object has the members that are named, and no other."""
    if isinstance(thing, list):
        return [closed(one) for one in thing]
    if not isinstance(thing, dict):
        return thing
    more = {"additionalProperties": False} if isinstance(thing.get("properties"), dict) else {}
    return {name: closed(value) for name, value in thing.items()} | more


def test_the_operator_takes_the_pod_monitor():
    monitor = the("base", "PodMonitor")
    assert monitor_faults(monitor) == []
    endpoint, = monitor["spec"]["podMetricsEndpoints"]
    endpoint["interval"] = "soon"
    endpoint["protocol"] = "http"
    interval, unknown = sorted(monitor_faults(monitor))
    assert "soon" in interval and "protocol" in unknown


# ---- what it promises ----


@pytest.mark.parametrize("variant", VARIANTS)
def test_pods_are_restricted(variant):
    """By the standard of that name, which their namespace enforces."""
    assert the(variant, "Namespace")["metadata"]["labels"][
        "pod-security.kubernetes.io/enforce"] == "restricted"
    pod = pod_of(variant)
    assert pod["securityContext"].items() >= {
        "runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}.items()
    assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}
    for container in pod["initContainers"] + pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]}}
    assert all(volume.keys() - {"name"} <= {"emptyDir", "configMap", "secret"}
               for volume in pod["volumes"])
    assert pod["automountServiceAccountToken"] is False
    assert the(variant, "ServiceAccount")["automountServiceAccountToken"] is False


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_trail_is_on_a_claim_that_outlives_the_pod(variant):
    spec = the(variant, "StatefulSet")["spec"]
    claims = [claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]]
    trail = routes_of(variant)["audit"]["trail"]
    mounts = [m for m in sidecar_of(variant)["volumeMounts"] if trail.startswith(m["mountPath"] + "/")]
    assert [m["name"] for m in mounts] == claims == ["trail"]
    assert set(spec["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_sidecar_is_there_first_and_ends_last(variant):
    assert sidecar_of(variant)["restartPolicy"] == "Always"
    pod = pod_of(variant)
    service, = pod["containers"]
    shape = json.loads(support.ROUTES.with_name("routes.schema.json").read_text())["$defs"]["sidecar"]
    drain = shape["properties"]["timeouts"]["properties"]["drain"]["default"]
    assert "timeouts" not in routes_of(variant) and drain.endswith("s")
    assert pod["terminationGracePeriodSeconds"] \
        > service["lifecycle"]["preStop"]["sleep"]["seconds"] + 2 * int(drain[:-1])


def port_of(address):
    return int(address.rpartition(":")[2])


@pytest.mark.parametrize("variant", VARIANTS)
def test_only_the_sidecar_can_be_asked(variant):
    """Service, policies and monitor name its two ports; nothing else is let in, KMIP (5696) neither."""
    routes = routes_of(variant)
    ports = {p["name"]: p["containerPort"] for p in sidecar_of(variant)["ports"]}
    assert ports == {"https": port_of(routes["listen"]["address"]),
                     "metrics": port_of(routes["metrics"]["address"])}
    assert [p["targetPort"] for p in the(variant, "Service")["spec"]["ports"]] == ["https"]
    assert the(variant, "NetworkPolicy", "default-deny")["spec"] == {
        "podSelector": {}, "policyTypes": ["Ingress"]}
    policy = the(variant, "NetworkPolicy", "key-service")["spec"]
    assert [(p["port"], bool(rule["from"])) for rule in policy["ingress"] for p in rule["ports"]] == [
        ("https", True), ("metrics", True)]
    endpoint, = the(variant, "PodMonitor")["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == "metrics"
    labels = the(variant, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    for kind, name in (("PodMonitor", None), ("PodDisruptionBudget", None)):
        assert the(variant, kind, name)["spec"]["selector"]["matchLabels"] == labels
    assert the(variant, "Service")["spec"]["selector"] == labels == policy["podSelector"]["matchLabels"]
    assert all(p["httpGet"]["port"] == "metrics" for p in
               (sidecar_of(variant)[k] for k in ("startupProbe", "livenessProbe", "readinessProbe")))
    assert "ports" not in pod_of(variant)["containers"][0]
    assert "5696" not in json.dumps(rendered(variant))
    assert (routes["audit"]["unmatched"], routes["audit"]["key_ids"]) == ("deny", "hmac")


# ---- the ways around it, tried ----


class Pod:
    """The containers of a variant in a network namespace, and a client in another one."""

    def __init__(self, folder, variant, pki, stack):
        self.folder, self.variant, self.stack, self.pki = folder, variant, stack, pki
        self.pod, self.client = self.namespace(), self.namespace()
        self.inside(self.pod, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0",
                    "netns", str(self.client.pid))
        for place, address in ((self.pod, POD), (self.client, CLIENT)):
            self.inside(place, "ip", "address", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                self.inside(place, "ip", "link", "set", device, "up")
        self.secrets = {name: {key: Path(pki[file]).read_bytes() for key, file in files.items()}
                        for name, files in SECRETS.items()}
        self.secrets["key-service"] = {"token-secret": b"a secret of the tokens, 32 bytes"}
        subprocess.run([support.KEYTRAIL, "keygen", folder / "sign.key", "example.com/pod"],
                       check=True, stdout=subprocess.DEVNULL)
        self.secrets["keytrail"] = {"sign.key": (folder / "sign.key").read_bytes(),
                                    "hmac.key": os.urandom(32), "admin.token": b"0123456789abcdef"}
        service, = pod_of(variant)["containers"]
        log = self.start(support.KMS, *self.here(service["args"], service, "service"))
        wait_for(lambda: "listening" in log.read_text(), "the key service")
        sidecar = sidecar_of(variant)
        self.routes = folder / "routes.json"
        self.routes.write_text(json.dumps(self.here(routes_of(variant), sidecar, "sidecar")))
        self.start(support.KEYTRAIL, "run", self.routes, ending=0)
        wait_for(lambda: self.run(self.pod, support.KEYTRAIL, "health", self.routes)[0] == 0,
                 "the sidecar to be ready")

    def namespace(self):
        holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        self.stack.callback(holder.wait)
        self.stack.callback(holder.kill)
        own = os.readlink("/proc/self/ns/net")
        wait_for(lambda: os.readlink(f"/proc/{holder.pid}/ns/net") != own, "a namespace")
        return holder

    @staticmethod
    def command(place, *arguments):
        return ["nsenter", f"--net=/proc/{place.pid}/ns/net", *map(str, arguments)]

    def inside(self, place, *arguments):
        subprocess.run(self.command(place, *arguments), check=True)

    def run(self, place, *arguments):
        done = subprocess.run(self.command(place, *arguments), check=False, text=True,
                              timeout=support.PATIENCE, capture_output=True, env=ENVIRONMENT)
        return done.returncode, done.stdout

    def start(self, program, *arguments, ending=None):
        """Runs until the end of the test."""
        log = open(self.folder / f"{program.name}.log", "ab")
        self.stack.callback(log.close)
        process = subprocess.Popen(
            self.command(self.pod, program, *arguments), stdout=log, stderr=log, env=ENVIRONMENT)

        def stop():
            process.terminate()
            code = process.wait(support.PATIENCE)
            assert ending in (None, code), Path(log.name).read_text()
        self.stack.callback(stop)
        return Path(log.name)

    def here(self, value, container, name):
        """The value with the folders where this container's mounts are on this machine."""
        text = json.dumps(value)
        for mount in container["volumeMounts"]:
            folder = self.folder / name / mount["mountPath"].lstrip("/")
            if "subPath" in mount:
                continue
            folder.mkdir(parents=True)
            volume = next((v for v in pod_of(self.variant)["volumes"] if v["name"] == mount["name"]), {})
            for key, content in self.secrets.get(volume.get("secret", {}).get("secretName"), {}).items():
                (folder / key).touch(volume["secret"]["defaultMode"])
                (folder / key).write_bytes(content)
            text = text.replace(mount["mountPath"] + "/", f"{folder}/")
        assert '"/etc' not in text and '"/var' not in text, text
        return json.loads(text)

    def token(self):
        return support.make_token(self.secrets["key-service"]["token-secret"])

    def ask(self, url, *options, place=None):
        """The status that curl gets, or how it failed."""
        code, said = self.run(place or self.client, "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}",
                              "-m", str(support.PATIENCE), "--cacert", self.pki["ca.pem"],
                              "-H", f"Authorization: Bearer {self.token()}",
                              "-H", f"Bluemix-Instance: {support.INSTANCE}",
                              "--connect-to", f"localhost::{POD}:", *options, url)
        return int(said) if code == 0 else f"curl {code}"

    def listeners(self):
        """Ports that can be reached from outside of the pod."""
        _, said = self.run(self.pod, "ss", "-Hltn")
        local = [line.split()[3].rpartition(":") for line in said.splitlines()]
        return {int(port) for address, _, port in local if not address.startswith(("127.", "[::1]"))}

    def calls(self):
        trail = Path(json.loads(self.routes.read_text())["audit"]["trail"])
        return [(e["action"], e["reason"].get("reasonCode")) for e in support.read_trail(trail)
                if not e["action"].startswith("keytrail.")]


@pytest.fixture
def pod(tmp_path, pki):
    """pod(variant): its containers, running."""
    if os.geteuid() != 0:
        pytest.skip("a network namespace can be made by root alone")
    with contextlib.ExitStack() as stack:
        yield lambda variant: Pod(tmp_path, variant, pki, stack)


REFUSED = "curl 7"
KEYS = "/api/v2/keys"


def test_a_key_service_on_loopback_is_reached_through_the_sidecar_only(pod):
    made = pod("base")
    assert made.ask(f"https://localhost:8443{KEYS}") == 200
    assert made.ask("https://localhost:8443/v1/secret") == 403
    wait_for(lambda: made.calls() == [("kms.secrets.list", 200), ("kms.secrets.default", 403)],
             "the events of both")
    assert made.ask(f"http://127.0.0.1:8080{KEYS}", place=made.pod) == 200
    assert made.ask(f"http://localhost:8080{KEYS}") == REFUSED
    assert made.ask("http://localhost:5696/") == REFUSED  # KMIP
    assert made.ask("http://localhost:9481/status") == REFUSED  # the admin listener
    assert made.listeners() == {8443, 9480}
    assert len(made.calls()) == 2


def test_a_key_service_that_wants_a_certificate_takes_the_sidecar_only(pod):
    made = pod("mtls")
    assert made.ask(f"https://localhost:8443{KEYS}") == 200
    wait_for(lambda: made.calls() == [("kms.secrets.list", 200)], "its event")
    direct = f"https://localhost:8444{KEYS}"
    forwarded = f"https://127.0.0.1:8444{KEYS}"  # a forwarded port arrives on the pod's loopback
    pair = ("--cert", made.pki["other-client.pem"], "--key", made.pki["other-client.key"])
    for options in ((), pair):
        assert str(made.ask(direct, *options)).startswith("curl "), options
        assert str(made.ask(forwarded, *options, place=made.pod)).startswith("curl "), options
    own = ("--cert", made.pki["client.pem"], "--key", made.pki["client.key"])
    assert made.ask(direct, *own) == made.ask(forwarded, *own, place=made.pod) == 200
    assert made.ask("http://localhost:5696/") == REFUSED
    assert made.listeners() == {8443, 8444, 9480}

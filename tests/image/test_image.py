"""The container image: built, looked into, run as on a cluster, stopped, its trail read.

Nothing is pulled: mmdebstrap makes the base of Debian's packages, and podman runs containers without a
daemon.  Storage and all that is built is under build/image; only the base stays there.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "integration"))

import backend as backends  # noqa: E402
import http1  # noqa: E402
import kafka  # noqa: E402
import support  # noqa: E402
from receiver import Receiver  # noqa: E402
from support import free_ports, wait_for  # noqa: E402
from test_first_process import children  # noqa: E402

SCRATCH = ROOT / "build" / "image"
NAME, KAFKA, KMS = "localhost/keytrail:test", "localhost/keytrail:kafka", "localhost/kms:test"
USER = 65532
MIB = 1 << 20
# Of each image its sinks that are modules, and the limit of its size.
IMAGES = {"image": (["http"], 25 * MIB), "image_kafka": (["http", "kafka"], 30 * MIB)}
# What is in it, besides these and the libraries that they and the program are linked with.
CONTENT = {"etc/group", "etc/nsswitch.conf", "etc/passwd", "etc/ssl/certs/ca-certificates.crt",
           "usr/lib/ssl/cert.pem", "usr/local/bin/keytrail",
           "usr/local/share/keytrail/routes/key-protect.json",
           "usr/local/share/keytrail/routes/routes.schema.json"}
LIBRARY = re.compile(r"lib(64)?/(x86_64-linux-gnu|aarch64-linux-gnu)?/?[\w.+-]+\.so[\w.]*")
# Others than this machine may have.
PLAIN = ["--network", "host", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
# As on a cluster: no root, no capability, nothing to write but the volume.
RESTRICTED = [*PLAIN, "--read-only", "--read-only-tmpfs=false", "--cap-drop", "all",
              "--security-opt", "no-new-privileges"]


@pytest.fixture(scope="session")
def podman():
    """podman(arguments): what it prints; its storage is this session's."""
    storage = SCRATCH / "storage"
    shutil.rmtree(storage, ignore_errors=True)
    storage.mkdir(parents=True)
    config = storage / "storage.conf"
    config.write_text(f'[storage]\ngraphroot = "{storage}/root"\nrunroot = "{storage}/run"\n')
    engine = storage / "containers.conf"
    engine.write_text('[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
                      f'lock_type = "file"\ntmp_dir = "{storage}/tmp"\n')
    os.environ.update(CONTAINERS_STORAGE_CONF=str(config), CONTAINERS_CONF=str(engine),
                      BUILDAH_ISOLATION="chroot")

    def run(*arguments, check=True):
        done = subprocess.run(["podman", *map(str, arguments)], check=False, text=True,
                              capture_output=True)
        assert done.returncode == 0 or not check, f"podman {arguments}: {done.stderr}"
        return done.stdout.strip() if check else done
    yield run
    run("rm", "--force", "--all", "--volumes")
    shutil.rmtree(storage)


def make_base():
    """A root of Debian's packages with this machine's settings of apt, as one finds it under that name."""
    base = SCRATCH / "base.tar"
    if not base.exists():
        settings = sorted(Path("/etc/apt/apt.conf.d").glob("99*"))
        hooks = [f"--customize-hook=copy-in {file} /etc/apt/apt.conf.d" for file in settings]
        new = SCRATCH / "base.new.tar"
        subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", "--include=ca-certificates", *hooks,
                        "bookworm", new], check=True)
        new.rename(base)
    return base


@pytest.fixture(scope="session")
def build(podman):
    """build(name, target, arguments of the Dockerfile): as `make image` does."""
    podman("import", "--quiet", make_base(), "debian:bookworm-slim")

    def make(name, target="keytrail", **arguments):
        flags = "".join(f" --build-arg {key}={value}" for key, value in arguments.items())
        done = subprocess.run([ROOT / "docker" / "build-image", name, target], check=False, text=True,
                              env={**os.environ, "BUILD_FLAGS": f"--network host{flags}"},
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert done.returncode == 0, done.stdout[-8000:]
        return name
    return make


@pytest.fixture(scope="session")
def image(build):
    return build(NAME)


@pytest.fixture(scope="session")
def image_kafka(build):
    return build(KAFKA, KAFKA="yes")


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    """That the container's user can read."""
    made = support.Pki(tmp_path_factory.mktemp("pki"))
    for path in (made.dir, *made.dir.iterdir()):
        os.chown(path, USER, USER)
    for path in made.dir.resolve().parents[:-2]:
        path.chmod(0o755)
    return made


@pytest.fixture(scope="session")
def kms(tmp_path_factory, pki):
    service = support.Kms(tmp_path_factory.mktemp("kms"), pki)
    yield service
    service.stop()


class Sidecar:
    """An image with a routes file and a volume, in one container after the other."""

    def __init__(self, podman, image, folder, pki, kms, sink):
        self.podman, self.image, self.folder, self.pki = podman, image, folder, pki
        self.volume = podman("volume", "create")
        self.trail = Path(podman("volume", "inspect", "--format", "{{.Mountpoint}}", self.volume)) / "trail"
        self.port, self.health = free_ports(2)
        self.key = subprocess.run([support.KEYTRAIL, "keygen", folder / "sign.key", "example.com/image"],
                                  check=True, text=True, stdout=subprocess.PIPE).stdout.strip()
        os.chown(folder / "sign.key", USER, USER)
        self.routes = {
            "listen": {"address": f"127.0.0.1:{self.port}",
                       "tls": {"certificate": "/pki/server.pem", "key": "/pki/server.key"}},
            "upstream": {"address": f"localhost:{kms.port}", "tls": {"ca": "/pki/ca.pem"}},
            "metrics": {"address": f"127.0.0.1:{self.health}"},
            "admin": {"socket": "/run/keytrail/admin.sock"},
            "audit": {"trail": "/var/lib/keytrail/trail", "sign": {"file": "/sign.key"}},
            "sinks": [{"name": "out", "type": "stdout"}, sink],
            "include": ["key-protect.json"]}
        (folder / "routes.json").write_text(json.dumps(self.routes))

    def start(self, *options):
        begin = time.monotonic()
        self.id = self.podman("run", "--detach", *RESTRICTED, *options,
                              "--env", "KEYTRAIL_CONFIG=/routes.json",
                              "--volume", f"{self.pki.dir}:/pki:ro",
                              "--volume", f"{self.folder}/sign.key:/sign.key:ro",
                              "--volume", f"{self.folder}/routes.json:/routes.json:ro",
                              "--volume", f"{self.volume}:/var/lib/keytrail",
                              "--volume", "/run/keytrail", self.image)
        self.wait_ready()
        self.seconds = time.monotonic() - begin
        self.pid = int(self.podman("inspect", "--format", "{{.State.Pid}}", self.id))
        return self

    def wait_ready(self):
        try:
            wait_for(lambda: is_ready(self.health), "it to be ready")
        except AssertionError:
            raise AssertionError(self.podman("logs", self.id, check=False)) from None

    def stop(self):
        self.podman("stop", "--time", support.PATIENCE, self.id)
        assert self.podman("inspect", "--format", "{{.State.ExitCode}}", self.id) == "0"

    def end(self):
        """Removes its containers, too."""
        self.podman("volume", "rm", "--force", self.volume)

    def log(self):
        """What it said, standard output and error."""
        done = self.podman("logs", self.id, check=False)
        return [json.loads(line) for line in (done.stdout + done.stderr).splitlines()
                if line.startswith("{")]

    def workers(self):
        def told():
            return [line["message"] for line in self.log() if line.get("event") == "started"]
        started, = wait_for(told, "its log to tell of the start")
        return int(re.search(r"(\d+) workers", started)[1])

    def status(self, name):
        """A line of /proc/PID/status."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        return re.search(rf"^{name}:\s*(.*)$", text, re.M)[1].split()

    def list_keys(self, kms, n=1):
        """So many calls; their correlation IDs."""
        sent = [support.new_id() for _ in range(n)]
        with http1.Client(int(self.port), self.pki.client()) as c:
            for correlation in sent:
                assert c.request("GET", "/api/v2/keys", kms.headers(correlation=correlation)).status == 200
        return sent

    def listed(self):
        """The correlation IDs of such calls in the trail."""
        return [e["correlationId"] for e in support.read_trail(self.trail)
                if e["action"] == "kms.secrets.list"]


def starts(trail):
    """What each start recorded."""
    return [e["details"] for e in support.read_trail(trail) if e["action"] == "keytrail.start"]


def is_ready(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz") as r:
            return r.read() == b"ready\n"
    except OSError:
        return False


def seconds_alone(sidecar):
    """From the start of this machine's own build, in no container, until it is ready."""
    text = re.sub('"/(?!pki/)(var/lib/keytrail/|run/keytrail/)?', f'"{sidecar.folder}/',
                  json.dumps(sidecar.routes)).replace('"/pki/', f'"{sidecar.pki.dir}/')
    file = sidecar.folder / "alone.json"
    file.write_text(text)
    begin = time.monotonic()
    environment = {**os.environ, "KEYTRAIL_ROUTES_DIR": str(support.ROUTES.parent),
                   "KEYTRAIL_MODULES_DIR": str(support.BUILD)}
    with subprocess.Popen([support.KEYTRAIL, "run", file], env=environment, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: is_ready(sidecar.health), "the program alone to be ready")
            return time.monotonic() - begin
        finally:
            process.terminate()


@pytest.fixture
def receiver(pki):
    """Of a sink over HTTP."""
    with contextlib.ExitStack() as stack:
        def backend(script):
            made = backends.RawBackend(script, pki.server())
            stack.callback(made.close)
            return made
        yield Receiver(backend)


@pytest.fixture
def sidecar(podman, image, tmp_path, pki, kms, receiver):
    made = Sidecar(podman, image, tmp_path, pki, kms, receiver.sink({"ca.pem": "/pki/ca.pem"})).start()
    yield made
    made.end()


# ---- what is in it ----


def entries(podman, image, scratch):
    """Its files as tar knows them."""
    container = podman("create", image)
    file = scratch / "image.tar"
    podman("export", "--output", file, container)
    podman("rm", container)
    with tarfile.open(file) as tar:
        return tar.getmembers()


def linked(*files):
    """The names of the libraries that they are linked with."""
    needed = subprocess.run(["ldd", *files], check=True, text=True, stdout=subprocess.PIPE)
    return {Path(path).name for path in re.findall(r"(/\S+) \(", needed.stdout)}


@pytest.mark.parametrize("name", IMAGES)
def test_nothing_is_in_it_that_the_program_does_not_need(podman, name, request, tmp_path, capsys):
    image, (sinks, limit) = request.getfixturevalue(name), IMAGES[name]
    modules = [f"sink_{sink}.so" for sink in sinks]
    content = CONTENT | {f"usr/local/lib/keytrail/{module}" for module in modules}
    members = entries(podman, image, tmp_path)
    files = {m.name: m for m in members if not m.isdir()}
    assert content - files.keys() == set()
    others = files.keys() - content
    assert [name for name in others if not LIBRARY.fullmatch(name)] == []
    assert {Path(name).name for name in others} == linked(support.KEYTRAIL,
                                                          *(support.BUILD / module for module in modules))
    assert [m.name for m in members if m.mode & 0o6000] == []
    assert {m.name for m in members if m.uid != 0} == {"var/lib/keytrail", "run/keytrail"}
    size = sum(m.size for m in members)
    with capsys.disabled():
        print(f"\n{image}: {size / MIB:.1f} MiB")
    assert 0 < size <= limit
    assert 0 < int(podman("inspect", "--format", "{{.Size}}", image)) <= limit


def test_it_says_how_it_wants_to_be_run(podman, image):
    made, = json.loads(podman("inspect", image))
    config = made["Config"]
    assert config["User"] == f"{USER}:{USER}"
    assert config["StopSignal"] in ("SIGTERM", "15")
    assert config["Volumes"].keys() == {"/var/lib/keytrail"}
    assert made["Healthcheck"]["Test"] == ["CMD", "keytrail", "health"]


def test_it_says_what_is_wrong_and_ends(podman, image):
    done = podman("run", "--rm", *RESTRICTED, image, check=False)
    assert done.returncode == 78
    assert "/etc/keytrail/routes.json" in done.stderr


# ---- its life ----


def test_it_has_no_right_that_it_does_not_need(sidecar, capsys):
    assert sidecar.status("Uid") == [str(USER)] * 4
    assert int(sidecar.status("CapEff")[0], 16) == int(sidecar.status("CapPrm")[0], 16) == 0
    assert sidecar.status("NoNewPrivs") == ["1"] and sidecar.status("NSpid")[-1] == "1"
    resident = int(sidecar.status("VmRSS")[0]) / 1024
    sidecar.stop()
    alone = seconds_alone(sidecar)
    inside, outside = (starts(folder)[0]["sandbox"] for folder in (sidecar.trail, sidecar.folder / "trail"))
    assert {*inside.split()} == {*outside.split(), "user"}
    with capsys.disabled():
        print(f"\ncontainer: ready {sidecar.seconds:.2f} s after `podman run`, {resident:.1f} MiB resident; "
              f"the program alone: {alone:.2f} s")


def test_its_health_is_told(podman, sidecar):
    podman("healthcheck", "run", sidecar.id)
    os.kill(sidecar.pid, signal.SIGSTOP)
    assert podman("healthcheck", "run", sidecar.id, check=False).returncode == 1
    os.kill(sidecar.pid, signal.SIGCONT)
    podman("healthcheck", "run", sidecar.id)


def test_calls_through_it_are_in_the_trail_when_it_has_ended(podman, sidecar, kms, receiver):
    sent = sidecar.list_keys(kms, 20)
    assert podman("exec", sidecar.id, "keytrail", "health") == "ready"
    podman("exec", sidecar.id, "keytrail", "hold", "add", "case-7", "--from", "1", "--to", "9")
    assert "case-7" in podman("exec", sidecar.id, "keytrail", "hold", "list")
    sidecar.stop()
    support.check_trail(sidecar.trail)
    assert sidecar.listed() == sent
    for delivered in (sidecar.log(), receiver.taken):
        assert [e["correlationId"] for e in delivered if e.get("action") == "kms.secrets.list"] == sent
    verified = subprocess.run([support.KEYTRAIL, "verify", sidecar.trail, "--key", sidecar.key], check=False,
                              text=True, capture_output=True)
    assert verified.returncode == 0, verified.stdout


def test_events_reach_a_topic(podman, image_kafka, tmp_path, pki, kms):
    with contextlib.closing(kafka.Mock()) as mock:
        sidecar = Sidecar(podman, image_kafka, tmp_path, pki, kms, kafka.sink(mock.brokers)).start()
        sent = sidecar.list_keys(kms, 20)
        sidecar.stop()
        taken = [json.loads(record["payload"]) for record in kafka.records(mock.brokers)]
    assert [e["correlationId"] for e in taken if e["action"] == "kms.secrets.list"] == sent
    sidecar.end()


def test_another_container_goes_on_with_the_volume(sidecar, kms):
    sent = sidecar.list_keys(kms)
    sidecar.stop()
    sidecar.start()
    sent += sidecar.list_keys(kms)
    sidecar.stop()
    support.check_trail(sidecar.trail)
    assert sidecar.listed() == sent
    assert [(d["newLog"], d["clean"]) for d in starts(sidecar.trail)] == [(True, True), (False, True)]


def test_workers_are_as_many_as_its_quota_allows(sidecar):
    assert sidecar.workers() == len(os.sched_getaffinity(0))
    sidecar.stop()
    sidecar.start("--cpus", "0.5")
    assert sidecar.workers() == 1


def test_nothing_can_be_written_and_nothing_else_run(podman, sidecar):
    assert podman("exec", sidecar.id, "sh", "-c", ":", check=False).returncode != 0
    assert podman("exec", sidecar.id, "keytrail", "keygen", "/new.key", "name", check=False).returncode == 1
    assert podman("exec", sidecar.id, "keytrail", "version").startswith("keytrail ")


def test_orphans_are_buried(sidecar, tmp_path):
    before = children(sidecar.pid)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    subprocess.run(["nsenter", f"--pid=/proc/{sidecar.pid}/ns/pid", "sh", "-c", f"(read -r x <{pipe} &)"],
                   check=True)
    wait_for(lambda: children(sidecar.pid) != before, "the orphan to be its child")
    pipe.write_text("go\n")
    wait_for(lambda: children(sidecar.pid) == before, "the orphan to be gone")


def test_a_kill_loses_nothing(podman, sidecar, kms):
    sent = sidecar.list_keys(kms)
    os.kill(sidecar.pid, signal.SIGKILL)
    wait_for(lambda: podman("inspect", "--format", "{{.State.Status}}", sidecar.id) == "exited",
             "its end")
    podman("start", sidecar.id)
    sidecar.wait_ready()
    wait_for(lambda: [e for e in support.read_trail(sidecar.trail) if e["action"] == "keytrail.recover"],
             "the record of the kill")
    sidecar.stop()
    support.check_trail(sidecar.trail)
    assert sidecar.listed() == sent


def test_the_key_service_of_the_compose_file(podman, build, tmp_path):
    image = build(KMS, "kms")
    with contextlib.ExitStack() as stack:
        volume = podman("volume", "create")
        stack.callback(podman, "volume", "rm", volume)
        podman("run", "--rm", *PLAIN, "--volume", f"{volume}:/pki", "--entrypoint", "make-pki", image, "/pki")
        container = podman("run", "--detach", *PLAIN, "--volume", f"{volume}:/pki:ro", image, "--cert",
                           "/pki/kms.pem", "--key", "/pki/kms.key", "--token-secret", "/pki/token-secret")
        stack.callback(podman, "rm", "--force", container)
        wait_for(lambda: "listening" in podman("logs", container), "the key service")
        assert podman("run", "--rm", *PLAIN, "--volume", f"{volume}:/pki:ro", image, "--token-secret",
                      "/pki/token-secret", "--mint", "me").count(".") == 2

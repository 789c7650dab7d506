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

import http1  # noqa: E402
import support  # noqa: E402
from support import wait_for  # noqa: E402
from test_first_process import children  # noqa: E402
from test_readme import free_ports  # noqa: E402

SCRATCH = ROOT / "build" / "image"
NAME, KMS = "localhost/keytrail:test", "localhost/kms:test"
USER = 65532
MIB = 1 << 20
LIMIT = 25 * MIB
# What is in it, besides the libraries that the program is linked with.
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
    if os.geteuid() != 0:
        pytest.fail("containers are run here as root alone")
    mounts = Path("/proc/self/mountinfo").read_text()
    if not re.search(r"^(\S+ ){4}/ ", mounts, re.M) or " - cgroup" not in mounts:
        pytest.fail("containers want a root that is a mount, no chroot, and cgroups under /sys/fs/cgroup")
    storage = SCRATCH / "storage"
    shutil.rmtree(storage, ignore_errors=True)
    storage.mkdir(parents=True)
    config = storage / "storage.conf"
    config.write_text(f'[storage]\ndriver = "vfs"\ngraphroot = "{storage}/root"\nrunroot = "{storage}/run"\n')
    os.environ.update(CONTAINERS_STORAGE_CONF=str(config), BUILDAH_ISOLATION="chroot")

    def run(*arguments, check=True):
        done = subprocess.run(["podman", "--runtime", "runc", *map(str, arguments)], check=False,
                              text=True, capture_output=True)
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
    """build(name, target): as `make image` does."""
    podman("import", "--quiet", make_base(), "debian:bookworm-slim")

    def make(name, target):
        done = subprocess.run([ROOT / "docker" / "build-image", name, target], check=False, text=True,
                              env={**os.environ, "BUILD_FLAGS": "--network host"}, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        assert done.returncode == 0, done.stdout[-8000:]
        return name
    return make


@pytest.fixture(scope="session")
def image(build):
    return build(NAME, "keytrail")


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
    """A container of the image, from its start until it is ready."""

    def __init__(self, podman, folder, pki, kms):
        self.podman, self.pki = podman, pki
        self.trail = folder / "volume"
        self.trail.mkdir()
        os.chown(self.trail, USER, USER)
        signer = folder / "sign.key"
        self.key = subprocess.run([support.KEYTRAIL, "keygen", signer, "example.com/image"], check=True,
                                  text=True, stdout=subprocess.PIPE).stdout.strip()
        os.chown(signer, USER, USER)
        file = folder / "routes.json"
        file.write_text(json.dumps({
            "listen": {"address": "127.0.0.1:0",
                       "tls": {"certificate": "/pki/server.pem", "key": "/pki/server.key"}},
            "upstream": {"address": f"localhost:{kms.port}", "tls": {"ca": "/pki/ca.pem"}},
            "metrics": {"address": f"127.0.0.1:{free_ports(1)[0]}"},
            "audit": {"trail": "/var/lib/keytrail/trail", "sign": {"file": "/sign.key"}},
            "sinks": [{"name": "out", "type": "stdout"}],
            "include": ["key-protect.json"]}))
        begin = time.monotonic()
        self.id = podman("run", "--detach", *RESTRICTED, "--env", "KEYTRAIL_CONFIG=/routes.json",
                         "--volume", f"{pki.dir}:/pki:ro", "--volume", f"{signer}:/sign.key:ro",
                         "--volume", f"{file}:/routes.json:ro",
                         "--volume", f"{self.trail}:/var/lib/keytrail", NAME)
        self.ports = wait_for(self.listening, "the listeners")
        wait_for(lambda: self.metrics("/readyz") == "ready\n", "it to be ready")
        self.seconds = time.monotonic() - begin
        self.pid = int(podman("inspect", "--format", "{{.State.Pid}}", self.id))

    def log(self):
        """What it said, standard output and error."""
        done = self.podman("logs", self.id, check=False)
        return [json.loads(line) for line in (done.stdout + done.stderr).splitlines()
                if line.startswith("{")]

    def listening(self):
        assert self.podman("inspect", "--format", "{{.State.Status}}", self.id) != "exited", self.log()
        ports = {line["message"].split()[0]: int(line["message"].rpartition(":")[2])
                 for line in self.log() if line.get("event") == "listening"}
        return ports if len(ports) == 2 else None

    def metrics(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['metrics']}{path}") as r:
            return r.read().decode()

    def status(self, name):
        """A line of /proc/PID/status."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        return re.search(rf"^{name}:\s*(.*)$", text, re.M)[1].split()


@pytest.fixture
def sidecar(podman, image, tmp_path, pki, kms):
    made = Sidecar(podman, tmp_path, pki, kms)
    yield made
    podman("rm", "--force", made.id)


# ---- what is in it ----


def entries(podman, image, scratch):
    """Its files as tar knows them."""
    container = podman("create", image)
    file = scratch / "image.tar"
    podman("export", "--output", file, container)
    podman("rm", container)
    with tarfile.open(file) as tar:
        return tar.getmembers()


def test_nothing_is_in_it_that_the_program_does_not_need(podman, image, tmp_path, capsys):
    members = entries(podman, image, tmp_path)
    files = {m.name: m for m in members if not m.isdir()}
    assert CONTENT - files.keys() == set()
    others = files.keys() - CONTENT
    assert [name for name in others if not LIBRARY.fullmatch(name)] == []
    needed = subprocess.run(["ldd", support.KEYTRAIL], check=True, text=True, stdout=subprocess.PIPE)
    assert {Path(name).name for name in others} == {
        Path(path).name for path in re.findall(r"(/\S+) \(", needed.stdout)}
    assert [m.name for m in members if m.mode & 0o6000] == []
    assert {m.name for m in members if m.uid != 0} == {"var/lib/keytrail", "run/keytrail"}
    size = sum(m.size for m in members)
    with capsys.disabled():
        print(f"\nimage: {size / MIB:.1f} MiB")
    assert size <= LIMIT
    assert podman("inspect", "--format", "{{.Size}}", image).isdigit()
    assert int(podman("inspect", "--format", "{{.Size}}", image)) <= LIMIT


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


def test_calls_through_it_are_in_the_trail_when_it_has_ended(podman, sidecar, kms, tmp_path, capsys):
    with http1.Client(sidecar.ports["listen"], sidecar.pki.client()) as c:
        sent = [support.new_id() for _ in range(20)]
        for correlation in sent:
            assert c.request("GET", "/api/v2/keys", kms.headers(correlation=correlation)).status == 200
    assert podman("exec", sidecar.id, "keytrail", "health") == "ready"
    podman("healthcheck", "run", sidecar.id)
    resident = int(sidecar.status("VmRSS")[0]) / 1024
    with capsys.disabled():
        print(f"\ncontainer: ready after {sidecar.seconds:.2f} s, {resident:.1f} MiB resident")
    assert sidecar.status("Uid") == [str(USER)] * 4
    assert int(sidecar.status("CapEff")[0], 16) == int(sidecar.status("CapPrm")[0], 16) == 0
    assert sidecar.status("NoNewPrivs") == ["1"] and sidecar.status("NSpid")[-1] == "1"
    podman("stop", "--time", support.PATIENCE, sidecar.id)
    assert podman("inspect", "--format", "{{.State.ExitCode}}", sidecar.id) == "0"
    trail = sidecar.trail / "trail"
    support.check_trail(trail)
    calls = [e["correlationId"] for e in support.read_trail(trail) if e["action"] == "kms.secrets.list"]
    assert calls == sent
    delivered = [line["correlationId"] for line in sidecar.log() if line.get("action") == "kms.secrets.list"]
    assert delivered == sent
    verified = subprocess.run([support.KEYTRAIL, "verify", trail, "--key", sidecar.key], check=False,
                              text=True, capture_output=True)
    assert verified.returncode == 0, verified.stdout


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
    with http1.Client(sidecar.ports["listen"], sidecar.pki.client()) as c:
        assert c.request("GET", "/api/v2/keys", kms.headers()).status == 200
    os.kill(sidecar.pid, signal.SIGKILL)
    wait_for(lambda: podman("inspect", "--format", "{{.State.Status}}", sidecar.id) == "exited",
             "its end")
    podman("start", sidecar.id)
    trail = sidecar.trail / "trail"
    wait_for(lambda: [e for e in support.read_trail(trail) if e["action"] == "keytrail.recover"],
             "the record of the kill")
    podman("stop", "--time", support.PATIENCE, sidecar.id)
    support.check_trail(trail)
    assert len([e for e in support.read_trail(trail) if e["action"] == "kms.secrets.list"]) == 1


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

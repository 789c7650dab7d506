"""Fixtures: the PKI, the stand-in key service, scripted back ends, and the sidecar itself."""

import contextlib
import itertools
import json
import os
import random
import subprocess
import tempfile
import time
from pathlib import Path
from socket import SO_REUSEADDR, SOL_SOCKET, socket as Socket

import jsonschema
import pytest

import backend as backends
import faults
import support


SEED = os.environ.get("KEYTRAIL_SEED", str(time.time_ns() % 10**6))


@pytest.fixture(autouse=True)
def seed():
    """What a test draws, the same KEYTRAIL_SEED has it draw again."""
    print(f"KEYTRAIL_SEED={SEED}")
    random.seed(SEED)


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    return support.Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def kms(tmp_path_factory, pki):
    service = support.Kms(tmp_path_factory.mktemp("kms"), pki)
    yield service
    service.stop()


@pytest.fixture
def raw_backend(pki):
    """raw_backend(script): a scripted back end with the key service's certificate."""
    made = []

    def make(script, tls=True, context=None, **options):
        context = context or (pki.server() if tls else None)
        made.append(backends.RawBackend(script, context, **options))
        return made[-1]

    yield make
    for backend in made:
        backend.close()
    for backend in made:
        assert backend.errors == []


@pytest.fixture
def dead_port():
    """dead_port(): a port on which nobody listens, and that nobody else is given."""
    with contextlib.ExitStack() as held:
        def make():
            sock = held.enter_context(Socket())
            sock.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)  # who names the port may have it
            sock.bind(("127.0.0.1", 0))
            return sock.getsockname()[1]
        yield make


@pytest.fixture(scope="session")
def schema():
    """An independent validator with the schema of routes files."""
    made = subprocess.run([support.KEYTRAIL, "routes", "--schema"], check=True, stdout=subprocess.PIPE)
    return jsonschema.Draft202012Validator(json.loads(made.stdout))


@pytest.fixture(scope="session", autouse=True)
def whatever_is_accepted_fits_the_schema(schema):
    support.Keytrail.accepted = staticmethod(lambda path: schema.validate(json.loads(path.read_text())))


@pytest.fixture
def keytrail(tmp_path, pki, kms):
    """keytrail(backend, config): a running sidecar; every one is stopped and its trail checked."""
    made = []
    numbers = itertools.count()

    def make(backend=None, config=None, start=True, **options):
        folder = tmp_path / f"keytrail{next(numbers)}"
        made.append(support.Keytrail(folder, pki, backend or kms, config, **options))
        return made[-1].start() if start else made[-1]

    yield make
    for sidecar in made:
        sidecar.finish()


@pytest.fixture
def signer(tmp_path):
    """The file of a new key, and the text that verifies what it signs."""
    made = subprocess.run([support.KEYTRAIL, "keygen", tmp_path / "sign.key", "example.com/test"],
                          check=True, stdout=subprocess.PIPE, text=True)
    return tmp_path / "sign.key", made.stdout.strip()


@pytest.fixture
def disk(tmp_path):
    """A disk that fails when told, for keytrail(..., environment=disk.environment)."""
    return faults.Disk(tmp_path / "faults")


@pytest.fixture
def memory(tmp_path):
    """An allocator that counts, for keytrail(..., environment=memory.environment)."""
    return faults.Memory(tmp_path / "memory")


@pytest.fixture
def small_disk(tmp_path):
    """A folder on an ext4 of its own, of 32 MiB; where nothing may be mounted the test is skipped."""
    image, folder = tmp_path / "disk.img", tmp_path / "disk"
    folder.mkdir()
    with open(image, "wb") as f:
        f.truncate(32 << 20)
    subprocess.run(["/usr/sbin/mkfs.ext4", "-q", "-F", "-m", "0", image], check=True)
    if subprocess.run(["mount", "-o", "loop", image, folder], stderr=subprocess.DEVNULL,
                      check=False).returncode != 0:
        pytest.skip("a file system can be mounted by root alone")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def socket():
    """A path that is short enough for one."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "admin.sock"


@pytest.fixture
def key(kms, pki):
    """The id of a fresh root key, made without the sidecar."""
    import http1
    with http1.Client(kms.port, pki.client()) as c:
        r = c.request("POST", "/api/v2/keys", kms.headers(),
                      json.dumps({"resources": [{"name": "a test's key"}]}))
        assert r.status == 201
        return json.loads(r.body)["resources"][0]["id"]


@pytest.fixture
def clock(tmp_path):
    """Sets the seconds that the sidecar's wall clock is off, and the environment for that."""
    class Clock:
        file = tmp_path / "clock"
        environment = {"LD_PRELOAD": str(support.BUILD / "faults" / "clock.so"),
                       "KEYTRAIL_CLOCK": str(file), "ASAN_OPTIONS": "verify_asan_link_order=0"}

        def set(self, seconds):
            new = self.file.with_suffix(".new")
            new.write_text(str(seconds))
            new.rename(self.file)
    return Clock()

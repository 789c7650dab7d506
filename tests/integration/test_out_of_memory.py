"""The n-th allocation of the process fails (tests/faults/memory.c): an error, never a crash, and no
call without its record.

Each KEYTRAIL_MEMORY_STEP-th allocation (1: all) from a random first one; without it, as many as take
seconds.
"""

import contextlib
import json
import math
import mmap
import os
import random
import ssl
import struct

import pytest

import http1
from backend import ok
from support import BUILD, PATIENCE, REPORT, SANITIZED, new_id, wait_for

pytestmark = pytest.mark.skipif(SANITIZED, reason="a sanitizer brings an allocator of its own")

FEW = 12
FOR_EVER = 1 << 62
STEP = int(os.environ.get("KEYTRAIL_MEMORY_STEP", "0"))


class Memory:
    """What the process is told, and has counted."""

    def __init__(self, file):
        file.write_bytes(bytes(24))
        with open(file, "r+b") as f:
            self.map = mmap.mmap(f.fileno(), 24)
        self.environment = {"LD_PRELOAD": str(BUILD / "faults" / "memory.so"),
                            "KEYTRAIL_MEMORY": str(file)}

    def set(self, first, times=1):
        """The first allocation from now on fails, as the first of so many; 0: none does."""
        self.map[0:8] = bytes(8)
        self.map[16:24] = bytes(8)
        self.map[8:16] = struct.pack("=Q", times)
        self.map[0:8] = struct.pack("=Q", first)

    def count(self):
        return struct.unpack("=Q", self.map[16:24])[0]


@pytest.fixture
def memory(tmp_path):
    return Memory(tmp_path / "memory")


def some(n):
    """The allocations that are made to fail, of n."""
    step = STEP or math.ceil(n / FEW)
    return range(random.randint(1, min(step, n)), n + 1, step)


def count(memory, action):
    memory.set(0)
    action()
    return memory.count()


@pytest.fixture
def signed(keytrail, raw_backend, memory, signer, tmp_path):
    """signed(): a sidecar with every part that there is."""
    backend = raw_backend(ok())

    def make(workers=1, **options):
        return keytrail(backend, {
            "audit": {"sign": {"file": str(signer[0])}}, "workers": workers,
            "sinks": [{"name": "file", "type": "file", "path": str(tmp_path / "sink.jsonl")}]},
            environment=memory.environment, **options)

    make.backend = backend
    return make


def fail_to_start(sidecar):
    """False: it runs.  Else it has said why not, alone of all that it says not as JSON."""
    sidecar.stderr_file.write_bytes(b"")
    if sidecar.spawn_and_listen():
        return False
    *log, reason = sidecar.stderr().splitlines()
    assert sidecar.process.poll() in (1, 78), sidecar.stderr()
    assert reason and not REPORT.search(reason) and all(json.loads(line) for line in log)
    sidecar.stderr_file.write_bytes(b"")
    return True


def test_a_start(signed, memory):
    """It starts, with all that it needs, or says why not."""
    sidecar = signed(start=False)
    for n in some(count(memory, sidecar.start)):
        sidecar.stop()
        memory.set(n)
        failed = fail_to_start(sidecar)
        memory.set(0)
        if failed:
            sidecar.start()
        assert sidecar.call("GET", "/api/v2/keys").status == 200, f"allocation {n}"


def test_a_start_with_no_memory_left(signed, memory):
    """It says so."""
    sidecar = signed(start=False)
    for n in some(count(memory, sidecar.start)):
        sidecar.stop()
        memory.set(n, FOR_EVER)
        failed = fail_to_start(sidecar)
        memory.set(0)
        if failed:
            sidecar.start()
        assert failed or n > memory.count() - FEW, f"allocation {n}"


def attempt(sidecar, context, sent, requests):
    """Requests on a connection of their own; whatever comes of them."""
    with contextlib.suppress(http1.Closed, ConnectionError, ssl.SSLError, TimeoutError):
        with http1.Client(sidecar.port, context) as c:
            for _ in range(requests):
                sent.append(new_id())
                r = c.request("POST", "/api/v2/keys", {"Correlation-Id": sent[-1]}, b"x" * 20000)
                assert r.status in (200, 502, 503, 500), r.status


def test_a_call(signed, memory, pki):
    """It is answered or the connection is closed; what the key service has seen is recorded."""
    sidecar = signed()
    sent = []
    context = pki.client()

    def call():
        attempt(sidecar, context, sent, 2)

    call()
    for n in some(count(memory, call)):
        memory.set(n)
        call()
        memory.set(0)
        assert sidecar.process.poll() is None, f"allocation {n}: {sidecar.stderr()[-3000:]}"
        assert sidecar.call("GET", "/api/v2/keys").status == 200, f"after allocation {n}"
    seen = {r.get("Correlation-Id") for r in signed.backend.requests} & set(sent)
    assert seen
    wait_for(lambda: seen <= {e["correlationId"] for e in sidecar.calls()}, "every record")


def names_of(sidecar, calls):
    """What so many connections in turn, so that each worker has some, have a path called."""
    before = len(sidecar.calls())
    for _ in range(calls):
        answer = sidecar.call("GET", "/custom")
        assert answer.status == 200, f"{answer.body}: {sidecar.stderr()[-3000:]}"
    return {e["action"] for e in sidecar.wait_calls(before + calls)[before:]}


@pytest.mark.parametrize("times", [1, FOR_EVER])
def test_a_reload(signed, memory, times):
    """It is done by all workers, or recorded as failed and done by none; then it works again."""
    sidecar = signed(workers=2)
    name = "kms.secrets.default"
    total = count(memory, sidecar.reload)
    # The last are the workers' own.
    for n in (*some(total), *range(total - FEW, total)):
        tried = f"custom.name.n{n}"
        memory.set(n, times)
        event = sidecar.reload(routes=[{"action": tried, "method": "GET", "path": "/custom"}])
        memory.set(0)
        assert sidecar.process.poll() is None, f"allocation {n}: {sidecar.stderr()[-3000:]}"
        if event["outcome"] == "success":
            name = tried
        assert names_of(sidecar, 4) == {name}, f"allocation {n}"
    assert sidecar.reload()["outcome"] == "success"
    assert names_of(sidecar, 4) == {tried}


def test_a_stop(signed, memory):
    """What was recorded stays recorded, and the end comes."""
    sidecar = signed()
    for n in some(count(memory, sidecar.stop)):
        sidecar.start()
        sidecar.call("GET", "/api/v2/keys")
        memory.set(n)
        sidecar.process.terminate()
        try:
            code = sidecar.process.wait(PATIENCE)
        finally:
            memory.set(0)
        assert code in (0, 1), f"allocation {n}: exit {code}"
    sidecar.start()

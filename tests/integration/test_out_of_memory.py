"""The n-th allocation of the process fails (tests/faults/memory.c): an error that names memory, never a
crash or a leak, and no call without its record.

KEYTRAIL_MEMORY_STEP: each so manieth allocation from a random first one (1: all).  Without it, as many
as take seconds.
"""

import contextlib
import http.client
import json
import math
import os
import random
import re
import ssl
import subprocess

import pytest

import http1
import oracle
from backend import ok
from faults import said
from support import BUILD, KEYTRAIL, PATIENCE, REPORT, SANITIZED, merge, new_id, wait_for
from test_events_stream import Stream, lines

pytestmark = pytest.mark.skipif(SANITIZED, reason="a sanitizer brings an allocator of its own")

FEW = 12
SOME = 60  # of what takes milliseconds
FOR_EVER = 1 << 62
ONE_OR_ALL = pytest.mark.parametrize("times", [1, FOR_EVER], ids=["once", "from then on"])
STEP = int(os.environ.get("KEYTRAIL_MEMORY_STEP", "0"))
NAMES_MEMORY = re.compile("[Mm]emory|malloc")


def some(n, few=FEW):
    """The allocations that are made to fail, of n."""
    step = STEP or math.ceil(n / few)
    return range(random.randint(1, min(step, n)), n + 1, step)


def count(memory, action):
    memory.set(0)
    action()
    return memory.count()


def file_sink(tmp_path, **options):
    return {"name": "file", "type": "file", "path": str(tmp_path / "sink.jsonl"), **options}


# ---- one exchange, whatever it is ----

class Watch:
    """What a sidecar holds between two exchanges."""

    GAUGES = ("keytrail_requests_in_flight", "keytrail_connections_open", "keytrail_sink_lag_events")

    def __init__(self, sidecar, memory):
        self.sidecar, self.memory = sidecar, memory
        self.descriptors = f"/proc/{sidecar.process.pid}/fd"

    def figures(self):
        lines = self.sidecar.fetch("metrics", "/metrics").splitlines()
        return {name: float(value) for name, _, value in
                (line.rpartition(" ") for line in lines if not line.startswith("#"))}

    def told(self):
        """How often it has given up something for want of memory."""
        return self.figures()["keytrail_out_of_memory_total"]

    def is_idle(self):
        figures = self.figures()
        return not any(v for k, v in figures.items() if k.startswith(self.GAUGES)) and \
            figures["keytrail_upstream_connections_open"] == \
            figures["keytrail_upstream_connections_idle"]

    def held(self):
        """At rest: blocks of memory, descriptors."""
        wait_for(self.is_idle, "the end of the exchange")
        return self.memory.held(), len(os.listdir(self.descriptors))

    def leaks(self, exchange):
        """What grows with each exchange.  What is kept for the next time is kept once."""
        before = self.held()
        for _ in range(6):
            exchange()
            after = self.held()
            if all(now <= was for now, was in zip(after, before)):
                return None
            grown, before = (before, after), after
        return grown


def fail_each(watch, exchange, numbers, times, tells=True):
    """Each of these allocations fails in an exchange (True: as if none had): the sidecar lives, tells
    what it gave up, and is afterwards as it was.  How many exchanges failed."""
    memory = watch.memory

    def fail(n):
        memory.set(n, times)
        try:
            return exchange()
        finally:
            memory.set(0)

    failed = 0
    for n in numbers:
        told = watch.told()
        good = fail(n)
        failed += not good
        assert watch.sidecar.process.poll() is None, \
            f"allocation {n}: {watch.sidecar.stderr()[-3000:]}"
        if tells and not good:
            wait_for(lambda before=told: watch.told() > before, f"a word of allocation {n}")
        wait_for(exchange, f"it to serve again after allocation {n}")
        leaked = watch.leaks(lambda n=n: (fail(n), exchange()))
        assert leaked is None, f"allocation {n} leaves: blocks, descriptors {leaked}"
    return failed


PLAIN = {"listen": {"tls": None}, "upstream": {"tls": None}}
BODY = b"x" * 50000
SMALL = {"limits": {"connections": 50}, "workers": 1}


class Calls:
    """Exchanges of a client on a connection of its own, all of which ask for the same."""

    def __init__(self, sidecar, backend, how, context):
        self.sidecar, self.backend, self.how, self.context = sidecar, backend, how, context
        self.sent = {}  # correlation ID: the status that came, or None

    def __call__(self):
        """Has the key service answered?  Who answers instead says why."""
        correlation = new_id()
        self.sent[correlation] = None
        method, path, *body = self.how
        with contextlib.suppress(http1.Closed, ConnectionError, ssl.SSLError):
            with http1.Client(self.sidecar.port, self.context) as c:
                r = c.request(method, path, {"Correlation-Id": correlation}, *body)
                self.sent[correlation] = r.status
                assert r.status == 200 or b"OUT_OF_MEMORY" in r.body, r.body
                return r.status == 200
        return False

    def check(self):
        """One event of each that was answered or that the key service has seen, else at most one."""
        seen = {r.get("Correlation-Id") for r in self.backend.requests}
        wanted = {c for c, status in self.sent.items() if status is not None} | seen

        def events():
            found = [e["correlationId"] for e in self.sidecar.calls()
                     if e["correlationId"] in self.sent]
            return found if wanted <= set(found) else None

        found = wait_for(events, "every record")
        assert len(found) == len(set(found))


ASYNC, DURABLE, INTENT = ((c.method, c.path, c.body) for c in oracle.CALLS[:3])
CASES = {
    "async": (ASYNC, PLAIN),
    "durable": (DURABLE, PLAIN),
    "intent": (INTENT, PLAIN),
    "large bodies": (("POST", "/api/v2/keys?large", BODY), PLAIN),
    "chunked answer": (("GET", "/api/v2/keys?chunked"), PLAIN),
    "handshakes": (DURABLE, {}),
    "rotation": (DURABLE, merge(PLAIN, {"sinks": [{"rotate_size": 100, "keep": 2}]})),
}


def answer(connection):
    """A connection for each request."""
    request = connection.read_request()
    if request is None:
        return
    if request.target.endswith("chunked"):
        connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
                        f"{len(BODY):x}\r\n{BODY.decode()}\r\n0\r\nX-T: 1\r\n\r\n")
    else:
        connection.send(ok(BODY if request.target.endswith("large") else b"{}",
                           extra="Connection: close\r\n"))


@pytest.mark.parametrize("name", CASES)
@ONE_OR_ALL
def test_a_call(keytrail, raw_backend, memory, pki, tmp_path, name, times):
    """It is answered, with a 503 that says so if not with the key service's answer, or the connection
    is closed; what the key service has seen is recorded."""
    how, config = CASES[name]
    tls = "listen" not in config
    if "sinks" in config:
        config = {**config, "sinks": [file_sink(tmp_path, **config["sinks"][0])]}
    if tls:
        pair = {"certificate": pki["client.pem"], "key": pki["client.key"]}
        config = {"listen": {"tls": {"client_ca": pki["ca.pem"]}}, "upstream": {"tls": pair}}
    context = pki.server(client_ca="ca.pem") if tls else None
    backend = raw_backend(answer, tls=tls, context=context)
    sidecar = keytrail(backend, merge(merge(oracle.CONFIG, SMALL), config),
                       environment=memory.environment)
    calls = Calls(sidecar, backend, how, pki.client(cert="client") if tls else None)
    for _ in range(3):
        assert calls()
    total = count(memory, calls)
    failed = fail_each(Watch(sidecar, memory), calls, some(total, SOME), times)
    print(f"{name}: {total} allocations, {failed} calls failed")
    assert failed
    calls.check()


PAGES = {"/metrics": "metrics", "/livez": "metrics", "/readyz?verbose": "admin", "/status": "admin",
         "/routes": "admin", "/history": "admin", "/events?limit=5": "admin", "/proof?seq=1": "admin"}
SHORT = re.compile(rb"memory is short|Cannot allocate memory|the trail cannot be read")


@pytest.mark.parametrize("page", PAGES)
@ONE_OR_ALL
def test_a_page(keytrail, raw_backend, memory, signer, page, times):
    """It is served whole, or refused, or the connection is closed."""
    sidecar = keytrail(raw_backend(ok(), tls=False),
                       merge(merge(PLAIN, SMALL), {"audit": {"sign": {"file": str(signer[0])},
                                                      "checkpoint_interval": "1h"}}),
                       environment=memory.environment)
    wait_for(lambda: sidecar.metric("keytrail_trail_signed_sequence") >= 1, "the first line's proof")

    def fetch():
        with contextlib.suppress(http1.Closed, ConnectionError), \
                http1.Client(sidecar.ports[PAGES[page]]) as c:
            r = c.request("GET", page, {"Connection": "close"})
            assert r.status == 200 or r.status == 503 and SHORT.search(r.body), r
            return r.status == 200
        return False

    with http1.Client(sidecar.port) as c:
        assert c.request("GET", "/api/v2/keys").status == 200
    assert fetch()
    total = count(memory, fetch)
    failed = fail_each(Watch(sidecar, memory), fetch, some(total, SOME), times, tells=False)
    assert all(NAMES_MEMORY.search(why) for why in said(sidecar, "events_failed"))
    print(f"{page}: {total} allocations, {failed} pages failed")


@ONE_OR_ALL
def test_a_stream(keytrail, raw_backend, memory, times):
    """It shows whole rows, or is refused, or ends."""
    sidecar = keytrail(raw_backend(ok(), tls=False), merge(PLAIN, SMALL),
                       environment=memory.environment)
    with http1.Client(sidecar.port) as c:
        assert c.request("GET", "/api/v2/keys").status == 200
    wanted = lines(sidecar)

    def watch():
        rows = []
        with contextlib.suppress(http.client.HTTPException, ConnectionError), \
                Stream(sidecar, "cursor=1") as stream:
            if stream.response.status == 200:
                while len(rows) < len(wanted) and (event := stream.next()) is not None:
                    rows.append(event["data"])
            else:
                assert stream.response.status == 503
        assert rows == wanted[:len(rows)]
        return rows == wanted

    assert watch()
    total = count(memory, watch)
    failed = fail_each(Watch(sidecar, memory), watch, some(total, SOME), times, tells=False)
    print(f"stream: {total} allocations, {failed} streams failed")


# ---- lives ----

@pytest.fixture
def signed(keytrail, raw_backend, memory, signer, pki, tmp_path):
    """signed(): a sidecar with every part and every kind of option that there is."""
    backend = raw_backend(ok())
    for name, text in (("token", "t" * 20), ("hmac", "k" * 32)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    pair = {"certificate": pki["client.pem"], "key": pki["client.key"]}

    def make(workers=1, **options):
        return keytrail(backend, {
            "listen": {"tls": {"client_ca": pki["ca.pem"], "client_certificate": "optional",
                               "client_crl": pki.revoke(tmp_path / "crl.pem"),
                               "ocsp": pki.respond(tmp_path / "ocsp.der", "server"),
                               "certificates": [{"certificate": pki["kms.pem"],
                                                 "key": pki["kms.key"]}]}},
            "upstream": {"tls": pair},
            "admin": {"socket": str(tmp_path / "admin.sock"),
                      "token": {"file": str(tmp_path / "token")}},
            "audit": {"sign": {"file": str(signer[0])}, "key_ids": "hmac",
                      "hmac_key": {"file": str(tmp_path / "hmac")}, "identity_name": "hmac"},
            "service": {"instances": [new_id()]}, "trusted_networks": ["10.0.0.0/8"],
            "workers": workers,
            "sinks": [file_sink(tmp_path), {"name": "out", "type": "stdout"}]},
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
    assert NAMES_MEMORY.search(reason) and not REPORT.search(reason), reason
    assert all(json.loads(line) for line in log)
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


def names_of(sidecar, calls):
    """What so many connections in turn, so that each worker has some, have a path called."""
    before = len(sidecar.calls())
    for _ in range(calls):
        r = sidecar.call("GET", "/custom")
        assert r.status == 200, f"{r.body}: {sidecar.stderr()[-3000:]}"
    return {e["action"] for e in sidecar.wait_calls(before + calls)[before:]}


@ONE_OR_ALL
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


# ---- commands ----

@pytest.fixture
def commands(signed, memory, signer, tmp_path):
    """Arguments of each command that reads a trail."""
    sidecar = signed()
    sidecar.call("GET", "/api/v2/keys")
    event, = sidecar.wait_calls(1)
    sidecar.stop()
    (tmp_path / "key").write_text(signer[1] + "\n")
    trail, key = sidecar.trail_dir, tmp_path / "key"
    return {"verify": ["verify", trail, "--key", key], "tail": ["tail", trail],
            "proof": ["proof", trail, str(event["trail"]["seq"])],
            "check": ["check", sidecar.file, "--environment"],
            "explain": ["explain", sidecar.file, "GET", "/api/v2/keys"]}


@pytest.mark.parametrize("name", ["verify", "tail", "proof", "check", "explain"])
@ONE_OR_ALL
def test_a_command(commands, memory, tmp_path, name, times):
    """It does all that it is for, or says that memory was short, and nothing that is not so."""
    def run():
        for made in tmp_path.glob("event-*"):
            made.unlink()
        return subprocess.run([KEYTRAIL, *commands[name]], check=False, text=True, cwd=tmp_path,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env={**os.environ, **memory.environment})

    memory.set(0)
    good = run()
    total = memory.count()
    assert good.returncode == 0, good
    failed = 0
    # The last are what it does, after all that it reads.
    for n in (*some(total), *range(max(1, total - SOME), total)):
        memory.set(n, times)
        done = run()
        if done.returncode == 0:
            assert name == "explain" or done.stdout == good.stdout, f"allocation {n}: {done}"
            continue
        failed += 1
        assert done.returncode in (1, 2, 78), f"allocation {n}: {done}"
        assert NAMES_MEMORY.search(done.stderr + done.stdout), f"allocation {n}: {done}"
    print(f"{name}: {total} allocations, {failed} runs failed")
    assert failed or times == 1

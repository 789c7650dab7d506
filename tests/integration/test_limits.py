"""What one client may take: connections, requests a second, time, memory."""

import contextlib
import itertools
import re
import resource
import signal
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest

import http1
from backend import ok
from faults import wait_said
from support import BUILD, PATIENCE, SANITIZED, new_id, wait_for


def connect(sidecar, source="127.0.0.1"):
    return socket.create_connection(("127.0.0.1", sidecar.port), 20, (source, 0))


def rejected(sidecar):
    return sidecar.metric("keytrail_connections_rejected_total")


def test_connections_of_one_address(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(ok()), {"limits": {"connections_per_address": 2}})
    with connect(sidecar), connect(sidecar):
        wait_for(lambda: sidecar.metric("keytrail_connections_open") == 2, "two connections")
        with connect(sidecar) as third:
            assert third.recv(1) == b""
        assert rejected(sidecar) == 1
        with connect(sidecar, "127.0.0.2"), connect(sidecar, "127.0.0.2"):
            wait_for(lambda: sidecar.metric("keytrail_connections_open") == 4, "four connections")
            assert rejected(sidecar) == 1
    wait_for(lambda: sidecar.metric("keytrail_connections_open") == 0, "all to be gone")
    assert sidecar.call("GET", "/api/v2/keys").status == 200


def test_a_trusted_network_has_no_limit_of_connections(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(ok()), {"limits": {"connections_per_address": 1},
                                           "trusted_networks": ["127.0.0.0/8"]})
    with sidecar.client() as a, sidecar.client() as b:
        assert a.request("GET", "/api/v2/keys").status == 200
        assert b.request("GET", "/api/v2/keys").status == 200
    assert rejected(sidecar) == 0


def test_requests_beyond_the_rate_are_refused_and_recorded(keytrail, raw_backend):
    backend = raw_backend(ok())
    sidecar = keytrail(backend, {"limits": {"rate": 3}})
    with sidecar.client() as c:
        begin = time.monotonic()
        answers = [c.request("GET", "/api/v2/keys") for _ in range(40)]
        took = time.monotonic() - begin
    served = [r for r in answers if r.status == 200]
    assert {r.status for r in answers} == {200, 429}
    assert 3 <= len(served) <= 4 + 3 * took
    assert len(backend.requests) == len(served)
    refused = next(r for r in answers if r.status == 429)
    assert b"TOO_MANY_REQUESTS" in refused.body
    events = sidecar.wait_calls(40)
    assert sorted(e["reason"]["reasonCode"] for e in events) == sorted(r.status for r in answers)


def test_a_denied_request_counts_too(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(ok()), {"limits": {"rate": 2}, "audit": {"unmatched": "deny"}})
    with sidecar.client() as c:
        begin = time.monotonic()
        answers = [c.request("GET", "/nothing").status for _ in range(40)]
        took = time.monotonic() - begin
    assert 2 <= answers.count(403) <= 3 + 2 * took and set(answers) == {403, 429}


def test_limits_of_requests_are_none_of_answers(keytrail, raw_backend):
    fields = [("X-Long", "x" * 8000)] * 7 + [(f"X-{i}", "1") for i in range(110)]
    backend = raw_backend(ok(extra="".join(f"{n}: {v}\r\n" for n, v in fields)))
    sidecar = keytrail(backend, {"limits": {"head": "1KiB", "target": 512, "fields": 8}})
    r = sidecar.call("DELETE", "/api/v2/keys/76c2c9cb-9095-5a24-811b-0ef4b24ac4d5")
    assert r.status == 200 and r.get("X-109") == "1"


def test_the_rate_is_of_the_client_behind_a_trusted_proxy(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(ok()), {"limits": {"rate": 1},
                                           "trusted_networks": ["127.0.0.0/8"]})

    def of(client):
        return c.request("GET", "/api/v2/keys", {"X-Forwarded-For": client}).status

    with sidecar.client() as c:
        assert [of(f"192.0.2.{i}") for i in range(1, 9)] == [200] * 8
        wait_for(lambda: of("192.0.2.99") == 429, "one client's limit")


@pytest.mark.parametrize("length, outcome", [(10000, "failure"), (100000, "unknown")])
def test_a_body_that_trickles_is_ended(keytrail, raw_backend, length, outcome):
    """Bytes alone keep no connection: they have to come at a rate."""
    backend = raw_backend(lambda c: c.read_request())
    sidecar = keytrail(backend, {"timeouts": {"body": "500ms"}, "limits": {"body_rate": 1000}})
    correlation = new_id()
    done = threading.Event()
    with sidecar.client() as c:
        c.send(f"POST /api/v2/keys HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n"
               f"Correlation-Id: {correlation}\r\n\r\n")

        def trickle():
            while not done.wait(0.05):
                try:
                    c.send(b"x")
                except OSError:
                    return

        t = threading.Thread(target=trickle)
        t.start()
        try:
            assert c.read_response().status == 408
        finally:
            done.set()
            t.join()
    assert sidecar.event(correlation)["outcome"] == outcome


@pytest.mark.parametrize("framing", ["Content-Length: 3095", "Transfer-Encoding: chunked"])
def test_a_body_that_moves_may_take_its_time(keytrail, raw_backend, framing):
    backend = raw_backend(ok())
    sidecar = keytrail(backend, {"timeouts": {"body": "1s"}, "limits": {"body_rate": 100}})
    with sidecar.client() as c:
        c.send(f"POST /api/v2/keys HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n")
        for _ in range(15):
            c.send(b"c8\r\n" + b"x" * 200 + b"\r\n")
            time.sleep(0.1)
        c.send("0\r\n\r\n")
        assert c.read_response().status == 200


def test_an_old_connection_ends_but_not_within_a_call(keytrail, raw_backend):
    old = threading.Event()

    def script(connection):
        while (request := connection.read_request()) is not None:
            if request.target == "/slow":
                old.wait(PATIENCE)
            connection.send(ok())

    sidecar = keytrail(raw_backend(script), {
        "timeouts": {"lifetime": "2s", "idle": "60s"}, "workers": 1})
    with sidecar.client() as busy:
        busy.send_request("GET", "/slow")
        with sidecar.client() as idle, sidecar.client() as used:
            used.request("GET", "/api/v2/keys")
            assert idle.is_closed(PATIENCE) and used.is_closed(PATIENCE)
        old.set()
        r = busy.read_response()
        assert r.status == 200 and r.get("Connection") == "close" and busy.is_closed()
    assert len(sidecar.wait_calls(2)) == 2


def test_a_request_that_crosses_the_end_of_an_old_connection_is_answered(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(ok()), {"timeouts": {"lifetime": "1ms"}, "workers": 1})
    with sidecar.client() as c:
        assert sidecar.call("GET", "/api/v2/keys").status == 200  # the worker has seen c's end pass
        r = c.request("GET", "/api/v2/keys")
        assert r.status == 200 and r.get("Connection") == "close" and c.is_closed()


# ---- a client that sends and does not read ----

MANY, LARGE = 12, 2 << 20


def pipelined(sidecar, ids):
    """A client that sends calls with large bodies, one behind the other, and reads nothing."""
    c = http1.Client(sidecar.port)
    c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    body = b"x" * LARGE

    def send():
        with contextlib.suppress(OSError):
            for name in ids:
                c.send(f"POST /api/v2/keys HTTP/1.1\r\nHost: localhost\r\nCorrelation-Id: {name}\r\n"
                       f"Content-Length: {LARGE}\r\n\r\n".encode() + body)

    t = threading.Thread(target=send)
    t.start()
    return c, t


def wait_stalled(sidecar, answer):
    """Until an answer is partly sent, and nothing moves any more.  answer: the size of each."""
    last = 0

    def still():
        nonlocal last
        before, last = last, sidecar.metric("keytrail_sent_bytes_total")
        return last == before and last % answer > 0
    wait_for(still, "the end of what the client's side takes")


def own_memory(sidecar):
    status = Path(f"/proc/{sidecar.process.pid}/status").read_text()
    return int(re.search(r"^RssAnon:\s+(\d+) kB", status, re.M)[1]) << 10


@pytest.mark.parametrize("reads", [True, False])
def test_who_pipelines_and_does_not_read_waits_and_costs_little(keytrail, raw_backend, reads):
    backend = raw_backend(ok("y" * LARGE))
    sidecar = keytrail(backend, {"listen": {"tls": None}, "workers": 1,
                                 "timeouts": {"body": "60s", "answer": "60s"}})
    with http1.Client(sidecar.port) as c:
        assert c.request("POST", "/api/v2/keys", {}, "x" * LARGE).status == 200
    answer = sidecar.metric("keytrail_sent_bytes_total")
    before, ids = own_memory(sidecar), [new_id() for _ in range(MANY)]
    c, sender = pipelined(sidecar, ids)
    try:
        wait_stalled(sidecar, answer)
        assert 1 < len(backend.requests) <= MANY
        assert SANITIZED or own_memory(sidecar) - before < LARGE / 4
        if reads:
            assert [len(c.read_response().body) for _ in ids] == [LARGE] * MANY
        else:
            c.sock.shutdown(socket.SHUT_WR)  # ends the sender's wait
            sender.join()
            c.reset()
    finally:
        c.close()
        sender.join()
    wait_for(lambda: sidecar.metric("keytrail_connections_open") == 0, "the end")
    sent = [r.get("Correlation-Id") for r in backend.requests[1:]]
    assert [e["correlationId"] for e in sidecar.wait_calls(1 + len(sent))[1:]] == sent
    assert sent == (ids if reads else ids[:len(sent)])
    sidecar.stop()
    assert len(sidecar.calls()) == len(sent) + 1


def test_memory_at_its_limit_turns_away_who_is_new(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(ok()))
    with sidecar.client() as c:
        assert c.request("GET", "/api/v2/keys").status == 200
        sidecar.reload(limits={"memory": "1MiB"})
        with connect(sidecar) as new:
            assert new.recv(1) == b""
        assert c.request("GET", "/api/v2/keys").status == 200
        assert rejected(sidecar) == 1
        sidecar.reload(limits={"memory": 0})
        assert sidecar.call("GET", "/api/v2/keys").status == 200


def test_one_address_cannot_have_all_connections_to_the_service(keytrail, raw_backend):
    """Who sends bodies as slowly as is allowed keeps a connection each."""
    sidecar = keytrail(raw_backend(ok()), {
        "listen": {"tls": None}, "workers": 1, "timeouts": {"connect": "1s"},
        "upstream": {"pool": {"max": 10}}})
    head = b"POST /api/v2/keys HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na"
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            slow = stack.enter_context(connect(sidecar, "127.0.0.2"))
            slow.sendall(head)
        wait_for(lambda: sidecar.metric("keytrail_refused_requests_total",
                                        reason="upstream_busy") == 13, "who has too many to be told")
        assert sidecar.metric("keytrail_upstream_connections_open") == 7
        with http1.Client(sidecar.port) as other:
            assert other.request("GET", "/api/v2/keys").status == 200


@contextlib.contextmanager
def descriptors(sidecar, left):
    """Room for so many more than there are, below all gaps."""
    def there_are():
        return {int(p.name) for p in Path(f"/proc/{sidecar.process.pid}/fd").iterdir()}

    # What it opens to look at something, it closes at once.
    used = wait_for(lambda: n if (n := there_are()) == there_are() else None, "them to be counted")
    gaps = (n for n in itertools.count() if n not in used)
    _, hard = resource.prlimit(sidecar.process.pid, resource.RLIMIT_NOFILE)
    limit = next(itertools.islice(gaps, left, None))
    resource.prlimit(sidecar.process.pid, resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.prlimit(sidecar.process.pid, resource.RLIMIT_NOFILE, (hard, hard))


def is_turned_away(sidecar):
    with connect(sidecar) as s:
        try:
            return s.recv(1) == b""
        except ConnectionResetError:
            return True


def test_no_descriptor_is_left_and_then_there_are_some(keytrail, raw_backend):
    """Who comes is turned away instead of waiting for nothing, and then all goes on."""
    sidecar = keytrail(raw_backend(ok()))
    with sidecar.client() as c:
        assert c.request("GET", "/api/v2/keys").status == 200
        with descriptors(sidecar, 0):
            assert is_turned_away(sidecar)
            assert c.request("GET", "/api/v2/keys").status == 200
    assert sidecar.call("GET", "/api/v2/keys").status == 200
    assert rejected(sidecar) >= 1


def test_clients_leave_descriptors_to_the_service_and_to_who_watches(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(ok()))
    with sidecar.client() as c:
        with descriptors(sidecar, 5):
            assert is_turned_away(sidecar)
            assert c.request("GET", "/api/v2/keys").status == 200
            assert rejected(sidecar) == 1  # as /metrics says
    assert sidecar.call("GET", "/api/v2/keys").status == 200


def test_no_target_is_blamed_for_a_want_of_descriptors(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(ok()))
    with sidecar.client() as c:
        with descriptors(sidecar, 0):
            r = c.request("GET", "/api/v2/keys")
            assert r.status == 503 and b"UPSTREAM_BUSY" in r.body
        assert c.request("GET", "/api/v2/keys").status == 200
    assert not [line for line in sidecar.log_lines() if line["event"] == "upstream_failed"]


def junk(sidecar, n):
    for _ in range(n):
        r = sidecar.call("GET", "/api/v2/keys//x")
        assert r.status == 400


def test_refusals_beyond_their_rate_are_counted_together(keytrail, raw_backend):
    """Junk neither fills the trail nor buries the evidence; none of it is forgotten."""
    backend = raw_backend(ok())
    sidecar = keytrail(backend, {"limits": {"refusals": 2}})
    begin = time.monotonic()
    junk(sidecar, 60)
    took = time.monotonic() - begin
    assert sidecar.call("GET", "/api/v2/keys").status == 200

    def apart():
        return [e for e in sidecar.calls() if e["reason"].get("reasonCode") == 400]

    def together():
        return sidecar.own("keytrail.refused")

    wait_for(lambda: len(apart()) + sum(e["details"]["count"] for e in together()) == 60,
             "all sixty")
    assert 2 <= len(apart()) <= 3 + 2 * took
    assert {e["details"]["sources"] for e in together()} == {"127.0.0.1"}
    assert {e["details"]["reasons"].split()[0] for e in together()} == {"ambiguous_path"}
    assert sidecar.metric("keytrail_refused_requests_total", reason="ambiguous_path") == 60
    assert len(backend.requests) == 1


def test_who_leaves_before_his_request_is_whole_fills_no_trail(keytrail, raw_backend):
    """Nothing of it was forwarded: nothing can have happened, and it is junk like any other."""
    backend = raw_backend(ok())
    sidecar = keytrail(backend, {"limits": {"refusals": 1}})
    begin = time.monotonic()
    for _ in range(30):
        with sidecar.client() as c:
            c.send("DELETE /api/v2/keys/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n")
    wait_for(lambda: sidecar.metric("keytrail_refused_requests_total", reason="client_gone") == 30,
             "all to be met")
    took = time.monotonic() - begin
    wait_for(lambda: len(sidecar.calls()) + sum(
        e["details"]["count"] for e in sidecar.own("keytrail.refused")) == 30, "the records")
    assert 1 <= len(sidecar.calls()) <= 2 + took
    for e in sidecar.calls():
        assert e["outcome"] == "failure" and e["reason"]["reasonForFailure"] == "client_gone"
    assert backend.requests == []


def test_refusals_that_were_counted_survive_a_kill(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(ok()), {"limits": {"refusals": 1}})
    junk(sidecar, 10)
    sidecar.kill()
    sidecar.start()
    apart = [e for e in sidecar.calls() if e["reason"].get("reasonCode") == 400]
    counted = sum(e["details"]["count"] for e in sidecar.own("keytrail.refused"))
    assert counted > 0 and len(apart) + counted == 10


def test_a_client_without_its_certificate_is_recorded(keytrail, raw_backend, pki):
    sidecar = keytrail(raw_backend(ok()), {"listen": {"tls": {"client_ca": pki["ca.pem"]}}})
    with pytest.raises((OSError, http1.Closed)):
        sidecar.call("GET", "/api/v2/keys")
    event = sidecar.wait_own("keytrail.refused")[0]
    assert event["details"]["reasons"] == "client_certificate 1"
    assert event["details"]["sources"] == "127.0.0.1"


@pytest.mark.parametrize("name, value", [("rate", -1), ("body_rate", "2GiB"), ("memory", "much")])
def test_limits_out_of_range_are_named(keytrail, raw_backend, name, value):
    sidecar = keytrail(raw_backend(ok()))
    assert sidecar.reload(limits={name: value})["outcome"] == "failure"
    told, = wait_said(sidecar, "reload_failed")
    assert f"limits.{name}" in told or f'"{name}"' in told


@pytest.fixture
def turns(tmp_path):
    """Environment that counts what a turn of the loop does, and the counts: reads, closes,
    handshakes."""
    file = tmp_path / "turns"
    return {"LD_PRELOAD": str(BUILD / "faults" / "turns.so"), "KEYTRAIL_TURNS": str(file),
            "ASAN_OPTIONS": "verify_asan_link_order=0"}, lambda: map(int, file.read_text().split())


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_long_body_takes_one_turn_of_the_loop_among_others(keytrail, raw_backend, turns, method):
    """However fast both sides are: after some reads whoever else is ready is served."""
    body = b"x" * (8 << 20)
    environment, counts = turns
    sidecar = keytrail(raw_backend(ok(body) if method == "GET" else ok(), tls=False),
                       {"workers": 1, "upstream": {"tls": None}, "listen": {"tls": None}},
                       environment=environment)
    with http1.Client(sidecar.port) as c:
        r = c.request(method, "/api/v2/keys", {}, None if method == "GET" else body)
    assert r.status == 200 and len(r.body) == (len(body) if method == "GET" else 2)
    sidecar.stop()
    reads, _, _ = counts()
    assert reads <= 2 * 16 + 1  # by an event, and where it goes on; of the head


def hold_uploads(keytrail, raw_backend, environment, guarantee, body_time):
    """A stopped sidecar amid 60 bodies, and the clients that send them."""
    backend = raw_backend(lambda c: (c.read_head(), c.rest()))
    sidecar = keytrail(backend, {"workers": 1, "audit": {"guarantee": guarantee},
                                 "timeouts": {"body": body_time}}, environment=environment)
    clients = [sidecar.client() for _ in range(60)]
    for c in clients:
        c.send("POST /api/v2/keys HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n\r\nab")
    backend.wait(lambda b: len(b.requests) == 60)
    sidecar.signal(signal.SIGSTOP)
    return sidecar, clients


@pytest.mark.parametrize("guarantee", ["async", "durable"])
def test_who_goes_at_once_goes_a_few_at_a_time(keytrail, raw_backend, turns, guarantee):
    """Each leaves much to do: between them the calls of others go on."""
    environment, counts = turns
    sidecar, clients = hold_uploads(keytrail, raw_backend, environment, guarantee, "1m")
    for c in clients:
        c.sock.close()
    sidecar.signal(signal.SIGCONT)
    assert {e["outcome"] for e in sidecar.wait_calls(60)} == {"unknown"}
    wait_for(lambda: sidecar.metric("keytrail_connections_open") == 0, "all to be gone")
    sidecar.stop()
    _, closes, _ = counts()
    assert closes <= 2 * 8  # both sides of a few


@pytest.mark.parametrize("guarantee", ["async", "durable"])
def test_who_is_late_is_told_so_a_few_at_a_time(keytrail, raw_backend, turns, guarantee):
    environment, counts = turns
    sidecar, clients = hold_uploads(keytrail, raw_backend, environment, guarantee, "2s")
    time.sleep(2)  # it is their time that has to pass
    sidecar.signal(signal.SIGCONT)
    for c in clients:
        assert c.read_response().status == 408
        c.sock.close()
    assert len(sidecar.wait_calls(60)) == 60
    wait_for(lambda: sidecar.metric("keytrail_connections_open") == 0, "all to be gone")
    sidecar.stop()
    _, closes, _ = counts()
    assert closes <= 2 * 16


def hello():
    """The first flight of a client."""
    out = ssl.MemoryBIO()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(
        ssl.MemoryBIO(), out, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read()


def test_a_flood_of_handshakes_is_taken_a_few_at_a_time(keytrail, raw_backend, turns):
    """Between them the calls of others go on."""
    environment, counts = turns
    sidecar = keytrail(raw_backend(ok()), {"workers": 1}, environment=environment)
    clients = [connect(sidecar) for _ in range(60)]
    wait_for(lambda: sidecar.metric("keytrail_connections_open") == 60, "all to be there")
    sidecar.signal(signal.SIGSTOP)
    for c in clients:
        c.sendall(hello())
    sidecar.signal(signal.SIGCONT)
    assert sidecar.call("GET", "/api/v2/keys").status == 200
    for c in clients:
        assert c.recv(1) == b"\x16"  # a handshake goes on
        c.close()
    sidecar.stop()
    _, _, handshakes = counts()
    assert 0 < handshakes <= 2 * 4

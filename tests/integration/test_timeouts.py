"""Each timeout of the configuration: what is answered, and what is recorded."""

import contextlib
import signal
import socket
import ssl
import threading
import time

import pytest

import http1
from backend import ok
from support import PATIENCE, new_id, wait_for

SHORT = "300ms"


def refused(sidecar, reason):
    """The record of a request that had no head."""
    def found():
        return [e for e in sidecar.events() if reason in str(e)]
    return wait_for(found, f"a record of {reason}")


def test_a_handshake_that_never_ends(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(ok()), {"timeouts": {"handshake": SHORT}})
    with socket.create_connection(("127.0.0.1", sidecar.port), timeout=20) as s:
        assert s.recv(1) == b""


def test_a_head_that_never_ends(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(ok()), {"timeouts": {"head": SHORT}})
    with sidecar.client() as c:
        c.send("GET /api/v2/keys HTTP/1.1\r\nHost: loc")
        r = c.read_response()
        assert r.status == 408 and b"REQUEST_TIMEOUT" in r.body
        assert r.get("Connection") == "close" and c.is_closed()
    refused(sidecar, "request_timeout")


def test_a_slow_head_is_not_kept_alive_by_single_bytes(keytrail, raw_backend):
    """The time runs from the first byte to the end of the head."""
    sidecar = keytrail(raw_backend(ok()), {"timeouts": {"head": "500ms"}})
    done = threading.Event()
    with sidecar.client() as c:
        def drip():
            for byte in b"GET /api/v2/keys HTTP/1.1\r\nHost: localhost\r\nX-A: " + b"b" * 1000:
                if done.wait(0.05):
                    return
                try:
                    c.sock.sendall(bytes([byte]))
                except OSError:
                    return
        t = threading.Thread(target=drip)
        t.start()
        assert c.read_response().status == 408
        done.set()
        t.join()


def test_an_idle_connection_is_closed_without_an_answer(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(ok()), {"timeouts": {"idle": "2s"}})
    with sidecar.client() as c:
        assert c.request("GET", "/api/v2/keys").status == 200
        assert c.is_closed(20)
    assert len(sidecar.calls()) == 1


@pytest.mark.parametrize("before, over", [("", "idle"), ("GET /api/v2/keys HTTP/1.1\r\n", "head")])
def test_what_came_while_the_sidecar_was_busy_came_in_time(keytrail, raw_backend, before, over):
    sidecar = keytrail(raw_backend(ok()), {"timeouts": {over: "3s"}})
    request = f"GET /api/v2/keys HTTP/1.1\r\nHost: localhost\r\nCorrelation-Id: {new_id()}\r\n\r\n"
    with sidecar.client() as c:
        assert c.request("GET", "/api/v2/keys").status == 200
        received = sidecar.metric("keytrail_received_bytes_total")
        c.send(before)
        wait_for(lambda: sidecar.metric("keytrail_received_bytes_total") == received + len(before),
                 "the first part")
        sidecar.signal(signal.SIGSTOP)
        c.send(request[len(before):])
        time.sleep(3.1)
        sidecar.signal(signal.SIGCONT)
        assert c.read_response().status == 200


def test_bytes_that_are_only_tls_do_not_make_a_connection_busy(keytrail, raw_backend, pki):
    """A record that comes byte by byte holds nothing until its last one."""
    sidecar = keytrail(raw_backend(ok()), {"timeouts": {"idle": SHORT}})
    with socket.create_connection(("127.0.0.1", sidecar.port), timeout=20) as s:
        tls, outgoing = http1.handshake(s, pki.client(), server_hostname="localhost")
        s.sendall(outgoing.read())
        tls.write(b"x" * 1000)
        s.settimeout(0.05)
        open_ = True
        for byte in outgoing.read():
            try:
                s.sendall(bytes([byte]))
                open_ = s.recv(65536) != b""
            except TimeoutError:
                pass
            except OSError:
                open_ = False
            if not open_:
                break
    assert not open_


@pytest.mark.parametrize("length, reason", [
    (10, {"reasonCode": 408, "reasonForFailure": "request_timeout"}),
    (100000, {"reasonType": "timeout"}),  # of it a part was forwarded
])
def test_a_body_that_stands_still(keytrail, raw_backend, length, reason):
    backend = raw_backend(lambda c: c.read_request())
    sidecar = keytrail(backend, {"timeouts": {"body": SHORT}})
    correlation = new_id()
    with sidecar.client() as c:
        c.send(f"POST /api/v2/keys HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n"
               f"Correlation-Id: {correlation}\r\n\r\nabc")
        r = c.read_response()
        assert r.status == 408 and c.is_closed()
    found = sidecar.event(correlation)["reason"]
    assert reason.items() <= found.items() and ("reasonCode" in found) == ("reasonCode" in reason)


def test_a_key_service_that_never_answers(keytrail, raw_backend):
    hold = threading.Event()

    def script(connection):
        connection.read_request()
        hold.wait(20)

    sidecar = keytrail(raw_backend(script), {"timeouts": {"answer": "2s"}})
    correlation = new_id()
    r = sidecar.call("POST", "/api/v2/keys", {"Correlation-Id": correlation}, "{}")
    hold.set()
    assert r.status == 504 and b"UPSTREAM_TIMEOUT" in r.body
    event = sidecar.event(correlation)
    assert event["outcome"] == "unknown" and event["reason"]["reasonType"] == "timeout"
    assert event["severity"] in ("warning", "critical")


def test_an_answer_that_stands_still(keytrail, raw_backend):
    hold = threading.Event()

    def script(connection):
        connection.read_request()
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        hold.wait(20)

    sidecar = keytrail(raw_backend(script), {"timeouts": {"body": SHORT}})
    correlation = new_id()
    with sidecar.client() as c:
        c.send_request("GET", "/api/v2/keys", {"Correlation-Id": correlation})
        r = c.read_head()
        with pytest.raises((http1.Closed, ConnectionError)):
            c.read_body(r, "GET")
    hold.set()
    assert sidecar.event(correlation)["reason"]["reasonCode"] == 200


# A byte every 20 ms is much more than body_rate; without an end it would go on for ever.  Who sends them
# may be kept from it longer than that, but not as long as a body may stand still.
TRICKLE = {"timeouts": {"body": "2s", "lifetime": "1s"}, "limits": {"body_rate": 1}}


@contextlib.contextmanager
def trickle(send):
    """Send byte after byte, until there is nobody who takes them or nobody looks any more."""
    done = threading.Event()

    def drip():
        with contextlib.suppress(OSError):
            while not done.wait(0.02):
                send(b"x")

    t = threading.Thread(target=drip)
    t.start()
    try:
        yield
    finally:
        done.set()
        t.join()


# One that is gathered before the key service is asked, and one that is forwarded as it comes.
@pytest.mark.parametrize("size, outcome", [(10000, "failure"), (1000000, "unknown")])
def test_a_body_that_moves_does_not_outlive_its_connection(keytrail, raw_backend, size, outcome):
    sidecar = keytrail(raw_backend(lambda c: c.read_request()), TRICKLE)
    correlation = new_id()
    with sidecar.client() as c:
        c.send(f"POST /api/v2/keys HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n"
               f"Correlation-Id: {correlation}\r\n\r\n")
        with trickle(c.send):
            r = c.read_response()
            assert r.status == 408 and r.get("Connection") == "close" and c.is_closed()
    event = sidecar.event(correlation)
    assert event["outcome"] == outcome and "lifetime" in event["reason"].values()
    assert len(sidecar.calls()) == 1


def test_a_body_that_the_key_service_takes_does_not_outlive_its_connection(keytrail, raw_backend):
    """What waits for the key service then says nothing against it."""
    def script(connection):
        with contextlib.suppress(http1.Closed, ConnectionError, ssl.SSLError):
            while True:
                connection.take(16384)

    backend = raw_backend(script)
    backend.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)  # moves in small steps
    sidecar = keytrail(backend, TRICKLE)
    correlation = new_id()
    with sidecar.client() as c:
        with pytest.raises(OSError):
            c.send(f"POST /api/v2/keys HTTP/1.1\r\nHost: localhost\r\nContent-Length: {10**9}\r\n"
                   f"Correlation-Id: {correlation}\r\n\r\n")
            while True:
                c.send(b"x" * 65536)
    assert sidecar.event(correlation)["reason"] == {"reasonType": "lifetime"}
    assert sidecar.metric("keytrail_refused_requests_total", reason="lifetime") == 1


def test_an_answer_that_moves_does_not_outlive_its_connection(keytrail, raw_backend):
    ended = threading.Event()

    def script(connection):
        connection.read_request()
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        with trickle(connection.send):
            connection.rest()
            ended.set()

    sidecar = keytrail(raw_backend(script), TRICKLE)
    correlation = new_id()
    with sidecar.client() as c:
        c.send_request("GET", "/api/v2/keys", {"Correlation-Id": correlation})
        r = c.read_head()
        assert r.status == 200
        with pytest.raises((http1.Closed, ConnectionError)):
            c.read_body(r, "GET")
    assert ended.wait(PATIENCE)
    assert sidecar.event(correlation)["reason"]["reasonCode"] == 200
    assert sidecar.metric("keytrail_lifetime_answers_cut_total") == 1
    assert sidecar.metric("keytrail_upstream_answers_cut_total") == 0
    assert sidecar.metric("keytrail_client_aborts_total") == 0
    assert len(sidecar.calls()) == 1


@pytest.mark.parametrize("label", ["no handshake", "no connection"])
def test_a_key_service_that_does_not_take_connections(keytrail, label):
    """A full backlog, and a handshake that nobody answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as s:
        port = s.getsockname()[1]
        fill = [] if label == "no handshake" else [
            socket.socket() for _ in range(8)]
        for f in fill:
            f.setblocking(False)
            f.connect_ex(("127.0.0.1", port))
        sidecar = keytrail(config={"upstream": {"address": f"127.0.0.1:{port}"},
                                   "timeouts": {"connect": SHORT}})
        correlation = new_id()
        r = sidecar.call("GET", "/api/v2/keys", {"Correlation-Id": correlation})
        for f in fill:
            f.close()
    assert r.status in (502, 504)
    assert sidecar.event(correlation)["reason"]["reasonCode"] == r.status

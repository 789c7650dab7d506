"""States that a connection can be left in: nothing hangs, nothing is answered with another's bytes."""

import concurrent.futures
import signal
import socket
import threading
import time

import pytest

from backend import ok
from http1 import Closed
from support import PATIENCE, new_id, wait_for

# Nothing that hangs is ended by a timeout before the test's own patience ends.
SLOW = {"timeouts": {"body": "10m", "answer": "10m", "connect": "10m", "head": "10m",
                     "idle": "10m"}, "workers": 1}


def get(sidecar, target="/api/v2/keys", **fields):
    return sidecar.call("GET", target, fields)


# ---- connections to the key service that are used again ----

def test_a_second_record_after_an_answer_does_not_answer_the_next_request(keytrail, raw_backend):
    """What OpenSSL holds decrypted is as good as a byte in our own buffer."""
    def script(connection):
        while (request := connection.read_request()) is not None:
            if connection.number == 1:
                # Two records in one segment: what comes later answers the next request, rightly.
                connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
                connection.sock.sendall(ok("first"))
                connection.sock.sendall(ok("smuggled"))
                connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
            else:
                connection.send(ok("second"))

    sidecar = keytrail(raw_backend(script), {"workers": 1})
    with sidecar.client() as c:
        for _ in range(4):
            assert c.request("GET", "/api/v2/keys").body in (b"first", b"second")


@pytest.mark.parametrize("tls", [True, False])
def test_more_than_one_read_holds_does_not_answer_the_next_request(keytrail, raw_backend, tls):
    """The first answer fills one read of ours to its last byte."""
    def script(connection):
        while connection.read_request() is not None:
            if connection.number > 1:
                connection.send(ok("second"))
                continue
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
            size = 16384 - len(head % 16384) + 1
            answer = head % size + b"x" * size
            assert len(answer) in (16384, 16385)
            connection.send(answer[:16384] + ok("smuggled"))

    config = {"workers": 1, **({} if tls else {"upstream": {"tls": None}})}
    sidecar = keytrail(raw_backend(script, tls=tls), config)
    with sidecar.client() as c:
        for _ in range(3):
            assert b"smuggled" not in c.request("GET", "/api/v2/keys").body


# ---- the pool's limit ----

@pytest.mark.parametrize("method", ["GET", "POST"])
def test_who_waits_for_a_connection_gets_the_one_that_becomes_free(keytrail, raw_backend, method):
    """pool.max connections serve any number of requests, as long as answers come."""
    def script(connection):
        while connection.read_request() is not None:
            time.sleep(0.2)
            connection.send(ok())

    backend = raw_backend(script)
    sidecar = keytrail(backend, {**SLOW, "upstream": {"pool": {"max": 1, "idle": 1}}})
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        calls = [pool.submit(sidecar.call, method, "/api/v2/keys", {}, None if method == "GET"
                             else "{}") for _ in range(6)]
        assert [c.result().status for c in calls] == [200] * 6
    assert backend.connections == 1


def test_a_retry_makes_room_for_its_fresh_connection(keytrail, raw_backend):
    """A retry may use no pooled connection; where the pool is full of idle ones, one has to go."""
    together = threading.Barrier(2)

    def script(connection):
        if connection.read_request() is None:
            return
        if connection.number <= 2:
            together.wait(20)
        connection.send(ok())
        if connection.number <= 2:
            if connection.read_request() is not None:
                connection.close()
        else:
            connection.read_request()

    backend = raw_backend(script)
    sidecar = keytrail(backend, {**SLOW, "upstream": {"pool": {"max": 2, "idle": 2}}})
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert [r.status for r in pool.map(lambda _: get(sidecar), range(2))] == [200, 200]
    assert get(sidecar).status == 200
    assert backend.connections == 3


def test_a_small_body_is_here_before_the_key_service_is_asked(keytrail, raw_backend):
    """Who sends one slowly keeps the only connection from nobody."""
    backend = raw_backend(ok())
    sidecar = keytrail(backend, {**SLOW, "upstream": {"pool": {"max": 1}}})
    with sidecar.client() as c:
        c.send("POST /api/v2/keys HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nab")
        wait_for(lambda: sidecar.metric("keytrail_requests_in_flight") == 1, "the request")
        assert get(sidecar).status == 200
        c.send("cd")
        assert c.read_response().status == 200
    assert [(r.method, r.body) for r in backend.requests] == [("GET", b""), ("POST", b"abcd")]


def test_a_body_is_awaited_where_it_fits_16_kib_with_its_head(keytrail, raw_backend):
    backend = raw_backend(lambda c: (c.read_head(), c.rest()))
    sidecar = keytrail(backend, SLOW)
    with sidecar.client() as small, sidecar.client() as large:
        for n, (c, length) in enumerate(((small, 15000), (large, 16384))):
            c.send_request("POST", f"/api/v2/keys?a={length}", {"Content-Length": str(length)})
            wait_for(lambda n=n: sidecar.metric("keytrail_requests_in_flight") == n + 1, "the head")
        backend.wait(lambda b: b.requests)
        assert [r.target for r in backend.requests] == ["/api/v2/keys?a=16384"]


def test_a_small_body_does_not_wait_for_room_beside_a_large_head(keytrail, raw_backend):
    backend = raw_backend(ok())
    sidecar = keytrail(backend, SLOW)
    body = "x" * 16384
    with sidecar.client() as c:
        c.send_request("POST", "/api/v2/keys", {"X-Large": "y" * 30000, "Content-Length": "16384"})
        for piece in (body[:8000], body[8000:]):
            wait_for(lambda: sidecar.metric("keytrail_requests_in_flight") == 1, "the request")
            c.send(piece)
        assert c.read_response().status == 200
    assert backend.requests[0].body == body.encode()


# ---- a request whose body was not read to its end ----

def test_the_rest_of_an_unread_body_is_never_a_request(keytrail, raw_backend):
    """The key service answers early and goes away: what the client still sends is no request."""
    closed = threading.Event()

    def script(connection):
        if connection.read_head() is None:
            return
        connection.send(ok("early"))
        connection.reset()
        closed.set()

    sidecar = keytrail(raw_backend(script, tls=False),
                       {**SLOW, "upstream": {"tls": None}})
    hidden = b"DELETE /api/v2/keys/hidden HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    with sidecar.client() as c:
        c.send(b"POST /api/v2/keys HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")
        c.read_response()
        assert closed.wait(PATIENCE)
        try:
            c.send(b"x" * 1000)
            time.sleep(0.3)
            for _ in range(3):
                c.send(hidden)
                time.sleep(0.1)
            c.rest()
        except (OSError, Closed):
            pass
    sidecar.stop()
    assert [e["action"] for e in sidecar.calls()] == ["kms.secrets.create"]


# ---- limits ----

@pytest.mark.parametrize("limit", [0, 10])
def test_a_chunked_body_that_comes_at_once_is_limited_too(keytrail, raw_backend, limit):
    backend = raw_backend(ok())
    sidecar = keytrail(backend, {"limits": {"body": limit}})
    with sidecar.client() as c:
        c.send(b"POST /api/v2/keys HTTP/1.1\r\nHost: localhost\r\n"
               b"Transfer-Encoding: chunked\r\n\r\n14\r\n" + b"x" * 20 + b"\r\n0\r\n\r\n")
        assert c.read_response().status == 413
    assert not backend.requests


# ---- bytes and a reset in one event ----

@pytest.mark.parametrize("where", ["head", "body"])
def test_a_reset_right_behind_bytes_is_seen_at_once(keytrail, raw_backend, where):
    part = {"head": b"HTTP/1.1 200 OK\r\nContent-", "body": ok("x" * 100)[:-50]}[where]

    def script(connection):
        connection.read_request()
        connection.send(part)
        connection.reset()

    sidecar = keytrail(raw_backend(script, tls=False), {**SLOW, "upstream": {"tls": None}})
    for _ in range(10):
        with sidecar.client() as c:
            c.send_request("POST", "/api/v2/keys", {}, "{}")
            if where == "head":
                assert c.read_response().status == 502
            else:
                with pytest.raises((Closed, OSError)):
                    c.read_response()


# ---- TERM in every state ----

def hold(event):
    def script(connection):
        if connection.read_head() is not None:
            event.wait(600)
    return script


def half_answer(event):
    def script(connection):
        if connection.read_request() is not None:
            connection.send(ok("x" * 100)[:-50])
            event.wait(600)
    return script


STATES = {
    "idle": b"",
    "inside a head": b"GET /api/v2/keys HTTP/1.1\r\nHo",
    "waiting for the answer": b"GET /api/v2/keys HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "inside a body": b"POST /api/v2/keys HTTP/1.1\r\nHost: localhost\r\n"
                     b"Content-Length: 100000\r\n\r\nabc",
    "inside a small body": b"POST /api/v2/keys HTTP/1.1\r\nHost: localhost\r\n"
                           b"Content-Length: 10\r\n\r\nabc",
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("script", [hold, half_answer], ids=["silent", "half an answer"])
def test_term_ends_in_every_state_with_one_event(keytrail, raw_backend, state, script):
    release = threading.Event()
    backend = raw_backend(script(release))
    sidecar = keytrail(backend, {**SLOW, "timeouts": {**SLOW["timeouts"], "drain": "500ms"}})
    forwarded = state in ("waiting for the answer", "inside a body")
    begun = forwarded or state == "inside a small body"
    with sidecar.client() as c:
        c.send(STATES[state])
        if forwarded:
            backend.wait(lambda b: b.requests)
        elif begun:
            wait_for(lambda: sidecar.metric("keytrail_requests_in_flight") == 1, "the request")
        else:
            wait_for(lambda: sidecar.metric("keytrail_connections_open") == 1, "the connection")
        sidecar.signal(signal.SIGTERM)
        sidecar.stop()
        release.set()
    assert len(sidecar.calls()) == (1 if begun else 0)


def test_term_while_a_connection_to_the_key_service_is_made(keytrail, raw_backend):
    """The key service accepts and never answers the handshake."""
    release = threading.Event()
    silent = raw_backend(lambda connection: release.wait(600), tls=False)
    sidecar = keytrail(silent, {**SLOW, "timeouts": {**SLOW["timeouts"], "drain": "500ms"}})
    correlation = new_id()
    with sidecar.client() as c:
        c.send_request("GET", "/api/v2/keys", {"Correlation-Id": correlation})
        silent.wait(lambda b: b.connections)
        sidecar.stop()
        release.set()
    assert [e["correlationId"] for e in sidecar.calls()] == [correlation]

"""The key service fails in every way it can: one answer, one event, with what we can vouch for."""

import json
import ssl
import threading

import pytest

import http1
from backend import ok
from faults import STALL
from support import PATIENCE, new_id, wait_for


def code_of(r):
    return json.loads(r.body)["resources"][0]["reasons"][0]["code"]


def unanswered(event, reason):
    """It was forwarded and no status came: nobody can say what the key service did."""
    return (event["outcome"] == "unknown" and "reasonCode" not in event["reason"]
            and event["reason"]["reasonType"] == reason
            and event["severity"] in ("warning", "critical"))


def call(sidecar, method="GET", target="/api/v2/keys", body=None):
    """One call; its answer and its event."""
    correlation = new_id()
    r = sidecar.call(method, target, {"Correlation-Id": correlation}, body)
    return r, sidecar.event(correlation)


# ---- malformed answers ----

def head(*lines):
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


MALFORMED = {
    "garbage": b"what is this\r\n\r\n",
    "another protocol": head("ICY 200 OK"),
    "HTTP/2.0": head("HTTP/2.0 200 OK", "Content-Length: 0"),
    "a status of two digits": head("HTTP/1.1 20 OK", "Content-Length: 0"),
    "a status of four digits": head("HTTP/1.1 2000 OK", "Content-Length: 0"),
    "no version": head("200 OK", "Content-Length: 0"),
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "obs-fold": head("HTTP/1.1 200 OK", "X-A: b", " c", "Content-Length: 0"),
    "an empty field name": head("HTTP/1.1 200 OK", ": b", "Content-Length: 0"),
    "a blank in a field name": head("HTTP/1.1 200 OK", "X A: b", "Content-Length: 0"),
    "NUL in a value": head("HTTP/1.1 200 OK", "X-A: b\0c", "Content-Length: 0"),
    "two lengths": head("HTTP/1.1 200 OK", "Content-Length: 2", "Content-Length: 3") + b"abc",
    "a negative length": head("HTTP/1.1 200 OK", "Content-Length: -1"),
    "length and chunked": head("HTTP/1.1 200 OK", "Content-Length: 5",
                               "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "gzip as transfer coding": head("HTTP/1.1 200 OK", "Transfer-Encoding: gzip, chunked")
    + b"0\r\n\r\n",
    "101 without an upgrade": head("HTTP/1.1 101 Switching Protocols", "Upgrade: h2c"),
    "too many interim answers": head("HTTP/1.1 102 Processing") * 11 + ok(),
    "a head without end": b"HTTP/1.1 200 OK\r\nX-A: " + b"b" * 2_000_000,
    "too many fields": head("HTTP/1.1 200 OK", *(f"X-{i}: 1" for i in range(200)),
                            "Content-Length: 0"),
}


@pytest.mark.parametrize("label", MALFORMED)
def test_a_malformed_answer_is_502_and_recorded(keytrail, raw_backend, label):
    backend = raw_backend(MALFORMED[label])
    sidecar = keytrail(backend)
    r, event = call(sidecar)
    assert r.status == 502 and code_of(r) == "UPSTREAM_MALFORMED"
    assert unanswered(event, "malformed_answer") and event["action"] == "kms.secrets.list"
    # The connection that it came on is not used again.
    call(sidecar)
    assert backend.connections == 2 and len(backend.requests) == 2


def test_bytes_after_an_answer_are_no_answer(keytrail, raw_backend):
    """Response splitting at the back: what follows must not answer the next request."""
    def script(connection):
        if connection.read_request() is not None:
            connection.send(ok("first") + (ok("smuggled") if connection.number == 1 else b""))
            connection.read_request()

    sidecar = keytrail(raw_backend(script), {"workers": 1})
    with sidecar.client() as c:
        assert c.request("GET", "/api/v2/keys").body == b"first"
        assert c.request("GET", "/api/v2/keys").body == b"first"


def test_an_answer_that_comes_before_the_request_is_none(keytrail, raw_backend, disk):
    """It is there while the intent is written; the request stays with us."""
    said = threading.Event()

    def script(connection):
        connection.send(ok("unasked"))
        said.set()
        connection.read_request()

    backend = raw_backend(script)
    sidecar = keytrail(backend, environment=disk.environment)
    disk.set(STALL)
    with sidecar.client() as c:
        correlation = new_id()
        c.send_request("DELETE", f"/api/v2/keys/{new_id()}", {"Correlation-Id": correlation})
        assert said.wait(PATIENCE)
        disk.clear()
        r = c.read_response()
    assert r.status == 502 and code_of(r) == "UPSTREAM_MALFORMED"
    event = sidecar.event(correlation)
    assert event["outcome"] == "failure" and event["reason"]["reasonCode"] == 502
    assert backend.requests == []


# ---- where an answer may lead ----

@pytest.mark.parametrize("status", ["302 Found", "201 Created"])
def test_an_answer_that_leads_elsewhere_is_502_and_recorded(keytrail, raw_backend, status):
    backend = raw_backend(ok(extra="Location: https://other.example/x\r\n", status=status))
    r, event = call(keytrail(backend))
    assert r.status == 502 and code_of(r) == "UPSTREAM_REDIRECT"
    assert unanswered(event, "foreign_location")


def to_itself(connection):
    while (request := connection.read_request()) is not None:
        connection.send(ok(extra=f"Location: https://{request.get('Host')}/x?y\r\n"
                                 "Alt-Svc: h3=\":443\"\r\n", status="302 Found"))


def test_an_answer_that_leads_to_the_key_service_leads_to_us(keytrail, raw_backend):
    r, event = call(keytrail(raw_backend(to_itself)))
    assert r.status == 302 and r.get("Location") == "/x?y" and r.get("Alt-Svc") is None
    assert event["reason"]["reasonCode"] == 302


def test_so_does_one_that_leads_to_the_host_of_the_target(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(to_itself), {"upstream": {"host": "pass"}})
    with sidecar.client() as c:
        c.send("GET https://localhost:1/api/v2/keys HTTP/1.0\r\n\r\n")
        assert c.read_response().get("Location") == "/x?y"


# ---- closed at every point ----

def close_after(data):
    def script(connection):
        if connection.read_request() is not None:
            connection.send(data)
            connection.close()
    return script


@pytest.mark.parametrize("label, data", [
    ("without a byte", b""), ("in the status line", b"HTTP/1.1 2"),
    ("in the head", b"HTTP/1.1 200 OK\r\nContent-Le"),
    ("after an interim answer", b"HTTP/1.1 102 Processing\r\n\r\n"),
])
def test_closed_before_the_head_is_whole(keytrail, raw_backend, label, data):
    sidecar = keytrail(raw_backend(close_after(data)))
    r, event = call(sidecar, "POST", "/api/v2/keys", "{}")
    assert r.status == 502 and code_of(r) in ("UPSTREAM_BROKEN", "UPSTREAM_MALFORMED"), label
    assert unanswered(event, "connection_lost"), label


@pytest.mark.parametrize("data", [
    b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
    b"HTTP/1.1 200 OK\r\n\r\nuntil the close, but cut without a close_notify",
], ids=["length", "chunk", "bad chunk", "trailer", "close"])
def test_an_answer_cut_in_its_body_is_cut_for_the_client(keytrail, raw_backend, data):
    """The status was vouched for and recorded; the client must be able to see the cut."""
    sidecar = keytrail(raw_backend(close_after(data)))
    correlation = new_id()
    with sidecar.client() as c:
        c.send_request("GET", "/api/v2/keys", {"Correlation-Id": correlation})
        with pytest.raises(http1.Closed):
            c.read_body(c.read_head(), "GET")
    event = sidecar.event(correlation)
    assert event["outcome"] == "success" and event["reason"]["reasonCode"] == 200
    assert sidecar.metric("keytrail_upstream_answers_cut_total") == 1


# ---- pooled connections ----

def stale_after_one(connection):
    """Answers the first request on a connection; closes on the second without a byte."""
    if connection.read_request() is None:
        return
    connection.send(ok("fine"))
    if connection.number == 1:
        connection.read_request()
        connection.reset()
    else:
        while connection.read_request() is not None:
            connection.send(ok("fine"))


def test_a_stale_pooled_connection_is_replaced_once_for_get(keytrail, raw_backend):
    backend = raw_backend(stale_after_one)
    sidecar = keytrail(backend, {"workers": 1})
    call(sidecar)
    r, event = call(sidecar)
    assert r.status == 200 and event["requestData"]["attempts"] == 2
    assert len(backend.requests) == 3
    assert sidecar.metric("keytrail_upstream_retries_total") == 1


def test_no_post_is_sent_twice(keytrail, raw_backend):
    backend = raw_backend(stale_after_one)
    sidecar = keytrail(backend, {"workers": 1})
    call(sidecar)
    r, event = call(sidecar, "POST", "/api/v2/keys", "{}")
    assert r.status == 502 and unanswered(event, "connection_lost")
    assert "attempts" not in event["requestData"] and len(backend.requests) == 2


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_reading_an_import_token_is_not_sent_twice(keytrail, raw_backend, method):
    backend = raw_backend(stale_after_one)
    sidecar = keytrail(backend, {"workers": 1})
    call(sidecar)
    r, _ = call(sidecar, method, "/api/v2/import_token")
    assert r.status == 502 and len(backend.requests) == 2


def test_a_get_is_retried_no_further(keytrail, raw_backend):
    """The second connection dies too."""
    def script(connection):
        if connection.read_request() is None:
            return
        if connection.number == 1:
            connection.send(ok())
            connection.read_request()
        connection.reset()

    backend = raw_backend(script)
    sidecar = keytrail(backend, {"workers": 1})
    call(sidecar)
    r, event = call(sidecar)
    assert r.status == 502 and event["requestData"]["attempts"] == 2
    assert len(backend.requests) == 3


def test_an_answer_that_comes_before_the_second_attempt_is_none(keytrail, raw_backend, pki):
    """It is there with the end of the handshake."""
    def script(connection):
        context = pki.server()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        if connection.number == 1:
            connection.sock = context.wrap_socket(connection.sock, server_side=True)
            stale_after_one(connection)
        else:
            tls, outgoing = http1.handshake(connection.sock, context, server_side=True)
            tls.write(ok("unasked"))
            connection.send(outgoing.read())
            while connection.sock.recv(65536):
                pass

    backend = raw_backend(script, tls=False)
    sidecar = keytrail(backend, {"workers": 1})
    call(sidecar)
    r, event = call(sidecar)
    assert r.status == 502 and code_of(r) == "UPSTREAM_MALFORMED"
    assert event["requestData"]["attempts"] == 2 and unanswered(event, "malformed_answer")
    assert len(backend.requests) == 2


def test_a_pooled_connection_that_was_closed_meanwhile_is_not_used(keytrail, raw_backend):
    closed = threading.Event()

    def script(connection):
        connection.read_request()
        connection.send(ok())
        if connection.number == 1:
            connection.sock.unwrap()
            connection.close()
            closed.set()
        else:
            connection.read_request()

    sidecar = keytrail(raw_backend(script), {"workers": 1})
    call(sidecar)
    assert closed.wait(20)
    wait_for(lambda: sidecar.metric("keytrail_upstream_connections_open") == 0,
             "the close to be seen")
    r, event = call(sidecar, "POST", "/api/v2/keys", "{}")
    assert r.status == 200 and "attempts" not in event["requestData"]


# ---- addresses ----

def test_nobody_listens(keytrail, dead_port):
    sidecar = keytrail(config={"upstream": {"address": f"127.0.0.1:{dead_port()}"}})
    r, event = call(sidecar)
    assert r.status == 502 and code_of(r) == "UPSTREAM_UNREACHABLE"
    assert event["reason"]["reasonCode"] == 502 and event["outcome"] == "failure"


def test_a_name_that_does_not_resolve(keytrail):
    sidecar = keytrail(config={"upstream": {"address": "no-such-host.invalid:443"},
                               "timeouts": {"connect": "2s"}})
    r, event = call(sidecar)
    assert r.status in (502, 504) and event["reason"]["reasonCode"] == r.status


def test_a_dead_address_beside_a_live_one_is_stepped_over(keytrail, raw_backend, dead_port):
    backend = raw_backend(ok())
    sidecar = keytrail(backend, {"upstream": {
        "address": ..., "addresses": [f"127.0.0.1:{dead_port()}", f"127.0.0.1:{backend.port}",
                                      f"127.0.0.1:{dead_port()}"]}})
    for _ in range(8):
        assert call(sidecar, "POST", "/api/v2/keys", "{}")[0].status == 200


def test_the_last_of_as_many_addresses_as_the_file_may_name_is_used(keytrail, raw_backend,
                                                                    dead_port):
    backend = raw_backend(ok())
    addresses = [f"127.0.0.1:{dead_port()}" for _ in range(15)] + [f"127.0.0.1:{backend.port}"]
    sidecar = keytrail(backend, {"upstream": {"address": ..., "addresses": addresses}})
    assert call(sidecar)[0].status == 200


def test_a_name_is_resolved(keytrail, raw_backend):
    backend = raw_backend(ok())
    sidecar = keytrail(backend, {"upstream": {"address": f"localhost:{backend.port}"}})
    assert call(sidecar)[0].status == 200


def test_a_key_service_that_comes_back_is_used_again(keytrail, raw_backend, dead_port):
    port = dead_port()
    sidecar = keytrail(config={"upstream": {"address": f"127.0.0.1:{port}"}})
    assert call(sidecar)[0].status == 502
    raw_backend(ok(), port=port)
    wait_for(lambda: call(sidecar)[0].status == 200, "the key service to be found again")


# ---- clients that go ----

def is_connected(local, remote):
    """Does the kernel still know this connection to a local port?"""
    with open("/proc/net/tcp", encoding="ascii") as f:
        return any(f":{local:04X} " in line and f":{remote:04X} " in line for line in f)


def test_the_answer_is_awaited_for_a_client_that_has_gone(keytrail, raw_backend):
    go_on = threading.Event()

    def script(connection):
        while (request := connection.read_request()) is not None:
            if request.method == "POST":
                assert go_on.wait(20)
            connection.send(ok(status="201 Created"))

    backend = raw_backend(script)
    sidecar = keytrail(backend, {"workers": 1})
    correlation = new_id()
    with sidecar.client() as c:
        c.send_request("POST", "/api/v2/keys", {"Correlation-Id": correlation}, "{}")
        backend.wait(lambda b: b.requests)
        ports = sidecar.port, c.sock.getsockname()[1]
        c.reset()
    wait_for(lambda: not is_connected(*ports), "the reset to arrive")
    # The one worker serves this after it has seen the reset.
    assert sidecar.call("GET", "/api/v2/keys").status == 201
    go_on.set()
    event = sidecar.event(correlation)
    assert event["reason"]["reasonCode"] == 201
    assert event["reason"]["reasonForFailure"] == "client gone"


def test_a_client_that_goes_inside_its_request(keytrail, raw_backend):
    backend = raw_backend(lambda c: c.read_request())
    sidecar = keytrail(backend)
    correlation = new_id()
    with sidecar.client() as c:
        c.send(f"POST /api/v2/keys HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"
               f"Correlation-Id: {correlation}\r\n\r\nonly this")
        backend.wait(lambda b: b.requests)
        c.reset()
    event = sidecar.event(correlation)
    assert event["outcome"] == "unknown" and "reasonCode" not in event["reason"]
    assert event["reason"] == {"reasonType": "client_gone"}
    assert event["severity"] in ("warning", "critical")


def test_a_client_that_goes_inside_its_answer(keytrail, raw_backend):
    def script(connection):
        connection.read_request()
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        for _ in range(1000):
            connection.send(b"x" * 100000)

    sidecar = keytrail(raw_backend(script))
    correlation = new_id()
    with sidecar.client() as c:
        c.send_request("GET", "/api/v2/keys", {"Correlation-Id": correlation})
        assert c.read_head().status == 200
        c.reset()
    assert sidecar.event(correlation)["outcome"] == "success"
    wait_for(lambda: sidecar.metric("keytrail_client_aborts_total") == 1, "the abort")


def test_an_early_error_stops_the_body(keytrail, raw_backend):
    def script(connection):
        connection.read_head()
        connection.send(ok(status="403 Forbidden"))
        connection.rest()

    sidecar = keytrail(raw_backend(script))
    correlation = new_id()
    with sidecar.client() as c:
        c.send(f"POST /api/v2/keys HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n"
               f"Correlation-Id: {correlation}\r\n\r\n" + "x" * 1000)
        r = c.read_response()
        assert r.status == 403 and r.get("Connection") == "close"
        assert c.is_closed()
    assert sidecar.event(correlation)["reason"]["reasonCode"] == 403

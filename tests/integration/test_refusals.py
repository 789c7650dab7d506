"""What is refused before it is forwarded: our error shape, recorded, connection closed."""

import json
import time

import pytest

from backend import ok
from support import new_id, wait_for


def request(*lines, body=b""):
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def get(*fields, target="/api/v2/keys", method="GET", version="HTTP/1.1"):
    return request(f"{method} {target} {version}", "Host: localhost", *fields)


def post(*fields, target="/api/v2/keys", body=b""):
    return request(f"POST {target} HTTP/1.1", "Host: localhost", *fields, body=body)


KEY = "/api/v2/keys/76c2c9cb-9095-5a24-811b-0ef4b24ac4d5"

REFUSED = {
    # the message
    "no version": (request("GET /api/v2/keys"), 400, "BAD_REQUEST_LINE"),
    "two blanks": (request("GET  /api/v2/keys HTTP/1.1", "Host: x"), 400, "BAD_REQUEST_LINE"),
    "a lower-case method": (get(method="get"), 400, None),
    "HTTP/2.0": (get(version="HTTP/2.0"), 400, "BAD_VERSION"),
    "HTTP/1.2": (get(version="HTTP/1.2"), 400, "BAD_VERSION"),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, None),
    "bare LF": (b"GET /api/v2/keys HTTP/1.1\nHost: localhost\n\n", 400, "BAD_LINE_END"),
    "obs-fold": (get("X-A: b", " c"), 400, "OBS_FOLD"),
    "an empty field name": (get(": b"), 400, "BAD_HEADER"),
    "a blank before the colon": (get("X-A : b"), 400, "BAD_HEADER"),
    "NUL in a value": (get("X-A: b\0"), 400, "BAD_HEADER"),
    "no Host": (request("GET /api/v2/keys HTTP/1.1"), 400, "BAD_HOST"),
    "two Hosts": (get("Host: other"), 400, "BAD_HOST"),
    # framing
    "two lengths": (post("Content-Length: 1", "Content-Length: 2", body=b"ab"), 400,
                    "BAD_CONTENT_LENGTH"),
    "a signed length": (post("Content-Length: +1", body=b"a"), 400, "BAD_CONTENT_LENGTH"),
    "length and chunked": (post("Content-Length: 5", "Transfer-Encoding: chunked",
                                body=b"0\r\n\r\n"), 400, "BAD_FRAMING"),
    "identity": (post("Transfer-Encoding: identity"), 400, "BAD_TRANSFER_ENCODING"),
    "chunked twice": (post("Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"), 400,
                      "BAD_TRANSFER_ENCODING"),
    "chunked, in HTTP/1.0": (request("POST /api/v2/keys HTTP/1.0", "Host: x",
                                     "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400, None),
    # what is not offered
    "CONNECT": (request("CONNECT localhost:443 HTTP/1.1", "Host: localhost:443"), 405,
                "METHOD_NOT_ALLOWED"),
    "TRACE": (get(method="TRACE"), 405, "METHOD_NOT_ALLOWED"),
    "a WebSocket": (get("Connection: Upgrade", "Upgrade: websocket"), 400, "UPGRADE"),
    "h2c": (get("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"),
            400, "UPGRADE"),
    "another expectation": (get("Expect: 200-ok"), 417, "BAD_EXPECT"),
    "a removed Authorization": (get("Connection: Authorization"), 400, "BAD_CONNECTION"),
    # a second reading
    "a dot segment": (get(target="/api/v2/keys/../keys"), 400, "AMBIGUOUS_PATH"),
    "an encoded dot segment": (get(target="/api/v2/%2e%2e/keys"), 400, "AMBIGUOUS_PATH"),
    "a double slash": (get(target="/api//v2/keys"), 400, "AMBIGUOUS_PATH"),
    "a slash at the end": (get(target="/api/v2/keys/"), 400, "AMBIGUOUS_PATH"),
    "an encoded letter": (get(target="/api/v2/ke%79s"), 400, "AMBIGUOUS_PATH"),
    "another case": (get(target="/api/v2/Keys"), 400, "AMBIGUOUS_PATH"),
    "a path parameter": (get(target="/api/v2/keys;x=1"), 400, None),
    "a backslash": (get(target="/api\\v2/keys"), 400, None),
    "a fragment": (get(target="/api/v2/keys#x"), 400, None),
    "a malformed escape": (get(target="/api/v2/keys/%zz"), 400, None),
    "two actions": (post("Content-Length: 0", target=KEY + "?action=wrap&action=unwrap"), 400,
                    "AMBIGUOUS_QUERY"),
    "an encoded action": (post("Content-Length: 0", target=KEY + "?action=un%77rap"), 400,
                          "AMBIGUOUS_QUERY"),
    "a disguised name": (post("Content-Length: 0", target=KEY + "?Action=unwrap"), 400,
                         "AMBIGUOUS_QUERY"),
    "both forms": (post("Content-Length: 0", target=KEY + "/actions/wrap?action=unwrap"), 400,
                   "AMBIGUOUS_QUERY"),
    "a form body": (post("Content-Type: application/x-www-form-urlencoded", "Content-Length: 1",
                         target=KEY + "?action=wrap"), 415, "AMBIGUOUS_BODY"),
    "a method in a form": (post("Content-Type: multipart/form-data; boundary=x",
                                "Content-Length: 1"), 415, "AMBIGUOUS_BODY"),
    "a body with GET": (get("Content-Length: 1"), 400, "UNEXPECTED_BODY"),
    "a chunked body with OPTIONS": (get("Transfer-Encoding: chunked", method="OPTIONS"), 400,
                                    "UNEXPECTED_BODY"),
    "two tokens": (get("Authorization: Bearer a.b.c", "Authorization: Bearer d.e.f"), 400,
                   "REPEATED_HEADER"),
    "two instances": (get("Bluemix-Instance: a", "Bluemix-Instance: b"), 400, "REPEATED_HEADER"),
    "a list of correlation IDs": (get("Correlation-Id: a, b"), 400, "REPEATED_HEADER"),
    "an overridden method": (get("X-HTTP-Method-Override: DELETE"), 400, "METHOD_OVERRIDE"),
    "a method in the query": (post("Content-Length: 0", target=KEY + "?_method=DELETE"), 400,
                              "METHOD_OVERRIDE"),
    "an overridden URL": (get("X-Original-URL: /api/v2/import_token"), 400, "METHOD_OVERRIDE"),
    "a disguised header": (get("Bluemix_Instance: x"), 400, "ALIAS_HEADER"),
    # limits
    "a long target": (get(target="/api/v2/keys?search=" + "a" * 9000), 414, "TARGET_TOO_LONG"),
    "a long head": (get("X-A: " + "b" * 40000), 431, "HEAD_TOO_LARGE"),
    "many fields": (get(*(f"X-{i}: 1" for i in range(140))), 431, "HEAD_TOO_LARGE"),
    "a large body": (post("Content-Length: 1001"), 413, "BODY_TOO_LARGE"),
}


@pytest.fixture
def backend_of_all(raw_backend):
    return raw_backend(ok())


@pytest.mark.parametrize("last", [get("Connection: close"), get(version="HTTP/1.0")])
@pytest.mark.parametrize("apart", [False, True])
def test_what_follows_the_last_request_is_recorded_once(keytrail, backend_of_all, apart, last):
    sidecar = keytrail(backend_of_all)
    with sidecar.client() as c:
        c.send(last + (b"" if apart else b"\r\n" + get()))
        assert c.read_response().status == 200
        c.send(b"\r\n")
        c.send(get() * 400)  # more than one read takes
        assert c.is_closed()
    event = wait_for(lambda: recorded(sidecar, 400, "AFTER_CLOSE"), "the record")
    sidecar.stop()
    assert len(sidecar.own("keytrail.refused")) == 1
    assert event["reason"] == {"reasonCode": 400, "reasonForFailure": "after_close",
                               "reasonType": "Bad Request"}
    assert event["initiator"]["host"]["address"] == "127.0.0.1" and "requestData" not in event
    assert len(backend_of_all.requests) == 1 and len(sidecar.calls()) == 1


def test_line_ends_after_the_last_request_are_no_request(keytrail, backend_of_all):
    sidecar = keytrail(backend_of_all)
    with sidecar.client() as c:
        c.send(get("Connection: close") + b"\r\n\r\n")
        assert c.read_response().status == 200 and c.is_closed()
    sidecar.stop()
    assert sidecar.own("keytrail.refused") == []


def test_the_rest_of_a_refused_body_is_no_request(keytrail, backend_of_all):
    sidecar = keytrail(backend_of_all, {"limits": {"body": 1000}})
    with sidecar.client() as c:
        c.send(post("Connection: close", "Content-Length: 1001") + b"x" * 1001)
        assert c.read_response().status == 413
    sidecar.wait_calls(1)
    sidecar.stop()
    assert sidecar.own("keytrail.refused") == []


def recorded(sidecar, status, code):
    """A call's event with our status, or keytrail.refused with the reason."""
    for e in sidecar.events():
        if e["action"] == "keytrail.refused" and (code is None or code.lower() in str(e)):
            return e
        if e.get("reason", {}).get("reasonCode") == status:
            return e
    return None


@pytest.mark.parametrize("label", REFUSED)
def test_refused_answered_recorded_and_closed(keytrail, backend_of_all, label):
    data, status, code = REFUSED[label]
    sidecar = keytrail(backend_of_all, {"limits": {"body": 1000}})
    with sidecar.client() as c:
        c.send(data)
        r = c.read_response()
        assert r.status == status
        assert r.get("Connection") == "close"
        error = json.loads(r.body)
        reason, = error["resources"][0]["reasons"]
        assert error["metadata"] == {"collectionType": "application/vnd.ibm.kms.error+json",
                                     "collectionTotal": 1}
        assert code in (None, reason["code"]) and reason["status"] == status
        assert len(r.body) <= 1024
        assert c.is_closed()
    wait_for(lambda: recorded(sidecar, status, code), "the record")
    assert backend_of_all.requests == []


def test_a_refused_request_keeps_its_name_and_its_correlation_id(keytrail, backend_of_all):
    sidecar = keytrail(backend_of_all)
    correlation = new_id()
    r = sidecar.call("POST", KEY + "?action=wrap&action=wrap",
                     {"Correlation-Id": correlation, "Authorization": "Bearer x"}, "{}")
    assert r.status == 400 and r.get("Correlation-Id") == correlation
    event = sidecar.event(correlation)
    assert event["reason"]["reasonCode"] == 400 and event["outcome"] == "failure"
    assert event["initiator"]["name"] == "unauthenticated"
    assert event["correlationSource"] == "request"


def assert_nobody_knows(event, why):
    """The head was forwarded: a service that acts on a head alone may have acted."""
    assert event["outcome"] == "unknown" and "reasonCode" not in event["reason"]
    assert event["reason"]["reasonType"] == why
    assert event["initiator"]["name"] == "unauthenticated"


def test_a_chunked_body_over_the_limit(keytrail, raw_backend):
    def script(connection):
        connection.read_head()
        connection.rest()

    sidecar = keytrail(raw_backend(script), {"limits": {"body": 1000}})
    correlation = new_id()
    with sidecar.client() as c:
        c.send(f"POST /api/v2/keys HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
               f"Correlation-Id: {correlation}\r\n\r\n")
        for _ in range(11):
            c.send(b"64\r\n" + b"x" * 100 + b"\r\n")
        r = c.read_response()
        assert r.status == 413 and c.is_closed()
    assert_nobody_knows(sidecar.event(correlation), "body_too_large")


@pytest.mark.parametrize("forwarded", [True, False])
def test_a_malformed_chunk(keytrail, raw_backend, forwarded):
    heads = []

    def script(connection):
        heads.append(connection.read_head())
        connection.rest()

    sidecar = keytrail(raw_backend(script))
    correlation = new_id()
    with sidecar.client() as c:
        c.send(f"DELETE /api/v2/keys/{new_id()} HTTP/1.1\r\nHost: localhost\r\n"
               f"Transfer-Encoding: chunked\r\nCorrelation-Id: {correlation}\r\n\r\n"
               + ("" if forwarded else "nonsense\r\n"))
        if forwarded:
            wait_for(lambda: heads, "the head to be forwarded")
            c.send("nonsense\r\n")
        r = c.read_response()
        assert r.status == 400 and b"BAD_CHUNK" in r.body and c.is_closed()
    event = sidecar.event(correlation)
    if forwarded:
        assert_nobody_knows(event, "bad_chunk")
    else:
        assert event["outcome"] == "failure" and event["reason"]["reasonCode"] == 400
        assert [h for h in heads if h is not None] == []


@pytest.mark.parametrize("trailer", ["X-Request-Id: 1", "x_request-id: 1", "X-Mode: purge"])
def test_a_trailer_that_decides_or_identifies(keytrail, raw_backend, trailer):
    """Some servers read trailers as if they were header fields."""
    def script(connection):
        connection.read_head()
        connection.rest()

    backend = raw_backend(script)
    sidecar = keytrail(backend, {
        "correlation": {"header": "X-Request-Id", "grammar": "id"},
        "routes": [{"action": "kms.secrets.purge", "method": "DELETE", "path": "/x/{id}",
                    "header": {"X-Mode": "purge"}}]})
    with sidecar.client() as c:
        c.send("POST /api/v2/keys HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
               f"\r\n1\r\na\r\n0\r\n{trailer}\r\n\r\n")
        r = c.read_response()
        assert r.status == 400 and b"BAD_TRAILER" in r.body and c.is_closed()


def test_what_follows_a_refusal_is_not_read(keytrail, backend_of_all):
    sidecar = keytrail(backend_of_all)
    with sidecar.client() as c:
        c.send(get("X-A : b") + get())
        assert c.read_response().status == 400
        assert c.is_closed()
    assert backend_of_all.requests == []


@pytest.mark.parametrize("unmatched, status, forwarded", [("record", 200, 1), ("deny", 403, 0)])
def test_unmatched_requests(keytrail, backend_of_all, unmatched, status, forwarded):
    sidecar = keytrail(backend_of_all, {"audit": {"unmatched": unmatched}})
    correlation = new_id()
    r = sidecar.call("GET", "/api/v2/nothing/76c2c9cb-9095-5a24-811b-0ef4b24ac4d5/17/secret",
                     {"Correlation-Id": correlation})
    assert r.status == status and len(backend_of_all.requests) == forwarded
    event = sidecar.event(correlation)
    assert event["action"] == "kms.secrets.default"
    assert event["requestData"]["unmatched"] is True
    assert event["requestData"]["shape"] == "/api/v2/{}/{uuid}/{n}/{}"
    assert event["severity"] == "critical"


def test_a_client_of_http_1_0_is_told_that_its_connection_is_kept(keytrail, backend_of_all):
    """Else it waits for the end of it."""
    sidecar = keytrail(backend_of_all, {"audit": {"unmatched": "deny"}})
    with sidecar.client() as c:
        for _ in range(2):
            c.send("GET /nothing HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            r = c.read_response()
            assert (r.status, r.get("Connection")) == (403, "keep-alive")


def test_junk_does_not_bury_the_evidence(keytrail, backend_of_all):
    """Past a rate, refusals are summed up; calls are still recorded one by one."""
    sidecar = keytrail(backend_of_all, {"limits": {"refusals": 1}})
    correlation = new_id()
    begin = time.monotonic()
    for _ in range(300):
        with sidecar.client() as c:
            c.send(get("X-A : b"))
            c.read_response()
    took = time.monotonic() - begin
    assert sidecar.call("GET", "/api/v2/keys", {"Correlation-Id": correlation}).status == 200
    assert sidecar.event(correlation)["outcome"] == "success"

    def apart():
        return [e for e in sidecar.own("keytrail.refused") if "details" not in e]

    def together():
        return sum(e["details"]["count"] for e in sidecar.own("keytrail.refused")
                   if "details" in e)

    wait_for(lambda: len(apart()) + together() == 300, "all three hundred")
    assert len(apart()) <= 2 + took
    assert sidecar.metric("keytrail_refused_requests_total") == 300


def test_connections_over_the_limit_are_closed(keytrail, backend_of_all):
    sidecar = keytrail(backend_of_all, {"limits": {"connections": 2}})
    with sidecar.client() as first, sidecar.client() as second:
        assert first.request("GET", "/api/v2/keys").status == 200
        assert second.request("GET", "/api/v2/keys").status == 200
        with pytest.raises(OSError):
            sidecar.client()
        assert first.request("GET", "/api/v2/keys").status == 200
    assert sidecar.metric("keytrail_connections_rejected_total") == 1
    wait_for(lambda: sidecar.metric("keytrail_connections_open") == 0, "the two to be gone")
    assert sidecar.call("GET", "/api/v2/keys").status == 200

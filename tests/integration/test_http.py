"""HTTP/1.1 through the sidecar: framing, connections, what is rewritten."""

import http.client
import json
import subprocess
import threading

import pytest

import http1
from backend import ok
from support import INSTANCE, new_id

ONE = {"workers": 1}


def echo_target(connection):
    while (request := connection.read_request()) is not None:
        connection.send(ok(request.target))


def collect(raw_backend, answer=ok()):
    """A back end that always answers the same; its requests are in .requests."""
    return raw_backend(answer)


# ---- connections ----

def test_kept_connections_are_reused_on_both_sides(keytrail, raw_backend):
    backend = raw_backend(echo_target)
    sidecar = keytrail(backend, ONE)
    with sidecar.client() as c:
        for i in range(5):
            assert c.request("GET", f"/api/v2/keys?limit={i}").body == \
                f"/api/v2/keys?limit={i}".encode()
    assert backend.connections == 1


def test_pipelined_requests_are_answered_in_order(keytrail, raw_backend):
    release = threading.Event()

    def script(connection):
        while (request := connection.read_request()) is not None:
            if request.target.endswith("=0"):
                assert release.wait(20)
            connection.send(ok(request.target))

    backend = raw_backend(script)
    sidecar = keytrail(backend)
    with sidecar.client() as c:
        for i in range(10):
            c.send_request("POST" if i % 2 else "GET", f"/api/v2/keys?limit={i}",
                           body="x" * i if i % 2 else None)
        backend.wait(lambda b: b.requests)
        release.set()
        for i in range(10):
            assert c.read_response().body == f"/api/v2/keys?limit={i}".encode()
    assert [r.target[-1] for r in backend.requests] == [str(i) for i in range(10)]
    assert len(sidecar.wait_calls(10)) == 10


def test_connection_close_is_honoured(keytrail, raw_backend):
    sidecar = keytrail(collect(raw_backend))
    with sidecar.client() as c:
        r = c.request("GET", "/api/v2/keys", {"Connection": "close"})
        assert r.status == 200 and r.get("Connection") == "close"
        assert c.is_closed()


def test_a_half_closed_client_still_gets_its_answer(keytrail, raw_backend):
    sidecar = keytrail(collect(raw_backend), {"listen": {"tls": None}})
    with http1.Client(sidecar.port) as c:
        c.send_request("GET", "/api/v2/keys")
        c.sock.shutdown(1)
        assert c.read_response().status == 200


@pytest.mark.parametrize("version, fields, closes", [
    ("1.0", {}, True),
    ("1.0", {"Connection": "close"}, True),
    ("1.1", {}, False),
])
def test_a_chunked_answer_for_each_version(keytrail, raw_backend, version, fields, closes):
    answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"
    sidecar = keytrail(collect(raw_backend, answer.encode()))
    with sidecar.client() as c:
        r = c.request("GET", "/api/v2/keys", fields, version=version)
        assert r.body == b"hello!"
        assert (r.get("Transfer-Encoding") is None) == closes
        assert r.ended_by_close == closes


def test_an_answer_that_ends_by_close_arrives_whole(keytrail, raw_backend):
    def script(connection):
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n" + b"z" * 100000)
        connection.sock.unwrap()

    sidecar = keytrail(raw_backend(script))
    with sidecar.client() as c:
        r = c.request("GET", "/api/v2/keys")
        assert r.body == b"z" * 100000 and not r.ended_by_close
        assert c.request("GET", "/api/v2/keys").status == 200


# ---- bodies ----

def test_answers_without_a_body_leave_the_connection_usable(keytrail, raw_backend):
    def script(connection):
        while (request := connection.read_request()) is not None:
            status = request.target.rpartition("=")[2]
            head = {"200": "200 OK\r\nContent-Length: 1000", "204": "204 No Content",
                    "304": "304 Not Modified\r\nContent-Length: 1000"}[status]
            connection.send(f"HTTP/1.1 {head}\r\nETag: \"1\"\r\n\r\n")

    sidecar = keytrail(raw_backend(script))
    with sidecar.client() as c:
        for method, status in [("HEAD", 200), ("GET", 204), ("GET", 304), ("HEAD", 204),
                               ("HEAD", 304), ("DELETE", 204), ("HEAD", 200)]:
            r = c.request(method, f"/api/v2/keys?limit={status}")
            assert (r.status, r.body) == (status, b"")
            if status == 200:
                assert r.get("Content-Length") == "1000"
            if status == 204:
                assert r.get("Content-Length") is None and r.get("Transfer-Encoding") is None


def test_a_chunked_body_with_trailers_passes_in_both_directions(keytrail, raw_backend):
    answer = (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
              b"3\r\nabc\r\n4;name=value\r\ndefg\r\n0\r\nX-Sum: 42\r\n\r\n")
    backend = raw_backend(answer)
    sidecar = keytrail(backend)
    with sidecar.client() as c:
        for _ in range(2):
            c.send("POST /api/v2/keys HTTP/1.1\r\nHost: localhost\r\nTE: trailers\r\n"
                   "Connection: TE\r\nTransfer-Encoding: chunked\r\nTrailer: X-Check\r\n\r\n"
                   "5;ext=\"a;b\"\r\nhello\r\n1\r\n!\r\n0\r\nX-Check: 7\r\n\r\n")
            r = c.read_response()
            assert r.body == b"abcdefg" and r.trailers == [("X-Sum", "42")]
    for request in backend.requests:
        assert request.body == b"hello!" and request.trailers == [("X-Check", "7")]
        assert request.get("Content-Length") is None


@pytest.mark.parametrize("split", [1, 7, 1000])
def test_a_request_may_arrive_in_any_pieces(keytrail, raw_backend, split):
    backend = raw_backend(ok())
    sidecar = keytrail(backend)
    data = (b"POST /api/v2/keys HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"6\r\nabcdef\r\nA\r\n0123456789\r\n0\r\n\r\n")
    with sidecar.client() as c:
        for i in range(0, len(data), split):
            c.send(data[i:i + split])
        assert c.read_response().status == 200
    assert backend.requests[0].body == b"abcdef0123456789"


def test_an_answer_may_arrive_in_any_pieces(keytrail, raw_backend):
    data = (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"6\r\nabcdef\r\nA\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\n")

    def script(connection):
        while connection.read_request() is not None:
            for i in range(len(data)):
                connection.send(data[i:i + 1])

    sidecar = keytrail(raw_backend(script))
    with sidecar.client() as c:
        for _ in range(3):
            r = c.request("GET", "/api/v2/keys")
            assert r.body == b"abcdef0123456789" and r.trailers == [("X-T", "1")]


# ---- interim answers ----

def test_100_continue_is_relayed_and_the_body_follows(keytrail, raw_backend):
    def script(connection):
        request = connection.read_head()
        assert request.get("Expect") == "100-continue"
        connection.send("HTTP/1.1 100 Continue\r\n\r\n")
        connection.send(ok(connection.take(5)))

    sidecar = keytrail(raw_backend(script))
    with sidecar.client() as c:
        c.send("POST /api/v2/keys HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
               "Expect: 100-continue\r\n\r\n")
        assert c.read_head().status == 100
        c.send("hello")
        assert c.read_response().body == b"hello"
    assert len(sidecar.wait_calls(1)) == 1


def test_a_final_answer_instead_of_100_closes_the_connection(keytrail, raw_backend):
    def script(connection):
        connection.read_head()
        connection.send(ok(status="401 Unauthorized"))

    sidecar = keytrail(raw_backend(script))
    with sidecar.client() as c:
        c.send("POST /api/v2/keys HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
               "Expect: 100-continue\r\n\r\n")
        r = c.read_response()
        assert r.status == 401 and r.interim == [] and r.get("Connection") == "close"
        assert c.is_closed()
    event, = sidecar.wait_calls(1)
    assert event["reason"]["reasonCode"] == 401


def test_interim_answers_other_than_100_are_dropped(keytrail, raw_backend):
    interim = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 3
    sidecar = keytrail(collect(raw_backend, interim.encode() + ok("final")))
    with sidecar.client() as c:
        for _ in range(2):
            r = c.request("GET", "/api/v2/keys")
            assert r.body == b"final" and r.interim == []
    assert len(sidecar.wait_calls(2)) == 2


def test_an_early_2xx_lets_the_body_go_on(keytrail, raw_backend):
    def script(connection):
        while (request := connection.read_head()) is not None:
            connection.send(ok("early"))
            connection.take(int(request.get("Content-Length")))

    sidecar = keytrail(raw_backend(script))
    with sidecar.client() as c:
        c.send("POST /api/v2/keys HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n")
        assert c.read_response().body == b"early"
        c.send(b"x" * 200000)
        assert c.request("GET", "/api/v2/keys", {"Content-Length": "0"}).status == 200


# ---- what is rewritten ----

def test_the_request_is_written_afresh(keytrail, raw_backend):
    backend = collect(raw_backend)
    sidecar = keytrail(backend)
    with sidecar.client() as c:
        c.request("GET", "/api/v2/keys?limit=1", [
            ("Host", "evil.example"), ("Connection", "X-Hop, keep-alive"), ("X-Hop", "1"),
            ("Keep-Alive", "timeout=5"), ("Proxy-Connection", "keep-alive"),
            ("Proxy-Authorization", "Basic eDp5"), ("X-Kept", "yes"), ("x-KEPT", "again")])
    request, = backend.requests
    names = [n.lower() for n, _ in request.fields]
    assert not {"x-hop", "keep-alive", "proxy-connection", "proxy-authorization"} & set(names)
    assert request.all("X-Kept") == ["yes", "again"]
    assert request.all("Host") == [f"localhost:{backend.port}"]
    assert "keytrail" in request.get("Via")
    assert "127.0.0.1" in request.get("Forwarded")
    assert len(request.all("Correlation-Id")) == 1 and len(request.get("Correlation-Id")) == 36


def test_the_clients_correlation_id_is_passed_on(keytrail, raw_backend):
    backend = collect(raw_backend)
    sidecar = keytrail(backend)
    correlation = new_id()
    sidecar.call("GET", "/api/v2/keys", {"Correlation-Id": correlation})
    assert backend.requests[0].all("Correlation-Id") == [correlation]
    event = sidecar.event(correlation)
    assert event["correlationSource"] == "request"


def test_hop_by_hop_fields_of_the_answer_stay_behind(keytrail, raw_backend):
    sidecar = keytrail(collect(raw_backend, ok(extra=(
        "Connection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nServer: kms\r\n"
        "Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n"))))
    with sidecar.client() as c:
        r = c.request("GET", "/api/v2/keys")
    assert r.get("X-Hop") is None and r.get("Keep-Alive") is None
    assert r.get("Server") == "kms" and r.all("Set-Cookie") == ["a=1", "b=2"]


def test_host_can_be_passed_or_set(keytrail, raw_backend):
    for host, want in (("pass", "asked.example:1234"), ("kms.example.com", "kms.example.com")):
        backend = collect(raw_backend)
        sidecar = keytrail(backend, {"upstream": {"host": host}})
        sidecar.call("GET", "/api/v2/keys", {"Host": "asked.example:1234"})
        assert backend.requests[0].all("Host") == [want]


def test_a_client_without_a_host_gets_the_default_one(keytrail, raw_backend):
    backend = collect(raw_backend)
    sidecar = keytrail(backend, {"upstream": {"host": "pass"}})
    with sidecar.client() as c:
        c.send("GET /api/v2/keys HTTP/1.0\r\n\r\n")
        assert c.read_response().status == 200
    assert backend.requests[0].all("Host") == [f"localhost:{backend.port}"]


def test_a_cut_answer_does_not_end_like_a_whole_one(keytrail, raw_backend):
    """HTTP/1.0 knows no other end than the connection's."""
    def script(connection):
        connection.read_request()
        connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        assert cut.wait(20)

    cut = threading.Event()
    sidecar = keytrail(raw_backend(script), {"listen": {"tls": None}})
    with http1.Client(sidecar.port) as c:
        c.send("GET /api/v2/keys HTTP/1.0\r\nHost: localhost\r\n\r\n")
        c.read_head()
        assert c.take(5) == b"hello"
        cut.set()
        with pytest.raises(ConnectionResetError):
            c.more()


# ---- where the request came from ----

@pytest.mark.parametrize("label, trusted, forwarded, address, peer", [
    ("nobody is believed by default", [], "192.0.2.1", "127.0.0.1", None),
    ("the rightmost untrusted one", ["127.0.0.0/8", "10.0.0.0/8"],
     "203.0.113.9, 192.0.2.7, 10.1.2.3", "192.0.2.7", "127.0.0.1"),
    ("junk ends the search", ["127.0.0.0/8"], "192.0.2.7, junk", "127.0.0.1", None),
])
def test_the_clients_address(keytrail, raw_backend, label, trusted, forwarded, address, peer):
    sidecar = keytrail(collect(raw_backend), {"trusted_networks": trusted})
    sidecar.call("GET", "/api/v2/keys", {"X-Forwarded-For": forwarded})
    event, = sidecar.wait_calls(1)
    host = event["initiator"]["host"]
    assert (host["address"], host.get("peer")) == (address, peer), label
    assert host["addressType"] == "IPv4"


# ---- clients that nobody here wrote ----

def test_http_client_of_python(keytrail, kms, pki, key):
    sidecar = keytrail()
    connection = http.client.HTTPSConnection("localhost", sidecar.port, context=pki.client(),
                                             timeout=20)
    body = json.dumps({"plaintext": "c2VjcmV0"})
    connection.request("POST", f"/api/v2/keys/{key}/actions/wrap", body, kms.headers())
    r = connection.getresponse()
    wrapped = json.loads(r.read())
    connection.request("POST", f"/api/v2/keys/{key}/actions/unwrap",
                       iter([b'{"ciphertext":"', wrapped["ciphertext"].encode(), b'"}']),
                       kms.headers())
    r = connection.getresponse()
    assert json.loads(r.read())["plaintext"] == "c2VjcmV0"
    connection.request("GET", "/api/v2/keys", headers=kms.headers())
    assert key in connection.getresponse().read().decode()
    connection.close()


def curl(sidecar, kms, *arguments, body=None):
    command = ["curl", "-sS", "--cacert", sidecar.pki["ca.pem"], "-H",
               f"Authorization: Bearer {kms.token()}", "-H", f"Bluemix-Instance: {INSTANCE}",
               "-H", "Content-Type: application/json", "-m", "20", *arguments]
    return subprocess.run(command, input=body, check=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE).stdout.decode()


@pytest.mark.parametrize("arguments", [
    ["--http1.1"], ["--http1.0"], ["--http2"], ["--tlsv1.3"], ["--tls-max", "1.2"],
    ["-H", "Expect: 100-continue", "--expect100-timeout", "20"],
    ["-H", "Transfer-Encoding: chunked"],
], ids=" ".join)
def test_curl(keytrail, kms, key, arguments):
    sidecar = keytrail()
    answer = curl(sidecar, kms, *arguments, "-d", '{"plaintext":"c2VjcmV0"}',
                  f"{sidecar.url}/api/v2/keys/{key}/actions/wrap")
    opened = curl(sidecar, kms, *arguments, "-d", "@-",
                  f"{sidecar.url}/api/v2/keys/{key}?action=unwrap",
                  body=json.dumps({"ciphertext": json.loads(answer)["ciphertext"]}).encode())
    assert json.loads(opened)["plaintext"] == "c2VjcmV0"
    assert [e["action"] for e in sidecar.wait_calls(2)] == ["kms.secrets.wrap",
                                                            "kms.secrets.unwrap"]


def test_curl_reuses_its_connection(keytrail, kms):
    sidecar = keytrail()
    out = curl(sidecar, kms, "-o", "/dev/null", "-w", "%{http_code} %{num_connects}\n",
               f"{sidecar.url}/api/v2/keys", "-o", "/dev/null", f"{sidecar.url}/api/v2/key_rings")
    assert out == "200 1\n200 0\n"


def test_many_clients_at_once(keytrail, raw_backend):
    """One event for each of them, none doubled."""
    def script(connection):
        while (request := connection.read_request()) is not None:
            connection.send(ok(extra=f"Correlation-Id: {request.get('Correlation-Id')}\r\n"))

    sidecar = keytrail(raw_backend(script))
    sent = [[new_id() for _ in range(40)] for _ in range(16)]
    failed = []

    def client(ids):
        try:
            with sidecar.client() as c:
                for i in ids:
                    assert c.request("GET", "/api/v2/keys",
                                     {"Correlation-Id": i}).get("Correlation-Id") == i
        except Exception as e:  # pylint: disable=broad-except
            failed.append(e)

    threads = [threading.Thread(target=client, args=(ids,)) for ids in sent]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert failed == []
    recorded = [e["correlationId"] for e in sidecar.wait_calls(640)]
    assert sorted(recorded) == sorted(i for ids in sent for i in ids)

"""The http sink through a proxy: a tunnel of TLS, of which the proxy sees where it leads and no more."""

import contextlib
import select
import socket

import pytest

from backend import ok
from receiver import END, Hang, Receiver, closing, garbage, resetting, status
from support import MODULES, new_id
from test_sink_http import (Iam, authorizations, before_its_receiver_ends,  # noqa: F401 (fixtures)
                            caught_up, check, is_down, options_of, send, start, token)

pytestmark = pytest.mark.skipif("http" not in MODULES, reason="built without the http sink")


class Proxy:
    """Answers CONNECT (RFC 9110, section 9.3.6), and keeps each byte that comes from the client."""

    def __init__(self, raw_backend, **options):
        self.fault = None     # fault(connection, request) instead of a tunnel
        self.seen = b""
        self.to = None        # the port it goes to, whatever it was asked for
        self.tunnels = []
        self.backend = raw_backend(self.serve, **options)
        self.port = self.backend.port

    @property
    def requests(self):
        return [f"{r.method} {r.target}" for r in self.backend.requests]

    def serve(self, connection):
        while (request := connection.read_head()) is not None:
            self.seen += request.raw
            if self.fault is not None:
                if self.fault(connection, request) is END:
                    return
                continue
            port = self.to or int(request.target.rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", port)) as other:
                self.tunnels.append(connection)
                connection.send("HTTP/1.1 200 Connection established\r\n\r\n")
                self.shovel(connection, other)
            return

    def shovel(self, connection, other):
        """By one thread: a TLS socket is not for two."""
        here = connection.sock
        pending = getattr(here, "pending", lambda: 0)
        with contextlib.suppress(OSError):  # one of the two is gone, which ends both directions
            while True:
                ready = [here] if pending() else select.select([here, other], [], [])[0]
                if here in ready:
                    if not (data := here.recv(65536)):
                        break
                    self.seen += data
                    other.sendall(data)
                if other in ready:
                    if not (data := other.recv(65536)):
                        break
                    connection.send(data)
        end(here)
        end(other)

    def cut(self):
        while self.tunnels:
            end(self.tunnels.pop().sock)


def end(sock):
    with contextlib.suppress(OSError):  # it went by itself
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


@pytest.fixture(name="proxy")
def a_proxy(raw_backend):
    return Proxy(raw_backend, tls=False)


def through(proxy, scheme="http", **more):
    return {"proxy": f"{scheme}://localhost:{proxy.port}", **more}


@pytest.mark.parametrize("preset", ["ndjson", "ibm-cloud-logs", "splunk-hec"])
def test_a_proxy_sees_where_a_tunnel_leads_and_no_more(keytrail, raw_backend, proxy, token, preset,
                                                       monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "localhost")
    iam = Iam(raw_backend) if preset == "ibm-cloud-logs" else None
    receiver = Receiver(raw_backend, preset)
    credentials = options_of(preset, token, iam) or {"bearer": {"file": str(token)}}
    sidecar = start(keytrail, raw_backend, receiver, compression="none", **through(proxy, **credentials))
    send(sidecar, 1, **{"Correlation-Id": (correlation := new_id())})
    send(sidecar, 20)
    got = caught_up(sidecar, receiver)
    assert len(got) == len(set(got))
    assert correlation in {e.get("correlationId") for e in receiver.taken}
    servers = {receiver.port} | ({iam.port} if iam else set())
    assert {*proxy.requests} == {f"CONNECT localhost:{port}" for port in servers}
    assert set(authorizations(receiver)) <= {"Bearer first-token", "Splunk first-token", "Bearer token-1"}
    for request in proxy.backend.requests:
        assert {n for n, _ in request.fields} == {"Host", "User-Agent", "Proxy-Connection"}
    for text in ("first-token", "token-1", correlation, "kms.secrets.list", "Authorization", "POST"):
        assert text.encode() not in proxy.seen


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_environments_proxy_does_not_count(keytrail, raw_backend, proxy, scheme, monkeypatch):
    for name in ("https_proxy", "HTTPS_PROXY", "http_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://localhost:{proxy.port}")
    receiver = Receiver(raw_backend, tls=scheme == "https")
    sink = receiver.sink(keytrail.pki) | {"url": f"{scheme}://localhost:{receiver.port}"}
    if scheme == "http":
        del sink["tls"]
    sidecar = keytrail(raw_backend(ok()), {"sinks": [sink]})
    caught_up(sidecar, receiver)
    assert proxy.backend.connections == 0


def test_what_is_plain_is_asked_of_the_proxy_itself(keytrail, raw_backend, proxy):
    receiver = Receiver(raw_backend, tls=False)

    def forward(connection, request):
        body = connection.take(int(request.get("Content-Length")))
        with socket.create_connection(("127.0.0.1", receiver.port)) as other:
            other.sendall(request.raw.replace(f"http://localhost:{receiver.port}".encode(), b"", 1) + body)
            connection.send(other.recv(65536))

    proxy.fault = forward
    sidecar = keytrail(raw_backend(ok()), {"sinks": [
        {"name": "http", "type": "http", "url": f"http://localhost:{receiver.port}", **through(proxy)}]})
    caught_up(sidecar, receiver)
    assert set(proxy.requests) == {f"POST http://localhost:{receiver.port}/"}


def test_the_name_of_a_certificate_leads_nowhere_else(keytrail, raw_backend, proxy, pki):
    receiver = Receiver(raw_backend, context=pki.server(pki.issue("elsewhere", dns="elsewhere.test")))
    tls = {"ca": pki["ca.pem"], "server_name": "elsewhere.test"}
    sidecar = start(keytrail, raw_backend, receiver, **through(proxy, tls=tls))
    caught_up(sidecar, receiver)
    assert set(proxy.requests) == {f"CONNECT localhost:{receiver.port}"}


FAULTS = {
    "credentials": (status("407 Proxy Authentication Required",
                           'Proxy-Authenticate: Basic realm="SECRET"\r\n'), "(status 407)"),
    "forbidden": (status("403 Forbidden"), "(status 403)"),
    "no way": (status("502 Bad Gateway"), "(status 502)"),
    "redirect": (status("302 Found", "Location: https://localhost:1/\r\n"), "(status 302)"),
    "an answer of its own": (status("200 OK"), "SSL connect error"),
    "garbage": (garbage, "receiving data from the peer"),
    "close": (closing, "https://localhost"),
    "reset": (resetting, "https://localhost"),
}


@pytest.mark.parametrize("fault, words", FAULTS.values(), ids=FAULTS)
def test_a_proxy_that_does_not_connect_costs_no_event(keytrail, raw_backend, proxy, token, fault, words):
    receiver = Receiver(raw_backend)
    proxy.fault = fault
    sidecar = start(keytrail, raw_backend, receiver, bearer={"file": str(token)}, **through(proxy))
    send(sidecar, 5)
    assert "SECRET" not in is_down(sidecar, words)
    assert receiver.requests == [] and b"first-token" not in proxy.seen
    proxy.fault = None
    got = caught_up(sidecar, receiver)
    assert len(got) == len(set(got))
    assert sidecar.metric("keytrail_sink_events_rejected_total") == 0
    assert "SECRET" not in sidecar.stderr()


def test_a_proxy_that_hangs_stops_nobody(keytrail, raw_backend, proxy):
    receiver, hang = Receiver(raw_backend), Hang()
    proxy.fault = hang
    sidecar = start(keytrail, raw_backend, receiver, **through(proxy))
    assert hang.here.wait(20)
    assert sidecar.reload(limits={"refusals": 1})["outcome"] == "success"
    proxy.fault = None
    hang.go.set()
    caught_up(sidecar, receiver)


def test_a_proxy_that_is_not_there_yet(keytrail, raw_backend, dead_port):
    receiver, port = Receiver(raw_backend), dead_port()
    sidecar = start(keytrail, raw_backend, receiver, proxy=f"http://localhost:{port}")
    send(sidecar, 5)
    is_down(sidecar, f"https://localhost:{receiver.port}")
    Proxy(raw_backend, tls=False, port=port)
    caught_up(sidecar, receiver)


def test_a_proxy_that_dies_under_a_request(keytrail, raw_backend, proxy):
    receiver = Receiver(raw_backend)

    def take_and_cut(_, request):
        receiver.answer(request)
        proxy.cut()
        return END

    receiver.faults.append(take_and_cut)
    sidecar = start(keytrail, raw_backend, receiver, **through(proxy))
    send(sidecar, 20)
    got = caught_up(sidecar, receiver)
    assert len(got) > len(set(got))


def test_who_answers_in_the_receivers_place_gets_nothing(keytrail, raw_backend, proxy, token, pki):
    receiver = Receiver(raw_backend)
    other = Receiver(raw_backend, context=pki.server("other-kms"))
    proxy.to = other.port
    sidecar = start(keytrail, raw_backend, receiver, bearer={"file": str(token)}, **through(proxy))
    is_down(sidecar, "the server's certificate")
    assert other.backend.requests == [] and b"first-token" not in proxy.seen
    proxy.to = None
    caught_up(sidecar, receiver)


@pytest.mark.parametrize("system", [False, True], ids=["own authorities", "the system's"])
def test_a_proxy_over_tls_is_verified(keytrail, raw_backend, token, pki, monkeypatch, system):
    if not system:
        monkeypatch.delenv("SSL_CERT_FILE")
    tls = {} if system else {"ca": pki["ca.pem"]}
    receiver = Receiver(raw_backend)
    other = Proxy(raw_backend, context=pki.server("other-kms"))
    sidecar = start(keytrail, raw_backend, receiver, bearer={"file": str(token)},
                    **through(other, "https", tls=tls))
    is_down(sidecar, "the proxy's certificate")
    assert other.seen == b"" and receiver.requests == []
    proxy = Proxy(raw_backend)
    sidecar.reload(sinks=[receiver.sink(pki, bearer={"file": str(token)},
                                        **through(proxy, "https", tls=tls))])
    caught_up(sidecar, receiver)
    assert set(proxy.requests) == {f"CONNECT localhost:{receiver.port}"}


def test_check_goes_through_it(keytrail, raw_backend, proxy):
    receiver = Receiver(raw_backend)
    receiver.always = status("405 Method Not Allowed", body="")
    sidecar = keytrail(raw_backend(ok()), {"sinks": [
        receiver.sink(keytrail.pki, **through(proxy))]}, start=False)
    assert f"https://localhost:{receiver.port} answers (status 405 to HEAD)\n" in check(sidecar).stdout
    assert proxy.requests == [f"CONNECT localhost:{receiver.port}"]
    proxy.fault = status("403 Forbidden")
    done = check(sidecar)
    assert done.returncode == 1 and "the proxy does not connect (status 403)" in done.stderr

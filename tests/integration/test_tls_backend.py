"""A key service whose TLS is hostile or broken: one answer, one event, nothing left behind."""

import os
import ssl
import struct
import threading

import pytest

import http1
from backend import ok
from support import new_id, wait_for

BODY = ok("x" * 2000)
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\nthe whole"


class Engine:
    """The key service's end of TLS, with its bytes in our hands."""

    def __init__(self, connection, context):
        self.connection = connection
        self.inward, self.outward = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.inward, self.outward, server_side=True)

    def pull(self):
        data = self.connection.sock.recv(65536)
        if not data:
            raise http1.Closed(b"")
        self.inward.write(data)

    def flight(self):
        """What answers the ClientHello, not sent yet."""
        while not self.outward.pending:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                if not self.outward.pending:
                    self.pull()
        return self.outward.read()

    def accept(self):
        self.connection.send(self.flight())
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.connection.send(self.outward.read())
                self.pull()
        self.connection.send(self.outward.read())
        return self

    def request(self):
        """Until a whole head has come."""
        data = b""
        while b"\r\n\r\n" not in data:
            try:
                data += self.tls.read(65536)
            except ssl.SSLWantReadError:
                self.pull()

    def sealed(self, data):
        self.tls.write(data)
        return self.outward.read()

    def close_notify(self):
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        return self.outward.read()


def record(kind, payload, length=None):
    return struct.pack("!BHH", kind, 0x0303, len(payload) if length is None else length) + payload


ALERT, HANDSHAKE, DATA = 21, 22, 23


@pytest.mark.parametrize("minimum, status", [("1.2", 200), ("1.3", 502)])
def test_a_key_service_below_the_minimum_version_is_not_called(keytrail, raw_backend, pki, minimum,
                                                               status):
    context = pki.server()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    backend = raw_backend(ok(), context=context)
    sidecar = keytrail(backend, {"upstream": {"tls": {"min_version": minimum}}})
    assert sidecar.call("GET", "/api/v2/keys").status == status
    event, = sidecar.wait_calls(1)
    assert event["reason"]["reasonCode"] == status
    assert len(backend.requests) == (status == 200)


def says(data, wait=True):
    """Bytes of its own choice instead of a handshake."""
    def script(connection, unused):
        if wait:
            connection.sock.recv(1)
        connection.send(data)
        connection.rest()
    return script


def stalls(connection, release):
    release.wait(30)


def stalls_in_its_flight(connection, release):
    flight = Engine(connection, release.context).flight()
    connection.send(flight[:len(flight) // 2])
    release.wait(30)


def resets(connection, unused):
    connection.reset()


def resets_after_the_hello(connection, unused):
    connection.sock.recv(65536)
    connection.reset()


def resets_in_its_flight(connection, release):
    flight = Engine(connection, release.context).flight()
    connection.send(flight[:len(flight) // 2])
    connection.reset()


def ends_in_its_flight(connection, release):
    flight = Engine(connection, release.context).flight()
    connection.send(flight[:len(flight) // 2])


def garbles_its_flight(connection, release):
    flight = bytearray(Engine(connection, release.context).flight())
    flight[-20] ^= 1
    connection.send(bytes(flight))
    connection.rest()


def wears(**options):
    """A context that fails; which, the fixture decides."""
    def script(connection, release):
        context = release.make(**options)
        try:
            Engine(connection, context).accept().request()
        except ssl.SSLError:
            pass
    return script


# label: (script, status that the client gets)
BEFORE = {
    "plain text before the handshake": (says(ok("not TLS"), wait=False), 502),
    "plain HTTP on the port": (says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), 502),
    "an SSH banner": (says(b"SSH-2.0-x\r\n", wait=False), 502),
    "silence": (stalls, 504),
    "a stall in the handshake": (stalls_in_its_flight, 504),
    "a reset at once": (resets, 502),
    "a close at once": (lambda connection, unused: None, 502),
    "a reset after the hello": (resets_after_the_hello, 502),
    "a reset in the handshake": (resets_in_its_flight, 502),
    "a close in the handshake": (ends_in_its_flight, 502),
    "a garbled handshake": (garbles_its_flight, 502),
    "a fatal alert": (says(record(ALERT, b"\x02\x28")), 502),
    "a flood of warnings": (says(record(ALERT, b"\x01\x5a") * 5000), 502),
    "a flood of empty records": (says(record(HANDSHAKE, b"") * 5000), 502),
    "an oversized record": (says(record(HANDSHAKE, b"x" * 65535)), 502),
    "data before the handshake": (says(record(DATA, b"x" * 100)), 502),
    "a record that never ends": (says(record(HANDSHAKE, b"\x02", 16000)), 504),
    "another CA": (wears(name="other-kms"), 502),
    "another name": (wears(dns="other.example"), 502),
    "an expired certificate": (wears(days_from=-9, days_to=-2), 502),
    "a certificate of the future": (wears(days_from=2, days_to=9), 502),
    "TLS 1.1 alone": (wears(version=ssl.TLSVersion.TLSv1_1), 502),
    "no common cipher": (wears(ciphers="AES128-SHA"), 502),
}


def answers(wire):
    """Handshake and request in good order; wire(engine) makes the bytes of the answer."""
    def script(connection, release):
        engine = Engine(connection, release.context).accept()
        engine.request()
        wire(engine, release)
    return script


def sends(make):
    return answers(lambda engine, unused: engine.connection.send(make(engine)))


def flip(data):
    data = bytearray(data)
    data[-1] ^= 1
    return bytes(data)


AFTER = {
    "no answer": (answers(lambda engine, release: release.wait(30)), 504),
    "a close without close_notify": (sends(lambda engine: b""), 502),
    "a reset": (answers(lambda engine, unused: engine.connection.reset()), 502),
    "close_notify instead of an answer": (sends(Engine.close_notify), 502),
    "a truncated record": (sends(lambda engine: engine.sealed(BODY)[:-1]), 502),
    "a garbled record": (sends(lambda engine: flip(engine.sealed(BODY))), 502),
    "plain text": (sends(lambda engine: BODY), 502),
    "an oversized record": (sends(lambda engine: record(DATA, b"x" * 65535)), 502),
    "a plain alert": (sends(lambda engine: record(ALERT, b"\x02\x28")), 502),
    "a close within the head": (sends(lambda engine: engine.sealed(BODY[:30])), 502),
}

# The head is whole, so its status is recorded; the body is not: the client has to see that.
CUT = {
    "a close within the body": lambda engine: engine.sealed(BODY[:-9]),
    "close_notify within the body": lambda e: e.sealed(BODY[:-9]) + e.close_notify(),
    "a truncated record in the body": lambda e: e.sealed(BODY[:900]) + e.sealed(BODY[900:])[:-1],
    "a garbled record in the body": lambda e: e.sealed(BODY[:900]) + flip(e.sealed(BODY[900:])),
    "no close_notify where the close is the end": lambda engine: engine.sealed(UNTIL_CLOSE),
}


class Release(threading.Event):
    """What scripts need: the end of the test, and contexts."""

    def __init__(self, pki):
        super().__init__()
        self.pki, self.context = pki, pki.server()

    def make(self, name=None, version=None, ciphers=None, **issue):
        if issue:
            name = self.pki.issue(f"odd-{new_id()}", **issue)
        context = self.pki.server(name or "kms")
        if version:
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = context.maximum_version = version
        if ciphers:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers(ciphers)
        return context


@pytest.fixture
def hostile(keytrail, raw_backend, pki):
    """hostile(script): a sidecar in front of such a key service; where nothing else ends a call,
    the timeout of this name does."""
    release = Release(pki)

    def serve(script, timeout=None):
        def run(connection):
            try:
                script(connection, release)
            except ssl.SSLError:
                pass  # keytrail ends it first
        return keytrail(raw_backend(run, tls=False),
                        {"workers": 1, "timeouts": {timeout: "1s"} if timeout else {}})

    yield serve
    release.set()


def descriptors(sidecar):
    return len(os.listdir(f"/proc/{sidecar.process.pid}/fd"))


def check_nothing_is_left(sidecar, before):
    for name in ("keytrail_upstream_connections_open", "keytrail_requests_in_flight",
                 "keytrail_connections_open"):
        wait_for(lambda name=name: sidecar.metric(name) == 0, f"{name} to be 0")
    wait_for(lambda: descriptors(sidecar) <= before, "the descriptors to be as before")


def call(sidecar):
    """A call that is never sent twice."""
    correlation = new_id()
    r = sidecar.call("POST", "/api/v2/keys", {"Correlation-Id": correlation}, "{}")
    return r, sidecar.event(correlation)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1")
@pytest.mark.parametrize("label", BEFORE)
def test_without_a_handshake_nothing_is_forwarded(hostile, label):
    script, status = BEFORE[label]
    sidecar = hostile(script, "connect" if status == 504 else None)
    sidecar.fetch("metrics", "/metrics")
    before = descriptors(sidecar)
    for _ in range(2):
        r, event = call(sidecar)
        assert r.status == status
        assert event["outcome"] == "failure" and event["reason"]["reasonCode"] == status
    check_nothing_is_left(sidecar, before)


@pytest.mark.parametrize("label", AFTER)
def test_without_a_status_the_outcome_is_unknown(hostile, label):
    script, status = AFTER[label]
    sidecar = hostile(script, "answer" if status == 504 else None)
    sidecar.fetch("metrics", "/metrics")
    before = descriptors(sidecar)
    r, event = call(sidecar)
    assert r.status == status
    assert event["outcome"] == "unknown" and "reasonCode" not in event["reason"]
    check_nothing_is_left(sidecar, before)


@pytest.mark.parametrize("label", CUT)
def test_a_cut_body_is_cut_for_the_client(hostile, label):
    sidecar = hostile(sends(CUT[label]))
    sidecar.fetch("metrics", "/metrics")
    before = descriptors(sidecar)
    correlation = new_id()
    with sidecar.client() as c:
        c.send_request("POST", "/api/v2/keys", {"Correlation-Id": correlation}, "{}")
        with pytest.raises((http1.Closed, OSError)):
            c.read_response()
    assert sidecar.event(correlation)["reason"]["reasonCode"] == 200
    wait_for(lambda: sidecar.metric("keytrail_upstream_answers_cut_total") == 1, "the metric")
    check_nothing_is_left(sidecar, before)


def test_a_key_service_that_resumes_is_verified_again_when_its_certificate_ends(
        keytrail, raw_backend, pki, clock):
    resumed = []

    def answer_once(connection):
        if connection.read_request():
            resumed.append(connection.sock.session_reused)
            connection.send(ok(extra="Connection: close\r\n"))

    name = pki.issue("ending-" + new_id(), days_to=0.01)
    sidecar = keytrail(raw_backend(answer_once, context=pki.server(name)), {"workers": 1},
                       environment=clock.environment)
    assert [call(sidecar)[0].status for _ in range(3)] == [200] * 3
    assert resumed == [False, True, True]
    clock.set(1000)
    r, event = call(sidecar)
    assert r.status == 502 and event["reason"]["reasonForFailure"] == "upstream_untrusted"
    assert len(resumed) == 3


def test_close_notify_ends_a_body_that_the_close_ends(hostile):
    sidecar = hostile(sends(lambda e: e.sealed(UNTIL_CLOSE) + e.close_notify()))
    r, event = call(sidecar)
    assert r.body == b"the whole" and event["reason"]["reasonCode"] == 200

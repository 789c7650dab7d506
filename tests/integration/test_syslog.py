"""The syslog sink, with rsyslog as its receiver."""

import contextlib
import json
import socket
import subprocess
import threading
from pathlib import Path

import pytest

import peers
from backend import ok
from faults import wait_said
from support import KEYTRAIL, Keytrail, replace, wait_for
from test_sinks import send
from test_startup import BAD_CONFIGURATION, start_in_vain

RECEIVERS = [peers.SyslogTcp, peers.SyslogTls, peers.SyslogUdp]


@pytest.fixture
def receiver(tmp_path, pki):
    """receiver(class): one that listens."""
    made = []

    def make(cls, **more):
        made.append(cls(tmp_path / f"receiver{len(made)}", pki, **more))
        made[-1].start()
        return made[-1]
    yield make
    for one in made:
        one.close()


def numbers(sidecar):
    return {e["trail"]["seq"] for e in sidecar.events()}


def arrived(one, wanted):
    wait_for(lambda: {r["seq"] for r in one.received()} >= wanted, "what was sent")


def last_error(sidecar):
    return json.loads(sidecar.fetch("admin", "/status"))["sinks"][0]["lastError"]


def start_with(keytrail, backend, sink, **more):
    return keytrail(backend, {"sinks": [{"name": "far", **sink, **more}],
                              "timeouts": {"drain": "500ms"}})


@pytest.mark.parametrize("cls", RECEIVERS, ids=lambda c: c.name)
def test_every_event_arrives_once_and_in_order(keytrail, raw_backend, receiver, cls):
    far = receiver(cls)
    sidecar = start_with(keytrail, raw_backend(ok()), far.sink())
    send(sidecar, 50)
    arrived(far, numbers(sidecar))
    got = far.received()
    assert [r["seq"] for r in got] == sorted(numbers(sidecar))
    assert [r["prev"] for r in got] == [r["seq"] - 1 for r in got]
    assert all(len(r["hash"]) == 64 and not r["stub"] for r in got)


class Traffic:
    """Calls while something else happens."""

    def __init__(self, sidecar):
        self.over = threading.Event()
        self.failed = None
        self.thread = threading.Thread(target=self.run, args=(sidecar,))

    def run(self, sidecar):
        try:
            while not self.over.is_set():
                send(sidecar, 50)
        except BaseException as e:  # told of by the test
            self.failed = e

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        assert self.failed is None, self.failed


@pytest.mark.parametrize("cls", RECEIVERS[:2], ids=lambda c: c.name)
def test_a_receiver_that_is_restarted_in_mid_stream_misses_nothing(keytrail, raw_backend, receiver,
                                                                   cls):
    far = receiver(cls)
    sidecar = start_with(keytrail, raw_backend(ok()), far.sink())
    with Traffic(sidecar):
        for _ in range(3):
            before = len(far.received())
            wait_for(lambda: len(far.received()) > before + 100, "a stream")
            far.stop()
            far.start()
    arrived(far, numbers(sidecar))
    first = list(dict.fromkeys(r["seq"] for r in far.received()))
    assert first == sorted(first), "new ones come in order"


def test_a_datagram_that_is_too_long_is_rejected_and_a_stub_comes(keytrail, raw_backend, receiver):
    far = receiver(peers.SyslogUdp)
    sidecar = start_with(keytrail, raw_backend(ok()), far.sink(), max_datagram=1450)
    with sidecar.client() as c:
        c.request("GET", "/api/v2/keys", {"User-Agent": "agent/1.0 " * 12})
    send(sidecar, 3)
    arrived(far, numbers(sidecar))
    stubs = [r["seq"] for r in far.received() if r["stub"]]
    kept = [json.loads(line)["trail"]["seq"] for line in
            (sidecar.trail_dir / "quarantine.far.jsonl").read_text().splitlines()]
    assert stubs and stubs == kept


def test_datagrams_to_a_receiver_that_is_restarted_go_on(keytrail, raw_backend, receiver):
    """Nothing is promised of those that are sent meanwhile."""
    far = receiver(peers.SyslogUdp)
    sidecar = start_with(keytrail, raw_backend(ok()), far.sink())
    with Traffic(sidecar):
        for _ in range(3):
            before = len(far.received())
            wait_for(lambda: len(far.received()) > before + 50, "a stream")
            far.stop()
            far.start()
        before = len(far.received())
        wait_for(lambda: len(far.received()) > before + 50, "a stream")
    got = [r["seq"] for r in far.received()]
    first = list(dict.fromkeys(got))
    assert first == sorted(first) and set(got) <= numbers(sidecar)


# ---- TLS ----

@pytest.mark.parametrize("tls, said", [
    ({"server_name": "other.example"}, "TLS: hostname mismatch"),
    ({"ca": "other-ca.pem"}, "TLS: self-signed certificate in certificate chain"),
    ({"ca": "system"}, "TLS: self-signed certificate in certificate chain"),
], ids=["another name", "another authority", "the system's authorities"])
def test_a_receiver_that_is_not_the_one_gets_nothing(keytrail, raw_backend, receiver, pki, tls, said):
    far = receiver(peers.SyslogTls)
    sink = far.sink()
    if tls.get("ca", "system") != "system":
        tls = {"ca": pki[tls["ca"]]}
    sink["tls"].update(tls)
    sidecar = start_with(keytrail, raw_backend(ok()), sink)
    wait_for(lambda: last_error(sidecar).endswith(said), said)
    assert far.received() == []


def test_who_has_no_certificate_delivers_nothing(keytrail, raw_backend, receiver):
    """Of TLS 1.3 the client's side is done before the receiver has looked."""
    far = receiver(peers.SyslogTls)
    sink = far.sink()
    del sink["tls"]["certificate"], sink["tls"]["key"]
    sidecar = start_with(keytrail, raw_backend(ok()), sink)
    send(sidecar, 3)
    wait_for(lambda: last_error(sidecar), "the refusal")
    assert sidecar.metric("keytrail_sink_events_delivered_total", sink="far") == 0
    assert far.received() == []


class Listener:
    """A receiver that notes whose certificate it was shown."""

    def __init__(self, pki):
        self.seen = []
        self.context = pki.server("server", client_ca="ca.pem")
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                conn = self.context.wrap_socket(self.server.accept()[0], server_side=True)
            except OSError:
                return
            self.seen.append(dict(x[0] for x in conn.getpeercert()["subject"])["commonName"])
            threading.Thread(target=self.read, args=(conn,), daemon=True).start()

    @staticmethod
    def read(conn):
        with conn, contextlib.suppress(OSError):
            while conn.recv(65536):
                pass

    def close(self):
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()


def test_a_certificate_that_is_replaced_is_used(keytrail, raw_backend, pki, tmp_path):
    own = {kind: tmp_path / f"own.{kind}" for kind in ("pem", "key")}

    def become(name):
        pki.issue(name)
        for kind, path in own.items():
            replace(path, Path(pki[f"{name}.{kind}"]).read_bytes())

    become("first")
    with contextlib.closing(Listener(pki)) as far:
        sink = {"type": "syslog", "address": f"127.0.0.1:{far.port}",
                "tls": {"ca": pki["ca.pem"], "server_name": "localhost",
                        "certificate": str(own["pem"]), "key": str(own["key"])}}
        sidecar = start_with(keytrail, raw_backend(ok()), sink)
        wait_for(lambda: far.seen == ["first"], "the first")
        own["pem"].write_bytes(b"no certificate")
        wait_said(sidecar, "reload_failed")
        send(sidecar, 3)
        sidecar.wait_delivered("far")
        assert far.seen == ["first"], "it goes on with what it has"
        become("second")

        def renewed():
            send(sidecar, 1)
            return far.seen[-1] == "second"
        wait_for(renewed, "the second")
        sidecar.stop()


def test_the_end_of_its_certificate_is_told(keytrail, raw_backend, pki, receiver):
    far = receiver(peers.SyslogTls)
    sink = far.sink()
    name = pki.issue("ending", days_to=3)
    sink["tls"].update(certificate=pki[f"{name}.pem"], key=pki[f"{name}.key"])
    sidecar = start_with(keytrail, raw_backend(ok()), sink)
    told = {c["file"] for c in json.loads(sidecar.fetch("admin", "/status"))["certificates"]}
    assert {pki["ending.pem"], pki["ca.pem"]} <= told
    assert sidecar.metric("keytrail_certificate_expiry_timestamp_seconds", file=pki["ending.pem"]) > 0
    checked = subprocess.run([KEYTRAIL, "check", "--environment", sidecar.file], check=True, text=True,
                             stdout=subprocess.PIPE).stdout
    assert f"{pki['ending.pem']}: valid until" in checked


def test_a_file_of_no_use_refuses_the_start(pki, tmp_path, raw_backend):
    sink = {"name": "far", "type": "syslog", "address": "127.0.0.1:9", "tls": {"ca": pki["ca.key"]}}
    code, line = start_in_vain(Keytrail(tmp_path / "k", pki, raw_backend(ok()), {"sinks": [sink]}))
    assert code == BAD_CONFIGURATION
    assert line.startswith(f"sink far: {pki['ca.key']}: cannot use as CA certificates in PEM")

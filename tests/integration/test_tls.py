"""TLS on both sides: versions, ALPN, resumption, client certificates, what is not verified."""

import socket
import ssl
import subprocess
import warnings

import pytest

import http1
from backend import ok
from support import new_id, wait_for

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.mark.parametrize("version, name", [(TLS12, "TLSv1.2"), (TLS13, "TLSv1.3")])
def test_both_versions_are_spoken(keytrail, raw_backend, pki, version, name):
    sidecar = keytrail(raw_backend(ok()))
    with sidecar.client(pki.client(version=version)) as c:
        assert c.sock.version() == name
        assert c.sock.selected_alpn_protocol() == "http/1.1"
        assert c.request("GET", "/api/v2/keys").status == 200


def test_older_versions_are_refused(keytrail, raw_backend, pki):
    sidecar = keytrail(raw_backend(ok()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        sidecar.client(context)


@pytest.mark.parametrize("protocols, ok_", [(["h2", "http/1.1"], True), (["h2"], False),
                                            (None, True)])
def test_alpn_chooses_http_1_1_or_nothing(keytrail, raw_backend, pki, protocols, ok_):
    sidecar = keytrail(raw_backend(ok()))
    context = ssl.create_default_context(cafile=pki["ca.pem"])
    if protocols:
        context.set_alpn_protocols(protocols)
    if not ok_:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            with sidecar.client(context) as c:
                c.request("GET", "/api/v2/keys")
        return
    with sidecar.client(context) as c:
        assert c.request("GET", "/api/v2/keys").status == 200


@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])
def test_sessions_are_resumed_on_every_worker(keytrail, raw_backend, pki, version):
    sidecar = keytrail(raw_backend(ok()), {"workers": 3})
    context = pki.client(version=version)
    with sidecar.client(context) as c:
        assert c.request("GET", "/api/v2/keys").status == 200
        session = c.sock.session
        assert not c.sock.session_reused
    for _ in range(6):  # dealt round robin
        with sidecar.client(context, session=session) as c:
            assert c.request("GET", "/api/v2/keys").status == 200
            assert c.sock.session_reused
            session = c.sock.session


def test_a_resumed_session_of_tls_1_3_gets_a_ticket_of_its_own(keytrail, raw_backend, pki):
    """Clients use a ticket once (RFC 8446, C.4): without another, every second handshake is full."""
    sidecar = keytrail(raw_backend(ok()))
    context = pki.client(version=TLS13)
    tickets, session = set(), None
    for _ in range(4):
        with sidecar.client(context, session=session) as c:
            assert c.request("GET", "/api/v2/keys").status == 200
            session = c.sock.session
            tickets.add(session.id)
    assert len(tickets) == 4


@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])
def test_sessions_with_the_key_service_are_resumed(keytrail, raw_backend, pki, version):
    reused = []

    def script(connection):
        connection.read_request()
        reused.append(connection.sock.session_reused)
        connection.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")

    context = pki.server()
    context.minimum_version = context.maximum_version = version
    sidecar = keytrail(raw_backend(script, context=context), {"workers": 1})
    for _ in range(3):
        assert sidecar.call("GET", "/api/v2/keys").status == 204
    assert reused == [False, True, True]


def test_plain_tcp_where_the_configuration_says_so(keytrail, raw_backend):
    backend = raw_backend(ok(), tls=False)
    sidecar = keytrail(backend, {"listen": {"tls": None}, "upstream": {"tls": None}})
    with http1.Client(sidecar.port) as c:
        assert c.request("GET", "/api/v2/keys").status == 200


def test_junk_instead_of_a_handshake(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(ok()))
    with socket.create_connection(("127.0.0.1", sidecar.port)) as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        while s.recv(4096):
            pass
    wait_for(lambda: sidecar.metric("keytrail_tls_handshake_failures_total") == 1,
             "the failure to be counted")
    assert sidecar.call("GET", "/api/v2/keys").status == 200


def failures(sidecar):
    return {dict(labels)["reason"]: n for (name, labels), n in sidecar.metrics().items()
            if name == "keytrail_tls_handshake_failures_total" and n}


def test_a_client_that_only_ever_updates_keys(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(ok()))
    with subprocess.Popen(["openssl", "s_client", "-connect", f"127.0.0.1:{sidecar.port}"],
                          stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, bufsize=0) as client:
        def has_ended():
            try:
                client.stdin.write(b"k\n")
            except BrokenPipeError:
                pass
            return client.poll() is not None

        wait_for(has_ended, "the connection to be ended")
    wait_for(lambda: failures(sidecar) == {"flood": 1}, "the failure to be counted")
    assert sidecar.call("GET", "/api/v2/keys").status == 200


# ---- client certificates ----

def with_client_ca(pki):
    return {"listen": {"tls": {"client_ca": pki["ca.pem"]}}}


def test_a_client_certificate_is_the_initiator(keytrail, raw_backend, pki):
    sidecar = keytrail(raw_backend(ok()), {**with_client_ca(pki),
                                           "audit": {"identity_name": "plain"}})
    with sidecar.client(pki.client(cert="client")) as c:
        assert c.request("GET", "/api/v2/keys").status == 200
    event, = sidecar.wait_calls(1)
    initiator = event["initiator"]
    assert initiator["typeURI"] == "service/security/client/certificateid"
    assert initiator["credential"] == {"type": "certificate", "verifiedBy": "certificate"}
    assert "CN=client" in initiator["name"]


@pytest.mark.parametrize("sent, label", [
    ("GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET", "after_close"),
    ("GET /a HTTP/1.1\nHost: x\r\n\r\n", "bad_line_end")])
def test_it_is_also_of_what_is_no_request(keytrail, raw_backend, pki, sent, label):
    sidecar = keytrail(raw_backend(ok()), with_client_ca(pki))
    with sidecar.client(pki.client(cert="client")) as c:
        c.send(sent)
        assert c.read_response() and c.is_closed()
    event, = wait_for(lambda: sidecar.own("keytrail.refused"), "the record")
    assert event["reason"]["reasonForFailure"] == label
    assert event["initiator"]["credential"]["type"] == "certificate"


def test_a_client_certificate_is_named_by_its_uri_and_keeps_its_subject(keytrail, raw_backend, pki):
    sidecar = keytrail(raw_backend(ok()), with_client_ca(pki))
    pki.issue("workload", uri="spiffe://example/workload")
    with sidecar.client(pki.client(cert="workload")) as c:
        assert c.request("GET", "/api/v2/keys").status == 200
    event, = sidecar.wait_calls(1)
    assert event["initiator"]["id"] == "URI:spiffe://example/workload"
    assert event["initiator"]["credential"] == {
        "subject": "CN=workload", "type": "certificate", "verifiedBy": "certificate"}


def test_clients_of_one_subject_differ_in_an_alternative_name(keytrail, raw_backend, pki):
    sidecar = keytrail(raw_backend(ok()), with_client_ca(pki))
    for name in ("a.example", "b.example"):
        pki.issue("workload", dns=name)
        with sidecar.client(pki.client(cert="workload")) as c:
            assert c.request("GET", "/api/v2/keys").status == 200
    for name, event in zip(("a.example", "b.example"), sidecar.wait_calls(2)):
        assert event["initiator"]["id"] == "CN=workload"
        assert event["initiator"]["credential"] == {
            "alternative": f"DNS:{name}", "type": "certificate", "verifiedBy": "certificate"}


@pytest.mark.parametrize("cert, reason", [(None, "no_certificate"),
                                          ("other-client", "certificate")],
                         ids=["none", "of another CA"])
def test_other_client_certificates_are_refused(keytrail, raw_backend, pki, cert, reason):
    backend = raw_backend(ok())
    sidecar = keytrail(backend, with_client_ca(pki))
    with pytest.raises((ssl.SSLError, ConnectionError, http1.Closed)):
        with sidecar.client(pki.client(cert=cert)) as c:
            c.request("GET", "/api/v2/keys")
    assert backend.requests == [] and sidecar.calls() == []
    wait_for(lambda: failures(sidecar) == {reason: 1}, "the failure to be counted")


@pytest.mark.parametrize("reason", ["alpn", "rejected", "protocol", "closed"])
def test_failed_handshakes_are_counted_by_reason(keytrail, pki, reason):
    sidecar = keytrail()
    context = pki.client() if reason != "rejected" else ssl.create_default_context()
    if reason == "alpn":
        context.set_alpn_protocols(["h2"])
    if reason in ("protocol", "closed"):
        with http1.Client(sidecar.port) as c:
            c.sock.sendall(b"GET / HTTP/1.1\r\n" if reason == "protocol" else b"\x16\x03\x01")
    else:
        with pytest.raises(ssl.SSLError):
            sidecar.client(context).close()
    wait_for(lambda: failures(sidecar) == {reason: 1}, f"one failure by {reason}")


def test_our_own_client_certificate_goes_to_the_key_service(keytrail, raw_backend, pki):
    backend = raw_backend(ok(), context=pki.server(client_ca="ca.pem"))
    sidecar = keytrail(backend, {"upstream": {"tls": {
        "certificate": pki["client.pem"], "key": pki["client.key"]}}})
    assert sidecar.call("GET", "/api/v2/keys").status == 200
    sidecar = keytrail(backend)
    assert sidecar.call("GET", "/api/v2/keys").status == 502


# ---- the key service's certificate ----

@pytest.fixture(scope="session")
def certificates(pki):
    """Names of server certificates, by what is wrong with them."""
    return {"another CA": "other-kms",
            "another name": pki.issue("wrong-name", dns="other.example"),
            "expired": pki.issue("expired", days_from=-10, days_to=-1),
            "not valid yet": pki.issue("future", days_from=5, days_to=10)}


@pytest.mark.parametrize("label", ["another CA", "another name", "expired", "not valid yet"])
def test_an_unverified_key_service_gets_no_request(keytrail, raw_backend, pki, certificates,
                                                   label):
    backend = raw_backend(ok(), context=pki.server(certificates[label]))
    sidecar = keytrail(backend)
    correlation = new_id()
    r = sidecar.call("GET", "/api/v2/keys", {"Correlation-Id": correlation})
    assert r.status == 502 and b"UPSTREAM_UNTRUSTED" in r.body
    event = sidecar.event(correlation)
    assert event["outcome"] == "failure" and event["reason"]["reasonCode"] == 502
    assert backend.requests == []


def test_the_name_that_is_verified_is_also_asked_for(keytrail, raw_backend, pki):
    asked = []
    context = pki.server(pki.issue("sni", dns="kms.example.com"))
    context.sni_callback = lambda sock, name, ctx: asked.append(name)
    sidecar = keytrail(raw_backend(ok(), context=context),
                       {"upstream": {"tls": {"server_name": "kms.example.com"}}})
    assert sidecar.call("GET", "/api/v2/keys").status == 200
    assert asked == ["kms.example.com"]

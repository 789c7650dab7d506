"""HUP: validated, then swapped, without dropping a connection, and recorded."""

import shutil
import signal
import ssl
import threading

import pytest

import http1
from backend import ok
from faults import said, wait_said
from support import new_id, wait_for


def serial(sidecar):
    """Of the certificate that a new connection gets."""
    with sidecar.client() as c:
        return c.sock.getpeercert()["serialNumber"]


def test_routes_are_swapped_under_a_kept_connection(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(ok()))
    with sidecar.client() as c:
        c.request("GET", "/custom/7")
        event = sidecar.reload(routes=[{"action": "custom.things.read", "method": "GET",
                                        "path": "/custom/{id}"}])
        assert event["outcome"] == "success" and "routes" in event["details"]["changes"]
        assert c.request("GET", "/custom/7").status == 200
    first, second = sidecar.wait_calls(2)
    assert first["action"] == "kms.secrets.default" and "unmatched" in first["requestData"]
    assert second["action"] == "custom.things.read" and "unmatched" not in second["requestData"]


def test_limits_are_swapped(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(ok()))
    with sidecar.client() as c:
        assert c.request("POST", "/api/v2/keys", body="x" * 100).status == 200
        sidecar.reload(limits={"body": 10})
        assert c.request("POST", "/api/v2/keys", body="x" * 100).status == 413


def test_certificates_are_swapped(keytrail, raw_backend, pki, tmp_path):
    cert, key = tmp_path / "server.pem", tmp_path / "server.key"
    shutil.copy(pki["server.pem"], cert)
    shutil.copy(pki["server.key"], key)
    sidecar = keytrail(raw_backend(ok()), {"listen": {"tls": {"certificate": str(cert),
                                                              "key": str(key)}}})
    before = serial(sidecar)
    with sidecar.client() as c:
        assert c.request("GET", "/api/v2/keys").status == 200
        name = pki.issue("renewed-" + tmp_path.name)
        shutil.copy(pki[f"{name}.pem"], cert)
        shutil.copy(pki[f"{name}.key"], key)
        event = sidecar.reload()
        assert event["outcome"] == "success" and event["details"]["changes"] == "certificates"
        assert serial(sidecar) != before
        assert c.request("GET", "/api/v2/keys").status == 200


def test_sessions_survive_a_reload(keytrail, raw_backend, pki):
    sidecar = keytrail(raw_backend(ok()))
    context = pki.client(version=ssl.TLSVersion.TLSv1_2)
    with sidecar.client(context) as c:
        c.request("GET", "/api/v2/keys")
        session = c.sock.session
    sidecar.reload()
    with sidecar.client(context, session=session) as c:
        assert c.sock.session_reused


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3],
                         ids=["1.2", "1.3"])
@pytest.mark.parametrize("before, cert", [(None, None), ("ca.pem", "client")],
                         ids=["none asked for", "of another CA"])
def test_a_session_does_not_outlive_the_client_ca(keytrail, raw_backend, pki, version, before,
                                                  cert):
    """Who resumes a session shows no certificate; what it was checked against must still hold."""
    def listen(ca):
        return {"tls": {"certificate": pki["server.pem"], "key": pki["server.key"],
                        "client_ca": ca and pki[ca]}}

    backend = raw_backend(ok())
    sidecar = keytrail(backend, {"listen": listen(before)})
    context = pki.client(version=version, cert=cert)
    with sidecar.client(context) as c:
        assert c.request("GET", "/api/v2/keys").status == 200
        session = c.sock.session
    assert sidecar.reload(listen=listen("other-ca.pem"))["outcome"] == "success"
    with pytest.raises((ssl.SSLError, ConnectionError, http1.Closed)):
        with sidecar.client(context, session=session) as c:
            c.request("GET", "/api/v2/keys")
    assert len(backend.requests) == 1


def test_a_session_with_the_key_service_does_not_outlive_its_ca(keytrail, raw_backend, pki):
    """One that was under way during the reload: to resume it would be to verify nothing."""
    begun, go_on = threading.Event(), threading.Event()

    def hold(sock, name, context):
        begun.set()
        assert go_on.wait(20)

    context = pki.server()
    context.sni_callback = hold
    backend = raw_backend(ok(), context=context)
    sidecar = keytrail(backend, {"workers": 1, "upstream": {"tls": {"server_name": "localhost"}}})
    with sidecar.client() as held, sidecar.client() as c:
        held.send_request("GET", "/api/v2/keys")
        assert begun.wait(20)
        tls = {"ca": pki["other-ca.pem"], "server_name": "localhost"}
        assert sidecar.reload(upstream={"tls": tls})["outcome"] == "success"
        go_on.set()
        assert held.read_response().status == 200
        r = c.request("GET", "/api/v2/keys")
        assert r.status == 502 and b"UPSTREAM_UNTRUSTED" in r.body


def test_the_key_service_is_swapped(keytrail, raw_backend):
    first, second = raw_backend(ok("first")), raw_backend(ok("second"))
    sidecar = keytrail(first, {"workers": 1})
    with sidecar.client() as c:
        assert c.request("GET", "/api/v2/keys").body == b"first"
        sidecar.reload(upstream={"address": f"127.0.0.1:{second.port}"})
        assert c.request("GET", "/api/v2/keys").body == b"second"


def test_a_request_made_for_the_key_service_before_is_not_sent_to_the_next(keytrail, raw_backend):
    first, second = raw_backend(ok("first")), raw_backend(ok("second"))
    sidecar = keytrail(first, {"workers": 1})

    def send_about(**over):
        """The head, a reload, the body; the answer."""
        with sidecar.client() as c:
            c.send(f"POST /api/v2/keys HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
                   f"Correlation-Id: {(correlation := new_id())}\r\n\r\n")
            wait_for(lambda: sidecar.metric("keytrail_requests_in_flight") == 1, "the head")
            sidecar.reload(**over)
            c.send("{}")
            return c.read_response(), sidecar.event(correlation)

    assert send_about(limits={"fields": 64})[0].body == b"first"
    answer, event = send_about(upstream={"address": f"127.0.0.1:{second.port}"})
    assert answer.status == 503 and b"UPSTREAM_CHANGED" in answer.body
    assert event["outcome"] == "failure" and second.requests == []
    assert sidecar.call("GET", "/api/v2/keys").body == b"second"


def test_a_bad_file_keeps_the_old_configuration(keytrail, raw_backend, pki):
    sidecar = keytrail(raw_backend(ok()))
    good = sidecar.file.read_text()
    digest = sidecar.wait_own("keytrail.start")[0]["details"]["configDigest"]
    for bad in ("{", good.replace('"workers"', '"wokers"'),
                good.replace(pki["server.pem"], pki["ca.pem"]),
                good.replace(pki["server.pem"], "/nonexistent.pem")):
        sidecar.file.write_text(bad)
        event = sidecar.reload()
        assert event["outcome"] == "failure" and event["severity"] == "warning"
        assert event["details"]["configDigest"] == digest
        assert sidecar.call("GET", "/api/v2/keys").status == 200
    wait_for(lambda: len(said(sidecar, "reload_failed")) == 4, "each to be told of")
    failures = said(sidecar, "reload_failed")
    assert any("wokers" in f and "workers" in f for f in failures)
    assert sidecar.metric("keytrail_reloads_total", result="failure") == 4
    sidecar.file.write_text(good)
    assert sidecar.reload()["outcome"] == "success"
    assert sidecar.metric("keytrail_reloads_total", result="success") == 1


def test_what_cannot_change_live_says_so(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(ok()))
    event = sidecar.reload(workers=1, audit={"ring_size": 2097152})
    assert event["outcome"] == "success"
    assert "workers" in event["details"]["needsRestart"]
    assert "ring_size" in event["details"]["needsRestart"]
    assert wait_said(sidecar, "reload_needs_restart")


def test_the_record_says_who(keytrail, raw_backend):
    import os
    sidecar = keytrail(raw_backend(ok()))
    event = sidecar.reload()
    assert event["details"]["signalPid"] == os.getpid()
    assert event["details"]["signalUid"] == os.getuid()


def test_many_reloads_under_load(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(ok()))
    with sidecar.client() as c:
        for i in range(20):
            sidecar.write_config(limits={"body": 100000 + i})
            sidecar.signal(signal.SIGHUP)
            assert c.request("POST", "/api/v2/keys", body="x" * 1000).status == 200
        wait_for(lambda: sidecar.own("keytrail.reload"), "a reload")
    assert len(sidecar.wait_calls(20)) == 20


def test_more_connections_than_there_is_room_for_need_a_restart(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(ok()), {"workers": 1, "limits": {"connections": 4}})
    assert sidecar.reload(limits={"connections": 3})["details"]["needsRestart"] == ""
    assert sidecar.reload(
        limits={"connections": 400})["details"]["needsRestart"] == "limits.connections"
    sidecar.stop()
    sidecar.start()
    assert sidecar.reload()["details"]["needsRestart"] == ""

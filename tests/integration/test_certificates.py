"""Certificates towards clients and theirs: by name, revoked, stapled, replaced, at their end."""

import datetime
import json
import re
import shutil
import ssl
import subprocess

import pytest

import http1
from backend import ok
from faults import wait_said
from support import new_id, replace, wait_for
from test_limits import descriptors
from test_tls import TLS12, TLS13, failures


def pair(pki, name, **more):
    return {"certificate": pki[f"{name}.pem"], "key": pki[f"{name}.key"], **more}


def names_of(connection):
    return {v for k, v in connection.sock.getpeercert()["subjectAltName"] if k == "DNS"}


def refused(sidecar, context, **options):
    with pytest.raises((ssl.SSLError, ConnectionError, http1.Closed)):
        with sidecar.client(context, **options) as c:
            c.request("GET", "/api/v2/keys")


def session_of(sidecar, context):
    with sidecar.client(context) as c:
        assert c.request("GET", "/api/v2/keys").status == 200
        return c.sock.session


# ---- by name ----

@pytest.fixture(scope="session")
def named(pki):
    return [pair(pki, pki.issue("a", dns="a.example")),
            pair(pki, pki.issue("wild", dns="*.wild.example"))]


@pytest.mark.parametrize("asked, shown", [("a.example", "a.example"),
                                          ("x.wild.example", "*.wild.example"),
                                          ("localhost", "localhost")])
def test_a_client_is_shown_the_certificate_of_the_name_it_asks_for(keytrail, raw_backend, pki, named,
                                                                   asked, shown):
    sidecar = keytrail(raw_backend(ok()), {"listen": {"tls": {"certificates": named}}})
    with sidecar.client(name=asked) as c:
        assert shown in names_of(c)
        assert c.request("GET", "/api/v2/keys", {"Host": asked}).status == 200


def test_an_unknown_name_gets_the_default_certificate_or_an_alert(keytrail, raw_backend, pki, named):
    context = pki.client()
    context.check_hostname = False
    sidecar = keytrail(raw_backend(ok()), {"listen": {"tls": {"certificates": named}}})
    with sidecar.client(context, name="b.example") as c:
        assert "localhost" in names_of(c)
    sidecar.reload(listen={"tls": {"unknown_name": "refuse"}})
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        sidecar.client(context, name="b.example")
    wait_for(lambda: failures(sidecar) == {"unknown_name": 1}, "the refusal to be counted")
    sidecar.client(name="127.0.0.1").close()  # asks for no name


@pytest.mark.parametrize("asked, host, status", [
    ("a.example", "a.example:8443", 200), ("a.example", "A.Example", 200),
    ("a.example", "127.0.0.1:8443", 200), ("a.example", "[::1]", 200),
    ("a.example", "localhost", 421), ("a.example", "x.wild.example", 421),
    ("x.wild.example", "y.wild.example", 200), ("x.wild.example", "a.example", 421),
    ("localhost", "a.example", 200)])
def test_a_request_for_a_name_of_another_certificate_is_misdirected(
        keytrail, raw_backend, pki, named, asked, host, status):
    backend = raw_backend(ok())
    sidecar = keytrail(backend, {"listen": {"tls": {"certificates": named}}})
    correlation = new_id()
    with sidecar.client(name=asked) as c:
        r = c.request("GET", "/api/v2/keys", {"Host": host, "Correlation-Id": correlation})
    assert r.status == status
    event = sidecar.event(correlation)
    assert event["reason"]["reasonCode"] == status
    assert len(backend.requests) == (status == 200)
    if status == 421:
        assert b"MISDIRECTED" in r.body
        assert sidecar.metric("keytrail_refused_requests_total", reason="misdirected") == 1


def test_so_is_one_that_names_it_in_its_target_alone(keytrail, raw_backend, named):
    backend = raw_backend(ok())
    sidecar = keytrail(backend, {"listen": {"tls": {"certificates": named}}})
    for name, status in (("localhost", 421), ("a.example", 200)):
        with sidecar.client(name="a.example") as c:
            c.send(f"GET https://{name}/api/v2/keys HTTP/1.0\r\n\r\n")
            assert c.read_response().status == status
    assert len(backend.requests) == 1


# ---- the clients' ----

def test_an_optional_certificate_names_the_initiator_only_where_there_is_one(keytrail, raw_backend,
                                                                             pki):
    sidecar = keytrail(raw_backend(ok()), {
        "listen": {"tls": {"client_ca": pki["ca.pem"], "client_certificate": "optional"}},
        "audit": {"identity_name": "plain"}})
    for cert in ("client", None):
        with sidecar.client(pki.client(cert=cert)) as c:
            assert c.request("GET", "/api/v2/keys").status == 200
    refused(sidecar, pki.client(cert="other-client"))
    with_one, without = sidecar.wait_calls(2)
    assert "CN=client" in with_one["initiator"]["name"]
    assert without["initiator"].get("credential", {}).get("type") != "certificate"
    wait_for(lambda: failures(sidecar) == {"certificate": 1}, "the refusal to be counted")


@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])
def test_a_revoked_client_is_refused_anew_and_on_its_old_session(keytrail, raw_backend, pki,
                                                                 tmp_path, version):
    good, bad = pki.issue("good-client"), pki.issue("bad-client")
    crl = pki.revoke(tmp_path / "crl.pem")
    sidecar = keytrail(raw_backend(ok()), {"listen": {"tls": {"client_ca": pki["ca.pem"],
                                                              "client_crl": crl}}})
    contexts = {name: pki.client(cert=name, version=version) for name in (good, bad)}
    sessions = {name: session_of(sidecar, c) for name, c in contexts.items()}
    with sidecar.client(contexts[bad], session=sessions[bad]) as c:
        assert c.request("GET", "/api/v2/keys").status == 200
        assert c.sock.session_reused
    pki.revoke(crl, bad)  # nobody tells the sidecar
    sidecar.wait_own("keytrail.reload")
    refused(sidecar, contexts[bad])
    refused(sidecar, contexts[bad], session=sessions[bad])
    wait_for(lambda: failures(sidecar) == {"revoked": 2}, "both refusals")
    assert "client_revoked" in str(sidecar.wait_own("keytrail.refused")[0]["details"])
    with sidecar.client(contexts[good], session=sessions[good]) as c:
        assert c.request("GET", "/api/v2/keys").status == 200
        assert not c.sock.session_reused


def test_a_list_that_is_out_of_date_lets_nobody_in(keytrail, raw_backend, pki, tmp_path):
    crl = pki.revoke(tmp_path / "crl.pem", hours_to=-1)
    sidecar = keytrail(raw_backend(ok()), {"listen": {"tls": {"client_ca": pki["ca.pem"],
                                                              "client_crl": crl}}})
    refused(sidecar, pki.client(cert="client"))
    wait_for(lambda: failures(sidecar) == {"certificate": 1}, "the refusal to be counted")


# ---- what openssl s_client sees ----

def s_client(sidecar, pki, *arguments, stdin="Q\n"):
    done = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{sidecar.port}",
                           "-CAfile", pki["ca.pem"], *arguments],
                          input=stdin, capture_output=True, text=True, timeout=20, check=False)
    return done.stdout + done.stderr


def test_an_ocsp_response_is_stapled_until_it_ends(keytrail, pki, tmp_path):
    response = pki.respond(tmp_path / "server.ocsp", "server")
    sidecar = keytrail(None, {"listen": {"tls": {"ocsp": response}}})
    assert "OCSP Response Status: successful" in s_client(sidecar, pki, "-status")
    pki.respond(response, "server", hours_to=-1)
    sidecar.wait_own("keytrail.reload")
    assert "OCSP response: no response sent" in s_client(sidecar, pki, "-status")


@pytest.mark.parametrize("cipher", ["ECDHE-RSA-AES128-SHA256", "ECDHE-RSA-AES128-SHA",
                                    "AES128-GCM-SHA256", "DHE-RSA-AES128-GCM-SHA256"])
def test_suites_without_forward_secrecy_or_aead_are_refused(keytrail, pki, cipher):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=rsa",
                    "-keyout", pki["rsa.key"], "-out", pki["rsa.pem"]],
                   capture_output=True, check=True)
    sidecar = keytrail(None, {"listen": {"tls": pair(pki, "rsa")}})
    assert "Cipher is ECDHE-RSA-AES128-GCM-SHA256" in s_client(
        sidecar, pki, "-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256")
    assert "Cipher is (NONE)" in s_client(sidecar, pki, "-tls1_2", "-cipher",
                                          f"{cipher}:@SECLEVEL=0")


def test_renegotiation_is_refused(keytrail, pki):
    seen = s_client(keytrail(None), pki, "-tls1_2", stdin="R\n")
    assert "RENEGOTIATING" in seen and "no renegotiation" in seen


def test_early_data_is_not_accepted(keytrail, pki, tmp_path):
    sidecar = keytrail(None)
    session, early = tmp_path / "session", tmp_path / "early"
    early.write_text("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    request = "GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    s_client(sidecar, pki, "-tls1_3", "-sess_out", str(session), "-ign_eof", stdin=request)
    assert "Max Early Data: 0" in subprocess.run(
        ["openssl", "sess_id", "-in", session, "-text", "-noout"], capture_output=True, text=True,
        check=True).stdout
    seen = s_client(sidecar, pki, "-tls1_3", "-sess_in", str(session), "-early_data", str(early))
    assert "Early data was not sent" in seen or "Early data was rejected" in seen


# ---- replaced files ----

class Volume:
    """A secret as Kubernetes mounts it: a name is a link to ..data/name, ..data one to a folder."""

    def __init__(self, folder):
        self.folder, self.turn = folder, 0

    def __getitem__(self, name):
        return str(self.folder / name)

    def swap(self, **files):
        self.turn += 1
        version = self.folder / f"..{self.turn}"
        version.mkdir(parents=True)
        for name, source in files.items():
            shutil.copy(source, version / name)
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        link = self.folder / "..data.new"
        link.symlink_to(version.name)
        link.rename(self.folder / "..data")


def test_a_swapped_volume_is_loaded_while_connections_go_on(keytrail, raw_backend, pki, tmp_path):
    volume = Volume(tmp_path / "volume")
    first, second = (pki.issue(f"swap-{n}-{tmp_path.name}") for n in (1, 2))
    volume.swap(crt=pki[f"{first}.pem"], key=pki[f"{first}.key"])
    sidecar = keytrail(raw_backend(ok()), {"listen": {"tls": {"certificate": volume["crt"],
                                                              "key": volume["key"]}}})

    def subject(connection):
        return dict(connection.sock.getpeercert()["subject"][0])["commonName"]

    with sidecar.client() as old:
        assert old.request("GET", "/api/v2/keys").status == 200
        volume.swap(crt=pki[f"{second}.pem"], key=pki[f"{second}.key"])
        event, = sidecar.wait_own("keytrail.reload")
        assert event["outcome"] == "success"
        assert event["details"]["changes"] == "certificates"
        assert "signalPid" not in event["details"]
        with sidecar.client() as new:
            assert subject(new) == second
        assert subject(old) == first
        assert old.request("GET", "/api/v2/keys").status == 200


def test_a_pair_that_does_not_fit_is_told_once_and_tried_again(keytrail, raw_backend, pki, tmp_path):
    cert, key = tmp_path / "server.pem", tmp_path / "server.key"
    shutil.copy(pki["server.pem"], cert)
    shutil.copy(pki["server.key"], key)
    sidecar = keytrail(raw_backend(ok()), {"listen": {"tls": {"certificate": str(cert),
                                                              "key": str(key)}}})
    name = pki.issue("late-" + tmp_path.name)
    replace(cert, (pki.dir / f"{name}.pem").read_bytes())
    event, = sidecar.wait_own("keytrail.reload")
    assert event["outcome"] == "failure"
    assert sidecar.call("GET", "/api/v2/keys").status == 200
    replace(key, (pki.dir / f"{name}.key").read_bytes())
    events = sidecar.wait_own("keytrail.reload", 2)
    assert [e["outcome"] for e in events] == ["failure", "success"]
    assert len(wait_said(sidecar, "reload_failed")) == 1
    with sidecar.client() as c:
        assert c.sock.getpeercert()["subject"] == ((("commonName", name),),)


def test_files_that_cannot_be_read_for_a_while_are_read_later(keytrail, raw_backend, pki, tmp_path):
    volume = Volume(tmp_path / "volume")
    name = pki.issue("later-" + tmp_path.name)
    volume.swap(crt=pki["server.pem"], key=pki["server.key"])
    sidecar = keytrail(raw_backend(ok()), {"listen": {"tls": {"certificate": volume["crt"],
                                                              "key": volume["key"]}}})
    with descriptors(sidecar, 0):
        volume.swap(crt=pki[f"{name}.pem"], key=pki[f"{name}.key"])
        event, = sidecar.wait_own("keytrail.reload")
        assert event["outcome"] == "failure"
    assert sidecar.wait_own("keytrail.reload", 2)[1]["outcome"] == "success"
    with sidecar.client() as c:
        assert c.sock.getpeercert()["subject"] == ((("commonName", name),),)


def served(sidecar, context=None, name="localhost"):
    """Is a call on a new connection answered with 200?"""
    try:
        with sidecar.client(context, name=name) as c:
            return c.request("GET", "/api/v2/keys", {"Host": name}).status == 200
    except (OSError, http1.Closed):
        return False


REPLACED = {  # files, before and after; what is configured with them
    "the clients' CA": ({"ca": ("other-ca.pem", "ca.pem")},
                        lambda f: {"listen": {"tls": {"client_ca": f["ca"]}}}),
    "the key service's CA": ({"ca": ("other-ca.pem", "ca.pem")},
                             lambda f: {"upstream": {"tls": {"ca": f["ca"]}}}),
    "our own towards it": ({"crt": ("other-client.pem", "client.pem"),
                            "key": ("other-client.key", "client.key")},
                           lambda f: {"upstream": {"tls": {"certificate": f["crt"],
                                                           "key": f["key"]}}}),
    "one of several": ({"crt": ("server.pem", "replaced.pem"), "key": ("server.key", "replaced.key")},
                       lambda f: {"listen": {"tls": {"certificates": [
                           {"certificate": f["crt"], "key": f["key"]}]}}}),
}


@pytest.mark.parametrize("label", REPLACED)
def test_every_file_is_loaded_when_it_is_replaced(keytrail, raw_backend, pki, tmp_path, label):
    files, configured = REPLACED[label]
    pki.issue("replaced", dns="replaced.example")
    name = "replaced.example" if label == "one of several" else "localhost"
    volume = Volume(tmp_path / "volume")
    volume.swap(**{file: pki[before] for file, (before, _) in files.items()})
    backend = raw_backend(ok(), context=pki.server(
        client_ca="ca.pem" if label == "our own towards it" else None))
    sidecar = keytrail(backend, configured({file: volume[file] for file in files}))
    context = pki.client(cert="client")
    assert not served(sidecar, context, name)
    volume.swap(**{file: pki[after] for file, (_, after) in files.items()})
    assert sidecar.wait_own("keytrail.reload")[0]["details"]["changes"] == "certificates"
    assert served(sidecar, context, name)


# ---- until when ----

def ends_told(sidecar):
    return [e["message"] for e in sidecar.log_lines() if e["event"] == "certificate_ends"]


def test_what_ends_is_told_when_the_end_comes_near(keytrail, raw_backend, pki, tmp_path, clock):
    """Of a day's lists and certificates that is hours after the start."""
    ca, crl = tmp_path / "ca.pem", pki.revoke(tmp_path / "crl.pem", hours_to=24)
    shutil.copy(pki["ca.pem"], ca)
    sidecar = keytrail(raw_backend(ok()), {
        "listen": {"tls": {"client_ca": str(ca), "client_crl": crl,
                           "client_certificate": "optional"}}}, environment=clock.environment)
    clock.set(10 * 3600)
    sidecar.wait_own("keytrail.clock")
    replace(ca, ca.read_bytes())
    sidecar.wait_own("keytrail.reload")
    assert ends_told(sidecar) == []
    clock.set(20 * 3600)
    line, = wait_for(lambda: ends_told(sidecar), "the warning")
    assert line.startswith(f"{crl}: valid until ")


def test_of_a_bundle_the_one_whose_end_is_near_is_named(keytrail, pki, tmp_path):
    """As while a CA is replaced: the new one's time has just begun."""
    old = pki.issue("old-authority", days_from=-300, days_to=20)
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes((pki.dir / f"{old}.pem").read_bytes() + (pki.dir / "ca.pem").read_bytes())
    sidecar = keytrail(None, {"listen": {"tls": {"client_ca": str(bundle)}},
                              "upstream": {"tls": {"ca": pki["ca.pem"]}}})
    line, = wait_for(lambda: ends_told(sidecar), "the warning")
    assert line.startswith(f"{bundle}: valid until ") and "CN=old-authority" in line


def test_of_a_file_of_many_uses_the_first_end_is_told(keytrail, pki, tmp_path):
    crl = pki.revoke(tmp_path / "crl.pem", hours_to=9)
    both = tmp_path / "both.pem"
    both.write_bytes((pki.dir / "ca.pem").read_bytes() + (tmp_path / "crl.pem").read_bytes())
    sidecar = keytrail(None, {"listen": {"tls": {"client_ca": str(both), "client_crl": crl}},
                              "upstream": {"tls": {"ca": pki["ca.pem"]}}})
    name = "keytrail_certificate_expiry_timestamp_seconds"
    end = sidecar.metric(name, file=crl)
    assert end < sidecar.metric(name, file=str(both))
    sidecar.reload(listen={"tls": {"client_crl": str(both)}}, upstream={"tls": {"ca": str(both)}})
    assert sidecar.metric(name, file=str(both)) == end


def test_the_end_of_each_certificate_is_told(keytrail, pki, tmp_path):
    soon = pki.issue("soon", dns="soon.example", days_from=-30, days_to=5)
    crl = pki.revoke(tmp_path / "crl.pem", hours_to=9)
    authorities = shutil.copy(pki["ca.pem"], tmp_path / "authorities.pem")
    sidecar = keytrail(None, {"listen": {"tls": {"certificates": [pair(pki, soon)],
                                                 "client_ca": pki["ca.pem"], "client_crl": crl}},
                              "upstream": {"tls": {"ca": str(authorities)}}})
    ends = {dict(labels)["file"]: end for (name, labels), end in sidecar.metrics().items()
            if name == "keytrail_certificate_expiry_timestamp_seconds"}
    assert ends.keys() == {pki["server.pem"], pki["soon.pem"], pki["ca.pem"], crl,
                           str(authorities)}
    assert ends[str(authorities)] == ends[pki["ca.pem"]]
    end = pki.certificate(soon).not_valid_after.replace(tzinfo=datetime.timezone.utc)
    assert ends[pki["soon.pem"]] == end.timestamp()
    assert ends[crl] < ends[pki["soon.pem"]] < ends[pki["server.pem"]]
    line = wait_for(lambda: ends_told(sidecar), "the warning")
    assert len(line) == 1 and line[0].startswith(f"{pki['soon.pem']}: valid until ")
    checks = {c["name"]: c for c in json.loads(sidecar.fetch("admin", "/readyz?verbose"))["checks"]}
    assert checks["certificates"]["ok"]
    detail = checks["certificates"]["detail"]
    assert re.fullmatch(rf"valid until \S+Z: {re.escape(pki['soon.pem'])}", detail)
    status = json.loads(sidecar.fetch("admin", "/status"))
    assert {c["file"]: c["notAfter"] for c in status["certificates"]} == ends
    assert [c["file"] for c in status["certificates"] if c["endsSoon"]] == [pki["soon.pem"]]
    assert status["summary"] == f"Every call is recorded; a certificate is {detail}."

"""The http sink: what each receiver takes is what the trail has, whatever goes wrong between."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

import receiver as receivers
from backend import ok
from receiver import Hang, Receiver, status
from support import KEYTRAIL, MODULES, free_ports, new_id, replace, wait_for

pytestmark = pytest.mark.skipif("http" not in MODULES, reason="built without the http sink")

PRESETS = list(receivers.PATHS)


@pytest.fixture(name="keytrail")
def before_its_receiver_ends(raw_backend, keytrail, pki, monkeypatch):  # in this order
    keytrail.pki = pki
    monkeypatch.setenv("SSL_CERT_FILE", pki["ca.pem"])  # which IAM is verified with
    return keytrail


@pytest.fixture
def token(tmp_path):
    path = tmp_path / "token"
    path.write_text("first-token\n")
    path.chmod(0o600)
    return path


def options_of(preset, token, iam=None):
    """What a sink of this preset cannot do without."""
    secret = {"file": str(token)}
    if preset == "splunk-hec":
        return {"bearer": secret}
    if preset == "ibm-cloud-logs":
        return {"api_key": secret, "iam_url": f"https://localhost:{iam.port}/identity/token"}
    return {}


class Iam:
    """Gives tokens for the key in the file."""

    def __init__(self, raw_backend, seconds=3600, **options):
        self.keys, self.given, self.seconds, self.status = [], 0, seconds, "200 OK"
        self.backend = raw_backend(self.serve, **options)
        self.port = self.backend.port

    def serve(self, connection):
        while (request := connection.read_request()) is not None:
            assert request.target == "/identity/token"
            assert request.get("Content-Type") == "application/x-www-form-urlencoded"
            grant, key = request.body.decode().split("&apikey=")
            assert grant == "grant_type=urn%3Aibm%3Aparams%3Aoauth%3Agrant-type%3Aapikey"
            self.keys.append(bytes.fromhex(key.replace("%", "")).decode())
            self.given += 1
            connection.send(ok(json.dumps({"access_token": f"token-{self.given}", "token_type": "Bearer",
                                           "expires_in": self.seconds}), status=self.status))


def send(sidecar, n, **fields):
    with sidecar.client() as c:
        for _ in range(n):
            c.request("GET", "/api/v2/keys", {"Correlation-Id": new_id(), **fields})


def numbers(events):
    return [e["trail"]["seq"] for e in events]


def the_sink(sidecar):
    return json.loads(sidecar.fetch("admin", "/status"))["sinks"][0]


def is_down(sidecar, *words):
    """The sink says why."""
    def found():
        error = the_sink(sidecar)["lastError"]
        return all(word in error for word in words) and error
    return wait_for(found, f"the error {words}")


def caught_up(sidecar, receiver):
    """All that is durable has come, in order; the events with repeats."""
    def found():
        want = numbers(sidecar.events())
        got = numbers(receiver.taken)
        return list(dict.fromkeys(got)) == want and got
    return wait_for(found, "the receiver to have it all")


def start(keytrail, raw_backend, receiver, **more):
    return keytrail(raw_backend(ok()), {"sinks": [receiver.sink(keytrail.pki, **more)]})


# ---- each receiver ----

@pytest.mark.parametrize("preset, compression", [(p, "gzip") for p in PRESETS] + [("ndjson", "none")])
def test_each_receiver_gets_every_event(keytrail, raw_backend, token, preset, compression):
    iam = Iam(raw_backend) if preset == "ibm-cloud-logs" else None
    receiver = Receiver(raw_backend, preset, prefix="/base")
    sidecar = start(keytrail, raw_backend, receiver, compression=compression,
                    **options_of(preset, token, iam))
    send(sidecar, 30)
    got = caught_up(sidecar, receiver)
    assert len(got) == len(set(got))
    assert the_sink(sidecar)["lastError"] == ""
    encodings = {request.get("Content-Encoding") for _, request, _ in receiver.requests}
    assert encodings == {None if compression == "none" else "gzip"}


# ---- faults ----

FAULTS = {
    "too many requests": (status("429 Too Many Requests"), "429"),
    "leave alone": (status("429 Too Many Requests", "Retry-After: 1\r\n"), "left alone"),
    "unavailable": (status("503 Service Unavailable"), "503"),
    "failure": (status("500 Internal Server Error"), "500"),
    "bad gateway": (status("502 Bad Gateway"), "502"),
    "not found": (status("404 Not Found"), "404"),
    "unknown": (status("401 Unauthorized"), "401"),
    "forbidden": (status("403 Forbidden"), "403"),
    "redirect": (status("307 Temporary Redirect", "Location: https://localhost:1/\r\n"), "redirects"),
    "close": (receivers.closing, "https://localhost"),
    "reset": (receivers.resetting, "https://localhost"),
    "half an answer": (receivers.cut, "https://localhost"),
    "garbage": (receivers.garbage, "https://localhost"),
    "a huge answer": (receivers.huge_body, "too large"),
    "a huge head": (receivers.huge_head, "too large"),
}


@pytest.mark.parametrize("fault, words", FAULTS.values(), ids=FAULTS)
def test_what_fails_comes_again(keytrail, raw_backend, fault, words):
    receiver = Receiver(raw_backend)
    receiver.always = fault
    sidecar = start(keytrail, raw_backend, receiver)
    send(sidecar, 5)
    assert "SECRET" not in is_down(sidecar, words)
    receiver.always = None
    got = caught_up(sidecar, receiver)
    assert len(got) == len(set(got))
    assert sidecar.metric("keytrail_sink_events_rejected_total") == 0
    assert "SECRET" not in sidecar.stderr()


def take_and_close(receiver):
    def fault(_, request):
        receiver.answer(request)
        return receivers.END
    return fault


def test_what_was_taken_without_an_answer_comes_again(keytrail, raw_backend):
    receiver = Receiver(raw_backend)
    receiver.faults.append(take_and_close(receiver))
    sidecar = start(keytrail, raw_backend, receiver)
    send(sidecar, 5)
    got = caught_up(sidecar, receiver)
    assert len(got) > len(set(got))


@pytest.mark.parametrize("head", ["", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nslow"],
                         ids=["no answer", "a slow body"])
def test_a_receiver_that_hangs_stops_nobody(keytrail, raw_backend, head):
    receiver, hang = Receiver(raw_backend), Hang(head)
    receiver.faults.append(hang)
    sidecar = start(keytrail, raw_backend, receiver)
    send(sidecar, 5)
    assert hang.here.wait(20)
    assert sidecar.reload(limits={"refusals": 1})["outcome"] == "success"
    hang.go.set()
    caught_up(sidecar, receiver)


def test_a_receiver_that_hangs_delays_no_stop(keytrail, raw_backend):
    receiver, hang = Receiver(raw_backend), Hang()
    receiver.always = hang
    sidecar = start(keytrail, raw_backend, receiver)
    sidecar.reload(timeouts={"drain": 100})
    send(sidecar, 5)
    assert hang.here.wait(20)
    sidecar.stop()
    assert "sink_stuck" not in sidecar.stderr()
    hang.go.set()
    receiver.always = None
    sidecar.start()
    caught_up(sidecar, receiver)


# ---- TLS and credentials ----

def test_a_certificate_of_another_authority_gets_nothing(keytrail, raw_backend, pki):
    receiver = Receiver(raw_backend, context=pki.server("other-kms"))
    sidecar = start(keytrail, raw_backend, receiver)
    sidecar.reload(timeouts={"drain": 100})  # what it has for it stays
    is_down(sidecar, "certificate")
    assert receiver.backend.requests == []


@pytest.mark.parametrize("preset", ["ndjson", "loki"])
def test_a_certificate_for_another_name_gets_nothing(keytrail, raw_backend, pki, preset):
    receiver = Receiver(raw_backend, preset, context=pki.server(pki.issue("elsewhere", dns="elsewhere.test")))
    sidecar = start(keytrail, raw_backend, receiver)
    is_down(sidecar, "certificate")
    assert receiver.backend.requests == []
    sink = receiver.sink(pki)
    sink["tls"]["server_name"] = "elsewhere.test"
    sidecar.reload(sinks=[sink])
    caught_up(sidecar, receiver)


def test_a_client_certificate_is_shown(keytrail, raw_backend, pki):
    receiver = Receiver(raw_backend, context=pki.server(client_ca="ca.pem"))
    sidecar = start(keytrail, raw_backend, receiver)
    is_down(sidecar, "https://localhost")
    assert receiver.taken == []
    sink = receiver.sink(pki)
    sink["tls"] |= {"certificate": pki["client.pem"], "key": pki["client.key"]}
    sidecar.reload(sinks=[sink])
    caught_up(sidecar, receiver)


def test_files_of_tls_that_are_replaced_are_used(keytrail, raw_backend, pki, tmp_path):
    receiver = Receiver(raw_backend, context=pki.server(client_ca="ca.pem"))
    names = {"ca": "ca.pem", "certificate": "client.pem", "key": "client.key"}
    files = {member: tmp_path / name for member, name in names.items()}

    def put(member, name):
        replace(files[member], Path(pki[name]).read_bytes())

    put("ca", "ca.pem")
    put("certificate", "other-kms.pem")
    put("key", "other-kms.key")
    sidecar = start(keytrail, raw_backend, receiver, tls={m: str(f) for m, f in files.items()})
    is_down(sidecar, "https://localhost")
    assert receiver.taken == []
    put("certificate", "client.pem")
    put("key", "client.key")
    caught_up(sidecar, receiver)
    put("ca", "other-ca.pem")
    receiver.faults.append(receivers.closing)
    send(sidecar, 1)
    is_down(sidecar, "the server's certificate")
    put("ca", "ca.pem")
    caught_up(sidecar, receiver)


def authorizations(receiver):
    return [request.get("Authorization") for _, request, _ in receiver.requests]


def test_a_token_is_read_again_when_it_changes(keytrail, raw_backend, token):
    receiver, refuse = Receiver(raw_backend), status("401 Unauthorized")

    def judge(connection, request):
        """One with the first may be under way when the second is written."""
        if "first-token" in request.get("Authorization"):
            return refuse(connection, request)
        return connection.send(receiver.answer(request))

    receiver.always = judge
    sidecar = start(keytrail, raw_backend, receiver, bearer={"file": str(token)},
                    headers=[{"name": "X-Tenant", "value": {"file": str(token)}}])
    send(sidecar, 3)
    assert "first-token" not in is_down(sidecar, "does not know the credentials (status 401)")
    token.write_text("second-token\n")
    caught_up(sidecar, receiver)
    assert set(authorizations(receiver)) == {"Bearer second-token"}
    assert {r.get("X-Tenant") for _, r, _ in receiver.requests} == {"second-token"}
    assert "first-token" not in sidecar.stderr()


def mount(folder, generation, text):
    """A secret as the kubelet puts it: links to a folder that is replaced whole."""
    real = folder / f"..{generation}"
    real.mkdir(parents=True)
    (real / "token").write_text(text)
    (real / "token").chmod(0o440)
    (folder / "..new").symlink_to(real.name)
    (folder / "..new").rename(folder / "..data")
    if not (folder / "token").is_symlink():
        (folder / "token").symlink_to("..data/token")
    return folder / "token"


def test_a_mounted_secret_is_followed_to_its_next_generation(keytrail, raw_backend, tmp_path):
    receiver = Receiver(raw_backend)
    token = mount(tmp_path / "mounted", 1, "first")
    sidecar = start(keytrail, raw_backend, receiver, bearer={"file": str(token)})
    caught_up(sidecar, receiver)
    assert set(authorizations(receiver)) == {"Bearer first"}
    mount(tmp_path / "mounted", 2, "second")
    send(sidecar, 1)
    caught_up(sidecar, receiver)
    assert authorizations(receiver)[-1] == "Bearer second"


def test_a_secret_that_is_opened_to_everybody_is_not_sent(keytrail, raw_backend, token):
    receiver = Receiver(raw_backend)
    sidecar = start(keytrail, raw_backend, receiver, bearer={"file": str(token)})
    caught_up(sidecar, receiver)
    seen = len(receiver.requests)
    token.chmod(0o644)
    send(sidecar, 1)
    is_down(sidecar, "open to everybody (mode 0644)")
    assert len(receiver.requests) == seen
    token.chmod(0o640)
    caught_up(sidecar, receiver)


def test_basic_credentials(keytrail, raw_backend, token):
    token.write_text("open sesame")
    receiver = Receiver(raw_backend)
    sidecar = start(keytrail, raw_backend, receiver,
                    basic={"user": "Aladdin", "password": {"file": str(token)}})
    caught_up(sidecar, receiver)
    assert authorizations(receiver)[-1] == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="


@pytest.mark.parametrize("content", ["", "two\r\nX-Forged: lines"], ids=["empty", "two lines"])
def test_a_secret_that_no_header_can_hold_is_not_sent(keytrail, raw_backend, token, content):
    receiver = Receiver(raw_backend)
    sidecar = start(keytrail, raw_backend, receiver, bearer={"file": str(token)})
    caught_up(sidecar, receiver)
    seen = len(receiver.requests)
    token.write_text(content)
    send(sidecar, 1)
    assert "Forged" not in is_down(sidecar, str(token), "one line")
    assert len(receiver.requests) == seen
    token.write_text("third-token")
    caught_up(sidecar, receiver)


def test_iam_gives_the_token(keytrail, raw_backend, token):
    iam, receiver = Iam(raw_backend, seconds=1), Receiver(raw_backend, "ibm-cloud-logs")
    iam.status = "400 Bad Request"
    sidecar = start(keytrail, raw_backend, receiver, **options_of("ibm-cloud-logs", token, iam))
    is_down(sidecar, "no token for the API key (status 400)")
    assert receiver.requests == []
    iam.status = "200 OK"
    caught_up(sidecar, receiver)

    def one_more():
        send(sidecar, 1)
        return iam.given if authorizations(receiver)[-1] != f"Bearer token-{first}" else None

    first = iam.given
    wait_for(one_more, "another token before the end of this one")
    assert set(iam.keys) == {"first-token"}


def test_a_token_that_is_not_known_any_more_is_asked_for_anew(keytrail, raw_backend, token):
    iam, receiver = Iam(raw_backend), Receiver(raw_backend, "ibm-cloud-logs")
    receiver.faults.append(status("401 Unauthorized"))
    sidecar = start(keytrail, raw_backend, receiver, **options_of("ibm-cloud-logs", token, iam))
    caught_up(sidecar, receiver)
    assert authorizations(receiver)[-1] == "Bearer token-2"


def test_the_tls_of_the_receiver_is_not_that_of_iam(keytrail, raw_backend, token, pki, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", pki["other-ca.pem"])
    iam = Iam(raw_backend, context=pki.server("other-kms"))
    receiver = Receiver(raw_backend, "ibm-cloud-logs",
                        context=pki.server(pki.issue("elsewhere", dns="elsewhere.test")))
    tls = {"ca": pki["ca.pem"], "server_name": "elsewhere.test"}
    sidecar = start(keytrail, raw_backend, receiver, tls=tls,
                    **options_of("ibm-cloud-logs", token, iam))
    caught_up(sidecar, receiver)


# ---- events that a receiver does not take ----

def poisoned(correlation):
    return lambda event: event.get("correlationId") == correlation and "kind" not in event


@pytest.mark.parametrize("preset", PRESETS)
def test_an_event_that_is_refused_is_put_aside(keytrail, raw_backend, token, preset):
    iam = Iam(raw_backend) if preset == "ibm-cloud-logs" else None
    receiver, bad = Receiver(raw_backend, preset), new_id()
    receiver.refuses = lambda event: event.get("correlationId") == bad
    receiver.always = status("503 Service Unavailable")
    sidecar = start(keytrail, raw_backend, receiver, **options_of(preset, token, iam))
    send(sidecar, 20)
    send(sidecar, 1, **{"Correlation-Id": bad})
    send(sidecar, 20)
    is_down(sidecar, "503")
    receiver.always = None
    wait_for(lambda: sidecar.metric("keytrail_sink_events_rejected_total") == 1, "the rejection")
    quarantine = (sidecar.trail_dir / "quarantine.http.jsonl").read_text().splitlines()
    assert [json.loads(line)["correlationId"] for line in quarantine] == [bad]
    seq = json.loads(quarantine[0])["trail"]["seq"]

    def rest():
        want = set(numbers(sidecar.events())) - {seq}
        return want <= set(numbers([e for e in receiver.taken if "trail" in e]))
    wait_for(rest, "all the others")
    assert "SECRET" not in sidecar.stderr()


def test_a_receiver_that_refuses_everything_gets_no_event_put_aside(keytrail, raw_backend):
    receiver = Receiver(raw_backend)
    receiver.refuses = lambda event: True
    sidecar = keytrail(raw_backend(ok()))
    send(sidecar, 5)
    sidecar.stop()
    sidecar.write_config(sinks=[receiver.sink(keytrail.pki)])  # begins with more than one event
    sidecar.start()
    is_down(sidecar, "nothing else was taken, so it may be the set-up")
    receiver.refuses = lambda event: False
    caught_up(sidecar, receiver)
    assert sidecar.metric("keytrail_sink_events_rejected_total") == 0


def test_a_receiver_that_begins_to_refuse_everything_gets_one_event_put_aside(keytrail, raw_backend):
    receiver = Receiver(raw_backend)
    sidecar = start(keytrail, raw_backend, receiver)
    send(sidecar, 5)
    caught_up(sidecar, receiver)
    receiver.refuses = lambda event: True
    send(sidecar, 10)
    is_down(sidecar, "nothing else was taken, so it may be the set-up")
    receiver.refuses = lambda event: False
    sidecar.wait_delivered("http")
    assert len((sidecar.trail_dir / "quarantine.http.jsonl").read_text().splitlines()) == 1
    assert sidecar.metric("keytrail_sink_events_rejected_total") == 1


def test_an_event_that_is_refused_first_is_put_aside_once_another_is_taken(keytrail, raw_backend):
    receiver = Receiver(raw_backend)
    receiver.refuses = lambda event: event["action"] == "keytrail.start" and "delivery" in event \
        and not event["delivery"].get("stub")
    sidecar = start(keytrail, raw_backend, receiver)
    send(sidecar, 5)
    wait_for(lambda: sidecar.metric("keytrail_sink_events_rejected_total") == 1, "the rejection")
    wait_for(lambda: set(numbers(receiver.taken)) == set(numbers(sidecar.events())),
             "the rest, and a stub that stands for it")


def test_a_batch_that_is_too_large_is_made_smaller(keytrail, raw_backend):
    receiver = Receiver(raw_backend)

    def at_most_three(connection, request):
        events, _ = receiver.events_of(request)
        if len(events) > 3:
            connection.send(ok(status="413 Content Too Large"))
        else:
            receiver.take(events)
            connection.send(ok())

    receiver.always = status("503 Service Unavailable")
    sidecar = start(keytrail, raw_backend, receiver)
    send(sidecar, 30)
    is_down(sidecar, "503")
    receiver.always = at_most_three
    got = caught_up(sidecar, receiver)
    assert len(got) == len(set(got))
    assert max(len(events) for _, _, events in receiver.requests) > 3
    assert sidecar.metric("keytrail_sink_events_rejected_total") == 0


# ---- what is particular to one ----

def test_a_document_that_is_there_already_is_harmless(keytrail, raw_backend):
    receiver = Receiver(raw_backend, "elasticsearch")
    receiver.faults.append(take_and_close(receiver))
    sidecar = start(keytrail, raw_backend, receiver)
    send(sidecar, 10)
    got = caught_up(sidecar, receiver)
    assert len(got) == len(set(got))
    assert sidecar.metric("keytrail_sink_events_rejected_total") == 0


def test_a_question_that_cannot_be_asked_is_asked_later(keytrail, raw_backend, token):
    receiver = Receiver(raw_backend, "elasticsearch")

    def store_and_close(_, request):
        receiver.answer(request)
        return receivers.END

    def answer_without_a_token(connection, request):
        token.write_text("")
        connection.send(receiver.answer(request))

    receiver.faults += [store_and_close, answer_without_a_token]
    sidecar = start(keytrail, raw_backend, receiver, bearer={"file": str(token)})
    is_down(sidecar, str(token), "one line")
    token.write_text("second-token")
    send(sidecar, 3)
    got = caught_up(sidecar, receiver)
    assert len(got) == len(set(got))


def test_another_document_under_the_same_identity_is_an_alarm(keytrail, raw_backend):
    receiver = Receiver(raw_backend, "elasticsearch")
    sidecar = start(keytrail, raw_backend, receiver)
    send(sidecar, 3)
    caught_up(sidecar, receiver)
    last = sidecar.events()[-1]["trail"]
    forged = f"{last['log']}-{last['boot']}-{last['seq'] + 1}"
    receiver.stored[forged] = {"forged": True}
    send(sidecar, 3)
    wait_for(lambda: sidecar.metric("keytrail_sink_events_rejected_total") > 0, "the rejection")
    wait_for(lambda: "conflict: another document has the identity" in sidecar.stderr(), "the alarm")
    assert receiver.stored[forged] == {"forged": True}


def test_what_splunk_has_not_indexed_comes_again(keytrail, raw_backend, token):
    receiver = Receiver(raw_backend, "splunk-hec")
    receiver.indexed = False
    sidecar = start(keytrail, raw_backend, receiver, bearer={"file": str(token)})
    send(sidecar, 5)
    receiver.backend.wait(lambda _: len(receiver.asked) > 2)
    assert {r.get("Authorization") for r in receiver.backend.requests} == {"Splunk first-token"}
    channels = {r.get("X-Splunk-Request-Channel") for r in receiver.backend.requests}
    assert [c.replace("-", "") for c in channels] == [sidecar.events()[0]["trail"]["log"]]
    sidecar.kill()
    receiver.taken.clear()
    receiver.indexed = True
    sidecar.start()
    caught_up(sidecar, receiver)


def test_what_splunk_has_indexed_comes_once(keytrail, raw_backend, token):
    receiver = Receiver(raw_backend, "splunk-hec")
    sidecar = start(keytrail, raw_backend, receiver, bearer={"file": str(token)})
    send(sidecar, 5)
    caught_up(sidecar, receiver)
    sidecar.stop()
    got = numbers(receiver.taken)
    assert got == numbers(sidecar.events())
    sidecar.start()
    caught_up(sidecar, receiver)
    assert numbers(receiver.taken)[:len(got)] == got and len(set(numbers(receiver.taken))) == len(receiver.taken)


# ---- check ----

def check(sidecar):
    return subprocess.run([KEYTRAIL, "check", "--environment", sidecar.file], env=sidecar.environment,
                          text=True, capture_output=True, check=False)


@pytest.mark.parametrize("preset", ["ndjson", "ibm-cloud-logs"])
def test_check_asks_whether_somebody_is_there(keytrail, raw_backend, token, preset):
    iam = Iam(raw_backend)
    receiver = Receiver(raw_backend, preset)
    receiver.always = status("405 Method Not Allowed", body="")
    sidecar = keytrail(raw_backend(ok()), {"sinks": [
        receiver.sink(keytrail.pki, **options_of(preset, token, iam))]}, start=False)
    done = check(sidecar)
    assert f"sink http: https://localhost:{receiver.port} answers (status 405 to HEAD)\n" in done.stdout
    assert [r.method for r in receiver.backend.requests] == ["HEAD"]
    receiver.always = status("403 Forbidden", body="")
    done = check(sidecar)
    assert done.returncode == 1 and "the credentials are not taken (status 403)" in done.stderr
    if preset == "ibm-cloud-logs":
        assert receiver.backend.requests[-1].get("Authorization") == "Bearer token-2"
        iam.status = "400 Bad Request"
        assert "IAM gives no token for the API key (status 400)" in check(sidecar).stderr


def test_check_says_that_nobody_is_there(keytrail, raw_backend, dead_port):
    receiver = Receiver(raw_backend)
    receiver.port = dead_port()
    done = check(keytrail(raw_backend(ok()), {"sinks": [receiver.sink(keytrail.pki)]}, start=False))
    assert done.returncode == 1 and f"https://localhost:{receiver.port}: " in done.stderr


# ---- a server that nobody here wrote ----

class Nginx:
    """Writes down what it is sent."""

    CONF = """daemon off; pid {0}/pid; error_log {0}/error.log; user root; worker_processes 1;
events {{}}
http {{ client_body_temp_path {0}; proxy_temp_path {0}; fastcgi_temp_path {0}; uwsgi_temp_path {0};
scgi_temp_path {0}; log_format body escape=none $request_body; client_body_buffer_size 2m;
client_max_body_size 2m;
server {{ listen 127.0.0.1:{1} ssl; ssl_certificate {2}; ssl_certificate_key {3}; access_log off;
location = /events {{ access_log {0}/events body; proxy_pass http://unix:{0}/sock; }} }}
server {{ listen unix:{0}/sock; access_log off; return 204; }} }}
"""

    def __init__(self, folder, pki):
        self.folder, self.port, self.process = folder, free_ports(1)[0], None
        folder.mkdir()
        (folder / "conf").write_text(self.CONF.format(folder, self.port, pki["kms.pem"], pki["kms.key"]))

    def start(self):
        (self.folder / "sock").unlink(missing_ok=True)
        self.process = subprocess.Popen(["nginx", "-c", self.folder / "conf"], stderr=subprocess.DEVNULL)

    def kill(self):
        os.kill(self.process.pid, signal.SIGQUIT)
        self.process.wait(20)

    @property
    def taken(self):
        path = self.folder / "events"
        return [json.loads(line) for line in path.read_text().splitlines() if line] if path.exists() else []


def test_nginx_gets_every_event(keytrail, raw_backend, pki, tmp_path):
    nginx = Nginx(tmp_path / "nginx", pki)
    nginx.start()
    sidecar = keytrail(raw_backend(ok()), {"sinks": [
        {"name": "http", "type": "http", "url": f"https://localhost:{nginx.port}/events",
         "compression": "none", "tls": {"ca": pki["ca.pem"]}}]})
    try:
        send(sidecar, 200)
        caught_up(sidecar, nginx)
        nginx.kill()
        send(sidecar, 200)
        is_down(sidecar, f"https://localhost:{nginx.port}")
        nginx.start()
        send(sidecar, 200)
        got = caught_up(sidecar, nginx)
        assert len(got) == len(set(got))
        sidecar.stop()
    finally:
        nginx.kill()

"""No secret in any output: a distinct canary in every place that a client or the key service can
put one, then a search of everything that keytrail writes.

A canary outside the grammar of a recorded member is nowhere.  One inside is in that member alone.
"""

import base64
import contextlib
import json
import os
import random
import re
import ssl
import subprocess
import uuid
from pathlib import Path

import pytest

import http1
from backend import ok
from faults import Disk, Memory
from support import KEYTRAIL, ROOT, SANITIZED, b64url, make_token, merge, wait_for

KEY = "/api/v2/keys/76c2c9cb-9095-5a24-811b-0ef4b24ac4d5"
JUNK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def canary():
    return "cnry" + os.urandom(8).hex() + "q"


def get(*fields, target="/api/v2/keys", method="GET", version="HTTP/1.1", body=b""):
    lines = [f"{method} {target} {version}", "Host: localhost", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def post(*fields, target="/api/v2/keys", body=b""):
    return get(f"Content-Length: {len(body)}", *fields, target=target, method="POST", body=body)


def chunked(body, *fields):
    return get("Transfer-Encoding: chunked", *fields, method="POST", body=body.encode())


def bearer(**claims):
    return "Authorization: Bearer " + make_token(b"secret of nobody", **claims)


def unsigned(payload):
    return f"Authorization: Bearer {b64url(b'{}')}.{b64url(payload.encode())}.x"


# What a client sends, by the place of the canary; the key service answers 200.
REQUESTS = {
    "a path segment": lambda c: get(target=f"/api/v2/{c}"),
    "a deep path segment": lambda c: get(target=f"{KEY}/{c}/x"),
    "an unknown action": lambda c: post(target=f"{KEY}/actions/{c}"),
    "an alias": lambda c: get(target=f"/api/v2/keys/{c}"),
    "a registration": lambda c: get(target=f"{KEY}/registrations/crn%3A{c}%2Fx", method="DELETE"),
    "a key ring in the path": lambda c: get(target=f"/api/v2/key_rings/{c}", method="DELETE"),
    "a query's value": lambda c: get(target=f"/api/v2/keys?search={c}"),
    "a query's name": lambda c: get(target=f"/api/v2/keys?{c}=1"),
    "a discriminator": lambda c: post(target=f"{KEY}?action={c}"),
    "a field's value": lambda c: get(f"X-Any: {c}"),
    "a field's name": lambda c: get(f"{c}: 1"),
    "Cookie": lambda c: get(f"Cookie: a={c}"),
    "Referer": lambda c: get(f"Referer: https://{c}.example/"),
    "Accept": lambda c: get(f"Accept: {c}/x"),
    "Content-Type": lambda c: post(f"Content-Type: application/{c}", body=b"{}"),
    "If-Match": lambda c: get(f'If-Match: "{c}"'),
    "Prefer": lambda c: get(f"Prefer: {c}"),
    "Via": lambda c: get(f"Via: 1.1 {c}"),
    "Forwarded": lambda c: get(f"Forwarded: for={c}"),
    "X-Forwarded-For": lambda c: get(f"X-Forwarded-For: {c}"),
    "X-Forwarded-Host": lambda c: get(f"X-Forwarded-Host: {c}"),
    "Host": lambda c: f"GET /api/v2/keys HTTP/1.1\r\nHost: {c}\r\n\r\n".encode(),
    "Expect": lambda c: get(f"Expect: {c}"),
    "Connection": lambda c: get(f"Connection: {c}"),
    "Upgrade": lambda c: get("Connection: upgrade", f"Upgrade: {c}"),
    "TE": lambda c: get("Connection: TE", f"TE: {c}"),
    "Proxy-Authorization": lambda c: get(f"Proxy-Authorization: Basic {c}"),
    "an instance that is no UUID": lambda c: get(f"Bluemix-Instance: {c}"),
    "a key ring outside its grammar": lambda c: get(f"X-Kms-Key-Ring: {c}_/"),
    "a correlation ID that is no UUID": lambda c: get(f"Correlation-Id: {c}"),
    "a comment of User-Agent": lambda c: get(f"User-Agent: curl/7 ({c})"),
    "a long token of User-Agent": lambda c: get(f"User-Agent: {c}{'x' * 40}"),
    "no product in User-Agent": lambda c: get(f"User-Agent: <{c}>"),
    "Basic": lambda c: get("Authorization: Basic "
                           + base64.b64encode(f"user:{c}".encode()).decode()),
    "an opaque token": lambda c: get(f"Authorization: Bearer {c}"),
    "an API key": lambda c: get(f"X-Api-Key: {c}"),
    "a token's signature": lambda c: get(f"Authorization: Bearer {b64url(b'{}')}."
                                         f"{b64url(json.dumps({'sub': 'x'}).encode())}.{c}"),
    "a token's header": lambda c: get("Authorization: Bearer "
                                      + b64url(json.dumps({"kid": c}).encode()) + ".e30.x"),
    "a claim: given_name": lambda c: get(bearer(given_name=c)),
    "a claim: family_name": lambda c: get(bearer(family_name=c)),
    "a claim: email": lambda c: get(bearer(email=f"{c}@example.com")),
    "a claim: scope": lambda c: get(bearer(scope=c)),
    "a claim: iss": lambda c: get(bearer(iss=c)),
    "a claim: client_id": lambda c: get(bearer(client_id=c)),
    "a claim: sub, which is omitted": lambda c: get(bearer(sub=c)),
    "a claim: authn.name": lambda c: get(bearer(authn={"name": c, "sub": c})),
    "a claim: account.name": lambda c: get(bearer(account={"name": c})),
    "a claim of any name": lambda c: get(bearer(**{c: "x"})),
    "a claim outside its grammar": lambda c: get(bearer(iam_id=f"<{c}>", grant_type=f"<{c}>")),
    "an account outside its grammar": lambda c: get(bearer(account={"bss": c})),
    "a claim twice": lambda c: get(unsigned(f'{{"iam_id":"{c}","iam_id":"{c}"}}')),
    "claims that do not parse": lambda c: get(unsigned(f'{{"iam_id":"{c}"')),
    "a body": lambda c: post(body=json.dumps({"payload": c}).encode()),
    "a chunked body": lambda c: chunked(f"15\r\n{c[:21]}\r\n0\r\n\r\n"),
    "a chunk extension": lambda c: chunked(f"2;{c}={c}\r\n{{}}\r\n0\r\n\r\n"),
    "a trailer's value": lambda c: chunked(f"2\r\n{{}}\r\n0\r\nX-T: {c}\r\n\r\n"),
    "a trailer's name": lambda c: chunked(f"2\r\n{{}}\r\n0\r\n{c}: 1\r\n\r\n"),
    # malformed
    "a method": lambda c: get(method=c.upper()),
    "a method in lower case": lambda c: get(method=c),
    "a version": lambda c: get(version=c),
    "a request line": lambda c: f"{c}\r\n\r\n".encode(),
    "no request at all": lambda c: f"\0\1\2{c}\xff\r\n\r\n".encode("latin-1"),
    "a target that is no path": lambda c: get(target=c),
    "an absolute target": lambda c: get(target=f"https://{c}.example/api/v2/keys"),
    "a user in the target": lambda c: get(target=f"https://user:{c}@localhost/api/v2/keys"),
    "a bad escape": lambda c: get(target=f"/api/v2/keys/{c}%zz"),
    "a dot segment": lambda c: get(target=f"/api/v2/{c}/../keys"),
    "a folded field": lambda c: get("X-A: b", f" {c}"),
    "a field without a colon": lambda c: get(c),
    "a field with NUL": lambda c: get(f"X-A: \0{c}"),
    "a field with a newline": lambda c: get(f'X-A: a\n{{"level":"{c}"}}'),
    "a repeated Authorization": lambda c: get(f"Authorization: Bearer {c}", f"Authorization: {c}"),
    "a length": lambda c: get(f"Content-Length: {c}", method="POST"),
    "a transfer coding": lambda c: get(f"Transfer-Encoding: {c}", method="POST"),
    "a chunk's size": lambda c: chunked(f"{c}\r\n"),
    "a long target": lambda c: get(target="/api/v2/keys?search=" + "x" * 9000 + c),
    "a long head": lambda c: get("X-A: " + c * 3000),
    "an overridden URL": lambda c: get(f"X-Original-URL: /{c}"),
    "a form": lambda c: post("Content-Type: application/x-www-form-urlencoded",
                             target=f"{KEY}?action=wrap", body=f"a={c}".encode()),
}

# What the key service answers to a plain GET.
ANSWERS = {
    "a body": lambda c: ok(json.dumps({"plaintext": c})),
    "an error message": lambda c: ok(json.dumps({"resources": [{"errorMsg": c}]}),
                                     status="404 Not Found"),
    "a field's value": lambda c: ok(extra=f"X-Any: {c}\r\n"),
    "a field's name": lambda c: ok(extra=f"{c}: 1\r\n"),
    "a status text": lambda c: ok(status=f"200 {c}"),
    "a status text of an error": lambda c: ok(status=f"403 {c}"),
    "a correlation ID that is no UUID": lambda c: ok(extra=f"Correlation-Id: {c}\r\n"),
    "Set-Cookie": lambda c: ok(extra=f"Set-Cookie: {c}\r\n"),
    "an interim answer": lambda c: f"HTTP/1.1 103 {c}\r\n{c}: {c}\r\n\r\n".encode() + ok(),
    "a chunk extension": lambda c: ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                                    f"2;{c}={c}\r\n{{}}\r\n0\r\n\r\n").encode(),
    "a trailer": lambda c: ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                            f"2\r\n{{}}\r\n0\r\n{c}: {c}\r\n\r\n").encode(),
    "no HTTP": lambda c: f"{c}\r\n\r\n".encode(),
    "a version": lambda c: f"{c}/1.1 200 OK\r\n\r\n".encode(),
    "a status": lambda c: f"HTTP/1.1 {c} OK\r\n\r\n".encode(),
    "a malformed field": lambda c: f"HTTP/1.1 200 OK\r\n{c} : {c}\r\n\r\n".encode(),
    "a length": lambda c: f"HTTP/1.1 200 OK\r\nContent-Length: {c}\r\n\r\n".encode(),
    "a chunk's size": lambda c: ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                                 f"{c}\r\n").encode(),
    "bytes after the answer": lambda c: ok() + c.encode(),
}

# Each field that keytrail knows by its name, and others that many use, in each kind of message and as
# a trailer.  What fits the grammar of a recorded member is put outside of it.
NAMES = re.findall(r'X\(\w+, "([\w-]+)"\)', (ROOT / "include/keytrail/head.h").read_text()) + [
    "Accept-Encoding", "Accept-Language", "Authentication-Info", "Cache-Control", "Cookie", "ETag",
    "IBM-UAA-Refresh-Token", "Origin", "Range", "Referer", "Retry-After", "Server", "Set-Cookie",
    "Traceparent", "Transaction-Id", "Warning", "WWW-Authenticate", "X-Auth-Token",
    "X-Global-Transaction-Id", "X-Real-IP", "X-Request-Id"]
for name in NAMES:
    value = "<{}>" if name in ("user-agent", "x-kms-key-ring") else "{}"
    field = f"{name}: {value}"
    REQUESTS[f"field {name}"] = lambda c, f=field: get(f.format(c))
    REQUESTS[f"trailer {name}"] = lambda c, f=field: chunked(f"0\r\n{f.format(c)}\r\n\r\n")
    ANSWERS[f"field {name}"] = lambda c, f=field: ok(extra=f"{f.format(c)}\r\n")
    ANSWERS[f"trailer {name}"] = lambda c, f=field: (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        f"0\r\n{f.format(c)}\r\n\r\n").encode()


class Watched:
    """A sidecar that says as much as it can, and all that it has said."""

    def __init__(self, keytrail, raw_backend, tmp_path, environment=None, **config):
        self.answer = ok()
        self.sink = tmp_path / "sink.jsonl"
        self.local = []  # our own answers
        self.backend = raw_backend(self.script)
        self.sidecar = keytrail(self.backend, {
            "log": {"level": "trace"}, "timeouts": {"body": "2s"},
            "sinks": [{"name": "file", "type": "file", "path": str(self.sink)},
                      {"name": "out", "type": "stdout"}], **config}, environment=environment)

    def script(self, connection):
        while connection.read_request() is not None:
            connection.send(self.answer)
            if self.answer != ok():
                return

    def send(self, data, context=None):
        """Returns when it was answered or the connection has been closed."""
        with self.sidecar.client(context) as c:
            try:
                c.send(data)
                head = c.read_head()
                c.read_body(head, "GET")
            except (http1.Closed, ConnectionError, ssl.SSLError, ValueError):
                return None
            if self.answer == ok() and head.body != b"{}" or b"UPSTREAM_" in head.body:
                self.local.append(repr(head.fields).encode() + head.body)
            return head

    def outputs(self, token=None):
        """Everything that keytrail has written, by its name."""
        sidecar = self.sidecar
        bearer_of = {"Authorization": f"Bearer {token}"} if token else {}
        wait_for(lambda: sidecar.metric("keytrail_sink_lag_events") == 0, "the sinks")
        out = {"metrics": sidecar.fetch("metrics", "/metrics"),
               "openmetrics": sidecar.fetch("metrics", "/metrics",
                                            Accept="application/openmetrics-text"),
               "status": sidecar.fetch("admin", "/status", **bearer_of),
               "routes": sidecar.fetch("admin", "/routes", **bearer_of),
               "events": sidecar.fetch("admin", "/events?limit=1000", **bearer_of),
               "readyz": sidecar.fetch("admin", "/readyz?verbose", **bearer_of)}
        out = {k: v.encode() for k, v in out.items()}
        out["error answers"] = b"\n".join(self.local)
        # While it runs, so that the mapped files are as a dump would find them, and after.
        for stage in ("running", "stopped"):
            for path in {p for p in sidecar.folder.rglob("*") if p.is_file()} - {sidecar.file}:
                with contextlib.suppress(FileNotFoundError):
                    out[f"{stage}: {path.relative_to(sidecar.folder)}"] = path.read_bytes()
            if stage == "running":
                sidecar.stop()
        out["sink"] = self.sink.read_bytes()
        out["stdout"] = sidecar.stdout_file.read_bytes()
        out["log"] = sidecar.stderr_file.read_bytes()
        return out


def spellings(text):
    """The canary as it is, and its insides in base64 at each alignment, in any case."""
    out = [text.lower().encode()]
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + text.encode())
        out.append(encoded[4:-4].lower())
    return out


def search(outputs, planted):
    found = []
    # Rings and segments are mostly room.
    lowered = {name: re.sub(rb"\0+", b"\0", data).lower() for name, data in outputs.items()}
    for label, text in planted.items():
        for name, data in lowered.items():
            if any(s in data for s in spellings(text)):
                found.append((label, name))
    return found


def test_the_search_finds_what_is_there():
    text = canary()
    for data in (text, text.upper(), base64.b64encode(f"a{text}b".encode()).decode(),
                 base64.b64encode(f"xy{text}".encode()).decode()):
        assert search({"x": f"..{data}..".encode()}, {"l": text}) == [("l", "x")]
    assert search({"x": canary().encode()}, {"l": text}) == []


def test_no_canary_of_a_client_is_anywhere(keytrail, raw_backend, tmp_path):
    watched = Watched(keytrail, raw_backend, tmp_path)
    planted = {}
    for label, make in REQUESTS.items():
        planted[label] = canary()
        watched.send(make(planted[label]))
    wait_for(lambda: len(watched.sidecar.events()) > len(REQUESTS) * 0.9,
             "the records: most requests leave one")
    assert len(watched.local) > 20, "many are answered by keytrail itself"
    assert search(watched.outputs(), planted) == []


def test_no_canary_of_the_key_service_is_anywhere(keytrail, raw_backend, tmp_path):
    watched = Watched(keytrail, raw_backend, tmp_path)
    planted = {}
    for label, make in ANSWERS.items():
        planted[label] = canary()
        watched.answer = make(planted[label])
        watched.send(get())
    assert len(watched.sidecar.wait_calls(len(ANSWERS))) == len(ANSWERS)
    assert search(watched.outputs(), planted) == []


# What fails, twice, while a canary passes; or the n-th allocation.
DISK = ("write *.jsonl EIO", "write *.jsonl ENOSPC", "write *.jsonl short", "sync *.jsonl EIO",
        "open *.jsonl EIO", "allocate *.jsonl ENOSPC")


class FailingDisk(Disk):
    def fail(self):
        self.set(f"{random.choice(DISK)} 1 2")

    def mend(self):
        self.clear()


class FailingMemory(Memory):
    def fail(self):
        self.set(random.randint(1, random.choice((4, 4000))), random.choice((1, 4, 1000)))

    def mend(self):
        self.set(0)


@pytest.mark.parametrize("make", [FailingDisk, pytest.param(FailingMemory, marks=pytest.mark.skipif(
    SANITIZED, reason="a sanitizer brings an allocator of its own"))])
def test_no_canary_is_anywhere_whatever_fails(keytrail, raw_backend, tmp_path, make):
    faults = make(tmp_path / "faults")
    watched = Watched(keytrail, raw_backend, tmp_path, environment=faults.environment)
    planted = {}

    def pass_by(label, make_request, make_answer):
        text = planted[label] = canary()
        watched.answer = make_answer(text)
        faults.fail()
        with contextlib.suppress(OSError, ssl.SSLError):  # the handshake may have failed
            watched.send(make_request(text))
        faults.mend()

    for label in random.sample(sorted(REQUESTS), 60):
        pass_by(f"request: {label}", REQUESTS[label], lambda _: ok())
    for label in random.sample(sorted(ANSWERS), 30):
        pass_by(f"answer: {label}", lambda _: get(), ANSWERS[label])
    wait_for(lambda: watched.sidecar.metric("keytrail_trail_writable") == 1, "the trail")
    assert watched.sidecar.metric("keytrail_trail_failures_total") + \
        watched.sidecar.metric("keytrail_out_of_memory_total") > 10
    assert search(watched.outputs(), planted) == []


def test_no_canary_of_a_handshake_is_anywhere(keytrail, raw_backend, tmp_path, pki):
    watched = Watched(keytrail, raw_backend, tmp_path)
    planted = {"SNI": canary(), "ALPN": canary(), "junk": canary()}
    context = pki.client()
    context.check_hostname = False
    with http1.Client(watched.sidecar.port, context, name=planted["SNI"] + ".example") as c:
        c.request("GET", "/api/v2/keys")
    context = pki.client()
    context.set_alpn_protocols([planted["ALPN"]])
    with pytest.raises((ssl.SSLError, ConnectionError)):
        http1.Client(watched.sidecar.port, context)
    with http1.Client(watched.sidecar.port) as c:
        c.send(planted["junk"] + "\r\n\r\n")
        c.rest()
    assert search(watched.outputs(), planted) == []


def test_no_canary_of_an_administrator_is_anywhere(keytrail, raw_backend, tmp_path):
    watched = Watched(keytrail, raw_backend, tmp_path)
    planted = {}
    for listener in ("metrics", "admin"):
        for place, make in {
                "path": lambda c: get(target=f"/{c}"),
                "query": lambda c: get(target=f"/metrics?x={c}"),
                "field": lambda c: get(f"X-A: {c}"),
                "token": lambda c: get(f"Authorization: Bearer {c}", target="/status"),
                "Host": lambda c: f"GET /status HTTP/1.1\r\nHost: {c}\r\n\r\n".encode(),
                "Origin": lambda c: get(f"Origin: https://{c}.example", target="/status"),
                "method": lambda c: get(method=c.upper()),
                "junk": lambda c: f"{c}\r\n\r\n".encode(),
        }.items():
            text = planted[f"{listener}: {place}"] = canary()
            with http1.Client(watched.sidecar.ports[listener]) as c:
                c.send(make(text).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
                try:
                    watched.local.append(c.rest())
                except TimeoutError:
                    pass
    assert search(watched.outputs(), planted) == []


def test_no_secret_of_the_configuration_is_anywhere(keytrail, raw_backend, tmp_path, signer, pki):
    """Nor in what the subcommands say of the file, good or wrong."""
    planted = {"token": canary(), "hmac_key": canary(), "environment": canary(),
               "sign": signer[0].read_text().strip().split("+", 4)[4],
               **{name: Path(pki[f"{name}.key"]).read_text().split("\n")[1]
                  for name in ("server", "client")}}
    for name, text in (("token", planted["token"]), ("key", planted["hmac_key"].ljust(32, "x"))):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    watched = Watched(
        keytrail, raw_backend, tmp_path, admin={"token": {"file": str(tmp_path / "token")}},
        upstream={"tls": {"certificate": pki["client.pem"], "key": pki["client.key"]}},
        audit={"sign": {"file": str(signer[0])}, "key_ids": "hmac", "identity_name": "hmac",
               "hmac_key": {"file": str(tmp_path / "key")}})
    sidecar = watched.sidecar
    watched.send(get(bearer(sub="x"), target=KEY))
    said = {}
    for name, over in (("good", {}), ("wrong", {"audit": {"heartbeat": "never"}}),
                       ("token of two lines", {"admin": {"token": {"file": str(sidecar.file)}}}),
                       ("a secret that is no file", {"admin": {"token": planted["token"]}}),
                       ("a key for a certificate", {"upstream": {"tls": {"ca": pki["client.key"]}}}),
                       ("an address of the environment", {"upstream": {"address": "${CANARY}"}})):
        file = tmp_path / "check.json"
        file.write_text(json.dumps(merge(sidecar.config, over)))
        for command in (["check", file], ["check", file, "--environment"], ["routes", file],
                        ["explain", file, "GET", KEY]):
            done = subprocess.run([KEYTRAIL, *command], stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, check=False,
                                  env={**os.environ, "CANARY": planted["environment"]})
            said[f"{name}: {command}"] = done.stdout
    sidecar.reload(admin={"token": planted["token"]})
    assert any(b"is good" in text for text in said.values())
    assert search(said, planted) == []
    assert search(watched.outputs(planted["token"]), planted) == []


# ---- inside the grammar ----

def places(value, text, path=""):
    """The members whose strings hold this text."""
    if isinstance(value, dict):
        return {p for k, v in value.items() for p in places(v, text, f"{path}.{k}".lstrip("."))}
    return {path} if isinstance(value, str) and text.lower() in value.lower() else set()


def test_what_may_be_recorded_is_in_its_member_alone(keytrail, raw_backend, tmp_path):
    watched = Watched(keytrail, raw_backend, tmp_path,
                      service={"region": "us-south"}, audit={"identity_name": "plain"})
    ids = {name: str(uuid.uuid4()) for name in ("correlation", "instance", "service")}
    account = os.urandom(16).hex()
    words = {name: canary() for name in ("ring", "agent", "iam", "authn", "sub")}
    watched.answer = ok(extra=f"Correlation-Id: {ids['service']}\r\n")
    watched.send(get(f"Correlation-Id: {ids['correlation']}", f"Bluemix-Instance: {ids['instance']}",
                     f"X-Kms-Key-Ring: {words['ring']}", f"User-Agent: {words['agent']}/1.0",
                     bearer(iam_id=f"IBMid-{words['iam']}", sub=words["sub"],
                            account={"bss": account},
                            authn={"iam_id": f"IBMid-{words['authn']}"}), target=KEY))
    event, = watched.sidecar.wait_calls(1)
    crns = {"logSourceCRN", "target.id"}
    assert places(event, ids["service"]) == {"correlationId", "responseHeader.content.correlationId"}
    assert places(event, ids["correlation"]) == set()
    assert places(event, ids["instance"]) == {"requestData.instanceId"} | crns
    assert places(event, account) == crns
    assert places(event, words["ring"]) == {"requestData.keyRingId"}
    assert places(event, words["agent"]) == {"initiator.host.agent"}
    assert places(event, words["iam"]) == {"initiator.id"}
    assert places(event, words["authn"]) == {"initiator.authnId"}
    assert places(event, words["sub"]) == {"initiator.name"}
    outputs = watched.outputs()
    for name in ("metrics", "openmetrics", "status", "readyz", "log", "error answers"):
        assert search({name: outputs[name]}, {**ids, **words, "account": account}) == []

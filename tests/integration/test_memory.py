"""What a live process still holds of a call when the call is over: nothing that was in it."""

import base64
import collections
import contextlib
import json
import os
import re
import signal
import ssl
import subprocess

import pytest

import http1
from backend import ok
from support import KEYTRAIL, SANITIZED, make_token, wait_for

pytestmark = pytest.mark.skipif(SANITIZED, reason="a sanitizer keeps freed memory as it was")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="root alone may read the process")

CANARY = re.compile(rb"cnry[0-9a-f]{16}q")
# Its base64 at each place of three bytes, by what stands before it where those are zeros.
ENCODED = {b"": rb"Y25ye[\w-]{23}", b"AG": rb"Nucn[\w-]{24}", b"AAB": rb"jbnJ5[\w-]{23}"}
IN_EVENTS = {"iam_id", "authn", "grant_type"}  # facts, or of the grammar of one: kept a while
BODY_SIZES = (1, 100, 5000)  # canaries: within a record, a buffer, and over many of both


def canary():
    return "cnry" + os.urandom(8).hex() + "q"


def writable(pid):
    """(name, bytes) of every mapping that the process can write to."""
    with open(f"/proc/{pid}/maps", encoding="ascii") as maps, open(f"/proc/{pid}/mem", "rb") as mem:
        for line in maps:
            span, access, _, _, _, *name = line.split(maxsplit=5)
            if "w" not in access or "r" not in access:
                continue
            low, high = (int(x, 16) for x in span.split("-"))
            mem.seek(low)
            yield (name[0].strip() if name else f"anonymous {span}"), mem.read(high - low)


def canaries(data):
    """As they are, and in base64url, as tokens have them."""
    yield from CANARY.findall(data)
    for before, pattern in ENCODED.items():
        for text in re.findall(pattern, data):
            yield from CANARY.findall(base64.urlsafe_b64decode(before + text + b"=" * (-len(before) % 4)))


def remains(sidecar, planted):
    """{(label, mapping): copies}, looked at while nothing moves."""
    found = collections.Counter()
    sidecar.signal(signal.SIGSTOP)
    try:
        for name, data in writable(sidecar.process.pid):
            for hit in canaries(data):
                if label := planted.get(hit.decode()):
                    found[label, name] += 1
    finally:
        sidecar.signal(signal.SIGCONT)
    return found


class Traffic:
    """Calls that hold a canary wherever one can be, in both directions."""

    def __init__(self, keytrail, raw_backend, **config):
        self.planted = {}
        self.backend = raw_backend(self.script, tls="upstream" not in config)
        self.sidecar = keytrail(self.backend, {"log": {"level": "trace"}, **config})

    def plant(self, label):
        text = canary()
        self.planted[text] = label
        return text

    def body(self, label, n):
        return json.dumps({"payload": [self.plant(label) for _ in range(n)]}).encode()

    def script(self, connection):
        while (request := connection.read_request()) is not None:
            n = int(request.get("X-Size"))
            body = self.body("answer's body", n)
            extra = (f"X-Answer: {self.plant('answer header')}\r\n"
                     f"Set-Cookie: {self.plant('Set-Cookie')}\r\n")
            if "chunked" not in request.target:
                connection.send(ok(body, extra, f"200 {self.plant('status text')}"))
                continue
            connection.send(f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{extra}\r\n"
                            f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\nX-T: "
                            + self.plant("answer's trailer").encode() + b"\r\n\r\n")

    def token(self):
        token = make_token(b"secret of nobody", scope=self.plant("claim"),
                           sub=self.plant("sub"), sub_type=self.plant("sub_type"),
                           account={"bss": self.plant("account")},
                           grant_type=self.plant("grant_type"),
                           iam_id=self.plant("iam_id"), authn={"iam_id": self.plant("authn")})
        return f"{token.rpartition('.')[0]}.{self.plant('signature')}"

    def fields(self, n):
        return {"Authorization": f"Bearer {self.token()}",
                "X-Any": self.plant("header"), "Cookie": self.plant("Cookie"), "X-Size": str(n)}

    def call(self, client, n, chunked):
        target = f"/api/v2/keys?search={self.plant('query')}" + ("&chunked" if chunked else "")
        fields = self.fields(n)
        if not chunked:
            client.request("POST", target, fields, self.body("body", n))
            return
        head = "".join(f"{k}: {v}\r\n" for k, v in fields.items())
        body = self.body("body", n)
        client.send(f"POST {target} HTTP/1.1\r\nHost: localhost\r\n"
                    f"Transfer-Encoding: chunked\r\n{head}\r\n{len(body):x}\r\n".encode() + body
                    + f"\r\n0\r\nX-T: {self.plant('trailer')}\r\n\r\n".encode())
        client.read_body(client.read_head(), "POST")

    def opaque(self, client):
        client.request("GET", "/api/v2/keys", {
            "Authorization": f"Bearer {self.plant('token')}", "X-Size": "1"})

    def run(self, client):
        for n in BODY_SIZES:
            for chunked in (False, True):
                self.call(client, n, chunked)
        self.opaque(client)


def settle(sidecar):
    wait_for(lambda: sidecar.metric("keytrail_requests_in_flight") == 0, "the end of the calls")


def wait_forgotten(traffic, but=frozenset()):
    """What a connection held is wiped at the end of the turn in which that connection ended."""
    found = None

    def is_forgotten():
        nonlocal found
        found = remains(traffic.sidecar, traffic.planted)
        return {label for label, _ in found} <= but
    with contextlib.suppress(AssertionError):
        return wait_for(is_forgotten, "nothing to remain")
    raise AssertionError(f"still in memory: {found}")


PLAIN = {"upstream": {"tls": None}, "listen": {"tls": None}}
TRANSPORTS = {"TLS 1.3": ssl.TLSVersion.TLSv1_3, "TLS 1.2": ssl.TLSVersion.TLSv1_2, "plain": None}


@as_root
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_nothing_of_a_call_stays_in_memory(keytrail, raw_backend, pki, transport):
    """Idle connections on both sides stay open meanwhile, others have been closed."""
    version = TRANSPORTS[transport]
    traffic = Traffic(keytrail, raw_backend, **({} if version else PLAIN))
    sidecar = traffic.sidecar
    context = pki.client(version=version) if version else None
    clients = [http1.Client(sidecar.port, context) for _ in range(6)]
    for client in clients:
        traffic.run(client)
    for client in clients[::2]:
        client.close()
    settle(sidecar)
    assert len(traffic.planted) > 1000
    wait_forgotten(traffic, IN_EVENTS)
    for client in clients[1::2]:
        client.close()


# What comes to a bad end; @ is a canary, of 21 bytes.
BAD_REQUESTS = {
    "malformed field": "GET /?q=@ HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer @\r\nX @: @\r\n\r\n",
    "malformed line": "GET /?q=@ HTTP/1.1 @\r\nX-A: @\r\n\r\n",
    "long head": "GET / HTTP/1.1\r\nHost: a\r\nCookie: @\r\n" + "X-Any: @\r\n" * 3000 + "\r\n",
    "long target": f"GET /?q=@&{'x' * 20000} HTTP/1.1\r\nHost: a\r\nX-A: @\r\n\r\n",
    "large body": "POST /api/v2/keys HTTP/1.1\r\nHost: a\r\nX-A: @\r\nContent-Length: 99999999\r\n\r\n@@@",
    "bad chunk": "POST /api/v2/keys HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nX-A: @\r\n\r\n"
                 "15\r\n@\r\n;@\r\n",
    "bad trailer": "POST /api/v2/keys HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nX-A: @\r\n\r\n"
                   "0\r\nHost: @\r\n\r\n",
    "override": "GET /api/v2/keys HTTP/1.1\r\nHost: a\r\nX-HTTP-Method-Override: @\r\n\r\n",
    "rest after the last": "GET /nobody HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-A: @\r\n\r\n"
                           "GET /?q=@ HTTP/1.1\r\nX-A: @\r\n\r\n",
    "cut in the head": "GET /?q=@ HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer @",
    "cut in the body": "POST /api/v2/keys HTTP/1.1\r\nHost: a\r\nX-A: @\r\nContent-Length: 1000\r\n\r\n@@",
}
BAD_ANSWERS = {
    "malformed field": "HTTP/1.1 200 OK\r\nX @: @\r\nContent-Length: 1\r\n\r\n@",
    "two framings": "HTTP/1.1 200 OK\r\nX-A: @\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n@",
    "leads elsewhere": "HTTP/1.1 302 Found\r\nLocation: https://elsewhere.example/?@\r\nContent-Length: 0\r\n\r\n",
    "upgrade": "HTTP/1.1 101 @\r\nUpgrade: @\r\n\r\n@@@",
    "interim": "HTTP/1.1 103 @\r\nLink: @\r\n\r\n" * 50,
    "cut in the head": "HTTP/1.1 200 OK\r\nX-A: @",
    "cut in the body": "HTTP/1.1 200 OK\r\nX-A: @\r\nContent-Length: 1000\r\n\r\n@@@",
    "bad chunk": "HTTP/1.1 200 OK\r\nX-A: @\r\nTransfer-Encoding: chunked\r\n\r\n15\r\n@\r\n@\r\n",
    "bytes behind": "HTTP/1.1 200 OK\r\nX-A: @\r\nContent-Length: 21\r\n\r\n@@HTTP/1.1 200 @\r\n\r\n",
    "early": "HTTP/1.1 401 Unauthorized\r\nX-A: @\r\nContent-Length: 21\r\n\r\n@",
}


class Wreckage:
    """Exchanges that go wrong, with canaries in all that is said."""

    def __init__(self, keytrail, raw_backend, **config):
        self.planted = {}
        self.answer = None
        self.backend = raw_backend(self.script, tls="upstream" not in config)
        self.sidecar = keytrail(self.backend, {"log": {"level": "trace"}, **config})

    def fill(self, label, text):
        """With a new canary in each place."""
        def plant(_):
            new = canary()
            self.planted[new] = label
            return new
        return re.sub("@", plant, text).encode()

    def script(self, connection):
        connection.read_head()
        connection.send(self.fill(f"answer: {self.answer}", BAD_ANSWERS[self.answer]))

    def send(self, context, label, text):
        with contextlib.suppress(http1.Closed, OSError), http1.Client(self.sidecar.port, context) as c:
            c.send(self.fill(label, text))
            if "cut" not in label:
                c.read_response()


@as_root
@pytest.mark.parametrize("transport", ["TLS 1.3", "plain"])
def test_nothing_of_a_call_that_came_to_a_bad_end_stays_in_memory(keytrail, raw_backend, pki, transport):
    wreckage = Wreckage(keytrail, raw_backend, **(PLAIN if transport == "plain" else {}))
    context = None if transport == "plain" else pki.client()
    for name, text in BAD_REQUESTS.items():
        wreckage.answer = "early"
        wreckage.send(context, f"request: {name}", text)
    for name in BAD_ANSWERS:
        wreckage.answer = name
        wreckage.send(context, f"request: {name} answer", "POST /api/v2/keys HTTP/1.1\r\nHost: a\r\n"
                      "Authorization: Bearer @\r\nContent-Length: 21\r\n\r\n@")
    settle(wreckage.sidecar)
    reasons = {e["reason"].get("reasonForFailure") or e["reason"]["reasonType"]
               for e in wreckage.sidecar.calls() if e["outcome"] != "success"}
    assert reasons >= {"bad_chunk", "bad_trailer", "foreign_location", "malformed_answer",
                       "method_override"}, reasons
    assert len(wreckage.planted) > 3000
    wait_forgotten(wreckage)


@as_root
def test_the_search_finds_what_the_process_holds(keytrail, raw_backend):
    """A request that waits for its end is in memory, with the claims of its token."""
    traffic = Traffic(keytrail, raw_backend)
    wanted = {"open head", "signature", "claim", "sub", "account", "iam_id"}
    with traffic.sidecar.client() as client:
        client.send(f"GET /api/v2/keys HTTP/1.1\r\nX-Any: {traffic.plant('open head')}\r\n"
                    f"Authorization: Bearer {traffic.token()}")
        wait_for(lambda: wanted <= {label for label, _ in remains(traffic.sidecar, traffic.planted)},
                 "the open head")


def test_the_search_finds_what_is_in_base64():
    for shift in range(3):
        text = f"{'x' * shift}{canary()}".encode()
        encoded = base64.urlsafe_b64encode(text + b"more")
        assert list(canaries(b".." + encoded + b"..")) == [text[shift:]]


# ---- what keeps others from looking ----

# Root without a capability is any user.
UNPRIVILEGED = (["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else [])


def may_look(pid):
    return subprocess.run([*UNPRIVILEGED, "head", "-c1", f"/proc/{pid}/environ"],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          check=False).returncode == 0


def test_its_own_user_cannot_look_into_the_process(keytrail, tmp_path):
    sidecar = keytrail(start=False)
    sidecar.program = tmp_path / "unprivileged"
    sidecar.program.write_text(f'#!/bin/sh\nexec {" ".join(UNPRIVILEGED)} {KEYTRAIL} "$@"\n')
    sidecar.program.chmod(0o755)
    sidecar.start()
    assert not may_look(sidecar.process.pid)
    with subprocess.Popen([*UNPRIVILEGED, "sleep", "60"]) as other:
        wait_for(lambda: may_look(other.pid), "another process of that user")
        other.kill()


def test_a_crash_leaves_no_core_and_privileges_are_not_gained(keytrail):
    pid = keytrail().process.pid
    with open(f"/proc/{pid}/limits", encoding="ascii") as f:
        core, = (line for line in f if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        assert "NoNewPrivs:\t1\n" in f.readlines()

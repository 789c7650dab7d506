"""No secret in any output, whatever the reason for which keytrail answers a request itself.

Each row of the table of refusals is provoked by a request that holds a canary in every place, or by
a key service whose answer does; a refusal that is added without a row here fails.
"""

import contextlib
import json
import re
import ssl
import subprocess

import pytest

import http1
from backend import ok
from faults import STALL, Memory
from support import KEYTRAIL, SANITIZED, make_token, wait_for
from test_canary import KEY, Watched, canary, chunked, get, search

REFERENCE = subprocess.run([KEYTRAIL, "reference", "refusals"], check=True, text=True,
                           stdout=subprocess.PIPE).stdout
CODES = re.findall(r"^\| \d+ \| `([A-Z_]+)` \|", REFERENCE, re.M)


class Secrets:
    """Canaries, by the place where each was put."""

    def __init__(self):
        self.planted = {}

    def __call__(self, place):
        return self.planted.setdefault(place, canary())

    def fields(self):
        """The fields of a request that carry what nobody may read."""
        return [f"Authorization: Bearer {make_token(self('a key').encode(), scope=self('a claim'))}",
                f"Cookie: {self('Cookie')}", f"X-Any: {self('a field')}",
                f"{self('a name')}: 1", f"User-Agent: curl/7 ({self('User-Agent')})"]

    def query(self):
        return f"search={self('a query')}"

    def body(self):
        return json.dumps({"payload": self("a body")}).encode()

    def answer(self, status="200 OK", extra=""):
        return ok(json.dumps({"plaintext": self("an answer's body")}), status=status, extra=(
            f"X-Answer: {self('an answer')}\r\nSet-Cookie: {self('Set-Cookie')}\r\n"
            f"Correlation-Id: {self('a correlation ID')}\r\n{extra}"))


def with_secrets(*fields, target="/api/v2/keys", method="POST", version="HTTP/1.1"):
    """A request that is refused for what is given."""
    def make(s):
        mark = "&" if "?" in target else "?"
        return get(f"Content-Length: {len(s.body())}", *s.fields(), *fields, method=method,
                   target=target + mark + s.query(), version=version, body=s.body())
    return make


def without_length(*fields):
    return lambda s: get(*s.fields(), *fields, method="POST", target=f"/api/v2/keys?{s.query()}",
                         body=s.body())


def in_chunks(body):
    return lambda s: chunked(body(s), *s.fields())


PLAIN = with_secrets()

# What a client sends to be refused for it: (request) or (request, configuration).
OF_CLIENTS = {
    "BAD_REQUEST_LINE": (lambda s: f"GET  /?{s.query()} HTTP/1.1\r\n\r\n".encode(),),
    "BAD_METHOD": (lambda s: get(*s.fields(), method=s("a method").upper()),),
    "BAD_VERSION": (with_secrets(version="HTTP/1.2"),),
    "BAD_LINE_END": (lambda s: f"GET /?{s.query()} HTTP/1.1\nCookie: {s('Cookie')}\n\n".encode(),),
    "BAD_HEADER": (lambda s: get(*s.fields(), f"{s('a bad field')} : {s('its value')}"),),
    "OBS_FOLD": (lambda s: get(*s.fields(), "X-A: b", f" {s('a folded line')}"),),
    "BAD_HOST": (lambda s: get(*s.fields(), f"Host: {s('another Host')}"),),
    "BAD_CONTENT_LENGTH": (without_length("Content-Length: +1"),),
    "BAD_TRANSFER_ENCODING": (without_length("Transfer-Encoding: gzip, chunked"),),
    "BAD_FRAMING": (with_secrets("Transfer-Encoding: chunked"),),
    "BAD_CHUNK": (in_chunks(lambda s: f"{s('a size')}\r\n{s('a body')}\r\n"),),
    "BAD_TRAILER": (in_chunks(lambda s: "0\r\nAuthorization: Bearer "
                                        f"{s('a trailer')}\r\n\r\n"),),
    "BAD_CONNECTION": (with_secrets("Connection: Authorization"),),
    "BAD_EXPECT": (lambda s: get(*s.fields(), f"Expect: {s('Expect')}"),),
    "UPGRADE": (lambda s: get(*s.fields(), "Connection: upgrade", f"Upgrade: {s('Upgrade')}"),),
    "METHOD_NOT_ALLOWED": (with_secrets(method="TRACE"),),
    "ALIAS_HEADER": (lambda s: get(*s.fields(), f"Bluemix_Instance: {s('an alias')}"),),
    "REPEATED_HEADER": (lambda s: get(*s.fields(), f"Authorization: Bearer {s('a second')}"),),
    "METHOD_OVERRIDE": (lambda s: get(*s.fields(), f"X-Original-URL: /{s('an override')}"),),
    "BAD_TARGET": (with_secrets(target="/api/v2/keys/%zz"),),
    "AMBIGUOUS_PATH": (lambda s: get(*s.fields(), target=f"/api/v2/{s('a segment')}/../keys"),),
    "AMBIGUOUS_QUERY": (with_secrets(target=f"{KEY}?action=wrap&action=unwrap"),),
    "AMBIGUOUS_HEADER": (
        lambda s: get(*s.fields(), f"X-Mode: {s('a discriminator')}", target="/x"),
        {"routes": [{"action": "a.b", "method": "GET", "path": "/x", "header": {"X-Mode": "b"}}]}),
    "AMBIGUOUS_BODY": (with_secrets("Content-Type: application/x-www-form-urlencoded",
                                    target=f"{KEY}?action=wrap"),),
    "UNEXPECTED_BODY": (lambda s: get(*s.fields(), "Content-Length: 9") + s("a body").encode(),),
    "DENIED": (lambda s: get(*s.fields(), target=f"/{s('a path')}"),
               {"audit": {"unmatched": "deny"}}),
    "HEAD_TOO_LARGE": (with_secrets("X-Long: " + "x" * 40000),),
    "TARGET_TOO_LONG": (with_secrets(target="/api/v2/keys?x=" + "x" * 9000),),
    "BODY_TOO_LARGE": (PLAIN, {"limits": {"body": 10}}),
    "REQUEST_TIMEOUT": (lambda s: PLAIN(s)[:-60], {"timeouts": {"head": "1s"}}),
}


def closes(connection, s):
    del s
    connection.read_request()
    connection.close()


def never_answers(connection, s):
    del s
    connection.read_request()
    connection.rest()


def answers(make):
    def script(connection, s):
        connection.read_request()
        connection.send(make(s))
        connection.rest()
    return script


# What the key service does to be the reason: (script, configuration).
OF_THE_KEY_SERVICE = {
    "UPSTREAM_BROKEN": (closes, {}),
    "UPSTREAM_MALFORMED": (answers(lambda s: s.answer(extra="Content-Length: 1\r\n")), {}),
    "UPSTREAM_REDIRECT": (answers(lambda s: s.answer("302 Found", "Location: https://"
                                                     f"{s('Location')}.example/\r\n")), {}),
    "UPSTREAM_TIMEOUT": (never_answers, {"timeouts": {"answer": "1s"}}),
}


class World:
    """One sidecar, watched, and the canaries that it meets."""

    def __init__(self, request):
        self.use = request.getfixturevalue
        self.secrets = Secrets()
        self.watched = None

    def start(self, script=None, environment=None, backend=None, **config):
        def serve(connection):
            if script is not None:
                script(connection, self.secrets)
                return
            while connection.read_request() is not None:
                connection.send(self.secrets.answer())
        make = self.use("raw_backend")
        self.watched = Watched(self.use("keytrail"), lambda _: make(serve, **(backend or {})),
                               self.use("tmp_path"), environment=environment, **config)
        return self.watched

    def ask(self, make=PLAIN, **options):
        """On a new connection."""
        with self.watched.sidecar.client(**options) as c:
            return self.ask_on(c, make)

    def ask_on(self, client, make=PLAIN):
        client.send(make(self.secrets))
        return self.code_of(client.read_response())

    def code_of(self, r):
        """None where the answer is the key service's."""
        if r.status < 400 or r.get("X-Answer"):
            return None
        self.watched.local.append(repr(r.fields).encode() + r.body)
        return json.loads(r.body)["resources"][0]["reasons"][0]["code"]

    def ask_until(self, code):
        return wait_for(lambda: self.ask() == code, code)


def too_many_requests(world):
    world.start(limits={"rate": 1})
    world.ask_until("TOO_MANY_REQUESTS")


def misdirected(world):
    pki = world.use("pki")
    name = pki.issue("canary-a", dns="a.example")
    pair = {"certificate": pki[f"{name}.pem"], "key": pki[f"{name}.key"]}
    world.start(listen={"tls": {"certificates": [pair]}})
    assert world.ask(name="a.example") == "MISDIRECTED"


def unreachable(world):
    world.start(upstream={"address": f"127.0.0.1:{world.use('dead_port')()}"})
    assert world.ask() == "UPSTREAM_UNREACHABLE"


def untrusted(world):
    pki = world.use("pki")
    stranger = pki.issue("canary-stranger", dns=f"{world.secrets('a stranger')}.example")
    world.start(backend={"context": pki.server(stranger)})
    assert world.ask() == "UPSTREAM_UNTRUSTED"


def busy(world):
    world.start(never_answers, upstream={"pool": {"max": 1}}, workers=1,
                timeouts={"connect": "2s"})
    with world.watched.sidecar.client() as first:
        first.send(PLAIN(world.secrets))
        world.watched.backend.wait(lambda b: b.requests)
        assert world.ask() == "UPSTREAM_BUSY"


def with_disk(world, *rules, again=False):
    disk = world.use("disk")
    world.start(environment=disk.environment, workers=1)
    if again:
        world.watched.sidecar.kill()
    disk.set(*rules)
    if again:
        world.watched.sidecar.start()
    return disk


def trail_full(world):
    disk = with_disk(world, "allocate *.jsonl ENOSPC", again=True)
    assert world.ask() == "TRAIL_FULL"
    disk.clear()
    wait_for(lambda: world.ask() is None, "it to serve again")


def trail_failed(world):
    disk = with_disk(world, "write *.jsonl ENOSPC", again=True)
    assert world.ask() == "TRAIL_FAILED"
    disk.clear()
    wait_for(lambda: world.ask() is None, "it to serve again")


def trail_slow(world):
    disk = with_disk(world, STALL)
    assert world.ask(lambda s: get(*s.fields(), target=f"{KEY}?{s.query()}",
                                   method="DELETE")) == "TRAIL_SLOW"
    disk.clear()


def out_of_memory(world):
    """The n-th allocation of a call that needs a connection to the key service fails."""
    def answers_once(connection, s):
        connection.read_request()
        connection.send(s.answer(extra="Connection: close\r\n"))

    memory = Memory(world.use("tmp_path") / "memory")
    world.start(answers_once, environment=memory.environment, workers=1)
    codes = set()
    for n in range(1, 30):
        with world.watched.sidecar.client() as c, \
                contextlib.suppress(http1.Closed, ConnectionError, ssl.SSLError):
            codes.add(world.ask_on(c))
            memory.set(n)
            codes.add(world.ask_on(c))
        memory.set(0)
    assert {None, "OUT_OF_MEMORY"} <= codes


def after_close(world):
    """What comes too late is not answered, so what comes before it is."""
    def last_and_more(s):
        return OF_CLIENTS["AMBIGUOUS_PATH"][0](s).replace(b"\r\n", b"\r\nConnection: close\r\n", 1) + PLAIN(s)
    world.start()
    assert world.ask(last_and_more) == "AMBIGUOUS_PATH"


def half(s):
    """A request that waits for the rest of its body."""
    return PLAIN(s)[:-9]


def arrives(world, client):
    client.send(half(world.secrets))
    wait_for(lambda: world.watched.sidecar.metric("keytrail_requests_in_flight") == 1, "the request")


def client_gone(world):
    """Who has gone is not answered, so another one is before."""
    world.start()
    assert world.ask(OF_CLIENTS["AMBIGUOUS_PATH"][0]) == "AMBIGUOUS_PATH"
    with world.watched.sidecar.client() as c:
        arrives(world, c)


def shutdown(world):
    world.start(timeouts={"drain": "1s"})
    assert world.ask(OF_CLIENTS["AMBIGUOUS_PATH"][0]) == "AMBIGUOUS_PATH"
    with world.watched.sidecar.client() as c:
        arrives(world, c)
        world.watched.sidecar.stop()
    world.watched.sidecar.start()


def changed(world):
    world.start()
    with world.watched.sidecar.client() as c:
        arrives(world, c)
        world.watched.sidecar.reload(upstream={"host": "another.example"})
        c.send(PLAIN(world.secrets)[-9:])
        assert world.code_of(c.read_response()) == "UPSTREAM_CHANGED"


def lifetime(world):
    world.start(timeouts={"body": "1s", "lifetime": "1s"}, limits={"body_rate": 1})
    assert world.ask(half) == "LIFETIME"


OF_OURSELVES = {"AFTER_CLOSE": after_close, "CLIENT_GONE": client_gone, "SHUTDOWN": shutdown,
                "UPSTREAM_CHANGED": changed, "LIFETIME": lifetime, "TOO_MANY_REQUESTS": too_many_requests, "MISDIRECTED": misdirected,
                "UPSTREAM_UNREACHABLE": unreachable, "UPSTREAM_UNTRUSTED": untrusted,
                "UPSTREAM_BUSY": busy, "TRAIL_FULL": trail_full, "TRAIL_FAILED": trail_failed,
                "TRAIL_SLOW": trail_slow, "OUT_OF_MEMORY": out_of_memory}


def provoke(world, code):
    if code in OF_CLIENTS:
        make, *config = OF_CLIENTS[code]
        world.start(**(config[0] if config else {}))
        assert world.ask(make) == code
    elif code in OF_THE_KEY_SERVICE:
        script, config = OF_THE_KEY_SERVICE[code]
        world.start(script, **config)
        assert world.ask() == code
    else:
        OF_OURSELVES[code](world)


def test_there_are_refusals():
    assert len(CODES) > 40 and len(set(CODES)) == len(CODES)


@pytest.mark.parametrize("code", CODES)
def test_no_refusal_tells_a_secret(request, code):
    if SANITIZED and code == "OUT_OF_MEMORY":
        pytest.skip("a sanitizer brings an allocator of its own")
    world = World(request)
    provoke(world, code)
    sidecar = world.watched.sidecar
    wait_for(lambda: [e for e in sidecar.events() if code.lower() in json.dumps(e)]
             or code.startswith("UPSTREAM_") and sidecar.calls(), "the record")
    assert world.watched.local and world.secrets.planted
    assert search(world.watched.outputs(), world.secrets.planted) == []

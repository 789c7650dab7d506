"""Runs cases through a live keytrail between clients and a recording back end, and has them judged.

Every client has an address of its own in 127/8, which keytrail writes into X-Forwarded-For and into
the trail: that tells what belongs together, whatever became of the bytes.
"""

import asyncio
import collections
import contextlib
import itertools
import json
import random
import re
import socket
import time

import channel
import strict
import support
import verdict

CONCURRENCY = 32
PATIENCE = 60 if support.SANITIZED else 30
TLS = {"workers": 2, "audit": {"ring_size": 4194304, "segment_size": 67108864},
       "limits": {"connections": 1000, "refusals": 0}}
HEADERS = support.ROOT / "tests" / "wire" / "headers.json"
PLAIN = {**TLS, "listen": {"tls": None}, "upstream": {"tls": None}}


class Proxy(collections.namedtuple("Proxy", "tls trusts passes headers", defaults=[False] * 4)):
    """How the keytrail stands that cases run through: with TLS on both sides; trusting its clients to
    say whence a request came; passing on the host that they name; with routes that headers tell
    apart, and overrides that are named."""

    def config(self):
        config = TLS if self.tls else PLAIN
        if self.trusts:
            config = {**config, "trusted_networks": [str(verdict.TRUSTED)]}
        if self.headers:
            config = {**config, "include": [str(HEADERS)]}
        return support.merge(config, {"upstream": {"host": "pass"}}) if self.passes else config

    def routes(self):
        return verdict.Routes(HEADERS if self.headers else support.ROUTES)

    def __str__(self):
        return " ".join(what for what, so in self._asdict().items() if so) or "plain"


PROXIES = [Proxy(*how) for how in itertools.product([False, True], repeat=3)]
PROXIES += [Proxy(tls, headers=True) for tls in (False, True)]


def address_of(number):
    n = number + 1
    return f"127.{10 + (n >> 16)}.{n >> 8 & 255}.{n & 255}"


def client_of(request):
    """The last hop before keytrail."""
    return (request.get(b"x-forwarded-for") or b"").rpartition(b",")[2].strip().decode("latin-1")


class Seen:
    """What there is to know of one case after its run."""

    def __init__(self):
        self.requests = []  # at the back end, in order
        self.client = b""   # what came back
        self.end = "never"  # of the client's connection
        self.events = []    # of the trail, in order, but for those
        self.late = []      # of what came after the last request
        self.faults = []    # what the back end could not read
        self.sent = 0       # segments, by either side


class Backend:
    """Keeps what it reads, by client; answers each whole request, by default with 200 and an id."""

    def __init__(self, context=None, correlation=b"correlation-id"):
        self.context, self.correlation = context, correlation
        self.seen = collections.defaultdict(Seen)
        self.faults = []
        self.answered = 0
        self.script = {}  # client's address: function(request) -> (segments, what to do then)
        self.hidden = 0

    async def start(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, backlog=1000)
        self.port = self.server.sockets[0].getsockname()[1]
        self.host = b"%s:%d" % (b"localhost" if self.context else b"127.0.0.1", self.port)
        return self

    def whose(self, request):
        return self.seen[client_of(request)]

    def note(self, stream, known):
        """Heads that are new; how many are known then."""
        for request in stream.messages[known:]:
            request.id = ""
            self.whose(request).requests.append(request)
        return len(stream.messages)

    def ok(self, request):
        self.answered += 1
        request.id = f"00000000-0000-4000-8000-{self.answered:012x}"
        body = b"" if request.method == b"HEAD" else b"for %s" % client_of(request).encode("latin-1")
        return (b"HTTP/1.1 200 OK\r\n%s: %s\r\nContent-Length: %d\r\n\r\n%s"
                % (self.correlation, request.id.encode(), len(body), body))

    async def serve(self, reader, writer):
        stream, known = strict.Stream(), 0
        raw = b""
        try:
            peer = await channel.over(reader, writer, self.context, server_side=True)
            while data := await peer.read():
                raw += data
                whole = stream.feed(data)
                known = self.note(stream, known)
                for request in whole:
                    if not await self.answer(request, peer):
                        await self.watch_end(request, peer)
                        return
                if stream.open is None:
                    stream.messages, known, raw = [], 0, stream.data
        except strict.Malformed as e:
            self.note(stream, known)
            self.faults.append(f"{e}: {raw[-3000:]!r}")
        except OSError:
            pass
        finally:
            writer.close()

    async def answer(self, request, peer):
        """False: this connection may carry no more."""
        script = self.script.get(client_of(request))
        if script is None or request.get(b"x-turn") != b"1":
            await peer.write(self.ok(request))
            return True
        parts, then = script
        seen = self.whose(request)
        for part in parts:
            seen.sent += 1
            await peer.write(part, then == "watch")
            if len(parts) > 1:
                await asyncio.sleep(channel.PAUSE)
        if then not in ("keep", "watch"):
            await peer.end(then)
        return then == "keep"

    async def watch_end(self, request, peer):
        """After an answer that spoils the connection nothing may come on it but its end."""
        try:
            data = await asyncio.wait_for(peer.read(), PATIENCE)
        except OSError:
            data = b""
        except asyncio.TimeoutError:
            data = b"nothing, and the connection was left open"
        if data:
            self.whose(request).faults.append(f"after an answer that is bad: {data[:200]!r}")


async def open_client(sock, port, context):
    loop = asyncio.get_running_loop()
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    await loop.sock_connect(sock, ("127.0.0.1", port))
    sides = (lambda: loop.sock_recv(sock, 65536), lambda data: loop.sock_sendall(sock, data),
             lambda: sock.shutdown(socket.SHUT_WR))
    if context is None:
        return channel.Plain(*sides)
    tls = channel.Tls(*sides, context, server_hostname="localhost")
    await tls.handshake()
    return tls


async def read_patiently(peer, seen):
    """Hundreds of segments may take their time: only who gets nothing when nothing is sent hangs."""
    reading, sent = asyncio.ensure_future(peer.read()), -1
    while not reading.done() and sent != seen.sent:
        sent = seen.sent
        await asyncio.wait([reading], timeout=PATIENCE)
    if reading.done():
        return reading.result()
    reading.cancel()
    raise asyncio.TimeoutError


async def converse(port, address, parts, seen, context=None):
    """A client that sends the segments, ends its side and reads to the end."""
    end = random.Random(b"".join(parts)).choice(["close", "notify"])
    with socket.socket() as sock:
        sock.bind((address, 0))
        try:
            peer = await open_client(sock, port, context)

            async def send():
                with contextlib.suppress(OSError):
                    for part in parts:
                        seen.sent += 1
                        await peer.write(part)
                        if len(parts) > 1:
                            await asyncio.sleep(channel.PAUSE)
                    await peer.end(end)

            sender = asyncio.ensure_future(send())
            try:
                while data := await read_patiently(peer, seen):
                    seen.client += data
                seen.end = "closed"
            finally:
                sender.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await sender
        except asyncio.TimeoutError:
            seen.end = "hangs"
        except OSError:
            seen.end = "reset"


async def run_all(backend, port, cases, context=None):
    """cases: the segments of each client."""
    gate = asyncio.Semaphore(CONCURRENCY)

    async def one(number, parts):
        address = address_of(number)
        async with gate:
            await converse(port, address, parts, backend.seen[address], context)

    await asyncio.gather(*(one(n, parts) for n, parts in enumerate(cases)))


# ---- what a back end answers, and who asks for it ----------------------------------------------


def answer_script(method, parts, tls=False):
    """(segments, what the back end does then, the final answer, is it understood, interim ones).  What
    follows an answer comes with it: later it would be taken for the next one's."""
    data = b"".join(parts)
    direct, wrong = strict.read_all(data, [method])
    final = next((m for m in direct.messages if m.status >= 200), None)
    interim = [m.status for m in direct.messages[:direct.messages.index(final) if final else None]]
    few = len(interim) <= verdict.INTERIM_MAX
    end = random.Random(data).choice(["close", "notify", "cut"]) if tls else "close"
    if wrong is None and direct.state == "rest":
        return parts, end, final, few and end != "cut", interim
    clean = wrong is None and final is not None and final.whole and not direct.data
    if clean and final.keeps():
        return parts, "keep", final, few, interim
    if wrong is None and (final is None or not final.whole):
        return parts, end, final, False, interim
    return [data], "watch", final, few and final is not None and final.whole, interim


def answer_request(method):
    body = b"Content-Length: 2\r\n\r\n{}" if method in (b"POST", b"DELETE") else b"\r\n"
    return [b"%s /api/v2/keys HTTP/1.1\r\nHost: localhost\r\nX-Turn: 1\r\n%s"
            b"GET /api/v2/keys HTTP/1.1\r\nHost: localhost\r\nX-Turn: 2\r\n\r\n" % (method, body)]


# ---- a whole run --------------------------------------------------------------------------------


class Result:
    def __init__(self):
        self.counts = collections.Counter()
        self.faults = []  # (number of the case, what)
        self.seconds = 0.0

    def add(self, number, what, faults):
        self.counts.update(what)
        self.faults += [(number, fault) for fault in faults]

    def count(self, word):
        return sum(fault.startswith(word) for _, fault in self.faults)

    def __str__(self):
        counts = ", ".join(f"{n} {what}" for what, n in self.counts.items())
        return (f"{counts}; non-canonical {self.count('non-canonical')}, "
                f"hidden {self.count('hidden')}, differences {self.count('difference')}, "
                f"faults {len(self.faults)} "
                f"({self.seconds:.0f} s)")


class Port:
    """What support.Keytrail wants to know of a back end."""

    def __init__(self, port):
        self.port = port


def gather(sidecar, seen):
    """The trail at rest, by the client's address."""
    for event in sidecar.events():
        host = event.get("initiator", {}).get("host", {})
        address = host.get("peer") or host.get("address")
        if address in seen and "kind" not in event:
            (seen[address].late if verdict.is_late(event) else seen[address].events).append(event)


def run(folder, pki, cases, answers=False, proxy=Proxy()):
    """Run cases (segments of requests; (method, segments) of answers) through a fresh sidecar."""
    result, routes = Result(), proxy.routes()
    begin = time.monotonic()

    async def drive():
        backend = await Backend(pki.server() if proxy.tls else None, routes.correlation).start()
        sidecar = support.Keytrail(folder, pki, Port(backend.port), proxy.config()).start()
        try:
            requests = cases
            if answers:
                scripts = [answer_script(*case, proxy.tls) for case in cases]
                backend.script = {address_of(n): s[:2] for n, s in enumerate(scripts)}
                requests = [answer_request(method) for method, _ in cases]
            await run_all(backend, sidecar.port, requests, pki.client() if proxy.tls else None)
        finally:
            await asyncio.to_thread(sidecar.finish)
            backend.server.close()
        # The back end's ends of the connections have yet to be read.
        await asyncio.sleep(0.05)
        gather(sidecar, backend.seen)
        return backend, scripts if answers else None

    backend, scripts = asyncio.run(drive())
    for number, case in enumerate(cases):
        address = address_of(number)
        seen = backend.seen[address]
        if answers:
            result.add(number, *verdict.judge_answer(address, case[0], scripts[number], seen,
                                                     routes.correlation))
        else:
            way = verdict.Way(address.encode(), backend.host, *proxy[:3], routes.correlation)
            result.add(number, *verdict.judge_request(case, seen, routes, way))
    known = {address_of(number) for number in range(len(cases))}
    for address in backend.seen.keys() - known:
        result.faults.append((None, f"hidden: {backend.seen[address].requests} of {address!r}"))
    result.faults += [(None, f"non-canonical: {fault}") for fault in backend.faults]
    result.counts["cases"] = len(cases)
    result.seconds = time.monotonic() - begin
    return result


# ---- shrinking ----------------------------------------------------------------------------------


def smaller(parts):
    """Variants of a case that are a little smaller."""
    if len(parts) > 1:
        yield [b"".join(parts)]
        return
    data = parts[0]
    lines = re.findall(rb"[^\n]*\n|[^\n]+", data)
    for i in range(len(lines)):
        yield [b"".join(lines[:i] + lines[i + 1:])]
    size = max(1, len(data) // 8)
    for at in range(0, len(data), size):
        yield [data[:at] + data[at + size:]]


def shrink(run_again, parts, rounds=12):
    """The smallest variant that still fails; run_again(list of segments) -> numbers that fail."""
    for _ in range(rounds):
        variants = [v for v in smaller(parts) if v != parts and any(v)]
        failing = run_again(variants)
        if not failing:
            break
        parts = min((variants[n] for n in failing), key=lambda v: (len(b"".join(v)), len(v)))
    return parts

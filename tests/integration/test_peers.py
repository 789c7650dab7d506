"""Peers that cut, reset, stall and dribble at every byte, in both roles: one event or none, as it must
be, and nothing is left behind."""

import asyncio
import collections
import contextlib
import itertools
import random
import re
import socket
import ssl
import sys
import uuid
from pathlib import Path

import pytest

from support import PATIENCE, ROOT, SANITIZED, wait_for

sys.path.insert(0, str(ROOT / "tests" / "wire"))

import channel  # noqa: E402  pylint: disable=wrong-import-position

AT_ONCE = 64  # exchanges
FEW = 16  # blocks of memory, of hundreds of exchanges
CROWD = 128  # and connections, eight times that: what is kept for later use grows no more after them
RESET = b"\1\0\0\0\0\0\0\0"
HEAD = "{} HTTP/1.1\r\nHost: a\r\nCorrelation-Id: {}\r\n{}\r\n"

REQUESTS = {  # first line, fields, body
    "length": ("POST /api/v2/keys", "Content-Length: 8\r\n", b"12345678"),
    "chunked": ("POST /api/v2/keys", "Transfer-Encoding: chunked\r\n",
                b"3;a=b\r\nabc\r\n5\r\nfghij\r\n0\r\nX-T: 1\r\n\r\n"),
    "bare": ("GET /api/v2/keys", "", b""),
    "head": ("HEAD /api/v2/keys", "", b""),
    "intent": ("DELETE /api/v2/keys/" + "a" * 8, "", b""),
    "expect": ("POST /api/v2/keys", "Expect: 100-continue\r\nContent-Length: 3\r\n", b"abc"),
}
ANSWERS = {  # the request that it is for, the answer
    "length": ("length", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
    "chunked": ("bare", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                        b"3\r\nabc\r\n4\r\ndefg\r\n0\r\nX-T: 1\r\n\r\n"),
    "until close": ("bare", b"HTTP/1.1 200 OK\r\n\r\nhello"),
    "head": ("head", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
    "interim": ("chunked", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\n"
                           b"HTTP/1.1 204 No Content\r\n\r\n"),
    "intent": ("intent", b"HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\n{}"),
    "early": ("large", b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\n{}"),
}
REQUESTS["large"] = ("POST /api/v2/keys", "Content-Length: 99999\r\n", b"x" * 2000)
ENDS = ("reset", "close", "cut", "half-close", "stall", "dribble")  # "cut": without close_notify


class Case:
    """What both peers do in one exchange."""

    def __init__(self, request, answer=None, *, client=None, client_end="", service=None,
                 service_end="", leave=None, leave_end="", meet=None):
        self.id = str(uuid.uuid4())
        line, fields, body = REQUESTS[request]
        self.head = HEAD.format(line, self.id, fields).encode()
        self.request = self.head + body
        self.answer = answer or b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
        self.is_head = request == "head"
        self.client, self.client_end = client, client_end  # the request is cut there, and how
        self.service, self.service_end = service, service_end  # likewise the answer
        self.leave, self.leave_end = leave, leave_end  # the client goes at this byte of the answer
        self.meet = meet  # the service answers no earlier than it has all of these
        self.gone = asyncio.Event()  # the client has done so
        self.reached = asyncio.Event()  # that byte was sent
        self.got = b""

    def __repr__(self):
        return (f"{self.request!r} client {self.client} {self.client_end}, service {self.service} "
                f"{self.service_end}, leave {self.leave} {self.leave_end}: {self.got!r}")

    @property
    def is_refused(self):
        """It stalls before anything is forwarded; what stalls in its head is recorded without what the
        rest of that would say."""
        length = len(self.request if b"\r\nContent-Length: 8\r\n" in self.head else self.head)
        return self.client_end == "stall" and 0 < self.client < length


def cuts(messages, **where):
    """Every byte of a message with every end."""
    (cut, end), = where.items()
    for name, how in itertools.product(messages, ENDS):
        request, answer = ANSWERS[name] if messages is ANSWERS else (name, None)
        length = len(answer if messages is ANSWERS else Case(name).request)
        for i in [length] if how == "dribble" else range(length + (cut != "client")):
            if (how in ("stall", "dribble") and cut == "leave") or name == "large":
                continue
            yield Case(request, answer, **{cut: i, end: how})


class Peer:
    """One side of a connection."""

    def __init__(self, reached, writer):
        self.channel, self.writer = reached, writer
        self.data = b""

    async def more(self):
        if not (data := await self.channel.read()):
            raise asyncio.IncompleteReadError(self.data, None)
        self.data += data

    async def take(self, n):
        while len(self.data) < n:
            await self.more()
        out, self.data = self.data[:n], self.data[n:]
        return out

    async def until(self, end):
        while end not in self.data:
            await self.more()
        return await self.take(self.data.index(end) + len(end))

    async def read(self):
        """What has come, or comes next; b"" at the end."""
        return await self.take(len(self.data)) or await self.channel.read()

    async def rest(self):
        got = b""
        with contextlib.suppress(OSError):
            while data := await self.read():
                got += data
        return got

    async def send(self, data, how=""):
        for piece in (data[i:i + 1] for i in range(len(data))) if how == "dribble" else (data,):
            await self.channel.write(piece)
            if how == "dribble":
                await asyncio.sleep(0)

    async def end(self, how):
        """End this side; after a half-close, and after a stall, what the other side does is awaited."""
        if how == "reset":
            reset(self.writer)
        elif how == "half-close":
            await self.channel.end(random.choice(["close", "notify"]))
        elif how == "close":
            await self.channel.end(how)
        if how in ("half-close", "stall", ""):
            return await self.rest()
        self.writer.close()
        return b""


def reset(writer):
    sock = writer.get_extra_info("socket")
    if sock is not None:  # else the other side was faster
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


# ---- the key service ----

class Service:
    """Answers each request as its case says."""

    def __init__(self, context):
        self.context = context
        self.cases = {}
        self.errors = []
        self.tasks = set()

    async def serve(self, reader, writer):
        self.tasks.add(asyncio.current_task())
        try:
            reached = await channel.over(reader, writer, self.context, server_side=True)
            peer = Peer(reached, writer)
            while await self.answer(peer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass
        except Exception as e:  # pylint: disable=broad-except
            self.errors.append(e)
        finally:
            writer.close()

    async def answer(self, peer):
        """False: the connection is at its end."""
        head = (await peer.until(b"\r\n\r\n")).decode().lower()
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:-2])
        case = self.cases[fields["correlation-id"]]
        if not case.answer.startswith(b"HTTP/1.1 401"):
            if "transfer-encoding" in fields:
                await peer.until(b"0\r\nx-t: 1\r\n\r\n" if b"X-T" not in case.request
                                 else b"0\r\nX-T: 1\r\n\r\n")
            else:
                await peer.take(int(fields.get("content-length", 0)))
        if case.meet is not None:
            await case.meet.wait()
        if case.leave is not None:
            await peer.send(case.answer[:case.leave])
            case.reached.set()
            await case.gone.wait()
            await peer.send(case.answer[case.leave:])
            return b"\r\n\r\nhello" not in case.answer or b"Content-Length" in case.answer
        await peer.send(case.answer[:case.service], case.service_end)
        if case.service is None and case.answer.startswith(b"HTTP/1.1 200") \
                and b"\r\n\r\n{}" in case.answer:
            return True
        await peer.end(case.service_end if case.service_end != "dribble" else "close")
        return False


# ---- the client ----

class Gone(Exception):
    """The client went away in its handshake."""


async def leave(case, peer):
    """Go away when the service has sent its part and what comes of it has come."""
    await asyncio.wait_for(case.reached.wait(), PATIENCE)
    with contextlib.suppress(asyncio.TimeoutError):
        case.got += await asyncio.wait_for(peer.read(), 0.02)
    rest = asyncio.ensure_future(peer.end(case.leave_end))
    await asyncio.sleep(0)
    case.gone.set()
    case.got += await rest


async def play(case, port, context):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        peer = Peer(await channel.over(reader, writer, context, server_hostname="localhost"), writer)
        if context is not None and peer.channel.tls.version() == "TLSv1.3":
            await peer.channel.more()  # a reset that meets the tickets is one of the handshake
        await peer.send(case.request[:case.client], case.client_end)
        if case.leave is not None:
            await leave(case, peer)
        elif case.client_end in ("reset", "close", "cut"):
            await peer.end(case.client_end)
        elif case.client_end in ("half-close", "stall"):
            case.got = await peer.end(case.client_end)
        else:
            case.got = await one_answer(peer, case)
    except OSError:
        pass
    finally:
        writer.close()


async def one_answer(peer, case):
    """Up to its end, or the connection's."""
    got = b""
    try:
        while True:
            head = await peer.until(b"\r\n\r\n")
            got += head
            if not head.startswith(b"HTTP/1.1 1"):
                break
        if case.is_head:
            return got
        fields = head.decode().lower()
        if "content-length: " in fields:
            length = int(fields.split("content-length: ")[1].split("\r\n")[0])
            got += await peer.take(length)
        elif "chunked" in fields:
            while not got.endswith(b"0\r\n\r\n") and not got.endswith(b"0\r\nX-T: 1\r\n\r\n"):
                piece = await peer.read()
                if not piece:
                    break
                got += piece
    except (asyncio.IncompleteReadError, OSError):
        got += peer.data
    return got


class Handshake:
    """A client that goes at a byte of its handshake."""

    service_end, meet = "", None

    def __init__(self, context, cut, end):
        self.context, self.cut, self.client_end = context, cut, end

    def __repr__(self):
        return f"handshake {self.cut} {self.client_end}"


async def shake(case, port):
    """How many bytes the client had to send."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sent = 0

    async def send(data):
        nonlocal sent
        data = data[:case.cut - sent]
        sent += len(data)
        writer.write(data)
        if sent == case.cut:
            raise Gone

    sides = lambda: reader.read(65536), send, writer.write_eof
    try:
        with contextlib.suppress(Gone):
            await channel.Tls(*sides, case.context, server_hostname="localhost").handshake()
        await Peer(channel.Plain(*sides), writer).end(case.client_end)
    except OSError:
        pass
    finally:
        writer.close()
    return sent


async def handshakes(port, contexts):
    """A third of the bytes that a client sends, the others another time."""
    cases = []
    for context in contexts:
        length = await shake(Handshake(context, 1 << 20, "cut"), port)
        cases += [Handshake(context, i, end) for i in range(random.randrange(1, 4), length + 1, 3)
                  for end in ("reset", "cut", "stall")]
    return cases


# ---- the rounds ----

async def run(cases, service, port, contexts):
    service.cases.update((c.id, c) for c in cases if isinstance(c, Case))
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(case):
        # Whoever stalls waits for a timeout, and takes nobody's turn.
        async with contextlib.AsyncExitStack() as stack:
            if "stall" not in (case.client_end, case.service_end) and case.meet is None:
                await stack.enter_async_context(gate)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(
                    shake(case, port) if isinstance(case, Handshake)
                    else play(case, port, random.choice(contexts)), 3 * PATIENCE)
                return None
            return case

    stuck = [c for c in await asyncio.gather(*map(one, cases)) if c]
    assert not stuck, f"{len(stuck)} do not end: {stuck[:20]}"


def figures(sidecar):
    wanted = ("keytrail_connections_open", "keytrail_requests_in_flight",
              "keytrail_upstream_connections_open", "keytrail_upstream_connections_idle")
    found = sidecar.metrics()
    return {n: found[(n, ())] for n in wanted}


def descriptors(sidecar):
    return len(list(Path(f"/proc/{sidecar.process.pid}/fd").iterdir()))


def crowd(sidecar):
    """Each loop of libevent keeps a block for every descriptor that it has seen."""
    with contextlib.ExitStack() as stack:
        for _ in range(8 * CROWD):
            stack.enter_context(socket.create_connection(("127.0.0.1", sidecar.port)))
        wait_for(lambda: figures(sidecar)["keytrail_connections_open"] == 8 * CROWD, "the crowd")


def settle(sidecar, before, memory, held):
    """All that the exchanges took is given back; held: blocks after each round, of which the first two
    fill what is kept, but for a few of OpenSSL's, as its sessions differ."""
    wait_for(lambda: not any(figures(sidecar).values()), f"the counters: {figures(sidecar)}")
    wait_for(lambda: descriptors(sidecar) <= before, "the descriptors")
    wait_for(lambda: len(held) < 2 or memory.held() < max(held[:2]) + FEW, f"{held} blocks of memory: {memory.held()}")
    held.append(memory.held())


def check_events(sidecar, cases):
    events = sidecar.events()
    found = collections.Counter(e.get("correlationId") for e in events if "kind" not in e)
    for case in cases:
        # What has no whole head has no correlation ID of the client's.
        if case.client is None or case.client >= len(case.head):
            assert found[case.id] == 1, f"{found[case.id]} events of {case}"
        else:
            assert found[case.id] == 0, case
    stalled = [c for c in cases if c.is_refused]
    refused = [e for e in events if e.get("reason", {}).get("reasonForFailure") == "request_timeout"]
    assert len(stalled) == len(refused), refused[:3]


def is_whole(answer, is_head):
    """Does a client take it for all that was said?"""
    head, end, body = answer.lower().partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: (\d+)", head)
    if not end or is_head or head.startswith(b"204"):
        return bool(end)
    if b"\r\ntransfer-encoding: chunked" in head:
        return bool(re.search(rb"(^|\r\n)0\r\n([^\r]+\r\n)*\r\n$", body))
    return length is not None and len(body) == int(length[1])


def may_be_cut(case):
    """Without a length the end of the connection is the end of the answer, where it comes in order."""
    return (case.answer == ANSWERS["until close"][1] and case.service_end in ("close", "half-close")
            and case.service >= case.answer.index(b"hello"))


def check_answers(cases):
    """An answer that was cut never looks whole, and nothing comes after one."""
    for case in cases:
        finals = [f for f in case.got.split(b"HTTP/1.1 ")[1:] if not f.startswith(b"1")]
        assert len(finals) <= 1, case
        if (finals and case.service is not None and case.service_end != "dribble"
                and case.service < len(case.answer) and not may_be_cut(case)):
            ours = b" " + finals[0][:4] not in case.answer
            assert ours or not is_whole(finals[0], case.is_head), case


# Well above what a loaded machine needs for the next step of hundreds of peers.
SHORT = {name: f"{seconds * (2 if SANITIZED else 1)}s" for name, seconds in
         {"head": 8, "body": 5, "answer": 5, "idle": 10, "handshake": 10, "connect": 10}.items()}


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_nothing_is_left_behind_whatever_a_peer_does(keytrail, pki, memory, tls):
    service = Service(pki.server() if tls else None)
    contexts = [pki.client(version=v) for v in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)] if tls \
        else [None]

    async def campaign():
        server = await asyncio.start_server(service.serve, "127.0.0.1", 0, backlog=512)
        backend = type("Backend", (), {"port": server.sockets[0].getsockname()[1]})
        config = {"timeouts": SHORT, "audit": {"ring_size": 16777216},
                  "limits": {"connections": 8000},
                  "workers": 1,  # one loop, which has then seen each descriptor
                  "upstream": {"pool": {"timeout": "500ms", "max": 4000}}}
        if not tls:
            config["listen"] = {"tls": None}
            config["upstream"]["tls"] = None
        loop = asyncio.get_running_loop()
        environment = {} if SANITIZED else memory.environment
        sidecar = await loop.run_in_executor(
            None, lambda: keytrail(backend, config, environment=environment))
        before = descriptors(sidecar)
        rounds = [list(cuts(REQUESTS, client="client_end")),
                  list(cuts(ANSWERS, service="service_end")),
                  list(cuts(ANSWERS, leave="leave_end"))]
        if tls or SANITIZED:  # some of them, by the seed
            step = 17 if SANITIZED else 3
            rounds = [r[random.randrange(step)::step] for r in rounds]
        if not tls:
            rounds = [[c for c in r if "cut" not in (c.client_end, c.service_end, c.leave_end)]
                      for r in rounds]
        # Apart: those who wait, all at once; and those who would take longer than the timeouts, a byte a
        # time with hundreds of others.
        apart = [[c for r in rounds for c in r if end in (c.client_end, c.service_end)]
                 for end in ("stall", "dribble")]
        rounds = [[c for c in r if c not in apart[0] and c not in apart[1]] for r in rounds]
        meet = asyncio.Barrier(CROWD)
        rounds = [[Case("bare", meet=meet) for _ in range(CROWD)], *apart, *rounds,
                  await handshakes(sidecar.port, contexts) if tls else [], [Case("bare") for _ in range(100)]]
        await loop.run_in_executor(None, crowd, sidecar)
        held = []
        for cases in rounds:
            await run(cases, service, sidecar.port, contexts)
            await loop.run_in_executor(None, settle, sidecar, before, memory, held)
        server.close()
        for task in service.tasks:
            task.cancel()
        return sidecar, [c for r in rounds for c in r if isinstance(c, Case)]

    sidecar, cases = asyncio.run(campaign())
    assert not service.errors
    sidecar.stop()
    check_events(sidecar, cases)
    check_answers(cases)

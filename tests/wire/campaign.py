"""Runs cases through a live keytrail between clients and a recording back end, and judges them.

Every client has an address of its own in 127/8, which keytrail writes into X-Forwarded-For and into
the trail: that tells what belongs together, whatever became of the bytes.  The verdict on a case
rests on four things: what the back end got, what the client got, what the trail says, and how a
strict reader understands the case's own bytes, the understanding of a back end without keytrail.
"""

import asyncio
import collections
import contextlib
import json
import re
import socket
import time

import strict
import support

CONCURRENCY = 32
PATIENCE = 60 if support.SANITIZED else 30
OURS = {b"content-length", b"correlation-id", b"forwarded", b"host", b"transfer-encoding", b"via",
        b"x-forwarded-for", b"x-forwarded-proto"}
DROPPED = OURS | strict.HOP_BY_HOP | {b"x-real-ip"}
PLAIN = {"listen": {"tls": None}, "upstream": {"tls": None}, "workers": 2,
         "audit": {"ring_size": 4194304, "segment_size": 67108864},
         "limits": {"connections": 1000}}


def address_of(number):
    n = number + 1
    return f"127.{10 + (n >> 16)}.{n >> 8 & 255}.{n & 255}"


class Seen:
    """What there is to know of one case after its run."""

    def __init__(self):
        self.requests = []  # at the back end, in order
        self.client = b""   # what came back
        self.end = "never"  # of the client's connection
        self.events = []    # of the trail, in order
        self.faults = []    # what the back end could not read


class Backend:
    """Keeps what it reads, by client; answers each whole request, by default with 200 and an id."""

    def __init__(self):
        self.seen = collections.defaultdict(Seen)
        self.faults = []
        self.answered = 0
        self.script = {}  # client's address: function(request) -> (segments, what to do then)
        self.hidden = 0

    async def start(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, backlog=1000)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    def whose(self, request):
        return self.seen[(request.get(b"x-forwarded-for") or b"").decode("latin-1")]

    def note(self, stream, known):
        """Heads that are new; how many are known then."""
        for request in stream.messages[known:]:
            request.id = ""
            self.whose(request).requests.append(request)
        return len(stream.messages)

    def ok(self, request):
        self.answered += 1
        request.id = f"00000000-0000-4000-8000-{self.answered:012x}"
        body = b"" if request.method == b"HEAD" else b"for %s" % request.get(b"x-forwarded-for")
        return (b"HTTP/1.1 200 OK\r\nCorrelation-Id: %s\r\nContent-Length: %d\r\n\r\n%s"
                % (request.id.encode(), len(body), body))

    async def serve(self, reader, writer):
        stream, known = strict.Stream(), 0
        raw = b""
        try:
            while data := await reader.read(65536):
                raw += data
                whole = stream.feed(data)
                known = self.note(stream, known)
                for request in whole:
                    if not await self.answer(request, writer):
                        await self.watch_end(request, reader)
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

    async def answer(self, request, writer):
        """False: this connection may carry no more."""
        script = self.script.get((request.get(b"x-forwarded-for") or b"").decode("latin-1"))
        if script is None or request.get(b"x-turn") != b"1":
            writer.write(self.ok(request))
            return True
        parts, then = script
        for part in parts:
            writer.write(part)
            await writer.drain()
            if len(parts) > 1:
                await asyncio.sleep(0.0005)
        if then == "close":
            writer.write_eof()
        return then == "keep"

    async def watch_end(self, request, reader):
        """After an answer that spoils the connection nothing may come on it but its end."""
        try:
            data = await asyncio.wait_for(reader.read(65536), PATIENCE)
        except OSError:
            data = b""
        except asyncio.TimeoutError:
            data = b"nothing, and the connection was left open"
        if data:
            self.whose(request).faults.append(f"after an answer that is bad: {data[:200]!r}")


async def converse(port, address, parts, seen):
    """A client that sends the segments, ends its side and reads to the end."""
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind((address, 0))
        try:
            await loop.sock_connect(sock, ("127.0.0.1", port))

            async def send():
                with contextlib.suppress(OSError):
                    for part in parts:
                        await loop.sock_sendall(sock, part)
                        if len(parts) > 1:
                            await asyncio.sleep(0.0005)
                    sock.shutdown(socket.SHUT_WR)

            sender = asyncio.ensure_future(send())
            try:
                while data := await asyncio.wait_for(loop.sock_recv(sock, 65536), PATIENCE):
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


async def run_all(backend, port, cases):
    """cases: the segments of each client."""
    gate = asyncio.Semaphore(CONCURRENCY)

    async def one(number, parts):
        address = address_of(number)
        async with gate:
            await converse(port, address, parts, backend.seen[address])

    await asyncio.gather(*(one(n, parts) for n, parts in enumerate(cases)))


# ---- how a request came through -----------------------------------------------------------------


def end_to_end(m):
    """The fields that a proxy passes on."""
    gone = DROPPED | m.options()
    if m.minor == 0:
        gone = gone | {b"expect"}
    return [(n, v) for n, v in m.fields
            if n.lower() not in gone and not n.lower().startswith(b"x-forwarded-")]


def unlike(got, sent):
    """Why a forwarded request is not the one that was sent, or None."""
    if (got.method, got.path, got.query) != (sent.method, sent.path, sent.query):
        return f"{got} is not {sent}"
    if end_to_end(got) != end_to_end(sent):
        return f"fields {end_to_end(got)} are not {end_to_end(sent)}"
    if got.whole and (not sent.whole or got.body != sent.body or got.trailers != sent.trailers):
        return f"body {got.body[:200]!r} is not {sent.body[:200]!r}"
    if not sent.body.startswith(got.body):
        return f"body {got.body[:200]!r} does not begin {sent.body[:200]!r}"
    return None


def fits_template(template, path):
    ours, theirs = template.split("/"), path.decode("latin-1").split("/")
    if ours[-1] == "**":
        ours, theirs = ours[:-1], theirs[:len(ours) - 1]
    return len(ours) == len(theirs) and all(
        a == b or (a.startswith("{") and a.endswith("}")) for a, b in zip(ours, theirs))


class Routes:
    """What the shipped route set says, read anew."""

    def __init__(self):
        self.routes = json.loads(support.ROUTES.read_text())["routes"]

    def misnames(self, event, request):
        """Why an event is no record of a request, or None."""
        data = event["requestData"]
        if data["method"] != request.method.decode():
            return f"recorded as {data['method']}: {request}"
        if data.get("unmatched"):
            return None
        query = request.query or b""
        for route in self.routes:
            wanted = [f"{k}={v}".encode() for k, v in route.get("query", {}).items()]
            if (route["action"] == event["action"] and route["path"] == data["path"]
                    and route["method"] in ("*", data["method"])
                    and fits_template(route["path"], request.path)
                    and all(w in query[1:].split(b"&") for w in wanted)):
                return None
        return f"recorded as {event['action']} {data['path']}: {request}"


def judge_events(seen, routes):
    """Faults of what the trail says: one event for each request at the back end, with its name, and
    at most one more, of a request that was not forwarded or not to its end."""
    by_id = {e["correlationId"]: e for e in seen.events if e.get("correlationSource") == "service"}
    rest = [e for e in seen.events if e.get("correlationSource") != "service"]
    whole = [r for r in seen.requests if r.whole]
    partial = [r for r in seen.requests if not r.whole]
    for request in whole:
        event = by_id.pop(request.id, None)
        if event is None:
            yield f"hidden: no event for {request}"
        elif why := routes.misnames(event, request):
            yield why
    for event in [*by_id.values(), *rest[1:]]:
        yield f"an event too many: {event['action']} {event['reason']}"
    if partial and (len(partial) > 1 or not rest):
        yield f"hidden: no event for {partial}"
    if partial and rest and rest[0]["outcome"] != "unknown":
        yield f"forwarded in part, recorded as {rest[0]['outcome']}"
    if rest and seen.events[-1] is not rest[0]:
        yield "a request after one that was refused"


def judge_client(seen):
    """Faults of what the client got: strictly readable, the statuses of the trail in its order."""
    methods = [e.get("requestData", {}).get("method", "GET").encode() for e in seen.events]
    stream, wrong = strict.read_all(seen.client, methods)
    if wrong:
        yield f"the client got what is no answer: {wrong}: {seen.client[-1000:]!r}"
        return
    final = [m for m in stream.messages if m.status >= 200]
    for m in stream.messages:
        if why := strict.canonical(m):
            yield f"the client got {m}: {why}"
    if stream.finish() and seen.end != "reset":
        yield f"the client's answer is cut: {seen.client[-300:]!r}"
    for m, event in zip(final, seen.events):
        want = event["reason"].get("reasonCode")
        if want != m.status and not (want is None and m.status >= 400):
            yield f"the client got {m.status}, recorded is {event['reason']}"
    answered = [e for e in seen.events if "reasonCode" in e["reason"]]
    if len(final) < len(answered) and seen.end != "reset":
        yield f"{len(final)} answers for {len(answered)} events"
    if seen.end in ("never", "hangs"):
        yield f"the client's connection {seen.end} ends"


def judge_request(parts, seen, routes):
    """(what became of the case, its faults)"""
    direct, _ = strict.read_all(b"".join(parts))
    faults = [*seen.faults, *judge_events(seen, routes), *judge_client(seen)]
    for i, got in enumerate(seen.requests):
        if why := strict.canonical(got):
            faults.append(f"non-canonical: {why}: {got}")
        if i >= len(direct.messages):
            faults.append(f"hidden: nobody sent {got}")
        elif why := unlike(got, direct.messages[i]):
            faults.append(f"difference: {why}")
    if direct.messages and direct.messages[0].whole and not seen.events:
        faults.append(f"silence: nothing came of {direct.messages[0]}")
    refused = any(e.get("correlationSource") != "service" for e in seen.events)
    what = {"forwarded": sum(r.whole for r in seen.requests), "refused": int(refused),
            "silent": int(not seen.events)}
    return what, faults


# ---- how an answer came through -----------------------------------------------------------------


def answer_script(method, parts):
    """(segments, what the back end does then, how a strict client understands them)"""
    direct, wrong = strict.read_all(b"".join(parts), [method])
    final = next((m for m in direct.messages if m.status >= 200), None)
    if wrong is None and direct.state == "rest":
        return parts, "close", final, True
    clean = wrong is None and final is not None and final.whole and not direct.data
    if clean and final.keeps():
        return parts, "keep", final, True
    if wrong is None and (final is None or not final.whole):
        return parts, "close", final, False
    return [b"".join(parts)], "watch", final, final is not None and final.whole


def answer_request(method):
    body = b"Content-Length: 2\r\n\r\n{}" if method in (b"POST", b"DELETE") else b"\r\n"
    return [b"%s /api/v2/keys HTTP/1.1\r\nHost: localhost\r\nX-Turn: 1\r\n%s"
            b"GET /api/v2/keys HTTP/1.1\r\nHost: localhost\r\nX-Turn: 2\r\n\r\n" % (method, body)]


def answer_fields(m):
    """Those that are relayed as they are; Connection may not strip what a record rests on."""
    kept = strict.SINGLE | {b"content-encoding", b"user-agent", b"x-forwarded-host"}
    gone = strict.HOP_BY_HOP | m.options() - kept | {b"content-length", b"transfer-encoding", b"via",
                                                     b"location", b"alt-svc"}
    return [(n, v) for n, v in m.fields if n.lower() not in gone]


def judge_answer(address, method, script, seen):
    """(what became of the case, its faults)"""
    _, _, final, understood = script
    what = {"relayed": 0, "refused": 0, "cut": 0}
    faults = list(seen.faults)
    stream, wrong = strict.read_all(seen.client, [method, b"GET"])
    if wrong:
        faults.append(f"the client got what is no answer: {wrong}: {seen.client[-1000:]!r}")
        return what, faults
    finals = [m for m in stream.messages if m.status >= 200]
    cut = stream.finish() or seen.end == "reset"
    events = [e for e in seen.events if "kind" not in e]
    first = finals[0] if finals else None
    faults += [f"{m}: {why}" for m in stream.messages if (why := strict.canonical(m))]
    if seen.end in ("never", "hangs"):
        faults.append(f"the client's connection {seen.end} ends")
    if first is None:
        what["cut"] += 1
    elif first.status == 502:
        what["refused"] += 1
        if events and events[0]["outcome"] != "unknown" and (final is None or final.status != 502):
            faults.append(f"a bad answer is recorded as {events[0]['reason']}")
    elif not first.whole or cut and len(finals) == 1 and not understood:
        what["cut"] += 1
    else:
        what["relayed"] += 1
        if not understood:
            faults.append(f"difference: {first} of what cannot be understood")
        elif ((first.status, first.body, first.trailers)
              != (final.status, final.body, final.trailers)):
            faults.append(f"difference: {first} is not {final}")
        elif answer_fields(first) != answer_fields(final):
            faults.append(f"difference: {answer_fields(first)} is not {answer_fields(final)}")
        if first.get(b"alt-svc") or b"evil" in (first.get(b"location") or b""):
            faults.append(f"leads away: {first}")
    if len(finals) > 1 and (finals[1].status != 200
                            or finals[1].body != b"for " + address.encode()):
        faults.append(f"the second request was answered with {finals[1]}")
    tried = sum(e["requestData"].get("attempts", 1) for e in events)
    if tried != len(seen.requests):
        faults.append(f"hidden: {tried} recorded, {len(seen.requests)} requests")
    if first is not None and first.status != 502 and events and (
            events[0]["reason"].get("reasonCode") != first.status):
        faults.append(f"the client got {first.status}, recorded is {events[0]['reason']}")
    return what, faults


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
        address = event.get("initiator", {}).get("host", {}).get("address")
        if address in seen and "kind" not in event:
            seen[address].events.append(event)


def run(folder, pki, cases, answers=False):
    """Run cases (segments of requests; (method, segments) of answers) through a fresh sidecar."""
    result = Result()
    begin = time.monotonic()

    async def drive():
        backend = await Backend().start()
        sidecar = support.Keytrail(folder, pki, Port(backend.port), PLAIN).start()
        try:
            requests = cases
            if answers:
                scripts = [answer_script(*case) for case in cases]
                backend.script = {address_of(n): s[:2] for n, s in enumerate(scripts)}
                requests = [answer_request(method) for method, _ in cases]
            await run_all(backend, sidecar.port, requests)
        finally:
            await asyncio.to_thread(sidecar.finish)
            backend.server.close()
        # The back end's ends of the connections have yet to be read.
        await asyncio.sleep(0.05)
        gather(sidecar, backend.seen)
        return backend, scripts if answers else None

    backend, scripts = asyncio.run(drive())
    routes = Routes()
    for number, case in enumerate(cases):
        address = address_of(number)
        seen = backend.seen[address]
        if answers:
            result.add(number, *judge_answer(address, case[0], scripts[number], seen))
        else:
            result.add(number, *judge_request(case, seen, routes))
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

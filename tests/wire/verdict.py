"""Judges what became of a case.

What the back end got, what the client got, what the trail says, and how a strict reader understands
the case's own bytes, the understanding of a back end without keytrail, have to be one story.  Each
field of a message that keytrail wrote is accounted for: its peer's own, or one that is due.
"""

import collections
import ipaddress
import itertools
import json
import re
import urllib.parse

import strict
import support

OURS = {b"content-length", b"forwarded", b"host", b"transfer-encoding", b"via", b"x-forwarded-for",
        b"x-forwarded-host", b"x-forwarded-proto"}
# What may stand before our own element of a list and not reach into it; comments two deep.
CLOSED = re.compile(rb'(?:[^\\"()]|"[^\\"()]*"|\((?:[^\\"()]|\([^\\"()]*\))*\))*')
TRUSTED = ipaddress.ip_network("127.0.0.0/8")
INTERIM_MAX = 10  # answers; after more of them none is taken for final
UUID = re.compile(rb"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
DROPPED = OURS | strict.HOP_BY_HOP


# ---- how a request came through -----------------------------------------------------------------


class Way(collections.namedtuple("Way", "address host tls trusted passes correlation",
                                 defaults=[False] * 3 + [b"correlation-id"])):
    """Where a request comes from and goes to; whether the client is trusted to say so, and the
    host that it names is passed; the field that has the correlation ID."""

    def tells(self, name):
        """Is the client believed, or not even asked, where a field says whence a request came?"""
        origin = name in strict.ORIGINS or name.startswith(b"x-forwarded-")
        return self.trusted or not origin

    def chain(self, m, name, ours):
        """A list field: those before us, then ours."""
        theirs = m.all(name) if self.trusted and all(map(CLOSED.fullmatch, m.all(name))) else []
        return name, b", ".join([*theirs, ours])

    def fields(self, m):
        """What keytrail writes of it."""
        host = m.get(b"host") or m.authority if self.passes else None
        proto = b"https" if self.tls else b"http"
        told = m.get(b"x-forwarded-proto") if self.trusted else None
        return [(b"host", host or self.host), (b"x-forwarded-proto", proto if told is None else told),
                self.chain(m, b"via", b"1.%d keytrail" % m.minor),
                self.chain(m, b"forwarded", b"for=%s;proto=%s" % (self.address, proto)),
                self.chain(m, b"x-forwarded-for", self.address)]

    def origin(self, m):
        """What an event says of whence a request came."""
        found = {"address": self.address.decode(), "addressType": "IPv4"}
        lists = [v for v in m.all(b"x-forwarded-for") if v] if self.trusted else []
        for text in reversed(b",".join(lists).split(b",")) if lists else []:
            try:
                one = ipaddress.ip_address(text.strip(b" \t").decode("latin-1"))
            except ValueError:
                break
            found = {"address": str(one), "addressType": f"IPv{one.version}", "peer": self.address.decode()}
            if one not in TRUSTED:
                break
        return found


def end_to_end(m, way):
    """The fields that a proxy passes on."""
    gone = DROPPED | m.options()
    if m.minor == 0:
        gone = gone | {b"expect"}
    return [(n, v) for n, v in m.fields if n.lower() not in gone and way.tells(n.lower())]


def trailers_due(m):
    """The trailers that a proxy passes on."""
    return [(n, v) for n, v in m.trailers if n.lower() not in m.options()]


def fields_due(sent, way):
    """All fields of a forwarded request, sorted, but for a correlation ID that it got on its way."""
    fields = [(n.lower(), v) for n, v in end_to_end(sent, way)] + way.fields(sent)
    if sent.framing == "chunked":
        fields.append((b"transfer-encoding", b"chunked"))
    elif sent.framing == "length":
        fields.append((b"content-length", b"%d" % sent.length))
    if strict.has_body(sent) and sent.get(b"content-type") is None:
        fields.append((b"content-type", b"application/octet-stream"))
    return sorted(fields)


def unlike(got, sent, way):
    """Why a forwarded request is not the one that was sent, or None."""
    if (got.method, got.path, got.query) != (sent.method, sent.path, sent.query):
        return f"{got} is not {sent}"
    fields = [(n.lower(), v) for n, v in got.fields]
    if sent.get(way.correlation) is None:
        if len(got.all(way.correlation)) != 1:
            return f"{len(got.all(way.correlation))} correlation IDs in {got}"
        fields.remove((way.correlation, got.get(way.correlation)))
    if sorted(fields) != fields_due(sent, way):
        return f"fields {sorted(fields)} are not {fields_due(sent, way)}"
    theirs = end_to_end(sent, way)
    if [f for f in got.fields if f in theirs] != theirs:
        return f"fields {got.fields} are not in the order of {theirs}"
    if got.whole and (not sent.whole or got.body != sent.body or got.trailers != trailers_due(sent)):
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


def rank(route):
    """Of routes that fit the same request the one of the highest rank names it."""
    kinds = {"{": 1, "*": 0}
    return (route["method"] != "*", [kinds.get(s[:1], 2) for s in route["path"].split("/")],
            ("query" in route) + ("header" in route))


def headers_of(route):
    return {name.lower().encode(): value.encode() for name, value in route.get("header", {}).items()}


def parameters_of(route):
    return {name.encode(): value.encode() for name, value in route.get("query", {}).items()}


class Routes:
    """What a route set says, read anew."""

    def __init__(self, path=support.ROUTES):
        said = json.loads(path.read_text())
        self.routes = said["routes"]
        self.correlation = said["correlation"]["header"].lower().encode()
        self.headers = {name for r in self.routes for name in headers_of(r)}
        self.parameters = {name for r in self.routes for name in parameters_of(r)}
        self.declared = self.headers | {self.correlation}

    def of(self, request):
        """Those that stand for a request best: by the method, then segment by segment, then by what else
        they ask for."""
        query = (request.query or b"")[1:].split(b"&")
        fit = [r for r in self.routes
               if r["method"] in ("*", request.method.decode())
               and fits_template(r["path"], request.path)
               and all(k + b"=" + v in query for k, v in parameters_of(r).items())
               and all(request.get(k) == v for k, v in headers_of(r).items())]
        best = max(map(rank, fit), default=None)
        return [r for r in fit if rank(r) == best]

    def strays(self, request, route):
        """What some server could take for another route's sign, in a request of this one."""
        query = [p.partition(b"=")[::2] for p in (request.query or b"")[1:].split(b"&")]
        named = [(urllib.parse.unquote_to_bytes(k).strip(b" +").lower(), k, v) for k, v in query]
        own = parameters_of(route)
        return ([(n, v) for n in self.headers for v in request.all(n) if headers_of(route).get(n) != v]
                + [(k, v) for name, k, v in named if name in self.parameters and own.get(k) != v])

    def misnames(self, event, request):
        """Why an event is no record of a request, or None."""
        data, fitting = event["requestData"], self.of(request)
        if all(self.strays(request, route) for route in fitting or [{}]):
            return f"could be of another route: {request}"
        if data["method"] != request.method.decode():
            return f"recorded as {data['method']}: {request}"
        if data.get("unmatched"):
            own = [r["action"] for r in fitting
                   if not (r.get("fallback") or r["method"] == "*" or r["path"].endswith("**"))]
            return f"recorded as unmatched, though {own}: {request}" if own else None
        if any((r["action"], r["path"]) == (event["action"], data["path"]) for r in fitting):
            return None
        return f"recorded as {event['action']} {data['path']}: {request}"


def is_answered(event):
    """By the back end; else the request was refused, or nobody knows what came of it."""
    return event.get("correlationSource") == "service"


def is_late(event):
    """Of what came after the connection's last request."""
    return event["reason"].get("reasonForFailure") == "after_close"


def judge_events(seen, routes):
    """Faults of what the trail says: one event for each request at the back end, with its name, and
    at most one more, of a request that was not forwarded or not to its end."""
    by_id = {e["correlationId"]: e for e in seen.events if is_answered(e)}
    rest = [e for e in seen.events if not is_answered(e)]
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


def lost(sent, wrong, events):
    """What of a client's stream has no event though it is due one, or None.  sent: as far as it can
    be read; a request that cannot is due one too, once its head has come."""
    told = len(events)
    if told and not is_answered(events[-1]):
        return None
    if told < len(sent.messages):
        return sent.messages[told]
    return None if wrong is None or sent.ended else wrong


def judge_late(parts, sent, seen):
    """Faults of what is told of bytes after the last request.  Those in a segment of their own may
    come when nobody is there any more; keytrail may know the end of a request that it refused, and
    that the strict reader cannot read."""
    more = sent.data.strip(b"\r\n") != b""
    last = seen.events[-1] if seen.events else {}
    answered = bool(last) and is_answered(last)
    if sent.ended and len(seen.events) == len(sent.messages):
        most = more and (answered or "requestData" in last)
        least = most and len(parts) == 1 and (answered or not strict.has_body(sent.messages[-1]))
    else:
        most, least = "requestData" in last and not answered, False
    if not least <= len(seen.late) <= most:
        yield f"silence: {len(seen.late)} events of {sent.data[:80]!r} after {sent.messages[-1:]}"


def read_client(seen):
    methods = [e.get("requestData", {}).get("method", "GET").encode() for e in seen.events]
    return strict.read_all(seen.client, methods)


def judge_client(seen):
    """Faults of what the client got: strictly readable, the statuses of the trail in its order."""
    stream, wrong = read_client(seen)
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
    answered = [e for e in seen.events if "reasonCode" in e["reason"]
                and e["reason"].get("reasonForFailure") != "client_gone"]
    if len(final) < len(answered) and seen.end != "reset":
        yield f"{len(final)} answers for {len(answered)} events"
    if seen.end in ("never", "hangs"):
        yield f"the client's connection {seen.end} ends"


def answer_due(request, sent, way):
    """(sorted fields, body) of the answer to a request that the back end answered."""
    body = b"" if request.method == b"HEAD" else b"for " + way.address
    fields = [(b"content-length", b"%d" % len(body)), (b"via", b"1.1 keytrail"),
              (way.correlation, request.id.encode())]
    if not sent.keeps():
        fields.append((b"connection", b"close"))
    elif sent.minor == 0:
        fields.append((b"connection", b"keep-alive"))
    return sorted(fields), body


def refusal_due(event, body, way):
    """(sorted fields, code) of keytrail's own answer; what is redacted, it does not repeat either."""
    known = event["correlationId"] if event["correlationId"] != "[redacted]" else event["id"]
    fields = [(b"connection", b"close"), (b"content-type", b"application/json"),
              (way.correlation, known.encode()), (b"via", b"1.1 keytrail")]
    reason = event["reason"]
    return sorted(fields), body and reason.get("reasonForFailure" if "reasonCode" in reason else "reasonType")


def refusal_code(body):
    return body and json.loads(body)["resources"][0]["reasons"][0]["code"].lower()


def judge_answers(seen, sent, way):
    """Faults of whole answers: those of the back end are as it gave them, ours as recorded."""
    stream, _ = read_client(seen)
    by_id = {r.id: r for r in seen.requests}
    finals = [m for m in stream.messages if m.status >= 200 and m.whole]
    for m, event, request in zip(finals, seen.events, itertools.chain(sent, itertools.repeat(None))):
        fields = sorted((n.lower(), v) for n, v in m.fields)
        if not is_answered(event):
            got = ([f for f in fields if f[0] not in (b"allow", b"content-length")],
                   refusal_code(m.body))
            due = refusal_due(event, m.body, way)
        elif event["correlationId"] in by_id and request is not None:
            got = fields, m.body
            due = answer_due(by_id[event["correlationId"]], request, way)
        else:
            continue
        if got != due:
            yield f"difference: the client got {got} instead of {due}"


def judge_record(event, got, sent, way):
    """Faults of what an event says of the request that the back end got, beside its name."""
    data = event["requestData"]
    host = {k: v for k, v in event["initiator"]["host"].items() if k != "agent"}
    if host != way.origin(sent):
        yield f"recorded from {host} instead of {way.origin(sent)}"
    for key, name in ("instanceId", b"bluemix-instance"), ("keyRingId", b"x-kms-key-ring"):
        if data.get(key, "[redacted]") not in ("[redacted]", (got.get(name) or b"").decode()):
            yield f"recorded is {key} {data[key]}: {got}"
    if is_answered(event) and (event["outcome"], event["reason"]["reasonCode"]) != ("success", 200):
        yield f"recorded is {event['outcome']} {event['reason']} of an answer with 200"
    if sent.get(way.correlation) is None and got.get(way.correlation) != event["id"].encode():
        yield f"recorded as {event['id']}: {got}"


def judge_request(parts, seen, routes, way):
    """(what became of the case, its faults)"""
    direct, wrong = strict.read_all(b"".join(parts))
    faults = [*seen.faults, *judge_events(seen, routes), *judge_client(seen)]
    faults += judge_answers(seen, direct.messages, way)
    faults += judge_late(parts, direct, seen)
    for i, got in enumerate(seen.requests):
        if why := strict.canonical(got, routes.declared):
            faults.append(f"non-canonical: {why}: {got}")
        if i >= len(direct.messages):
            faults.append(f"hidden: nobody sent {got}")
        elif why := unlike(got, direct.messages[i], way):
            faults.append(f"difference: {why}")
        elif i < len(seen.events):
            faults += judge_record(seen.events[i], got, direct.messages[i], way)
    if what := lost(direct, wrong, seen.events):
        faults.append(f"silence: nothing came of {what}")
    refused = any(not is_answered(e) for e in seen.events)
    what = {"forwarded": sum(r.whole for r in seen.requests), "refused": int(refused),
            "silent": int(not seen.events)}
    return what, faults


# ---- how an answer came through -----------------------------------------------------------------


def via_due(m):
    """What Via says of an answer's way; what might reach into our element is left out."""
    return Way(b"", b"", trusted=True).chain(m, b"via", b"1.%d keytrail" % m.minor)


def relayed(m, method, correlation):
    """The fields, sorted, that an answer of the back end has for an HTTP/1.1 client that goes on;
    Connection may not strip what a record rests on."""
    kept = strict.SINGLE | {correlation, b"content-encoding", b"user-agent", b"x-forwarded-host"}
    gone = strict.HOP_BY_HOP | m.options() - kept | {b"content-length", b"transfer-encoding", b"via",
                                                     b"location", b"alt-svc"}
    fields = [(n.lower(), v) for n, v in m.fields if n.lower() not in gone]
    fields += [(b"location", re.sub(rb"^https?://localhost(?=/)", b"", v)) for v in m.all(b"location")]
    fields.append(via_due(m))
    length = m.all(b"content-length") if m.status != 204 else []
    if m.framing in ("chunked", "close"):
        fields.append((b"transfer-encoding", b"chunked"))
    elif length and (m.framing == "length" or method == b"HEAD" or m.status == 304):
        fields.append((b"content-length", length[0]))
    return sorted(fields)


def judge_answer_record(event, answer, correlation):
    """Faults of what an event says of the answer that the client got."""
    if event["reason"].get("reasonCode") != answer.status:
        yield f"the client got {answer.status}, recorded is {event['reason']}"
    ids = answer.all(correlation)
    due = ids[0].decode() if len(ids) == 1 and UUID.fullmatch(ids[0]) else "[redacted]"
    named = event["correlationId"] if event["correlationSource"] in ("service", "echoed") else None
    if named != (due if ids else None):
        yield f"recorded as {named}: {answer}"


def judge_interim(got, sent):
    """Faults of what the client got before an answer: each 100, and nothing else."""
    if any(m.status != 100 or m.fields for m in got) or len(got) != sent[:INTERIM_MAX].count(100):
        yield f"difference: interim {got} of {sent}"


def judge_answer(address, method, script, seen, correlation=b"correlation-id"):
    """(what became of the case, its faults)"""
    _, _, final, understood, interim = script
    what = {"relayed": 0, "refused": 0, "cut": 0}
    faults = list(seen.faults)
    stream, wrong = strict.read_all(seen.client, [method, b"GET"])
    if wrong:
        faults.append(f"the client got what is no answer: {wrong}: {seen.client[-1000:]!r}")
        return what, faults
    finals = [m for m in stream.messages if m.status >= 200]
    faults += judge_interim([m for m in stream.messages if m.status < 200], interim)
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
              != (final.status, final.body, trailers_due(final))):
            faults.append(f"difference: {first} is not {final}")
        elif (got := sorted((n.lower(), v) for n, v in first.fields)) != (
                due := relayed(final, method, correlation)):
            faults.append(f"difference: {got} is not {due}")
        if len(finals) == 1 and not cut:
            faults.append(f"silence: no second answer after {first}")
        if first.get(b"alt-svc") or b"evil" in (first.get(b"location") or b""):
            faults.append(f"leads away: {first}")
    if len(finals) > 1 and (finals[1].status != 200
                            or finals[1].body != b"for " + address.encode()):
        faults.append(f"the second request was answered with {finals[1]}")
    tried = sum(e["requestData"].get("attempts", 1) for e in events if "requestData" in e)
    if tried != len(seen.requests):
        faults.append(f"hidden: {tried} recorded, {len(seen.requests)} requests")
    if first is not None and first.status != 502 and events:
        faults += judge_answer_record(events[0], first, correlation)
    return what, faults

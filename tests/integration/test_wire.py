"""Whatever arrives on either side, what leaves parses strictly as exactly what was recorded."""

import asyncio
import socket
import sys

import pytest

import support

sys.path.insert(0, str(support.ROOT / "tests" / "wire"))

import campaign  # noqa: E402  pylint: disable=wrong-import-position
import cases  # noqa: E402  pylint: disable=wrong-import-position
import channel  # noqa: E402  pylint: disable=wrong-import-position
import direct  # noqa: E402  pylint: disable=wrong-import-position
import strict  # noqa: E402  pylint: disable=wrong-import-position
import verdict  # noqa: E402  pylint: disable=wrong-import-position

SEED = "short"
OTHERWISE = campaign.Proxy(trusts=True, passes=True)
HEADERS = campaign.Proxy(headers=True)
GET = b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def check(result, *wanted):
    """No fault, and the run was not idle."""
    assert not result.faults, "\n".join(f"case {n}: {f}" for n, f in result.faults[:5])
    assert all(result.counts[what] >= 20 for what in wanted), result


@pytest.mark.parametrize("proxy", campaign.PROXIES, ids=str)
def test_hostile_requests(tmp_path, pki, proxy):
    batch = cases.every_request() + [cases.request_case(SEED, n) for n in range(600)]
    check(campaign.run(tmp_path / "k", pki, batch, proxy=proxy), "forwarded", "refused", "silent")


@pytest.mark.parametrize("proxy", [campaign.Proxy(), OTHERWISE, HEADERS], ids=str)
def test_hostile_requests_are_to_another_server_what_was_recorded(tmp_path, pki, proxy):
    """nginx, as lenient as it is, understands of them what it understands without keytrail."""
    batch = cases.every_request() + [cases.request_case(SEED, n) for n in range(600)]
    result = direct.run(tmp_path / "k", pki, batch, proxy)
    check(result, "forwarded", "refused")
    assert result.counts["understood alone"] > 2 * result.counts["forwarded"]


@pytest.mark.parametrize("proxy", [campaign.Proxy(), OTHERWISE, HEADERS, campaign.Proxy(tls=True)], ids=str)
def test_hostile_answers(tmp_path, pki, proxy):
    batch = cases.every_answer() + [cases.answer_case(SEED, n) for n in range(300)]
    check(campaign.run(tmp_path / "k", pki, batch, True, proxy), "relayed", "refused", "cut")


# ---- the judges themselves ----

@pytest.mark.parametrize("data", [
    GET, GET + GET, GET + b"POST /%41 HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc",
    CHUNKED + b"0\r\n\r\n",
    CHUNKED + b"2;a=\"b;\"\r\nab\r\n1\r\nc\r\n0\r\nX-Sum: 1\r\n\r\n", b"OPTIONS * HTTP/1.1\r\nHost: x:1\r\n\r\n",
    b"GET http://x/a HTTP/1.1\r\nHost: X\r\n\r\n"])
def test_the_strict_reader_reads_what_is_legal(data):
    for size in (1, 7, len(data)):
        stream = strict.Stream()
        for at in range(0, len(data), size):
            stream.feed(data[at:at + size])
        assert stream.messages and all(m.whole for m in stream.messages) and not stream.finish()


@pytest.mark.parametrize("data", [
    b"\r\n" + GET, b"GET  /a HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /a HTTP/1.1\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", b"GET /a HTTP/1.1\nHost: x\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: x\r\n b\r\n\r\n", b"GET /a HTTP/1.1\r\nHost : x\r\n\r\n",
    b"GET /a HTTP/1.2\r\nHost: x\r\n\r\n", b"GET a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /% HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /a HTTP/1.1\r\nHost: x\r\nX: \0\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\na",
    b"GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\na",
    b"GET /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: x, chunked\r\n\r\n",
    b"GET http://y/ HTTP/1.1\r\nHost: x\r\n\r\n", CHUNKED + b"0x1\r\na\r\n", CHUNKED + b"1\r\nab\r\n",
    CHUNKED + b"1 \r\na\r\n", CHUNKED + b"1\na\r\n", CHUNKED + b"0\r\nHost: x\r\n\r\n",
    CHUNKED + b"ffffffffffffffff\r\n", CHUNKED + b"0\r\nX: y\n\r\n"])
def test_the_strict_reader_refuses_what_is_not(data):
    assert strict.read_all(data)[1]


def request(data, **fields):
    stream, wrong = strict.read_all(data)
    assert wrong is None
    message, = stream.messages
    message.id = "an id"
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def event(**over):
    return {"action": "kms.secrets.list", "correlationId": "an id", "correlationSource": "service",
            "id": "its own", "outcome": "success", "reason": {"reasonCode": 200},
            "initiator": {"host": {"address": "127.0.0.9", "addressType": "IPv4", "agent": "a"}},
            "requestData": {"method": "GET", "path": "/api/v2/keys"}, **over}


def refusal(**over):
    return event(correlationSource="request", outcome="failure",
                 reason={"reasonCode": 400, "reasonForFailure": "bad_host"}, **over)


def without(data, *lines):
    for line in lines:
        assert line in data
        data = data.replace(line, b"", 1)
    return data


ID = "0b9a1e6e-86e2-4d5e-9b65-3f4f0f1a2b3c"
LIST = b"GET /api/v2/keys HTTP/1.1\r\nHost: x\r\n\r\n"
WAY = verdict.Way(b"127.0.0.9", b"kms")
OURS = (b"Via: 1.1 keytrail\r\nForwarded: for=127.0.0.9;proto=http\r\nX-Forwarded-For: 127.0.0.9\r\n"
        b"X-Forwarded-Proto: http\r\n")
GOT = b"GET /api/v2/keys HTTP/1.1\r\nHost: kms\r\nCorrelation-Id: its own\r\n" + OURS + b"\r\n"
OK = (b"HTTP/1.1 200 OK\r\nCorrelation-Id: an id\r\nVia: 1.1 keytrail\r\nContent-Length: 13\r\n\r\n"
      b"for 127.0.0.9")
REFUSED = (b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 49\r\n"
           b"Correlation-Id: an id\r\nVia: 1.1 keytrail\r\nConnection: close\r\n\r\n"
           b'{"resources":[{"reasons":[{"code":"BAD_HOST"}]}]}')
PUT = (b"POST /api/v2/keys HTTP/1.1\r\nHost: x\r\nBluemix-Instance: a\r\nX-A: b\r\nX-A: c\r\n"
       b"Content-Length: 2\r\n\r\n{}")
PUT_GOT = (b"POST /api/v2/keys HTTP/1.1\r\nHost: kms\r\nBluemix-Instance: a\r\nX-A: b\r\nX-A: c\r\n"
           b"Correlation-Id: its own\r\n" + OURS
           + b"Content-Type: application/octet-stream\r\nContent-Length: 2\r\n\r\n{}")
PUT_EVENT = event(action="kms.secrets.create", requestData={
    "method": "POST", "path": "/api/v2/keys", "instanceId": "a"})
# What the client sent, the back end got, the trail says, the client got; how the complaint begins.
JUDGED = {
    "all is well": (LIST, [GOT], [event()], OK, None),
    "a body": (PUT, [PUT_GOT], [PUT_EVENT], OK, None),
    "a refusal": (LIST, [], [refusal()], REFUSED, None),
    "an end within the head": (LIST[:-2], [], [], b"", None),
    "a request without an event": (LIST + LIST, [GOT, GOT], [event()], OK, "hidden"),
    "a request that nobody sent": (b"", [GOT], [event()], OK, "hidden"),
    "another target": (LIST, [GOT.replace(b"keys", b"rings")], [event()], OK, "difference"),
    "another field": (LIST, [GOT.replace(b"Via", b"A: b\r\nVia")], [event()], OK, "difference"),
    "a field less": (PUT, [without(PUT_GOT, b"X-A: c\r\n")], [PUT_EVENT], OK, "difference"),
    "fields in another order": (PUT, [PUT_GOT.replace(b"X-A: b\r\nX-A: c", b"X-A: c\r\nX-A: b")],
                                [PUT_EVENT], OK, "difference"),
    "another body": (PUT, [PUT_GOT.replace(b"{}", b"[]")], [PUT_EVENT], OK, "difference"),
    "a body of no type": (PUT, [without(PUT_GOT, b"Content-Type: application/octet-stream\r\n")],
                          [PUT_EVENT], OK, "non-canonical"),
    "a form": (PUT, [PUT_GOT.replace(b"application/octet-stream", b"multipart/mixed")], [PUT_EVENT], OK,
               "non-canonical"),
    "the client's Host": (LIST, [GOT.replace(b"Host: kms", b"Host: x")], [event()], OK, "difference"),
    "no Via": (LIST, [without(GOT, b"Via: 1.1 keytrail\r\n")], [event()], OK, "difference"),
    "another's Via": (LIST, [GOT.replace(b"Via: 1.1", b"Via: 1.1 x, 1.1")], [event()], OK, "difference"),
    "another address": (LIST, [GOT.replace(b"For: 127.0.0.9", b"For: 1.2.3.4")], [event()], OK,
                        "difference"),
    "another way": (LIST, [GOT.replace(b"for=127.0.0.9", b"for=1.2.3.4")], [event()], OK, "difference"),
    "another scheme": (LIST, [GOT.replace(b"Proto: http", b"Proto: https")], [event()], OK,
                       "difference"),
    "no correlation": (LIST, [without(GOT, b"Correlation-Id: its own\r\n")], [event()], OK,
                       "difference"),
    "another correlation": (LIST, [GOT.replace(b"its own", b"another")], [event()], OK, "recorded"),
    "its correlation lost": (LIST.replace(b"\r\n\r\n", b"\r\nCorrelation-Id: theirs\r\n\r\n"), [GOT],
                             [event()], OK, "difference"),
    "another instance": (PUT, [PUT_GOT], [event(**{**PUT_EVENT, "requestData": {
        **PUT_EVENT["requestData"], "instanceId": "b"}})], OK, "recorded"),
    "another name": (LIST, [GOT], [event(action="kms.secrets.read")], OK, "recorded"),
    "a name that fits less well": (
        LIST.replace(b"keys", b"keys/registrations"), [GOT.replace(b"keys", b"keys/registrations")],
        [event(action="kms.secrets.read", requestData={"method": "GET", "path": "/api/v2/keys/{id}"})], OK,
        "recorded"),
    "another method": (LIST, [GOT], [event(requestData={"method": "PUT"})], OK, "recorded"),
    "no name": (LIST, [GOT], [event(requestData={"method": "GET", "unmatched": True})], OK, "recorded"),
    "another outcome": (LIST, [GOT], [event(outcome="failure")], OK, "recorded"),
    "an event for nothing": (LIST, [GOT], [event(), event(correlationId="b")], OK + OK, "an event"),
    "another status": (LIST, [GOT], [event(reason={"reasonCode": 404})], OK, "the client got 200"),
    "silence": (LIST, [], [], b"", "silence"),
    "silence after one": (LIST + LIST, [GOT], [event()], OK, "silence"),
    "silence about a head that is none": (LIST + b"\0\r\n\r\n", [GOT], [event()], OK, "silence"),
    "silence about half a body": (LIST + PUT[:-1], [GOT], [event()], OK, "silence"),
    "no answer": (LIST, [GOT], [event()], b"", "0 answers"),
    "an answer too many": (LIST, [GOT], [event()], OK + OK, "the client got what is no answer"),
    "an end that nobody asked for": (LIST, [GOT], [event()],
                                     OK.replace(b"Via", b"Connection: close\r\nVia"), "difference"),
    "another's answer": (LIST, [GOT], [event()], OK.replace(b"0.9", b"0.8"), "difference"),
    "another's identity": (LIST, [GOT], [event()], OK.replace(b"an id", b"no id"), "difference"),
    "a field too many": (LIST, [GOT], [event()], OK.replace(b"Via", b"A: b\r\nVia"), "difference"),
    "another reason": (LIST, [], [refusal()], REFUSED.replace(b"BAD_HOST", b"OBS_FOLD"), "difference"),
    "a refusal that goes on": (LIST, [], [refusal()], without(REFUSED, b"Connection: close\r\n"),
                               "difference"),
    "hop-by-hop": (LIST, [GOT.replace(b"Via", b"TE: a\r\nVia")], [event()], OK, "non-canonical"),
}


CHECKED = LIST.replace(b"GET", b"POST").replace(
    b"\r\n\r\n", b"\r\nConnection: X-A\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-A: 1\r\nX-B: 2\r\n\r\n")
CHECKED_GOT = GOT.replace(b"GET", b"POST").replace(
    b"\r\n\r\n", b"\r\nContent-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\nX-B: 2\r\n\r\n")
TOLD = LIST.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 1.2.3.4, 127.1.1.1\r\nVia: 1.1 (x\r\nForwarded: for=y\r\n"
                    b"X-Forwarded-Proto: https\r\nX-Real-IP: 1.2.3.4\r\n\r\n")
TOLD_GOT = (GOT.replace(b"Host: kms", b"Host: x").replace(b"For: ", b"For: 1.2.3.4, 127.1.1.1, ")
            .replace(b"Forwarded: ", b"Forwarded: for=y, ").replace(b"Proto: http", b"Proto: https")
            .replace(b"Correlation", b"X-Real-IP: 1.2.3.4\r\nCorrelation"))
FROM_TOLD = event(initiator={"host": {"address": "1.2.3.4", "addressType": "IPv4", "peer": "127.0.0.9"}})
CREATE = event(action="kms.secrets.create", requestData={"method": "POST", "path": "/api/v2/keys"})
JUDGED |= {
    "trailers": (CHECKED, [CHECKED_GOT], [CREATE], OK, None),
    "a trailer that Connection names": (CHECKED, [CHECKED_GOT.replace(b"X-B", b"X-A: 1\r\nX-B")], [CREATE],
                                        OK, "difference"),
    "a trailer less": (CHECKED, [without(CHECKED_GOT, b"X-B: 2\r\n")], [CREATE], OK, "difference"),
    "recorded from elsewhere": (LIST, [GOT], [FROM_TOLD], OK, "recorded"),
}
# Of a client that is trusted, whose host is passed.
JUDGED_TRUSTED = {
    "all is well": (TOLD, [TOLD_GOT], [FROM_TOLD], OK, None),
    "not believed": (TOLD, [TOLD_GOT], [event()], OK, "recorded"),
    "our Host": (TOLD, [TOLD_GOT.replace(b"Host: x", b"Host: kms")], [FROM_TOLD], OK, "difference"),
    "an address less": (TOLD, [TOLD_GOT.replace(b", 127.1.1.1", b"")], [FROM_TOLD], OK, "difference"),
    "a way less": (TOLD, [TOLD_GOT.replace(b"for=y, ", b"")], [FROM_TOLD], OK, "difference"),
    "an open comment": (TOLD, [TOLD_GOT.replace(b"Via: ", b"Via: 1.1 (x, ")], [FROM_TOLD], OK, "difference"),
    "our scheme": (TOLD, [TOLD_GOT.replace(b"https", b"http")], [FROM_TOLD], OK, "difference"),
    "a field less": (TOLD, [without(TOLD_GOT, b"X-Real-IP: 1.2.3.4\r\n")], [FROM_TOLD], OK, "difference"),
}


LAST = LIST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
LATE = event(reason={"reasonCode": 400, "reasonForFailure": "after_close"})
# What the client sent, how many events tell of the rest, is that a fault.
JUDGED_LATE = {
    "all is well": ([LAST + LIST], 1, False), "silence": ([LAST + LIST], 0, True),
    "one each": ([LAST + LIST + LIST], 2, True), "nothing came": ([LAST], 0, False),
    "an event of nothing": ([LAST], 1, True), "line ends": ([LAST + b"\r\n"], 1, True),
    "too late": ([LAST, LIST], 0, False), "in time": ([LAST, LIST], 1, False),
}


@pytest.mark.parametrize("label", JUDGED_LATE)
def test_the_judge_sees_what_comes_late(label):
    parts, late, wrong = JUDGED_LATE[label]
    seen = campaign.Seen()
    seen.requests, seen.events, seen.end = [request(GOT)], [event()], "closed"
    seen.late, seen.client = [LATE] * late, OK.replace(b"Via", b"Connection: close\r\nVia")
    _, faults = verdict.judge_request(parts, seen, verdict.Routes(), WAY)
    assert complains(faults, "silence" if wrong else None), faults


def complains(faults, want):
    return faults == [] if want is None else any(fault.startswith(want) for fault in faults)


@pytest.mark.parametrize("label", JUDGED)
def test_the_judge_sees(label):
    judge(*JUDGED[label], WAY)


@pytest.mark.parametrize("label", JUDGED_TRUSTED)
def test_the_judge_sees_of_who_is_trusted(label):
    judge(*JUDGED_TRUSTED[label], WAY._replace(trusted=True, passes=True))


def judge(sent, got, events, client, want, way):
    seen = campaign.Seen()
    seen.requests, seen.events, seen.client, seen.end = [request(g) for g in got], events, client, "closed"
    for number, extra in enumerate(seen.requests[1:]):
        extra.id = f"another {number}"
    _, faults = verdict.judge_request([sent], seen, verdict.Routes(), way)
    assert complains(faults, want), faults


ANSWER = b"HTTP/1.1 404 No\r\nX-A: b\r\nLocation: https://localhost/x\r\nContent-Length: 2\r\n\r\n{}"
ANSWER_GOT = (b"HTTP/1.1 404 No\r\nX-A: b\r\nLocation: /x\r\nVia: 1.1 keytrail\r\n"
              b"Content-Length: 2\r\n\r\n{}")
CHUNKS = b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
CHUNKS_GOT = CHUNKS.replace(b"Tr", b"Via: 1.1 keytrail\r\nTr")
NOT_FOUND = event(reason={"reasonCode": 404}, correlationSource="request", outcome="failure")
GO_ON, HINT = b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Hint\r\n\r\n"
# What the back end answered first, the client got of it, the trail says; how the complaint begins.
JUDGED_ANSWERS = {
    "all is well": (ANSWER, ANSWER_GOT + OK, [NOT_FOUND, event()], None),
    "chunks": (CHUNKS, CHUNKS_GOT + OK, [NOT_FOUND, event()], None),
    "other bytes": (ANSWER, ANSWER_GOT.replace(b"{}", b"[]") + OK, [NOT_FOUND, event()], "difference"),
    "a field less": (ANSWER, without(ANSWER_GOT, b"X-A: b\r\n") + OK, [NOT_FOUND, event()], "difference"),
    "a field more": (ANSWER, ANSWER_GOT.replace(b"X", b"Y: z\r\nX") + OK, [NOT_FOUND, event()],
                     "difference"),
    "a way past us": (ANSWER, ANSWER_GOT.replace(b"/x", b"https://localhost/x") + OK,
                      [NOT_FOUND, event()], "difference"),
    "no Via": (ANSWER, without(ANSWER_GOT, b"Via: 1.1 keytrail\r\n") + OK, [NOT_FOUND, event()],
               "difference"),
    "an end that nobody asked for": (ANSWER, ANSWER_GOT.replace(b"Via", b"Connection: close\r\nVia"),
                                     [NOT_FOUND, event()], "difference"),
    "another's correlation": (ANSWER.replace(b"X-A: b", b"Correlation-Id: %s" % ID.encode()),
                              ANSWER_GOT.replace(b"X-A: b", b"Correlation-Id: %s" % ID.encode()) + OK,
                              [NOT_FOUND, event()], "recorded"),
    "another status": (ANSWER, ANSWER_GOT + OK, [event(), event()], "the client got 404"),
    "no second answer": (ANSWER, ANSWER_GOT, [NOT_FOUND, event()], "silence"),
    "another's second answer": (ANSWER, ANSWER_GOT + OK.replace(b"0.9", b"0.8"), [NOT_FOUND, event()],
                                "the second request"),
    "no event": (ANSWER, ANSWER_GOT + OK, [NOT_FOUND], "hidden"),
    "a 100, another's dropped": (GO_ON + HINT + ANSWER, GO_ON + ANSWER_GOT + OK, [NOT_FOUND, event()], None),
    "no 100": (GO_ON + ANSWER, ANSWER_GOT + OK, [NOT_FOUND, event()], "difference: interim"),
    "two of one": (GO_ON + ANSWER, GO_ON * 2 + ANSWER_GOT + OK, [NOT_FOUND, event()], "difference: interim"),
    "a hint": (HINT + ANSWER, HINT + ANSWER_GOT + OK, [NOT_FOUND, event()], "difference: interim"),
    "hints without end": (HINT * 11 + ANSWER, ANSWER_GOT + OK, [NOT_FOUND, event()], "difference"),
}


@pytest.mark.parametrize("label", JUDGED_ANSWERS)
def test_the_judge_sees_of_answers(label):
    answer, client, events, want = JUDGED_ANSWERS[label]
    seen = campaign.Seen()
    seen.requests, seen.events, seen.client, seen.end = [None, None], events, client, "closed"
    _, faults = verdict.judge_answer("127.0.0.9", b"GET", campaign.answer_script(b"GET", [answer]), seen)
    assert complains(faults, want), faults


def understood(target, **over):
    return direct.Understood({"id": "an id", "method": "GET", "target": target, "status": 200, **over})


DIRECT = {
    "all is well": ([understood("/api/v2/keys")], [event()], None),
    "absolute and not": ([understood("http://x/api/v2/keys")], [event()], None),
    "more than was forwarded": ([understood("/api/v2/keys"), understood("/")], [event(), refusal()], None),
    "more than was recorded": ([understood("/api/v2/keys"), understood("/")], [event()], "silence"),
    "no event": ([understood("/api/v2/keys")], [], "hidden: no event"),
    "another target": ([understood("/api/v2/keys/")], [event()], "difference"),
    "another method": ([understood("/api/v2/keys", method="PUT")], [event()], "difference"),
    "another body": ([understood("/api/v2/keys", body="{}")], [event()], "difference"),
    "half a body": ([understood("/api/v2/keys", body="{}", status=499)], [event()], "difference"),
    "another credential": ([understood("/api/v2/keys", authorization="Bearer a")], [event()], "difference"),
    "another coding": ([understood("/api/v2/keys", transfer_encoding="chunked")], [event()], "difference"),
    "another correlation": ([understood("/api/v2/keys", correlation_id="a")], [event()], "difference"),
    "nothing": ([], [event()], "hidden: nginx alone"),
    "less than was forwarded": ([understood("/api/v2/keys")], [event(), event(correlationId="b")],
                                "hidden: nginx alone"),
    "refused alone": ([understood("/api/v2/keys", status=400)], [event(), event(correlationId="b")],
                      None),
}


@pytest.mark.parametrize("label", DIRECT)
def test_the_judge_sees_what_is_understood_directly(label):
    alone, events, want = DIRECT[label]
    seen = campaign.Seen()
    seen.requests = [understood("/api/v2/keys", id=e["correlationId"]) for e in events or [event()]
                     if verdict.is_answered(e)]
    seen.events = events
    _, faults = direct.judge(seen, alone, verdict.Routes())
    assert complains(faults, want), faults


@pytest.mark.parametrize("last", ["close", "cut"])
def test_a_channel_that_this_side_has_ended_tells_an_end_in_order_from_a_cut(pki, last):
    async def ends():
        here, there = [await asyncio.open_connection(sock=s) for s in socket.socketpair()]
        ours, theirs = await asyncio.gather(
            channel.over(*here, pki.client(), server_hostname="localhost"),
            channel.over(*there, pki.server(), server_side=True))
        await ours.end("notify")
        await theirs.end(last)
        try:
            return await ours.read()
        except OSError:
            return "cut"
        finally:
            here[1].close()
            there[1].close()

    assert asyncio.run(ends()) == (b"" if last == "close" else "cut")


@pytest.mark.parametrize("sends", [True, False])
def test_only_who_gets_nothing_when_nothing_is_sent_hangs(monkeypatch, sends):
    monkeypatch.setattr(campaign, "PATIENCE", 0)

    async def outcome():
        came = asyncio.Event()

        class Peer:
            read = came.wait

        class Sender:
            """Sends at each look; at the fifth it comes."""
            looks = 0

            @property
            def sent(self):
                self.looks += sends
                if self.looks == 5:
                    came.set()
                return self.looks

        try:
            return await campaign.read_patiently(Peer, Sender())
        except asyncio.TimeoutError:
            return "hangs"

    assert asyncio.run(outcome()) == (True if sends else "hangs")


def test_a_failing_case_shrinks_to_what_fails():
    def fails(variants):
        return [n for n, v in enumerate(variants) if b"X: \0" in b"".join(v)]

    parts = [GET, b"POST / HTTP/1.1\r\nA: b\r\n", b"X: \0\r\n\r\n" + b"y" * 100]
    assert len(b"".join(campaign.shrink(fails, parts))) <= 8

"""Whatever arrives on either side, what leaves parses strictly as exactly what was recorded."""

import collections
import sys

import pytest

import support

sys.path.insert(0, str(support.ROOT / "tests" / "wire"))

import campaign  # noqa: E402  pylint: disable=wrong-import-position
import cases  # noqa: E402  pylint: disable=wrong-import-position
import direct  # noqa: E402  pylint: disable=wrong-import-position
import strict  # noqa: E402  pylint: disable=wrong-import-position

SEED = "short"
GET = b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def check(result, *wanted):
    """No fault, and the run was not idle."""
    assert not result.faults, "\n".join(f"case {n}: {f}" for n, f in result.faults[:5])
    assert all(result.counts[what] >= 20 for what in wanted), result


def test_hostile_requests(tmp_path, pki):
    batch = cases.every_request() + [cases.request_case(SEED, n) for n in range(600)]
    check(campaign.run(tmp_path / "k", pki, batch), "forwarded", "refused", "silent")


def test_hostile_requests_are_to_another_server_what_was_recorded(tmp_path, pki):
    """nginx, as lenient as it is, understands of them what it understands without keytrail."""
    batch = cases.every_request() + [cases.request_case(SEED, n) for n in range(600)]
    result = direct.run(tmp_path / "k", pki, batch)
    check(result, "forwarded", "refused")
    assert result.counts["understood alone"] > 2 * result.counts["forwarded"]


def test_hostile_answers(tmp_path, pki):
    batch = cases.every_answer() + [cases.answer_case(SEED, n) for n in range(300)]
    check(campaign.run(tmp_path / "k", pki, batch, answers=True), "relayed", "refused", "cut")


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
            "outcome": "success", "reason": {"reasonCode": 200},
            "requestData": {"method": "GET", "path": "/api/v2/keys"}, **over}


LIST = b"GET /api/v2/keys HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
JUDGED = collections.OrderedDict({
    "all is well": (LIST, [LIST], [event()], OK, None),
    "an end within the head": (LIST[:-2], [], [], b"", None),
    "a request without an event": (LIST + LIST, [LIST, LIST], [event()], OK, "hidden"),
    "a request that nobody sent": (b"", [LIST], [event()], OK, "hidden"),
    "another target": (LIST, [LIST.replace(b"keys", b"rings")], [event()], OK, "difference"),
    "another field": (LIST, [LIST.replace(b"\r\n\r\n", b"\r\nA: b\r\n\r\n")], [event()], OK, "difference"),
    "another name": (LIST, [LIST], [event(action="kms.secrets.read")], OK, "recorded"),
    "another method": (LIST, [LIST], [event(requestData={"method": "PUT"})], OK, "recorded"),
    "an event for nothing": (LIST, [LIST], [event(), event(correlationId="b")], OK + OK, "an event"),
    "another status": (LIST, [LIST], [event(reason={"reasonCode": 404})], OK, "the client got 200"),
    "silence": (LIST, [], [], b"", "silence"),
    "no answer": (LIST, [LIST], [event()], b"", "0 answers"),
    "an answer too many": (LIST, [LIST], [event()], OK + OK, "the client got what is no answer"),
    "hop-by-hop": (LIST, [LIST.replace(b"\r\n\r\n", b"\r\nTE: a\r\n\r\n")], [event()], OK, "non-canonical"),
})


@pytest.mark.parametrize("label", JUDGED)
def test_the_judge_sees(label):
    sent, got, events, client, want = JUDGED[label]
    seen = campaign.Seen()
    seen.requests, seen.events, seen.client, seen.end = [request(g) for g in got], events, client, "closed"
    for number, extra in enumerate(seen.requests[1:]):
        extra.id = f"another {number}"
    _, faults = campaign.judge_request([sent], seen, campaign.Routes())
    if want is None:
        assert faults == []
    else:
        assert any(fault.startswith(want) for fault in faults)


def understood(target, **over):
    return direct.Understood({"id": "an id", "method": "GET", "target": target, "status": 200, **over})


DIRECT = {
    "all is well": ([understood("/api/v2/keys")], [event()], None),
    "absolute and not": ([understood("http://x/api/v2/keys")], [event()], None),
    "more than was forwarded": ([understood("/api/v2/keys"), understood("/")], [event()], None),
    "no event": ([understood("/api/v2/keys")], [], "hidden: no event"),
    "another target": ([understood("/api/v2/keys/")], [event()], "difference"),
    "another method": ([understood("/api/v2/keys", method="PUT")], [event()], "difference"),
    "nothing": ([], [event()], "hidden: nginx alone"),
}


@pytest.mark.parametrize("label", DIRECT)
def test_the_judge_sees_what_is_understood_directly(label):
    alone, events, want = DIRECT[label]
    seen = campaign.Seen()
    seen.requests, seen.events = [understood("/api/v2/keys")], events
    _, faults = direct.judge(seen, alone, campaign.Routes())
    if want is None:
        assert faults == []
    else:
        assert any(fault.startswith(want) for fault in faults)


def test_a_failing_case_shrinks_to_what_fails():
    def fails(variants):
        return [n for n, v in enumerate(variants) if b"X: \0" in b"".join(v)]

    parts = [GET, b"POST / HTTP/1.1\r\nA: b\r\n", b"X: \0\r\n\r\n" + b"y" * 100]
    assert len(b"".join(campaign.shrink(fails, parts))) <= 8

"""GET /events: the trail, asked over the admin listener."""

import http.client
import json
import shutil
import socket
import threading
import urllib.error
import urllib.parse

import pytest

from backend import ok
from support import new_id, segments, wait_for
from test_proof import calls

KEY = "02fd6835-6001-4482-a892-13bd2085f75d"

TOKEN = "an-admin-token-of-this-test"


def ask(sidecar, **parameters):
    headers = {"Authorization": f"Bearer {TOKEN}"}
    query = urllib.parse.urlencode(parameters)
    return json.loads(sidecar.fetch("admin", f"/events?{query}", **headers))


def refusal(sidecar, query, **headers):
    with pytest.raises(urllib.error.HTTPError) as refused:
        sidecar.fetch("admin", f"/events?{query}", **headers)
    return refused.value.code, refused.value.read().decode()


def request_head(target):
    return (f"GET {target} HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {TOKEN}\r\n\r\n").encode()


@pytest.fixture
def guarded(keytrail, tmp_path):
    """keytrail(), with a token on its admin listener."""
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    token.chmod(0o600)

    def make(backend, config=None):
        return keytrail(backend, {"admin": {"token": {"file": str(token)}}, **(config or {})})
    return make


def test_pages_are_the_trail_across_segments(guarded, raw_backend):
    sidecar = guarded(raw_backend(ok()), {"audit": {"segment_size": 65536, "ring_size": 65536}})
    calls(sidecar, 250)
    assert len(list(sidecar.trail_dir.glob("*.jsonl"))) > 2
    wanted = sidecar.events()
    found, cursor, more = [], "1", True
    while more and len(found) < len(wanted):
        page = ask(sidecar, cursor=cursor, limit=60)
        found += page["events"]
        cursor, more = page["next"], page["more"]
    assert found[:len(wanted)] == wanted


def test_filters_choose_calls(guarded, raw_backend):
    sidecar = guarded(raw_backend(ok()))
    correlation = new_id()
    assert sidecar.call("GET", "/api/v2/keys", {"Correlation-Id": correlation}).status == 200
    assert sidecar.call("GET", f"/api/v2/keys/{KEY}", {"Correlation-Id": new_id()}).status == 200
    event = sidecar.event(correlation)
    assert ask(sidecar, action="kms.secrets.list")["events"] == [event]
    assert ask(sidecar, correlationId=correlation)["events"] == [event]
    assert ask(sidecar, correlationId=correlation, outcome="failure")["events"] == []
    assert ask(sidecar, initiator="IBMid-nobody")["events"] == []
    at, seq = event["trail"]["at"], event["trail"]["seq"]
    assert event in ask(sidecar, since=at)["events"]
    assert event not in ask(sidecar, until=at)["events"]
    assert ask(sidecar, since=seq, until=seq + 1)["events"] == [event]


def indexes(sidecar):
    return {path.stem: path.stat() for path in sidecar.trail_dir.glob("index/*.idx")}


def sealed(sidecar):
    return {path.stem for path in segments(sidecar.trail_dir)[:-1]}


def test_sealed_segments_are_indexed_and_found_again(guarded, raw_backend):
    sidecar = guarded(raw_backend(ok()), {"audit": {"segment_size": 65536, "ring_size": 65536}})
    correlation = new_id()
    sidecar.call("GET", "/api/v2/keys", {"Correlation-Id": correlation})
    calls(sidecar, 400)
    wait_for(lambda: len(indexes(sidecar)) >= 3, "indexes")
    event = sidecar.event(correlation)
    assert ask(sidecar, correlationId=correlation)["events"] == [event]
    assert ask(sidecar, correlationId=new_id())["events"] == []
    sidecar.stop()
    shutil.rmtree(sidecar.trail_dir / "index")
    sidecar.start()
    wait_for(lambda: set(indexes(sidecar)) >= sealed(sidecar), "indexes of an earlier run")
    assert ask(sidecar, correlationId=correlation)["events"] == [event]


def test_a_pending_call_is_a_row_until_it_is_closed(guarded, raw_backend):
    go_on = threading.Event()

    def script(connection):
        request = connection.read_request()
        go_on.wait(60)
        connection.send(ok(extra=f"Correlation-Id: {request.get('Correlation-Id')}\r\n"))

    backend = raw_backend(script)
    sidecar = guarded(backend)
    with sidecar.client() as c:
        c.send_request("DELETE", f"/api/v2/keys/{KEY}", {"Correlation-Id": new_id()})
        backend.wait(lambda b: b.requests)
        pending, = ask(sidecar, action="kms.secrets.delete")["events"]
        assert (pending["outcome"], pending["kind"]) == ("pending", "intent")
        go_on.set()
        assert c.read_response().status == 200
    closed, = ask(sidecar, action="kms.secrets.delete")["events"]
    assert (closed["id"], closed["outcome"]) == (pending["id"], "success")
    assert ask(sidecar, outcome="pending")["events"] == []


def test_wrong_parameters_are_named_and_not_repeated(guarded, raw_backend):
    sidecar = guarded(raw_backend(ok()))
    token = {"Authorization": f"Bearer {TOKEN}"}
    for query, word in {"limit=0": "limit", "since=c4n4ry": "since", "c4n4ry=1": "unknown",
                        "limit=1&limit=1": "limit", "outcome=c4n4ry": "outcome",
                        "c4n4ry": "of the form"}.items():
        status, text = refusal(sidecar, query, **token)
        assert status == 400 and word in text and "c4n4ry" not in text
    assert sidecar.own("keytrail.access") == []


def test_the_token_is_needed_and_only_the_admin_listener_answers(guarded, raw_backend):
    sidecar = guarded(raw_backend(ok()))
    assert refusal(sidecar, "")[0] == 401
    with pytest.raises(urllib.error.HTTPError) as refused:
        sidecar.fetch("metrics", "/events")
    assert refused.value.code == 404


def test_each_query_is_recorded_without_what_was_looked_for(guarded, raw_backend):
    sidecar = guarded(raw_backend(ok()))
    ask(sidecar, initiator="c4n4ry", limit=3)
    access, = sidecar.wait_own("keytrail.access")
    assert access["details"] == {"address": "127.0.0.1", "filter": "initiator, limit",
                                 "page": "/events", "role": "viewer", "token": "admin.token"}
    assert "c4n4ry" not in json.dumps(sidecar.events())


def test_who_asks_is_known_by_the_name_of_the_token(keytrail, tmp_path):
    tokens = []
    for name, role in ("alice", "viewer"), ("oscar", "operator"):
        (tmp_path / name).write_text(f"the-token-of-{name}")
        (tmp_path / name).chmod(0o600)
        tokens.append({"name": name, "role": role, "token": {"file": str(tmp_path / name)}})
    sidecar = keytrail(None, {"admin": {"token": None, "tokens": tokens}})
    assert refusal(sidecar, "")[0] == 401
    for name in "alice", "oscar":
        sidecar.fetch("admin", "/events", Authorization=f"Bearer the-token-of-{name}")
    assert [(e["details"]["token"], e["details"]["role"])
            for e in sidecar.wait_own("keytrail.access", 2)] == [("alice", "viewer"),
                                                                 ("oscar", "operator")]
    (tmp_path / "alice").write_text("another-one-of-alice")
    sidecar.reload()
    assert refusal(sidecar, "", Authorization="Bearer the-token-of-alice")[0] == 401
    sidecar.fetch("admin", "/events", Authorization="Bearer another-one-of-alice")


def test_what_is_refused_is_recorded_first_and_at_the_end(guarded):
    sidecar = guarded(None)
    for _ in range(4):
        assert refusal(sidecar, "", Authorization="Bearer c4n4ry")[0] == 401
    assert refusal(sidecar, "", Host="c4n4ry.example")[0] == 403
    assert sidecar.metric("keytrail_admin_refused_total", reason="wrong_token") == 4
    assert sidecar.metric("keytrail_admin_refused_total", reason="host") == 1
    sidecar.stop()
    assert [(e["outcome"], e["details"]) for e in sidecar.own("keytrail.access")] == [
        ("failure", {"address": "127.0.0.1", "count": 1, "reason": "wrong_token"}),
        ("failure", {"address": "127.0.0.1", "count": 1, "reason": "host"}),
        ("failure", {"address": "127.0.0.1", "count": 3, "reason": "wrong_token"})]
    assert "c4n4ry" not in json.dumps(sidecar.events())


def test_requests_may_follow_each_other_without_waiting(guarded, raw_backend):
    """Bytes that come while a query runs wait for its answer."""
    sidecar = guarded(raw_backend(ok()))
    calls(sidecar, 1000)
    head = request_head("/events?action=nothing")
    with socket.create_connection(("127.0.0.1", sidecar.ports["admin"]), timeout=60) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(20 * len(head)):
            i %= len(head)
            s.sendall(head[i:i + 1])
        reader = s.makefile("rb")
        for _ in range(20):
            assert json.loads(read_response(reader))["events"] == []


def read_response(reader):
    class Socket:
        def makefile(self, _):
            return reader

    reader.close, close = lambda: None, reader.close
    try:
        response = http.client.HTTPResponse(Socket())
        response.begin()
        assert response.status == 200
        return response.read()
    finally:
        reader.close = close


def test_clients_that_go_away_leave_the_server_well(guarded, raw_backend):
    sidecar = guarded(raw_backend(ok()))
    calls(sidecar, 100)
    head = request_head("/events")
    for _ in range(50):
        with socket.create_connection(("127.0.0.1", sidecar.ports["admin"]), timeout=60) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            s.sendall(head)

    def answered():
        try:
            return ask(sidecar, limit=1)["events"]
        except urllib.error.HTTPError as e:
            assert e.code == 503
            return None
    assert wait_for(answered, "an answer")


def test_a_stop_does_not_wait_for_queries(guarded, raw_backend):
    sidecar = guarded(raw_backend(ok()))
    calls(sidecar, 200)
    head = request_head("/events?action=nothing")
    sockets = [socket.create_connection(("127.0.0.1", sidecar.ports["admin"]), timeout=60)
               for _ in range(8)]
    for s in sockets:
        s.sendall(head * 3)
    sidecar.stop()
    for s in sockets:
        s.close()


# ---- damage that is met ----

def damage(segment, number):
    """One line, in place; what it is then."""
    whole = segment.read_bytes()
    line = next(b for b in whole.splitlines(keepends=True) if b'"seq":%d,' % number in b)
    bad = line.replace(b'"outcome"', b'"outcame"')
    with segment.open("r+b") as f:
        f.seek(whole.index(line))
        f.write(bad)
    return bad


def told_of(sidecar):
    return [(e["details"]["first"], e["details"]["last"]) for e in sidecar.own("keytrail.corrupt")]


def test_damage_that_a_query_meets_is_put_aside_and_recorded_once(guarded):
    """In a sealed segment, which no start looks at; there is no sink."""
    sidecar = guarded(None, {"audit": {"segment_size": 65536}})
    calls(sidecar, 200)
    assert len(segments(sidecar.trail_dir)) > 2
    segment = segments(sidecar.trail_dir)[0]
    whole = segment.read_bytes()
    bad = damage(segment, 10)
    assert ask(sidecar, since=1, limit=50)["damaged"] == 1
    sidecar.wait_own("keytrail.corrupt")
    aside = segment.with_name(segment.name + ".corrupt")
    assert aside.read_bytes() == bad and told_of(sidecar) == [(10, 10)]
    sidecar.kill()
    for _ in range(2):
        sidecar.start()
        assert ask(sidecar, since=10, limit=50)["damaged"] == 1
        sidecar.stop()
    assert aside.read_bytes() == bad and told_of(sidecar) == [(10, 10)]
    segment.write_bytes(whole)  # for the check of the whole trail


def test_damage_that_the_signer_meets_is_put_aside_and_recorded(keytrail, signer):
    """A kill left lines that are not signed, of which a start looks at the last segment's only."""
    sidecar = keytrail(None, {"audit": {"segment_size": 65536, "checkpoint_interval": "1h",
                                        "sign": {"file": str(signer[0])}}})
    calls(sidecar, 200)
    sidecar.kill()
    segment = segments(sidecar.trail_dir)[1]
    number = int(segment.stem) + 7
    bad = damage(segment, number)
    sidecar.start()
    sidecar.wait_own("keytrail.corrupt")
    assert told_of(sidecar) == [(number, number)]
    assert segment.with_name(segment.name + ".corrupt").read_bytes() == bad
    sidecar.stop()
    sidecar.process = None  # the trail is not what it was

"""SIGKILL at any instant: every call that the key service saw has exactly one record.

The oracle is outside: the back end notes each correlation ID before it answers, the clients note the
answers that they got.  KEYTRAIL_KILL_CYCLES says how often the sidecar dies (make crash: CYCLES).
"""

import concurrent.futures
import contextlib
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import threading
import time

import pytest

import http1
from backend import ok
from faults import STALL, is_balanced
from oracle import CALLS, CONFIG, KEY, Oracle, call_until_gone
from support import KEYTRAIL, PATIENCE, merge, new_id, segments, wait_for

CYCLES = int(os.environ.get("KEYTRAIL_KILL_CYCLES", "50"))
SEED = int(os.environ.get("KEYTRAIL_KILL_SEED", time.time_ns() % 10**6))
CLIENTS = 6
OF_ONE_TRAIL = 500  # kills, at most


def check_proof(sidecar, key):
    out = subprocess.run([KEYTRAIL, "verify", sidecar.trail_dir, "--key", key], timeout=PATIENCE,
                         capture_output=True, text=True)
    assert out.returncode == 0, out.stdout + out.stderr


def one_life(sidecar, key, oracle, rng):
    sidecar.start()
    before = len(oracle.answered)
    threads = [threading.Thread(target=call_until_gone, args=(sidecar, oracle, i))
               for i in range(CLIENTS)]
    for t in threads:
        t.start()
    wait_for(lambda: len(oracle.answered) > before, "some traffic")
    time.sleep(rng.uniform(0, 0.12))
    sidecar.kill()
    for t in threads:
        t.join()
    check_proof(sidecar, key)
    # Now and then it dies again while it recovers.
    if rng.random() < 0.3:
        sidecar.spawn()
        time.sleep(rng.uniform(0, 0.03))
        sidecar.kill()
        check_proof(sidecar, key)


@pytest.mark.parametrize("first", range(0, CYCLES, OF_ONE_TRAIL))
def test_every_call_has_one_record_however_the_sidecar_dies(keytrail, raw_backend, signer, first,
                                                            record_property):
    print(f"seed {SEED}")
    rng, cycles = random.Random(SEED + first), min(OF_ONE_TRAIL, CYCLES - first)
    oracle = Oracle()
    sidecar = keytrail(raw_backend(oracle.script), merge(CONFIG, {
        "audit": {"sign": {"file": str(signer[0])}}}))
    sidecar.stop()  # a first checkpoint is there
    for cycle in range(cycles):
        one_life(sidecar, signer[1], oracle, rng)
        if cycle % 50 == 49:
            sidecar.start()
            oracle.check(sidecar.events())
            sidecar.kill()
    sidecar.start()
    unknown = oracle.check(sidecar.events())
    record_property("lives ended by SIGKILL under traffic", cycles)
    record_property("calls reached the service", len(oracle.reached))
    record_property("of them were answered", len(oracle.answered))
    record_property("of them are recorded with outcome unknown", unknown)
    assert unknown > 0 or cycles < 30
    sidecar.stop()
    check_proof(sidecar, signer[1])


def keep_calling(sidecar, oracle, first, over):
    while not over.is_set():
        call_until_gone(sidecar, oracle, first)


@contextlib.contextmanager
def addresses(*names):
    """Ports that stay the same, and nobody else's, whoever listens there."""
    with contextlib.ExitStack() as stack:
        held = {name: stack.enter_context(socket.socket()) for name in names}
        for s in held.values():
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("127.0.0.1", 0))
        yield {name: {"address": f"127.0.0.1:{s.getsockname()[1]}"} for name, s in held.items()}


def take_over(sidecar, rng):
    """A successor, and a kill of one side, of both or of none, at any instant of it; who is left."""
    sides = [sidecar.process]
    sidecar.spawn()
    sides.append(sidecar.process)
    time.sleep(rng.uniform(0, 0.4))
    for side in rng.choice(([], sides[:1], sides[1:], sides)):
        side.kill()
    wait_for(lambda: any(p.poll() is not None for p in sides), "the end of a side")
    return next((p for p in sides if p.poll() is None), sides[1])


def test_every_call_has_one_record_whoever_dies_in_a_takeover(keytrail, raw_backend, signer,
                                                              record_property):
    print(f"seed {SEED}")
    rng, cycles = random.Random(SEED), max(CYCLES // 10, 1)
    oracle, over = Oracle(), threading.Event()
    with addresses("listen", "metrics", "admin") as listeners:
        sidecar = keytrail(raw_backend(oracle.script), merge(CONFIG, {
            "audit": {"sign": {"file": str(signer[0])}}, **listeners}), arguments=("--takeover",))
        threads = [threading.Thread(target=keep_calling, args=(sidecar, oracle, i, over))
                   for i in range(CLIENTS)]
        for t in threads:
            t.start()
        try:
            for _ in range(cycles):
                before = len(oracle.answered)
                wait_for(lambda: len(oracle.answered) > before or
                         sidecar.process.poll() is not None, "some traffic")
                sidecar.process = take_over(sidecar, rng)
        finally:
            over.set()
            sidecar.kill()
            for t in threads:
                t.join()
        sidecar.stderr_file = sidecar.folder / "stderr-last"  # who was refused says so in words
        sidecar.start()
        sidecar.stop()
    unknown = oracle.check(sidecar.events())
    check_proof(sidecar, signer[1])
    record_property("takeovers under traffic, one side or both killed in three of four", cycles)
    record_property("calls of these were answered", len(oracle.answered))
    record_property("calls of these are recorded with outcome unknown", unknown)


class Moody(Oracle):
    """A key service with many answers, that goes when it likes, and a sidecar that is degraded now and
    then while somebody sends it junk."""

    statuses = (200, 404, 409, 500)

    def __init__(self, rng):
        super().__init__()
        self.rng, self.degrades = rng, True

    def script(self, connection):
        while (request := connection.read_request()) is not None:
            correlation = request.get("Correlation-Id")
            with self.lock:
                self.reached[correlation] = request.method, request.target
                status, goes = self.rng.choice(self.statuses), self.rng.random() < 0.3
                pause = self.rng.uniform(0, 0.004)
            connection.send(ok(extra=f"Correlation-Id: {correlation}\r\n", status=f"{status} X"))
            if goes:
                time.sleep(pause)
                return

    def call(self, sidecar, first):
        while sidecar.process.poll() is None:
            call_until_gone(sidecar, self, first)

    def send_junk(self, sidecar):
        with contextlib.suppress(OSError, http1.Closed):
            while sidecar.process.poll() is None:
                self.junk.add(correlation := new_id())
                sidecar.call("GET", "/api/v2//keys", {"Correlation-Id": correlation})

    def degrade(self, sidecar, socket):
        begin = ["--for", "1h", "--reason", "a test"]
        for options in itertools.cycle((begin, ["--end"])):
            if sidecar.process.poll() is not None:
                break
            subprocess.run([KEYTRAIL, "degrade", *options, "--socket", socket],
                           capture_output=True, timeout=PATIENCE)

    def live(self, sidecar, socket):
        sidecar.start()
        before = len(self.answered)
        doing = [(self.call, sidecar, i) for i in range(CLIENTS)] + \
            [(self.send_junk, sidecar), (self.degrade, sidecar, socket)]
        with concurrent.futures.ThreadPoolExecutor(len(doing)) as pool:
            done = [pool.submit(*what) for what in doing]
            wait_for(lambda: len(self.answered) > before + 20, "some traffic")
            time.sleep(self.rng.uniform(0, 0.2))
            sidecar.kill()
        for future in done:
            future.result()


def has_met_all(sidecar):
    """An intent whose call was refused, junk that was counted together, a degradation."""
    announced = {e["id"] for e in sidecar.intents()}
    return (any(e["id"] in announced and e["reason"].get("reasonCode") == 502
                for e in sidecar.calls())
            and sidecar.own("keytrail.refused") and sidecar.own("keytrail.degrade"))


def test_every_intent_is_closed_whatever_is_refused_and_however_it_dies(keytrail, raw_backend,
                                                                        socket):
    print(f"seed {SEED}")
    oracle = Moody(random.Random(SEED))
    sidecar = keytrail(raw_backend(oracle.script), merge(CONFIG, {
        "limits": {"refusals": 1}, "admin": {"socket": str(socket)}}), start=False)
    lives = max(10, CYCLES // 10)
    for life in range(10 * lives):
        oracle.live(sidecar, socket)
        if life >= lives and has_met_all(sidecar):
            break
    sidecar.start()
    oracle.check(sidecar.events())
    assert has_met_all(sidecar)
    assert {e["id"] for e in sidecar.intents()} <= {e["id"] for e in sidecar.calls()}
    phases = [e["details"]["phase"] for e in sidecar.own("keytrail.degrade")]
    assert all(then == "end" for phase, then in zip(phases, [*phases[1:], "none"])
               if phase == "start")


def test_a_call_in_flight_is_recorded_after_a_kill(keytrail, raw_backend):
    """Each guarantee, killed while the key service thinks."""
    hold = threading.Event()

    def script(connection):
        connection.read_request()
        hold.wait(30)

    backend = raw_backend(script)
    sidecar = keytrail(backend, CONFIG)
    sent = {}
    clients = [sidecar.client() for _ in CALLS]
    for c, how in zip(clients, CALLS):
        sent[correlation := new_id()] = how.guarantee
        c.send_request(how.method, how.path, {"Correlation-Id": correlation}, how.body)
    backend.wait(lambda b: len(b.requests) == len(CALLS))
    sidecar.kill()
    hold.set()
    for c in clients:
        c.close()
    sidecar.start()
    for correlation, guarantee in sent.items():
        event = sidecar.event(correlation)
        assert (event["outcome"], event["reason"]) == ("unknown", {"reasonType": "restart"})
        assert event["recovered"] is True and event["severity"] in ("warning", "critical")
    assert {e["correlationId"] for e in sidecar.intents()} == \
        {i for i, g in sent.items() if g == "intent"}
    recover, = sidecar.own("keytrail.recover")
    assert recover["details"]["fromSlots"] == len(CALLS)


def test_an_intent_is_durable_before_the_service_sees_the_call(keytrail, raw_backend):
    seen = []

    def script(connection):
        while (request := connection.read_request()) is not None:
            seen.append([e["correlationId"] for e in sidecar.intents()])
            connection.send(ok(extra=f"Correlation-Id: {request.get('Correlation-Id')}\r\n"))

    sidecar = keytrail(raw_backend(script))
    for how in CALLS:
        correlation = new_id()
        r = sidecar.call(how.method, how.path, {"Correlation-Id": correlation}, how.body)
        assert r.status == 200
        assert (correlation in seen[-1]) == (how.guarantee == "intent")
        events = [e for e in sidecar.events() if e.get("correlationId") == correlation]
        assert [e["outcome"] for e in events] == \
            (["pending", "success"] if how.guarantee == "intent" else ["success"])
        assert len({e["id"] for e in events}) == 1


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def rows(sidecar, correlation, *options):
    out = subprocess.run([KEYTRAIL, "tail", *options, sidecar.trail_dir], check=True, text=True,
                         timeout=PATIENCE, stdout=subprocess.PIPE).stdout
    return [line for line in out.splitlines() if correlation in line]


def test_tail_joins_an_intent_and_its_closing_event(keytrail, raw_backend):
    go_on = threading.Event()

    def script(connection):
        request = connection.read_request()
        go_on.wait(PATIENCE)
        connection.send(ok(extra=f"Correlation-Id: {request.get('Correlation-Id')}\r\n"))

    backend = raw_backend(script)
    sidecar = keytrail(backend)
    correlation = new_id()
    with sidecar.client() as c:
        c.send_request("DELETE", f"/api/v2/keys/{KEY}", {"Correlation-Id": correlation})
        backend.wait(lambda b: b.requests)
        pending, = rows(sidecar, correlation)
        assert "kms.secrets.delete" in pending and " pending " in pending
        go_on.set()
        assert c.read_response().status == 200
    closed, = rows(sidecar, correlation)
    assert " success " in closed and " 200 " in closed
    assert len(rows(sidecar, correlation, "--json")) == 2


def test_who_follows_sees_one_row_a_call_when_it_is_closed(keytrail, raw_backend, tmp_path):
    """And waits for no other one."""
    go_on = threading.Event()

    def script(connection):
        request = connection.read_request()
        if request.method == "DELETE":
            go_on.wait(PATIENCE)
        connection.send(ok(extra=f"Correlation-Id: {request.get('Correlation-Id')}\r\n"))

    backend = raw_backend(script)
    sidecar = keytrail(backend)
    table = tmp_path / "table"
    intent, other = new_id(), new_id()
    with table.open("w") as out, sidecar.client() as c:
        tail = subprocess.Popen([KEYTRAIL, "tail", "-f", sidecar.trail_dir], stdout=out)
        try:
            c.send_request("DELETE", f"/api/v2/keys/{KEY}", {"Correlation-Id": intent})
            backend.wait(lambda b: b.requests)
            assert sidecar.call("GET", "/api/v2/keys", {"Correlation-Id": other}).status == 200
            wait_for(lambda: other in table.read_text(), "the other call's row")
            assert intent not in table.read_text()
            go_on.set()
            assert c.read_response().status == 200
            wait_for(lambda: intent in table.read_text(), "the row")
        finally:
            tail.kill()
            tail.wait()
    row, = [line for line in table.read_text().splitlines() if intent in line]
    assert " success " in row


def test_intents_go_only_to_the_sinks_that_ask(keytrail, raw_backend, tmp_path):
    sinks = [{"name": name, "type": "file", "path": str(tmp_path / name), "intents": wanted}
             for name, wanted in (("all", True), ("closed", False))]
    sidecar = keytrail(raw_backend(ok()), {"sinks": sinks})
    assert sidecar.call("DELETE", f"/api/v2/keys/{KEY}").status == 200
    sidecar.stop()
    outcomes = {name: [e["outcome"] for e in read_lines(tmp_path / name)
                       if e["action"] == "kms.secrets.delete"] for name in ("all", "closed")}
    assert outcomes == {"all": ["pending", "success"], "closed": ["success"]}


def test_an_intent_that_does_not_become_durable_refuses_the_call(keytrail, raw_backend, disk):
    """A disk that stands still: the call is not forwarded, and its intent is closed all the same."""
    backend = raw_backend(ok())
    sidecar = keytrail(backend, environment=disk.environment)
    with sidecar.client() as c:
        disk.set(STALL)
        r = c.request("DELETE", f"/api/v2/keys/{KEY}", {"Correlation-Id": (i := new_id())})
        assert r.status == 503 and b"TRAIL_SLOW" in r.body
        disk.clear()
    assert backend.requests == []
    event = sidecar.event(i)
    assert event["outcome"] == "failure" and event["reason"]["reasonForFailure"] == "trail_slow"
    assert [e["correlationId"] for e in sidecar.intents()] == [i]


def delete(client):
    return client.request("DELETE", f"/api/v2/keys/{KEY}", {"Correlation-Id": new_id()})


def check_closed(sidecar, n):
    """All of n calls were announced, and each of them is closed by an event of its own."""
    wait_for(lambda: len(sidecar.intents()) == n, "the intents")
    wait_for(lambda: {e["id"] for e in sidecar.intents()} <= {e["id"] for e in sidecar.calls()},
             "the closing events")


def test_a_call_that_was_announced_is_no_junk(keytrail, raw_backend, disk):
    """However many are refused: what is counted together closes no intent."""
    sidecar = keytrail(raw_backend(ok()), {"limits": {"refusals": 1}},
                       environment=disk.environment)
    disk.set(STALL)
    with contextlib.ExitStack() as stack, concurrent.futures.ThreadPoolExecutor(6) as pool:
        clients = [stack.enter_context(sidecar.client()) for _ in range(6)]
        answers = list(pool.map(delete, clients))
        disk.clear()
    assert [r.status for r in answers] == [503] * 6
    check_closed(sidecar, 6)


def test_a_service_that_goes_before_the_intent_is_durable(keytrail, raw_backend, disk):
    go, gone = threading.Event(), threading.Event()

    def script(connection):
        connection.read_request()
        connection.send(ok())
        go.wait(PATIENCE)
        connection.close()
        gone.set()

    backend = raw_backend(script)
    sidecar = keytrail(backend, {"limits": {"refusals": 1}, "workers": 1},
                       environment=disk.environment)
    with sidecar.client() as c:
        assert c.request("GET", "/api/v2/keys").status == 200
        for _ in range(3):
            assert sidecar.call("GET", "/api/v2//keys").status == 400
        disk.set(STALL)
        c.send_request("DELETE", f"/api/v2/keys/{KEY}", {"Correlation-Id": new_id()})
        wait_for(lambda: sidecar.metric("keytrail_requests_in_flight") == 1, "the call")
        go.set()
        assert gone.wait(PATIENCE)
        disk.clear()
        r = c.read_response()
    assert r.status == 502 and b"UPSTREAM_BROKEN" in r.body and len(backend.requests) == 1
    check_closed(sidecar, 1)


def test_a_client_that_goes_before_its_intent_is_durable(keytrail, raw_backend, disk):
    backend = raw_backend(ok())
    sidecar = keytrail(backend, environment=disk.environment)
    with sidecar.client() as c:
        disk.set(STALL)
        c.send_request("DELETE", f"/api/v2/keys/{KEY}", {"Correlation-Id": (i := new_id())})
        wait_for(lambda: sidecar.metric("keytrail_requests_in_flight") == 1, "the call")
        c.reset()
    wait_for(lambda: sidecar.metric("keytrail_requests_in_flight") == 0, "the end of the call")
    disk.clear()
    event = sidecar.event(i)
    assert (event["outcome"], event["reason"]["reasonForFailure"]) == ("failure", "client_gone")
    assert backend.requests == []


def test_the_closing_event_is_found_where_only_the_intent_is_left(keytrail, raw_backend):
    """The table of calls in flight may be lost to a power cut; the intent was synced."""
    hold = threading.Event()

    def script(connection):
        connection.read_request()
        hold.wait(30)

    backend = raw_backend(script)
    sidecar = keytrail(backend, {"workers": 1})
    correlation = new_id()
    with sidecar.client() as c:
        c.send_request("DELETE", f"/api/v2/keys/{KEY}", {"Correlation-Id": correlation})
        backend.wait(lambda b: b.requests)
        sidecar.kill()
    hold.set()
    ring = sidecar.trail_dir / "ring.0"
    with open(ring, "r+b") as f:
        f.seek(4096 + sidecar.config["audit"]["ring_size"])
        f.write(bytes(4096))
    sidecar.start()
    event = sidecar.event(correlation)
    assert event["outcome"] == "unknown" and event["reason"] == {"reasonType": "restart"}
    assert event["recovered"] is True and event["severity"] in ("warning", "critical")
    recover, = sidecar.own("keytrail.recover")
    assert recover["details"]["intentsClosed"] == 1 and recover["details"]["fromSlots"] == 0
    sidecar.kill()
    sidecar.start()
    assert len([e for e in sidecar.events() if e.get("correlationId") == correlation]) == 2


# ---- what was lost ----

def test_losses_are_counted_and_recorded_when_there_is_room_again(keytrail, raw_backend, disk):
    """The disk stands still until the ring is full: async calls are served, and counted lost."""
    backend = raw_backend(ok())
    sidecar = keytrail(backend, merge(CONFIG, {
        "workers": 1, "audit": {"ring_size": 65536}}), environment=disk.environment)

    def lost():
        return sidecar.metric("keytrail_events_lost_total", reason="ring_full")

    disk.set(STALL)
    sent = 0
    with sidecar.client() as c:
        while lost() < 25:
            assert c.request("GET", "/api/v2/keys", {"Correlation-Id": new_id()}).status == 200
            sent += 1
    seen = len(backend.requests)
    for how in CALLS[1:3]:
        r = sidecar.call(how.method, how.path, {"Correlation-Id": new_id()}, how.body)
        assert r.status == 503 and b"TRAIL_SLOW" in r.body
    assert len(backend.requests) == seen
    disk.clear()
    told = sidecar.wait_own("keytrail.loss")
    wait_for(lambda: is_balanced(sidecar), "accepted = durable + lost")
    assert sum(e["details"]["count"] for e in sidecar.own("keytrail.loss")) == lost()
    assert told[0]["details"]["reason"] == "ring_full" and told[0]["severity"] == "critical"
    assert told[0]["details"]["actions"].startswith("kms.secrets.list ")
    assert len(sidecar.calls()) + lost() == sent + 2


def test_every_scrape_adds_up_while_events_are_lost(keytrail, raw_backend, disk):
    """Under traffic, with a disk that stands still now and then: nothing is negative, and at rest
    all that was accepted is durable or lost; what a sink did not want is counted as filtered."""
    sidecar = keytrail(raw_backend(ok()), merge(CONFIG, {
        "workers": 2, "audit": {"ring_size": 65536},
        "sinks": [{"name": "file", "type": "file", "path": "out.jsonl"}]}),
        environment=disk.environment)
    done = threading.Event()

    def ask():
        with sidecar.client() as c:
            while not done.is_set():
                assert c.request("GET", "/api/v2/keys").status == 200

    def figures():
        samples = sidecar.metrics()
        return {name: sum(v for (n, _), v in samples.items() if n == f"keytrail_{name}")
                for name in ("events_accepted_total", "events_lost_total", "events_durable_total",
                             "sink_events_delivered_total", "sink_events_filtered_total")}

    def waiting():
        f = figures()
        trail = f["events_accepted_total"] - f["events_durable_total"] - f["events_lost_total"]
        sink = f["events_durable_total"] - f["sink_events_delivered_total"] \
            - f["sink_events_filtered_total"]
        assert trail >= 0 and sink >= 0, f
        return trail, sink, f["events_lost_total"]

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for t in threads:
        t.start()
    try:
        for lost in (20, 200):
            disk.set(STALL)
            wait_for(lambda: waiting()[2] > lost, "losses")
            disk.set()
            wait_for(lambda: waiting()[0] < 50, "the trail to catch up")
    finally:
        done.set()
        disk.set()
        for t in threads:
            t.join()
    assert sidecar.call("DELETE", f"/api/v2/keys/{KEY}").status == 200
    wait_for(lambda: waiting()[:2] == (0, 0), "nothing to wait")
    assert figures()["sink_events_filtered_total"] == 1
    wait_for(lambda: sum(e["details"]["count"] for e in sidecar.own("keytrail.loss"))
             == figures()["events_lost_total"], "the trail to tell of every loss")


def test_losses_survive_a_kill(keytrail, raw_backend, disk):
    sidecar = keytrail(raw_backend(ok()), merge(CONFIG, {
        "workers": 1, "audit": {"ring_size": 65536}}), environment=disk.environment)
    disk.set(STALL)
    sent, n = [], 0
    with sidecar.client() as c:
        while n < 10:
            sent.append(new_id())
            assert c.request("GET", "/api/v2/keys", {"Correlation-Id": sent[-1]}).status == 200
            n = sidecar.metric("keytrail_events_lost_total", reason="ring_full")
        sidecar.kill()
    disk.clear()
    sidecar.start()
    told, = sidecar.own("keytrail.loss")
    assert told["recovered"] is True and told["details"]["count"] == n
    assert len(sidecar.calls()) + n == len(sent)


def test_a_segment_that_is_deleted_is_noticed(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(ok()))
    assert sidecar.call("GET", "/api/v2/keys").status == 200
    lost = len(sidecar.events())
    segments(sidecar.trail_dir)[0].unlink()
    correlation = new_id()
    assert sidecar.call("GET", "/api/v2/keys", {"Correlation-Id": correlation}).status == 200
    tamper, = wait_for(lambda: sidecar.own("keytrail.tamper"), "the record")
    assert tamper["severity"] == "critical"
    assert tamper["details"] == {"first": 1, "last": lost, "segment": 1}
    assert sidecar.event(correlation)["trail"]["seq"] > lost


def test_fewer_workers_recover_every_ring_and_keep_their_own_alone(keytrail, raw_backend):
    oracle = Oracle()
    sidecar = keytrail(raw_backend(oracle.script), {**CONFIG, "workers": 4})
    clients = [threading.Thread(target=call_until_gone, args=(sidecar, oracle, i))
               for i in range(8)]
    for t in clients:
        t.start()
    wait_for(lambda: len(oracle.answered) > 50, "calls")
    sidecar.kill()
    for t in clients:
        t.join()
    sidecar.write_config(workers=1, audit={"ring_size": 131072})
    sidecar.start()
    sidecar.wait_own("keytrail.start", 2)
    assert sorted(p.name for p in sidecar.trail_dir.glob("ring.*")) == ["ring.0", "ring.main"]
    sidecar.stop()
    oracle.check(sidecar.events())

"""What goes wrong with the disk and the files: the answer, the metric, readiness and the trail."""

import contextlib
import json
import os
import signal
import subprocess
import threading
import urllib.error

import pytest

from backend import ok
from faults import STALL
from http1 import Closed
from oracle import CONFIG, KEY
from support import KEYTRAIL, PATIENCE, merge, new_id, segments, wait_for

CONFIG = merge(CONFIG, {"workers": 1})
ASYNC = ("GET", "/api/v2/keys")
DURABLE = ("POST", f"/api/v2/keys/{KEY}/actions/unwrap")
INTENT = ("DELETE", f"/api/v2/keys/{KEY}")


def call(sidecar, method, path):
    """One call; its correlation ID and the answer."""
    correlation = new_id()
    return correlation, sidecar.call(method, path, {"Correlation-Id": correlation})


def lost(sidecar, **labels):
    return sidecar.metric("keytrail_events_lost_total", **labels)


def is_balanced(sidecar):
    """Nothing waits: accepted = durable + lost."""
    return sidecar.metric("keytrail_events_accepted_total") == \
        sidecar.metric("keytrail_events_durable_total") + lost(sidecar)


def failures(sidecar, operation):
    return sidecar.metric("keytrail_trail_failures_total", operation=operation)


def unready(sidecar):
    """Why it is not ready, by the admin listener; None when it is."""
    try:
        sidecar.fetch("admin", "/readyz?verbose")
    except urllib.error.HTTPError as e:
        assert e.code == 503
        return next(c["detail"] for c in json.loads(e.read())["checks"] if not c["ok"])
    return None


# ---- a disk that fails ----

@pytest.mark.parametrize("rule, operation", [
    ("sync *.jsonl EIO 1 1", "sync"),
    ("write *.jsonl EIO 1 1", "write"),
    ("write *.jsonl ENOSPC 1 1", "write"),
])
def test_one_failure_costs_a_segment_and_nobody_notices(keytrail, raw_backend, disk, rule,
                                                        operation):
    sidecar = keytrail(raw_backend(ok()), CONFIG, environment=disk.environment)
    first, _ = call(sidecar, *DURABLE)
    last = sidecar.event(first)["trail"]["seq"]
    disk.set(rule)
    sent = [call(sidecar, *how) for how in (ASYNC, DURABLE, INTENT)]
    assert [r.status for _, r in sent] == [200] * 3
    assert failures(sidecar, operation) == 1 and unready(sidecar) is None
    assert [int(s.stem) for s in segments(sidecar.trail_dir)] == [1, last + 1]
    assert all(sidecar.event(c) for c, _ in sent)
    wait_for(lambda: is_balanced(sidecar), "accepted = durable + lost")
    assert lost(sidecar) == 0


@pytest.mark.parametrize("rule", ["write *.jsonl short", "write *.jsonl EINTR 1 9",
                                  "allocate *.jsonl EINTR 1 9", "allocate *.jsonl EOPNOTSUPP"])
def test_what_is_no_failure(keytrail, raw_backend, disk, rule):
    disk.set(rule)
    sidecar = keytrail(raw_backend(ok()), CONFIG, environment=disk.environment)
    sent = [call(sidecar, *how) for how in (ASYNC, DURABLE, INTENT)]
    assert [r.status for _, r in sent] == [200] * 3
    assert all(sidecar.event(c) for c, _ in sent) and unready(sidecar) is None
    assert sum(failures(sidecar, o) for o in ("write", "sync", "open")) == 0


@pytest.mark.parametrize("rules", [["sync *.jsonl EIO"], ["write *.jsonl EIO"],
                                   ["sync *.jsonl EIO", "open *.jsonl ENOSPC"]])
def test_a_disk_that_stays_broken(keytrail, raw_backend, disk, rules):
    backend = raw_backend(ok())
    sidecar = keytrail(backend, CONFIG, environment=disk.environment)
    disk.set(*rules)
    assert call(sidecar, *ASYNC)[1].status == 200
    why = wait_for(lambda: unready(sidecar), "it to be unready")
    assert str(sidecar.trail_dir) in why
    seen = len(backend.requests)
    for how in (DURABLE, INTENT):
        r = call(sidecar, *how)[1]
        assert r.status == 503 and b"TRAIL_FAILED" in r.body
    assert len(backend.requests) == seen
    assert call(sidecar, *ASYNC)[1].status == 200
    assert lost(sidecar, reason="trail_failed") == 3
    disk.clear()
    wait_for(lambda: unready(sidecar) is None, "it to be ready again")
    assert call(sidecar, *DURABLE)[1].status == 200
    wait_for(lambda: sum(e["details"]["count"] for e in sidecar.own("keytrail.loss")) == 3,
             "the record of the loss")
    wait_for(lambda: is_balanced(sidecar), "accepted = durable + lost")
    assert len(sidecar.calls()) == 2


def test_an_answer_whose_event_does_not_become_durable_is_withheld(keytrail, raw_backend, disk):
    backend = raw_backend(ok())
    sidecar = keytrail(backend, merge(CONFIG, {"timeouts": {"answer": "500ms"}}),
                       environment=disk.environment)
    disk.set(STALL)
    correlation = new_id()
    with pytest.raises(Closed) as cut:
        sidecar.call(*DURABLE, {"Correlation-Id": correlation})
    assert cut.value.args == (b"",) and len(backend.requests) == 1
    disk.clear()
    assert sidecar.event(correlation)["outcome"] == "success"


def test_a_sink_that_cannot_read_the_trail_goes_on_later(keytrail, raw_backend, disk, tmp_path):
    sink = tmp_path / "out.jsonl"
    sidecar = keytrail(raw_backend(ok()), merge(CONFIG, {
        "sinks": [{"name": "out", "type": "file", "path": str(sink)}]}),
        environment=disk.environment)
    disk.set("read *.jsonl EIO")
    correlation, r = call(sidecar, *DURABLE)
    assert r.status == 200
    wait_for(lambda: sidecar.metric("keytrail_sink_up", sink="out") == 0, "the sink to be down")
    assert call(sidecar, *DURABLE)[1].status == 200
    disk.clear()
    wait_for(lambda: sidecar.metric("keytrail_sink_lag_events", sink="out") == 0, "the sink")
    assert sink.read_text().count(correlation) > 0
    numbers = [json.loads(line)["trail"]["seq"] for line in sink.read_text().splitlines()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_sink_steps_over_what_it_could_not_read_for_long(keytrail, raw_backend, disk, tmp_path):
    sidecar = keytrail(raw_backend(ok()), merge(CONFIG, {"audit": {"segment_size": 65536}}),
                       environment=disk.environment)
    while len(segments(sidecar.trail_dir)) < 3:
        assert call(sidecar, *DURABLE)[1].status == 200
    sidecar.stop()
    second = int(segments(sidecar.trail_dir)[1].name.split(".")[0])
    sink = tmp_path / "out.jsonl"
    sidecar.write_config(sinks=[{"name": "out", "type": "file", "path": str(sink)}])
    disk.set("read *0000001.jsonl EIO")
    sidecar.start()

    def is_done():
        sidecar.signal(signal.SIGUSR1)  # ends the pause before the next try
        return sidecar.metric("keytrail_sink_lag_events", sink="out") == 0

    wait_for(is_done, "the sink")
    assert json.loads(sink.read_text().splitlines()[0])["trail"]["seq"] == second
    told, = sidecar.wait_own("keytrail.corrupt")
    assert (told["details"]["first"], told["details"]["last"]) == (1, second - 1)
    assert "sink out works again after 10 failures" in sidecar.stderr()


def test_a_sink_that_comes_late_to_damage_tells_nothing_new(keytrail, raw_backend, disk, tmp_path):
    """A start has told of it, and another one since has found nothing."""
    sink = tmp_path / "out.jsonl"
    sidecar = keytrail(raw_backend(ok()), merge(CONFIG, {
        "sinks": [{"name": "out", "type": "file", "path": str(sink)}]}),
        environment=disk.environment)
    disk.set("write *out.jsonl EIO")
    calls = [call(sidecar, *DURABLE)[0] for _ in range(5)]
    number = sidecar.event(calls[2])["trail"]["seq"]
    sidecar.kill()
    segment = segments(sidecar.trail_dir)[0]
    whole = segment.read_bytes()
    lines = whole.splitlines(keepends=True)
    lines[number - 1] = lines[number - 1].replace(b"success", b"failure")
    segment.write_bytes(b"".join(lines))
    for _ in range(2):
        sidecar.start()
        told, = sidecar.wait_own("keytrail.corrupt")
        assert (told["details"]["first"], told["details"]["last"]) == (number, number)
        sidecar.kill()
    disk.clear()
    sidecar.start()
    wait_for(lambda: calls[4] in sink.read_text(), "the sink")
    assert calls[2] not in sink.read_text()
    sidecar.stop()
    assert len(sidecar.own("keytrail.corrupt")) == 1
    segment.write_bytes(whole)  # for the check of the whole trail


def test_what_cannot_be_read_at_the_start_is_damage(keytrail, raw_backend, disk):
    sidecar = keytrail(raw_backend(ok()), CONFIG, environment=disk.environment)
    call(sidecar, *DURABLE)
    disk.set("sync *.jsonl stall")
    correlation, r = call(sidecar, *ASYNC)
    assert r.status == 200
    wait_for(lambda: correlation in segments(sidecar.trail_dir)[0].read_text(), "the write")
    sidecar.kill()
    disk.set("read *0000001.jsonl EIO")
    sidecar.start()
    told, = sidecar.wait_own("keytrail.corrupt")
    assert told["details"]["first"] == 1
    assert sidecar.event(correlation)
    assert call(sidecar, *DURABLE)[1].status == 200


def test_verify_says_that_it_cannot_read(keytrail, raw_backend, disk, signer):
    sidecar = keytrail(raw_backend(ok()), merge(CONFIG, {
        "audit": {"sign": {"file": str(signer[0])}}}))
    call(sidecar, *DURABLE)
    sidecar.stop()
    disk.set("read *.jsonl EIO")
    out = subprocess.run([KEYTRAIL, "verify", sidecar.trail_dir, "--key", signer[1]], text=True,
                         env={**os.environ, **disk.environment}, capture_output=True)
    why = f"read {segments(sidecar.trail_dir)[0].name} at offset 0: Input/output error"
    assert out.returncode == 1 and f"cannot tell: {sidecar.trail_dir}: {why}" in out.stdout
    assert "unaltered: unknown" in out.stdout and "complete:  unknown" in out.stdout


@pytest.fixture
def long(keytrail, raw_backend, disk, signer):
    """A trail of three segments on a disk that can fail."""
    sidecar = keytrail(raw_backend(ok()), merge(CONFIG, {
        "audit": {"segment_size": 65536, "sign": {"file": str(signer[0])},
                  "checkpoint_interval": "1s"}}), environment=disk.environment)
    while len(segments(sidecar.trail_dir)) < 3:
        assert call(sidecar, *DURABLE)[1].status == 200
    return sidecar


def beginning(path):
    return int(path.name.split(".")[0])


def test_verify_tells_what_it_found_before_it_could_not_read(long, disk, signer):
    long.stop()
    first, second, _ = segments(long.trail_dir)
    lines = first.read_bytes().splitlines(keepends=True)
    first.write_bytes(b"".join(lines[:5] + [lines[4]] + lines[5:]))
    disk.set(f"read *{second.name} EIO")
    out = subprocess.run([KEYTRAIL, "verify", long.trail_dir, "--key", signer[1]], text=True,
                         env={**os.environ, **disk.environment}, capture_output=True)
    assert out.returncode == 3 and "a line with number 5 stands where 6 belongs" in out.stdout
    assert f"read {second.name} at offset 0: Input/output error" in out.stdout
    assert "complete:  unknown" in out.stdout
    long.process = None  # an altered trail


def test_tail_and_queries_step_over_what_they_cannot_read(long, disk):
    _, second, third = segments(long.trail_dir)
    disk.set(f"read *{second.name} EIO")
    numbers = [*range(1, beginning(second)), *range(beginning(third), beginning(third) + 3)]
    while long.metric("keytrail_events_durable_total") < numbers[-1]:
        call(long, *DURABLE)
    page = json.loads(long.fetch("admin", "/events?limit=1000"))
    got = [e["trail"]["seq"] for e in page["events"]]
    assert got[:len(numbers)] == numbers and page["damaged"] > 0
    out = subprocess.run([KEYTRAIL, "tail", long.trail_dir, "--json", "-n", "10000"], text=True,
                         env={**os.environ, **disk.environment}, capture_output=True)
    got = [json.loads(line)["trail"]["seq"] for line in out.stdout.splitlines()]
    assert out.returncode == 0 and got[:len(numbers)] == numbers
    assert "corrupt lines were left out" in out.stderr
    disk.clear()
    assert "damaged" not in json.loads(long.fetch("admin", "/events?limit=1000"))


def signing(sidecar):
    checks = json.loads(sidecar.fetch("admin", "/readyz?verbose"))["checks"]
    return next(c["detail"] for c in checks if c["name"] == "signing")


def test_what_cannot_be_read_is_signed_when_it_can(long, disk, signer):
    disk.set("read *.jsonl EIO")
    call(long, *DURABLE)
    wait_for(lambda: any(e["event"] == "not_signed" and "Input/output error" in e["message"]
                         for e in long.log_lines()), "the ledger, which cannot read")
    wait_for(lambda: long.metric("keytrail_trail_signing") == 0, "the metric")
    assert "Input/output error" in signing(long)
    disk.clear()
    wait_for(lambda: long.metric("keytrail_trail_signing") == 1, "the ledger, which reads again")
    assert signing(long).startswith("signed by ")
    long.stop()
    out = subprocess.run([KEYTRAIL, "verify", long.trail_dir, "--key", signer[1]], text=True,
                         capture_output=True)
    assert out.returncode == 0, out.stdout


def test_a_checkpoint_that_cannot_be_put_in_its_place_comes_later(long, disk, signer):
    disk.set("rename */checkpoint EIO")
    call(long, *DURABLE)
    wait_for(lambda: any(e["event"] == "not_signed" and "Input/output error" in e["message"]
                         for e in long.log_lines()), "the ledger, which cannot sign")
    assert call(long, *DURABLE)[1].status == 200
    disk.clear()
    long.stop()
    out = subprocess.run([KEYTRAIL, "verify", long.trail_dir, "--key", signer[1]], text=True,
                         capture_output=True)
    assert out.returncode == 0, out.stdout


def test_a_new_log_whose_file_cannot_be_put_in_its_place_begins_later(long, disk):
    long.stop()
    path = segments(long.trail_dir)[-1]
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    disk.set("rename */log EIO")
    for _ in range(2):
        long.spawn()
        assert long.process.wait(PATIENCE) == 1 and "create log: Input/output" in long.stderr()
    long.stderr_file.write_text("")  # for people, not JSON
    disk.clear()
    long.start()
    assert long.wait_own("keytrail.tamper")
    assert len({e["trail"]["log"] for e in long.events()}) == 2
    long.stop()
    long.process = None  # a trail with a hole


@pytest.mark.parametrize("rule, why", [
    ("write *.jsonl ENOSPC", "No space left on device"),
    ("sync *.jsonl EIO", "Input/output error"),
    ("open *.jsonl EACCES", "Permission denied"),
    ("open */ring.0 EACCES", "ring.0: Permission denied"),
    ("read */ring.0 EIO", "ring.0: Input/output error"),
    ("write */ring.0 ENOSPC", "ring.0: No space left on device"),
    ("open */state EACCES", "state: Permission denied"),
    ("allocate */state ENOSPC", "state: No space left on device"),
])
def test_a_recovery_that_fails_loses_nothing(keytrail, raw_backend, disk, rule, why):
    """What the rings held when it died is still there at the next start."""
    sidecar = keytrail(raw_backend(ok()), merge(CONFIG, {"audit": {"flush_interval": "30s"}}),
                       environment=disk.environment)
    disk.set("sync *.jsonl stall", "write *.jsonl stall")
    sent = [call(sidecar, *ASYNC)[0] for _ in range(5)]
    sidecar.kill()
    disk.set(rule)
    for _ in range(2):
        sidecar.spawn()
        assert sidecar.process.wait(PATIENCE) == 1
        last = sidecar.stderr().splitlines()[-1]
        assert str(sidecar.trail_dir) in last and why in last, last
    sidecar.stderr_file.write_text("")  # for people, not JSON
    disk.clear()
    sidecar.start()
    assert sorted(e["correlationId"] for e in sidecar.calls()) == sorted(sent)


def test_no_part_of_a_ring_that_cannot_be_read_is_taken_for_empty(keytrail, raw_backend, disk):
    """One read after the other fails; each of these starts is refused, until all are good."""
    forwarded, over = threading.Event(), threading.Event()

    def hang(connection):
        connection.read_request()
        forwarded.set()
        over.wait(PATIENCE)

    sidecar = keytrail(raw_backend(hang), CONFIG, environment=disk.environment)
    with sidecar.client() as c:
        c.send_request(*DURABLE, {"Correlation-Id": (sent := new_id())})
        assert forwarded.wait(PATIENCE)
        sidecar.kill()
    over.set()
    refused = 0
    disk.set("read */ring.0 EIO 1 1")
    while not sidecar.spawn_and_listen():
        assert "ring.0: Input/output error" in sidecar.stderr().splitlines()[-1]
        refused += 1
        disk.set(f"read */ring.0 EIO {refused + 1} 1")
        sidecar.stderr_file.write_text("")  # for people, not JSON
    assert sidecar.event(sent)["outcome"] == "unknown"
    assert refused > 5  # the header, entries, states, and the slot, twice


def test_a_ring_is_read_on_after_a_signal(keytrail, raw_backend, disk):
    sidecar = keytrail(raw_backend(lambda c: c.read_request() and c.read_request()), CONFIG,
                       environment=disk.environment)
    with sidecar.client() as c:
        c.send_request(*INTENT, {"Correlation-Id": (sent := new_id())})
        wait_for(sidecar.intents, "the intent")
        sidecar.kill()
    disk.set("read */ring.0 EINTR 1 9")
    sidecar.start()
    assert sidecar.event(sent)["outcome"] == "unknown"
    recover, = sidecar.own("keytrail.recover")
    assert recover["details"]["fromSlots"] == 1


# ---- a disk that is full ----

def fill(folder):
    """No block is left; the file that takes them."""
    path = folder / "filler"
    with open(path, "wb") as f:
        for size in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while True:
                    os.posix_fallocate(f.fileno(), f.tell(), size)
                    f.seek(size, os.SEEK_CUR)
    assert os.statvfs(folder).f_bavail < 4
    return path


def scrape(sidecar):
    """At no scrape is more durable or lost than was accepted."""
    waiting = sidecar.metric("keytrail_events_accepted_total") - \
        sidecar.metric("keytrail_events_durable_total") - lost(sidecar)
    assert waiting >= 0
    return waiting


def test_a_full_disk(small_disk, keytrail, raw_backend):
    """What room was kept is used up; then async is served and lost, all else refused, until there is
    room again."""
    backend = raw_backend(ok())
    sidecar = keytrail(backend, merge(CONFIG, {
        "audit": {"trail": str(small_disk / "trail"), "ring_size": 65536, "segment_size": 65536},
        "limits": {"connections": 50}}))
    filler = fill(small_disk)
    recorded = []
    with sidecar.client() as c:
        while not lost(sidecar):
            for _ in range(50):
                correlation = new_id()
                assert c.request(*ASYNC, {"Correlation-Id": correlation}).status == 200
                recorded.append(correlation)
            scrape(sidecar)
    why = wait_for(lambda: unready(sidecar), "it to be unready")
    assert "no room" in why or "No space left on device" in why
    seen = len(backend.requests)
    for how in (DURABLE, INTENT):
        r = call(sidecar, *how)[1]
        assert r.status == 503 and b"TRAIL_FULL" in r.body
        scrape(sidecar)
    assert len(backend.requests) == seen
    filler.unlink()
    wait_for(lambda: unready(sidecar) is None, "it to be ready again")
    last, r = call(sidecar, *INTENT)
    assert r.status == 200
    n = lost(sidecar)  # of a small ring, some may be lost for want of its own room
    wait_for(lambda: sum(e["details"]["count"] for e in sidecar.own("keytrail.loss")) == n,
             "the record of the loss")
    assert len(sidecar.calls()) + n == len(recorded) + 3 and sidecar.event(last)
    wait_for(lambda: scrape(sidecar) == 0, "accepted = durable + lost")


def boots(sidecar):
    """The events of each life that the trail tells of, by the numbers of their lines."""
    lives = {}
    for e in sidecar.events():
        if not e.get("recovered"):
            lives.setdefault(e["trail"]["boot"], []).append(e["action"])
    return lives


def test_restarts_on_a_full_disk(small_disk, keytrail, raw_backend):
    """Killed under traffic, it starts and says why it is not ready; what it held is recovered into the
    room that was kept, and all resumes by itself."""
    sidecar = keytrail(raw_backend(ok()), merge(CONFIG, {
        "audit": {"trail": str(small_disk / "trail"), "ring_size": 65536, "segment_size": 65536},
        "limits": {"connections": 50}}))
    filler = fill(small_disk)
    sent, told = [], 0
    with sidecar.client() as c:
        while not lost(sidecar):
            sent.append(new_id())
            assert c.request(*ASYNC, {"Correlation-Id": sent[-1]}).status == 200
    told += lost(sidecar)
    for how in (sidecar.kill, sidecar.kill, sidecar.stop, sidecar.kill):
        how()
        sidecar.start()
        why = unready(sidecar)
        assert "no room" in why or "No space left on device" in why
        for refused in (DURABLE, INTENT):
            r = call(sidecar, *refused)[1]
            assert r.status == 503 and b"TRAIL_FULL" in r.body
        assert call(sidecar, *ASYNC)[1].status == 200
        assert lost(sidecar, reason="trail_full") == 3
        told += 3
    filler.unlink()
    wait_for(lambda: unready(sidecar) is None, "it to be ready again")
    last = wait_for(lambda: [c for c, r in [call(sidecar, *INTENT)] if r.status == 200],
                    "it to serve again")
    wait_for(lambda: sum(e["details"]["count"] for e in sidecar.own("keytrail.loss")) >= told,
             "the record of the loss")
    wait_for(lambda: is_balanced(sidecar), "accepted = durable + lost")
    assert sidecar.event(last[0])
    assert len(sidecar.calls()) - len(last) + told == len(sent) + 4 * 3
    assert len(sidecar.own("keytrail.start")) == 5
    life = boots(sidecar)[sidecar.events()[-1]["trail"]["boot"]]
    assert life[:2] == ["keytrail.recover", "keytrail.start"]


@pytest.mark.parametrize("rule, word", [
    ("allocate *.jsonl ENOSPC", b"TRAIL_FULL"), ("write *.jsonl ENOSPC", b"TRAIL_FAILED")])
def test_a_start_that_the_trail_cannot_take(keytrail, raw_backend, disk, rule, word):
    sidecar = keytrail(raw_backend(ok()), CONFIG, environment=disk.environment)
    sent, _ = call(sidecar, *DURABLE)
    sidecar.kill()
    disk.set(rule)
    sidecar.start()
    assert str(sidecar.trail_dir) in unready(sidecar)
    for how in (DURABLE, INTENT):
        r = call(sidecar, *how)[1]
        assert r.status == 503 and word in r.body
    assert call(sidecar, *ASYNC)[1].status == 200 and lost(sidecar) == 3
    disk.clear()
    wait_for(lambda: call(sidecar, *DURABLE)[1].status == 200, "it to serve again")
    wait_for(lambda: is_balanced(sidecar), "accepted = durable + lost")
    assert unready(sidecar) is None and sidecar.event(sent)
    life = boots(sidecar)[sidecar.events()[-1]["trail"]["boot"]]
    assert life[:2] == ["keytrail.recover", "keytrail.start"]


@pytest.mark.parametrize("left", [0, 8192])
def test_a_start_on_a_full_disk_loses_nothing(small_disk, keytrail, raw_backend, left):
    """Killed with events in its ring and calls in flight; at the next start the room that was kept is
    gone, all of it or so much that no more than some of the events would fit."""
    def answer_reads(connection):
        while (request := connection.read_request()) is not None:
            if request.method == "GET":
                connection.send(ok())

    backend = raw_backend(answer_reads)
    sidecar = keytrail(backend, merge(CONFIG, {
        "audit": {"trail": str(small_disk / "trail"), "ring_size": 65536, "segment_size": 65536,
                  "flush_interval": "30s"}, "limits": {"connections": 50}}))
    with sidecar.client() as durable, sidecar.client() as intent:
        for c, how in ((durable, DURABLE), (intent, INTENT)):
            c.send_request(*how, {"Correlation-Id": new_id()})
        backend.wait(lambda b: sum(r.method != "GET" for r in b.requests) == 2)
        sent = [call(sidecar, *ASYNC)[0] for _ in range(20)]
        sidecar.kill()
    segment, = segments(sidecar.trail_dir)
    os.truncate(segment, segment.stat().st_size)
    filler = fill(small_disk)
    os.truncate(filler, filler.stat().st_size - left)
    for _ in range(2):
        assert not sidecar.spawn_and_listen() and sidecar.process.returncode == 1
        assert "No space left on device" in sidecar.stderr()
        sidecar.stderr_file.write_text("")  # for people, not JSON
    filler.unlink()
    sidecar.start()
    known, unknown = [], []
    for e in sidecar.calls():
        (unknown if e["outcome"] == "unknown" else known).append(e["correlationId"])
    assert sorted(known) == sorted(sent) and len(unknown) == 2


# ---- damage in what was written ----

def test_a_damaged_line_is_put_aside_and_all_else_goes_on(keytrail, raw_backend, tmp_path):
    sink = tmp_path / "out.jsonl"
    sidecar = keytrail(raw_backend(ok()), CONFIG)
    sent = [call(sidecar, *DURABLE)[0] for _ in range(5)]
    number = sidecar.event(sent[2])["trail"]["seq"]
    sidecar.kill()
    segment, = segments(sidecar.trail_dir)
    whole = segment.read_bytes()
    segment.write_bytes(whole.replace(sent[2].encode(), b"x" * len(sent[2])))
    sidecar.write_config(sinks=[{"name": "out", "type": "file", "path": str(sink)}])
    sidecar.start()
    corrupt, = sidecar.wait_own("keytrail.corrupt")
    assert corrupt["severity"] == "critical"
    assert corrupt["details"] == {"first": number, "last": number}
    aside = segment.with_name(segment.name + ".corrupt").read_bytes()
    assert aside.count(b"\n") == 1 and b'"seq":%d,' % number in aside
    later, r = call(sidecar, *INTENT)
    assert r.status == 200
    wait_for(lambda: sink.exists() and later in sink.read_text(), "the sink")
    delivered = [json.loads(line)["trail"]["seq"] for line in sink.read_text().splitlines()]
    assert number not in delivered
    assert [n for n in range(1, delivered[-1] + 1) if n not in delivered][0] == number
    told = [e for e in sidecar.log_lines() if e["event"] == "sink_gap"]
    assert len(told) == 1 and f"events {number} to {number}" in told[0]["message"]
    sidecar.kill()
    sidecar.start()
    assert len(sidecar.own("keytrail.corrupt")) == 1
    segment.write_bytes(whole)  # for the check of the whole trail


# ---- files that are cut under us ----

@pytest.mark.parametrize("length", [0, 4096, 100_000])
def test_a_ring_that_is_cut_is_mended_and_recorded(keytrail, raw_backend, length):
    sidecar = keytrail(raw_backend(ok()), CONFIG)
    before, _ = call(sidecar, *DURABLE)
    os.truncate(sidecar.trail_dir / "ring.0", length)
    after = [call(sidecar, *how) for how in (DURABLE, INTENT, ASYNC)]
    assert [r.status for _, r in after] == [200, 200, 200]
    tamper, = sidecar.wait_own("keytrail.tamper")
    assert tamper["severity"] == "critical" and tamper["details"] == {"rings": 1}
    wait_for(lambda: is_balanced(sidecar), "accepted = durable + lost")
    assert lost(sidecar) == 0
    call(sidecar, *INTENT)
    sidecar.kill()
    sidecar.start()
    assert all(sidecar.event(c) for c in (before, *(c for c, _ in after)))
    assert len(sidecar.own("keytrail.tamper")) == 1


def test_what_was_in_a_ring_that_is_cut_is_counted_lost(keytrail, raw_backend, disk):
    sidecar = keytrail(raw_backend(ok()), CONFIG, environment=disk.environment)
    disk.set("sync *.jsonl stall")
    for _ in range(5):
        assert call(sidecar, *ASYNC)[1].status == 200
    os.truncate(sidecar.trail_dir / "ring.0", 4096)
    disk.clear()
    assert call(sidecar, *DURABLE)[1].status == 200
    told = sidecar.wait_own("keytrail.loss")
    assert all(e["details"]["reason"] == "ring_cut" for e in told)
    n = lost(sidecar, reason="ring_cut")
    assert sum(e["details"]["count"] for e in told) == n > 0
    assert len(sidecar.calls()) + n == 6
    wait_for(lambda: is_balanced(sidecar), "accepted = durable + lost")


def test_a_state_page_that_is_cut_is_mended_and_recorded(keytrail, raw_backend, tmp_path):
    sink = tmp_path / "out.jsonl"
    sidecar = keytrail(raw_backend(ok()), merge(CONFIG, {
        "sinks": [{"name": "out", "type": "file", "path": str(sink)}]}))
    os.truncate(sidecar.trail_dir / "state", 0)
    correlation, r = call(sidecar, *DURABLE)
    assert r.status == 200
    tamper, = sidecar.wait_own("keytrail.tamper")
    assert tamper["severity"] == "critical" and "state" in tamper["message"]
    wait_for(lambda: sink.exists() and correlation in sink.read_text(), "the sink")
    number = sidecar.events()[-1]["trail"]["seq"]
    sidecar.kill()
    sidecar.start()
    assert [e["trail"]["seq"] for e in sidecar.events()][:number] == list(range(1, number + 1))
    assert len(sidecar.own("keytrail.tamper")) == 1


# ---- a directory that goes ----

def test_a_trail_that_is_moved_goes_on_where_it_is(keytrail, raw_backend, tmp_path):
    sink = tmp_path / "out.jsonl"
    sidecar = keytrail(raw_backend(ok()), merge(CONFIG, {
        "sinks": [{"name": "out", "type": "file", "path": str(sink)}]}))
    there, elsewhere = sidecar.trail_dir, tmp_path / "moved"
    sent = [call(sidecar, *INTENT)[0]]
    there.rename(elsewhere)
    sent += [call(sidecar, *INTENT)[0] for _ in range(3)]
    wait_for(lambda: sink.exists() and sent[-1] in sink.read_text(), "the sink")
    assert unready(sidecar) is None and not there.exists()
    page = json.loads(sidecar.fetch("admin", "/events?action=kms.secrets.delete"))
    assert [e["correlationId"] for e in page["events"]] == sent
    sidecar.stop()
    elsewhere.rename(there)
    assert [e["correlationId"] for e in sidecar.calls()] == sent

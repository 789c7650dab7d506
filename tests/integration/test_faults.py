"""A disk that is full, and files that are damaged: the answer, the metric, readiness and the trail."""

import contextlib
import json
import os

import pytest

from backend import ok
from faults import (ASYNC, CONFIG, DURABLE, INTENT, call, is_balanced, lost, unready, wait_said,
                    waiting)
from support import merge, new_id, segments, text_of, wait_for

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
            waiting(sidecar)
    why = wait_for(lambda: unready(sidecar), "it to be unready")
    assert "no room" in why or "No space left on device" in why
    seen = len(backend.requests)
    for how in (DURABLE, INTENT):
        r = call(sidecar, *how)[1]
        assert r.status == 503 and b"TRAIL_FULL" in r.body
        waiting(sidecar)
    assert len(backend.requests) == seen
    filler.unlink()
    wait_for(lambda: unready(sidecar) is None, "it to be ready again")
    last, r = call(sidecar, *INTENT)
    assert r.status == 200
    n = lost(sidecar)  # of a small ring, some may be lost for want of its own room
    wait_for(lambda: sum(e["details"]["count"] for e in sidecar.own("keytrail.loss")) == n,
             "the record of the loss")
    assert len(sidecar.calls()) + n == len(recorded) + 3 and sidecar.event(last)
    wait_for(lambda: is_balanced(sidecar), "accepted = durable + lost")


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
    for how in (sidecar.kill, sidecar.kill, sidecar.stop, sidecar.kill):
        told += lost(sidecar)
        how()
        sidecar.start()
        why = unready(sidecar)
        assert "no room" in why or "No space left on device" in why
        for refused in (DURABLE, INTENT):
            r = call(sidecar, *refused)[1]
            assert r.status == 503 and b"TRAIL_FULL" in r.body
        assert call(sidecar, *ASYNC)[1].status == 200
        assert lost(sidecar, reason="trail_full") == 3
    filler.unlink()
    wait_for(lambda: unready(sidecar) is None, "it to be ready again")
    tries = []

    def is_served():
        tries.append(call(sidecar, *INTENT))
        return tries[-1][1].status == 200

    wait_for(is_served, "it to serve again")
    told += lost(sidecar)
    wait_for(lambda: sum(e["details"]["count"] for e in sidecar.own("keytrail.loss")) >= told,
             "the record of the loss")
    wait_for(lambda: is_balanced(sidecar), "accepted = durable + lost")
    assert sidecar.event(tries[-1][0])
    assert len(sidecar.calls()) + told == len(sent) + 4 * 3 + len(tries)
    assert len(sidecar.own("keytrail.start")) == 5
    life = boots(sidecar)[sidecar.events()[-1]["trail"]["boot"]]
    assert life[:2] == ["keytrail.recover", "keytrail.start"]


@pytest.mark.parametrize("rule, word", [
    ("allocate *.jsonl ENOSPC", b"TRAIL_FULL"), ("allocate *.jsonl EIO", b"TRAIL_FULL"),
    ("write *.jsonl ENOSPC", b"TRAIL_FAILED")])
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
    wait_for(lambda: later in text_of(sink), "the sink")
    delivered = [json.loads(line)["trail"]["seq"] for line in sink.read_text().splitlines()]
    assert number not in delivered
    assert [n for n in range(1, delivered[-1] + 1) if n not in delivered][0] == number
    told, = wait_said(sidecar, "sink_gap")
    assert f"events {number} to {number}" in told
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
    correlation, _ = call(sidecar, *ASYNC)
    wait_for(lambda: correlation in segments(sidecar.trail_dir)[0].read_text(), "the write")
    for _ in range(4):  # a sync follows each write: these stay in the ring
        assert call(sidecar, *ASYNC)[1].status == 200
    os.truncate(sidecar.trail_dir / "ring.0", 4096)
    disk.clear()
    assert call(sidecar, *DURABLE)[1].status == 200
    told = sidecar.wait_own("keytrail.loss")
    assert all(e["details"]["reason"] == "ring_cut" for e in told)
    n = lost(sidecar, reason="ring_cut")
    assert sum(e["details"]["count"] for e in told) == n == 4
    assert len(sidecar.calls()) == 2
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
    wait_for(lambda: correlation in text_of(sink), "the sink")
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
    wait_for(lambda: sent[-1] in text_of(sink), "the sink")
    assert unready(sidecar) is None and not there.exists()
    page = json.loads(sidecar.fetch("admin", "/events?action=kms.secrets.delete"))
    assert [e["correlationId"] for e in page["events"]] == sent
    sidecar.stop()
    elsewhere.rename(there)
    assert [e["correlationId"] for e in sidecar.calls()] == sent

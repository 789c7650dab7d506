"""A disk that fails, call by call and file by file, for each guarantee: the answer, the metric, readiness,
the own log and what the trail holds afterwards."""

import json
import os
import signal
import subprocess
import threading

import pytest

from backend import ok
from faults import (ASYNC, CONFIG, DURABLE, EVERY, INTENT, STALL, call, call_each, failures,
                    is_balanced, lost, said, unready, wait_said)
from http1 import Closed
from support import KEYTRAIL, PATIENCE, merge, new_id, replace, segments, text_of, wait_for
from test_proof import calls

# ---- a disk that fails ----

OUT = {"sinks": [{"name": "out", "type": "file", "path": "out.jsonl"}]}


def sign(signer, **audit):
    return {"audit": {"sign": {"file": str(signer[0])}, "checkpoint_interval": "1s", **audit}}


def check_proof(sidecar, signer):
    out = subprocess.run([KEYTRAIL, "verify", sidecar.trail_dir, "--key", signer[1]], text=True,
                         capture_output=True)
    assert out.returncode == 0, out.stdout


def signing(sidecar):
    """Why nothing is signed, or by whom."""
    checks = json.loads(sidecar.fetch("admin", "/readyz?verbose"))["checks"]
    return next(c["detail"] for c in checks if c["name"] == "signing")


def alarms(sidecar):
    return [e for e in sidecar.own() if e["action"].removeprefix("keytrail.")
            in ("corrupt", "loss", "tamper")]


# ---- the open segment ----

@pytest.mark.parametrize("rules, operation", [
    (["sync *.jsonl EIO 1 1"], "sync"),
    (["sync *.jsonl EINTR 1 1"], "sync"),
    (["sync *.jsonl EIO 1 1", "truncate *.jsonl EIO 1 1"], "sync"),
    (["write *.jsonl EIO 1 1"], "write"),
    (["write *.jsonl ENOSPC 1 1", "truncate *.jsonl EIO 1 2"], "write"),
])
def test_one_failure_costs_a_segment_and_nobody_notices(keytrail, raw_backend, disk, rules,
                                                        operation):
    sidecar = keytrail(raw_backend(ok()), CONFIG, environment=disk.environment)
    first, _ = call(sidecar, *DURABLE)
    last = sidecar.event(first)["trail"]["seq"]
    disk.set(*rules)
    sent = call_each(sidecar)
    assert failures(sidecar, operation) == 1 and unready(sidecar) is None
    assert [int(s.stem) for s in segments(sidecar.trail_dir)] == [1, last + 1]
    assert all(sidecar.event(c) for c in sent)
    wait_for(lambda: is_balanced(sidecar), "accepted = durable + lost")
    assert lost(sidecar) == 0


@pytest.mark.parametrize("rule", [
    "write * short", "write * EINTR 1 9", "read * short", "read * EINTR 1 9",
    "allocate * EINTR 1 2", "allocate */state EINTR 1 2", "allocate */ring.0 EINTR 1 2",
    "allocate *.jsonl EOPNOTSUPP", "truncate *.jsonl EIO"])
def test_what_is_no_failure(keytrail, raw_backend, disk, signer, rule):
    """From the first start on, and at the one after a kill."""
    disk.set(rule)
    sidecar = keytrail(raw_backend(ok()), merge(CONFIG, {**OUT, **sign(signer)}),
                       environment=disk.environment)
    sent = call_each(sidecar)
    sidecar.kill()
    disk.set(rule)
    sidecar.start()
    sent += call_each(sidecar)
    assert all(sidecar.event(c) for c in sent) and unready(sidecar) is None
    assert sum(failures(sidecar, o) for o in ("write", "sync", "open")) == 0
    out = sidecar.folder / "out.jsonl"
    wait_for(lambda: all(c in text_of(out) for c in sent), "the sink")
    sidecar.stop()
    assert not alarms(sidecar)
    check_proof(sidecar, signer)


@pytest.mark.parametrize("rules", [["sync *.jsonl EIO"], ["write *.jsonl EIO"],
                                   ["write *.jsonl ENOSPC"],
                                   ["sync *.jsonl EIO 1 1", "truncate *.jsonl EIO"],
                                   ["sync *.jsonl EIO", "open *.jsonl ENOSPC"],
                                   ["sync *.jsonl EIO", "open *.jsonl EIO"],
                                   ["sync *.jsonl EIO", "sync */trail EIO"]])
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


@pytest.mark.parametrize("rules", [["sync */trail EIO"],
                                   ["sync */trail EIO", "unlink *.jsonl EIO"]])
def test_a_successor_that_may_come_back_is_removed_before_more_is_durable(
        keytrail, raw_backend, disk, rules):
    """Lines behind its first number would be taken for its own."""
    backend = raw_backend(ok())
    sidecar = keytrail(backend, merge(CONFIG, {"audit": {"segment_size": 65536}}),
                       environment=disk.environment)
    disk.set(*rules)
    sent = []

    def closed():
        sent.append(call(sidecar, *ASYNC)[0])
        return unready(sidecar)

    wait_for(closed, "it to be unready")
    r = call(sidecar, *DURABLE)[1]
    assert r.status == 503 and b"TRAIL_FAILED" in r.body
    disk.clear()
    wait_for(lambda: unready(sidecar) is None, "it to be ready again")
    sent.append(call(sidecar, *DURABLE)[0])
    wait_for(lambda: is_balanced(sidecar), "accepted = durable + lost")
    written = {e["correlationId"] for e in sidecar.calls()} & set(sent)
    assert len(written) + lost(sidecar, reason="trail_failed") == len(sent) + 1
    sidecar.stop()
    assert {e["action"] for e in alarms(sidecar)} == {"keytrail.loss"}


@pytest.mark.parametrize("rule", ["open *.jsonl EIO", "sync */trail EIO 1 1",
                                  "allocate *.jsonl EIO"])
def test_a_segment_without_a_successor_grows_on(keytrail, raw_backend, disk, rule):
    """Where no room can be kept either, it is as with a full disk."""
    backend = raw_backend(ok())
    sidecar = keytrail(backend, merge(CONFIG, {"audit": {"segment_size": 65536,
                                                         "ring_size": 65536}}),
                       environment=disk.environment)
    sent = [call(sidecar, *DURABLE)[0]]
    disk.set(rule)
    while not failures(sidecar, "open"):
        correlation, r = call(sidecar, *DURABLE)  # the last one meets the end of the segment
        assert r.status == 200
        sent.append(correlation)
    assert wait_said(sidecar, "segment_grows_on")
    if "allocate" in rule:
        wait_for(lambda: unready(sidecar), "it to be unready")
        seen = len(backend.requests)
        for how in (DURABLE, INTENT):
            r = call(sidecar, *how)[1]
            assert r.status == 503 and b"TRAIL_FULL" in r.body
        assert len(backend.requests) == seen and lost(sidecar, reason="trail_full") == 2
    else:
        sent += call_each(sidecar)
    assert len(segments(sidecar.trail_dir)) == 1
    disk.clear()
    wait_for(lambda: unready(sidecar) is None, "it to be ready again")
    while len(segments(sidecar.trail_dir)) == 1:
        sent += call_each(sidecar)
    wait_for(lambda: is_balanced(sidecar), "accepted = durable + lost")
    assert {e["correlationId"] for e in sidecar.calls()} == set(sent)


def test_a_replaced_segment_that_cannot_be_put_aside(keytrail, raw_backend, disk):
    backend = raw_backend(ok())
    sidecar = keytrail(backend, CONFIG, environment=disk.environment)
    call(sidecar, *DURABLE)
    disk.set("rename *.jsonl.replaced EIO")
    segment, = segments(sidecar.trail_dir)
    whole = segment.read_bytes()
    replace(segment, whole)
    why = wait_for(lambda: unready(sidecar), "it to be unready")
    assert f"put {segment.name} aside" in why
    assert "aside: Input/output error" in wait_said(sidecar, "trail_failed")[-1]
    seen = len(backend.requests)
    for how in (DURABLE, INTENT):
        r = call(sidecar, *how)[1]
        assert r.status == 503 and b"TRAIL_FAILED" in r.body
    assert len(backend.requests) == seen and failures(sidecar, "open") > 0
    disk.clear()
    wait_for(lambda: unready(sidecar) is None, "it to be ready again")
    sent, r = call(sidecar, *DURABLE)
    assert r.status == 200 and sidecar.event(sent)
    assert (sidecar.trail_dir / f"{segment.name}.replaced").exists()
    sidecar.stop()
    (sidecar.trail_dir / f"{segment.name}.replaced").rename(segment)  # whole again


def test_a_slow_sync_keeps_waiting_who_must_wait(keytrail, raw_backend, disk):
    """An async call is answered, a durable one forwarded and not answered, an intent not forwarded:
    until the sync ends."""
    backend = raw_backend(ok())
    sidecar = keytrail(backend, CONFIG, environment=disk.environment)
    with sidecar.client() as durable, sidecar.client() as intent:
        disk.set(STALL)
        sent = {how: new_id() for how in EVERY}
        for c, how in ((durable, DURABLE), (intent, INTENT)):
            c.send_request(*how, {"Correlation-Id": sent[how]})
        wait_for(lambda: sidecar.metric("keytrail_requests_in_flight") == 2, "both calls")
        backend.wait(lambda b: b.requests)
        assert sidecar.call(*ASYNC, {"Correlation-Id": sent[ASYNC]}).status == 200
        assert [r.method for r in backend.requests] == ["POST", "GET"]
        wait_for(lambda: sidecar.metric("keytrail_requests_in_flight") == 2, "the async call's end")
        assert unready(sidecar) is None
        disk.clear()
        assert durable.read_response().status == intent.read_response().status == 200
    assert all(sidecar.event(c) for c in sent.values())
    assert [e["correlationId"] for e in sidecar.intents()] == [sent[INTENT]]
    assert lost(sidecar) == 0


# ---- what stands beside it ----

@pytest.mark.parametrize("rules", [
    {"log": "open */log.new EIO", "state": "open */state.new EIO"},
    {"log": "write */log.new ENOSPC", "state": "allocate */state.new ENOSPC"},
    {"log": "sync */log.new EIO", "state": "sync */state.new EIO"},
    {"log": "rename */log EIO", "state": "rename */state EIO", "ring.0": "rename */ring.0 EIO"}],
    ids=["open", "room", "sync", "rename"])
def test_a_file_that_cannot_be_made_again_is_told_and_made_later(keytrail, raw_backend, disk,
                                                                 rules):
    sidecar = keytrail(raw_backend(ok()), CONFIG, environment=disk.environment)
    disk.set(*rules.values())
    paths = [sidecar.trail_dir / file for file in rules]
    for path in paths:
        path.rename(path.with_name(f"{path.name}.away"))
    tampers = sidecar.wait_own("keytrail.tamper", len(rules))
    assert {e["severity"] for e in tampers} == {"critical"}
    assert sorted(e["details"]["file"] for e in tampers) == sorted(rules)
    assert not any(e["details"]["mended"] for e in tampers)
    sent = call_each(sidecar)
    assert unready(sidecar) is None and not any(path.exists() for path in paths)
    disk.clear()
    wait_for(lambda: all(path.exists() for path in paths), "the files, made again")
    sent += call_each(sidecar)
    sidecar.kill()
    sidecar.start()
    assert all(sidecar.event(c) for c in sent) and alarms(sidecar) == tampers
    assert len({e["trail"]["log"] for e in sidecar.events()}) == 1


def test_a_ring_that_is_cut_and_cannot_be_mended_ends_the_process(keytrail, raw_backend, disk):
    """A start has room for it, or none at all."""
    sidecar = keytrail(raw_backend(ok()), CONFIG, environment=disk.environment)
    sent = call_each(sidecar)
    wait_for(lambda: is_balanced(sidecar), "all to be durable")
    disk.set("allocate */ring.0 ENOSPC")
    os.truncate(sidecar.trail_dir / "ring.0", 4096)
    with pytest.raises((Closed, OSError)):
        call(sidecar, *DURABLE)
    assert sidecar.process.wait(PATIENCE) == -signal.SIGBUS and said(sidecar, "mapped_file_lost")
    assert not sidecar.spawn_and_listen() and "for ring.0: No space left" in sidecar.stderr()
    sidecar.stderr_file.write_text("")  # for people, not JSON
    disk.clear()
    sidecar.start()
    assert all(sidecar.event(c) for c in sent)
    assert [e["details"] for e in alarms(sidecar)] == [{"rings": 1}]


@pytest.mark.parametrize("rule, event, why", [
    ("sync */ring.0 EIO", "trail_expire_failed", "sync ring.0"),
    ("sync */state EIO", "trail_expire_failed", "sync state"),
    ("sync */tile/* EIO", "nothing_expires", "sync tile/"),
    ("unlink *.jsonl EIO", "trail_expire_failed", "remove 0"),
    ("open */trail/. EIO", "trail_expire_failed", "list segments")])
def test_nothing_expires_before_what_recovery_needs_is_synced(keytrail, raw_backend, disk, signer,
                                                              rule, event, why):
    sidecar = keytrail(raw_backend(ok()), merge(CONFIG, sign(
        signer, segment_size=65536, max_size=65536)), environment=disk.environment)
    first, = segments(sidecar.trail_dir)
    disk.set(rule)
    calls(sidecar, 300)  # what is signed expires by tiles of 256
    tried = wait_for(lambda: call_each(sidecar) and [m for m in said(sidecar, event) if why in m],
                     "the failure")
    assert "Input/output error" in tried[0]
    assert first.exists() and unready(sidecar) is None
    disk.clear()
    sidecar.stop()
    sidecar.start()
    wait_for(lambda: call_each(sidecar) and not first.exists(), "what had waited to go")
    assert sidecar.own("keytrail.expire") and not alarms(sidecar)


# ---- the ledger ----

LEDGER = ["open */tile/* EIO", "write */tile/* EIO", "write */tile/* ENOSPC",
          "open */checkpoint.new EIO", "write */checkpoint.new ENOSPC",
          "sync */checkpoint.new EIO", "rename */checkpoint EIO"]


@pytest.mark.parametrize("rule", LEDGER)
def test_what_cannot_be_signed_is_served_and_signed_later(keytrail, raw_backend, disk, signer,
                                                          rule):
    sidecar = keytrail(raw_backend(ok()), merge(CONFIG, sign(signer)), start=False,
                       environment=disk.environment)
    disk.set(rule)
    sidecar.start()
    wait_said(sidecar, "not_signed")
    sent = call_each(sidecar)
    wait_for(lambda: sidecar.metric("keytrail_trail_signing") == 0, "the metric")
    assert unready(sidecar) is None
    assert signing(sidecar).endswith(os.strerror(5 if "EIO" in rule else 28))
    disk.clear()
    sidecar.stop()
    assert all(sidecar.event(c) for c in sent) and not alarms(sidecar)
    check_proof(sidecar, signer)


@pytest.mark.parametrize("rule", ["open */tile/* EIO", "read */tile/* EIO", "write */tile/* EIO",
                                  "rename */tile/* EIO"])
def test_what_a_start_cannot_load_is_no_tampering_and_signed_later(keytrail, raw_backend, disk,
                                                                   signer, rule):
    sidecar = keytrail(raw_backend(ok()), merge(CONFIG, sign(signer)), environment=disk.environment)
    call_each(sidecar)
    wait_for((sidecar.trail_dir / "checkpoint").exists, "a checkpoint")
    sidecar.kill()
    disk.set(rule)
    sidecar.start()
    call_each(sidecar)
    assert "Input/output error" in wait_said(sidecar, "not_signed")[0]
    disk.clear()
    sidecar.stop()
    assert not alarms(sidecar) and len({e["trail"]["log"] for e in sidecar.events()}) == 1
    check_proof(sidecar, signer)


def test_without_its_checkpoint_nothing_is_signed_before_the_lines_are_read(keytrail, raw_backend,
                                                                            disk, signer):
    """They tell that there was one: no second head of one size is signed."""
    sidecar = keytrail(raw_backend(ok()), merge(CONFIG, sign(signer)), environment=disk.environment)
    sidecar.wait_own("keytrail.checkpoint")
    sidecar.stop()
    log = sidecar.events()[-1]["trail"]["log"]
    (sidecar.trail_dir / "checkpoint").unlink()
    disk.set("read *.jsonl EIO")
    sidecar.start()
    wait_said(sidecar, "not_signed")
    disk.clear()
    sidecar.stop()
    assert "the checkpoint is gone, but the log had one" in said(sidecar, "not_signed")[-1]
    assert not (sidecar.trail_dir / "checkpoint").exists()
    assert [e["action"] for e in alarms(sidecar)] == ["keytrail.corrupt"]  # read as such
    sidecar.start()
    assert sidecar.wait_own("keytrail.tamper") and sidecar.events()[-1]["trail"]["log"] != log


# ---- sinks ----

@pytest.mark.parametrize("rule", ["open */out.jsonl EIO", "write */out.jsonl EIO",
                                  "write */out.jsonl ENOSPC", "sync */out.jsonl EIO",
                                  "read *.jsonl EIO"])
def test_a_sink_whose_disk_fails_goes_on_later(keytrail, raw_backend, disk, rule):
    sidecar = keytrail(raw_backend(ok()), merge(CONFIG, OUT), start=False,
                       environment=disk.environment)
    disk.set(rule)
    sidecar.start()
    sent = call_each(sidecar)
    wait_for(lambda: sidecar.metric("keytrail_sink_up", sink="out") == 0, "the sink to be down")
    sent += call_each(sidecar)
    disk.clear()
    sidecar.wait_delivered("out")
    lines = [line for path in sidecar.folder.glob("out.jsonl*")
             for line in path.read_text().splitlines()]
    numbers = {json.loads(line)["trail"]["seq"] for line in lines}
    held = {e["trail"]["seq"] for e in sidecar.events() if e.get("kind") != "intent"}
    assert numbers == held and all(sidecar.event(c) for c in sent)


def test_a_sink_that_cannot_rotate_its_file_writes_on(keytrail, raw_backend, disk):
    sidecar = keytrail(raw_backend(ok()), merge(CONFIG, {"sinks": [
        {"name": "out", "type": "file", "path": "out.jsonl", "rotate_size": 4096}]}),
        environment=disk.environment)
    disk.set("rename */out.jsonl.* EIO")

    warned = wait_for(lambda: call_each(sidecar) and said(sidecar, "sink_warning"), "a full file")
    assert "rotate: Input/output error" in warned[0]
    sent = call_each(sidecar)
    out = sidecar.folder / "out.jsonl"
    wait_for(lambda: all(c in text_of(out) for c in sent), "the sink")
    assert sidecar.metric("keytrail_sink_up", sink="out") == 1
    disk.clear()
    call_each(sidecar)
    wait_for(lambda: list(sidecar.folder.glob("out.jsonl.*")), "the rotation")


@pytest.mark.parametrize("rule", ["write */cursor.out EIO", "sync */cursor.out EIO"])
def test_a_cursor_that_cannot_be_kept_delivers_again(keytrail, raw_backend, disk, rule):
    sidecar = keytrail(raw_backend(ok()), merge(CONFIG, OUT), environment=disk.environment)
    disk.set(rule)
    sent = call_each(sidecar)
    out = sidecar.folder / "out.jsonl"
    wait_for(lambda: all(c in text_of(out) for c in sent), "the sink")
    wait_said(sidecar, "cursor_failed")
    assert sidecar.metric("keytrail_sink_up", sink="out") == 1
    sidecar.kill()
    disk.clear()
    sidecar.start()
    more = call_each(sidecar)
    wait_for(lambda: all(c in text_of(out) for c in more), "the sink")
    assert all(out.read_text().count(c) >= 1 for c in sent)


def test_a_cursor_that_cannot_be_read_delivers_all_again(keytrail, raw_backend, disk):
    """And is not taken for that of a new sink, which might begin with the next event."""
    sidecar = keytrail(raw_backend(ok()), merge(CONFIG, {"sinks": [{**OUT["sinks"][0],
                                                                    "start": "now"}]}),
                       environment=disk.environment)
    disk.set("write */out.jsonl EIO")
    sent = call_each(sidecar)
    sidecar.kill()
    disk.set("read */cursor.out EIO")
    sidecar.start()
    wait_said(sidecar, "cursor_damaged")
    out = sidecar.folder / "out.jsonl"
    wait_for(lambda: all(c in text_of(out) for c in sent), "the sink")


# ---- what stands still, and what cannot be read ----

def test_an_answer_whose_event_does_not_become_durable_is_withheld(keytrail, raw_backend, disk):
    backend = raw_backend(ok())
    sidecar = keytrail(backend, merge(CONFIG, {"timeouts": {"answer": "2s"}}),
                       environment=disk.environment)
    disk.set(STALL)
    correlation = new_id()
    with pytest.raises(Closed) as cut:
        sidecar.call(*DURABLE, {"Correlation-Id": correlation})
    assert cut.value.args == (b"",) and len(backend.requests) == 1
    disk.clear()
    assert sidecar.event(correlation)["outcome"] == "success"


def test_a_call_that_waits_for_the_disk_keeps_no_connection(keytrail, raw_backend, disk):
    """Its answer is here to the end: the next call goes the same way to the key service."""
    backend = raw_backend(ok(b'{"some": "body"}'))
    sidecar = keytrail(backend, CONFIG, environment=disk.environment)
    with sidecar.client() as first, sidecar.client() as second:
        disk.set(STALL)
        first.send_request(*DURABLE)
        wait_for(lambda: sidecar.metric("keytrail_upstream_connections_idle") == 1, "the answer")
        second.send_request(*DURABLE)
        backend.wait(lambda b: len(b.requests) == 2)
        disk.clear()
        assert [c.read_response().body for c in (first, second)] == [b'{"some": "body"}'] * 2
    assert backend.connections == 1


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
        return text_of(sink) and sidecar.metric("keytrail_sink_lag_events", sink="out") == 0

    wait_for(is_done, "the sink")
    assert json.loads(sink.read_text().splitlines()[0])["trail"]["seq"] == second
    told, = sidecar.wait_own("keytrail.corrupt")
    assert (told["details"]["first"], told["details"]["last"]) == (1, second - 1)
    assert "sink out works again after 10 failures" in wait_said(sidecar, "sink_up")


def test_a_sink_that_comes_late_to_damage_tells_nothing_new(keytrail, raw_backend, disk, tmp_path):
    """A start has told of it, and another one since has found nothing."""
    sink = tmp_path / "out.jsonl"
    sidecar = keytrail(raw_backend(ok()), merge(CONFIG, {
        "sinks": [{"name": "out", "type": "file", "path": str(sink)}]}),
        environment=disk.environment)
    disk.set("write *out.jsonl EIO")
    sent = [call(sidecar, *DURABLE)[0] for _ in range(5)]
    number = sidecar.event(sent[2])["trail"]["seq"]
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
    wait_for(lambda: sent[4] in text_of(sink), "the sink")
    assert sent[2] not in sink.read_text()
    sidecar.stop()
    assert len(sidecar.own("keytrail.corrupt")) == 1
    segment.write_bytes(whole)  # for the check of the whole trail


def test_a_sink_that_meets_damage_behind_which_no_line_stands_names_it(keytrail, raw_backend, disk,
                                                                       tmp_path):
    """The healthy line that comes later is none of it."""
    out = tmp_path / "out.jsonl"
    disk.set("write *out.jsonl EIO")
    sidecar = keytrail(raw_backend(ok()), merge(CONFIG, {
        "sinks": [{"name": "out", "type": "file", "path": str(out)}]}),
        environment=disk.environment)
    last = [sidecar.event(call(sidecar, *DURABLE)[0])["trail"]["seq"] for _ in range(3)][-1]
    segment, = segments(sidecar.trail_dir)
    whole = segment.read_bytes()
    at = whole.index(b'"outcome"', whole.rindex(b"\n", 0, -1))
    with segment.open("r+b") as f:
        f.seek(at)
        f.write(b'"outcame"')
    disk.clear()
    sidecar.wait_own("keytrail.corrupt")
    assert call(sidecar, *DURABLE)[1].status == 200
    sidecar.wait_delivered("out")
    told, = sidecar.own("keytrail.corrupt")
    assert (told["details"]["first"], told["details"]["last"]) == (last, last)
    sidecar.stop()
    segment.write_bytes(whole + segment.read_bytes()[len(whole):])


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


def test_what_cannot_be_read_is_signed_when_it_can(long, disk, signer):
    """Lines are read once a tile could not be written: their hashes went with it."""
    disk.set("write */tile/0/* EIO", "read *.jsonl EIO")
    while long.metric("keytrail_events_durable_total") < 257:
        call(long, *DURABLE)
    wait_for(lambda: any("read 0" in why for why in said(long, "not_signed")),
             "the ledger, which cannot read")
    wait_for(lambda: long.metric("keytrail_trail_signing") == 0, "the metric")
    assert "Input/output error" in signing(long)
    disk.clear()
    wait_for(lambda: long.metric("keytrail_trail_signing") == 1, "the ledger, which reads again")
    assert signing(long).startswith("signed by ")
    long.stop()
    check_proof(long, signer)


def test_a_new_log_whose_file_cannot_be_put_in_its_place_begins_later(long, disk):
    long.stop()
    path = segments(long.trail_dir)[-1]
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    disk.set("rename */log EIO")
    for _ in range(2):
        long.spawn()
        assert long.process.wait(PATIENCE) == 1
        assert "put log in its place: Input/output" in long.stderr()
    long.stderr_file.write_text("")  # for people, not JSON
    disk.clear()
    long.start()
    assert long.wait_own("keytrail.tamper")
    assert len({e["trail"]["log"] for e in long.events()}) == 2
    long.stop()
    long.process = None  # a trail with a hole


def die_with_full_rings(keytrail, raw_backend, disk):
    """A sidecar that was killed, and the calls of which its rings alone know."""
    sidecar = keytrail(raw_backend(ok()), merge(CONFIG, {"audit": {"flush_interval": "30s"}}),
                       environment=disk.environment)
    disk.set("sync *.jsonl stall", "write *.jsonl stall")
    sent = [call(sidecar, *ASYNC)[0] for _ in range(5)]
    sidecar.kill()
    return sidecar, sent


@pytest.mark.parametrize("rule, why", [
    ("open *.jsonl EACCES", "jsonl: Permission denied"),
    ("open *.jsonl EIO", "jsonl: Input/output error"),
    ("write *.jsonl EIO", "jsonl: Input/output error"),
    ("write *.jsonl ENOSPC", "jsonl: No space left on device"),
    ("sync *.jsonl EIO", "jsonl: Input/output error"),
    ("open */trail/. EIO", "list segments: Input/output error"),
    ("sync */trail EIO", "sync state: Input/output error"),
    ("open */lock EIO", "lock: Input/output error"),
    ("write */lock ENOSPC", "lock: No space left on device"),
    ("open */state EACCES", "state: Permission denied"),
    ("open */state EIO", "state: Input/output error"),
    ("read */state EIO", "state: Input/output error"),
    ("allocate */state EIO", "state: Input/output error"),
    ("allocate */state ENOSPC", "state: No space left on device"),
    ("sync */state EIO", "state: Input/output error"),
    ("open */ring.0 EACCES", "ring.0: Permission denied"),
    ("open */ring.main EIO", "ring.main: Input/output error"),
    ("read */ring.0 EIO", "ring.0: Input/output error"),
    ("write */ring.0 EIO", "ring.0: Input/output error"),
    ("write */ring.0 ENOSPC", "ring.0: No space left on device"),
    ("allocate */ring.0 EIO", "ring.0: Input/output error"),
    ("sync */ring.0 EIO", "ring.0: Input/output error"),
])
def test_a_recovery_that_fails_loses_nothing(keytrail, raw_backend, disk, rule, why):
    """What the rings held when it died is still there at the next start."""
    sidecar, sent = die_with_full_rings(keytrail, raw_backend, disk)
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


@pytest.mark.parametrize("operation", ["open", "read"])
def test_a_checkpoint_that_cannot_be_read_is_no_fault_of_the_configuration(
        keytrail, raw_backend, disk, signer, operation):
    sidecar = keytrail(raw_backend(ok()), merge(CONFIG, sign(signer)), environment=disk.environment)
    wait_for((sidecar.trail_dir / "checkpoint").exists, "a checkpoint")
    sidecar.kill()
    disk.set(f"{operation} */checkpoint EIO")
    sidecar.spawn()
    assert sidecar.process.wait(PATIENCE) == 1
    last = sidecar.stderr().splitlines()[-1]
    assert last.endswith(f"{sidecar.trail_dir}: {operation} checkpoint: Input/output error"), last
    sidecar.stderr_file.write_text("")  # for people, not JSON
    disk.clear()
    sidecar.start()
    sidecar.stop()
    assert not alarms(sidecar)
    check_proof(sidecar, signer)


@pytest.mark.parametrize("rule, said_of_it", [
    ("open */log EIO", None), ("read */log EIO", None), ("open */retention EIO", None),
    ("open */holds EIO", "holds_damaged")])
def test_a_recovery_that_goes_on_loses_nothing(keytrail, raw_backend, disk, rule, said_of_it):
    sidecar, sent = die_with_full_rings(keytrail, raw_backend, disk)
    disk.set(rule)
    sidecar.start()
    assert said_of_it is None or wait_said(sidecar, said_of_it)
    sent += [call(sidecar, *how)[0] for how in (DURABLE, INTENT)]
    assert sorted(e["correlationId"] for e in sidecar.calls()) == sorted(sent)
    assert unready(sidecar) is None and len({e["trail"]["log"] for e in sidecar.events()}) == 1


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


@pytest.mark.parametrize("off", [False, True])
def test_a_stop_that_could_not_sign_is_not_clean_and_no_later_start_calls_it_tampering(
        keytrail, raw_backend, disk, signer, off):
    """Neither where there never was a checkpoint, nor where there is an older one; nor when somebody
    switched signing off in between."""
    def run(with_key):
        sidecar.config["audit"]["sign"] = {"file": str(signer[0])} if with_key else None
        sidecar.write_config()
        sidecar.start()
        call_each(sidecar)
        sidecar.stop()

    sidecar = keytrail(raw_backend(ok()), merge(CONFIG, sign(signer)), start=False,
                       environment=disk.environment)
    for _ in range(2):
        disk.set("rename */checkpoint EIO")
        run(with_key=True)
        if off:
            run(with_key=False)
        disk.clear()
        run(with_key=True)
        assert not alarms(sidecar)
        check_proof(sidecar, signer)

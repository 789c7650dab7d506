"""Files of the trail that somebody deleted or overwrote while the sidecar was down or up: told, no number
used again, no intent left open."""

import base64
import json
import os
import shutil
import signal
import threading

import pytest

from backend import ok
from faults import ASYNC, CONFIG, DURABLE, INTENT, KEYTRAIL_FAULTS, lost, said
from http1 import Closed
from support import KEYTRAIL, PATIENCE, new_id, replace, segments, text_of, wait_for
from test_fault_points import ASIDE, FOREIGN, MENDING, RENEWING
from test_kill import KEY
from test_proof import INCOMPLETE, calls, verify

SINKS = [{"name": "file", "type": "file", "path": "out.jsonl"}]


def cut_tail(folder):
    last = segments(folder)[-1]
    last.write_bytes(b"".join(last.read_bytes().splitlines(keepends=True)[:-3]))


def everything_deleted(folder):
    for path in [*segments(folder), folder / "state"]:
        path.unlink()


def state_deleted(folder):
    (folder / "state").unlink()


def tail_cut_and_state_deleted(folder):
    cut_tail(folder)
    state_deleted(folder)


def tail_cut_and_state_overwritten(folder):
    cut_tail(folder)
    with (folder / "state").open("r+b") as f:
        f.write(bytes(8))


@pytest.mark.parametrize("harm", [everything_deleted, state_deleted, tail_cut_and_state_deleted,
                                  tail_cut_and_state_overwritten])
@pytest.mark.parametrize("clean", [True, False], ids=["stopped", "killed"])
def test_without_its_state_a_trail_goes_on_as_a_new_log(keytrail, raw_backend, harm, clean):
    """And above the highest number that a sink was given."""
    sidecar = keytrail(raw_backend(ok()), {"sinks": SINKS})
    for _ in range(5):
        assert sidecar.call("GET", "/api/v2/keys").status == 200
    sidecar.wait_delivered("file")
    if clean:
        sidecar.stop()
    else:
        sidecar.kill()
    known = len(sidecar.events())
    log = sidecar.events()[-1]["trail"]["log"]
    harm(sidecar.trail_dir)
    sidecar.start()
    told = sidecar.own("keytrail.tamper")
    assert any("state" in e["details"].get("reason", "") for e in told)
    assert all(e["severity"] == "critical" for e in told)
    assert sidecar.own("keytrail.start")[-1]["details"]["newLog"] is True
    after = [e for e in sidecar.events() if e["trail"]["log"] != log]
    assert {e["action"] for e in after} >= {"keytrail.start", "keytrail.tamper"}
    if clean:
        assert after[0]["trail"]["seq"] > known
    sidecar.stop()
    sidecar.start()
    assert len(sidecar.own("keytrail.tamper")) == len(told)
    sidecar.stop()
    sidecar.process = None  # a trail with a hole


def deleted(ring):
    ring.unlink()


def emptied(ring):
    os.truncate(ring, 0)


def overwritten(ring):
    with ring.open("r+b") as f:
        f.write(bytes(64))


@pytest.mark.parametrize("harm", [deleted, emptied, overwritten])
def test_a_ring_that_is_gone_is_told_and_leaves_no_intent_open(keytrail, raw_backend, harm):
    came, over = threading.Event(), threading.Event()

    def hang(connection):
        connection.read_request()
        came.set()
        over.wait()

    sidecar = keytrail(raw_backend(hang), {"workers": 1})
    with sidecar.client() as c:
        c.send_request("DELETE", f"/api/v2/keys/{KEY}", {"Correlation-Id": new_id()})
        assert came.wait(PATIENCE)
        sidecar.kill()
    over.set()
    harm(sidecar.trail_dir / "ring.0")
    sidecar.start()
    told, = sidecar.own("keytrail.tamper")
    assert told["severity"] == "critical" and told["details"]["rings"] == 1
    assert [e["outcome"] for e in sidecar.calls()] == ["unknown"]
    sidecar.kill()
    sidecar.start()
    assert len(sidecar.own("keytrail.tamper")) == 1 and len(sidecar.calls()) == 1


def sign(signer):
    return {"workers": 1, "audit": {"sign": {"file": str(signer[0])}, "checkpoint_interval": "1s"}}


def foreign_checkpoint(own, other):
    shutil.copy(other / "checkpoint", own / "checkpoint")


def foreign_tiles(own, other):
    shutil.rmtree(own / "tile")
    shutil.copytree(other / "tile", own / "tile")


def foreign_tree(own, other):
    foreign_checkpoint(own, other)
    foreign_tiles(own, other)


def foreign_log(own, other):
    shutil.copy(other / "log", own / "log")


def foreign_state(own, other):
    shutil.copy(other / "state", own / "state")


def foreign_identity(own, other):
    foreign_log(own, other)
    foreign_state(own, other)


def foreign_all_but_lines(own, other):
    foreign_identity(own, other)
    foreign_tree(own, other)


@pytest.mark.parametrize("harm", [foreign_checkpoint, foreign_tiles, foreign_tree, foreign_log,
                                  foreign_state, foreign_identity, foreign_all_but_lines])
def test_files_of_another_log_are_told_and_do_not_end_the_start(keytrail, raw_backend, signer,
                                                                harm):
    """Twice: what was put aside the first time is there already."""
    own, other = (keytrail(raw_backend(ok()), sign(signer)) for _ in range(2))
    for sidecar, n in (own, 5), (other, 300):
        for _ in range(n):
            assert sidecar.call("GET", "/api/v2/keys").status == 200
        sidecar.wait_own("keytrail.checkpoint")
        sidecar.stop()
    for _ in range(2):
        harm(own.trail_dir, other.trail_dir)
        told = len(own.own("keytrail.tamper"))
        own.start()
        assert own.call("GET", "/api/v2/keys").status == 200
        if harm != foreign_tiles:
            own.wait_own("keytrail.tamper", told + 1)
        own.stop()
    own.process = None  # a trail with a hole


def logs(sidecar):
    return list(dict.fromkeys(e["trail"]["log"] for e in sidecar.events()))


@pytest.mark.parametrize("point", RENEWING)
def test_dying_while_a_new_log_begins(keytrail, raw_backend, signer, point):
    """One log begins, not another one at each try, and it says which checkpoint the old one had."""
    sidecar = keytrail(raw_backend(ok()), sign(signer), start=False)
    sidecar.program = KEYTRAIL_FAULTS
    sidecar.start()
    calls(sidecar, 5)
    sidecar.stop()
    old, = logs(sidecar)
    note = (sidecar.trail_dir / "checkpoint").read_bytes()
    cut_tail(sidecar.trail_dir)
    sidecar.environment["KEYTRAIL_FAULT"] = f"{point}:1"
    sidecar.spawn()
    assert sidecar.process.wait(PATIENCE) == -signal.SIGKILL
    renewed = (sidecar.trail_dir / "log").read_text().split()[0]
    del sidecar.environment["KEYTRAIL_FAULT"]
    sidecar.start()
    told = [e for e in sidecar.own("keytrail.tamper") if "note" in e["details"]]
    assert [base64.b64decode(e["details"]["note"]) for e in told] == [note]
    assert sidecar.own("keytrail.start")[-1]["details"]["newLog"] is True
    assert len(logs(sidecar)) == 2
    assert renewed in (old, logs(sidecar)[1])
    wait_for(lambda: any(e["trail"]["log"] == logs(sidecar)[1]
                         for e in sidecar.own("keytrail.checkpoint")), "the new log's checkpoint")
    sidecar.stop()
    told = len(sidecar.own("keytrail.tamper"))
    assert (sidecar.trail_dir / f"checkpoint.{old}").read_bytes() == note
    assert sorted(p.name for p in sidecar.trail_dir.glob("tile*")) == ["tile", f"tile.{old}"]
    assert verify(sidecar, signer[1]).returncode == INCOMPLETE
    sidecar.start()
    assert len(logs(sidecar)) == 2 and len(sidecar.own("keytrail.tamper")) == told
    sidecar.stop()
    sidecar.process = None  # a trail with a hole


@pytest.fixture
def foreign(keytrail, raw_backend):
    """A segment of another trail."""
    sidecar = keytrail(raw_backend(ok()))
    calls(sidecar, 20)
    sidecar.stop()
    return segments(sidecar.trail_dir)[0]


def put(foreign, sidecar, number):
    replace(sidecar.trail_dir / f"{number:020}.jsonl", foreign.read_bytes())


def test_a_segment_of_another_log_is_put_aside(keytrail, raw_backend, foreign):
    """While the sidecar is down, and while it is up; nothing else is lost by it."""
    sidecar = keytrail(raw_backend(ok()), {**SMALL, "sinks": SINKS})
    calls(sidecar, 100)
    sidecar.stop()
    put(foreign, sidecar, 30)
    put(foreign, sidecar, 5000)
    sidecar.start()
    told, = sidecar.wait_own("keytrail.corrupt")
    assert told["severity"] == "critical" and told["details"] == {"segments": 2}
    put(foreign, sidecar, 150)
    calls(sidecar, 100)
    told = sidecar.wait_own("keytrail.corrupt", 2)[1]
    assert told["details"] == {"segments": 1}
    last = call(sidecar)
    wait_for(lambda: last in text_of(sidecar.folder / "out.jsonl"), "the sink, which goes on")
    sidecar.stop()
    assert {p.name for p in sidecar.trail_dir.glob("*.foreign")} == {
        f"{n:020}.jsonl.foreign" for n in (30, 150, 5000)}
    assert not sidecar.own("keytrail.tamper")


@pytest.mark.parametrize("point", FOREIGN)
def test_dying_while_a_segment_of_another_log_is_put_aside(keytrail, raw_backend, foreign, point):
    sidecar = keytrail(raw_backend(ok()), environment={"KEYTRAIL_FAULT": f"{point}:1"})
    call(sidecar)
    sidecar.stop()
    put(foreign, sidecar, 30)
    sidecar.program = KEYTRAIL_FAULTS
    sidecar.spawn()
    assert sidecar.process.wait(PATIENCE) == -signal.SIGKILL
    sidecar.program = KEYTRAIL
    sidecar.start()
    told, = sidecar.wait_own("keytrail.corrupt")
    assert told["details"] == {"segments": 1}
    assert (sidecar.trail_dir / f"{30:020}.jsonl.foreign").exists()
    call(sidecar)
    sidecar.stop()


@pytest.mark.parametrize("point", ASIDE)
def test_dying_while_a_segment_is_put_aside_under_the_sidecar(keytrail, raw_backend, foreign, point):
    """Told of before it goes: with its name, nothing would say later that it was there."""
    sidecar = keytrail(raw_backend(ok()), start=False)
    sidecar.program = KEYTRAIL_FAULTS
    sidecar.environment["KEYTRAIL_FAULT"] = f"{point}:1"
    sidecar.start()
    put(foreign, sidecar, 30)
    sidecar.signal(signal.SIGHUP)  # looks at once
    assert sidecar.process.wait(PATIENCE) == -signal.SIGKILL
    told, = sidecar.own("keytrail.corrupt")
    assert told["severity"] == "critical" and told["details"] == {"segments": 1}
    sidecar.program = KEYTRAIL
    sidecar.start()
    assert (sidecar.trail_dir / f"{30:020}.jsonl.foreign").exists()
    call(sidecar)


def test_a_segment_that_cannot_be_put_aside_is_told_once(keytrail, raw_backend, foreign, disk):
    sidecar = keytrail(raw_backend(ok()), environment=disk.environment)
    call(sidecar)
    disk.set("rename *.foreign EIO")
    put(foreign, sidecar, 5000)  # far from where each try, which is recorded, takes the log

    def failures():
        sidecar.signal(signal.SIGHUP)  # looks at once
        return [e for e in sidecar.log_lines() if e["event"] == "not_put_aside"]

    wait_for(lambda: len(failures()) > 2, "the third try")
    assert f"{5000:020}.jsonl aside: Input/output error" in failures()[0]["message"]
    disk.clear()
    aside = sidecar.trail_dir / f"{5000:020}.jsonl.foreign"
    wait_for(lambda: failures() and aside.exists(), "the one that succeeds")
    assert call(sidecar)
    assert len(sidecar.own("keytrail.corrupt")) == 1 and not sidecar.own("keytrail.tamper")


def test_a_file_that_stands_between_our_lines_hides_none(keytrail, raw_backend, foreign, disk):
    """It cannot be put aside, and all go on reading behind it."""
    sidecar = keytrail(raw_backend(ok()), {**SMALL, "sinks": SINKS}, environment=disk.environment)
    calls(sidecar, 20)
    sidecar.stop()
    sidecar.config["sinks"] = []
    sidecar.write_config()
    sidecar.start()
    calls(sidecar, 180)
    sidecar.stop()
    first, second, *_ = segments(sidecar.trail_dir)
    disk.set("rename *.foreign EIO")
    put(foreign, sidecar, 10)
    sidecar.config["sinks"] = SINKS
    sidecar.write_config()
    sidecar.start()
    assert sidecar.wait_own("keytrail.corrupt")[0]["details"] == {"segments": 1}
    last = call(sidecar)
    out = sidecar.folder / "out.jsonl"
    wait_for(lambda: last in text_of(out), "the sink, which comes to the end")
    got = [json.loads(line)["trail"]["seq"] for line in out.read_text().splitlines()]
    assert got == list(range(1, len(got) + 1))
    assert sidecar.metric("keytrail_sink_events_missing_total", sink="file") == 0
    for since in range(1, numbers(first)[1] + 2):
        page = json.loads(sidecar.fetch("admin", f"/events?limit=1&since={since}"))
        assert [e["trail"]["seq"] for e in page["events"]] == [since]
    assert numbers(second)[0] == numbers(first)[1] + 1
    assert not sidecar.own("keytrail.tamper")
    (sidecar.trail_dir / f"{10:020}.jsonl").unlink()


# ---- while the sidecar runs ----

def unlinked(path):
    path.unlink()


def renamed(path):
    path.rename(path.with_name(f"{path.name}.elsewhere"))


def replaced(path):
    replace(path, bytes(4096))


def call(sidecar):
    correlation = new_id()
    assert sidecar.call("GET", "/api/v2/keys", {"Correlation-Id": correlation}).status == 200
    return correlation


@pytest.mark.parametrize("harm", [unlinked, renamed, replaced])
@pytest.mark.parametrize("file", ["state", "log"])
def test_a_file_that_is_gone_under_the_sidecar_is_told_and_made_again(keytrail, raw_backend, file,
                                                                      harm):
    sidecar = keytrail(raw_backend(ok()), {"sinks": SINKS})
    before = call(sidecar)
    harm(sidecar.trail_dir / file)
    told, = sidecar.wait_own("keytrail.tamper")
    assert told["severity"] == "critical" and told["details"] == {"file": file, "mended": True}
    after = call(sidecar)
    out = sidecar.folder / "out.jsonl"
    wait_for(lambda: after in text_of(out), "the sink, which goes on")
    number = sidecar.events()[-1]["trail"]["seq"]
    sidecar.kill()
    sidecar.start()
    assert len(sidecar.own("keytrail.tamper")) == 1
    events = sidecar.events()
    assert [e["trail"]["seq"] for e in events[:number]] == list(range(1, number + 1))
    assert len({e["trail"]["log"] for e in events}) == 1
    assert sidecar.event(before) and sidecar.event(after)


@pytest.mark.parametrize("point", MENDING)
def test_dying_while_a_file_is_made_again(keytrail, raw_backend, point):
    """The file is there, or the next start says that it is not."""
    sidecar = keytrail(raw_backend(ok()), start=False,
                       environment={"KEYTRAIL_FAULT": f"{point}:1"})
    sidecar.program = KEYTRAIL_FAULTS
    sidecar.start()
    calls = [call(sidecar) for _ in range(3)]
    renamed(sidecar.trail_dir / ("ring.0" if "link" in point else "state"))
    assert sidecar.process.wait(PATIENCE) == -signal.SIGKILL
    sidecar.program = KEYTRAIL
    sidecar.start()
    there = point == "mend.after_rename"
    wait_for(lambda: there or sidecar.own("keytrail.tamper"), "the record")
    assert all(sidecar.event(c) for c in calls)
    assert len({e["trail"]["log"] for e in sidecar.events()}) == (2 if "before_rename" in point
                                                                 else 1)
    call(sidecar)
    sidecar.stop()


@pytest.mark.parametrize("harm", [unlinked, renamed, replaced])
def test_a_ring_that_is_gone_under_the_sidecar_is_told(keytrail, raw_backend, harm):
    """With its name it is read at the next start; without it, missed."""
    sidecar = keytrail(raw_backend(ok()), {"workers": 1})
    calls = [call(sidecar)]
    harm(sidecar.trail_dir / "ring.0")
    told, = sidecar.wait_own("keytrail.tamper")
    linked = harm is renamed
    assert told["severity"] == "critical"
    assert told["details"] == {"file": "ring.0", "mended": linked}
    calls.append(call(sidecar))
    assert (sidecar.trail_dir / "ring.0").exists() == linked
    sidecar.kill()
    sidecar.start()
    assert all(sidecar.event(c) for c in calls)
    more = sidecar.own("keytrail.tamper")[1:]
    assert [e["details"] for e in more] == ([] if linked else [{"rings": 1}])


def test_a_directory_that_is_renamed_is_told_once(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(ok()))
    elsewhere = sidecar.trail_dir.with_name("elsewhere")
    sidecar.trail_dir.rename(elsewhere)
    wait_for(lambda: b"keytrail.tamper" in segments(elsewhere)[-1].read_bytes(), "the record")
    call(sidecar)
    elsewhere.rename(sidecar.trail_dir)
    call(sidecar)
    told, = sidecar.own("keytrail.tamper")
    assert told["severity"] == "critical" and told["details"] == {"file": ".", "mended": False}


def test_without_its_directory_a_trail_takes_nothing(keytrail, raw_backend):
    """The answer that waits for its event is withheld; then async is served and lost, all else refused."""
    came, go_on = threading.Event(), threading.Event()

    def script(connection):
        while (request := connection.read_request()) is not None:
            if request.method == "POST":
                came.set()
                go_on.wait(PATIENCE)
            connection.send(ok())

    backend = raw_backend(script)
    sidecar = keytrail(backend, {**CONFIG, "timeouts": {"answer": "2s"}})
    with sidecar.client() as c:
        c.send_request(*DURABLE, {"Correlation-Id": new_id()})
        assert came.wait(PATIENCE)
        shutil.rmtree(sidecar.trail_dir)
        why = f"{sidecar.trail_dir}: the trail's directory was deleted"
        wait_for(lambda: any(why in m for m in said(sidecar, "trail_not_writable")), "the end")
        go_on.set()
        with pytest.raises(Closed) as cut:
            c.read_response()
        assert cut.value.args == (b"",)
    assert sidecar.call(*ASYNC).status == 200 and lost(sidecar, reason="trail_failed") == 1
    seen = len(backend.requests)
    for how in (DURABLE, INTENT):
        r = sidecar.call(*how)
        assert r.status == 503 and b"TRAIL_FAILED" in r.body
    assert len(backend.requests) == seen
    sidecar.kill()
    sidecar.process = None  # no trail is left to look at


# ---- sealed segments ----

SMALL = {"audit": {"segment_size": 65536}, "workers": 1}


def numbers(path):
    first = int(path.name.removesuffix(".jsonl"))
    return first, first + path.read_bytes().count(b"\n") - 1


def first_removed(files):
    files[0].unlink()
    return 1, numbers(files[1])[0] - 1


def two_removed(files):
    first = numbers(files[1])[0]
    files[1].unlink()
    files[2].unlink()
    return first, numbers(files[3])[0] - 1


def end_removed(files):
    lines = files[1].read_bytes().splitlines(keepends=True)
    last = numbers(files[1])[1]
    files[1].write_bytes(b"".join(lines[:-3]))
    return last - 2, last


def segment_emptied(files):
    first, last = numbers(files[1])
    files[1].write_bytes(b"")
    return first, last


def holes(sidecar):
    return [(e["details"]["first"], e["details"]["last"]) for e in sidecar.own("keytrail.tamper")]


@pytest.fixture
def long(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(ok()), SMALL)
    calls(sidecar, 300)
    assert len(segments(sidecar.trail_dir)) > 4
    yield sidecar
    sidecar.kill()
    sidecar.process = None  # a trail with a hole


@pytest.mark.parametrize("harm", [first_removed, two_removed, end_removed,
                                  segment_emptied])
def test_lines_that_vanish_with_a_segment_are_told_at_the_next_start(long, harm):
    long.stop()
    hole = harm(segments(long.trail_dir))
    long.start()
    assert all(e["severity"] == "critical" for e in long.wait_own("keytrail.tamper"))
    assert holes(long) == [hole]
    calls(long, 1)  # durable, and so is that it was told
    for end in (long.kill, long.stop):
        end()
        long.start()
        assert long.own("keytrail.start")
        long.stop()
        assert holes(long) == [hole]
        long.start()


@pytest.mark.parametrize("harm", [first_removed, two_removed])
def test_a_segment_that_vanishes_under_the_sidecar_is_told_when_the_next_one_begins(long, harm):
    hole = harm(segments(long.trail_dir))
    calls(long, 70)
    long.wait_own("keytrail.tamper")
    files = segments(long.trail_dir)
    more = first_removed([p for p in files if numbers(p)[0] > hole[1]])
    calls(long, 70)
    wait_for(lambda: len(holes(long)) > 1, "the second record")
    calls(long, 1)  # durable, and so is that it was told
    long.kill()
    long.start()
    long.stop()
    assert holes(long) == [hole, (hole[1] + 1, more[1])]
    long.start()


@pytest.mark.parametrize("harm", [end_removed, segment_emptied])
def test_a_sealed_segment_that_is_cut_under_the_sidecar_is_told(long, harm):
    segment = numbers(segments(long.trail_dir)[1])[0]
    hole = harm(segments(long.trail_dir))
    long.signal(signal.SIGHUP)  # looks at once
    long.wait_own("keytrail.tamper", 2)
    long.stop()
    assert [e["details"] for e in long.own("keytrail.tamper")] == [
        {"segment": segment}, {"first": hole[0], "last": hole[1]}]
    long.start()


def test_a_sealed_segment_that_is_replaced_under_the_sidecar_is_told(long, foreign):
    first, second, third, *_ = segments(long.trail_dir)
    whole = second.read_bytes()
    replaced(second)  # bytes that are no lines
    long.signal(signal.SIGHUP)  # looks at once
    told, = long.wait_own("keytrail.tamper")
    assert told["severity"] == "critical" and told["details"] == {"segment": numbers(second)[0]}
    second.write_bytes(whole)
    shutil.copy(foreign, first)
    long.signal(signal.SIGHUP)
    corrupt, = long.wait_own("keytrail.corrupt")
    assert corrupt["details"] == {"segments": 1}
    gone = [e["details"] for e in long.wait_own("keytrail.tamper", 4)[1:]]
    assert {"segment": 1} in gone and {"first": 1, "last": numbers(second)[0] - 1} in gone


def test_what_expires_is_not_missed(keytrail):
    sidecar = keytrail(None, {**SMALL, "audit": {**SMALL["audit"], "max_size": 131072}})
    for end in (sidecar.stop, sidecar.kill):
        calls(sidecar, 200)
        sidecar.wait_own("keytrail.expire")
        end()
        sidecar.start()
    assert numbers(segments(sidecar.trail_dir)[0])[0] > 1
    sidecar.stop()
    assert not sidecar.own("keytrail.tamper")

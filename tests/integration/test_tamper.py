"""Files of the trail that somebody deleted or overwrote while the sidecar was down: told, no number used
again, no intent left open."""

import os
import shutil
import threading

import pytest

from backend import ok
from support import new_id, segments, wait_for
from test_kill import KEY

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
    wait_for(lambda: sidecar.metric("keytrail_sink_lag_events", sink="file") == 0, "delivery")
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
        assert came.wait(10)
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

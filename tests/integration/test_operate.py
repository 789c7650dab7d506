"""What operators do over the admin socket: break-glass, holds, and what is recorded of it."""

import json
import os
import pwd
import subprocess
import time
from datetime import datetime
from socket import AF_UNIX, socket as Socket

import pytest

from backend import ok
from faults import KEYTRAIL_FAULTS, STALL, is_balanced
from support import KEYTRAIL, PATIENCE, expired, new_id, segments, text_of, wait_for
from test_fault_points import HOLDING

FULL = "allocate *.jsonl ENOSPC"


@pytest.fixture
def operated(keytrail, raw_backend, tmp_path, socket):
    """operated(config): a sidecar with a socket, and a sink of type file."""
    def make(config=None, **options):
        config = config or {}
        config.setdefault("audit", {}).setdefault("ring_size", 65536)
        return keytrail(raw_backend(ok(), tls=False), {
            "upstream": {"tls": None},  # for some of them it is long before any certificate
            "workers": 1, "limits": {"connections": 20},
            "admin": {"address": "127.0.0.1:0", "token": None, "socket": str(socket)},
            "sinks": [{"name": "file", "type": "file", "path": str(tmp_path / "out.jsonl")}],
            **config}, **options)
    return make


def run(sidecar, command, *arguments, status=0):
    """keytrail COMMAND ... FILE; what it printed."""
    done = subprocess.run([KEYTRAIL, command, *arguments, sidecar.file], timeout=PATIENCE,
                          capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    return done.stderr if status else done.stdout


def degrade(sidecar, how_long, reason="the disk is full", **options):
    return run(sidecar, "degrade", "--for", how_long, "--reason", reason, **options)


def degraded(sidecar, phase):
    return [e for e in sidecar.own("keytrail.degrade") if e["details"]["phase"] == phase]


def fill(sidecar, disk):
    """Calls until one is refused for want of room."""
    disk.set(FULL)
    with sidecar.client() as c:
        for _ in range(5000):
            if (r := c.request("GET", "/api/v2/keys")).status == 503:
                assert b"TRAIL_FULL" in r.body
                return
    raise AssertionError("the trail found room for everything")


def status_of(sidecar):
    return json.loads(sidecar.fetch("admin", "/status"))


# ---- health ----

def health(sidecar, *arguments):
    """Of the sidecar whose routes file the environment names."""
    done = subprocess.run([KEYTRAIL, "health", *arguments], timeout=PATIENCE, capture_output=True,
                          text=True, env={**os.environ, "KEYTRAIL_CONFIG": str(sidecar.file)})
    return done.returncode, done.stdout or done.stderr


def test_health_asks_the_metrics_listener(keytrail, dead_port):
    port = dead_port()
    sidecar = keytrail(config={"metrics": {"address": f"127.0.0.1:{port}"}}, start=False)
    refused = 1, f"127.0.0.1 port {port}: connect: Connection refused\n"
    assert health(sidecar) == refused
    sidecar.start()
    assert health(sidecar) == (0, "ready\n")
    sidecar.stop()
    assert health(sidecar) == refused


def test_health_asks_the_socket_where_it_knows_no_port(operated, disk, socket):
    sidecar = operated(environment=disk.environment)
    assert health(sidecar) == (0, "ready\n")
    fill(sidecar, disk)
    assert health(sidecar) == health(sidecar, "--socket", socket) == (1, f"{socket}: not ready\n")


def test_health_does_not_wait_for_who_says_nothing(keytrail, socket):
    with Socket(AF_UNIX) as mute:
        mute.bind(str(socket))
        mute.listen()
        sidecar = keytrail(config={"metrics": None, "admin": {"socket": str(socket)}}, start=False)
        assert health(sidecar) == (1, f"{socket}: nothing was answered in time\n")
    sidecar = keytrail(start=False)
    assert health(sidecar) == (1, f'{sidecar.file}: there is no "admin.socket", and no port of "metrics"\n')


# ---- break-glass ----

def test_a_full_disk_stops_nobody_while_degraded(operated, disk, tmp_path):
    sidecar = operated(environment=disk.environment)
    fill(sidecar, disk)
    degrade(sidecar, "1h")
    assert sidecar.metric("keytrail_degraded") == 1
    assert 0 < sidecar.metric("keytrail_degraded_remaining_seconds") <= 3600
    checks = {c["name"]: c for c in json.loads(sidecar.fetch("admin", "/readyz?verbose"))["checks"]}
    assert checks["trail"]["ok"] and checks["trail"]["detail"].startswith("degraded until ")
    status = status_of(sidecar)
    assert status["degraded"]["reason"] == "the disk is full" and status["ready"]
    assert status["summary"].startswith(
        f"Calls are served without their record until {status['degraded']['until']}: ")
    for method in ("GET", "DELETE"):  # durable, intent
        assert sidecar.call(method, f"/api/v2/keys/{new_id()}").status == 200
    run(sidecar, "degrade", "--end")
    degrade(sidecar, "1s")
    wait_for(lambda: sidecar.metric("keytrail_degraded") == 0, "the time to pass")
    assert sidecar.call("GET", "/api/v2/keys").status == 503
    status = status_of(sidecar)
    assert status["degraded"] is None and not status["ready"]
    assert status["summary"].startswith("Calls that need their record are refused: ")
    disk.clear()
    wait_for(lambda: len(degraded(sidecar, "end")) == 2, "both ends to be recorded")
    start, end, again, elapsed = sidecar.own("keytrail.degrade")
    assert start["severity"] == "critical" and start["details"]["reason"] == "the disk is full"
    assert again["eventTime"] < again["details"]["until"] <= elapsed["eventTime"]
    assert start["details"]["operatorUid"] == os.getuid()
    assert start["details"]["operator"] == pwd.getpwuid(os.getuid()).pw_name
    assert (end["details"]["reason"], end["details"]["calls"]) == ("cancelled", 2)
    assert (elapsed["details"]["reason"], elapsed["details"]["calls"]) == ("elapsed", 0)
    loss = wait_for(lambda: [e for e in sidecar.own("keytrail.loss")
                             if "kms.secrets" in e["details"]["actions"]], "the loss")
    assert sum(e["details"]["count"] for e in loss) >= 2
    wait_for(lambda: published(tmp_path) == ["start", "end"] * 2, "the sink to have them all")


def test_one_at_a_time_and_each_call_is_recorded(operated):
    sidecar = operated()
    degrade(sidecar, "1h")
    assert "cannot be renewed" in degrade(sidecar, "10s", status=1)
    carried_out, refused = sidecar.wait_own("keytrail.access", 2)
    assert carried_out["outcome"] == "success" and carried_out["details"]["call"] == "/degrade"
    assert carried_out["details"]["role"] == "operator"
    assert refused["outcome"] == "failure" and refused["details"]["call"] == "/degrade"
    assert "renewed" in refused["details"]["reason"]
    assert refused["details"]["operatorUid"] == os.getuid()
    run(sidecar, "degrade", "--end")
    wait_for(lambda: degraded(sidecar, "end"), "the end to be recorded")
    assert degraded(sidecar, "end")[0]["details"]["reason"] == "cancelled"
    assert "not degraded" in run(sidecar, "degrade", "--end", status=1)
    degrade(sidecar, "1h")
    wait_for(lambda: len(degraded(sidecar, "start")) == 2, "the second one to be recorded")


@pytest.mark.parametrize("most, how_long, says", [
    ("30m", "31m", "1800 seconds"), (0, "1s", "forbidden"), ("4h", "0s", "14400 seconds"),
    ("1h", "90", "like 30m"), ("1h", "1500ms", "like 30m")])
def test_the_ceiling(operated, most, how_long, says):
    sidecar = operated({"audit": {"degrade_max": most}})
    assert says in degrade(sidecar, how_long, status=1)
    assert sidecar.metric("keytrail_degraded") == 0
    assert degraded(sidecar, "start") == []


def test_a_restart_ends_it(operated):
    sidecar = operated()
    degrade(sidecar, "1h")
    sidecar.stop()
    end, = degraded(sidecar, "end")
    assert end["details"]["reason"] == "stopped"
    sidecar.start()
    assert sidecar.metric("keytrail_degraded") == 0
    degrade(sidecar, "1h")
    wait_for(lambda: len(degraded(sidecar, "start")) == 2, "the second one to be recorded")
    until = degraded(sidecar, "start")[-1]["details"]["until"]
    sidecar.kill()
    sidecar.start()
    assert sidecar.metric("keytrail_degraded") == 0 and status_of(sidecar)["degraded"] is None
    end = degraded(sidecar, "end")[-1]
    assert end["details"] == {"phase": "end", "reason": "restart", "until": until}
    assert end["recovered"] is True
    sidecar.kill()
    sidecar.start()
    assert len(degraded(sidecar, "end")) == 2


def published(folder):
    """What the sink has of it; after a kill, some of it twice."""
    events = [json.loads(line) for line in text_of(folder / "out.jsonl").split("\n")[:-1]]
    phases = {e["id"]: e["details"]["phase"] for e in events if e["action"] == "keytrail.degrade"}
    return list(phases.values())


def test_an_end_is_recorded_once(operated, tmp_path):
    """By whom it was ended, whatever happens later."""
    sidecar = operated()
    degrade(sidecar, "1h")
    run(sidecar, "degrade", "--end")
    sidecar.kill()
    sidecar.start()
    assert [e["details"]["reason"] for e in degraded(sidecar, "end")] == ["cancelled"]
    wait_for(lambda: published(tmp_path) == ["start", "end"], "the sink to have both")


def test_a_kill_on_a_full_disk_forgets_no_operator(operated, disk):
    """What finds no room is in the ring's slots until there is some."""
    sidecar = operated(environment=disk.environment)
    fill(sidecar, disk)
    degrade(sidecar, "1h")
    sidecar.kill()
    assert degraded(sidecar, "start") == []
    disk.clear()
    sidecar.start()
    start, end = sidecar.own("keytrail.degrade")
    assert start["details"]["reason"] == "the disk is full"
    assert end["details"] == {"phase": "end", "reason": "restart",
                              "until": start["details"]["until"]}


def test_a_stale_socket_is_replaced_and_a_live_one_is_named(operated, keytrail, raw_backend, socket):
    sidecar = operated()
    sidecar.kill()
    sidecar.start()
    degrade(sidecar, "1h")
    second = keytrail(raw_backend(ok()), {"admin": {"socket": str(socket)}}, start=False)
    second.spawn()
    assert second.process.wait(PATIENCE) == 1
    assert f"{socket} is in use" in second.stderr()
    second.process = None
    sidecar.stop()
    assert not socket.exists()
    assert str(socket) in degrade(sidecar, "1h", status=1)


def test_what_waits_for_room_does_not_wait_for_the_next_heartbeat(operated, disk):
    sidecar = operated({"audit": {"heartbeat": "4s"}}, environment=disk.environment)
    fill(sidecar, disk)
    wait_for(lambda: not is_balanced(sidecar), "a heartbeat that finds no room")
    disk.clear()
    cleared = time.time()

    def later():
        return [e for e in sidecar.own("keytrail.heartbeat")
                if datetime.fromisoformat(e["eventTime"][:-2]).timestamp() > cleared]

    following = wait_for(later, "the next one")[0]
    waited = [e for e in sidecar.own("keytrail.heartbeat") if e["eventTime"] < following["eventTime"]]
    assert waited and all(e["trail"]["at"] < following["eventTime"] for e in waited)


# ---- holds ----

def hold(sidecar, verb, *arguments, **options):
    return run(sidecar, "hold", verb, *arguments, **options)


def grow(sidecar, n=300):
    """n events: a few segments."""
    with sidecar.client() as c:
        for _ in range(n):
            assert c.request("GET", "/api/v2/keys").status == 200


@pytest.fixture
def aged(operated, clock):
    """aged(config): a sidecar that has written some segments, two hours ago, and was killed."""
    def make(config, before=lambda sidecar: None):
        clock.set(-7200)
        sidecar = operated(config, environment=clock.environment)
        grow(sidecar)
        before(sidecar)
        clock.set(0)
        sidecar.wait_own("keytrail.clock")
        sidecar.kill()
        for path in segments(sidecar.trail_dir)[:-1]:
            os.utime(path, (1, 1))
        return sidecar
    return make


SMALL = {"audit": {"segment_size": 65536, "retention": "1h"}}


def test_what_is_held_does_not_expire(aged):
    def add(sidecar):
        second = int(segments(sidecar.trail_dir)[1].stem)
        assert hold(sidecar, "add", "case-7", "--from", str(second), "--to", str(second + 1)) == \
            f"events {second} to {second + 1} are held\n"
        assert hold(sidecar, "list") == f"case-7 {second} {second + 1}\n"
        assert status_of(sidecar)["holds"] == [
            {"first": second, "last": second + 1, "name": "case-7"}]
        assert "already" in hold(sidecar, "add", "case-7", "--from", "1", "--to", "2", status=1)

    sidecar = aged(SMALL, add)
    before = segments(sidecar.trail_dir)
    second = int(before[1].stem)
    assert len(before) > 3
    sidecar.start()
    wait_for(lambda: segments(sidecar.trail_dir)[0] == before[1], "what is not held to go")
    sidecar.reload()
    assert segments(sidecar.trail_dir)[0] == before[1]
    hold(sidecar, "remove", "case-7")
    assert hold(sidecar, "list") == ""
    sidecar.reload()
    wait_for(lambda: before[1] not in segments(sidecar.trail_dir), "the rest to go")
    added, removed = sidecar.own("keytrail.hold")
    assert (added["details"]["change"], removed["details"]["change"]) == ("add", "remove")
    assert added["details"]["name"] == "case-7" and added["details"]["first"] == second
    assert added["details"]["operatorUid"] == removed["details"]["operatorUid"] == os.getuid()


def test_what_is_held_before_it_could_be_removed_stays(operated, disk):
    sidecar = operated({"audit": {"segment_size": 65536, "max_size": "64KiB"}},
                       environment=disk.environment)
    disk.set("unlink *.jsonl EIO")
    grow(sidecar)
    first = segments(sidecar.trail_dir)[0]

    def failed():
        sidecar.reload()  # looks at once, and again when the sink has the lines
        return any(line["event"] == "trail_expire_failed" for line in sidecar.log_lines())

    wait_for(failed, "the removal to fail")
    hold(sidecar, "add", "case-7", "--from", "2", "--to", "3")
    disk.clear()
    sidecar.stop()
    assert first.exists() and expired(sidecar.events()) == 0
    sidecar.start()
    assert first.exists()
    first.unlink()
    sidecar.reload()
    tamper, = sidecar.wait_own("keytrail.tamper")
    assert tamper["details"]["first"] == 1


def test_a_hold_that_cannot_be_kept_is_none(operated, disk):
    sidecar = operated(SMALL, environment=disk.environment)
    disk.set("rename */holds EIO")
    assert "Input/output error" in hold(sidecar, "add", "a", "--from", "1", "--to", "2", status=1)
    assert hold(sidecar, "list") == "" and not (sidecar.trail_dir / "holds").exists()
    disk.clear()
    hold(sidecar, "add", "a", "--from", "1", "--to", "2")
    assert hold(sidecar, "list") == "a 1 2\n"


def test_a_hold_of_a_time(operated):
    sidecar = operated(SMALL)
    grow(sidecar)
    hold(sidecar, "add", "all", "--from", "2020-01-01", "--to", "2999-12-31")
    hold(sidecar, "add", "old", "--from", "2020-01-01", "--to", "2020-12-31T10:00")
    assert hold(sidecar, "list") == f"all 1 {2**53 - 1}\nold 1 1\n"
    assert "before it begins" in hold(sidecar, "add", "odd", "--from", "2021-01-01",
                                      "--to", "2020-01-01", status=1)
    assert "times like" in hold(sidecar, "add", "odd", "--from", "yesterday", "--to", "5",
                                status=1)
    assert [e["outcome"] for e in sidecar.wait_own("keytrail.access", 4)] == [
        "success", "success", "failure", "failure"]


def test_damaged_holds_hold_everything(aged):
    sidecar = aged(SMALL, lambda s: hold(s, "add", "a", "--from", "1", "--to", "1"))
    (sidecar.trail_dir / "holds").write_text("keytrail-holds 1\n")
    sidecar.start()
    before = segments(sidecar.trail_dir)
    sidecar.reload()
    sidecar.reload()
    assert segments(sidecar.trail_dir) == before
    assert any(line["event"] == "holds_damaged" for line in sidecar.log_lines())
    assert status_of(sidecar)["holds"] is None
    for arguments in (("list",), ("remove", "a"), ("add", "b", "--from", "1", "--to", "1")):
        assert "damaged" in hold(sidecar, *arguments, status=1)


def test_without_its_holds_a_start_removes_nothing(aged):
    """Whoever deletes the file; until an operator says how to go on."""
    sidecar = aged(SMALL, lambda s: hold(s, "add", "a", "--from", "1", "--to", "1"))
    (sidecar.trail_dir / "holds").unlink()
    sidecar.start()
    before = segments(sidecar.trail_dir)
    tamper, = sidecar.wait_own("keytrail.tamper")
    assert tamper["details"] == {"file": "holds", "mended": False}
    sidecar.reload()
    assert segments(sidecar.trail_dir) == before
    assert any("holds is gone" in line["message"] and "hold reset" in line["message"]
               for line in sidecar.log_lines() if line["event"] == "holds_damaged")
    assert hold(sidecar, "reset") == "nothing is held\n"
    assert sidecar.own("keytrail.hold")[-1]["details"]["change"] == "reset"
    assert "remove them by name" in hold(sidecar, "reset", status=1)
    sidecar.reload()
    wait_for(lambda: before[0] not in segments(sidecar.trail_dir), "what is held no longer")


@pytest.mark.parametrize("arguments, says", [
    (("add", "new", "--from", "1", "--to", "2"), "it is held"), (("remove", "old"), "it is still held")])
def test_a_change_of_a_hold_whose_record_is_not_durable(operated, disk, arguments, says):
    """What is removed without it, a signed line would have to excuse."""
    sidecar = operated(environment=disk.environment)
    hold(sidecar, "add", "old", "--from", "1", "--to", "2")
    sidecar.wait_own("keytrail.access")  # the last of it: nothing meets the fault before what is asked now
    disk.set("sync *.jsonl EIO")
    told = hold(sidecar, *arguments, status=1)
    assert says in told and "not durable" in told
    assert "old 1 2" in (sidecar.trail_dir / "holds").read_text()
    # From now on it stands in a slot, which outlives the process.
    assert hold(sidecar, "remove", "old")
    sidecar.kill()
    disk.clear()
    sidecar.start()
    names = [e["details"]["name"] for e in sidecar.own("keytrail.hold")
             if e["details"]["change"] == "remove"]
    assert names[-1] == "old" and "old" not in hold(sidecar, "list")


def test_a_hold_lifted_on_a_full_disk_is_told_of_as_soon_as_there_is_room(operated, disk):
    sidecar = operated(environment=disk.environment)
    hold(sidecar, "add", "old", "--from", "1", "--to", "2")
    fill(sidecar, disk)
    hold(sidecar, "remove", "old")
    assert len(sidecar.own("keytrail.hold")) == 1
    disk.clear()
    assert sidecar.wait_own("keytrail.hold", 2)[-1]["details"]["change"] == "remove"


def test_a_hold_whose_record_came_late_cannot_be_taken_back(operated, disk):
    sidecar = operated(environment=disk.environment)
    file = sidecar.trail_dir / "holds"
    hold(sidecar, "add", "old", "--from", "1", "--to", "2")
    before = file.read_text()
    disk.set(STALL)
    hold(sidecar, "add", "new", "--from", "3", "--to", "4", status=1)
    assert len(status_of(sidecar)["holds"]) == 2  # the answer after that to the call
    after = file.read_text()
    disk.clear()
    sidecar.wait_own("keytrail.hold", 2)
    file.write_text(before)
    sidecar.wait_own("keytrail.tamper")
    assert file.read_text() == after


@pytest.mark.parametrize("there", ["old", "new"])
def test_a_change_of_holds_that_failed_half_way_is_no_tampering(operated, disk, there):
    """Which file is on the disk when its directory could not be synced, nobody knows."""
    sidecar = operated(environment=disk.environment)
    file = sidecar.trail_dir / "holds"
    texts = {}
    for name in ("old", "new"):
        hold(sidecar, "add", name, "--from", "1", "--to", "2")
        texts[name] = file.read_text()
    hold(sidecar, "remove", "new")
    disk.set(f"sync {sidecar.trail_dir} EIO")
    assert "Input/output error" in hold(sidecar, "add", "new", "--from", "1", "--to", "2", status=1)
    assert hold(sidecar, "list") == "old 1 2\n"
    sidecar.kill()
    disk.clear()
    file.write_text(texts[there])
    sidecar.start()
    assert there in hold(sidecar, "list") and not sidecar.own("keytrail.tamper")


@pytest.mark.parametrize("point", HOLDING)
@pytest.mark.parametrize("verb", ["add", "remove"])
def test_dying_while_a_hold_changes(operated, verb, point):
    """The log never says less than what is held, and what is held no longer it says."""
    sidecar = operated(start=False)
    sidecar.start()
    hold(sidecar, "add", "old", "--from", "1", "--to", "2")
    sidecar.kill()
    sidecar.program = KEYTRAIL_FAULTS
    sidecar.environment["KEYTRAIL_FAULT"] = f"{point}:1"
    sidecar.start()
    hold(sidecar, verb, *(("new", "--from", "3", "--to", "4") if verb == "add" else ("old",)),
         status=1)
    sidecar.process.wait(PATIENCE)
    sidecar.program = KEYTRAIL
    sidecar.start()
    told = {}
    for e in sidecar.own("keytrail.hold"):
        told[e["details"]["name"]] = e["details"]["change"]
    held = {line.split()[0] for line in hold(sidecar, "list").splitlines()}
    assert "new" not in held or told["new"] in ("add", "found")
    assert "old" in held or told["old"] == "remove"
    assert verb == "remove" or "old" in held
    n = len(sidecar.own("keytrail.hold"))
    sidecar.kill()
    sidecar.start()
    sidecar.wait_own("keytrail.start", 4)
    assert len(sidecar.own("keytrail.hold")) == n  # told once


# ---- retention ----

def test_to_keep_less_takes_a_restart_and_is_recorded(operated):
    sidecar = operated({"audit": {"segment_size": 65536, "retention": "2h"}})
    grow(sidecar)
    before = segments(sidecar.trail_dir)
    for _ in range(2):  # the second time it is still not what runs
        event = sidecar.reload(audit={"retention": "1h", "max_size": "64KiB"},
                               limits={"body": 10})
        assert event["outcome"] == "success"
        assert event["details"]["needsRestart"] == "audit.retention, audit.max_size"
    assert sidecar.call("POST", "/api/v2/keys", body="x" * 11).status == 413
    assert segments(sidecar.trail_dir)[0] == before[0]
    assert not sidecar.own("keytrail.start")[0]["details"]["keepsLess"]
    sidecar.stop()
    sidecar.start()
    start = sidecar.own("keytrail.start")[-1]
    assert start["details"]["keepsLess"] and start["severity"] == "warning"
    assert start["details"]["previousRetentionSeconds"] == 7200
    assert start["details"]["retentionSeconds"] == 3600
    assert (start["details"]["previousMaxSize"], start["details"]["maxSize"]) == (0, 65536)
    wait_for(lambda: before[0] not in segments(sidecar.trail_dir), "the size to be kept")
    expire = sidecar.wait_own("keytrail.expire")[0]
    assert expire["trail"]["seq"] > start["trail"]["seq"]
    sidecar.stop()
    sidecar.start()
    assert not sidecar.wait_own("keytrail.start", 2)[-1]["details"]["keepsLess"]


def test_to_keep_more_takes_effect_at_once(operated):
    sidecar = operated({"audit": {"retention": "1h", "max_size": "1MiB"}})
    event = sidecar.reload(audit={"retention": "2h", "max_size": 0})
    assert event["details"]["needsRestart"] == ""
    event = sidecar.reload(audit={"retention": "1h", "max_size": 0})
    assert event["details"]["needsRestart"] == "audit.retention"
    sidecar.stop()
    sidecar.start()
    start = sidecar.wait_own("keytrail.start", 2)[-1]["details"]
    assert start["keepsLess"] and start["previousRetentionSeconds"] == 7200

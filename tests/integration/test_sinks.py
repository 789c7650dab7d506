"""Sinks: everything durable is delivered, in order; a dead or slow one delays no request."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import urllib.error

import pytest

from backend import ok
from faults import wait_said
from support import BUILD, KEYTRAIL, MODULES, PATIENCE, new_id, read_lines, segments, wait_for


FAR = {"name": "far", "type": "http", "url": "https://a"}


def file_sink(path, name="file", **more):
    return {"name": name, "type": "file", "path": str(path), **more}


def delivered(path):
    """The events of a sink's file and of what it was rotated to, in order; whole lines only."""
    events = [json.loads(line) for p in path.parent.glob(path.name + "*")
              for line in p.read_text().split("\n")[:-1]]
    return sorted(events, key=lambda e: e["trail"]["seq"])


def send(sidecar, n):
    with sidecar.client() as c:
        for _ in range(n):
            assert c.request("GET", "/api/v2/keys", {"Correlation-Id": new_id()}).status == 200


def caught_up(sidecar, path):
    """The sink has what the trail has; the events."""
    def same():
        got = delivered(path) if path.exists() else []
        return got if got == sidecar.events() else None
    return wait_for(same, "the sink to catch up")


def test_the_file_sink_has_every_event(keytrail, raw_backend, tmp_path):
    path = tmp_path / "events.jsonl"
    sidecar = keytrail(raw_backend(ok()), {"sinks": [file_sink(path)]})
    send(sidecar, 50)
    events = caught_up(sidecar, path)
    assert len([e for e in events if e["action"] == "kms.secrets.list"]) == 50
    sidecar.wait_delivered("file")
    assert sidecar.metric("keytrail_sink_events_delivered_total", sink="file") == len(events)
    assert sidecar.metric("keytrail_sink_lag_events", sink="file") == 0
    sidecar.stop()
    assert delivered(path) == sidecar.events()


def test_the_stdout_sink_has_every_event(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(ok()), {"sinks": [{"name": "out", "type": "stdout"}]})
    send(sidecar, 20)
    sidecar.stop()
    assert [json.loads(line) for line in sidecar.stdout_file.read_text().splitlines()] == \
        sidecar.events()


def test_a_restart_goes_on_where_it_was(keytrail, raw_backend, tmp_path):
    path = tmp_path / "events.jsonl"
    sidecar = keytrail(raw_backend(ok()), {"sinks": [file_sink(path)]})
    send(sidecar, 10)
    sidecar.stop()
    sidecar.start()
    send(sidecar, 10)
    sidecar.stop()
    assert delivered(path) == sidecar.events()


def test_a_kill_delivers_at_least_once(keytrail, raw_backend, tmp_path):
    path = tmp_path / "events.jsonl"
    sidecar = keytrail(raw_backend(ok()), {"sinks": [file_sink(path)]})
    send(sidecar, 30)
    sidecar.kill()
    sidecar.start()
    send(sidecar, 5)
    sidecar.stop()
    got = {e["trail"]["seq"] for e in delivered(path)}
    assert got == {e["trail"]["seq"] for e in sidecar.events()}


@pytest.mark.parametrize("start, all_", [("earliest", True), ("now", False)])
def test_where_a_new_sink_begins(keytrail, raw_backend, tmp_path, start, all_):
    early = file_sink(tmp_path / "early.jsonl", "early")
    sidecar = keytrail(raw_backend(ok()), {"sinks": [early]})
    send(sidecar, 10)
    path = tmp_path / "late.jsonl"
    event = sidecar.reload(sinks=[early, file_sink(path, "late", start=start)])
    assert event["outcome"] == "success"
    send(sidecar, 5)
    last = sidecar.events()[-1]["trail"]["seq"]
    wait_for(lambda: path.exists() and last in [e["trail"]["seq"] for e in delivered(path)],
             "the sink")
    assert (delivered(path)[0]["trail"]["seq"] == 1) == all_


def test_usr1_reopens_the_file(keytrail, raw_backend, tmp_path):
    path = tmp_path / "events.jsonl"
    sidecar = keytrail(raw_backend(ok()), {"sinks": [file_sink(path)]})
    send(sidecar, 5)
    caught_up(sidecar, path)
    path.rename(tmp_path / "moved.jsonl")
    sidecar.signal(signal.SIGUSR1)
    wait_said(sidecar, "reopened")
    send(sidecar, 5)
    sidecar.stop()
    old = [json.loads(line) for line in (tmp_path / "moved.jsonl").read_text().splitlines()]
    new = [json.loads(line) for line in path.read_text().splitlines()]
    assert old + new == sidecar.events() and len(new) >= 6


def test_the_file_is_rotated_by_size(keytrail, raw_backend, tmp_path):
    path = tmp_path / "events.jsonl"
    sidecar = keytrail(raw_backend(ok()), {"sinks": [file_sink(path, rotate_size=8192,
                                                               keep=100)]})
    send(sidecar, 60)
    sidecar.stop()
    files = list(tmp_path.glob("events.jsonl*"))
    assert len(files) >= 4 and all(f.stat().st_size <= 8192 + 1024 for f in files)
    assert delivered(path) == sidecar.events()


def test_a_dead_sink_delays_nobody_and_catches_up(keytrail, raw_backend, tmp_path):
    """Its folder is missing at first; another sink goes on meanwhile."""
    folder = tmp_path / "later"
    good = tmp_path / "good.jsonl"
    sidecar = keytrail(raw_backend(ok()), {"sinks": [file_sink(folder / "events.jsonl", "dead"),
                                                     file_sink(good, "good")]})
    send(sidecar, 100)
    caught_up(sidecar, good)
    wait_for(lambda: sidecar.metric("keytrail_sink_up", sink="dead") == 0, "the other one to be down")
    wait_for(lambda: sidecar.metric("keytrail_sink_lag_events", sink="dead") > 100, "the count")
    assert sidecar.fetch("metrics", "/readyz")
    folder.mkdir()
    caught_up(sidecar, folder / "events.jsonl")
    wait_for(lambda: sidecar.metric("keytrail_sink_up", sink="dead") == 1, "the sink to be up")


def test_a_stalled_stdout_delays_nobody(keytrail, raw_backend):
    """A pipe that nobody reads."""
    read, write = os.pipe()
    sidecar = keytrail(raw_backend(ok()), {"sinks": [{"name": "out", "type": "stdout"}],
                                           "timeouts": {"drain": "500ms"}}, start=False)
    sidecar.stdout_file = f"/dev/fd/{write}"
    sidecar.start()
    os.close(write)
    send(sidecar, 300)  # far beyond the pipe's 64 KiB
    assert sidecar.metric("keytrail_sink_lag_events", sink="out") > 50
    sidecar.stop()
    assert any(line["event"] == "undelivered" for line in sidecar.log_lines())
    os.close(read)


def test_undelivered_events_stay_in_the_trail(keytrail, raw_backend, tmp_path):
    folder = tmp_path / "later"
    path = folder / "events.jsonl"
    sidecar = keytrail(raw_backend(ok()), {"sinks": [file_sink(path)],
                                           "timeouts": {"drain": "300ms"}})
    send(sidecar, 10)
    sidecar.stop()
    undelivered = [x for x in sidecar.log_lines() if x["event"] == "undelivered"]
    assert undelivered and str(sidecar.trail_dir) in undelivered[0]["message"]
    folder.mkdir()
    sidecar.start()
    send(sidecar, 1)
    caught_up(sidecar, path)


# ---- modules ----

def test_a_module_is_loaded_and_driven(keytrail, raw_backend):
    """Within the sandbox, which closes after it was loaded."""
    sidecar = keytrail(raw_backend(ok()), {"sinks": [FAR]},
                       environment={"KEYTRAIL_MODULES_DIR": str(BUILD / "modules" / "good")})
    send(sidecar, 10)
    wait_for(lambda: sidecar.metric("keytrail_sink_events_delivered_total", sink="far") ==
             len(sidecar.events()), "the module to have all")


def test_a_reload_that_needs_a_module_is_refused(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(ok()), {"sandbox": "off"})  # it would refuse first
    event = sidecar.reload(sinks=[FAR])
    assert event["outcome"] == "failure"
    assert "loaded at a start only: restart" in wait_said(sidecar, "reload_failed")[0]


# ---- filters ----

def filtered_sink(path, **patterns):
    return file_sink(path, filter=patterns)


def check_chain(events):
    """Each that is delivered for the first time names the one before it; repeats say the same."""
    last, named = 0, {}
    for seq, prev in ((e["trail"]["seq"], e["delivery"]["prev"]) for e in events):
        assert named.setdefault(seq, prev) == prev
        if seq > last:
            assert prev == last, (seq, prev, last)
            last = seq


def leaf_hashes(sidecar):
    return {json.loads(line)["trail"]["seq"]: hashlib.sha256(b"\0" + line).hexdigest()
            for path in segments(sidecar.trail_dir) for line in path.read_bytes().splitlines()}


def test_a_filter_holds_calls_back_but_nothing_of_its_own_life(keytrail, raw_backend, tmp_path):
    path = tmp_path / "events.jsonl"
    sidecar = keytrail(raw_backend(ok()), {"sinks": [
        filtered_sink(path, actions=["kms.secrets.*"], severities=["critical"])]})
    with sidecar.client() as c:
        for i in range(30):
            assert c.request("GET", "/api/v2/keys" if i % 3 else "/nowhere",
                             {"Correlation-Id": new_id()}).status == 200
    sidecar.stop()
    events, got = sidecar.events(), delivered(path)
    wanted = [e for e in events if e["action"].startswith("keytrail.") or e["severity"] == "critical"]
    assert len(wanted) < len(events) - 15
    assert [{k: v for k, v in e.items() if k != "delivery"} for e in got] == wanted
    check_chain(got)
    hashes = leaf_hashes(sidecar)
    assert all(e["delivery"]["hash"] == hashes[e["trail"]["seq"]] for e in got)


def test_prev_tells_no_loss_over_kills_and_restarts(keytrail, raw_backend, tmp_path):
    path = tmp_path / "events.jsonl"
    sidecar = keytrail(raw_backend(ok()), {"sinks": [
        filtered_sink(path, actions=["kms.secrets.list"])]})
    for life in range(6):
        with sidecar.client() as c:
            for i in range(20):
                c.request("GET", "/api/v2/keys" if i % 4 else "/api/v2/keys/" + new_id(),
                          {"Correlation-Id": new_id()})
        (sidecar.kill if life % 2 else sidecar.stop)()
        sidecar.start()
    sidecar.stop()
    events = [json.loads(line) for line in path.read_text().splitlines()]
    check_chain(events)
    wanted = [e["trail"]["seq"] for e in sidecar.events()
              if e["action"].startswith("keytrail.") or e["action"] == "kms.secrets.list"]
    assert sorted({e["trail"]["seq"] for e in events}) == wanted


# ---- rejections ----

def quarantined(sidecar, name):
    path = sidecar.trail_dir / f"quarantine.{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_what_a_sink_rejects_is_kept_and_recorded(keytrail, raw_backend):
    """Of the event that tells of it, which the sink rejects as well, there is no other one."""
    sidecar = keytrail(raw_backend(ok()), {"sinks": [FAR | {"name": "picky"}]},
                       environment={"KEYTRAIL_MODULES_DIR": str(BUILD / "modules" / "good")})
    send(sidecar, 10)
    with sidecar.client() as c:
        assert c.request("GET", "/api/v2/keys?x=%", {}).status == 400
    told = sidecar.wait_own("keytrail.reject")
    sidecar.wait_delivered("picky")
    sidecar.stop()
    events = sidecar.events()
    failed = [e for e in events if e["outcome"] == "failure"]
    assert quarantined(sidecar, "picky") == failed and len(failed) == 2
    assert [(e["severity"], e["details"]) for e in told] == [("warning", {
        "count": 1, "first": failed[0]["trail"]["seq"], "last": failed[0]["trail"]["seq"],
        "reason": "of failures it will not hear", "sink": "picky"})]
    assert sidecar.own("keytrail.reject") == told


def test_a_kill_does_not_hide_what_was_rejected(keytrail, raw_backend, disk):
    """Dead after the stub was delivered and before anybody could record what it stands for."""
    sidecar = keytrail(raw_backend(ok()), {"sinks": [FAR]}, environment={
        **disk.environment, "KEYTRAIL_MODULES_DIR": str(BUILD / "modules" / "good")})
    with sidecar.client() as c:
        assert c.request("GET", "/api/v2/keys?x=%", {}).status == 400
    wait_for(lambda: any(e["outcome"] == "failure" for e in sidecar.events()), "the failure")
    sidecar.wait_delivered("far")  # so it is durable
    disk.set("sync */0*.jsonl stall")
    before = len(read_lines(sidecar.trail_dir))
    sidecar.signal(signal.SIGHUP)
    wait_for(lambda: len(read_lines(sidecar.trail_dir)) > before, "a line that is not durable")
    sidecar.write_config(sinks=[FAR, FAR | {"name": "picky", "start": "earliest"}])
    sidecar.signal(signal.SIGHUP)
    wait_for(lambda: sidecar.metric("keytrail_sink_events_rejected_total", sink="picky") == 1,
             "the stub")
    sidecar.kill()
    disk.clear()
    assert not sidecar.own("keytrail.reject")
    sidecar.start()
    (told,) = sidecar.wait_own("keytrail.reject")
    assert told["details"]["first"] == quarantined(sidecar, "picky")[0]["trail"]["seq"]


def test_a_sink_may_reject_before_the_others_are_there(keytrail, raw_backend, disk, tmp_path):
    picky = FAR | {"name": "picky", "start": "earliest"}
    sidecar = keytrail(raw_backend(ok()), environment={
        **disk.environment, "KEYTRAIL_MODULES_DIR": str(BUILD / "modules" / "good")})
    with sidecar.client() as c:
        assert c.request("GET", "/api/v2/keys?x=%", {}).status == 400
    sidecar.stop()
    sidecar.write_config(sinks=[picky, file_sink(tmp_path / "events.jsonl", "late")])
    disk.set("sync *cursor.late stall")
    sidecar.spawn()
    wait_for(lambda: quarantined(sidecar, "picky"), "the rejection")
    disk.clear()
    sidecar.wait_own("keytrail.reject")


# ---- readiness ----

def ready(sidecar):
    """Whether it is, and what it says of its sinks."""
    try:
        answer = sidecar.fetch("admin", "/readyz?verbose")
    except urllib.error.HTTPError as e:
        assert e.code == 503
        answer = e.read()
    answer = json.loads(answer)
    return answer["ready"], [c for c in answer["checks"] if c["name"] == "sinks"][0]


@pytest.mark.parametrize("required", [False, True])
def test_readiness_names_a_dead_sink(keytrail, raw_backend, tmp_path, required):
    folder = tmp_path / "later"
    sidecar = keytrail(raw_backend(ok()), {"sinks": [
        file_sink(folder / "events.jsonl", "dead", required=required),
        file_sink(tmp_path / "good.jsonl", "good", required=True)]})
    send(sidecar, 1)
    sidecar.wait_delivered("good")
    wait_for(lambda: sidecar.metric("keytrail_sink_up", sink="dead") == 0, "the sink to be down")
    is_ready, check = ready(sidecar)
    assert is_ready is not required and check["ok"] is not required
    assert check["detail"].startswith("dead (required): " if required else "dead: ")
    assert "good" not in check["detail"] and str(folder) in check["detail"]
    folder.mkdir()
    wait_for(lambda: ready(sidecar) == (True, {"detail": "", "name": "sinks", "ok": True}),
             "the sink to be up")


# ---- keytrail sinks, keytrail replay ----

def run(*args):
    return subprocess.run([KEYTRAIL, *map(str, args)], capture_output=True, text=True,
                          timeout=PATIENCE, check=False)


def listed(sidecar):
    done = run("sinks", sidecar.file, "--json")
    assert done.returncode == 0, done.stderr
    return {s.pop("name"): s for s in json.loads(done.stdout)}


def test_sinks_are_listed_whether_it_runs_or_not(keytrail, raw_backend, tmp_path):
    sidecar = keytrail(raw_backend(ok()), {
        "admin": {"socket": str(tmp_path / "admin")},
        "sinks": [file_sink(tmp_path / "good.jsonl", "good"),
                  file_sink(tmp_path / "later" / "dead.jsonl", "dead")],
        "timeouts": {"drain": "100ms"}})
    send(sidecar, 10)

    def settled():
        found = listed(sidecar)
        last = sidecar.events()[-1]["trail"]["seq"]
        dead = found["dead"]
        return dead["state"] == "down" and dead["oldestSeconds"] > 0 and \
            found["good"]["cursor"] == dead["lag"] == last and found

    found = wait_for(settled, "the list")
    last = found["good"]["cursor"]
    assert found["good"] == {"type": "file", "state": "up", "cursor": last, "lag": 0,
                             "oldestSeconds": 0, "lastError": ""}
    assert (found["dead"]["cursor"], found["dead"]["lag"]) == (0, last)
    assert "later" in found["dead"]["lastError"]
    table = run("sinks", sidecar.file).stdout.splitlines()
    assert table[1].split()[:3] == ["good", "file", "up"]
    sidecar.stop()
    last = sidecar.events()[-1]["trail"]["seq"]
    stopped = {"type": "file", "state": "stopped", "oldestSeconds": None, "lastError": ""}
    good = listed(sidecar)["good"]["cursor"]
    assert 10 < good <= last
    assert listed(sidecar) == {"good": {**stopped, "cursor": good, "lag": last - good},
                               "dead": {**stopped, "cursor": 0, "lag": last}}


def sequence(path):
    return [json.loads(line)["trail"]["seq"] for line in path.read_text().splitlines()]


def test_a_replay_brings_the_same_events_again(keytrail, raw_backend, tmp_path):
    path = tmp_path / "events.jsonl"
    sidecar = keytrail(raw_backend(ok()), {"admin": {"socket": str(tmp_path / "admin")},
                                           "sinks": [file_sink(path)]})
    send(sidecar, 10)
    caught_up(sidecar, path)
    last = sequence(path)[-1]
    done = run("replay", sidecar.file, "--sink", "file", "--from", 5)
    assert (done.returncode, done.stdout) == (
        0, "sink file: what the trail holds from event 5 on is delivered again\n")
    (call,) = sidecar.wait_own("keytrail.access")
    assert call["outcome"] == "success"
    assert {k: call["details"][k] for k in ("call", "first", "sink")} == {
        "call": "/sinks/replay", "first": 5, "sink": "file"}
    wait_for(lambda: sequence(path)[last:][:last - 4] == list(range(5, last + 1)), "the replay")
    wrong = run("replay", sidecar.file, "--sink", "other", "--from", 1)
    assert wrong.returncode == 1 and 'there is no sink "other"' in wrong.stderr
    sidecar.stop()
    before = sequence(path)
    assert run("replay", sidecar.file, "--sink", "file", "--from", before[-1] - 1).returncode == 0
    sidecar.start()
    sidecar.stop()
    assert sequence(path)[len(before):][:3] == [before[-1] - 1, before[-1], before[-1] + 1]
    lines = path.read_text().splitlines()
    assert len(set(lines)) == len(sidecar.events()) < len(lines)


# ---- check --environment ----

def test_check_asks_each_sink(keytrail, raw_backend):
    picky = {**FAR, "name": "picky"}
    found = {}
    for names in ([FAR], [picky, FAR]):
        sidecar = keytrail(raw_backend(ok()), {"sinks": names}, start=False)
        environment = {**os.environ, "KEYTRAIL_MODULES_DIR": str(BUILD / "modules" / "good")}
        done = subprocess.run([KEYTRAIL, "check", sidecar.file, "--environment"], text=True,
                              env=environment, capture_output=True, timeout=PATIENCE, check=False)
        assert "\n  sink far: it is there\n" in done.stdout
        found[len(names)] = done
    assert found[1].returncode == 0, found[1].stderr
    assert found[2].returncode == 1
    assert found[2].stderr == 'sinks: "picky": it wants to be left alone\n'


def publishing(sidecar):
    """The names of the threads whose receivers are elsewhere."""
    return {name for name in sidecar.threads() if name.startswith("publish ")}


@pytest.mark.skipif("http" not in MODULES, reason="built without the http sink")
def test_removing_silent_sinks_holds_nobody_up(keytrail, raw_backend):
    """Each waits for an answer for up to a second more: the main thread, who accepts, does not."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        sidecar = keytrail(raw_backend(ok()), {"sinks": [
            {"name": f"far{i}", "type": "http", "url": url} for i in range(6)]})
        wait_for(lambda: len(publishing(sidecar)) == 6, "the threads")
        silent.settimeout(PATIENCE)
        held = [silent.accept()[0] for _ in range(6)]  # and nothing more
        sidecar.write_config(sinks=[])
        sidecar.signal(signal.SIGHUP)
        wait_said(sidecar, "reloaded")
        assert sidecar.fetch("metrics", "/livez")
        send(sidecar, 1)
        wait_for(lambda: not publishing(sidecar), "their end")
        for connection in held:
            connection.close()
    sidecar.tell_accepted()

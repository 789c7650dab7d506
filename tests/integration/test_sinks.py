"""Sinks: everything durable is delivered, in order; a dead or slow one delays no request."""

import json
import os
import signal

import pytest

from backend import ok
from support import new_id, wait_for


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
    wait_for(lambda: sidecar.metric("keytrail_sink_lag_events", sink="file") == 0, "the count")
    assert sidecar.metric("keytrail_sink_events_delivered_total", sink="file") == len(events)
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
    wait_for(lambda: any(line["event"] == "reopened" for line in sidecar.log_lines()),
             "the files to be reopened")
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
    assert sidecar.metric("keytrail_sink_up", sink="dead") == 0
    assert sidecar.metric("keytrail_sink_lag_events", sink="dead") > 100
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

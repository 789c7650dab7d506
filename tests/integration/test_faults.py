"""What goes wrong with the disk and the files: the answer, the metric, readiness and the trail."""

import os

import pytest

from backend import ok
from oracle import CONFIG, KEY
from support import merge, new_id, wait_for

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
    wait_for(lambda: correlation in sink.read_text(), "the sink")
    number = sidecar.events()[-1]["trail"]["seq"]
    sidecar.kill()
    sidecar.start()
    assert [e["trail"]["seq"] for e in sidecar.events()][:number] == list(range(1, number + 1))
    assert len(sidecar.own("keytrail.tamper")) == 1

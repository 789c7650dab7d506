"""The metrics and admin listeners of a running sidecar, read by other people's parsers."""

import contextlib
import json
import subprocess
import time
import urllib.error

import prometheus_client.openmetrics.parser as openmetrics
import pytest

import http1
from backend import ok
from support import new_id, wait_for


def file_sink(path):
    return {"name": "file", "type": "file", "path": str(path)}


@pytest.fixture
def busy(keytrail, raw_backend, tmp_path):
    """A sidecar that has answered 20 requests, and whose sink has every event."""
    sidecar = keytrail(raw_backend(ok()), {"sinks": [file_sink(tmp_path / "out.jsonl")]})
    with sidecar.client() as c:
        for _ in range(20):
            assert c.request("GET", "/api/v2/keys", {"Correlation-Id": new_id()}).status == 200
    sidecar.wait_delivered("file")
    wait_for(lambda: sidecar.metric("keytrail_request_duration_seconds_count") == 20,
             "the end of the last one")
    return sidecar


def test_promtool_has_nothing_to_say_of_a_scrape(busy):
    done = subprocess.run(["promtool", "check", "metrics"], input=busy.fetch("metrics", "/metrics"),
                          text=True, timeout=60, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert (done.returncode, done.stdout) == (0, "")


def test_openmetrics_when_asked_for(busy):
    text = busy.fetch("metrics", "/metrics", Accept="application/openmetrics-text;version=1.0.0")
    families = {f.name: f for f in openmetrics.text_string_to_metric_families(text)}
    assert families["keytrail_requests"].samples[0].labels == {
        "action": "kms.secrets.list", "outcome": "success", "code": "2xx"}
    build = families["keytrail_build"].samples[0].labels
    assert build["tls"].startswith("OpenSSL 3")
    assert build["http_parser"].startswith("llhttp ")
    assert build["version"]


def test_the_ledger_adds_up(busy):
    figures = busy.metrics()

    def figure(name):
        return sum(v for (n, _), v in figures.items() if n == f"keytrail_{name}")

    assert figure("requests_total") == 20
    assert figure("added_seconds_count") == figure("request_duration_seconds_count") == 20
    assert figure("events_lost_total") == 0
    assert figure("events_accepted_total") == figure("events_durable_total") >= 20
    assert figure("sink_events_delivered_total") == figure("events_durable_total")
    assert figure("sink_up") == figure("trail_writable") == 1
    assert figure("trail_size_bytes") > 0
    assert figure("trail_free_bytes") > 0


def test_the_status_is_whole(busy):
    status = json.loads(busy.fetch("admin", "/status"))
    assert status["workers"] >= 1
    assert len(status["configDigest"]) == 64
    assert status["configPath"].endswith(".json")
    assert status["trail"]["durable"] >= 20
    assert status["trail"]["secondsToFull"] is None  # too early to tell
    assert (status["ready"], status["summary"]) == (True, "Every call is recorded.")
    assert status["you"] == {"token": "none", "role": "viewer"}
    assert {c["name"] for c in status["checks"]} == {"trail", "listener", "certificates", "sinks",
                                                     "signing"}
    assert status["certificates"] and not any(c["endsSoon"] for c in status["certificates"])
    (sink,) = status["sinks"]
    assert (sink["name"], sink["up"], sink["waiting"], sink["lastError"]) == ("file", True, 0, "")


def test_the_last_hour_is_kept(busy):
    history = wait_for(lambda: (h := json.loads(busy.fetch("admin", "/history"))) and h["calls"]
                       and h, "a step to be over")
    (calls,) = history["calls"]
    assert (calls["action"], calls["outcome"]) == ("kms.secrets.list", "success")
    assert len(calls["values"]) == 360 and sum(filter(None, calls["values"])) == 20
    assert history["step"] == 10 and abs(history["end"] - time.time()) < 60
    for part in "added", "total":
        p50, p99 = ([v for v in history[part][p] if v is not None] for p in ("p50", "p99"))
        assert 0 < max(p50) <= max(p99)
    assert history["trailFree"][-1] > 0 and history["lost"][-1] == 0
    short = json.loads(busy.fetch("admin", "/history?minutes=5"))
    assert len(short["lost"]) == 30


def routes_of(sidecar):
    page = json.loads(sidecar.fetch("admin", "/routes"))
    hits = {(r["method"], r["path"], r["query"]): r["hits"] for r in page["routes"]}
    assert len(hits) == len(page["routes"])
    return hits, {s["shape"]: s["count"] for s in page["shapes"]}


def test_each_route_has_its_hits_and_what_fits_none_its_shape(keytrail, raw_backend):
    route = {"action": "my.things.read", "method": "GET", "path": "/things/{id}"}
    sidecar = keytrail(raw_backend(ok()), {"routes": [route]})
    key = f"/api/v2/keys/{new_id()}"
    with sidecar.client() as c:
        for method, path in (("GET", "/api/v2/keys"), ("GET", "/api/v2/keys"), ("GET", "/things/1"),
                             ("POST", f"{key}?action=wrap"), ("GET", f"{key}/odd/7"),
                             ("GET", f"/api/v2/keys/{new_id()}/odd/8"), ("GET", "/c4n4ry")):
            assert c.request(method, path).status == 200
    # An event may be durable, and its answer be here, before it is counted.
    wait_for(lambda: sum(routes_of(sidecar)[0].values()) == 7, "the last one to be counted")
    hits, shapes = routes_of(sidecar)
    assert hits["GET", "/api/v2/keys", None] == 2
    assert hits["GET", "/things/{id}", None] == 1
    assert hits["POST", "/api/v2/keys/{id}", "action=wrap"] == 1
    assert shapes == {"/api/v2/keys/{uuid}/{}/{n}": 2, "/{}": 1}
    assert sidecar.metric("keytrail_unmatched_shapes") == 2
    assert sidecar.metric("keytrail_route_requests_total", route="GET /things/{id}") == 1
    sidecar.reload(routes=[route | {"path": "/things/{name}"}])
    after, shapes = routes_of(sidecar)
    assert after["GET", "/api/v2/keys", None] == 2 and after["GET", "/things/{name}", None] == 0
    assert "c4n4ry" not in sidecar.fetch("admin", "/routes") and len(shapes) == 2


def test_a_dead_sink_shows_and_does_not_make_it_unready(keytrail, raw_backend, tmp_path):
    missing = tmp_path / "no" / "out.jsonl"
    sidecar = keytrail(raw_backend(ok()), {"sinks": [file_sink(missing)]})
    wait_for(lambda: sidecar.metrics().get(("keytrail_sink_up", (("sink", "file"),))) == 0,
             "the sink to be down")
    status = json.loads(sidecar.fetch("admin", "/status"))
    (sink,) = status["sinks"]
    assert not sink["up"]
    assert status["summary"] == f"Every call is recorded; sink file is down: {sink['lastError']}."
    assert str(missing) in sink["lastError"]
    assert json.loads(sidecar.fetch("admin", "/readyz?verbose"))["ready"] is True
    assert sidecar.fetch("metrics", "/readyz") == "ready\n"
    missing.parent.mkdir()
    wait_for(lambda: sidecar.metric("keytrail_sink_up", sink="file") == 1, "the sink to be up")


def test_details_are_not_on_the_metrics_listener(busy):
    assert busy.fetch("metrics", "/readyz?verbose") == "ready\n"
    with pytest.raises(urllib.error.HTTPError) as refused:
        busy.fetch("metrics", "/status")
    assert refused.value.code == 404


def test_who_asks_nothing_is_sent_away(keytrail, raw_backend):
    """After 5 seconds, on either listener; others are answered meanwhile."""
    sidecar = keytrail(raw_backend(ok()))
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(http1.Client(sidecar.ports[listener]))
                  for listener in ("metrics", "admin") for _ in range(50)]
        for c in silent[::2]:
            c.send(b"GET /livez HTTP/1.1\r\nHo")
        assert sidecar.fetch("metrics", "/livez") and sidecar.fetch("admin", "/livez")
        assert not any(b" 200 " in c.rest() for c in silent)

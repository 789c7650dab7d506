"""Loss is never silent: the equations of the trail and of each sink hold at every scrape."""

import time

import pytest

from backend import ok
from support import PATIENCE, wait_for
from test_trail import Load, echo


class Ledger:
    """The figures of one scrape."""

    def __init__(self, sidecar):
        self.figures = sidecar.metrics()

    def sum(self, name, **labels):
        return sum(v for (n, ls), v in self.figures.items()
                   if n == f"keytrail_{name}" and set(labels.items()) <= set(ls))

    def waiting(self):
        return self.sum("events_accepted_total") - self.sum("events_durable_total") \
            - self.sum("events_lost_total")

    def sink_waiting(self, sink):
        return self.sum("events_durable_total") - sum(
            self.sum(f"sink_events_{word}_total", sink=sink)
            for word in ("delivered", "filtered", "rejected"))


    def sink_is_exact(self, sink):
        return self.sum("sink_events_due", sink=sink) == \
            self.sum("sink_lag_events", sink=sink) + sum(
                self.sum(f"sink_events_{word}_total", sink=sink)
                for word in ("delivered", "filtered", "rejected", "missing"))


def sinks(folder):
    return [{"name": "good", "type": "file", "path": str(folder / "good.jsonl")},
            {"name": "dead", "type": "file", "path": str(folder / "missing" / "dead.jsonl")}]


@pytest.mark.parametrize("guarantee", ["async", "durable"])
def test_the_equations_hold_at_every_scrape_and_exactly_at_rest(keytrail, raw_backend, tmp_path,
                                                                guarantee):
    sidecar = keytrail(raw_backend(echo), {"audit": {"guarantee": guarantee},
                                           "sinks": sinks(tmp_path),
                                           "timeouts": {"drain": "300ms"}})
    load = Load(sidecar)
    scrapes = []
    end = time.monotonic() + PATIENCE
    while (len(load.answered) < 500 or len(scrapes) < 5) and time.monotonic() < end:
        scrapes.append(Ledger(sidecar))
    load.stopped = True
    load.join()
    assert len(load.answered) >= 500 and len(scrapes) >= 5
    for ledger in scrapes:
        assert ledger.waiting() >= 0
        assert ledger.sink_waiting("good") >= 0 and ledger.sink_waiting("dead") >= 0
        assert ledger.sink_is_exact("good") and ledger.sink_is_exact("dead")

    def at_rest():
        """A request is counted after its answer, and sinks hear of its event after who waits for it."""
        now = Ledger(sidecar)
        return now if now.waiting() == now.sink_waiting("good") == 0 and \
            now.sum("requests_total") >= len(load.answered) and \
            now.sum("sink_lag_events", sink="dead") >= now.sum("events_durable_total") else None

    rest = wait_for(at_rest, "rest")
    assert rest.sum("events_lost_total") == 0
    assert rest.sum("requests_total") == len(load.answered) == len(sidecar.calls())
    assert rest.sum("events_durable_total") == len(sidecar.events())
    assert rest.sink_waiting("dead") == rest.sum("sink_lag_events", sink="dead") == \
        len(sidecar.events())


def test_the_equation_of_a_sink_holds_after_a_kill(keytrail, raw_backend, tmp_path):
    """What waited for a dead sink is due, and delivered, in the next life."""
    sidecar = keytrail(raw_backend(echo), {"sinks": sinks(tmp_path)})
    for _ in range(20):
        assert sidecar.call("GET", "/api/v2/keys").status == 200
    assert Ledger(sidecar).sink_is_exact("dead")
    sidecar.kill()
    (tmp_path / "missing").mkdir()
    sidecar.start()
    for sink in ("good", "dead"):
        sidecar.wait_delivered(sink)
    rest = Ledger(sidecar)
    assert rest.sum("sink_lag_events") == 0
    assert rest.sink_is_exact("dead") and rest.sink_is_exact("good")
    assert rest.sum("sink_events_delivered_total", sink="dead") >= 20
    assert rest.sum("sink_events_delivered_total", sink="dead") == \
        rest.sum("sink_events_due", sink="dead") == len(sidecar.events())


def test_the_counts_of_requests_fit_the_trail(keytrail, raw_backend):
    """By action, outcome and class of the status."""
    def script(connection):
        while (request := connection.read_request()) is not None:
            status = request.target.rpartition("=")[2]
            connection.send(ok(status=f"{status} Status"))

    sidecar = keytrail(raw_backend(script))
    with sidecar.client() as c:
        for status in (200, 201, 404, 404, 500, 302):
            assert c.request("GET", f"/api/v2/keys?limit={status}").status == status
        c.request("GET", "/api/v2/key_rings?limit=200")
        c.request("GET", "/api/v2/unheard-of?limit=200")
    # An event may be durable, and its answer be here, before it is counted.
    ledger = wait_for(lambda: now if (now := Ledger(sidecar)).sum("requests_total") == 8 else None, "all")

    def count(action, outcome, code):
        return ledger.sum("requests_total", action=action, outcome=outcome, code=code)

    assert count("kms.secrets.list", "success", "2xx") == 2
    assert count("kms.secrets.list", "failure", "4xx") == 2
    assert count("kms.secrets.list", "failure", "5xx") == 1
    assert count("kms.secrets.list", "failure", "3xx") == 1
    assert count("kms.key-rings.list", "success", "2xx") == 1
    assert count("kms.secrets.default", "success", "2xx") == 1
    assert len(sidecar.calls()) == 8 and ledger.sum("unmatched_requests_total") == 1

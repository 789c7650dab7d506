"""The trail: durable before the answer, nothing lost by a kill, one writer, orderly ends."""

import json
import os
import signal
import subprocess
import threading

import pytest

import http1
import support
from backend import ok
from support import KEYTRAIL, PATIENCE, new_id, read_trail, segments, wait_for
from test_proof import calls


def echo(connection):
    """Answers with the request's own correlation ID."""
    while (request := connection.read_request()) is not None:
        connection.send(ok(extra=f"Correlation-Id: {request.get('Correlation-Id')}\r\n"))


def tail(sidecar):
    """The durable events, by the program's own reader."""
    out = subprocess.run([KEYTRAIL, "tail", "--json", "-n", "1000", sidecar.trail_dir],
                         check=True, timeout=PATIENCE, stdout=subprocess.PIPE).stdout
    return [json.loads(line) for line in out.splitlines()]


def test_the_event_is_durable_before_the_answer_arrives(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(echo))
    with sidecar.client() as c:
        for _ in range(50):
            correlation = new_id()
            c.send_request("GET", "/api/v2/keys", {"Correlation-Id": correlation})
            assert c.read_head().get("Correlation-Id") == correlation
            # No waiting here: the line must be there already.
            assert correlation in [e["correlationId"] for e in sidecar.calls()]
            c.take(2)
    assert correlation in [e.get("correlationId") for e in tail(sidecar)]


def test_the_first_event_is_the_start_and_the_last_the_stop(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(echo))
    sidecar.call("GET", "/api/v2/keys")
    sidecar.stop()
    events = sidecar.events()
    assert [events[0]["action"], events[-1]["action"]] == ["keytrail.start", "keytrail.stop"]
    assert events[0]["details"]["newLog"] is True and events[0]["trail"]["seq"] == 1
    boot = events[0]["trail"]["boot"]
    sidecar.start()
    start = sidecar.wait_own("keytrail.start", 2)[-1]
    assert start["details"]["newLog"] is False and start["details"]["clean"] is True
    assert start["details"]["previousBoot"] == boot != start["trail"]["boot"]
    assert start["trail"]["log"] == events[0]["trail"]["log"]


def test_a_new_log_can_be_forbidden(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(echo), {"audit": {"create": False}}, start=False)
    sidecar.spawn()
    assert sidecar.process.wait(PATIENCE) == 1
    assert str(sidecar.trail_dir) in sidecar.stderr()
    assert not sidecar.trail_dir.exists()
    sidecar.process = None


def test_two_processes_on_one_trail(keytrail, raw_backend):
    backend = raw_backend(echo)
    first = keytrail(backend)
    second = keytrail(backend, {"audit": {"trail": str(first.trail_dir)}}, start=False)
    second.spawn()
    assert second.process.wait(PATIENCE) == 1
    line = second.stderr().strip().splitlines()[-1]
    assert "locked" in line and str(first.trail_dir) in line
    second.process = None
    assert first.call("GET", "/api/v2/keys").status == 200


def test_modes_of_the_files(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(echo), {"audit": {"segment_size": 65536}})
    calls(sidecar, 150)
    wait_for(lambda: list(sidecar.trail_dir.glob("index/*.idx")), "an index")
    assert sidecar.trail_dir.stat().st_mode & 0o777 == 0o750
    for path in sidecar.trail_dir.rglob("*"):
        want = 0o640 if path.suffix == ".jsonl" else 0o700 if path.is_dir() else 0o600
        assert path.stat().st_mode & 0o777 == want, path


def test_segments_follow_each_other(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(echo), {"audit": {"segment_size": 65536}})
    with sidecar.client() as c:
        for _ in range(300):
            c.request("GET", "/api/v2/keys", {"Correlation-Id": new_id()})
    sidecar.stop()
    assert len(segments(sidecar.trail_dir)) >= 3
    assert len(sidecar.calls()) == 300
    sidecar.start()
    assert sidecar.events()[-1]["trail"]["seq"] >= 302


# ---- kill -9 ----

class Load:
    """Clients that call until the sidecar is gone; what was answered and what was sent."""

    def __init__(self, sidecar, clients=8):
        self.sidecar, self.stopped = sidecar, False
        self.sent, self.answered = [], []
        self.threads = [threading.Thread(target=self.run) for _ in range(clients)]
        for t in self.threads:
            t.start()

    def run(self):
        try:
            with self.sidecar.client() as c:
                while not self.stopped:
                    correlation = new_id()
                    self.sent.append(correlation)
                    r = c.request("POST", "/api/v2/keys", {"Correlation-Id": correlation}, "{}")
                    if r.status == 200:
                        self.answered.append(correlation)
                    if r.get("Connection") == "close":
                        break
        except (OSError, http1.Closed):
            pass

    def join(self):
        for t in self.threads:
            t.join()


@pytest.mark.parametrize("round_", range(3))
def test_nothing_is_lost_by_a_kill(keytrail, raw_backend, round_):
    backend = raw_backend(echo)
    sidecar = keytrail(backend)
    load = Load(sidecar)
    wait_for(lambda: len(load.answered) > 100 * (round_ + 1), "some traffic")
    sidecar.kill()
    load.join()
    answered_by_service = {r.get("Correlation-Id") for r in backend.requests}
    sidecar.start()
    start = sidecar.wait_own("keytrail.start", 2)[-1]
    assert start["details"]["clean"] is False and start["severity"] == "warning"
    recorded = [e["correlationId"] for e in sidecar.calls()]
    assert len(recorded) == len(set(recorded))
    assert set(load.answered) <= set(recorded)
    assert set(recorded) <= answered_by_service | set(load.sent)


def test_a_kill_between_event_and_sync_loses_nothing(keytrail, raw_backend):
    """An async event that no sync has reached yet is in the mapped ring."""
    sidecar = keytrail(raw_backend(echo), {"audit": {"guarantee": "async",
                                                     "flush_interval": "30s"}})
    ids = [new_id() for _ in range(20)]
    with sidecar.client() as c:
        for i in ids:
            assert c.request("GET", "/api/v2/keys", {"Correlation-Id": i}).status == 200
    sidecar.kill()
    sidecar.start()
    recorded = [e["correlationId"] for e in sidecar.calls()]
    assert sorted(recorded) == sorted(ids)


def test_a_torn_line_is_cut_and_reported(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(echo))
    sidecar.call("GET", "/api/v2/keys")
    sidecar.kill()
    last = segments(sidecar.trail_dir)[-1]
    with open(last, "ab") as f:
        f.write(b'{"action":"kms.secr')
    sidecar.start()
    recover, = sidecar.wait_own("keytrail.recover")
    assert recover["details"]["tornBytes"] == 19
    assert last.with_name(last.name + ".torn").read_bytes().endswith(b'{"action":"kms.secr')
    assert sidecar.call("GET", "/api/v2/keys").status == 200


# ---- TERM ----

def test_term_finishes_what_is_in_flight(keytrail, raw_backend):
    go_on = threading.Event()

    def script(connection):
        while (request := connection.read_request()) is not None:
            assert go_on.wait(20)
            connection.send(ok(extra=f"Correlation-Id: {request.get('Correlation-Id')}\r\n"))

    backend = raw_backend(script)
    sidecar = keytrail(backend, {"workers": 1})
    correlation = new_id()
    with sidecar.client() as c, sidecar.client() as idle:
        c.send_request("POST", "/api/v2/keys", {"Correlation-Id": correlation}, "{}")
        backend.wait(lambda b: b.requests)
        sidecar.signal(signal.SIGTERM)
        assert idle.sock.recv(1) == b""

        def refused():
            try:
                sidecar.client(timeout=2).close()
            except OSError:
                return True
            return False

        wait_for(refused, "the listener to close")
        go_on.set()
        r = c.read_response()
        assert r.status == 200 and r.get("Connection") == "close"
    sidecar.stop()
    assert sidecar.event(correlation)["outcome"] == "success"


def test_term_is_bounded(keytrail, raw_backend):
    hold = threading.Event()

    def script(connection):
        connection.read_request()
        hold.wait(600)

    backend = raw_backend(script)
    sidecar = keytrail(backend, {"timeouts": {"drain": "300ms"}})
    correlation = new_id()
    with sidecar.client() as c:
        c.send_request("POST", "/api/v2/keys", {"Correlation-Id": correlation}, "{}")
        backend.wait(lambda b: b.requests)
        sidecar.stop()
    hold.set()
    event = sidecar.event(correlation)
    assert event["outcome"] in ("unknown", "failure")


def test_term_under_load_loses_nothing(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(echo))
    load = Load(sidecar)
    wait_for(lambda: len(load.answered) > 200, "some traffic")
    sidecar.stop()
    load.stopped = True
    load.join()
    recorded = [e["correlationId"] for e in sidecar.calls()]
    assert len(recorded) == len(set(recorded)) and set(load.answered) <= set(recorded)


def test_idle_connections_do_not_delay_the_end(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(echo), {"timeouts": {"drain": "10m", "idle": "10m"}})
    with sidecar.client() as c:
        assert c.request("GET", "/api/v2/keys").status == 200
        sidecar.stop()
        assert c.is_closed()


# ---- tail ----

def test_tail_prints_the_trail(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(echo))
    sidecar.call("GET", "/api/v2/keys")
    sidecar.stop()
    assert tail(sidecar) == read_trail(sidecar.trail_dir)


def test_a_trail_that_cannot_be_written(keytrail, raw_backend, tmp_path):
    if os.geteuid() == 0:
        place = tmp_path / "file"
        place.write_text("not a directory")
    else:
        place = tmp_path / "locked"
        place.mkdir(mode=0o500)
    sidecar = keytrail(raw_backend(echo), {"audit": {"trail": str(place / "trail")}}, start=False)
    sidecar.spawn()
    assert sidecar.process.wait(PATIENCE) == 1
    assert str(place) in sidecar.stderr()
    assert support.segments(place) == []
    sidecar.process = None

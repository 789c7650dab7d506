"""The process dies at every named instant (keytrail/fault.h); no call is lost, doubled or renumbered.

The list of instants is the source's, so that a new one is tested from the day on which it is there.
"""

import json
import re
import signal
import subprocess
import threading

import pytest

from faults import KEYTRAIL_FAULTS
from oracle import CONFIG, Oracle, call_until_gone
from support import KEYTRAIL, PATIENCE, ROOT, expired, read_lines, segments, wait_for

ALL = sorted({point for folder in ("src", "proxy") for path in (ROOT / folder).rglob("*.c")
              for point in re.findall(r'FAULT_POINT\("([^"]+)"\)', path.read_text())})
# Where something was done to the trail: test_tamper.py; where holds change: test_operate.py; from one
# process to the next: test_takeover.py.
MENDING, RENEWING, FOREIGN, ASIDE, HOLDING, TAKING, KEEPING = (
    [point for point in ALL if point.startswith(prefix)]
    for prefix in ("mend.", "renew.", "foreign.", "aside.", "hold.", "takeover.", "keep."))
POINTS = [point for point in ALL
          if point not in MENDING + RENEWING + FOREIGN + ASIDE + HOLDING + TAKING + KEEPING]
CLIENTS = 4


def live(sidecar, oracle, until):
    """Traffic until until() holds or the sidecar is gone; then it is."""
    if sidecar.spawn_and_listen():
        threads = [threading.Thread(target=call_until_gone, args=(sidecar, oracle, i))
                   for i in range(CLIENTS)]
        for t in threads:
            t.start()
        wait_for(lambda: sidecar.process.poll() is not None or until(), "the end of a life")
        sidecar.process.kill()
        for t in threads:
            t.join()
    assert sidecar.process.wait(PATIENCE) == -signal.SIGKILL, sidecar.stderr()[-2000:]


def lines_of(sidecar, sink):
    """Every line that was ever durable: of the trail, and of the sink where it has expired."""
    lines = {}
    delivered = sink.read_bytes().split(b"\n")[:-1] if sink.exists() else []
    for line in delivered + read_lines(sidecar.trail_dir):
        event = json.loads(line)
        number = event["trail"]["seq"]
        assert lines.setdefault(number, line) == line, f"number {number} was used twice"
    return [json.loads(lines[n]) for n in sorted(lines)]


@pytest.fixture
def small(keytrail, raw_backend, tmp_path, signer, disk):
    """A signed trail that is soon too large, what the service sees, and the sink that has it all."""
    oracle = Oracle()
    sink = tmp_path / "out.jsonl"
    sidecar = keytrail(raw_backend(oracle.script), {
        **CONFIG, "audit": {**CONFIG["audit"], "segment_size": 65536, "max_size": 262144,
                            "sign": {"file": str(signer[0])}},
        "sinks": [{"name": "out", "type": "file", "path": str(sink), "intents": True}],
        "workers": 1}, start=False, environment=disk.environment)
    return sidecar, oracle, sink


def check(sidecar, oracle, sink, key):
    """Of a trail at rest."""
    assert not sidecar.own("keytrail.tamper")
    events = lines_of(sidecar, sink)
    assert [e["trail"]["seq"] for e in events] == list(range(1, len(events) + 1))
    oracle.check(events)
    assert expired(events) == int(segments(sidecar.trail_dir)[0].stem) - 1
    out = subprocess.run([KEYTRAIL, "verify", sidecar.trail_dir, "--key", key],
                         capture_output=True, text=True)
    assert out.returncode == 0, out.stdout + out.stderr


@pytest.mark.parametrize("point", POINTS)
def test_dying_at(point, small, signer, disk):
    sidecar, oracle, sink = small
    some = 40
    live(sidecar, oracle, lambda: len(oracle.answered) > some)
    # One sync of a segment fails, so that the way back from there is passed too.
    disk.set("sync *.jsonl EIO 40 1")
    sidecar.program = KEYTRAIL_FAULTS
    for n in (1, 2):
        sidecar.environment["KEYTRAIL_FAULT"] = f"{point}:{n}"
        before = len(oracle.answered)
        enough = (lambda: False) if n == 1 else (lambda: len(oracle.answered) > before + some)
        live(sidecar, oracle, enough)
    disk.clear()
    sidecar.program = KEYTRAIL
    sidecar.start()
    sidecar.stop()
    check(sidecar, oracle, sink, signer[1])


@pytest.mark.parametrize("point", KEEPING)
def test_dying_when_an_expiry_is_taken_back(point, small, signer):
    """What was recorded and not made when it died, the next start takes back, however often it dies."""
    sidecar, oracle, sink = small
    sidecar.program = KEYTRAIL_FAULTS
    for at in ("expire.after_record", point, point):
        sidecar.environment["KEYTRAIL_FAULT"] = f"{at}:1"
        live(sidecar, oracle, lambda: False)
    sidecar.program = KEYTRAIL
    sidecar.start()
    sidecar.stop()
    assert [e["details"]["first"] for e in sidecar.own("keytrail.keep")][:3] == [1, 1, 1]
    check(sidecar, oracle, sink, signer[1])

"""A wall clock that jumps is recorded, and no number steps back (tests/faults/clock.c)."""

import os
import time

from backend import ok
from support import segments, wait_for


def test_jumps_of_a_running_clock_are_recorded(keytrail, raw_backend, clock):
    sidecar = keytrail(raw_backend(ok()), environment=clock.environment)
    clock.set(3600)
    forward, = sidecar.wait_own("keytrail.clock")
    assert forward["details"]["way"] == "forward" and forward["details"]["when"] == "running"
    assert abs(forward["details"]["milliseconds"] - 3600000) < 1000
    assert forward["severity"] == "warning"
    clock.set(-7200)
    back = sidecar.wait_own("keytrail.clock", 2)[1]
    assert back["details"]["way"] == "back" and back["details"]["from"] > back["details"]["to"]
    assert abs(back["details"]["milliseconds"] - 10800000) < 1000
    numbers = [e["trail"]["seq"] for e in sidecar.events()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_clock_that_was_put_back_while_it_was_stopped_is_recorded(keytrail, raw_backend, clock):
    sidecar = keytrail(raw_backend(ok()), environment=clock.environment)
    assert sidecar.own("keytrail.start")[0]["details"]["clock"] in (
        "synchronized", "unsynchronized", "unknown")
    sidecar.stop()
    assert sidecar.own("keytrail.clock") == []
    last = sidecar.events()[-1]["trail"]
    clock.set(-3600)
    sidecar.start()
    back, = sidecar.wait_own("keytrail.clock")
    assert (back["details"]["way"], back["details"]["when"]) == ("back", "stopped")
    assert back["details"]["from"] == last["at"]
    assert back["trail"]["seq"] > last["seq"]


def test_what_was_written_before_the_clock_was_set_is_no_older_for_it(keytrail, raw_backend, clock):
    """A machine without a clock of its own begins far back."""
    clock.set(-7200)
    sidecar = keytrail(raw_backend(ok(), tls=False),
                       {"upstream": {"tls": None},  # its certificate would be of the future
                        "audit": {"segment_size": 65536, "retention": "1h"}},
                       environment=clock.environment)
    with sidecar.client() as c:
        for _ in range(200):
            assert c.request("GET", "/api/v2/keys").status == 200
    first, second, *_ = segments(sidecar.trail_dir)[:-1]
    then = time.time() - 7200
    for path in first, second:
        os.utime(path, (then, then))
    clock.set(0)
    sidecar.wait_own("keytrail.clock")
    sidecar.reload()
    wait_for(lambda: second.stat().st_mtime > then + 7000, "the times to be set")
    sidecar.stop()
    os.utime(first, (then, then))  # as if its clock had been right
    sidecar.start()
    wait_for(lambda: not first.exists(), "what is old to go")
    sidecar.stop()
    assert second.exists()


def test_a_clock_that_is_put_back_and_set_again_makes_nothing_younger(keytrail, raw_backend, clock):
    sidecar = keytrail(raw_backend(ok()), {"audit": {"segment_size": 65536}},
                       environment=clock.environment)
    with sidecar.client() as c:
        for _ in range(100):
            assert c.request("GET", "/api/v2/keys").status == 200
    sidecar.stop()
    first = segments(sidecar.trail_dir)[0]
    then = int(time.time()) - 86400
    os.utime(first, (then, then))
    years = 57 * 365 * 86400
    clock.set(-years)
    sidecar.start()
    wait_for(lambda: first.stat().st_mtime < then - years + 60, "the times to be set back")
    clock.set(0)
    sidecar.wait_own("keytrail.clock", 2)
    sidecar.reload()
    wait_for(lambda: abs(first.stat().st_mtime - then) < 60, "the times to be set again")

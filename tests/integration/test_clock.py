"""A wall clock that jumps is recorded, and no number steps back (tests/faults/clock.c)."""

import pytest

from backend import ok
from support import BUILD


@pytest.fixture
def clock(tmp_path):
    """Sets the seconds that the sidecar's wall clock is off, and the environment for that."""
    class Clock:
        file = tmp_path / "clock"
        environment = {"LD_PRELOAD": str(BUILD / "faults" / "clock.so"),
                       "KEYTRAIL_CLOCK": str(file), "ASAN_OPTIONS": "verify_asan_link_order=0"}

        def set(self, seconds):
            new = self.file.with_suffix(".new")
            new.write_text(str(seconds))
            new.rename(self.file)
    return Clock()


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

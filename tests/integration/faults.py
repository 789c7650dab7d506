"""A disk that fails when it is told to (tests/faults/shim.c), and what a sidecar then shows; memory."""

import json
import mmap
import struct
import urllib.error

import oracle
from support import BUILD, merge, new_id, wait_for

KEYTRAIL_FAULTS = BUILD / "keytrail-faults"
STALL = "sync *.jsonl stall"
CONFIG = merge(oracle.CONFIG, {"workers": 1})
ASYNC = ("GET", "/api/v2/keys")
DURABLE = ("POST", f"/api/v2/keys/{oracle.KEY}/actions/unwrap")
INTENT = ("DELETE", f"/api/v2/keys/{oracle.KEY}")
EVERY = (ASYNC, DURABLE, INTENT)


class Disk:
    def __init__(self, rules):
        self.rules = rules
        # The sanitizers' libraries must come first; they are told to let this one be.
        self.environment = {"LD_PRELOAD": str(BUILD / "faults" / "shim.so"),
                            "KEYTRAIL_SHIM": str(rules),
                            "ASAN_OPTIONS": "verify_asan_link_order=0"}

    def set(self, *rules):
        """From now on these, and no others; the counts of matches begin anew."""
        new = self.rules.with_suffix(".new")
        new.write_text("".join(f"{rule}\n" for rule in rules))
        new.rename(self.rules)

    def clear(self):
        self.rules.unlink()


class Memory:
    """An allocator that fails when it is told to, and has counted (tests/faults/memory.c)."""

    def __init__(self, file):
        file.write_bytes(bytes(32))
        with open(file, "r+b") as f:
            self.map = mmap.mmap(f.fileno(), 32)
        self.environment = {"LD_PRELOAD": str(BUILD / "faults" / "memory.so"),
                            "KEYTRAIL_MEMORY": str(file)}

    def set(self, first, times=1):
        """The first allocation from now on fails, as the first of so many; 0: none does."""
        self.map[0:8] = bytes(8)
        self.map[16:24] = bytes(8)
        self.map[8:16] = struct.pack("=Q", times)
        self.map[0:8] = struct.pack("=Q", first)

    def count(self):
        return struct.unpack("=Q", self.map[16:24])[0]

    def held(self):
        """Blocks that were allocated and not freed."""
        return struct.unpack("=q", self.map[24:32])[0]


def call(sidecar, method, path):
    """One call; its correlation ID and the answer."""
    correlation = new_id()
    return correlation, sidecar.call(method, path, {"Correlation-Id": correlation})


def call_each(sidecar):
    """A call with each guarantee, served; their correlation IDs."""
    sent = [call(sidecar, *how) for how in EVERY]
    assert [r.status for _, r in sent] == [200] * 3
    return [correlation for correlation, _ in sent]


def lost(sidecar, **labels):
    return sidecar.metric("keytrail_events_lost_total", **labels)


def waiting(sidecar):
    """What was accepted and is neither durable nor lost; no scrape makes it negative."""
    figures = sidecar.metrics()

    def count(what):
        return sum(v for (n, _), v in figures.items() if n == f"keytrail_events_{what}_total")

    left = count("accepted") - count("durable") - count("lost")
    assert left >= 0, figures
    return left


def is_balanced(sidecar):
    """Nothing waits: accepted = durable + lost."""
    return waiting(sidecar) == 0


def failures(sidecar, operation):
    return sidecar.metric("keytrail_trail_failures_total", operation=operation)


def unready(sidecar):
    """Why it is not ready, by the admin listener; None when it is."""
    try:
        sidecar.fetch("admin", "/readyz?verbose")
    except urllib.error.HTTPError as e:
        assert e.code == 503
        return next(c["detail"] for c in json.loads(e.read())["checks"] if not c["ok"])
    return None


def said(sidecar, event):
    """What its own log says, of one kind."""
    return [e["message"] for e in sidecar.log_lines() if e["event"] == event]


def wait_said(sidecar, event):
    """The own log is written by a thread of its own turn: later than what it tells of is seen."""
    return wait_for(lambda: said(sidecar, event), f"the log to tell of {event}")

"""How long a start and a reload take, as whoever waits for them sees it."""

import contextlib
import re
import signal
import statistics
import sys
import time

import subjects

PATIENCE = 30
ROUTES = 10_000
TIMES = 5


def wait_ms(condition, what):
    begin = time.monotonic()
    while time.monotonic() < begin + PATIENCE:
        with contextlib.suppress(OSError):  # not listening yet, or not ready
            if condition():
                return (time.monotonic() - begin) * 1e3
        time.sleep(0.0005)
    sys.exit(f"bench: {what} took more than {PATIENCE} s")


def reloads(subject):
    return int(re.search(r'^keytrail_reloads_total\{result="success"\} (\d+)',
                         subjects.page(subject, "/metrics"), re.M)[1])


def start_and_reload(subject, cpus):
    """Milliseconds from exec to /readyz, and from HUP to its count in the metrics."""
    with contextlib.ExitStack() as stack:
        subjects.spawn(subject, cpus, stack)
        started = wait_ms(lambda: subjects.page(subject, "/readyz"), "a start")
        subject.process.send_signal(signal.SIGHUP)
        return started, wait_ms(lambda: reloads(subject) == 1, "a reload")


def starts(make, cpus):
    """{what: (milliseconds, unit)}, medians."""
    rows = {}
    for name, routes in (("the shipped routes", 0), (f"{ROUTES:,} more", ROUTES)):
        took = [start_and_reload(make(f"start {routes} {n}", routes=routes), cpus)
                for n in range(TIMES)]
        for what, column in zip(("start to /readyz", "reload"), zip(*took)):
            rows[f"{what}, {name}"] = statistics.median(column), "ms"
    return rows

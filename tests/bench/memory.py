"""What a proxy takes of memory, at rest and for each connection that waits."""

import contextlib
import dataclasses
import time

import meter
import subjects
from measure import say, warm_up

SETTLE = 1       # seconds after a start
FEW = 256        # connections that a proxy has room for besides those that wait
WARM = 20_000    # requests, by which what serves all connections is in memory: keytrail's ring has
                 # room for 15,000 events, touched once and used again for ever


@dataclasses.dataclass
class Memory:
    rss: float   # KiB at rest: shared libraries count whole
    pss: float   # KiB at rest: what others map too counts in part
    each: float  # bytes that an idle connection adds, with what was reserved for it at the start
    whole: float  # PSS with all of them by their number, bytes


def of(make, place, connections, tls=True):
    """`make` takes how many connections the proxy shall have room for.  Each process is fresh: what
    others left behind in its heap does not count.  RSS, since the clients map libraries too."""
    with contextlib.ExitStack() as stack:
        subject = subjects.start(make(FEW), {place.cpu}, stack)
        warm_up(subject, place, 4, WARM, tls)
        before = meter.memory_kib(subject.process.pid, "Rss")
    with contextlib.ExitStack() as stack:
        subject = subjects.start(make(FEW + connections), {place.cpu}, stack)
        pid = subject.process.pid
        time.sleep(SETTLE)
        rss, pss = meter.memory_kib(pid, "Rss"), meter.memory_kib(pid, "Pss")
        warm_up(subject, place, 4, WARM, tls)
        with place.client.idle(subject.port, connections, tls):
            return Memory(rss, pss,
                          (meter.memory_kib(pid, "Rss") - before) * 1024 / connections,
                          meter.memory_kib(pid, "Pss") * 1024 / connections)


def memory(makers, place, connections):
    got = {}
    for name, make in makers.items():
        got[name] = of(make, place, connections, "without TLS" not in name)
        say(f"memory, {name}: {got[name].rss} KiB, {got[name].each:.0f} bytes an idle connection")
    return got


def over_idle(make, place):
    """MiB as idle connections grow."""
    got = []
    for connections in (0, 1000, 2500, 5000, 10000):
        with contextlib.ExitStack() as stack:
            one = subjects.start(make(FEW + connections), {place.cpu}, stack)
            if connections:
                stack.enter_context(place.client.idle(one.port, connections))
            got.append((connections, meter.memory_kib(one.process.pid, "Pss") / 1024))
    return got

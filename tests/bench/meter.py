"""What the kernel counts: processor time of processes, of a whole processor, memory."""

import collections
import contextlib
import os
import pathlib
import re

PROC = pathlib.Path("/proc")
TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")


def family(pid):
    """The process and everything below it."""
    found = [pid]
    for children in (PROC / str(pid) / "task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in children.read_text().split():
                found += family(int(child))
    return found


def thread_ns(pid):
    """Processor time of a family, by the thread's name: the scheduler's own count."""
    used = collections.Counter()
    for member in family(pid):
        for task in (PROC / str(member) / "task").glob("*"):
            with contextlib.suppress(OSError):
                name = (task / "comm").read_text().strip()
                used[name] += int((task / "schedstat").read_text().split()[0])
    return used


def kernel_thread_ns():
    """Processor time of the kernel's own threads: the journal of the file system, write-back, timers.
    Most of them serve everybody: what a proxy makes them do shows in the difference alone."""
    total = 0
    for task in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (task / "stat").read_text().rsplit(")", 1)[1].split()[1] == "2":
                total += int((task / "schedstat").read_text().split()[0])
    return total


def idle_ns(cpu):
    """Time that a processor had nothing to do, or was taken from this machine.  Where the clock
    stops ticking while idle, the kernel takes this from the clock and not from ticks."""
    for line in (PROC / "stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{cpu}":
            _user, _nice, _system, idle, iowait, _irq, _softirq, stolen = (int(t) for t in ticks[:8])
            return (idle + iowait + stolen) * TICK_NS
    raise LookupError(f"no cpu{cpu} in /proc/stat")


def memory_kib(pid, kind):
    """Of a family: "Pss", by which what several processes map is shared out, or "Rss"."""
    total = 0
    for member in family(pid):
        text = (PROC / str(member) / "smaps_rollup").read_text()
        total += int(re.search(rf"^{kind}: +(\d+) kB", text, re.M)[1])
    return total

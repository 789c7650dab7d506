"""How long an answer takes at a rate that does not depend on the answers."""

import collections
import os
import re
import statistics
import time

import subjects
from measure import say

WARM = 0.5
PACES = (16, None), (1, 200)  # connections, requests a second; None: half of nginx's most


def sync_us(folder, count=200):
    """Median time of a write of 1 KiB and its fdatasync, in a file that has its blocks."""
    took = []
    path = folder / "sync"
    with open(path, "wb", buffering=0) as file:
        file.write(bytes(1 << 20))
        os.fsync(file.fileno())
        for n in range(count):
            begin = time.perf_counter()
            os.pwrite(file.fileno(), b"x" * 1024, n * 1024)
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - begin) * 1e6)
    path.unlink()
    return statistics.median(took)


def syncs(subject):
    return int(re.search(r"^keytrail_trail_sync_duration_seconds_count (\d+)",
                         subjects.page(subject, "/metrics"), re.M)[1])


def latencies(running, place, half, notes):
    """{(subject, connections): (p50, p99, p99.9)}, medians over the rounds, of each that runs; and
    ("apart", connections): the mean time from a sync to the next; ("sync", 0): what one takes."""
    got = collections.defaultdict(list)
    seconds = place.opts.seconds
    for number in range(place.opts.rounds):
        names = list(running)
        first = number % len(names)
        for connections, pace in PACES:
            for name in names[first:] + names[:first]:
                durable = name == "durable"
                before = syncs(running[name]) if durable else 0
                done = place.client.paced(running[name].port, connections, int(pace or half), WARM, seconds)
                if durable:
                    taken = max(1, syncs(running[name]) - before)
                    got["apart", connections].append((1e6 * (WARM + seconds) / taken,))
                if done.errors or not done.latency_us:
                    notes.add(f"latency, {connections}", name,
                              f"{done.requests} requests, {done.errors} more failed")
                if done.latency_us:
                    got[name, connections].append(done.latency_us)
                    say(f"latency, {connections} connections, {name}: "
                        f"{done.latency_us[0]:.0f} µs, p99 {done.latency_us[1]:.0f} µs")
        got["sync", 0].append((sync_us(place.folder),))
    return {key: [statistics.median(column) for column in zip(*rows)] for key, rows in got.items()}

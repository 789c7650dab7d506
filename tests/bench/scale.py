"""How CPU per request grows with routes, sinks, workers, events and connections."""

import collections
import contextlib
import itertools

import loads
import subjects
from measure import keep_alive, median_cpu, say

FAMILIES = (
    *(("routes", n, {"routes": n}) for n in (0, 100, 1000, 10000)),
    *(("sinks", n, {"sinks": ("file",) * n}) for n in (0, 1, 2, 4)),
    *(("workers", n, {"workers": n}) for n in (1, 2)),
    *(("event bytes", headers, {}) for headers in (loads.HEADERS, loads.AGENT, loads.VERBOSE)),
)


def line_bytes(trail):
    """Of an event, by the longest of some lines near the beginning of the trail."""
    with open(min(trail.glob("*.jsonl")), "rb") as segment:
        return max(len(line) for line in itertools.islice(segment, 50, 100))


def scale(make, place):
    """{family: [(x, figure)]}: each family changes one thing; 64 connections.  Two workers share the
    second processor with the clients."""
    got = collections.defaultdict(list)
    for number, (family, x, settings) in enumerate(FAMILIES):
        headers = x if family == "event bytes" else None
        with contextlib.ExitStack() as stack:
            cpus = {place.cpu} | (place.others if family == "workers" else set())
            subject = subjects.start(make(f"scale {number}", **settings), cpus, stack)
            figure = median_cpu(keep_alive(64, headers=headers), subject, place, place.opts.rounds)
            if headers:
                x = line_bytes(subject.trail)
        got[family].append((x, figure))
        say(f"scale, {family} {x}: {figure:.1f} µs")
    return got


def over_connections(running, place):
    """The same as connections grow, keytrail and nginx in turns."""
    got = collections.defaultdict(list)
    for connections in (1, 4, 16, 64, 256, 1000):
        for name in ("nginx", "async", "durable"):
            got[name].append((connections, median_cpu(keep_alive(connections), running[name], place, 1)))
    return got

"""What was promised, and whether the figures keep it."""

import dataclasses
import math
import statistics

SPACING_MAX_US = 3000  # the default of audit.spacing.max


@dataclasses.dataclass
class Target:
    what: str
    limit: float
    figure: float  # None: not measured in this run
    unit: str = ""
    least: bool = False   # the figure must be at least the limit
    stretch: bool = False

    def verdict(self):
        if self.figure is None or math.isnan(self.limit + self.figure):
            return "not measured"
        met = self.figure >= self.limit if self.least else self.figure <= self.limit
        return "met" if met else "missed (stretch)" if self.stretch else "missed"

    def figures(self):
        """(the limit, the figure)"""
        def number(value):
            return f"{value:,.2f} {self.unit}" if abs(value) < 100 else f"{value:,.0f} {self.unit}"
        return (f"{'≥' if self.least else '≤'} {number(self.limit)}".strip(),
                "" if self.figure is None else number(self.figure).strip())


def tree_share(result, load):
    """What of all CPU the hash tree takes, in per cent: the ledger's, and the journal's, which hashes,
    beyond what it takes where nothing is signed."""
    shares = [100 * (a["threads"]["ledger"] + a["threads"]["journal"] - b["threads"]["journal"]) / a["cpu"]
              for a, b in zip(result.figures.get((load, "async"), []),
                              result.figures.get((load, "async, unsigned"), []))]
    return statistics.median(shares) if shares else None


def ratio_targets(result):
    rows = []
    for connections in (16, 64):
        load = f"keep-alive, {connections} connections"
        durable = ((("nginx", 1.00, False), ("HAProxy", 0.80, False), ("bare", 1.25, True))
                   if connections == 64 else (("bare", 1.45, True),))
        for subject, others in (("async", (("nginx", 0.90, False), ("HAProxy", 0.75, False),
                                           ("bare", 1.15, True))), ("durable", durable)):
            rows += [Target(f"CPU per request, {load}, {subject} : {other}", limit,
                            result.ratio(load, subject, other), stretch=stretch)
                     for other, limit, stretch in others]
    rows += [Target(f"CPU per request, {load}, async: the hash tree's share", 3, tree_share(result, load), "%")
             for load in ("keep-alive, 16 connections", "keep-alive, 64 connections")]
    for load in ("full handshake each", "resumed handshake each"):
        rows += [Target(f"CPU per connection, {load}, {subject} : nginx", 1.00,
                        result.ratio(load, subject, "nginx")) for subject in ("async", "durable")]
    rows += [Target(f"CPU per MiB, {load}, async : bare", 1.05, result.ratio(load, "async", "bare"))
             for load in ("64 KiB answers", "1 MiB answers", "1 MiB uploads")]
    few, many = (result.median(f"keep-alive, {n} connections", "async") for n in (16, 256))
    rows += [Target("throughput, 64 connections, durable : async", 0.85,
                    result.ratio("keep-alive, 64 connections", "durable", "async", "rate"), least=True),
             Target("growth of CPU per request, 16 to 256 connections, async", 1.10,
                    many / few if few and many else None)]
    return rows


def latency_targets(result):
    def at(subject, connections, part=0):
        return result.latency.get((subject, connections), (math.nan,) * 3)[part]

    sync, apart = at("sync", 0), at("apart", 16)
    return [
        Target("p50 at half load, async", at("nginx", 16), at("async", 16), "µs"),
        Target("p99 at half load, async", at("nginx", 16, 1), at("async", 16, 1), "µs"),
        Target(f"p50 at half load, durable: nginx + half of {apart:.0f} µs, the mean from sync to sync, "
               f"+ 1.5 of {sync:.0f} µs a sync",
               at("nginx", 16) + min(apart, SPACING_MAX_US) / 2 + 1.5 * sync, at("durable", 16), "µs"),
        Target("p50 of one connection, durable: nginx + 1.2 of a sync",
               at("nginx", 1) + 1.2 * sync, at("durable", 1), "µs"),
    ]


def other_targets(result):
    memory, micro, allocations = result.memory, result.micro, result.counted.allocations
    def of(name):
        return micro[name][0] if name in micro else None
    flat = (of("match.10000") / of("match.10")
            if of("match.10000") and of("match.10") else None)
    return [
        Target("memory at rest, with a file and a stdout sink: RSS, libraries whole", 10,
               memory["keytrail"].rss / 1024, "MiB"),
        Target("an idle TLS connection", memory["nginx"].each, memory["keytrail"].each, "bytes"),
        Target("of that keytrail's own (a connection without TLS)", 512,
               memory["keytrail without TLS"].each, "bytes"),
        Target("match of a request with eight fields, 10,000 routes", 150, of("match.10000"), "ns"),
        Target("the same : with 10 routes", 1.5, flat),
        Target("rendering an event into the ring", 1500, of("render.event"), "ns"),
        Target("allocations of that", 0, of("render.allocations")),
        Target("journal with hash tree, buffered", 500_000, of("journal.rate"), "events/s", least=True),
        Target("file sink, catching up from the page cache", 400_000, of("catch-up.rate"), "events/s", least=True),
        Target("`verify`, on one core", 500, of("verify.rate"), "MB/s", least=True),
        *(Target(f"allocations of a kept-alive request in keytrail's own code, {n} connections", 0, own)
          for n, own in allocations.items()),
    ]


def targets(result):
    return ratio_targets(result) + latency_targets(result) + other_targets(result)

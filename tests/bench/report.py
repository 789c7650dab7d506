"""The report: targets with their verdicts, the figures behind them, plots."""

import dataclasses
import statistics

import callgrind
import summary
from markdown import table
from plots import plots
from targets import targets


@dataclasses.dataclass
class Result:
    opts: object
    plans: list
    subjects: tuple
    notes: object
    figures: dict = None      # (load, subject) -> the figures of each round
    latency: dict = None      # (subject, connections) -> (p50, p99, p99.9) in microseconds
    line: int = 0             # bytes of an event in the trail
    idlers: int = 0           # idle connections of which the memory was taken
    memory: dict = None       # subject -> Memory
    micro: dict = None        # name -> (value, unit)
    starts: dict = None       # what -> (value, unit)
    counted: object = None    # instructions, allocations and system calls of a request
    connections: dict = None  # subject -> [(connections, microseconds)]
    scale: dict = None        # family -> [(x, microseconds)]
    idle: dict = None         # subject -> [(connections, MiB)]

    def all(self, load, subject, what="cpu"):
        return [f[what] for f in self.figures.get((load, subject), [])]

    def median(self, load, subject, what="cpu"):
        values = self.all(load, subject, what)
        return statistics.median(values) if values else None

    def ratio(self, load, subject, other, what="cpu"):
        mine, its = self.median(load, subject, what), self.median(load, other, what)
        return mine / its if mine and its else None


# ---- tables -------------------------------------------------------------------------------------


def spread(values):
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def load_row(result, load, name):
    def of(what):
        return result.median(load.name, name, what)

    mark = "\\*" if result.notes.about(load.name, name) else ""
    if not of("cpu"):
        return load.name, name + mark, *[""] * 6
    ratios = (result.ratio(load.name, name, other) for other in ("bare", "nginx"))
    return (load.name, name + mark, f"{spread(result.all(load.name, name))} µs/{load.unit}",
            *(f"{ratio:.2f}" if ratio else "" for ratio in ratios),
            f"{of('core'):.1f}", f"{of('kernel'):.1f}", f"{of('rate'):,.0f}")


def loads_table(result):
    return table(("load", "proxy", "CPU, median (least to most)", "of bare", "of nginx",
                  "whole core, µs", "kernel threads, µs", "per second"),
                 [load_row(result, load, name) for load in result.plans for name in load.names])


def threads_table(result):
    rows = []
    for load in result.plans:
        for name in load.names:
            rounds = result.all(load.name, name, "threads")
            if not rounds or name.startswith(("bare", "nginx", "HAProxy")):
                continue
            medians = {t: statistics.median(r.get(t, 0) for r in rounds) for t in set().union(*rounds)}
            words = ", ".join(f"{t} {us:.2f}" for t, us in sorted(medians.items(), key=lambda i: -i[1])
                              if us >= 0.005)
            rows.append((load.name, name, words))
    return table(("load", "keytrail", "CPU by thread, µs"), rows)


def latency_table(result):
    rows = []
    for (name, connections), times in sorted(result.latency.items(), key=lambda item: -item[0][1]):
        if name in ("apart", "sync"):
            continue
        direct = result.latency.get(("direct", connections))
        added = ["", ""] if name == "direct" or not direct else [
            f"{mine - its:.0f}" for mine, its in zip(times[:2], direct)]
        rows.append((str(connections), name, *(f"{us:.0f}" for us in times), *added))
    return table(("connections", "proxy", "p50, µs", "p99, µs", "p99.9, µs", "added p50", "added p99"), rows)


def memory_table(result):
    return table(("proxy", "at rest, RSS, MiB", "PSS, MiB", f"bytes each of {result.idlers:,} idle connections adds",
                  "PSS with them by their number, bytes"),
                 [(name, f"{m.rss / 1024:.1f}", f"{m.pss / 1024:.1f}", f"{m.each:,.0f}", f"{m.whole:,.0f}")
                  for name, m in result.memory.items()])


def micro_table(result):
    return table(("one process or part alone", "figure"),
                 [(name, f"{value:,.6g} {unit}")
                  for name, (value, unit) in (result.micro | result.starts).items()])


# ---- all of it ----------------------------------------------------------------------------------


def notes_text(result):
    rows = [f"- \\* {load}, {name}: {'; '.join(sorted(texts))}."
            for (load, name), texts in result.notes.of.items()]
    return "\n".join(rows) or "Every request was answered and every record came."


LOADS_TEXT = """Figures of the time between two moments of a load that goes on, so without its handshakes where they
are not the load. *Whole core* is what was not idle of the proxy's processor, interrupts and others'
work included; *kernel threads* are those of the whole machine. *1,024 tokens in turn*: none is one that a
worker remembers, so each is read and its claims are parsed; in the other loads one token is sent always."""

LATENCY_TEXT = """*Direct*: the back end without a proxy; *added*: beyond that. The first half second is left out. No
figure tells the spacing of syncs in force: the mean time from one sync to the next stands for it."""

MEMORY_TEXT = """RSS takes shared libraries whole, PSS by how many processes map them. What a connection adds is the
RSS with so many idle ones less that of the same proxy with room for none of them, after the same traffic: what
is reserved at the start counts. `bare` holds a connection to the back end for each."""

ALONE_TEXT = """`journal.rate` ends when sink and hash tree have all events, `catch-up.rate` reads what the page
cache still holds of the backlog; so do the other sinks, each with its receiver on the same core. *cpu* is the sum
of keytrail's threads and its libraries'. A start ends when `/readyz` says so, a reload when it is counted."""


def write(result, folder):
    rows = targets(result)
    met = sum(t.verdict() == "met" for t in rows)
    verdicts = f"{met} of {len(rows)} targets met.\n\n" + table(
        ("what", "target", "figure", "verdict"), [(t.what, *t.figures(), t.verdict()) for t in rows])
    missed = [f"- {t.what}: {' but '.join(t.figures())}" for t in rows if t.verdict() == "missed"]
    shown = summary.text(result, verdicts, plots(result, folder))
    parts = ["# What a request costs", shown.rstrip(),
             "## Missed", "\n".join(missed) or "None.",
             "## Loads", LOADS_TEXT, loads_table(result), notes_text(result), threads_table(result),
             "## Latency at a fixed rate", LATENCY_TEXT, latency_table(result),
             "## Memory", MEMORY_TEXT, memory_table(result),
             "## Instructions and system calls of a request", callgrind.report(result.counted).rstrip(),
             "## Alone", ALONE_TEXT, micro_table(result)]
    whole = "\n\n".join(parts) + "\n"
    (folder / "report.md").write_text(whole)
    if result.opts.readme:
        summary.into(result.opts.readme, shown, folder)
    return whole

"""The report: targets with their verdicts, the figures behind them, plots."""

import dataclasses
import os
import pathlib
import platform
import statistics
import subprocess

import loads
from subjects import CIPHER


@dataclasses.dataclass
class Result:
    opts: object
    plans: list
    subjects: tuple
    figures: dict = None      # (load, subject) -> the figures of each round
    latency: dict = None      # (subject, connections) -> (p50, p99, p99.9) in microseconds
    memory: dict = None       # subject -> (KiB alone, bytes of an idle connection)
    micro: dict = None        # name -> (value, unit)
    connections: dict = None  # subject -> [(connections, microseconds)]
    scale: dict = None        # family -> [(x, microseconds)]
    idle: list = None         # [(connections, MiB)]

    def all(self, load, subject, what="cpu"):
        return [f[what] for f in self.figures.get((load, subject), [])]

    def median(self, load, subject, what="cpu"):
        values = self.all(load, subject, what)
        return statistics.median(values) if values else None

    def ratio(self, load, subject, other, what="cpu"):
        mine, its = self.median(load, subject, what), self.median(load, other, what)
        return mine / its if mine and its else None


# ---- targets ------------------------------------------------------------------------------------


@dataclasses.dataclass
class Target:
    what: str
    limit: float
    figure: float  # None: not measured in this run
    unit: str = ""
    least: bool = False   # the figure must be at least the limit
    stretch: bool = False

    def verdict(self):
        if self.figure is None:
            return "not measured"
        met = self.figure >= self.limit if self.least else self.figure <= self.limit
        return "met" if met else "missed (stretch)" if self.stretch else "missed"

    def row(self):
        def number(value):
            return f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"
        bound = f"{'≥' if self.least else '≤'} {number(self.limit)} {self.unit}".strip()
        figure = "" if self.figure is None else f"{number(self.figure)} {self.unit}".strip()
        return f"| {self.what} | {bound} | {figure} | {self.verdict()} |"


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
    at = result.latency
    sync = at["sync", 0][0]
    return [
        Target("p50 at half load, async", at["nginx", 16][0], at["async", 16][0], "µs"),
        Target("p99 at half load, async", at["nginx", 16][1], at["async", 16][1], "µs"),
        Target(f"p50 at half load, durable: nginx + half of {at['spacing', 16][0]:.0f} µs from sync to "
               f"sync + 1.5 of {sync:.0f} µs a sync",
               at["nginx", 16][0] + at["spacing", 16][0] / 2 + 1.5 * sync, at["durable", 16][0], "µs"),
        Target("p50 of one connection, durable: nginx + 1.2 of a sync",
               at["nginx", 1][0] + 1.2 * sync, at["durable", 1][0], "µs"),
    ]


def other_targets(result):
    memory, micro = result.memory, result.micro
    def of(name):
        return micro[name][0] if name in micro else None
    flat = (of("match.10000") / of("match.10")
            if of("match.10000") and of("match.10") else None)
    return [
        Target("PSS idle, with a file and a stdout sink", 10, memory["keytrail"][0] / 1024, "MiB"),
        Target("PSS of an idle TLS connection", memory["nginx"][1], memory["keytrail"][1], "bytes"),
        Target("of that keytrail's own (a connection without TLS)", 512,
               memory["keytrail without TLS"][1], "bytes"),
        Target("match of a route, 10,000 routes", 150, of("match.10000"), "ns"),
        Target("the same : with 10 routes", 1.5, flat),
        Target("rendering an event into the ring", 1500, of("render.event"), "ns"),
        Target("allocations of that", 0, of("render.allocations")),
        Target("journal with hash tree, buffered", 500_000, of("journal.rate"), "events/s", least=True),
        Target("file sink, catching up", 400_000, of("catch-up.rate"), "events/s", least=True),
        Target("`verify`, on one core", 500, of("verify.rate"), "MB/s", least=True),
        Target("allocations of a kept-alive request in keytrail's own code", 0, of("allocations"), ""),
    ]


# ---- tables -------------------------------------------------------------------------------------


def table(head, rows):
    marks = "|".join("---" if n == 0 else "---:" for n in range(len(head)))
    return "\n".join([f"| {' | '.join(head)} |", f"|{marks}|",
                      *(f"| {' | '.join(row)} |" for row in rows)])


def spread(values, digits=1):
    return (f"{statistics.median(values):.{digits}f} "
            f"({min(values):.{digits}f} to {max(values):.{digits}f})")


def loads_table(result):
    rows = []
    for load in result.plans:
        for name in load.names:
            def of(what):
                return result.median(load.name, name, what)
            rate = of("rate")
            rows.append((f"{load.name}", name, f"{spread(result.all(load.name, name))} µs/{load.unit}",
                         *(f"{result.ratio(load.name, name, other) or 0:.2f}" if other in load.names
                           else "" for other in ("bare", "nginx")),
                         f"{of('core'):.1f}", f"{of('kernel'):.1f}",
                         f"{rate:,.0f}" if rate else ""))
    return table(("load", "proxy", "CPU, median (least to most)", "of bare", "of nginx",
                  "whole core, µs", "kernel threads, µs", "per second"), rows)


def threads_table(result):
    rows = []
    for load in result.plans:
        for name in load.names:
            rounds = result.all(load.name, name, "threads")
            medians = {t: statistics.median(r.get(t, 0) for r in rounds) for t in set().union(*rounds)}
            words = ", ".join(f"{t} {us:.2f}" for t, us in sorted(medians.items(), key=lambda i: -i[1])
                              if us >= 0.005)
            if name not in ("bare", "nginx", "HAProxy"):
                rows.append((load.name, name, words))
    return table(("load", "keytrail", "CPU by thread, µs"), rows)


def latency_table(result):
    rows = [(str(connections), name, *(f"{us:.0f}" for us in result.latency[name, connections]))
            for connections in (16, 1) for name in ("nginx", "HAProxy", "async", "durable")]
    return table(("connections", "proxy", "p50, µs", "p99, µs", "p99.9, µs"), rows)


def memory_table(result):
    return table(("proxy", "PSS at rest, MiB", "bytes an idle connection"),
                 [(name, f"{kib / 1024:.1f}", f"{each:,.0f}")
                  for name, (kib, each) in result.memory.items()])


def micro_table(result):
    return table(("without the network", "figure"),
                 [(name, f"{value:,.6g} {unit}") for name, (value, unit) in result.micro.items()])


# ---- plots --------------------------------------------------------------------------------------


PLOT_HEAD = """set terminal svg size 640,400 background rgb 'white' font 'sans,12'
set output '{svg}'
set title '{title}'
set xlabel '{x}'
set ylabel '{y}'
set grid
set key bottom right
set yrange [0:*]
"""


def plot(folder, name, title, x, y, lines, log=True):
    """`lines`: {legend: [(x, y)]}"""
    script = PLOT_HEAD.format(svg=folder / f"{name}.svg", title=title, x=x, y=y)
    script += "set logscale x\n" if log else "set style data histogram\n"
    blocks = ""
    for number, points in enumerate(lines.values()):
        blocks += f"$d{number} << E\n" + "".join(f"{a} {b}\n" for a, b in points) + "E\n"
    curves = ", ".join(f"$d{n} using 1:2 with linespoints lw 2 title '{legend}'"
                       for n, legend in enumerate(lines))
    subprocess.run(["gnuplot"], input=f"{script}{blocks}plot {curves}\n", text=True, check=True)
    return f"![{title}]({name}.svg)"


def bars(folder, result):
    """CPU per request of each proxy: the figure that everything is about."""
    name, title = "cpu", "CPU time per request, keep-alive"
    script = PLOT_HEAD.format(svg=folder / f"{name}.svg", title=title, x="", y="µs")
    script += ("set style data histograms\nset style fill solid 0.8\nset key top left\n"
               "set xtics rotate by -20\n$d << E\n")
    for subject in result.subjects:
        values = [result.median(f"keep-alive, {n} connections", subject) for n in (16, 64)]
        script += f'"{subject}" {values[0]} {values[1]}\n'
    script += ("E\nplot $d using 2:xtic(1) title '16 connections', "
               "'' using 3 title '64 connections'\n")
    subprocess.run(["gnuplot"], input=script, text=True, check=True)
    return f"![{title}]({name}.svg)"


def plots(result, folder):
    images = [bars(folder, result)]
    if result.connections:
        images.append(plot(folder, "connections", "CPU per request over connections", "connections",
                           "µs", result.connections))
        images.append(plot(folder, "idle", "Memory over idle TLS connections", "connections", "MiB",
                           {"keytrail": result.idle}, log=False))
        for family, points in result.scale.items():
            images.append(plot(folder, family.replace(" ", "-"), f"CPU per request over {family}, async", family, "µs",
                               {"async": [(max(x, 1) if family == "routes" else x, y)
                                          for x, y in points]}, log=family == "routes"))
    return images


# ---- all of it ----------------------------------------------------------------------------------


def version(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.stdout.split("\n")[0].strip()


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def machine(result):
    opts = result.opts
    return (f"{processor()}, {os.cpu_count()} CPUs, Linux {platform.release()}; "
            f"{version('nginx', '-v').replace('nginx version: ', '')}; "
            f"{version('haproxy', '-v').split(' 20')[0]}; {version('openssl', 'version')}. "
            f"{opts.rounds} interleaved rounds of {opts.seconds} s, a bearer token of "
            f"{loads.TOKEN_BYTES} bytes in each request, answers of 1 KiB, P-256, {CIPHER}; load "
            f"average before the run {opts.load:.2f}.")


def write(result, folder):
    targets = ratio_targets(result) + latency_targets(result) + other_targets(result)
    verdicts = "\n".join(["| what | target | figure | verdict |", "|---|---:|---:|---|",
                          *(t.row() for t in targets)])
    met = sum(t.verdict() == "met" for t in targets)
    parts = ["# What a request costs", machine(result),
             f"{met} of {len(targets)} targets met.", verdicts, "## Loads", loads_table(result),
             threads_table(result), "## Latency at a fixed rate", latency_table(result),
             "## Memory", memory_table(result), "## Without the network", micro_table(result),
             "## Plots", *plots(result, folder)]
    text = "\n\n".join(parts) + "\n"
    (folder / "report.md").write_text(text)
    return text

"""What the README shows of a report: the machine, the verdicts, and what follows for one sidecar and for
many."""

import os
import pathlib
import platform
import re
import subprocess

import loads
from markdown import table
from subjects import CIPHER, ROOT, TICKETS

BEGIN, END = "<!-- measured by `make bench` -->\n", "<!-- measured: end -->\n"
DAY = 86400
RETENTION = 400  # days, the default of audit.retention
SIDECARS = 100
RATES = 10, 100, 1000, 10_000, 30_000


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
    programs = (version(ROOT / opts.build / "keytrail", "version"), version("nginx", "-v"),
                version("haproxy", "-v").split(" 20")[0], version("wrk", "-v").split(" Copy")[0],
                version("h2load", "--version"), version("openssl", "version").split(" (")[0],
                version("gcc", "--version"))
    return (f"{processor()}, {os.cpu_count()} CPUs, Linux {platform.release()}; {'; '.join(programs)}. "
            f"{opts.rounds} interleaved rounds of {opts.seconds:g} s, a bearer token of "
            f"{loads.TOKEN_BYTES} bytes in each request, answers of 1 KiB, P-256, {CIPHER}, {TICKETS} "
            f"ticket a full handshake; load average before the run {opts.load:.2f}.")


# ---- one sidecar ---------------------------------------------------------------------------------


def carries(result):
    """(what, figure) of one core of a sidecar, each computed from a figure of the report."""
    def a_second(load, subject):
        each = result.median(load, subject)
        return f"{1e6 / each:,.0f}" if each else ""

    def of(name):
        return result.micro[name][0]

    busy = "keep-alive, 64 connections"
    async_us = result.median(busy, "async")
    memory = result.memory["keytrail"]
    rows = [("calls a second, async", a_second(busy, "async")),
            ("the same, each with a token that was not seen lately",
             a_second("1,024 tokens in turn, 64 connections", "async")),
            ("calls a second, durable", a_second(busy, "durable")),
            ("new connections a second, full handshake and one call",
             a_second("full handshake each", "async")),
            ("the same, resumed", a_second("resumed handshake each", "async")),
            ("MiB of large answers a second", a_second("1 MiB answers", "async")),
            ("events a second that the journal's thread writes and the ledger's hashes, for all workers",
             f"{of('journal.rate'):,.0f}"),
            ("cores of workers that keep that thread busy", f"{of('journal.rate') * async_us / 1e6:.0f}"),
            ("bytes of an event in the trail", f"{result.line:,}"),
            ("trail written by a core that does nothing else, async, MB a second",
             f"{result.line / async_us:.0f}"),
            ("memory at rest, MiB (RSS, before the rings are touched: 16 MiB a worker)",
             f"{memory.rss / 1024:.1f}"),
            ("MiB for 10,000 idle TLS connections", f"{memory.each * 10_000 / 2**20:.0f}"),
            ("seconds of one core by which `verify` reads a day of 1,000 calls a second",
             f"{DAY * 1000 * result.line / 1e6 / of('verify.rate'):.0f}")]
    if result.scale:
        none, *_, (most, with_most) = result.scale["sinks"]
        rows.append(("what a file sink adds to a call, µs", f"{(with_most - none[1]) / most:.1f}"))
    return table(("one core, or one sidecar", "figure"), rows)


# ---- many -----------------------------------------------------------------------------------------


def share(result, subject, rate):
    """Of a core, at so many calls a second: by the load of fewest connections that reaches them."""
    for connections in (1, 16, 64, 256):
        load = f"keep-alive, {connections} connection{'s' * (connections > 1)}"
        if (result.median(load, subject, "rate") or 0) >= rate:
            return f"{rate * result.median(load, subject) / 1e4:.2g} %"
    return "more than one"


def fleet(result):
    rows = [(f"{rate:,}", share(result, "async", rate), share(result, "durable", rate),
             f"{rate * result.line * DAY / 1e9:,.1f} GB",
             f"{rate * result.line * DAY * RETENTION / 1e12:,.1f} TB", f"{rate * SIDECARS:,}",
             f"{rate * SIDECARS * result.line / 1e6:,.1f} MB")
            for rate in RATES]
    return table(("calls a second of one sidecar", "of a core, async", "of a core, durable", "trail a day", f"in {RETENTION} days",
                  f"events a second of {SIDECARS} sidecars", "the same in bytes"), rows)


def text(result, verdicts, images):
    return "\n\n".join([machine(result), verdicts, *images, "### What one sidecar carries, and many", carries(result),
                        fleet(result)]) + "\n"


def into(readme, words, folder):
    """Put the words between the marks of a README, with the plots where they are."""
    place = os.path.relpath(folder, readme.parent)
    words = re.sub(r"(!\[[^]]*\]\()", rf"\g<1>{place}/", words)
    before, _, rest = readme.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    if not after:
        raise LookupError(f"no {BEGIN.strip()} and its end in {readme}")
    readme.write_text(f"{before}{BEGIN}\n{words}\n{END}{after}")

#!/usr/bin/env python3
"""callgrind: instructions and system calls of one worker per keep-alive request, and what they are for.

Valgrind counts what the machine's load cannot change.  The difference between a long and a short run
leaves out handshakes and whatever else happens once.  A `rep stos` counts once a byte, so wiping and
clearing have a row of their own and are not in the sum.
"""

import argparse
import collections
import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import loads
import subjects

SHORT, LONG = 100, 1100
CONNECTIONS = 4

# The first that fits file, function or object says what an instruction is for.
SHARES = (
    ("wiping and clearing", r"memset|bzero"),
    ("allocation", r"malloc|_int_free|:c?free\b|wipe_and_free|base/pool|CRYPTO_(free|zalloc)"),
    ("TLS", r"libssl|libcrypto"),
    ("event loop", r"libevent"),
    ("second parser", r"llhttp"),
    ("parsing", r"\bhttp/(parse|head)|keytrail/(chars|head)\.h|slice"),
    ("classification", r"audit/route|http/uri"),
    ("identity", r"audit/identity|http/jsonscan|base/keyhash"),
    ("rendering", r"audit/(event|scrub)|keytrail/event|base/clock"),
    ("ring", r"\btrail/|crc32c"),
    ("rewriting, buffers", r"data/(rewrite|pump|location|origin)|base/buf|keytrail/buf"),
    ("proxy", r"\bdata/|base/metrics|\[keytrail\]"),
    ("C library", r""),
)

# Frames that were entered before the count began: their row is that of all they call.
OUTER = re.compile(r":(clone|start_thread|thread_main|event_base_dispatch) ")

ALLOCATOR = re.compile("(m|c|re|aligned_)alloc|posix_memalign|reallocarray|strn?dup")

# The lines of callgrind's file that name an object, a file, a function; with a 'c' before, the called
# one's.  A name is written once and then stands as its number.
KINDS = {"ob": "object", "fl": "file", "fi": "file", "fe": "file", "fn": "function"}


def load(port, requests, client):
    command = ["h2load", "--h1", "-t1", f"-c{CONNECTIONS}", f"-n{requests}"]
    for name, value in loads.HEADERS.items():
        command += ["-H", f"{name}: {value}"]
    text = client.run([*command, f"https://127.0.0.1:{port}{subjects.path_of(1024)}"])
    if f"{requests} succeeded" not in text:
        sys.exit(f"callgrind: h2load met errors:\n{text}")


def costs(path):
    """Instructions by "file:function [object]"."""
    text = subprocess.run(["callgrind_annotate", "--auto=no", "--threshold=100", path], check=True,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    found = collections.Counter()
    for line in text.splitlines():
        row = re.match(r"\s*([\d,]+) \([\s\d.]+%\)\s+(\S+:.*)$", line)
        if row and not OUTER.search(row[2]):
            found[row[2]] += int(row[1].replace(",", ""))
    return found


def own_allocations(path):
    """Calls of an allocator from keytrail's own code; records.c allocates for OpenSSL."""
    names, here, callee, found = {}, {}, {}, 0
    for line in path.read_text().splitlines():
        tag, _, field = line.partition("=")
        kind = KINDS.get(tag.removeprefix("c"))
        if kind:
            key, _, name = field.partition(" ")
            (callee if tag[0] == "c" else here)[kind] = names.setdefault((kind, key), name)
        elif (tag == "calls" and ALLOCATOR.fullmatch(callee["function"])
              and here["object"].endswith("/keytrail") and not here["file"].endswith("data/records.c")):
            found += int(field.split()[0])
    return found


def share_of(place):
    return next(name for name, pattern in SHARES if re.search(pattern, place))


def count_instructions(subject, folder, client):
    """Of the worker a request: by "file:function [object]", and its own code's allocations."""
    out = folder / "callgrind.out"
    pid = str(subject.process.pid)
    for requests in (SHORT, SHORT, LONG):  # the first warms up
        load(subject.port, requests, client)
        subprocess.run(["callgrind_control", "-d", pid], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
    worker = max(folder.glob(f"{out.name}.3-*"), key=lambda path: sum(costs(path).values()))
    few, many = costs(str(worker).replace(".3-", ".2-")), costs(worker)
    places = {place: (n - few[place]) / (LONG - SHORT) for place, n in many.items()}
    own = [own_allocations(path) for path in (pathlib.Path(str(worker).replace(".3-", ".2-")), worker)]
    return places, max(0, own[1] - own[0]) / (LONG - SHORT)


def count_calls(subject, folder, client):
    """System calls of the whole process, a request."""
    out = folder / "strace.txt"
    tracer = subprocess.Popen(["strace", "-f", "-c", "-o", out, "-p", str(subject.process.pid)],
                              stderr=subprocess.PIPE)
    tracer.stderr.readline()  # attached
    load(subject.port, LONG, client)
    time.sleep(0.1)
    tracer.send_signal(signal.SIGINT)
    tracer.communicate()
    rows = re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:(\d+)\s+)?(\w+)$", out.read_text(), re.M)
    return {name: (int(calls) / LONG, int(errors or 0) / LONG)
            for calls, errors, name in rows if name != "total"}


def report(places, allocations, calls, top):
    shares = collections.Counter()
    for place, n in places.items():
        shares[share_of(place)] += n
    aside = SHARES[0][0]
    lines = ["| share | instructions a request |", "|---|---:|"]
    lines += [f"| {name} | {n:.0f} |" for name, n in shares.most_common() if name != aside]
    lines += [f"| **sum** | {sum(shares.values()) - shares[aside]:.0f} |",
              f"| {aside}, in bytes | {shares[aside]:.0f} |",
              f"| allocations by keytrail's own code | {allocations:.2f} |", "",
              "| system call | a request | of these failed |", "|---|---:|---:|"]
    lines += [f"| {name} | {n:.2f} | {failed:.2f} |"
              for name, (n, failed) in sorted(calls.items(), key=lambda item: -item[1][0])
              if n >= 0.01]
    if top:
        lines += ["", "| function | instructions a request |", "|---|---:|"]
        lines += [f"| {place} | {n:.0f} |"
                  for place, n in sorted(places.items(), key=lambda item: -item[1])[:top]]
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def serving(folder, build, name, wrapper):
    """(the subject, its client)"""
    cpus = sorted(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        behind = subjects.start(subjects.backend(folder / f"behind-{name}", folder / "certs"), set(cpus), stack)
        subject = subjects.keytrail(folder, folder / "certs", behind.port, build, name)
        subject.command = wrapper + subject.command
        subjects.start(subject, {cpus[-1]}, stack)
        yield subject, loads.Client(folder, subjects.ROOT / build, set(cpus))


def count(folder, build):
    """What count_instructions says of a keytrail of its own, with the certificates in `folder`."""
    valgrind = ["valgrind", "-q", "--tool=callgrind", "--separate-threads=yes",
                f"--callgrind-out-file={folder}/callgrind.out"]
    with serving(folder, build, "counted", valgrind) as (subject, client):
        return count_instructions(subject, folder, client)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--build", default="build", help="folder that holds keytrail")
    parser.add_argument("--top", type=int, default=0, help="functions to list")
    opts = parser.parse_args()
    folder = subjects.ROOT / opts.build / "callgrind"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    subprocess.run([subjects.ROOT / "certs/make-certs", folder / "certs"], check=True,
                   stdout=subprocess.DEVNULL)
    places, allocations = count(folder, opts.build)
    with serving(folder, opts.build, "traced", []) as (subject, client):
        calls = count_calls(subject, folder, client)
    table = report(places, allocations, calls, opts.top)
    print(table)
    (folder / "result.md").write_text(table)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""callgrind: instructions and system calls of one worker per keep-alive request, and what they are for.

Valgrind counts what the machine's load cannot change.  The difference between a long and a short run
leaves out handshakes and whatever else happens once.  A `rep stos` counts once a byte, so wiping and
clearing have a row of their own and are not in the sum.
"""

import argparse
import collections
import contextlib
import dataclasses
import pathlib
import re
import signal
import subprocess
import sys
import time

import measure
import subjects
from markdown import table

FEW, MANY = 4, 256  # connections
COUNTED = 1000      # requests
WINDOWS = 50        # of so many, at most, until no connection is made

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
OUTER = re.compile(r":(clone|start_thread|thread_main|event_base_dispatch) |base/thread\.c:begin ")

ALLOCATOR = re.compile("(m|c|re|aligned_)alloc|posix_memalign|reallocarray|strn?dup")

# The lines of callgrind's file that name an object, a file, a function; with a 'c' before, the called
# one's.  A name is written once and then stands as its number.
KINDS = {"ob": "object", "fl": "file", "fi": "file", "fe": "file", "fn": "function"}


def load(port, requests, connections, client):
    done = client.h2load(port, "-t1", f"-c{connections}", f"-n{requests}").end()
    if done.requests != requests:
        sys.exit(f"callgrind: {requests - done.requests} of {requests} requests failed")


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


def dump(subject, folder, number):
    """The file of the thread that did most since the last dump: the worker's."""
    subprocess.run(["callgrind_control", "-d", str(subject.process.pid)], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return max(folder.glob(f"{subject.name}.callgrind.{number}-*"),
               key=lambda path: sum(costs(path).values()))


def count_instructions(subject, place, connections):
    """Of the worker a request, by "file:function [object]"."""
    few = 25 * connections if connections < 100 else 2 * connections
    dumps = []
    for requests in (few, few, few + COUNTED):  # the first warms up
        load(subject.port, requests, connections, place.client)
        dumps.append(dump(subject, place.folder, len(dumps) + 1))
    before = costs(dumps[1])
    return {at: (n - before[at]) / COUNTED for at, n in costs(dumps[2]).items()}


def count_allocations(subject, place, connections):
    """By the worker's own code a request, once a load goes on and makes no more connections."""
    traffic = place.client.wrk(subject.port, connections)
    for number in range(4, 4 + WINDOWS):
        begin = place.received()
        place.wait_for(COUNTED)
        requests = place.received() - begin
        counted = dump(subject, place.folder, number)
        if not re.search("SSL_(new|do_handshake)", counted.read_text()):
            break
    traffic.stop()
    return own_allocations(counted) / requests


def count_calls(subject, folder, client):
    """System calls of the whole process, a request; none where it may not be traced."""
    out = folder / "strace.txt"
    tracer = subprocess.Popen(["strace", "-f", "-c", "-o", out, "-p", str(subject.process.pid)],
                              stderr=subprocess.PIPE)
    tracer.stderr.readline()  # attached, or not
    load(subject.port, COUNTED, FEW, client)
    time.sleep(0.1)
    tracer.send_signal(signal.SIGINT)
    tracer.communicate()
    rows = re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:(\d+)\s+)?(\w+)$", out.read_text(), re.M)
    return {name: (int(calls) / COUNTED, int(errors or 0) / COUNTED)
            for calls, errors, name in rows if name != "total"}


@dataclasses.dataclass
class Counted:
    places: dict      # instructions a request by "file:function [object]"
    allocations: dict  # of keytrail's own code a request, by connections
    calls: dict       # name -> (system calls a request, of these failed)

    def shares(self):
        """({what for: instructions a request}, bytes wiped and cleared)"""
        shares = collections.Counter()
        for place, n in self.places.items():
            shares[share_of(place)] += n
        aside = shares.pop(SHARES[0][0], 0)
        return shares, aside


@contextlib.contextmanager
def serving(place, name, wrapper=(), **settings):
    with contextlib.ExitStack() as stack:
        subject = place.keytrail(name, **settings)
        subject.command = [*wrapper, *subject.command]
        yield subjects.start(subject, {place.cpu}, stack)


def count(place, connections):
    """What count_instructions and count_allocations say of a keytrail of its own."""
    name = f"counted {connections}"
    valgrind = ["valgrind", "-q", "--tool=callgrind", "--separate-threads=yes",
                f"--callgrind-out-file={place.folder}/{name}.callgrind"]
    with serving(place, name, valgrind, sandbox="off") as subject:  # valgrind opens files of its own
        return (count_instructions(subject, place, connections),
                count_allocations(subject, place, connections))


def count_all(place, connections):
    """Instructions and system calls of the first number of connections, allocations of each."""
    counted = {n: count(place, n) for n in connections}
    with serving(place, "traced") as subject:
        calls = count_calls(subject, place.folder, place.client)
    return Counted(counted[connections[0]][0], {n: own for n, (_, own) in counted.items()}, calls)


def report(counted, top=0):
    """Tables in Markdown."""
    shares, wiped = counted.shares()
    rows = [(name, f"{n:,.0f}") for name, n in shares.most_common()]
    rows += [("**sum**", f"{sum(shares.values()):,.0f}"), (f"{SHARES[0][0]}, in bytes", f"{wiped:,.0f}")]
    rows += [(f"allocations by keytrail's own code, {n} connections", f"{own:.2f}")
             for n, own in counted.allocations.items()]
    calls = sorted(counted.calls.items(), key=lambda item: -item[1][0])
    sums = [sum(column) for column in zip(*counted.calls.values())] or [0, 0]
    tables = [table(("what for", "instructions a request"), rows),
              table(("system call", "a request", "of these failed"),
                    [(name, f"{n:.2f}", f"{failed:.2f}")
                     for name, (n, failed) in calls + [("**sum**", sums)] if n >= 0.01])]
    if top:
        places = sorted(counted.places.items(), key=lambda item: -item[1])[:top]
        tables.append(table(("function", "instructions a request"),
                            [(where, f"{n:,.0f}") for where, n in places]))
    return "\n\n".join(tables) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--build", default="build", help="folder that holds keytrail")
    parser.add_argument("--top", type=int, default=0, help="functions to list")
    opts = parser.parse_args()
    with measure.prepared(opts, "callgrind") as place:
        text = report(count_all(place, (FEW, MANY)), opts.top)
        print(text)
        (place.folder / "result.md").write_text(text)


if __name__ == "__main__":
    main()

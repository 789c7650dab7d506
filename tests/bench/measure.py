"""One measurement: what a proxy used between two moments of a load that goes on before and after."""

import collections
import contextlib
import dataclasses
import math
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import time

import loads
import meter
import subjects

MIB = 1 << 20
ENDING = 0.2  # seconds of load after the second moment


@dataclasses.dataclass
class Place:
    """Where everything runs."""
    opts: object
    folder: pathlib.Path
    certs: pathlib.Path
    cpu: int                  # the proxy's
    others: set               # of clients and back end
    client: loads.Client
    behind: subjects.Subject  # the back end

    def keytrail(self, name, **settings):
        return subjects.keytrail(self.folder, self.certs, self.behind.port, self.opts.build, name,
                                 **settings)


@contextlib.contextmanager
def prepared(opts, name):
    """A Place in a folder of that name, with a back end that runs.  With a single processor all share
    it."""
    cpus = sorted(os.sched_getaffinity(0))
    cpu, others = cpus[-1], set(cpus[:-1]) or set(cpus)
    os.sched_setaffinity(0, others)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    build = subjects.ROOT / opts.build
    folder, certs = build / name, build / name / "certs"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    subprocess.run([subjects.ROOT / "certs/make-certs", certs], check=True, stdout=subprocess.DEVNULL)
    with contextlib.ExitStack() as stack:
        behind = subjects.start(subjects.backend(folder, certs), others, stack)
        yield Place(opts, folder, certs, cpu, others, loads.Client(folder, build, others), behind)


@dataclasses.dataclass
class Load:
    """One kind of traffic, for some of the subjects; `begin` takes (client, port, seconds)."""
    name: str
    unit: str
    names: tuple
    begin: object
    connections: int
    units: float = 1   # of one request
    received: int = 1  # requests of the back end for one


def keep_alive(connections, names=(), name="keep-alive", **more):
    return Load(f"{name}, {connections} connection{'s' * (connections > 1)}", "request", names,
                lambda client, port, seconds: client.wrk(port, connections, seconds, **more),
                connections)


def bodies(name, names, size=MIB, script=None):
    return Load(name, "MiB", names,
                lambda client, port, seconds: client.wrk(port, 16, seconds, size, script), 16,
                size / MIB, 2 if script else 1)


def dialled(name, names, resumed):
    return Load(name, "connection", names,
                lambda client, port, seconds: client.dial(port, seconds, resumed), 8)


class Moment:
    def __init__(self, subject, place):
        self.received = subjects.received(place.behind)
        self.at = time.monotonic()
        self.threads = meter.thread_ns(subject.process.pid)
        self.kernel, self.idle = meter.kernel_thread_ns(), meter.idle_ns(place.cpu)


def measure(load, subject, place):
    """(what was answered in all, figures of one unit in microseconds; None: nothing went on)

    Handshakes come before the first moment, unless they are the load.  The back end counts the
    requests between the two, of which a few more than counted are under way at either."""
    warm = 0.3 + load.connections / 1000
    whole = math.ceil(warm + place.opts.seconds + ENDING)
    traffic = load.begin(place.client, subject.port, whole)
    time.sleep(warm)
    begin = Moment(subject, place)
    time.sleep(whole - warm - ENDING)
    end = Moment(subject, place)
    answered = traffic.end()
    units = (end.received - begin.received - 1) / load.received * load.units  # one of them asked
    if units <= 0:
        return answered, None
    ns, each = (end.at - begin.at) * 1e9, 1 / (1e3 * units)
    threads = end.threads - begin.threads
    return answered, {
        "cpu": sum(threads.values()) * each,
        "threads": {name: used * each for name, used in threads.items()},
        "kernel": (end.kernel - begin.kernel) * each,
        "core": (ns - (end.idle - begin.idle)) * each,
        "rate": units * 1e9 / ns,
    }


def median_cpu(load, subject, place, rounds):
    figures = [measure(load, subject, place)[1] for _ in range(rounds)]
    return statistics.median([f["cpu"] for f in figures if f] or [math.nan])


def say(text):
    print(text, file=sys.stderr, flush=True)


class Notes:
    """What was not as it should be, by load and subject: the report marks those figures."""

    def __init__(self):
        self.of = collections.defaultdict(set)

    def add(self, load, subject, text):
        self.of[load, subject].add(text)
        say(f"{load}, {subject}: {text}")

    def about(self, load, subject):
        return (load, subject) in self.of or ("all", subject) in self.of


def interleave(plans, running, place, notes):
    """({(load, subject): [figures of each round]}, what each subject answered)

    Each round begins with another subject."""
    got, answered = collections.defaultdict(list), collections.Counter()
    for number in range(place.opts.rounds):
        for load in plans:
            first = number % len(load.names)
            for name in load.names[first:] + load.names[:first]:
                done, figures = measure(load, running[name], place)
                answered[name] += done.requests
                if done.errors:
                    notes.add(load.name, name, f"{done.errors} of {done.requests} were no good answers")
                if done.tickets and round(done.tickets, 1) != subjects.TICKETS:
                    notes.add(load.name, name, f"{done.tickets:.1f} tickets a connection")
                if not figures:
                    notes.add(load.name, name, "a round without one request")
                    continue
                got[load.name, name].append(figures)
                say(f"round {number + 1}, {load.name}, {name}: {figures['cpu']:.1f} µs a {load.unit}")
    return got, answered


def check_records(subject, answered, notes):
    """A proxy that did not write its records has not done the work.  A datagram may get lost."""
    end = time.monotonic() + 10
    while subject.records and (missing := answered - subject.records()) > 0:
        if time.monotonic() > end:
            if missing > loads.FEW_ERRORS * answered:
                sys.exit(f"bench: {subject.name} wrote no record of {missing} of {answered} requests")
            notes.add("all", subject.name, f"{missing} of {answered} records did not come")
            return
        time.sleep(0.1)

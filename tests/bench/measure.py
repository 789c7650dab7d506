"""One measurement: what a proxy used between two moments of a load that goes on before and after."""

import collections
import contextlib
import dataclasses
import math
import os
import pathlib
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import time

import loads
import meter
import subjects

MIB = 1 << 20
PATIENCE = 30  # seconds for what takes less than one on a quiet machine


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
    asked: int = 0

    def received(self):
        """Requests that the back end has begun to serve, but for these questions."""
        self.asked += 1
        return subjects.received(self.behind) - self.asked

    def wait_for(self, requests, seconds=0):
        """Until so many more came, for so long at least; false: they did not."""
        first, begin = self.received(), time.monotonic()
        time.sleep(seconds)
        while self.received() - first < requests:
            if time.monotonic() > begin + seconds + PATIENCE:
                return False
            time.sleep(0.01)
        return True

    def keytrail(self, name, **settings):
        return subjects.keytrail(self.folder, self.certs, self.behind.port, self.opts.build, name,
                                 **settings)


@contextlib.contextmanager
def prepared(opts, name):
    """A Place in a folder of that name, with a back end that runs.  With a single processor all share
    it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: ended"))
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
        client = loads.Client(folder, build, others)
        stack.callback(client.close)
        yield Place(opts, folder, certs, cpu, others, client, behind)


@dataclasses.dataclass
class Load:
    """One kind of traffic, for some of the subjects; `begin` takes (client, port)."""
    name: str
    unit: str
    names: tuple
    begin: object
    connections: int
    units: float = 1   # of one request
    received: int = 1  # requests of the back end for one


def keep_alive(connections, names=(), name="keep-alive", **more):
    return Load(f"{name}, {connections} connection{'s' * (connections > 1)}", "request", names,
                lambda client, port: client.wrk(port, connections, **more),
                connections)


def bodies(name, names, size=MIB, script=None):
    return Load(name, "MiB", names,
                lambda client, port: client.wrk(port, 16, size, script), 16,
                size / MIB, 2 if script else 1)


def dialled(name, names, resumed):
    return Load(name, "connection", names,
                lambda client, port: client.dial(port, resumed), loads.CALLERS)


class Moment:
    def __init__(self, subject, place):
        self.received = place.received()
        self.at = time.monotonic()
        self.threads = meter.thread_ns(subject.process.pid)
        self.kernel, self.idle = meter.kernel_thread_ns(), meter.idle_ns(place.cpu)


def measure(load, subject, place):
    """(what was answered in all, figures of one unit in microseconds; None: nothing went on)

    Handshakes come before the first moment, unless they are the load.  The back end counts the
    requests between the two, at either of which some are under way."""
    traffic = load.begin(place.client, subject.port)
    good = place.wait_for(10 * load.connections)
    begin = Moment(subject, place)
    good = good and place.wait_for(load.connections, place.opts.seconds)
    end = Moment(subject, place)
    answered = traffic.stop()
    if not good:
        return answered, None
    units = (end.received - begin.received) / load.received * load.units
    ns, each = (end.at - begin.at) * 1e9, 1 / (1e3 * units)
    threads = end.threads - begin.threads
    return answered, {
        "cpu": sum(threads.values()) * each,
        "threads": {name: used * each for name, used in threads.items()},
        "kernel": (end.kernel - begin.kernel) * each,
        "core": (ns - (end.idle - begin.idle)) * each,
        "rate": units * 1e9 / ns,
    }


def warm_up(subject, place, connections, requests=10_000, tls=True):
    """How many were answered."""
    traffic = place.client.wrk(subject.port, connections, tls=tls)
    place.wait_for(requests)
    return traffic.stop().requests


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
                    notes.add(load.name, name, "a round of hardly a request")
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

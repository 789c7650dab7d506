"""The power goes at any instant: what the disk may have left is recovered, and nothing promised is lost.

A life of a trail (crash/life.c) is recorded (crash/record.c); from each record on, the disk may be in
many states (crash/disk.py); each is recovered by a second life, and what that leaves is compared
with what the world outside knew at the cut.  KEYTRAIL_POWER_STATES says how many states (make crash:
STATES), KEYTRAIL_POWER_SEED which.  A state that fails is kept below build/crash/failed.
"""

import collections
import functools
import itertools
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time

import pytest

from support import BUILD, KEYTRAIL, PATIENCE, ROOT, SANITIZED, crc32c, expired

sys.path.insert(0, str(ROOT / "tests" / "crash"))
import disk  # noqa: E402

STATES = int(os.environ.get("KEYTRAIL_POWER_STATES", "120"))
SEED = int(os.environ.get("KEYTRAIL_POWER_SEED", time.time_ns() % 10**6))
OF_ONE_TRAIL = 2500  # states, at most
LIFE, RECORDER = BUILD / "crash" / "life", BUILD / "crash" / "record.so"
SEGMENT = re.compile(r"\d{20}\.jsonl")
RENEWED = re.compile("are of an earlier log")
NUMBER = re.compile(rb',"seq":(\d+),"sum":"[0-9a-f]{8}"}}$')
SUM = re.compile(rb'(.*),"sum":"([0-9a-f]{8})"}}')

pytestmark = pytest.mark.skipif(SANITIZED, reason="the recorder stands where the sanitizer does")

FOREIGN = "foreign"  # stands for a file of another log
Plan = collections.namedtuple("Plan", "calls ring_size max_size event", defaults=[""])
PLANS = [Plan(40, 32768, 0), Plan(60, 16384, 0), Plan(15, 65536, 0), Plan(60, 32768, 0, FOREIGN),
         Plan(60, 32768, 50000), Plan(100, 16384, 0, "full"), Plan(150, 32768, 50000),
         Plan(40, 32768, 0, "renew"), Plan(100, 16384, 50000, "full"), Plan(120, 32768, 0, "roll")]


class Lives:
    def __init__(self, folder):
        self.folder, self.key = folder, folder / "key"
        self.numbers = itertools.count()
        subprocess.run([KEYTRAIL, "keygen", self.key, "log.example"], check=True,
                       stdout=subprocess.DEVNULL)
        self.live(folder / "other", Plan(10, 32768, 0))
        self.foreign = min((folder / "other").glob("*.jsonl"))
        self.foreign_lines = set(self.foreign.read_bytes().splitlines())

    def live(self, where, plan, trace=None, lies=False):
        env = dict(os.environ)
        if trace is not None:
            env.update(LD_PRELOAD=str(RECORDER), RECORD_DIR=str(where), RECORD_TRACE=str(trace))
        if lies:
            env["RECORD_LIES"] = "1"
        words = [str(self.foreign if word == FOREIGN else word) for word in plan]
        done = subprocess.run([LIFE, where, self.key, *words], env=env, timeout=PATIENCE,
                              capture_output=True, close_fds=False)
        assert done.returncode == 0, f"{done.returncode}: {done.stderr.decode()}"
        first, *lines, last = done.stdout.splitlines()
        return json.loads(first), lines, json.loads(last)

    def record(self, content, plan, **options):
        """The records of one more life upon this content, and what it leaves."""
        folder = self.folder / f"life{next(self.numbers)}"
        trace = folder.with_suffix(".trace")
        disk.make(folder, content)
        self.live(folder, plan, trace, **options)
        left = disk.take(folder)
        shutil.rmtree(folder)
        return disk.read_trace(trace), left


def closings_and_intents(lines):
    closings, intents = collections.Counter(), collections.Counter()
    for line in lines:
        event = json.loads(line)
        if "kms" in event["action"]:
            (intents if event.get("kind") == "intent" else closings)[event["id"]] += 1
    return closings, intents


def counted_calls(lines):
    """Those that were counted as lost; here each has a name of its own."""
    counted = collections.Counter()
    for line in lines:
        event = json.loads(line)
        if event["action"] == "keytrail.loss":
            details = event["details"]
            names = details["initiators"].split(", ")
            assert details["count"] == len(names), event
            counted.update(names)
    return counted


def all_unknown(lines, ids):
    return all(e["outcome"] == "unknown" for e in map(json.loads, lines) if e["id"] in ids)


@functools.lru_cache(maxsize=10000)
def number_of(line):
    """None: it is no line of the log, or a torn one."""
    m, s = NUMBER.search(line), SUM.fullmatch(line)
    return int(m[1]) if m and s and crc32c(s[1]) == int(s[2], 16) else None


def numbered(data):
    """The lines of a segment by number."""
    found = ((number_of(line), line) for line in data.split(b"\n"))
    return {n: line for n, line in found if n is not None}


def removes_segment(r):
    return r.kind == "u" and SEGMENT.fullmatch(r.data.decode())


class World:
    """What is known outside, record by record."""

    def __init__(self, content, foreign, renewed, before=None):
        self.disk = disk.Disk(content)
        self.foreign = foreign  # lines
        self.renewed = renewed  # some life gives a log up
        self.forwarded, self.answered, self.lost, self.durable = {}, {}, set(), 0
        self.segments, self.syncs = set(), 0
        self.removed = {}  # number -> line
        self.promised = {}  # number -> line, of an earlier life
        self.was_cut = before is not None
        if before is not None:
            self.forwarded = {i: g for i, g in before.forwarded.items() if g == "i"}
            self.answered = {i: a for i, a in before.answered.items() if a[0] != "a"}
            self.removed = dict(before.removed)
            self.promised, self.durable = before.lines(), before.durable

    def play(self, r):
        if r.kind == "m":
            self._hear(r.data.decode().split())
        elif r.kind in "oc" and SEGMENT.fullmatch(r.data.decode()):
            self.segments.add(r.file)
        elif r.kind == "s" and r.file in self.segments:
            self.syncs += 1
        elif removes_segment(r):
            self.removed.update(self._numbered(self.disk.names[r.data.decode()]))
        self.disk.play(r)

    def _hear(self, words):
        what, guarantee, name = words
        if what == "forward":
            self.forwarded[name] = guarantee
        elif what == "answer":
            self.answered[name] = guarantee, self.syncs
        elif what == "lost":
            self.lost.add(name)
        else:
            self.durable = max(self.durable, int(name))

    def _numbered(self, file):
        return {n: line for n, line in numbered(bytes(file.now)).items()
                if line not in self.foreign}

    def lines(self):
        """The durable lines that are there, by number."""
        out = dict(self.promised)
        for path, what in self.disk.names.items():
            if SEGMENT.fullmatch(path):
                found = self._numbered(what)
                out.update((n, line) for n, line in found.items() if n <= self.durable)
        return out

    def must_have_closed(self, killed):
        """A power cut may cost what nobody had promised to keep; a kill costs nothing.  Of three syncs
        that end after a call was recorded, the last has it: one had begun before, and one may be of
        the line about an expiry."""
        if killed:
            return set(self.forwarded)
        return {i for i, (g, syncs) in self.answered.items()
                if g == "d" or (self.syncs >= syncs + 3 and i not in self.lost)} | {i for i, g in self.forwarded.items() if g == "i"}

    def expired_with(self, lines):
        """With what the log says is removed: a start finishes what a cut had left half done."""
        last = expired(map(json.loads, lines))
        return self.removed | {n: line for n, line in self.lines().items() if n <= last}

    def check(self, found, lines, verdict, killed, tally):
        numbers = [int(NUMBER.search(line)[1]) for line in lines]
        assert numbers == sorted(set(numbers)), "numbers do not increase"
        log = json.loads(lines[-1])["trail"]["log"] if lines else ""
        first = next((n for n, line in zip(numbers, lines) if f'"log":"{log}"'.encode() in line), 1)
        assert expired(map(json.loads, lines)) < first, "what is there is said to have expired"
        there = dict(zip(numbers, lines))
        removed = self.expired_with(lines)
        known = (removed | there).values()
        counted = counted_calls(known)
        for events in (*closings_and_intents(known), counted):
            assert not [i for i, n in events.items() if n > 1], "doubled"
        closings, intents = closings_and_intents(lines)
        # What a power cut brings back of a call's slot nobody can tell from a call in flight.
        twice = counted.keys() & closings
        kept_by_a_kill = killed and not self.was_cut
        assert not twice or (not kept_by_a_kill and all_unknown(lines, twice)), "recorded, and counted as lost"
        tally["calls counted as lost"] += len(counted)
        tally["these were recorded too"] += len(twice)
        gone = set().union(*closings_and_intents(removed.values()))
        lost = self.must_have_closed(killed) - gone - set(closings) - set(counted)
        assert not lost, f"lost {sorted(lost)}"
        left_open = set(intents) - set(closings) - gone
        assert not left_open, f"intents are open: {left_open}"
        unannounced = {i for i, g in self.forwarded.items() if g == "i"} - set(intents)
        assert not unannounced - gone, f"forwarded without an intent: {unannounced}"
        for n, line in self.lines().items():
            assert n in removed or there.get(n) == line, f"durable line {n} is {there.get(n)}"
        self._check_verdict(verdict, lines)
        self._check_own(found, lines, tally)

    def _check_verdict(self, verdict, lines):
        excused = self.renewed and all(RENEWED.search(f) for f in verdict["findings"])
        assert verdict["unaltered"] or not lines, verdict
        assert verdict["complete"] or excused or not lines, verdict

    def _check_own(self, found, lines, tally):
        own = [e for e in map(json.loads, lines) if e["action"].startswith("keytrail.")]
        said = [e for e in own if e["trail"]["boot"] == own[-1]["trail"]["boot"]] if own else []
        tally["expiries that were taken back"] += any(e["action"] == "keytrail.keep" for e in said)
        said = [e["action"] for e in said if not e.get("recovered")
                and e["action"] not in ("keytrail.checkpoint", "keytrail.keep")]
        expected = ["keytrail.tamper"] * found["renewed"] + ["keytrail.recover"]
        expected += ["keytrail.corrupt"] * (found["foreign"] > 0)
        torn = found["torn"][1] > 0
        assert (found["new"] and not torn) or found["clean"] or said == expected, said
        assert not found["stateLost"]
        tally["lives that began with a foreign file"] += found["foreign"] > 0
        tally["renewals that were not told of"] += found["renewed"]
        assert found["missing"] == found["corrupt"] == [0, 0] and found["cut"] == 0, found
        assert not torn or found["torn"][0] > self.durable
        tally["torn in the middle"] += torn


class Study:
    def __init__(self, lives, tally):
        self.lives, self.tally = lives, tally
        self.failures = None  # a list: they are expected
        self.seed_by(SEED)

    def seed_by(self, seed):
        self.seed, self.rng = seed, random.Random(seed)

    def recover(self, world, content, killed, label):
        folder = self.lives.folder / "state"
        shutil.rmtree(folder, ignore_errors=True)
        disk.make(folder, content)
        self.tally["states"] += 1
        try:
            found, lines, verdict = self.lives.live(folder, Plan(0, 32768, 0))
            world.check(found, lines, verdict, killed, self.tally)
        except (AssertionError, subprocess.TimeoutExpired) as e:
            if self.failures is not None:
                self.failures.append(str(e))
                return
            kept = self.keep(content, label)
            raise AssertionError(f"seed {self.seed}, {label}: {e}\nkept in {kept}; again: "
                                 f"{LIFE} {kept}/state {kept}/key 0 32768 0 ''") from e

    def keep(self, content, label):
        kept = BUILD / "crash" / "failed" / re.sub(r"\W+", "-", label)
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        disk.make(kept / "state", content)
        shutil.copy(self.lives.key, kept / "key")
        return kept

    def cut(self, content, records, cuts, label, renewed=False, before=None, depth=0):
        """Play the records; at so many moments, see what a power cut there leaves."""
        self.tally["traces"] += 1
        moments = [i for i, r in enumerate(records) if r.kind != "p"] + [len(records)]
        chosen = collections.Counter(self.rng.choices(moments, k=cuts))
        world = World(content, self.lives.foreign_lines, renewed, before)
        for i in range(len(records) + 1):
            for n in range(chosen[i]):
                self.power_off(world, f"{label} at {i} of {len(records)}, {n}", n, depth)
            if i < len(records):
                world.play(records[i])

    def power_off(self, world, label, n, depth):
        if n == 0:
            self.recover(world, world.disk.now(), True, f"{label}, killed")
        state = world.disk.state(f"{self.seed} {label}", self.tally)
        self.recover(world, state, False, label)
        if self.failures is None and depth < 2 and self.rng.random() < 0.04:
            plan = Plan(self.rng.choice([0, 5]), 32768, 0,
                        self.rng.choice(["", "", "renew", FOREIGN]))
            records, _ = self.lives.record(state, plan)
            self.cut(state, records, 6, f"{label}, again",
                     world.renewed or plan.event == "renew", world, depth + 1)

    def killed_at_half(self, content, records):
        played = disk.Disk(content)
        for r in records[:len(records) // 2]:
            played.play(r)
        return played.now()


@pytest.fixture
def study(tmp_path):
    return Study(Lives(tmp_path), collections.Counter())


@pytest.mark.parametrize("first", range(0, STATES, OF_ONE_TRAIL))
def test_what_a_power_cut_leaves_is_recovered(study, first, record_property):
    study.seed_by(SEED + first)
    content, states, renewed = {}, min(OF_ONE_TRAIL, STATES - first), False
    for number, plan in enumerate(PLANS):
        records, left = study.lives.record(content, plan)
        renewed |= plan.event == "renew"
        assert plan.event != "roll" or any(map(removes_segment, records))
        budget = states * (number + 1) // len(PLANS) - study.tally["states"]
        study.cut(content, records, max(10, budget * 2 // 5), f"trace {number}", renewed)
        # The next begins where this one ended: well, or by a kill.
        content = left if number % 2 else study.killed_at_half(content, records)
    record_property("lives recorded to cut their power", study.tally["traces"])
    record_property("states of the disk recovered", study.tally["states"])
    record_property("of them with an expiry to take back",
                    study.tally["expiries that were taken back"])
    record_property("of them torn in the middle of a batch", study.tally["torn in the middle"])


def test_a_disk_that_lies_is_noticed(study):
    """The check can fail: where no sync counts, answered calls are lost, and the oracle says so."""
    study.failures = []
    records, _ = study.lives.record({}, PLANS[0], lies=True)
    study.cut({}, records, 40, "a disk that lies")
    assert any(f.startswith(("lost", "durable line")) for f in study.failures)


def test_the_trace_is_what_happened(study):
    """Nothing that the process did has escaped the recorder."""
    records, left = study.lives.record({}, PLANS[1])
    played = disk.Disk({})
    for r in records:
        played.play(r)
    assert played.now() == left

"""The contract of a sink: whatever becomes of its receiver, what was accepted arrives, in order.

Each pair of a sink (peers.py) and a fault gives a row of the README's table: what was accepted, what
of it arrived, what came more than once, and what is lost.  KEYTRAIL_SINKS names a file that gets the
rows; KEYTRAIL_BACKLOG is how many events wait for a receiver (`make sinks`: 1,000,000).
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import threading

import pytest

import peers
from backend import ok
from support import BUILD, MODULES, PATIENCE, SANITIZED, new_id, read_lines, segments, wait_for
from test_sinks import send

BACKLOG = int(os.environ.get("KEYTRAIL_BACKLOG", "3000"))
ROWS = os.environ.get("KEYTRAIL_SINKS")
LONGEST = PATIENCE + BACKLOG / 1000
# What a sink may take beyond what the sidecar without it has: batches, their texts, a tail.
MEMORY_MAX_KB = 16 * 1024
# Of a call beside a sink that is busy, to one without; where the sink is busy for so long.
COST_MAX, LONG = 1.5, 100000


class Bench:
    """A sidecar, its sink and the sink's receiver."""

    def __init__(self, cls, keytrail, backend, tmp_path, pki):
        self.peer = cls(tmp_path / "peer", pki)
        self.good = peers.File(tmp_path / "good", pki)
        self.good.start()
        self.sidecar = keytrail(backend, {"sinks": [self.sink()], "timeouts": {"drain": "500ms"}},
                                start=False)
        self.peer.attach(self.sidecar)
        self.another = lambda: keytrail(backend)
        self.more = {}

    def sink(self, **more):
        return {"name": "it", **self.peer.sink(), **more}

    def start(self):
        self.sidecar.start()

    def status(self):
        sinks = json.loads(self.sidecar.fetch("admin", "/status"))["sinks"]
        return next(s for s in sinks if s["name"] == "it")

    def send(self, n):
        send(self.sidecar, n)

    def wait_down(self):
        wait_for(lambda: not self.status()["up"], "the sink to be down")

    def revive(self):
        """Without the pauses that become longer with each failure."""
        self.peer.start()
        self.sidecar.reload()

    def wait_stream(self, n=50):
        """So many more arrivals."""
        before = len(self.peer.received())
        wait_for(lambda: len(self.peer.received()) >= before + n, "a stream")

    @contextlib.contextmanager
    def traffic(self):
        """Calls while something else happens; each is answered."""
        over, failed = threading.Event(), []

        def run():
            try:
                while not over.is_set():
                    self.send(20)
            except BaseException as e:  # told of below
                failed.append(e)
        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        assert failed == []

    def numbers(self):
        """Of a trail that may be large."""
        return {int(seq) for path in segments(self.sidecar.trail_dir) for line in open(path, "rb")
                for seq in re.findall(rb'"seq":(\d+),"sum":"[0-9a-f]{8}"}}\n$', line)}

    def settle(self):
        """Everything that can arrive has."""
        if self.peer.keeps:
            wanted = self.numbers()
            wait_for(lambda: wanted <= {r["seq"] for r in self.peer.received()},
                     "what was accepted", LONGEST)
            return

        def the_last():
            """What is sent last is seen."""
            self.send(1)
            return any(r["seq"] > mark for r in self.peer.received())
        wait_for(lambda: self.status()["waiting"] == 0, "the sink to catch up")
        mark = max(self.numbers())
        wait_for(the_last, "the last", LONGEST)

    def row(self, fault):
        got, accepted = self.peer.received(), self.numbers()
        if not self.peer.keeps:
            last = max(r["seq"] for r in got)
            accepted = {n for n in accepted if n <= last}
        first = list({r["seq"]: r for r in got}.values())
        assert len({r["log"] for r in got}) == 1
        order = list(dict.fromkeys(r["seq"] for r in got))
        assert order == sorted(order), "each arrives first in its order"
        lost = accepted - set(order)
        if self.peer.keeps:
            assert not lost, sorted(lost)[:10]
            assert [r["prev"] for r in first if r["prev"] is not None] in ([], [0, *order[:-1]])
        return {"sink": self.peer.name, "fault": fault, "accepted": len(accepted),
                "delivered": len(accepted & set(order)), "repeated": len(got) - len(order),
                "lost": len(lost), **self.more}

    def close(self):
        self.peer.close()
        self.good.close()


def tell(row):
    print(row)
    if ROWS:
        with open(ROWS, "a", encoding="ascii") as out:
            out.write(json.dumps(row) + "\n")


# ---- faults ----

def dead_at_start(b):
    b.start()
    b.send(100)
    b.wait_down()
    b.peer.start()


def dies_in_mid_batch(b):
    """Twice; the first time the batches are as long as can be."""
    b.start()
    b.send(600)
    with b.traffic():
        for _ in range(2):
            b.revive()
            b.wait_stream(1)
            b.peer.kill()
            b.wait_down()
        b.revive()
        b.wait_stream()


def hangs(b):
    b.peer.start()
    b.start()
    with b.traffic():
        b.wait_stream()
        b.peer.hang()
        b.send(200)
        b.peer.resume()
        b.wait_stream()


def poison_event(b):
    b.peer.start()
    poisoned = new_id()
    fields = b.peer.poison(poisoned)
    b.start()
    b.send(10)
    with b.sidecar.client() as c:
        assert c.request("GET", "/api/v2/keys", {"Correlation-Id": poisoned, **fields}).status == 200
    b.send(10)
    [rejected] = b.sidecar.wait_own("keytrail.reject")
    bad = b.sidecar.event(poisoned)["trail"]["seq"]
    told = rejected["details"]
    assert (told["sink"], told["first"], told["last"], told["count"]) == ("it", bad, bad, 1)
    assert told["reason"]
    kept = (b.sidecar.trail_dir / "quarantine.it.jsonl").read_text().splitlines()
    assert [json.loads(line)["correlationId"] for line in kept] == [poisoned]
    wait_for(lambda: [r["seq"] for r in b.peer.received() if r["stub"]] == [bad], "the stub")


def term_in_an_outage(b):
    b.peer.start()
    b.start()
    b.send(50)
    b.settle()
    b.peer.kill()
    b.send(100)
    b.wait_down()
    b.sidecar.stop()
    assert [x for x in b.sidecar.log_lines() if x["event"] == "undelivered"]
    b.peer.start()
    b.start()


def reload_that_changes_it(b):
    b.peer.start()
    b.start()
    with b.traffic():
        b.wait_stream()
        changed = {"name": "it", **b.peer.changed()}
        assert b.sidecar.reload(sinks=[changed])["outcome"] == "success"
        b.wait_stream()


def two_with_one_dead(b):
    b.sidecar.write_config(sinks=[b.sink(), {"name": "good", **b.good.sink()}])
    b.start()
    b.send(100)
    b.wait_down()
    wanted = b.numbers()
    wait_for(lambda: wanted <= {r["seq"] for r in b.good.received()}, "the other one")
    b.peer.start()


def make_backlog(b):
    """Of events like the sidecar's; what memory it has without a sink."""
    b.sidecar.write_config(sinks=[])
    b.start()
    b.send(2000 if BACKLOG >= LONG else 100)
    call = b.sidecar.wait_calls(1)[0]
    line = next(x for x in read_lines(b.sidecar.trail_dir) if json.loads(x) == call)
    before = anonymous_kb(b.sidecar)
    b.sidecar.stop()
    shutil.rmtree(b.sidecar.trail_dir)
    subprocess.run([BUILD / "bench" / "backlog", b.sidecar.trail_dir, str(BACKLOG)],
                   input=line + b"\n", check=True)
    b.sidecar.write_config(sinks=[b.sink()])
    return before


def cost_of_calls(sidecar, n=100):
    """Nanoseconds of the workers' processor for some."""
    def spent():
        return sum(int((task / "schedstat").read_text().split()[0])
                   for name, task in sidecar.threads().items() if name.startswith("worker-"))
    before = spent()
    send(sidecar, n)
    return spent() - before


def cost_beside(b, plain, most=20):
    """Of a call while the sink is busy, to one of a sidecar without a sink: in turns, so that what else
    the machine does is in both."""
    busy = alone = 0
    for sidecar in (b.sidecar, plain):
        send(sidecar, 100)  # to warm up
    for _ in range(most):
        alone += cost_of_calls(plain)
        busy += cost_of_calls(b.sidecar)
        if b.status()["waiting"] == 0:
            break
    return busy / alone


def backlog_of_many(b):
    before = most = make_backlog(b)
    plain = b.another()
    b.peer.start()
    b.start()
    cost = cost_beside(b, plain)

    def caught_up():
        nonlocal most
        most = max(most, anonymous_kb(b.sidecar))
        return b.status()["waiting"] == 0
    wait_for(caught_up, "the backlog to be delivered", LONGEST)
    b.more = {"memory": most - before, "cost": round(cost, 2)}
    assert most - before < MEMORY_MAX_KB or SANITIZED, "memory holds no backlog"
    assert cost < COST_MAX or BACKLOG < LONG, "calls wait for no sink"


def anonymous_kb(sidecar):
    status = open(f"/proc/{sidecar.process.pid}/status", encoding="ascii").read()
    return int(status.split("RssAnon:")[1].split()[0])


# Each with what its receiver has to be able to.
FAULTS = {
    "dead at start": (dead_at_start, "dead"),
    "dies in mid-batch": (dies_in_mid_batch, "dies"),
    "hangs": (hangs, "hangs"),
    "poison event": (poison_event, "poison"),
    "backlog": (backlog_of_many, None),
    "TERM in an outage": (term_in_an_outage, "dies"),
    "reload that changes it": (reload_that_changes_it, None),
    "two sinks, one dead": (two_with_one_dead, "dead"),
}

PAIRS = [(cls, fault) for cls in peers.PEERS for fault, (_, need) in FAULTS.items()
         if need is None or need in cls.can]


@pytest.mark.parametrize("cls, fault", PAIRS, ids=[f"{c.name}-{f}" for c, f in PAIRS])
def test_what_was_accepted_arrives(cls, fault, keytrail, raw_backend, tmp_path, pki):
    if cls in (peers.Http, peers.Kafka) and cls.name not in MODULES:
        pytest.skip(f"built without the {cls.name} sink")
    bench = Bench(cls, keytrail, raw_backend(ok()), tmp_path, pki)
    try:
        FAULTS[fault][0](bench)
        bench.settle()
        tell(bench.row(fault))
        bench.sidecar.stop()
    finally:
        if fault == "backlog" and BACKLOG >= LONG and bench.sidecar.process is not None:
            bench.sidecar.kill()
            shutil.rmtree(bench.sidecar.trail_dir, ignore_errors=True)  # nobody looks at each line again
        bench.close()

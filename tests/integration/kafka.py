"""Kafka: librdkafka's mock cluster as a process, what a topic holds, and what became of each event."""

import json
import subprocess
from collections import defaultdict

from support import BUILD, PATIENCE

TOPIC = "audit"


class Mock:
    """Brokers that do as they are told (tests/kafka/mock.c)."""

    def __init__(self, *, brokers=3, partitions=4):
        self.process = subprocess.Popen([BUILD / "kafka-mock", str(brokers), f"{TOPIC}:{partitions}"],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True, start_new_session=True)
        self.brokers = self.process.stdout.readline().strip()

    def tell(self, order):
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "ok\n", order

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(PATIENCE) == 0
        self.process.stdout.close()


def sink(brokers, name="kafka", **more):
    return {"name": name, "type": "kafka", "brokers": brokers.split(","), "topic": TOPIC, **more}


def records(brokers, topic=TOPIC):
    """What is in a topic now, partition by partition, as an independent client finds it."""
    text = subprocess.run(["kcat", "-C", "-J", "-q", "-e", "-b", brokers, "-t", topic, "-o", "beginning",
                           "-X", "fetch.wait.max.ms=10"],
                          check=True, stdout=subprocess.PIPE, timeout=6 * PATIENCE).stdout
    out = [json.loads(line) for line in text.splitlines()]
    for record in out:
        names = record["headers"]
        record["headers"] = dict(zip(names[::2], names[1::2]))
    return sorted(out, key=lambda r: (r["partition"], r["offset"]))


class Account:
    """Each number that a log has accepted, found among the records of a topic or not."""

    def __init__(self, events, found):
        log = events[0]["trail"]["log"]
        self.accepted = {e["trail"]["seq"]: e for e in events}
        self.first = {}  # of each number the first record, in the order of their partitions
        self.repeated = 0
        self.disorder = []  # numbers that came after a higher one of their key
        highest = defaultdict(int)
        for record in found:
            if record["headers"]["log"] != log:
                continue
            seq = int(record["headers"]["seq"])
            if seq in self.first:
                self.repeated += 1
                continue
            self.first[seq] = record
            if seq < highest[record["key"]]:
                self.disorder.append(seq)
            highest[record["key"]] = max(seq, highest[record["key"]])
        self.lost = sorted(self.accepted.keys() - self.first.keys())
        self.foreign = sorted(self.first.keys() - self.accepted.keys())

    def check(self):
        assert not self.lost, f"lost: {self.lost[:10]} of {len(self.accepted)}"
        assert not self.foreign and not self.disorder
        for seq, record in self.first.items():
            check_record(self.accepted[seq], record)
        return self

    def __str__(self):
        return (f"accepted {len(self.accepted)}, delivered {len(self.first)}, "
                f"repeated {self.repeated}, lost {len(self.lost)}")


def check_record(event, record):
    """The record is the event, and its headers say so."""
    headers, payload = record["headers"], json.loads(record["payload"])
    delivery = payload.pop("delivery")
    trail = event["trail"]
    assert [headers[name] for name in ("log", "boot", "seq")] == \
        [trail["log"], trail["boot"], str(trail["seq"])]
    assert [headers["hash"], headers["prev"]] == [delivery["hash"], str(delivery["prev"])]
    assert headers["format"] == "activity-tracker"
    if not delivery.get("stub"):
        assert payload == event


def caught_up(sidecar, timeout=PATIENCE):
    """Until all that the trail has by now is acknowledged."""
    sidecar.wait_delivered("kafka", timeout)

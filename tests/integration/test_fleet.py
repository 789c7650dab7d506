"""A fleet: many sidecars, one topic, and whether all that they delivered is there."""

import json
import os
import re
import shutil
import subprocess

import pytest
import yaml

import kafka
from backend import ok
from kafka import caught_up, records
from support import BUILD, KEYTRAIL, MODULES, ROOT, new_id

SIDECARS = 3
README = ROOT / "README.md"


@pytest.fixture
def brokers():
    if "kafka" not in MODULES:
        pytest.skip("built without the kafka sink")
    mock = kafka.Mock(partitions=6)
    yield mock
    mock.close()


@pytest.fixture
def fleet(brokers, raw_backend, keytrail, signer):  # brokers end last
    """Sidecars that sign with one key, each in front of an instance of its own."""
    return [keytrail(raw_backend(ok()), {"sinks": [kafka.sink(brokers.brokers)],
                                         "audit": {"sign": {"file": str(signer[0])}}})
            for _ in range(SIDECARS)]


def instance(i):
    return f"fd692647-43d0-4699-9f83-f39a54b1327{i}"


def send(sidecar, n, i):
    with sidecar.client() as c:
        for _ in range(n):
            assert c.request("GET", "/api/v2/keys", {"Correlation-Id": new_id(),
                                                     "Bluemix-Instance": instance(i)}).status == 200


def run(fleet):
    for round_ in range(3):
        for i, sidecar in enumerate(fleet):
            send(sidecar, 20 + round_, i)
    for sidecar in fleet:
        sidecar.stop()
        told = len(sidecar.own("keytrail.checkpoint"))
        sidecar.start()
        sidecar.wait_own("keytrail.checkpoint", told + 1)  # of the stop
        caught_up(sidecar)


def verify(key, lines):
    done = subprocess.run([KEYTRAIL, "verify", "--delivered", "-", "--key", key, "--json"],
                          input="".join(f"{line}\n" for line in lines), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, {log["log"]: log for log in json.loads(done.stdout)["logs"]}


def payloads(brokers):
    return [r["payload"] for r in records(brokers.brokers)]


def test_all_logs_are_judged_together(fleet, brokers, signer):
    """As they are; without one event; with one altered."""
    run(fleet)
    lines = payloads(brokers)
    code, logs = verify(signer[1], lines)
    assert code == 0 and len(logs) == SIDECARS
    for sidecar in fleet:
        events = sidecar.events()
        log = logs[events[0]["trail"]["log"]]
        assert [log["unaltered"], log["complete"], log["first"]] == ["yes", "yes", 1]
        assert log["size"] > 60 and log["events"] == log["last"] >= log["size"]

    at = next(i for i, line in enumerate(lines) if '"seq":30,' in line)
    log = json.loads(lines[at])["trail"]["log"]
    code, logs = verify(signer[1], lines[:at] + lines[at + 1:])
    assert code == 4 and sorted(each["complete"] for each in logs.values()) == ["no", "yes", "yes"]
    assert logs[log]["findings"][0]["text"] == \
        "event 30 was delivered before event 31 and is not here"

    digit = lines[at].index('"hash":"') + len('"hash":"')
    lines[at] = lines[at][:digit] + "10"[lines[at][digit] == "1"] + lines[at][digit + 1:]
    code, logs = verify(signer[1], lines)
    assert code == 3 and logs[log]["unaltered"] == "no"
    assert logs[log]["findings"][0]["text"] == "event 30 is not what its hash says"

    found = records(brokers.brokers)
    for i in range(SIDECARS):
        assert len({r["partition"] for r in found if r["key"] == instance(i)}) == 1


def test_a_lost_disk_leaves_what_was_delivered(fleet, brokers, signer):
    """The log ends in the topic: its last number and checkpoint are known there; another log begins."""
    run(fleet)
    lost = fleet[0]
    lost.kill()
    before = [json.loads(line) for line in (p.read_text() for p in sorted(lost.trail_dir.glob("*.jsonl")))
              for line in line.splitlines()]
    shutil.rmtree(lost.trail_dir)
    lost.start()
    send(lost, 10, 0)
    caught_up(lost)
    code, logs = verify(signer[1], payloads(brokers))
    old, new = logs[before[0]["trail"]["log"]], logs[lost.events()[0]["trail"]["log"]]
    assert lost.wait_own("keytrail.start")[0]["details"]["newLog"] is True
    assert [old["complete"], old["unaltered"]] == ["yes", "yes"]
    assert old["last"] == before[-1]["trail"]["seq"] and old["size"] > 60
    assert old["lastAt"] == before[-1]["trail"]["at"]
    assert new["complete"] == "yes" and new["first"] == 1 and len(logs) == SIDECARS + 1
    assert code in (0, 1)  # the new log's first checkpoint may not be there yet


# ---- examples ----

def test_the_readmes_recipe(fleet, brokers, signer):
    """As it stands there, but for the brokers, the topic and the key."""
    run(fleet)
    recipe = re.search(r"^```\n(kcat .*?)```", README.read_text(), re.M | re.S)[1]
    for written, ours in (("kafka-1.example.com:9093", brokers.brokers), ("keytrail-audit", kafka.TOPIC),
                          (recipe[recipe.index("--key"):], f"--key '{signer[1]}'")):
        assert written in recipe
        recipe = recipe.replace(written, ours)
    done = subprocess.run(["bash", "-o", "pipefail", "-c", recipe], stdout=subprocess.PIPE, text=True,
                          env={**os.environ, "PATH": f"{BUILD}:{os.environ['PATH']}"}, check=False)
    assert done.returncode == 0, done.stdout
    for sidecar in fleet:
        assert sidecar.events()[0]["trail"]["log"] in done.stdout
    print(done.stdout)


FOLDER = ROOT / "docker" / "fleet"


def test_the_compose_file_is_of_one_piece(schema):
    """Its sidecars write to a topic that is made, on brokers that there are."""
    compose = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    services = compose["services"]
    sidecars = [s for name, s in services.items() if name.startswith("sidecar-")]
    routes = json.loads((FOLDER / "routes.json").read_text())
    schema.validate(routes)
    sink, = routes["sinks"]
    assert {b.partition(":")[0] for b in sink["brokers"]} == \
        {name for name in services if name.startswith("kafka-")}
    command = services["topic"]["entrypoint"]
    assert command[command.index("--topic") + 1] == sink["topic"]
    assert len(sidecars) == SIDECARS and len({str(s["volumes"]) for s in sidecars}) == SIDECARS
    for sidecar in sidecars:
        assert sidecar["read_only"] and sidecar["cap_drop"] == ["ALL"]
        for volume in sidecar["volumes"]:
            source = volume.split(":")[0]
            assert source in compose["volumes"] if "/" not in source else (FOLDER / source).exists()


def check(keytrail, sinks):
    sidecar = keytrail(config={"sinks": sinks}, start=False)
    return subprocess.run([KEYTRAIL, "check", sidecar.file], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, check=False)


def test_the_readmes_sink_is_good(keytrail, tmp_path):
    text = re.search(r'^"sinks": (\[.*?"type": "kafka".*?\n?.*?\] *)$(?=\n```)',
                     README.read_text(), re.M | re.S)[1]
    secret = tmp_path / "password"
    secret.write_text("a password\n")
    secret.chmod(0o600)
    sinks = json.loads(text.replace("/etc/keytrail/kafka-password", str(secret)))
    assert check(keytrail, sinks).returncode == 0
    without = [{k: v for k, v in sinks[0].items() if k != "tls"}]
    refused = check(keytrail, without)
    assert refused.returncode == 78 and '"sasl" needs "tls"' in refused.stderr

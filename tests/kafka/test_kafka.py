"""The kafka sink against Apache Kafka: whatever becomes of its brokers, each event is accounted for."""

import contextlib
import itertools
import json
import subprocess
import threading

import pytest

import kafka
from backend import ok
from cluster import PASSWORD, SECURED, USER
from kafka import Account, caught_up, records
from support import KEYTRAIL, new_id, wait_for

INSTANCES = [f"fd692647-43d0-4699-9f83-f39a54b1327{digit}" for digit in "0123456789ab"]
SLOW = 180  # seconds that brokers may take to find themselves again


class Traffic:
    """Calls of many instances, one after the other, until it is stopped."""

    def __init__(self, sidecar):
        self.sidecar = sidecar
        self.answered = 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        with self.sidecar.client() as client:
            for instance in itertools.cycle(INSTANCES):
                if self.over.is_set():
                    return
                answer = client.request("GET", "/api/v2/keys", {"Correlation-Id": new_id(),
                                                                "Bluemix-Instance": instance})
                assert answer.status == 200
                self.answered += 1
                self.over.wait(0.002)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def go_on(self, n=300):
        """Until so many more calls are answered."""
        wanted = self.answered + n
        wait_for(lambda: self.answered >= wanted, "the traffic", SLOW)


def status(sidecar):
    return json.loads(sidecar.fetch("admin", "/status"))["sinks"][0]


def environment(sidecar):
    return subprocess.run([KEYTRAIL, "check", "--environment", sidecar.file], check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env=sidecar.environment).stdout


def delivered(sidecar):
    return sidecar.metric("keytrail_sink_events_delivered_total", sink="kafka")


def wait_delivering(sidecar, n=200):
    before = delivered(sidecar)
    wait_for(lambda: delivered(sidecar) >= before + n, "deliveries", SLOW)


def start(keytrail, raw_backend, brokers, topic, **more):
    return keytrail(raw_backend(ok()), {"sinks": [kafka.sink(brokers, topic=topic, **more)]})


def settle(sidecar, cluster, topic, what):
    """The account of everything, printed."""
    caught_up(sidecar, timeout=SLOW)
    sidecar.stop()
    account = Account(sidecar.events(), records(cluster.brokers, topic))
    print(f"\n{what}: {account}")
    return account.check()


def test_brokers_are_killed_stopped_and_rolled_under_traffic(keytrail, raw_backend, cluster):
    topic = "faults"
    cluster.make_topic(topic)
    sidecar = start(keytrail, raw_backend, cluster.brokers, topic)
    with Traffic(sidecar) as traffic:
        wait_delivering(sidecar)

        leader = cluster.describe(topic)[0][0]
        cluster.kill(leader)
        traffic.go_on()
        wait_delivering(sidecar)
        cluster.start(leader)
        cluster.wait_in_sync(topic)

        cluster.stop(1, 2)
        traffic.go_on()
        wait_for(lambda: not status(sidecar)["up"], "the sink to be down", SLOW)
        cluster.start(1, 2)
        wait_delivering(sidecar)
        cluster.wait_in_sync(topic)

        for node in (1, 2, 3):
            cluster.stop(node)
            traffic.go_on()
            cluster.start(node)
            cluster.wait_in_sync(topic)
        wait_delivering(sidecar)
    settle(sidecar, cluster, topic, "a leader killed, two of three brokers stopped, all three rolled")


def test_a_sidecar_is_killed_under_traffic(keytrail, raw_backend, cluster):
    topic = "kills"
    cluster.make_topic(topic)
    sidecar = start(keytrail, raw_backend, cluster.brokers, topic)
    for _ in range(3):
        with Traffic(sidecar) as traffic:
            traffic.go_on()
        sidecar.kill()
        sidecar.start()
    settle(sidecar, cluster, topic, "the sidecar killed three times")


# ---- who may ----

def secured(pki, folder, mechanism, password=PASSWORD):
    secret = folder / "password"
    secret.write_text(password + "\n")
    secret.chmod(0o600)
    return {"tls": {"ca": pki["ca.pem"]},
            "sasl": {"mechanism": mechanism, "user": USER, "password": {"file": str(secret)}}}


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_over_tls_with_a_password(keytrail, raw_backend, cluster, pki, tmp_path, mechanism):
    topic = f"{SECURED}-{mechanism.lower()}"
    cluster.make_topic(topic)
    sidecar = start(keytrail, raw_backend, cluster.secure, topic,
                    **secured(pki, tmp_path, mechanism))
    with Traffic(sidecar) as traffic:
        traffic.go_on()
    settle(sidecar, cluster, topic, f"over TLS with {mechanism}")
    assert PASSWORD not in sidecar.stderr()


def test_a_wrong_password_is_named_and_the_right_one_read(keytrail, raw_backend, cluster, pki, tmp_path):
    topic = f"{SECURED}-password"
    cluster.make_topic(topic)
    more = secured(pki, tmp_path, "SCRAM-SHA-512", "a-wrong-one")
    sidecar = start(keytrail, raw_backend, cluster.secure, topic, **more)
    wait_for(lambda: status(sidecar)["lastError"] == f"topic {topic}: a broker refuses the credentials",
             "the refusal", SLOW)
    secured(pki, tmp_path, "SCRAM-SHA-512")
    settle(sidecar, cluster, topic, "a wrong password, then the right one")
    assert "a-wrong-one" not in sidecar.stderr()


def test_what_a_user_may_not_is_named_and_waits(keytrail, raw_backend, cluster, pki, tmp_path):
    """First nothing, then to see the topic, then to write."""
    topic = "users"
    cluster.make_topic(topic)
    sidecar = start(keytrail, raw_backend, cluster.secure, topic, **secured(pki, tmp_path, "PLAIN"))
    refusal = f"topic {topic}: the user may not write to the topic"
    wait_for(lambda: status(sidecar)["lastError"] == refusal, "the refusal", SLOW)
    assert refusal in environment(sidecar)
    cluster.allow("Describe", topic)
    wait_for(lambda: f"topic {topic}: 6 partitions" in environment(sidecar), "the topic to be seen", SLOW)
    found = environment(sidecar)
    assert "its settings may not be read" in found
    before = status(sidecar)["retries"]
    wait_for(lambda: status(sidecar)["retries"] > before, "another try", SLOW)
    assert status(sidecar)["lastError"] == refusal and delivered(sidecar) == 0
    cluster.allow("Write", topic)
    settle(sidecar, cluster, topic, "a user who may write late")


def test_a_broker_of_another_authority_is_refused(keytrail, raw_backend, cluster, pki, tmp_path):
    topic = "authority"
    cluster.make_topic(topic)
    more = secured(pki, tmp_path, "PLAIN")
    sidecar = start(keytrail, raw_backend, cluster.secure, topic,
                    **{**more, "tls": {"ca": pki["other-ca.pem"]}})
    wait_for(lambda: "TLS with a broker fails" in status(sidecar)["lastError"], "the refusal", SLOW)
    assert delivered(sidecar) == 0


# ---- topics ----

def test_a_topic_is_named_not_made(keytrail, raw_backend, cluster):
    """Though the brokers would."""
    topic = "later"
    sidecar = start(keytrail, raw_backend, cluster.brokers, topic)
    wait_for(lambda: status(sidecar)["lastError"] == f"topic {topic}: there is no such topic",
             "the reason", SLOW)
    cluster.make_topic(topic)
    settle(sidecar, cluster, topic, "a topic that is made late")


def size(event):
    return len(json.dumps(event, separators=(",", ":")))


def large_ones(sidecar, least, n):
    found = {e["trail"]["seq"] for e in sidecar.calls() if size(e) > least}
    return found if len(found) == n else None


def test_what_the_topic_finds_too_large_is_rejected(keytrail, raw_backend, cluster):
    """A batch is split before one of its events is."""
    topic = "small"
    sidecar = start(keytrail, raw_backend, cluster.brokers, topic, compression="none")
    with Traffic(sidecar) as traffic:
        traffic.go_on(50)
    short = max(map(size, sidecar.calls()))
    with sidecar.client() as client:
        for _ in range(3):
            client.request("GET", "/api/v2/keys", {"User-Agent": "agent/1.0 " * 12,
                                                     "Bluemix-Instance": INSTANCES[0]})
    large = wait_for(lambda: large_ones(sidecar, short + 80, 3), "the large events")
    cluster.make_topic(topic, max_message_bytes=short + 450)
    caught_up(sidecar, timeout=SLOW)
    sidecar.stop()
    account = Account(sidecar.events(), records(cluster.brokers, topic))
    stubs = {seq for seq, r in account.first.items() if '"stub":true' in r["payload"]}
    print(f"\na topic that takes {short + 450} bytes: {account}, of them {len(stubs)} stubs")
    account.check()
    assert stubs >= large
    assert len((sidecar.trail_dir / "quarantine.kafka.jsonl").read_text().splitlines()) == len(stubs)
    assert not [seq for seq in stubs - large
                if account.accepted[seq]["action"] == "kms.secrets.list"]


def test_check_tells_what_is_there(keytrail, raw_backend, cluster):
    cluster.make_topic("looked-at")
    sidecar = keytrail(raw_backend(ok()), {"sinks": [kafka.sink(cluster.brokers, topic="looked-at")]},
                       start=False)
    found = environment(sidecar)
    assert ("3 brokers, topic looked-at: 6 partitions (0 without a leader, 0 with replicas out of sync), "
            "replication 3, min.insync.replicas 2, unclean.leader.election.enable false") in found


def test_a_fleet_is_judged_by_what_is_in_the_topic(keytrail, raw_backend, cluster, signer):
    """Three sidecars, a broker killed and back; all logs are complete and as they were signed."""
    topic = "fleet"
    cluster.make_topic(topic)
    sidecars = [keytrail(raw_backend(ok()), {"sinks": [kafka.sink(cluster.brokers, topic=topic)],
                                             "audit": {"sign": {"file": str(signer[0])}}})
                for _ in range(3)]
    with contextlib.ExitStack() as stack:
        traffic = [stack.enter_context(Traffic(sidecar)) for sidecar in sidecars]
        cluster.kill(2)
        for each in traffic:
            each.go_on()
        cluster.start(2)
    for sidecar in sidecars:
        sidecar.stop()
        told = len(sidecar.own("keytrail.checkpoint"))
        sidecar.start()
        sidecar.wait_own("keytrail.checkpoint", told + 1)  # of the stop
        caught_up(sidecar, timeout=SLOW)
    lines = "".join(f"{r['payload']}\n" for r in records(cluster.brokers, topic))
    done = subprocess.run([KEYTRAIL, "verify", "--delivered", "-", "--key", signer[1], "--json"],
                          input=lines, stdout=subprocess.PIPE, text=True, check=False)
    logs = json.loads(done.stdout)["logs"]
    print(f"\na fleet of three, a broker killed: {sum(log['events'] for log in logs)} events of "
          f"{len(logs)} logs, {sum(log['repeated'] for log in logs)} repeated")
    assert done.returncode == 0 and len(logs) == 3
    assert {(log["complete"], log["unaltered"], log["first"]) for log in logs} == {("yes", "yes", 1)}

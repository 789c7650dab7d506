"""The kafka sink, against brokers that do as they are told; Kafka itself is in tests/kafka."""

import json

import pytest

import kafka
from backend import ok
from kafka import Account, caught_up, records
from support import INSTANCE, MODULES, new_id, wait_for

pytestmark = pytest.mark.skipif("kafka" not in MODULES, reason="built without the kafka sink")


@pytest.fixture
def brokers():
    mock = kafka.Mock()
    yield mock
    mock.close()


def send(sidecar, n, instance=INSTANCE):
    with sidecar.client() as c:
        for _ in range(n):
            assert c.request("GET", "/api/v2/keys", {"Correlation-Id": new_id(),
                                                     "Bluemix-Instance": instance}).status == 200


def account(sidecar, brokers):
    return Account(sidecar.events(), records(brokers.brokers)).check()


def test_every_event_is_delivered_once(keytrail, raw_backend, brokers):
    sidecar = keytrail(raw_backend(ok()), {"sinks": [kafka.sink(brokers.brokers)]})
    send(sidecar, 200)
    send(sidecar, 100, "5b0b6a2e-8a0a-4a5b-8f0e-1c7d3f6f9a11")
    caught_up(sidecar)
    sidecar.stop()
    result = account(sidecar, brokers)
    assert result.repeated == 0
    keys = {r["key"] for r in result.first.values()}
    assert keys == {INSTANCE, "5b0b6a2e-8a0a-4a5b-8f0e-1c7d3f6f9a11",
                    sidecar.events()[0]["trail"]["log"]}


def status(sidecar):
    return json.loads(sidecar.fetch("admin", "/status"))["sinks"][0]


def test_brokers_may_go_and_come_and_leaders_change(keytrail, raw_backend, brokers):
    sidecar = keytrail(raw_backend(ok()), {"sinks": [kafka.sink(brokers.brokers)]})
    send(sidecar, 50)
    for gone in (1, 2, 3):
        brokers.tell(f"down {gone}")
        for partition in range(4):
            brokers.tell(f"lead {kafka.TOPIC} {partition} {gone % 3 + 1}")
        send(sidecar, 50)
        caught_up(sidecar)
        brokers.tell(f"up {gone}")
    sidecar.stop()
    print(account(sidecar, brokers))


def revive(sidecar, brokers):
    """Without the pauses that become longer with each failure."""
    brokers.tell("up 0")
    sidecar.reload()


def test_while_no_broker_can_be_reached_events_wait(keytrail, raw_backend, brokers):
    brokers.tell("down 0")
    sidecar = keytrail(raw_backend(ok()), {"sinks": [kafka.sink(brokers.brokers)]})
    send(sidecar, 50)
    wait_for(lambda: "broker can" in status(sidecar)["lastError"], "the reason")
    wait_for(lambda: sidecar.metric("keytrail_sink_up", sink="kafka") == 0, "the sink to be down")
    wait_for(lambda: sidecar.metric("keytrail_sink_lag_events", sink="kafka") > 50, "the count")
    revive(sidecar, brokers)
    caught_up(sidecar)
    wait_for(lambda: sidecar.metric("keytrail_sink_up", sink="kafka") == 1, "the sink to be up")
    sidecar.stop()
    assert account(sidecar, brokers).repeated == 0


def test_a_kill_delivers_at_least_once(keytrail, raw_backend, brokers):
    sidecar = keytrail(raw_backend(ok()), {"sinks": [kafka.sink(brokers.brokers)]})
    for _ in range(3):
        brokers.tell("slow 0 300")
        send(sidecar, 50)
        sidecar.kill()
        brokers.tell("slow 0 0")
        sidecar.start()
    caught_up(sidecar)
    sidecar.stop()
    print(account(sidecar, brokers))


def test_what_is_refused_is_named_and_waits(keytrail, raw_backend, brokers):
    """A topic that is not there; one that the user may not write to."""
    brokers.tell(f"refuse {kafka.TOPIC} 3")
    sidecar = keytrail(raw_backend(ok()), {"sinks": [kafka.sink(brokers.brokers)]})
    wait_for(lambda: status(sidecar)["lastError"] == "topic audit: there is no such topic", "the reason")
    brokers.tell(f"refuse {kafka.TOPIC} 29")
    wait_for(lambda: status(sidecar)["lastError"] == "topic audit: the user may not write to the topic",
             "the other reason")
    brokers.tell(f"refuse {kafka.TOPIC} 0")
    caught_up(sidecar)
    sidecar.stop()
    assert account(sidecar, brokers).repeated == 0


def test_memory_is_bounded_while_events_wait(keytrail, raw_backend, brokers):
    """What waits is in the trail, not in memory."""
    brokers.tell("down 0")
    sidecar = keytrail(raw_backend(ok()), {"sinks": [kafka.sink(brokers.brokers)]})
    send(sidecar, 300)
    before = rss(sidecar)
    send(sidecar, 3000)
    assert rss(sidecar) - before < 8 << 20
    revive(sidecar, brokers)
    caught_up(sidecar)
    sidecar.stop()
    account(sidecar, brokers)


def rss(sidecar):
    with open(f"/proc/{sidecar.process.pid}/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * 4096

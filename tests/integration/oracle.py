"""What is known of the calls outside of the sidecar, and the trail held against it."""

import itertools
import threading

import http1
from backend import ok
from support import new_id

KEY = "72ad31e8-ce01-495c-b757-3e840b0cc9f8"
CALLS = [  # method, path, body, guarantee
    ("GET", "/api/v2/keys", None, "async"),
    ("POST", f"/api/v2/keys/{KEY}/actions/unwrap", "{}", "durable"),
    ("DELETE", f"/api/v2/keys/{KEY}", None, "intent"),
    ("PUT", f"/api/v2/keys/{KEY}/policies", "{}", "intent"),
]
CONFIG = {"routes": [{"action": "kms.secrets.list", "method": "GET", "path": "/api/v2/keys",
                      "guarantee": "async"}],
          "audit": {"flush_interval": "5ms"}}


class Oracle:
    """What is known outside of the sidecar."""

    def __init__(self):
        self.lock = threading.Lock()
        self.reached = {}   # correlation ID -> method, as the back end saw it
        self.answered = {}  # correlation ID -> status, as a client saw it
        self.guarantee = {}

    def script(self, connection):
        while (request := connection.read_request()) is not None:
            correlation = request.get("Correlation-Id")
            with self.lock:
                self.reached[correlation] = request.method
            connection.send(ok(extra=f"Correlation-Id: {correlation}\r\n"))

    def check(self, events):
        """All events there are against what is known; how many calls nobody knows the outcome of."""
        closings, intents, unknown, last = {}, {}, 0, 0
        for event in events:
            assert event["trail"]["seq"] == last + 1, f"{event['trail']['seq']} follows {last}"
            last = event["trail"]["seq"]
            if event["action"].startswith("keytrail."):
                continue
            kind = intents if event.get("kind") == "intent" else closings
            assert event["correlationId"] not in kind, f"twice: {event}"
            kind[event["correlationId"]] = event
        for correlation, method in self.reached.items():
            assert correlation in closings, f"{method} {correlation} reached the service unrecorded"
            if self.guarantee[correlation] == "intent":
                assert correlation in intents, f"{method} {correlation} was forwarded unannounced"
        for correlation, status in self.answered.items():
            assert closings[correlation]["reason"].get("reasonCode") == status
        for correlation, event in intents.items():
            assert event["outcome"] == "pending" and self.guarantee[correlation] == "intent"
            assert closings[correlation]["id"] == event["id"]
        for correlation, event in closings.items():
            assert correlation in self.guarantee
            if event["reason"]["reasonType"] == "restart":
                assert event["outcome"] == "unknown" and event["recovered"] is True
                unknown += 1
        return unknown


def call_until_gone(sidecar, oracle, first):
    try:
        with sidecar.client() as c:
            for method, path, body, guarantee in itertools.islice(
                    itertools.cycle(CALLS), first, None):
                correlation = new_id()
                oracle.guarantee[correlation] = guarantee
                r = c.request(method, path, {"Correlation-Id": correlation}, body)
                if r.status == 200:
                    oracle.answered[correlation] = r.status
                if r.get("Connection") == "close":
                    break
    except (OSError, http1.Closed):
        pass

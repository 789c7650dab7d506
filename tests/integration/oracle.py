"""What is known of the calls outside of the sidecar, and the trail held against it."""

import collections
import itertools
import threading

import http1
from backend import ok
from support import new_id

KEY = "72ad31e8-ce01-495c-b757-3e840b0cc9f8"
Call = collections.namedtuple("Call", "method path body guarantee action template")
CALLS = [
    Call("GET", "/api/v2/keys", None, "async", "kms.secrets.list", "/api/v2/keys"),
    Call("POST", f"/api/v2/keys/{KEY}/actions/unwrap", "{}", "durable", "kms.secrets.unwrap",
         "/api/v2/keys/{id}/actions/unwrap"),
    Call("DELETE", f"/api/v2/keys/{KEY}", None, "intent", "kms.secrets.delete",
         "/api/v2/keys/{id}"),
    Call("PUT", f"/api/v2/keys/{KEY}/policies", "{}", "intent", "kms.policies.write",
         "/api/v2/keys/{id}/policies"),
]
CONFIG = {"routes": [{"action": "kms.secrets.list", "method": "GET", "path": "/api/v2/keys",
                      "guarantee": "async"}],
          "audit": {"flush_interval": "5ms"}}


class Oracle:
    """What is known outside of the sidecar."""

    statuses = (200,)  # that the back end answers, and the sidecar never by itself

    def __init__(self):
        self.lock = threading.Lock()
        self.degrades = False  # now and then: then intents may be left out
        self.junk = set()   # correlation IDs of what is refused, and may be counted together
        self.sent = {}      # correlation ID -> Call, as a client sent it
        self.reached = {}   # correlation ID -> method and path, as the back end saw it
        self.answered = {}  # correlation ID -> status, as a client saw it

    def hear(self, connection):
        """The correlation ID of the next request, which is not answered, or None."""
        if (request := connection.read_request()) is None:
            return None
        correlation = request.get("Correlation-Id")
        with self.lock:
            self.reached[correlation] = request.method, request.target
        return correlation

    def script(self, connection):
        while (correlation := self.hear(connection)) is not None:
            connection.send(ok(extra=f"Correlation-Id: {correlation}\r\n"))

    def answer_nobody(self, connection):
        while self.hear(connection) is not None:
            pass

    def check(self, events):
        """All events there are against what is known; how many calls nobody knows the outcome of."""
        closings, intents, unknown, last = {}, {}, 0, 0
        with self.lock:  # the back end may still read what a sidecar sent that was killed
            reached = dict(self.reached)
        for event in events:
            assert event["trail"]["seq"] == last + 1, f"{event['trail']['seq']} follows {last}"
            last = event["trail"]["seq"]
            if event["action"].startswith("keytrail.") or event["correlationId"] in self.junk:
                continue
            kind = intents if event.get("kind") == "intent" else closings
            assert event["correlationId"] not in kind, f"twice: {event}"
            kind[event["correlationId"]] = event
        for correlation, seen in reached.items():
            sent = self.sent[correlation]
            assert seen == (sent.method, sent.path)
            assert correlation in closings, f"{seen} {correlation} reached the service unrecorded"
            if sent.guarantee == "intent" and not self.degrades:
                assert correlation in intents, f"{seen} {correlation} was forwarded unannounced"
        for correlation, status in self.answered.items():
            assert closings[correlation]["reason"].get("reasonCode") == status
        for correlation, event in intents.items():
            assert event["outcome"] == "pending" and self.sent[correlation].guarantee == "intent"
            assert closings[correlation]["id"] == event["id"]
            self.check_route(event)
        for correlation, event in closings.items():
            self.check_route(event)
            if event["reason"]["reasonType"] == "restart":
                assert event["outcome"] == "unknown" and event["recovered"] is True
                unknown += 1
        return unknown

    def check_route(self, event):
        sent, said = self.sent[event["correlationId"]], event["requestData"]
        assert (event["action"], said["method"], said["path"]) == \
            (sent.action, sent.method, sent.template), event


def call_until_gone(sidecar, oracle, first, enough=lambda: False):
    try:
        with sidecar.client() as c:
            for call in itertools.islice(itertools.cycle(CALLS), first, None):
                correlation = new_id()
                oracle.sent[correlation] = call
                r = c.request(call.method, call.path, {"Correlation-Id": correlation}, call.body)
                if r.status in oracle.statuses:
                    oracle.answered[correlation] = r.status
                if r.get("Connection") == "close" or enough():
                    break
    except (OSError, http1.Closed):
        pass

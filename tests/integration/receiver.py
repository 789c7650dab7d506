"""A strict receiver over HTTP: takes batches as one preset frames them, and fails as a test plans."""

import collections
import gzip
import json
import threading
import urllib.parse

from backend import ok

PATHS = {"ndjson": "", "json": "", "cloudevents": "",
         "elasticsearch": "/keytrail-audit/_bulk", "opensearch": "/keytrail-audit/_bulk",
         "ibm-cloud-logs": "/logs/v1/singles", "splunk-hec": "/services/collector/event",
         "loki": "/loki/api/v1/push", "otlp": "/v1/logs"}
TYPES = {"ndjson": "application/x-ndjson", "elasticsearch": "application/x-ndjson",
         "opensearch": "application/x-ndjson",
         "cloudevents": "application/cloudevents-batch+json; charset=UTF-8"}
# Elasticsearch leaves out of an answer what this does not name.
FILTER = "filter_path=items.*.status,items.*._index,items.*.error.type"
END = object()  # of a fault: the connection is over


def objects(text):
    """JSON objects one after the other, with nothing between."""
    decoder, at = json.JSONDecoder(), 0
    while at < len(text):
        value, at = decoder.raw_decode(text, at)
        yield value


def bulk_events(text):
    """The pairs of a bulk request: (id, event)."""
    lines = [json.loads(line) for line in text.splitlines()]
    assert text.endswith("\n") and len(lines) % 2 == 0
    for action, event in zip(lines[::2], lines[1::2]):
        assert list(action) == ["create"] and list(action["create"]) == ["_id"]
        yield action["create"]["_id"], event


def plain(preset, event):
    """What tests look at of an event in its receiver's format, where the default has it."""
    if preset == "cloudevents":
        return event["data"] | {"trail": {"seq": int(event["sequence"])}}
    if "ecs" not in event:
        return event
    return {"trail": {"seq": event["event"]["sequence"]},
            "correlationId": event.get("http", {}).get("request", {}).get("id")}


def unwrap(preset, text):
    """The events of a request's body."""
    return [plain(preset, event) for event in framed(preset, text)]


def framed(preset, text):
    if preset == "ndjson":
        assert text.endswith("\n")
        return [json.loads(line) for line in text.splitlines()]
    if preset in ("json", "cloudevents"):
        return json.loads(text)
    if preset in ("elasticsearch", "opensearch"):
        return [event for _, event in bulk_events(text)]
    if preset == "splunk-hec":
        return [each["event"] for each in objects(text)]
    if preset == "ibm-cloud-logs":
        return [json.loads(each["text"]) for each in json.loads(text)]
    if preset == "loki":
        return [json.loads(line) for stream in json.loads(text)["streams"]
                for _, line in stream["values"]]
    return [json.loads(record["body"]["stringValue"])
            for record in json.loads(text)["resourceLogs"][0]["scopeLogs"][0]["logRecords"]]


class Receiver:
    """`faults` are met by the next requests, one each: fault(connection, request) may return END."""

    def __init__(self, raw_backend, preset="ndjson", prefix="", **options):
        self.preset, self.prefix = preset, prefix
        self.faults = collections.deque()
        self.always = None       # a fault of every request
        self.taken = []          # events, each arrival
        self.requests = []       # (path, fields, events)
        self.stored = {}         # documents of a bulk API, by id
        self.refuses = lambda event: False
        self.indexed = True      # Splunk: what was taken is
        self.asked = []          # Splunk: about these
        self.backend = raw_backend(self.serve, **options)
        self.port = self.backend.port

    def sink(self, pki, **more):
        return {"name": "http", "type": "http", "preset": self.preset,
                "url": f"https://localhost:{self.port}{self.prefix}", "tls": {"ca": pki["ca.pem"]},
                **more}

    def serve(self, connection):
        while (request := connection.read_request()) is not None:
            fault = self.faults.popleft() if self.faults else self.always
            if fault is None:
                connection.send(self.answer(request))
            elif fault(connection, request) is END:
                return

    def note(self, path, request, events):
        with self.backend.changed:
            self.requests.append((path, request, events))
            self.backend.changed.notify_all()

    def events_of(self, request):
        path, query = urllib.parse.urlsplit(request.target)[2:4]
        assert query == (FILTER if path.endswith("/_bulk") else "")
        assert request.method == "POST" and path == (self.prefix + PATHS[self.preset] or "/")
        assert request.get("Content-Type") == TYPES.get(self.preset, "application/json")
        assert request.get("Expect") is None and request.get("User-Agent").startswith("keytrail/")
        body = request.body
        if request.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        events = unwrap(self.preset, body.decode())
        self.note(path, request, events)
        return events, body.decode()

    def take(self, events):
        with self.backend.changed:
            self.taken += events
            self.backend.changed.notify_all()

    def answer(self, request):
        if request.target == self.prefix + "/services/collector/ack":
            return self.answer_acks(request)
        if request.target == self.prefix + "/_mget":
            return self.answer_stored(request)
        events, text = self.events_of(request)
        if self.preset in ("elasticsearch", "opensearch"):
            return ok(json.dumps({"items": [self.store(*pair) for pair in bulk_events(text)]}))
        if any(map(self.refuses, events)):
            return self.refusal(events)
        self.take(events)
        if self.preset == "splunk-hec":
            return ok(json.dumps({"text": "Success", "code": 0, "ackId": len(self.requests)}))
        return ok(status="204 No Content") if self.preset == "loki" else ok()

    def refusal(self, events):
        if self.preset == "otlp":
            good = [e for e in events if not self.refuses(e)]
            self.take(good)
            return ok(json.dumps({"partialSuccess": {"rejectedLogRecords": str(len(events) - len(good)),
                                                     "errorMessage": "SECRET"}}))
        return ok(json.dumps({"text": "SECRET", "code": 6}), status="400 Bad Request")

    # ---- elasticsearch ----

    def store(self, identity, event):
        item = {"_index": "keytrail-audit-000001", "_id": identity, "status": 201}
        if self.refuses(plain(self.preset, event)):
            item |= {"status": 400, "error": {"type": "document_parsing_exception", "reason": "SECRET"}}
        elif identity in self.stored:
            item |= {"status": 409, "error": {"type": "version_conflict_engine_exception"}}
        else:
            self.stored[identity] = event
            self.take([plain(self.preset, event)])
        return {"create": item}

    def answer_stored(self, request):
        body = request.body
        if request.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        docs = json.loads(body)["docs"]
        return ok(json.dumps({"docs": [
            doc | {"found": True, "_source": self.stored[doc["_id"]]} for doc in docs]}))

    # ---- splunk-hec ----

    def answer_acks(self, request):
        acks = json.loads(request.body)["acks"]
        with self.backend.changed:
            self.asked.append(acks)
            self.backend.changed.notify_all()
        return ok(json.dumps({"acks": {str(ack): self.indexed for ack in acks}}))


# ---- faults ----

def status(line, extra="", body="SECRET"):
    def fault(connection, _):
        connection.send(ok(body, extra, line))
    return fault


def closing(connection, _):
    return END


def resetting(connection, _):
    connection.reset()
    return END


def cut(connection, _):
    """Half of an answer."""
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    return END


def garbage(connection, _):
    connection.send("SECRET\r\n\r\n")
    return END


def huge_body(connection, _):
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + "x" * 9000000)
    return END


def huge_head(connection, _):
    connection.send("HTTP/1.1 200 OK\r\n" + "X-More: yes\r\n" * 10000 + "Content-Length: 0\r\n\r\n")
    return END


class Hang:
    """Reads, and answers no more until it is let go; then the connection is over."""

    def __init__(self, head=""):
        self.head, self.here, self.go = head, threading.Event(), threading.Event()

    def __call__(self, connection, _):
        connection.send(self.head)
        self.here.set()
        self.go.wait(60)
        return END

"""GET /events/stream: the trail, live."""

import contextlib
import http.client
import json
import socket
import threading
import urllib.error

import pytest

from backend import ok
from support import new_id, segments, wait_for
from test_proof import calls


class Socket(http.client.HTTPConnection):
    """HTTP over a Unix socket, of which the kernel holds little."""

    def __init__(self, path):
        super().__init__("localhost", timeout=60)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self.path)


class Stream:
    def __init__(self, sidecar, query="", over=None):
        self.connection = over or http.client.HTTPConnection(
            "127.0.0.1", sidecar.ports["admin"], timeout=60)
        self.connection.request("GET", f"/events/stream?{query}", headers={"Host": "localhost"})
        self.sock = self.connection.sock  # which the connection gives up to the response
        self.response = self.connection.getresponse()
        self.comments = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.response.close()
        self.connection.close()

    def next(self):
        """The fields of the next event; None at the end of the stream."""
        fields = {}
        while line := self.response.readline():
            if line == b"\n" and fields:
                return fields
            if line.startswith(b": "):
                self.comments += 1
            elif line != b"\n":
                name, value = line.rstrip(b"\n").split(b": ", 1)
                fields[name.decode()] = value
        assert not fields
        return None

    def row(self):
        event = self.next()
        assert event["event"] == b"row"
        assert json.loads(event["data"])["trail"]["seq"] == int(event["id"])
        return event["data"]

    def begin(self):
        """It is there before what is done next."""
        assert self.response.readline() == b": \n"
        assert (self.response.status, self.response.getheader("Content-Type"),
                self.response.getheader("Cache-Control")) == (200, "text/event-stream", "no-store")
        return self


def lines(sidecar):
    """The rows that a stream of it all has."""
    whole = b"".join(s.read_bytes() for s in segments(sidecar.trail_dir))
    return [line for line in whole.splitlines() if json.loads(line).get("kind") != "intent"]


def read_on(sidecar, rows, last):
    """Rows from the next one to the last one, however many streams that takes."""
    gaps = 0
    while not rows or rows[-1] != last:
        cursor = json.loads(rows[-1])["trail"]["seq"] + 1 if rows else 1
        with Stream(sidecar, f"cursor={cursor}").begin() as stream:
            while (event := stream.next()) is not None:
                if event["event"] == b"gap":
                    gaps += 1
                    continue
                rows.append(event["data"])
                if event["data"] == last:
                    break
    return gaps


def test_what_becomes_durable_is_shown(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(ok()))
    sidecar.call("GET", "/api/v2/keys", {"Correlation-Id": new_id()})
    with Stream(sidecar).begin() as stream, \
            Stream(sidecar, "action=kms.secrets.delete&outcome=success").begin() as deleted, \
            Stream(sidecar, "cursor=1").begin() as whole:
        access = sidecar.wait_own("keytrail.access", 3)
        assert [(e["details"]["page"], e["details"]["filter"]) for e in access] == [
            ("/events/stream", ""), ("/events/stream", "action, outcome"),
            ("/events/stream", "cursor")]
        correlation = new_id()
        key = f"/api/v2/keys/{new_id()}"
        assert sidecar.call("DELETE", key, {"Correlation-Id": correlation}).status == 200
        row = deleted.row()
        assert json.loads(row) == sidecar.event(correlation)
        wanted = lines(sidecar)
        assert [whole.row() for _ in wanted] == wanted
        begun = wanted.index(row)
        assert any(stream.row() == row for _ in range(begun + 1))


def test_under_load_it_is_the_trail(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(ok()), {"audit": {"segment_size": 65536, "ring_size": 65536}})
    workers = [threading.Thread(target=calls, args=(sidecar, 1500)) for _ in range(2)]
    for w in workers:
        w.start()
    rows = []
    with Stream(sidecar, "cursor=1").begin() as stream:
        while len(rows) < 2000 and (event := stream.next()) is not None:
            if event["event"] == b"row":
                rows.append(event["data"])
    for w in workers:
        w.join()
    correlation = new_id()
    sidecar.call("GET", "/api/v2/keys", {"Correlation-Id": correlation})
    sidecar.event(correlation)
    last = next(line for line in lines(sidecar) if correlation.encode() in line)
    read_on(sidecar, rows, last)
    wanted = lines(sidecar)
    assert rows == wanted[:wanted.index(last) + 1]


def test_who_reads_too_slowly_is_told_and_goes_on_from_there(keytrail, raw_backend, tmp_path):
    # Calls that wait for no disk: who reads nothing for 30 s is sent away.
    sidecar = keytrail(raw_backend(ok()), {
        "audit": {"guarantee": "async"}, "admin": {"socket": str(tmp_path / "s")}})
    with Stream(sidecar, over=Socket(tmp_path / "s")).begin() as stream:
        calls(sidecar, 3000)
        correlation = new_id()
        sidecar.call("GET", "/api/v2/keys", {"Correlation-Id": correlation})
        sidecar.event(correlation)
        rows, gap = [], None
        while (event := stream.next()) is not None:
            if event["event"] == b"gap":
                gap = json.loads(event["data"])
            else:
                assert gap is None
                rows.append(event["data"])
    wanted = [line for line in lines(sidecar)
              if json.loads(line)["trail"]["seq"] >= json.loads(rows[0])["trail"]["seq"]]
    assert len(rows) < len(wanted) - 1000 and rows == wanted[:len(rows)]
    assert int(gap["next"]) <= json.loads(wanted[len(rows)])["trail"]["seq"]
    with Stream(sidecar, f"cursor={gap['next']}").begin() as stream:
        rest = [stream.row() for _ in wanted[len(rows):]]
    assert rows + rest == wanted


def test_silence_is_filled_and_ends_nothing(keytrail):
    """Longer than the five seconds that end a connection on which nothing is asked."""
    sidecar = keytrail(None)
    with Stream(sidecar, "action=nothing").begin() as stream:
        for _ in range(5):
            line = b"\n"
            while line == b"\n":
                line = stream.response.readline()
            assert line == b": \n"


def test_there_are_eight_at_a_time_two_of_them_over_the_socket(keytrail, tmp_path):
    sidecar = keytrail(None, {"admin": {"address": "127.0.0.1:0", "token": None, "socket": str(tmp_path / "s")}})

    def refusal(query=""):
        with pytest.raises(urllib.error.HTTPError) as refused:
            sidecar.fetch("admin", f"/events/stream?{query}")
        return refused.value.code

    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(Stream(sidecar).begin()) for _ in range(6)]
        with Stream(sidecar) as seventh:
            assert seventh.response.status == 503
        for _ in range(2):
            stack.enter_context(Stream(sidecar, over=Socket(tmp_path / "s")).begin())
        with Stream(sidecar, over=Socket(tmp_path / "s")) as ninth:
            assert ninth.response.status == 503
        streams[0].__exit__()

        def again():
            stream = Stream(sidecar)
            return stream.response.status == 200 and stack.enter_context(stream)
        wait_for(again, "the place of one who left")
        assert refusal() == 503
    for query in "limit=1", "since=1", "until=9", "cursor=c4n4ry", "c4n4ry=1":
        assert refusal(query) == 400


def test_a_stop_ends_them_and_clients_that_go_away_harm_nobody(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(ok()))
    for i in range(40):
        with contextlib.suppress(http.client.HTTPException, ConnectionError):
            with Stream(sidecar, "cursor=1") as stream:
                if i % 2:
                    stream.sock.setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wait_for(lambda: sidecar.call("GET", "/api/v2/keys").status == 200, "an answer")
    with contextlib.ExitStack() as stack:
        def opened():
            stream = Stream(sidecar, "cursor=1")
            return stream.response.status == 200 and stack.enter_context(stream)
        streams = [wait_for(opened, "a place") for _ in range(6)]
        sidecar.stop()
        for stream in streams:
            with contextlib.suppress(http.client.HTTPException, ConnectionError):
                while stream.next() is not None:
                    pass

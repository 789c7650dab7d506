"""The far sides of the sinks, each of which a test starts, breaks and reads."""

import gzip
import json
import os
import re
import signal
import socket
import subprocess
import threading
from pathlib import Path

import kafka
from backend import RawBackend, ok
from support import free_ports, wait_for


class Peer:
    """One of them.  Its address stays the same whatever becomes of it."""

    name = ""
    network = True  # else it has nothing that could die
    keeps = True    # nothing that was sent while it is away is gone
    can = frozenset(("dead", "dies", "hangs", "poison"))

    def __init__(self, folder, pki):
        self.folder = Path(folder)
        self.folder.mkdir()
        self.pki = pki

    def sink(self):
        """Members of the sink's configuration, without its name."""
        raise NotImplementedError

    def changed(self):
        """The same, of another setting, for which the sink is opened anew."""
        raise NotImplementedError

    def attach(self, sidecar):
        """Before the sidecar starts."""

    def start(self):
        """Go on with what it had received."""

    def stop(self):
        """Orderly."""

    def kill(self):
        """At once, whatever is under way."""

    def hang(self):
        """Connections stay, nothing is read or answered."""

    def resume(self):
        """After a hang."""

    def poison(self, correlation):
        """Events with this correlation ID cannot be delivered from now on; fields that their calls
        carry for that."""
        return {}

    def received(self):
        """Of each arrival, in order, repeats too: log, boot, seq, prev, hash, stub; and None for
        prev and hash where they do not travel along."""
        raise NotImplementedError

    def close(self):
        """The end: nothing stays."""


def of_event(event):
    """What a line in the default format says of itself."""
    delivery = event.get("delivery", {})
    return {"log": event["trail"]["log"], "boot": event["trail"]["boot"],
            "seq": event["trail"]["seq"], "prev": delivery.get("prev"),
            "hash": delivery.get("hash"), "stub": delivery.get("stub", False)}


def whole_lines(path):
    """Of a file that somebody writes, or has not made yet."""
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


class File(Peer):
    """Dead while its folder is missing."""

    name = "file"
    can = frozenset(("dead",))

    def __init__(self, folder, pki):
        super().__init__(folder, pki)
        self.path = self.folder / "there" / "events.jsonl"

    def sink(self):
        return {"type": "file", "path": str(self.path)}

    def changed(self):
        return {**self.sink(), "rotate_size": "1TiB"}

    def start(self):
        self.path.parent.mkdir(exist_ok=True)

    def received(self):
        return [of_event(json.loads(line)) for line in whole_lines(self.path)]


class Stdout(Peer):
    """Whoever reads the sidecar's standard output; dead while nobody does."""

    name = "stdout"
    network = False
    can = frozenset(("dead", "hangs"))

    def __init__(self, folder, pki):
        super().__init__(folder, pki)
        self.read, self.write = os.pipe()
        self.lines = []
        self.rest = b""
        self.reads = threading.Event()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        """Until the sidecar has ended."""
        while self.reads.wait() and (piece := os.read(self.read, 65536)):
            *lines, self.rest = (self.rest + piece).split(b"\n")
            self.lines.extend(lines)
        os.close(self.read)

    def attach(self, sidecar):
        sidecar.stdout_file = f"/dev/fd/{self.write}"

    def sink(self):
        return {"type": "stdout"}

    def changed(self):
        return {**self.sink(), "intents": True}

    def start(self):
        self.reads.set()

    def hang(self):
        self.reads.clear()

    def resume(self):
        self.reads.set()

    def received(self):
        return [of_event(json.loads(line)) for line in list(self.lines)]

    def close(self):
        os.close(self.write)
        self.reads.set()


class Rsyslog(Peer):
    """rsyslog, which writes messages as they came."""

    driver = 'module(load="imtcp" maxSessions="2000")'
    listen = 'input(type="imtcp" address="127.0.0.1" port="{port}")'
    kind = socket.SOCK_STREAM
    transport = "tcp"

    def __init__(self, folder, pki):
        super().__init__(folder, pki)
        self.port, = free_ports(1)
        self.process = None
        (self.folder / "work").mkdir()
        (self.folder / "rsyslog.conf").write_text(
            'global(workDirectory="{0}/work" maxMessageSize="64k"{1})\n{2}\n'
            'template(name="raw" type="string" string="%rawmsg%\\n")\n'
            '{3}\naction(type="omfile" file="{0}/received" template="raw")\n'
            .format(self.folder, self.settings(), self.driver, self.listen.format(port=self.port)))

    def settings(self):
        return ""

    def sink(self):
        return {"type": "syslog", "address": f"127.0.0.1:{self.port}", "transport": self.transport}

    def changed(self):
        return {**self.sink(), "max_datagram": "16KiB"}

    def start(self):
        with open(self.folder / "output", "ab") as out:
            self.process = subprocess.Popen(
                ["/usr/sbin/rsyslogd", "-n", "-f", self.folder / "rsyslog.conf", "-i", self.folder / "pid"],
                stdout=out, stderr=out, start_new_session=True)
        wait_for(self.listens, "rsyslogd to listen: " + (self.folder / "output").read_text())

    def listens(self):
        assert self.process.poll() is None, (self.folder / "output").read_text()
        table = Path("/proc/net/tcp" if self.kind == socket.SOCK_STREAM else "/proc/net/udp")
        state = "0A" if self.kind == socket.SOCK_STREAM else "07"
        wanted = re.compile(rf"^\s*\d+: 0100007F:{self.port:04X} 0{{8}}:0{{4}} {state} ", re.M)
        return wanted.search(table.read_text())

    def end(self, number):
        if self.process is None:
            return
        self.process.send_signal(number)
        self.process.wait(20)
        self.process = None

    def stop(self):
        self.end(signal.SIGTERM)

    def kill(self):
        """What it has read it writes; what it has not, nobody does.  Of what a SIGKILL would lose of
        the former nobody could tell."""
        self.stop()

    def hang(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def received(self):
        return [self.of_message(line) for line in whole_lines(self.folder / "received")
                if b" keytrail " in line]

    @staticmethod
    def of_message(line):
        data = re.search(rb"\[keytrail@32473 ((?:[a-z]+=\"(?:[^\"\\\]]|\\[\"\\\]])*\" ?)+)\] ", line)
        said = dict(re.findall(r'([a-z]+)="((?:[^"\\\]]|\\["\\\]])*)"', data[1].decode()))
        event = json.loads(line[data.end():].removeprefix(b"\xef\xbb\xbf"))
        assert event["trail"]["seq"] == int(said["seq"])
        return {"log": said["log"], "boot": said["boot"], "seq": int(said["seq"]),
                "prev": int(said["prev"]), "hash": said["hash"], "stub": "stub" in said}

    def close(self):
        self.end(signal.SIGKILL)


class SyslogTcp(Rsyslog):
    name = "syslog tcp"
    can = frozenset(("dead", "dies", "hangs"))


class SyslogTls(Rsyslog):
    name = "syslog tls"
    can = frozenset(("dead", "dies", "hangs"))
    transport = "tls"
    driver = ('module(load="imtcp" maxSessions="2000" streamDriver.name="ossl" streamDriver.mode="1" '
              'streamDriver.authMode="x509/certvalid")')

    def settings(self):
        return (f' defaultNetstreamDriver="ossl" defaultNetstreamDriverCAFile="{self.pki["ca.pem"]}"'
                f' defaultNetstreamDriverCertFile="{self.pki["server.pem"]}"'
                f' defaultNetstreamDriverKeyFile="{self.pki["server.key"]}"')

    def sink(self):
        """By its name, which its certificate has, too."""
        return {**super().sink(), "address": f"localhost:{self.port}",
                "tls": {"ca": self.pki["ca.pem"], "certificate": self.pki["client.pem"],
                        "key": self.pki["client.key"]}}


class SyslogUdp(Rsyslog):
    name = "syslog udp"
    keeps = False
    can = frozenset(("dead", "poison"))
    driver = 'module(load="imudp")'
    listen = 'input(type="imudp" address="127.0.0.1" port="{port}")'
    kind = socket.SOCK_DGRAM
    transport = "udp"

    def sink(self):
        return {**super().sink(), "max_datagram": 1450}

    def poison(self, correlation):
        return {"User-Agent": "agent/1.0 " * 12}  # too long


class Http(Peer):
    """A server that takes lines of JSON."""

    name = "http"

    def __init__(self, folder, pki):
        super().__init__(folder, pki)
        self.port, = free_ports(1)
        self.backend = None
        self.going = threading.Event()
        self.going.set()
        self.bad = set()
        self.arrivals = []

    def sink(self):
        return {"type": "http", "url": f"https://localhost:{self.port}/events",
                "tls": {"ca": self.pki["ca.pem"]}}

    def changed(self):
        return {**self.sink(), "compression": "none"}

    def start(self):
        self.backend = RawBackend(self.serve, self.pki.server(), port=self.port)

    def serve(self, connection):
        while (request := connection.read_request()) is not None:
            self.going.wait()
            connection.send(self.answer(request))

    def answer(self, request):
        body = request.body
        if request.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        events = [json.loads(line) for line in body.splitlines()]
        if any(e.get("correlationId") in self.bad for e in events):
            return ok(status="400 Bad Request")
        self.arrivals += map(of_event, events)
        return ok()

    def stop(self):
        if self.backend is not None:
            self.going.set()
            self.backend.close()
            assert self.backend.errors == []
        self.backend = None

    def kill(self):
        self.stop()

    def hang(self):
        self.going.clear()

    def resume(self):
        self.going.set()

    def poison(self, correlation):
        self.bad.add(correlation)
        return {}

    def received(self):
        return list(self.arrivals)

    def close(self):
        self.stop()


class Kafka(Peer):
    """Brokers of librdkafka's mock cluster, which keeps what it has until another client has read it."""

    name = "kafka"
    can = frozenset(("dead", "dies", "hangs"))

    def __init__(self, folder, pki):
        super().__init__(folder, pki)
        self.mock = kafka.Mock(partitions=1)
        self.mock.tell("slow 0 15")  # it keeps 100,000 records alone: who reads must keep up
        self.mock.tell("down 0")
        self.arrivals = []
        self.reader = None
        self.over = False
        self.thread = threading.Thread(target=self.read)
        self.thread.start()

    def sink(self):
        return {k: v for k, v in kafka.sink(self.mock.brokers).items() if k != "name"}

    def changed(self):
        return {**self.sink(), "compression": "lz4"}

    def start(self):
        self.mock.tell("up 0")

    def stop(self):
        self.mock.tell("down 0")

    def kill(self):
        self.stop()

    def hang(self):
        self.mock.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.mock.process.send_signal(signal.SIGCONT)

    def read(self):
        """From where it was, whenever brokers have gone and come."""
        while not self.over:
            self.reader = subprocess.Popen(
                ["kcat", "-C", "-E", "-q", "-u", "-b", self.mock.brokers, "-t", kafka.TOPIC, "-p", "0",
                 "-o", str(len(self.arrivals)), "-X", "fetch.wait.max.ms=10",
                 "-X", "reconnect.backoff.max.ms=200", "-f", "%h\t%s\n"],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
            if self.over:  # since it was looked at
                self.reader.kill()
            with self.reader.stdout as out:
                for line in out:
                    self.arrivals.append(self.of_record(*line.split(b"\t")))
            self.reader.wait()

    @staticmethod
    def of_record(headers, payload):
        said = dict(pair.split("=") for pair in headers.decode().split(","))
        return {"log": said["log"], "boot": said["boot"], "seq": int(said["seq"]),
                "prev": int(said["prev"]), "hash": said["hash"], "stub": b'"stub":true' in payload}

    def received(self):
        return list(self.arrivals)

    def close(self):
        self.resume()
        self.over = True
        wait_for(lambda: self.reader is not None, "the reader")
        self.reader.kill()
        self.thread.join()
        self.mock.close()


PEERS = [File, Stdout, Http, Kafka, SyslogTcp, SyslogTls, SyslogUdp]

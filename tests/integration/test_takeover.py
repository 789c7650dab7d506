"""A new process takes over from the one that runs: no request fails, no event is lost."""

import array
import contextlib
import copy
import itertools
import os
import re
import signal
import socket as sockets
import struct
import subprocess
import threading

import pytest

import http1
from faults import KEYTRAIL_FAULTS, said, wait_said
from oracle import CALLS, CONFIG, Oracle, call_until_gone
from support import KEYTRAIL, PATIENCE, ROOT, merge, new_id, read_lines, wait_for

OLD = "asked", "stopped", "given", "drained"
NEW = "taken", "opened", "before_ready", "after_ready", "ended", "finished"


# ---- processes ----

@pytest.fixture
def processes():
    """What was started and has to end by itself, in the order of starting."""
    left = []
    yield left
    alive = [p.pid for p in left if p.poll() is None]
    for p in left:
        p.kill()
        p.wait()
    assert not alive, f"these had not ended: {alive}"


@pytest.fixture
def upgraded(keytrail, raw_backend, tmp_path, signer, socket, processes):
    """upgraded(config): a sidecar with a signed trail, a sink, a socket, and what is known of it."""
    def make(config=None, start=True, **options):
        oracle = Oracle()
        backend = raw_backend(oracle.script)
        sidecar = keytrail(backend, merge({
            **CONFIG, "audit": {**CONFIG["audit"], "sign": {"file": str(signer[0])}},
            "admin": {"address": "127.0.0.1:0", "token": None, "socket": str(socket)},
            "sinks": [{"name": "out", "type": "file", "path": str(tmp_path / "out.jsonl"),
                       "intents": True}]}, config or {}), start=start, **options)
        sidecar.oracle, sidecar.key, sidecar.sink = oracle, signer[1], tmp_path / "out.jsonl"
        sidecar.backend, sidecar.started = backend, processes
        return sidecar
    return make


def be_another(sidecar, *arguments):
    """What is started next tells of itself in a file of its own."""
    sidecar.stderr_file = sidecar.folder / f"stderr-{new_id()}"
    sidecar.arguments = arguments


def spawn_successor(sidecar, **over):
    """The process that was, as an object of its own; the sidecar is the new one from here on."""
    old = copy.copy(sidecar)
    if sidecar.process is not None:
        sidecar.started.append(sidecar.process)
    be_another(sidecar, "--takeover")
    if over:
        sidecar.write_config(**over)
    return old


def take_over(sidecar, **over):
    old = spawn_successor(sidecar, **over)
    sidecar.start()
    return old


def take_over_in_vain(sidecar, **over):
    """What it says; the sidecar is the old one again."""
    config = sidecar.config
    old = spawn_successor(sidecar, **over)
    try:
        sidecar.spawn()
        assert sidecar.process.wait(PATIENCE) == 1
        return [x for x in sidecar.stderr().splitlines() if not x.startswith("{")][-1]
    finally:
        sidecar.started.remove(old.process)
        sidecar.process, sidecar.stderr_file = old.process, old.stderr_file
        sidecar.config = config
        sidecar.write_config()


def ends_well(old):
    """It drains, says so, and ends."""
    code = old.process.wait(PATIENCE)
    old.check_output()
    return code == 0


# ---- calls ----

class Load:
    """Clients of all kinds; none of their calls may fail."""

    def __init__(self, sidecar, oracle, context):
        self.port, self.oracle, self.context = sidecar.port, oracle, context
        self.failures, self.stopping = [], False
        self.calls = [0] * 6
        self.threads = [threading.Thread(target=self.run, args=(i, i >= 4))
                        for i in range(len(self.calls))]

    def run(self, number, fresh):
        calls = itertools.islice(itertools.cycle(CALLS), number, None)
        try:
            while not self.stopping:
                with http1.Client(self.port, self.context) as client:
                    while not self.stopping and self.call(client, number, next(calls), fresh):
                        pass
        except (OSError, http1.Closed) as e:
            self.failures.append(f"client {number}: {e!r}")

    def call(self, client, number, call, fresh):
        """False: the connection is over."""
        correlation = new_id()
        self.oracle.sent[correlation] = call
        fields = {"Correlation-Id": correlation, **({"Connection": "close"} if fresh else {})}
        r = client.request(call.method, call.path, fields, call.body)
        if r.status != 200:
            self.failures.append(f"client {number}: {r}")
        self.oracle.answered[correlation] = r.status
        self.calls[number] += 1
        return r.get("Connection") != "close"

    def beat(self, n=20):
        """Each of them has made so many calls more, or failed."""
        wanted = [c + n for c in self.calls]
        wait_for(lambda: self.failures or all(a >= b for a, b in zip(self.calls, wanted)),
                 "the clients")

    def __enter__(self):
        for t in self.threads:
            t.start()
        self.beat()
        return self

    def __exit__(self, *unused):
        self.stopping = True
        for t in self.threads:
            t.join()


class Watch:
    """Who watches finds somebody at every instant."""

    def __init__(self, sidecar):
        self.ports, self.failures, self.stopping = sidecar.ports, [], False
        self.thread = threading.Thread(target=self.run)

    def run(self):
        for name, path in itertools.cycle((("metrics", "/metrics"), ("admin", "/status"),
                                           ("metrics", "/readyz"))):
            if self.stopping:
                return
            # An answer that is under way may be cut; who asks again has it.
            if not any(self.ask(name, path) for _ in range(2)):
                self.failures.append((name, path))

    def ask(self, name, path):
        with contextlib.suppress(http1.Closed, ConnectionError), \
                http1.Client(self.ports[name]) as client:
            return client.request("GET", path, {"Connection": "close"}).status == 200
        return False

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *unused):
        self.stopping = True
        self.thread.join()


def verify(sidecar):
    done = subprocess.run([KEYTRAIL, "verify", sidecar.trail_dir, "--key", sidecar.key],
                          capture_output=True, text=True, timeout=PATIENCE)
    return done.returncode, done.stdout + done.stderr


def check(sidecar, unknown=0):
    """Of a trail at rest: each call once, all of it signed, and delivered in its order."""
    assert sidecar.oracle.check(sidecar.events()) <= unknown
    assert verify(sidecar)[0] == 0, verify(sidecar)
    lines = read_lines(sidecar.trail_dir)
    delivered = sidecar.sink.read_bytes().split(b"\n")[:-1]
    if unknown == 0:
        assert delivered == lines
    seen = set()
    firsts = [line for line in delivered if not (line in seen or seen.add(line))]
    assert firsts == lines  # at least once, and nothing is passed over
    for name in os.listdir(sidecar.trail_dir):
        assert not re.fullmatch(r"ring\.\d{4,}|takeover(\.new)?", name)


def take_over_under(load, sidecar, **over):
    """With calls after it, and the one before has ended well."""
    old = take_over(sidecar, **over)
    load.beat()
    assert ends_well(old)


def stop_and_check(sidecar, load):
    assert not load.failures
    sidecar.stop()
    check(sidecar)


# ---- the course of it ----

@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
def test_nothing_fails_and_nothing_is_lost(upgraded, pki, tls):
    sidecar = upgraded({} if tls else {"listen": {"tls": None}})
    with Load(sidecar, sidecar.oracle, pki.client() if tls else None) as load, Watch(sidecar) as watch:
        for _ in range(2):
            old = take_over(sidecar)
            load.beat()
            assert not load.failures
            assert ends_well(old)
            load.beat()
    assert not load.failures and not watch.failures
    sidecar.stop()
    check(sidecar)
    assert [e["details"]["takeover"] for e in sidecar.own("keytrail.start")] == [False, True, True]
    assert all(e["details"]["clean"] for e in sidecar.own("keytrail.start"))
    assert len(sidecar.own("keytrail.stop")) == 3
    assert not sidecar.own("keytrail.recover") and not sidecar.own("keytrail.loss")
    if tls:
        assert said(old, "taken_over")


def test_a_call_that_was_under_way_is_answered_by_who_had_it(upgraded):
    """Its body comes slowly; the connection is not for another one."""
    sidecar = upgraded()
    sent = [new_id() for _ in range(3)]
    for correlation in sent:
        sidecar.oracle.sent[correlation] = CALLS[1]
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(sidecar.client()) for _ in sent]
        for c, correlation in zip(clients, sent):
            c.send(f"POST {CALLS[1].path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
                   f"Correlation-Id: {correlation}\r\n\r\n12")
        idle = stack.enter_context(sidecar.client())
        assert idle.request("GET", "/api/v2/keys", {"Correlation-Id": one(sidecar, 0)}).status == 200
        old = take_over(sidecar)
        wait_said(old, "taken_over")
        for c, correlation in zip(clients, sent):
            c.send("345")
            r = c.read_response("POST")
            assert r.status == 200 and r.get("Connection") == "close"
            sidecar.oracle.answered[correlation] = 200
            assert c.is_closed()
        assert old.process.poll() is None
        r = idle.request("GET", "/api/v2/keys", {"Correlation-Id": one(sidecar, 0)})
        assert r.status == 200 and r.get("Connection") == "close" and idle.is_closed()
        assert ends_well(old)
    sidecar.stop()
    check(sidecar)


def one(sidecar, kind):
    """The correlation ID of a call that is going to be made, and answered."""
    correlation = new_id()
    sidecar.oracle.sent[correlation] = CALLS[kind]
    return correlation


def test_who_stays_idle_is_waited_for_as_long_as_at_a_stop(upgraded):
    sidecar = upgraded({"timeouts": {"drain": "1s"}})
    with sidecar.client() as idle, sidecar.client() as asked:
        for c in (idle, asked):
            assert c.request("GET", "/api/v2/keys", {"Correlation-Id": one(sidecar, 0)}).status == 200
        old = take_over(sidecar)
        assert idle.is_closed() and asked.is_closed()
        assert ends_well(old)
    sidecar.stop()
    check(sidecar)


def test_nobody_has_to_be_there(upgraded):
    """The first start is as any."""
    sidecar = upgraded(start=False)
    spawn_successor(sidecar)
    sidecar.start()
    wait_said(sidecar, "nobody_to_take_over")
    sidecar.stop()
    sidecar.start()
    assert [e["details"]["takeover"] for e in sidecar.own("keytrail.start")] == [False, False]
    sidecar.stop()
    check(sidecar)


@pytest.mark.parametrize("workers", [(1, 3), (3, 1)])
def test_the_number_of_workers_may_be_another(upgraded, pki, workers):
    sidecar = upgraded({"workers": workers[0]})
    with Load(sidecar, sidecar.oracle, pki.client()) as load:
        take_over_under(load, sidecar, workers=workers[1])
    stop_and_check(sidecar, load)


def test_sinks_may_be_others(upgraded, pki, tmp_path):
    sidecar = upgraded()
    new = tmp_path / "new.jsonl"
    sinks = sidecar.config["sinks"] + [{"name": "new", "type": "file", "path": str(new), "intents": True}]
    with Load(sidecar, sidecar.oracle, pki.client()) as load:
        take_over_under(load, sidecar, sinks=sinks)
    stop_and_check(sidecar, load)
    lines = new.read_bytes().split(b"\n")[:-1]
    assert lines and lines == read_lines(sidecar.trail_dir)[-len(lines):]


def test_what_operators_do_outlives_it(upgraded, socket):
    """The socket is the same one, and so are the holds."""
    sidecar = upgraded()
    inode = socket.stat().st_ino
    subprocess.run([KEYTRAIL, "hold", "add", "case-1", "--from", "1", "--to", "2", sidecar.file], check=True)
    old = take_over(sidecar)
    assert ends_well(old)
    assert socket.stat().st_ino == inode
    listed = subprocess.run([KEYTRAIL, "hold", "list", sidecar.file], check=True, text=True,
                            stdout=subprocess.PIPE).stdout
    assert listed == "case-1 1 2\n"
    sidecar.stop()
    assert not socket.exists()
    check(sidecar)


# ---- refusals ----

@pytest.mark.parametrize("name, over", [
    ("listen", {"listen": {"address": "127.0.0.2:0"}}),
    ("metrics", {"metrics": {"address": "127.0.0.2:0"}}),
    ("metrics", {"metrics": None}),
    ("admin", {"admin": {"address": "127.0.0.2:0"}}),
    ("admin", {"admin": {"socket": "/tmp/another.sock"}}),
], ids=lambda v: v if isinstance(v, str) else next(iter(v)))
def test_another_address_is_refused_before_anything_is_given(upgraded, pki, name, over):
    sidecar = upgraded()
    with Load(sidecar, sidecar.oracle, pki.client()) as load:
        words = take_over_in_vain(sidecar, **over)
        assert "refuses" in words and name in words
        load.beat()
        wait_said(sidecar, "takeover_refused")
        take_over_under(load, sidecar)
    stop_and_check(sidecar, load)


def test_addresses_that_are_too_long_to_be_compared_are_refused(upgraded):
    sidecar = upgraded()
    name = ".".join(["a" * 60] * 4)
    over = {part: {"address": f"{name}:1"} for part in ("listen", "metrics")}
    assert "too long to be compared" in take_over_in_vain(sidecar, **over)


def test_one_that_has_not_ended_is_waited_for(upgraded):
    """The next takeover comes too early as long as somebody is idle with the one before it."""
    sidecar = upgraded({"timeouts": {"drain": "1h"}})
    with sidecar.client() as idle:
        assert idle.request("GET", "/api/v2/keys", {"Correlation-Id": one(sidecar, 0)}).status == 200
        old = take_over(sidecar)
        assert "refuses" in take_over_in_vain(sidecar)
        assert old.process.poll() is None
    assert ends_well(old)
    wait_said(sidecar, "predecessor_ended")
    old = take_over(sidecar)
    assert ends_well(old)
    sidecar.stop()
    check(sidecar)


def test_several_at_once_are_one_after_the_other(upgraded, pki):
    """Or say why they are not; one is left."""
    sidecar = upgraded({"timeouts": {"drain": "1h"}})
    with Load(sidecar, sidecar.oracle, pki.client()) as load:
        old, rest = copy.copy(sidecar), []
        command = [sidecar.program, "run", sidecar.file, "--takeover"]
        sidecar.started.append(old.process)
        for i in range(4):
            with open(sidecar.folder / f"stderr-of-{i}", "wb") as err:
                rest.append(subprocess.Popen(command, stderr=err, env=sidecar.environment,
                                             cwd=sidecar.folder, start_new_session=True))
        sidecar.started += rest
        wait_for(lambda: sum(p.poll() is None for p in rest) == 1, "all but one to give up")
        assert ends_well(old)
        load.beat()
        assert not load.failures
    place = next(i for i, p in enumerate(rest) if p.poll() is None)
    assert all(p.poll() in (0, 1) for i, p in enumerate(rest) if i != place)
    sidecar.process, sidecar.stderr_file = rest[place], sidecar.folder / f"stderr-of-{place}"
    sidecar.stop()
    check(sidecar)


def test_not_while_it_is_degraded(upgraded):
    sidecar = upgraded()
    subprocess.run([KEYTRAIL, "degrade", sidecar.file, "--for", "1h", "--reason", "a test"], check=True,
                   stdout=subprocess.DEVNULL)
    assert "degraded" in take_over_in_vain(sidecar)
    subprocess.run([KEYTRAIL, "degrade", sidecar.file, "--end"], check=True, stdout=subprocess.DEVNULL)
    assert ends_well(take_over(sidecar))
    sidecar.stop()
    check(sidecar)


def test_not_while_the_trail_cannot_be_written(upgraded, disk):
    sidecar = upgraded(environment=disk.environment)
    sidecar.wait_own("keytrail.checkpoint")  # so that the call meets the fault first, and waits in its ring
    disk.set("write *.jsonl ENOSPC")
    correlation = one(sidecar, 0)
    assert sidecar.call("GET", "/api/v2/keys", {"Correlation-Id": correlation}).status == 200
    sidecar.oracle.answered[correlation] = 200
    wait_for(lambda: sidecar.metric("keytrail_trail_failures_total") > 0, "the disk to be full")
    assert "refuses" in take_over_in_vain(sidecar)
    disk.clear()
    wait_for(lambda: sidecar.event(correlation), "the disk to have room")
    assert ends_well(take_over(sidecar))
    sidecar.stop()
    check(sidecar)


@pytest.mark.parametrize("rule", ["allocate */ring.0 ENOSPC", "open */ring.1000 EIO", "open *.jsonl EIO"])
def test_a_successor_that_cannot_begin_is_none(upgraded, pki, disk, rule):
    """The disk fails it alone: the one before goes on."""
    sidecar = upgraded()
    disk.set(rule)
    with Load(sidecar, sidecar.oracle, pki.client()) as load:
        before = sidecar.environment
        sidecar.environment = {**before, **disk.environment}
        words = take_over_in_vain(sidecar)
        sidecar.environment = before
        assert "error" in words or "space" in words
        wait_said(sidecar, "takeover_failed")
        load.beat()
        take_over_under(load, sidecar)
    stop_and_check(sidecar, load)


def test_a_configuration_that_is_wrong_harms_nobody(upgraded):
    sidecar = upgraded()
    config = sidecar.config
    old = spawn_successor(sidecar, listen={"tls": {"certificate": "/nonexistent"}})
    sidecar.spawn()
    assert sidecar.process.wait(PATIENCE) == 78
    sidecar.started.remove(old.process)
    sidecar.process, sidecar.stderr_file, sidecar.config = old.process, old.stderr_file, config
    sidecar.write_config()
    assert sidecar.call("GET", "/api/v2/keys", {"Correlation-Id": one(sidecar, 0)}).status == 200
    assert not said(sidecar, "takeover_refused")
    sidecar.stop()
    check(sidecar)


def test_who_talks_nonsense_harms_nobody(upgraded):
    sidecar = upgraded()
    for words in (b"", b"x", os.urandom(536), b"keytrail" + os.urandom(528), bytes(60000)):
        with sockets.socket(sockets.AF_UNIX, sockets.SOCK_SEQPACKET) as s:
            folder = os.open(sidecar.trail_dir, os.O_PATH)
            s.connect(f"/proc/self/fd/{folder}/takeover")
            os.close(folder)
            s.send(words)
            s.settimeout(PATIENCE)
            with contextlib.suppress(ConnectionError):
                while s.recv(65536):
                    pass
    assert ends_well(take_over(sidecar))
    sidecar.stop()
    check(sidecar)


# ---- a successor of the test's own ----

LOCK, LISTEN = 0, 1


class Successor:
    """Is told what it has to say by being refused; then it has what was given."""

    def __init__(self, sidecar):
        self.sidecar = sidecar
        versions = [int(n) for n in re.findall(r"state (\d+), rings (\d+)", self.refused(0, 0, ""))[0]]
        terms = re.search(r'it has "(.*)", the successor', self.refused(*versions, "")).group(1)
        self.socket = self.say(*versions, terms)
        answer, control, _, _ = self.socket.recvmsg(2048, 1024)
        assert self.kind(answer) == 3, answer
        fds = array.array("i", control[0][2])
        self.fds = dict(zip(answer[20:], fds))
        self.rings = struct.unpack_from("=I", answer, 16)[0]

    @staticmethod
    def kind(packet):
        return struct.unpack_from("=8sII", packet)[2]

    def say(self, state, rings, terms):
        s = sockets.socket(sockets.AF_UNIX, sockets.SOCK_SEQPACKET)
        s.settimeout(PATIENCE)
        folder = os.open(self.sidecar.trail_dir, os.O_PATH)
        s.connect(f"/proc/self/fd/{folder}/takeover")
        os.close(folder)
        s.send(struct.pack("=8sIIII512s", b"keytrail", 1, 1, state, rings, terms.encode()))
        return s

    def refused(self, *hello):
        with self.say(*hello) as s:
            answer = s.recv(2048)
        assert self.kind(answer) == 2
        return answer[16:].split(b"\0")[0].decode()

    def ready(self):
        self.socket.send(struct.pack("=8sII", b"keytrail", 1, 4))

    def has_ended(self):
        return self.socket.recv(1) == b""

    def serves(self):
        """Is what was given a listener that works?"""
        with sockets.socket(fileno=os.dup(self.fds[LISTEN])) as listener, \
                sockets.create_connection(("127.0.0.1", self.sidecar.port), timeout=PATIENCE):
            listener.settimeout(PATIENCE)
            listener.accept()[0].close()
        return True

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.socket.close()
        for fd in self.fds.values():
            os.close(fd)


def test_a_successor_that_goes_leaves_all_as_it_was(upgraded, pki):
    sidecar = upgraded()
    with Load(sidecar, sidecar.oracle, pki.client()) as load:
        for n in range(1, 4):
            with Successor(sidecar) as successor:
                assert successor.rings == sidecar.config["workers"] + 1
            wait_for(lambda: len(said(sidecar, "takeover_failed")) == n, "the old one to go on")
            load.beat()
        take_over_under(load, sidecar)
    stop_and_check(sidecar, load)


def test_a_successor_that_hangs_is_named_until_it_ends(upgraded):
    sidecar = upgraded()
    with Successor(sidecar):
        wait_for(lambda: len(said(sidecar, "takeover_hangs")) > 1, "it to be told of again")
    assert said(sidecar, "takeover_hangs")[0].startswith(f"process {os.getpid()} was given the trail")
    wait_said(sidecar, "takeover_failed")
    assert sidecar.call("GET", "/api/v2/keys").status == 200
    assert ends_well(take_over(sidecar))
    sidecar.stop()


def test_a_stop_between_leaves_the_listeners_to_the_successor(upgraded):
    sidecar = upgraded()
    with Successor(sidecar) as successor:
        sidecar.signal(signal.SIGTERM)
        assert sidecar.process.wait(PATIENCE) == 0 and successor.has_ended()
        assert successor.serves()
    sidecar.start()  # finds what it has left in its rings
    sidecar.stop()
    assert len(sidecar.own("keytrail.stop")) == 2
    check(sidecar)


def test_who_is_ready_alone_accepts(upgraded):
    sidecar = upgraded()
    with Successor(sidecar) as successor:
        assert sidecar.call("GET", "/api/v2/keys", {"Correlation-Id": one(sidecar, 0)}).status == 200
        successor.ready()
        assert sidecar.process.wait(PATIENCE) == 0 and successor.has_ended()
        assert successor.serves()
    sidecar.start()
    sidecar.stop()
    check(sidecar)


def test_nobody_else_has_the_trail_meanwhile(upgraded, keytrail):
    """The lock is the successor's, though the process that took it has ended."""
    sidecar = upgraded()
    with Successor(sidecar) as successor:
        successor.ready()
        assert sidecar.process.wait(PATIENCE) == 0
        be_another(sidecar)
        assert not sidecar.spawn_and_listen()
        assert "locked" in sidecar.stderr().splitlines()[-1]
    be_another(sidecar)
    sidecar.start()
    sidecar.stop()
    check(sidecar)


# ---- signals ----

@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_hurries_who_drains(upgraded, number):
    sidecar = upgraded({"timeouts": {"drain": "1h"}})
    with sidecar.client() as idle:
        assert idle.request("GET", "/api/v2/keys", {"Correlation-Id": one(sidecar, 0)}).status == 200
        old = take_over(sidecar)
        wait_said(old, "taken_over")
        old.signal(number)
        assert ends_well(old) and idle.is_closed()
    sidecar.stop()
    check(sidecar)


def test_who_drains_reloads_nothing(upgraded):
    sidecar = upgraded({"timeouts": {"drain": "1h"}})
    with sidecar.client() as idle:
        assert idle.request("GET", "/api/v2/keys", {"Correlation-Id": one(sidecar, 0)}).status == 200
        old = take_over(sidecar)
        wait_said(old, "taken_over")
        for number in (signal.SIGUSR1, signal.SIGHUP):
            old.signal(number)
        assert [e["outcome"] for e in sidecar.wait_own("keytrail.reload")] == ["failure"]
        assert sidecar.reload()["outcome"] == "success"
        r = idle.request("GET", "/api/v2/keys", {"Correlation-Id": one(sidecar, 0)})
        assert r.status == 200
    assert ends_well(old)
    assert len(sidecar.own("keytrail.reload")) == 2
    sidecar.stop()
    check(sidecar)


def test_who_drains_takes_the_trail_back_from_one_that_stops(upgraded):
    """A call that it has is recorded all the same, and nothing twice."""
    sidecar = upgraded({"timeouts": {"drain": "1h"}})
    with sidecar.client() as c:
        correlation = one(sidecar, 1)
        c.send(f"POST {CALLS[1].path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
               f"Correlation-Id: {correlation}\r\n\r\n1")
        old = take_over(sidecar)
        wait_said(old, "taken_over")
        sidecar.stop()
        c.send("2")
        assert c.read_response("POST").status == 200
        sidecar.oracle.answered[correlation] = 200
        assert ends_well(old)
    assert len(sidecar.own("keytrail.stop")) == 2
    check(sidecar)


def test_a_stop_of_both_is_a_stop(upgraded, pki):
    """As systemd does, which knows both."""
    sidecar = upgraded({"timeouts": {"drain": "1h"}})
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            c = stack.enter_context(sidecar.client())
            assert c.request("GET", "/api/v2/keys", {"Correlation-Id": one(sidecar, 0)}).status == 200
        old = take_over(sidecar)
        old.signal(signal.SIGTERM)
        sidecar.stop()
        assert ends_well(old)
    be_another(sidecar)
    sidecar.start()
    sidecar.stop()
    check(sidecar)


# ---- deaths ----

@contextlib.contextmanager
def clients(sidecar):
    """Some, who go when the sidecar does; whoever serves next is found again."""
    def run(number):
        while not stopping.is_set():
            call_until_gone(sidecar, sidecar.oracle, number, stopping.is_set)

    stopping = threading.Event()
    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    try:
        yield
    finally:
        stopping.set()
        for t in threads:
            t.join()


def make_more_calls(sidecar):
    before = len(sidecar.oracle.answered)
    wait_for(lambda: len(sidecar.oracle.answered) > before + 40, "more calls")


def program(sidecar, point=None, n=1):
    """What is started next dies at this point."""
    sidecar.program = KEYTRAIL_FAULTS if point else KEYTRAIL
    sidecar.environment = {**os.environ, **sidecar.environment, "KEYTRAIL_FAULT": f"{point}:{n}"}


def died(process):
    return process.wait(PATIENCE) == -signal.SIGKILL


@pytest.mark.parametrize("point", OLD)
def test_dying_as_the_old_one(upgraded, point):
    sidecar = upgraded(start=False)
    program(sidecar, f"takeover.{point}")
    sidecar.start()
    with clients(sidecar):
        make_more_calls(sidecar)
        program(sidecar)
        old = spawn_successor(sidecar)
        took_over = sidecar.spawn_and_listen()
        assert died(old.process)
        if not took_over:
            assert sidecar.process.wait(PATIENCE) == 1
            be_another(sidecar)
            sidecar.start()
        make_more_calls(sidecar)
    sidecar.stop()
    check(sidecar, unknown=4)


def test_calls_of_who_was_killed_are_recorded_at_once(upgraded):
    """What it had in flight nobody knows the outcome of."""
    sidecar = upgraded({"timeouts": {"drain": "1h"}})
    sidecar.backend.script = sidecar.oracle.answer_nobody
    sent = [one(sidecar, kind) for kind in (1, 2, 3)]
    with contextlib.ExitStack() as stack:
        for correlation in sent:
            call = sidecar.oracle.sent[correlation]
            c = stack.enter_context(sidecar.client())
            c.send_request(call.method, call.path, {"Correlation-Id": correlation}, call.body)
        wait_for(lambda: len(sidecar.oracle.reached) == 3, "the calls")
        old = take_over(sidecar)
        assert sidecar.metric("keytrail_adopted_rings") == 3
        old.kill()
        for correlation in sent:
            assert sidecar.event(correlation)["reason"]["reasonType"] == "restart"
    wait_for(lambda: sidecar.metric("keytrail_adopted_rings") == 0, "its rings to be gone")
    assert sidecar.wait_own("keytrail.recover")[0]["details"]["fromSlots"] == 3
    assert ends_well(take_over(sidecar))
    sidecar.stop()
    check(sidecar, unknown=3)


# Of its journal, too: what it did with the rings of the old one is found there, or in the trail.
@pytest.mark.parametrize("point, n", [(f"takeover.{p}", 1) for p in NEW] + [
    *itertools.product(("trail.before_write", "trail.after_sync", "trail.after_mark", "ring.after_tail"),
                       (1, 4))])
def test_dying_as_the_new_one(upgraded, point, n):
    sidecar = upgraded()
    with clients(sidecar):
        make_more_calls(sidecar)
        program(sidecar, point, n)
        old = spawn_successor(sidecar)
        sidecar.spawn_and_listen()
        assert died(sidecar.process)
        program(sidecar)
        # Who has begun to leave goes, and takes what is in flight with it; else it goes on.
        wait_for(lambda: said(old, "takeover_failed") or old.process.poll() is not None,
                 "the old one to see it")
        if not said(old, "taken_over"):
            make_more_calls(sidecar)
            take_over(sidecar)
        assert ends_well(old)
        if sidecar.process.poll() is not None:
            be_another(sidecar)
            sidecar.start()
        make_more_calls(sidecar)
    sidecar.stop()
    check(sidecar, unknown=4)


def test_every_instant_is_visited():
    points = {p for folder in ("src", "proxy") for path in (ROOT / folder).rglob("*.c")
              for p in re.findall(r'FAULT_POINT\("takeover\.([^"]+)"\)', path.read_text())}
    assert points == {*OLD, *NEW}

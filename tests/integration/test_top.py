"""keytrail top: what it shows of a sidecar, and how it leaves the terminal."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import socketserver
import struct
import subprocess
import termios
import threading
import time

import pytest

from backend import ok
from support import KEYTRAIL, PATIENCE, new_id, wait_for

ROW = "{:<40} {:>10} {:>12} {:>10} {:>10}"


def answer(connection):
    while (request := connection.read_request()) is not None:
        connection.send(ok() if request.method != "POST" else ok(status="404 Not Found"))


@pytest.fixture
def sidecar(keytrail, raw_backend, tmp_path, socket):
    """One that has had five calls, two of which failed."""
    running = keytrail(raw_backend(answer), {
        "admin": {"address": "127.0.0.1:0", "token": None, "socket": str(socket)},
        "sinks": [{"name": "copy", "type": "file", "path": str(tmp_path / "out.jsonl")}]})
    for _ in range(3):
        running.call("GET", "/api/v2/keys")
    for _ in range(2):
        running.call("POST", f"/api/v2/keys/{new_id()}/actions/wrap")
    wait_for(lambda: running.metric("keytrail_requests_total") == 5 and
             running.metric("keytrail_requests_in_flight") == 0, "the end of the last one")
    return running


def once(*arguments, **environment):
    done = subprocess.run([KEYTRAIL, "top", *arguments, "--once"], text=True, timeout=PATIENCE,
                          capture_output=True, env={**os.environ, **environment}, check=False)
    return done.returncode, done.stdout, done.stderr


def test_once_shows_what_there_is(sidecar, socket):
    status, text, errors = once(KEYTRAIL_CONFIG=str(sidecar.file))
    assert (status, errors) == (0, "")
    head, health, trail, calls, latency, *tables = text.splitlines()
    assert re.fullmatch(rf"keytrail \S+  up .*  {sidecar.file}", head)
    assert health == "Every call is recorded."
    assert re.fullmatch(r"trail    event \d+; [\d.]+ KiB, segments 1, free [\d.]+ \wiB(, full in .*)?; lost 0", trail)
    assert calls.startswith("calls    0.0/s; all 5, not well 2, in flight 0; clients ")
    assert re.fullmatch(r"latency  added p50 [\d.]+ [mu]?s, p99 [\d.]+ [mu]?s; all p50 [\d.]+ [mu]?s, p99 [\d.]+ [mu]?s", latency)
    assert tables[1] == "SINK                     STATE    WAITING   OLDEST  DELIVERED"
    assert tables[2].startswith("copy                     up ")
    assert tables[4:] == [ROW.format("ACTION", "CALLS/S", "CALLS", "FAILED", "UNKNOWN"),
                          ROW.format("kms.secrets.list", "0.0", 3, 0, 0),
                          ROW.format("kms.secrets.wrap", "0.0", 2, 2, 0)]
    assert "0.0 s" not in latency
    assert "\x1b" not in text
    assert "\x1b[32mEvery call" in once("--socket", socket, "--color=always")[1]


def test_where_nobody_answers(sidecar, socket):
    sidecar.stop()
    assert once("--socket", socket) == (1, "", f"{socket}: connect: No such file or directory\n")


def test_without_a_terminal_it_wants_once(sidecar):
    done = subprocess.run([KEYTRAIL, "top", sidecar.file], stdin=subprocess.DEVNULL, text=True,
                          capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("keytrail top: it wants a terminal, or --once\n")


# ---- a sidecar that says anything ----

@pytest.fixture
def impostor(socket):
    """impostor(status, metrics): the socket of somebody who answers with these."""
    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True

    with contextlib.ExitStack() as stack:
        def make(status, metrics):
            class Handler(socketserver.StreamRequestHandler):
                def handle(self):
                    page = self.rfile.readline().split()[1]
                    while self.rfile.readline().strip():
                        pass
                    self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n" + {b"/status": status, b"/metrics": metrics}[page])

            server = stack.enter_context(Server(str(socket), Handler))
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return socket

        yield make


def test_no_text_is_a_command_to_the_terminal(impostor):
    status = rb'{"summary":"\u001b[2Jill","version":"\u009b2J","configPath":7,"trail":[],"sinks":[{"name":"\u001b]0;x"}, 3]}'
    metrics = b'keytrail_requests_total{action="\x1b[2Jx\xff",outcome="success"} 1e999\n'
    code, text, errors = once("--socket", impostor(status, metrics))
    assert (code, errors) == (0, "")
    assert "?[2Jill\n" in text and "?]0;x" in text and "\n?[2Jx? " in text
    assert "\x1b" not in text and "\x9b" not in text


def test_as_many_actions_as_there_may_be(impostor):
    metrics = "".join(f'keytrail_requests_total{{action="kms.{"long" * 25}.{action}",outcome="{outcome}",code="{code}xx"}} 1\n'
                      for action in range(512) for outcome in ("success", "failure", "unknown")
                      for code in range(1, 6))
    assert len(metrics) > 1 << 20
    code, text, errors = once("--socket", impostor(b"{}", metrics.encode()))
    assert (code, errors) == (0, "")
    assert "all 7680," in text


@pytest.mark.parametrize("status", [b"", b"no JSON", b"[]", b"7"])
def test_what_is_no_sidecar(impostor, status):
    code, text, errors = once("--socket", impostor(status, b""))
    assert (code, errors) == (1, "what answers is no sidecar\n") if status != b"[]" else code in (0, 1)
    assert "\x1b" not in text


# ---- on a terminal ----

class Terminal:
    """`keytrail top` on one of these."""

    def __init__(self, *arguments, rows=30, columns=100):
        self.mine, self.its = pty.openpty()
        self.resize(rows, columns)
        self.usual = termios.tcgetattr(self.its)
        self.shown = b""
        self.process = subprocess.Popen([KEYTRAIL, "top", *arguments], stdin=self.its, stdout=self.its,
                                        env={**os.environ, "TERM": "xterm", "NO_COLOR": "1"})

    def resize(self, rows, columns):
        fcntl.ioctl(self.its, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys):
        os.write(self.mine, keys)

    def read(self):
        assert select.select([self.mine], [], [], PATIENCE)[0], self.shown[-2000:]
        self.shown += os.read(self.mine, 65536)

    def frame(self, condition):
        """The lines of the next whole frame of which this is true."""
        self.shown = b""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            for frame in re.findall("\x1b\\[H(.*?)\x1b\\[J", self.shown.decode(errors="replace"), re.S):
                lines = frame.split("\x1b[K\r\n")[:-1]
                if condition(lines):
                    return lines
            self.read()
        raise AssertionError(self.shown[-2000:].decode(errors="replace"))

    def end(self):
        """What was written last."""
        assert self.process.wait(PATIENCE) == 0
        while select.select([self.mine], [], [], 0)[0]:
            self.read()
        assert self.shown.endswith(b"\x1b[?25h\x1b[?1049l")
        assert termios.tcgetattr(self.its) == self.usual

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.mine)
        os.close(self.its)


@pytest.fixture
def terminal(sidecar):
    with contextlib.ExitStack() as stack:
        def make(**size):
            made = Terminal(sidecar.file, **size)
            stack.callback(made.close)
            return made
        yield make


def actions(lines):
    return [line.split()[0] for line in lines if line.startswith("kms.")]


def test_keys_order_the_actions_and_end_it(terminal):
    top = terminal()
    top.frame(lambda lines: actions(lines) == ["kms.secrets.list", "kms.secrets.wrap"])
    assert termios.tcgetattr(top.its) != top.usual
    for key, first in ((b"f", "wrap"), (b"c", "list"), (b"f", "wrap"), (b"n", "list")):
        top.type(key)
        top.frame(lambda lines: actions(lines)[0] == f"kms.secrets.{first}")
    top.type(b"q")
    top.end()


def test_it_shows_what_happens(terminal, sidecar):
    top = terminal()
    top.frame(lambda lines: any(line.startswith("kms.secrets.list ") and " 3 " in line for line in lines))
    sidecar.call("GET", "/api/v2/keys")
    rated = top.frame(lambda lines: any(line.startswith("kms.secrets.list ") and " 4 " in line for line in lines))
    assert float(next(line for line in rated if line.startswith("kms.secrets.list ")).split()[1]) > 0
    sidecar.stop()
    lines = top.frame(lambda lines: len(lines) == 1)
    assert re.search(r"connect: (No such file or directory|Connection refused)$", lines[0])
    sidecar.start()
    top.frame(lambda lines: "Every call is recorded." in lines)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_leaves_the_terminal_as_it_was(terminal, number):
    top = terminal()
    top.frame(actions)
    top.process.send_signal(number)
    top.end()


def test_it_stops_and_goes_on(terminal):
    top = terminal()
    top.frame(actions)
    top.process.send_signal(signal.SIGTSTP)
    assert os.WIFSTOPPED(os.waitpid(top.process.pid, os.WUNTRACED)[1])
    while not top.shown.endswith(b"\x1b[?25h\x1b[?1049l"):
        top.read()
    assert termios.tcgetattr(top.its) == top.usual
    top.process.send_signal(signal.SIGCONT)
    top.frame(actions)
    top.type(b"q")
    top.end()


def test_it_fits_the_terminal(terminal):
    top = terminal(rows=8, columns=40)
    lines = top.frame(bool)
    assert len(lines) == 7 and max(map(len, lines)) == 40
    top.resize(60, 200)
    top.process.send_signal(signal.SIGWINCH)
    lines = top.frame(actions)
    assert len(lines) == 12

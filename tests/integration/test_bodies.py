"""Bodies stream through bounded buffers: memory does not grow, the slower side sets the pace.

KEYTRAIL_SLOW=1 moves 2 GiB instead of 256 MiB.
"""

import os
import select
import socket
import ssl
import threading
import zlib

import pytest

from backend import ok
from support import SANITIZED, wait_for

MIB = 1 << 20
SIZE = (2048 if os.environ.get("KEYTRAIL_SLOW") else 256) * MIB
BLOCK = bytes(range(256)) * 4096  # 1 MiB


def resident(sidecar, name="VmHWM"):
    for line in open(f"/proc/{sidecar.process.pid}/status", encoding="ascii"):
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise AssertionError(name)


def reset_peak(sidecar):
    with open(f"/proc/{sidecar.process.pid}/clear_refs", "w", encoding="ascii") as f:
        f.write("5")


def warm(sidecar):
    for _ in range(4):
        assert sidecar.call("POST", "/api/v2/keys", body="x" * 100000).status == 200
    reset_peak(sidecar)
    return resident(sidecar)


def receive(reader, length):
    """The CRC-32 of a body, block by block."""
    crc, left = zlib.crc32(reader.buffer), length - len(reader.buffer)
    reader.buffer = b""
    memory = memoryview(bytearray(MIB))
    while left:
        n = reader.sock.recv_into(memory[:min(left, MIB)])
        assert n, f"{left} bytes are missing"
        crc = zlib.crc32(memory[:n], crc)
        left -= n
    return crc


def send(sock, length):
    for _ in range(length // MIB):
        sock.sendall(BLOCK)


def crc_of(length):
    crc = 0
    for _ in range(length // MIB):
        crc = zlib.crc32(BLOCK, crc)
    return crc


def store(connection):
    """Answers an upload with its checksum."""
    while (request := connection.read_head()) is not None:
        crc = receive(connection, int(request.get("Content-Length")))
        connection.send(ok(str(crc)))


def fetch(connection):
    """Answers a GET with SIZE bytes, and anything else at once."""
    while (request := connection.read_request()) is not None:
        if request.method != "GET":
            connection.send(ok())
            continue
        connection.send(f"HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n")
        send(connection.sock, SIZE)


def check_growth(sidecar, before):
    if not SANITIZED:
        assert resident(sidecar) - before < 8 * MIB


def test_a_large_body_passes_up_without_growth(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(store))
    before = warm(sidecar)
    with sidecar.client(timeout=120) as c:
        c.send(f"POST /api/v2/keys HTTP/1.1\r\nHost: localhost\r\nContent-Length: {SIZE}\r\n\r\n")
        send(c.sock, SIZE)
        assert int(c.read_response().body) == crc_of(SIZE)
    check_growth(sidecar, before)


def test_a_large_body_passes_down_without_growth(keytrail, raw_backend):
    sidecar = keytrail(raw_backend(fetch))
    before = warm(sidecar)
    with sidecar.client(timeout=120) as c:
        c.send_request("GET", "/api/v2/keys")
        assert int(c.read_head().get("Content-Length")) == SIZE
        assert receive(c, SIZE) == crc_of(SIZE)
    check_growth(sidecar, before)


# ---- back-pressure ----

def push_until_stalled(sock, limit):
    """Send until nothing has moved for a second; how much went."""
    sent = 0
    sock.setblocking(False)
    while sent < limit:
        try:
            sent += sock.send(BLOCK[:65536])
            continue
        except (BlockingIOError, ssl.SSLWantWriteError):
            pass
        if not select.select([], [sock], [], 1)[1]:
            break
    sock.setblocking(True)
    return sent


LONG = 64 * MIB
BOUND = 24 * MIB  # the kernel's buffers of two connections, and ours


def test_a_slow_key_service_stops_the_client(keytrail, raw_backend):
    go_on = threading.Event()

    def script(connection):
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        request = connection.read_head()
        if int(request.get("Content-Length")) != LONG:
            connection.take(int(request.get("Content-Length")))
            connection.send(ok(extra="Connection: close\r\n"))
            return
        assert go_on.wait(60)
        receive(connection, LONG)
        connection.send(ok("all"))

    sidecar = keytrail(raw_backend(script))
    before = warm(sidecar)
    with sidecar.client(timeout=120) as c:
        c.send(f"POST /api/v2/keys HTTP/1.1\r\nHost: localhost\r\nContent-Length: {LONG}\r\n\r\n")
        sent = push_until_stalled(c.sock, LONG)
        assert sent < BOUND
        check_growth(sidecar, before)
        go_on.set()
        left = LONG - sent
        c.send(b"x" * left)
        assert c.read_response().body == b"all"


def test_a_slow_client_stops_the_key_service(keytrail, raw_backend):
    stalled = []

    def script(connection):
        while (request := connection.read_request()) is not None:
            if request.method != "GET":
                connection.send(ok())
                continue
            connection.send(f"HTTP/1.1 200 OK\r\nContent-Length: {LONG}\r\n\r\n")
            stalled.append(push_until_stalled(connection.sock, LONG))
            connection.send(b"x" * (LONG - stalled[0]))

    sidecar = keytrail(raw_backend(script))
    before = warm(sidecar)
    with sidecar.client(timeout=120) as c:
        c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        c.send_request("GET", "/api/v2/keys")
        wait_for(lambda: stalled, "the key service to be stopped")
        assert stalled[0] < BOUND
        check_growth(sidecar, before)
        assert c.read_head().status == 200
        receive(c, LONG)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_others_are_served_while_one_body_stands_still(keytrail, raw_backend, direction):
    hold = threading.Event()

    def script(connection):
        request = connection.read_head()
        if "limit=1" not in request.target:
            connection.send(ok(extra="Connection: close\r\n"))
            return
        if direction == "down":
            connection.send(f"HTTP/1.1 200 OK\r\nContent-Length: {LONG}\r\n\r\n")
            send(connection.sock, LONG)
        else:
            assert hold.wait(60)

    sidecar = keytrail(raw_backend(script), {"workers": 1})
    with sidecar.client() as slow:
        slow.send(f"POST /api/v2/keys?limit=1 HTTP/1.1\r\nHost: localhost\r\n"
                  f"Content-Length: {LONG if direction == 'up' else 0}\r\n\r\n")
        if direction == "up":
            push_until_stalled(slow.sock, LONG)
        for _ in range(5):
            assert sidecar.call("GET", "/api/v2/keys").status == 200
        hold.set()

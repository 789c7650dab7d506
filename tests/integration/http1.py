"""A small HTTP/1.1 client over a socket that shows everything: raw bytes out, parsed answers in."""

import socket
import ssl


class Response:
    def __init__(self, version, status, reason, fields):
        self.version, self.status, self.reason, self.fields = version, status, reason, fields
        self.body = b""
        self.trailers = []
        self.interim = []  # (status, fields) of the 1xx answers before
        self.ended_by_close = False

    def all(self, name):
        return [v for n, v in self.fields if n.lower() == name.lower()]

    def get(self, name):
        values = self.all(name)
        return values[0] if values else None

    def __repr__(self):
        return f"<{self.status} {self.reason} {self.fields} {self.body[:80]!r}>"


class Closed(Exception):
    """The other side closed before a whole message had come."""


class Reader:
    """Reads heads and bodies of HTTP/1.1 messages from anything with recv()."""

    def __init__(self, sock):
        self.sock = sock
        self.buffer = b""

    def more(self):
        piece = self.sock.recv(65536)
        if not piece:
            raise Closed(self.buffer)
        self.buffer += piece

    def take(self, n):
        while len(self.buffer) < n:
            self.more()
        out, self.buffer = self.buffer[:n], self.buffer[n:]
        return out

    def line(self):
        while b"\r\n" not in self.buffer:
            self.more()
        out, self.buffer = self.buffer.split(b"\r\n", 1)
        return out

    def head(self):
        """The raw head, its empty line included."""
        while b"\r\n\r\n" not in self.buffer:
            self.more()
        out, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        return out + b"\r\n\r\n"

    def fields(self):
        out = []
        while line := self.line():
            name, _, value = line.partition(b":")
            out.append((name.decode("latin-1"), value.strip().decode("latin-1")))
        return out

    def chunks(self):
        """The content of a chunked body and its trailers."""
        body = b""
        while size := int(self.line().partition(b";")[0], 16):
            body += self.take(size)
            assert self.take(2) == b"\r\n", "a chunk does not end in CR LF"
        return body, self.fields()

    def rest(self):
        try:
            while True:
                self.more()
        except (Closed, ssl.SSLError, ConnectionError):
            out, self.buffer = self.buffer, b""
            return out


def handshake(sock, context, **side):
    """TLS whose records the caller sends: the object, and what is to be sent."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, **side)
    while True:
        try:
            tls.do_handshake()
            return tls, outgoing
        except ssl.SSLWantReadError:
            sock.sendall(outgoing.read())
            incoming.write(sock.recv(65536))


class Client(Reader):
    """One connection.  `context` None: plain TCP."""

    def __init__(self, port, context=None, name="localhost", session=None, timeout=20,
                 source=None):
        raw = socket.create_connection(("127.0.0.1", port), timeout=timeout,
                                       source_address=source)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            sock = raw if context is None else context.wrap_socket(
                raw, server_hostname=name, session=session, suppress_ragged_eofs=True)
        except BaseException:
            raw.close()
            raise
        super().__init__(sock)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()

    def close(self):
        self.sock.close()

    def reset(self):
        """Close with a TCP reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        if isinstance(self.sock, ssl.SSLSocket):
            socket.socket(fileno=self.sock.detach()).close()
        else:
            self.sock.close()

    def send(self, data):
        self.sock.sendall(data if isinstance(data, bytes) else data.encode("latin-1"))

    def send_request(self, method, target, fields=(), body=None, version="1.1"):
        lines = [f"{method} {target} HTTP/{version}"]
        pairs = list(fields.items() if isinstance(fields, dict) else fields)
        if not any(n.lower() == "host" for n, _ in pairs):
            lines.append("Host: localhost")
        lines += [f"{n}: {v}" for n, v in pairs]
        if body is not None:
            body = body if isinstance(body, bytes) else body.encode()
            lines.append(f"Content-Length: {len(body)}")
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + (body or b""))

    def read_head(self):
        version, status, *reason = self.line().decode("latin-1").split(" ", 2)
        return Response(version, int(status), "".join(reason), self.fields())

    def read_response(self, method="GET"):
        interim = []
        while (r := self.read_head()).status < 200:
            interim.append((r.status, r.fields))
        r.interim = interim
        self.read_body(r, method)
        return r

    def read_body(self, r, method):
        if method == "HEAD" or r.status in (204, 304):
            return
        if "chunked" in (r.get("Transfer-Encoding") or "").lower():
            r.body, r.trailers = self.chunks()
        elif r.get("Content-Length") is not None:
            r.body = self.take(int(r.get("Content-Length")))
        else:
            r.body = self.rest()
            r.ended_by_close = True

    def request(self, method, target, fields=(), body=None, version="1.1"):
        self.send_request(method, target, fields, body, version)
        return self.read_response(method)

    def is_closed(self, timeout=20):
        """Does the other side close, without another byte, in time?"""
        self.sock.settimeout(timeout)
        try:
            return self.buffer == b"" and self.sock.recv(1) == b""
        except TimeoutError:
            return False
        except (ssl.SSLError, ConnectionError):
            return True

"""A scripted back end: the key service as a test wants it, byte by byte."""

import contextlib
import socket
import ssl
import threading

import http1


class Request:
    def __init__(self, head):
        self.raw = head
        first, *lines = head[:-4].decode("latin-1").split("\r\n")
        self.method, self.target, self.version = first.split(" ")
        self.fields = [(n, v.strip()) for n, _, v in (line.partition(":") for line in lines)]
        self.body = b""
        self.trailers = []

    def all(self, name):
        return [v for n, v in self.fields if n.lower() == name.lower()]

    def get(self, name):
        values = self.all(name)
        return values[0] if values else None


class Connection(http1.Reader):
    def __init__(self, sock, backend, number):
        super().__init__(sock)
        self.backend, self.number = backend, number

    def read_head(self):
        """The next request without its body, or None at the end of the connection."""
        try:
            request = Request(self.head())
        except (http1.Closed, ConnectionError, ssl.SSLError):
            return None
        self.backend.note(request)
        return request

    def read_request(self):
        request = self.read_head()
        if request is None:
            return None
        if (request.get("Transfer-Encoding") or "").lower() == "chunked":
            request.body, request.trailers = self.chunks()
        elif request.get("Content-Length"):
            request.body = self.take(int(request.get("Content-Length")))
        return request

    def send(self, data):
        self.sock.sendall(data if isinstance(data, bytes) else data.encode("latin-1"))

    def close(self):
        with contextlib.suppress(OSError):
            self.sock.close()

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close()


def ok(body=b"{}", extra="", status="200 OK"):
    body = body if isinstance(body, bytes) else body.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{extra}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body


class RawBackend:
    """Runs `script(connection)` in a thread for each connection.

    A script may also be bytes: then every request is read whole and answered with them.
    """

    def __init__(self, script, context=None, port=0, backlog=64):
        self.script = script if callable(script) else lambda c: answer_always(c, script)
        self.context = context
        self.requests = []
        self.connections = 0
        self.handshake_failures = 0
        self.errors = []
        self.changed = threading.Condition()
        self.sockets = []
        self.threads = []
        self.listener = socket.create_server(("127.0.0.1", port), backlog=backlog)
        self.port = self.listener.getsockname()[1]
        self.acceptor = threading.Thread(target=self.accept, daemon=True)
        self.acceptor.start()

    def accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(30)
            with self.changed:
                self.connections += 1
                self.sockets.append(sock)
                self.changed.notify_all()
            t = threading.Thread(target=self.serve, args=(sock, self.connections), daemon=True)
            self.threads.append(t)
            t.start()

    def serve(self, sock, number):
        try:
            if self.context is not None:
                sock = self.context.wrap_socket(sock, server_side=True)
                self.sockets.append(sock)
        except (OSError, ssl.SSLError):
            with self.changed:
                self.handshake_failures += 1
                self.changed.notify_all()
            return
        connection = Connection(sock, self, number)
        try:
            self.script(connection)
        except (http1.Closed, ConnectionError, TimeoutError, ssl.SSLError):
            pass  # the other side is entitled to go; tests look at what they wait for
        except OSError as e:
            if not self.listener._closed:
                self.errors.append(e)
        except Exception as e:  # pylint: disable=broad-except
            self.errors.append(e)
        finally:
            connection.close()

    def note(self, request):
        with self.changed:
            self.requests.append(request)
            self.changed.notify_all()

    def wait(self, condition, timeout=20):
        """Until condition(self) holds; condition is looked at whenever something happens."""
        with self.changed:
            assert self.changed.wait_for(lambda: condition(self), timeout), "back end: timed out"

    def close(self):
        # Wakes accept(), which close() alone would not.
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for sock in self.sockets:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for sock in self.sockets:
            with contextlib.suppress(OSError):
                sock.close()
        for t in [self.acceptor, *self.threads]:
            t.join(10)


def answer_always(connection, data):
    while connection.read_request() is not None:
        connection.send(data)

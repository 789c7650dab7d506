"""A strict reader of HTTP/1.x streams (RFC 9110, RFC 9112) that shares no code with keytrail.

`Stream.feed` takes bytes as they come and hands out whole messages; what breaks the grammar raises
Malformed, which says what.  The reading is the strictest: what a recipient MAY accept is not
accepted, but for a status line that ends with the status, which many servers send.  `canonical`
gives what a message that keytrail wrote must obey beyond the grammar.
"""

import re

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
VALUE = rb"(?:[\x21-\x7e\x80-\xff](?:[\t \x21-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?"
PCHAR = rb"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
LABELS = rb"(?:[A-Za-z0-9_~!$&'()*+,;=.-]|%[0-9A-Fa-f]{2})+"
AUTHORITY = rb"(?:" + LABELS + rb"|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?"
TARGET = re.compile(rb"(?:[Hh][Tt][Tt][Pp][Ss]?://(" + AUTHORITY + rb"))?"
                    rb"((?:/" + PCHAR + rb"*)*)(\?(?:" + PCHAR + rb"|[/?])*)?")
REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([\x21-\x7e]+) HTTP/1\.([01])")
STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([\t \x21-\x7e\x80-\xff]*))?")
FIELD = re.compile(rb"(" + TOKEN + rb"):[ \t]*(" + VALUE + rb")[ \t]*")
QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e]|\\[\t \x21-\x7e])*"'
CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})((?:;" + TOKEN + rb"(?:=(?:" + TOKEN + rb"|" + QUOTED
                   + rb"))?)*)")
NOT_IN_TRAILERS = {b"authorization", b"bluemix-instance", b"connection", b"content-encoding",
                   b"content-length", b"content-range", b"content-type", b"cookie",
                   b"correlation-id", b"expect", b"forwarded", b"host", b"keep-alive",
                   b"location", b"prefer", b"proxy-authorization", b"set-cookie", b"te",
                   b"trailer", b"transfer-encoding", b"upgrade", b"via", b"www-authenticate",
                   b"x-kms-key-ring"}
# Beyond these: what RFC 9110 section 6.5.1 keeps out of trailers, and what servers decide by.
HEADER_ONLY = NOT_IN_TRAILERS | {
    b"age", b"authentication-info", b"cache-control", b"content-location", b"date", b"expires",
    b"http2-settings", b"if-match", b"if-modified-since", b"if-none-match", b"if-range",
    b"if-unmodified-since", b"max-forwards", b"pragma", b"proxy-authenticate",
    b"proxy-authentication-info", b"proxy-connection", b"range", b"retry-after", b"vary",
    b"x-http-method", b"x-http-method-override", b"x-http-request", b"x-method-override",
    b"x-original-url", b"x-rewrite-url"}
# What servers take for where a request came from, beside X-Forwarded-*.
ORIGINS = {
    b"cf-connecting-ip", b"cf-connecting-ipv6", b"cf-pseudo-ipv4", b"client-ip",
    b"fastly-client-ip", b"fly-client-ip", b"forwarded-for", b"proxy-client-ip",
    b"true-client-ip", b"wl-proxy-client-ip", b"x-azure-clientip", b"x-client-ip",
    b"x-cluster-client-ip", b"x-envoy-external-address", b"x-forwarded",
    b"x-original-forwarded-for", b"x-originating-ip", b"x-real-ip", b"x-remote-addr",
    b"x-remote-ip"}
HOP_BY_HOP = {b"connection", b"http2-settings", b"keep-alive", b"proxy-authenticate",
              b"proxy-authorization", b"proxy-connection", b"te", b"trailer", b"upgrade"}
SINGLE = {b"authorization", b"bluemix-instance", b"content-length", b"content-type",
          b"correlation-id", b"expect", b"forwarded", b"host", b"prefer", b"transfer-encoding",
          b"via", b"x-forwarded-for", b"x-forwarded-proto", b"x-kms-key-ring"}
LINE_MAX = 1 << 20


class Malformed(Exception):
    """What is wrong."""


class Message:
    """One message.  `body` grows while it is incomplete; `whole` says that it has all come."""

    def __init__(self, minor, fields):
        self.minor, self.fields = minor, fields
        self.method = self.target = self.path = self.query = self.authority = None
        self.status = self.reason = None
        self.framing, self.length = "none", 0
        self.body, self.trailers, self.extensions = b"", [], b""
        self.whole = False

    def all(self, name):
        return [v for n, v in self.fields if n.lower() == name]

    def get(self, name):
        values = self.all(name)
        return values[0] if values else None

    def options(self):
        """What Connection says."""
        text = b",".join(self.all(b"connection")).lower()
        return {o.strip(b" \t") for o in text.split(b",")} - {b""}

    def keeps(self):
        options = self.options()
        return b"close" not in options and (self.minor == 1 or b"keep-alive" in options)

    def __repr__(self):
        what = self.status if self.method is None else (self.method, self.target)
        return f"<{what} {self.fields} {self.framing} {self.body[:60]!r} whole={self.whole}>"


def read_fields(lines, what):
    fields = []
    for line in lines:
        m = FIELD.fullmatch(line)
        if m is None:
            raise Malformed(f"{what}: {line[:80]!r} is no field")
        fields.append((m[1], m[2]))
    return fields


def read_framing(m):
    lengths, codings = m.all(b"content-length"), m.all(b"transfer-encoding")
    if lengths and codings:
        raise Malformed("Content-Length and Transfer-Encoding")
    if codings:
        if len(codings) > 1 or codings[0].lower() != b"chunked" or m.minor == 0:
            raise Malformed(f"transfer coding {codings!r} in HTTP/1.{m.minor}")
        m.framing = "chunked"
    if lengths:
        if len(lengths) > 1 or not re.fullmatch(rb"0|[1-9][0-9]{0,17}", lengths[0]):
            raise Malformed(f"Content-Length {lengths!r}")
        m.framing, m.length = "length", int(lengths[0])


def read_request(lines):
    first = REQUEST_LINE.fullmatch(lines[0])
    if first is None:
        raise Malformed(f"{lines[0][:80]!r} is no request line")
    m = Message(int(first[3]), read_fields(lines[1:], "request"))
    m.method, m.target = first[1], first[2]
    if m.target == b"*" and m.method == b"OPTIONS":
        m.path, m.query = b"*", None
    else:
        target = TARGET.fullmatch(m.target)
        if target is None or not (target[1] or target[2]):
            raise Malformed(f"target {m.target[:80]!r}")
        m.authority, m.path, m.query = target[1], target[2] or b"/", target[3]
        if m.method == b"OPTIONS" and not target[2] and m.query is None:  # RFC 9112, 3.2.4
            m.path = b"*"
    hosts = m.all(b"host")
    if len(hosts) != 1 and (m.minor == 1 or hosts):
        raise Malformed(f"{len(hosts)} Host fields")
    if hosts and not re.fullmatch(AUTHORITY, hosts[0]):
        raise Malformed(f"Host {hosts[0][:80]!r}")
    if m.authority and hosts and m.authority.lower() != hosts[0].lower():
        raise Malformed("two authorities")
    read_framing(m)
    return m


def read_response(lines, method):
    first = STATUS_LINE.fullmatch(lines[0])
    if first is None:
        raise Malformed(f"{lines[0][:80]!r} is no status line")
    m = Message(int(first[1]), read_fields(lines[1:], "answer"))
    m.status, m.reason = int(first[2]), first[3]
    read_framing(m)
    if m.status < 200 or m.status == 204:
        if m.framing != "none" and (m.status != 204 or m.framing != "length" or m.length):
            raise Malformed(f"a body with {m.status}")
        m.framing = "none"
    elif method == b"HEAD" or m.status == 304:
        m.framing = "none"
    elif m.framing == "none":
        m.framing = "close"
    return m


class Stream:
    """One direction of a connection.  `methods`: of the requests that are answered, in order; None
    for a stream of requests."""

    def __init__(self, methods=None):
        self.methods = methods
        self.data = b""
        self.messages = []
        self.open = None  # the message whose body is being read
        self.left = 0     # of the length or of the chunk
        self.state = "head"
        self.ended = False  # no message may follow

    def line(self):
        """The next line without its end, or None; a lone CR or LF is an error."""
        end = self.data.find(b"\n")
        line = self.data if end == -1 else self.data[:end]
        if b"\r" in line[:-1] or (end != -1 and not line.endswith(b"\r")):
            raise Malformed(f"bare CR or LF in {line[:80]!r}")
        if end == -1:
            if len(line) > LINE_MAX:
                raise Malformed("a line without end")
            return None
        self.data = self.data[end + 1:]
        return line[:-1]

    def head(self):
        end = self.data.find(b"\r\n\r\n")
        if end == -1:
            return False
        lines, self.data = self.data[:end].split(b"\r\n"), self.data[end + 4:]
        if any(b"\r" in line or b"\n" in line for line in lines):
            raise Malformed("bare CR or LF in a head")
        if self.methods is None:
            m = read_request(lines)
        else:
            final = sum(1 for r in self.messages if r.status >= 200)
            if final == len(self.methods):
                raise Malformed("an answer without a request")
            m = read_response(lines, self.methods[final])
        self.messages.append(m)
        self.open, self.left = m, m.length
        self.state = {"none": "end", "length": "data", "close": "rest",
                      "chunked": "size"}[m.framing]
        return True

    def content(self):
        """The counted bytes of the open body; False when more are needed."""
        piece, self.data = self.data[:self.left], self.data[self.left:]
        self.open.body += piece
        self.left -= len(piece)
        return self.left == 0

    def step(self):
        """One step of the state machine; False when it needs more bytes."""
        m = self.open
        if self.state == "head":
            return bool(self.data) and self.head()
        if self.state == "data":
            if not self.content():
                return False
            self.state = "end"
        elif self.state == "size":
            if (line := self.line()) is None:
                return False
            size = CHUNK.fullmatch(line)
            if size is None or int(size[1], 16) >> 63:
                raise Malformed(f"chunk size {line[:80]!r}")
            m.extensions += size[2]
            self.left = int(size[1], 16)
            self.state = "chunk" if self.left else "trailers"
        elif self.state == "chunk":
            if not self.content():
                return False
            self.state = "chunk end"
        elif self.state == "chunk end":
            if len(self.data) < 2:
                if self.data not in (b"", b"\r"):
                    raise Malformed("a chunk that does not end in CR LF")
                return False
            if self.data[:2] != b"\r\n":
                raise Malformed("a chunk that does not end in CR LF")
            self.data, self.state = self.data[2:], "size"
        elif self.state == "trailers":
            if (line := self.line()) is None:
                return False
            if line:
                m.trailers += read_fields([line], "trailer")
                name = fold(m.trailers[-1][0])
                if name in HEADER_ONLY | ORIGINS or name.startswith(b"x-forwarded-"):
                    raise Malformed(f"trailer {line[:80]!r}")
            else:
                self.state = "end"
        elif self.state == "rest":
            m.body, self.data = m.body + self.data, b""
            return False
        else:
            m.whole, self.open, self.state = True, None, "head"
            self.ended = not m.keeps() and (m.status is None or m.status >= 200)
        return True

    def feed(self, data):
        """The messages that became whole.  After Malformed the stream is of no more use."""
        before = sum(m.whole for m in self.messages)
        self.data += data
        while not (self.ended and self.state == "head") and self.step():
            pass
        return [m for m in self.messages if m.whole][before:]

    def finish(self):
        """The sender has ended the stream in good order: is there a message that is cut?"""
        if self.state == "rest":
            self.open.whole, self.open, self.state, self.ended = True, None, "head", True
        return self.open is not None or bool(self.data and not self.ended)


def read_all(data, methods=None):
    """(the stream, what is wrong or None): its messages before the first fault; the last may be
    incomplete."""
    stream = Stream(methods)
    try:
        stream.feed(data)
    except Malformed as e:
        return stream, str(e)
    return stream, "bytes after the last message" if stream.ended and stream.data else None


def has_body(m):
    return m.framing == "chunked" or m.length > 0


def may_be_form(m):
    """Would some server search the body for fields?"""
    kind = m.get(b"content-type")
    return has_body(m) and (
        kind is None or not re.fullmatch(TOKEN + rb"/" + TOKEN + rb"[ \t]*(;.*)?", kind)
        or re.search(rb"multipart|url-?encoded", kind.lower()) is not None)


def fold(name):
    """As CGI reads it."""
    return re.sub(rb"[^a-z0-9]", b"-", name.lower())


def canonical(m, declared=frozenset()):
    """Why a message is not as keytrail writes it, or None.  declared: further fields of a request that
    may come once."""
    single = SINGLE | declared
    names = [n.lower() for n, _ in m.fields]
    if m.minor != 1:
        return "not HTTP/1.1"
    if m.method is not None and m.method in (b"CONNECT", b"TRACE"):
        return m.method.decode()
    if m.method is not None and (m.authority is not None or b"#" in m.target):
        return "not the origin form"
    hop = HOP_BY_HOP if m.method is not None else HOP_BY_HOP - {b"connection"}
    for name in names:
        if name in hop:
            return f"hop-by-hop {name.decode()}"
        if names.count(name) > 1 and m.method is not None and name in single:
            return f"{name.decode()} is repeated"
        if fold(name) != name and fold(name) in HOP_BY_HOP | single | NOT_IN_TRAILERS:
            return f"{name.decode()} is an alias"
    if m.extensions:
        return "chunk extensions"
    if m.status is not None and m.reason is None:
        return "no blank before the reason"
    if any(fold(n) in declared for n, _ in m.trailers):
        return "a trailer that decides"
    if m.method is not None and may_be_form(m):
        return "a form"
    if m.method in (b"GET", b"HEAD", b"OPTIONS") and has_body(m):
        return "a body that its method has not"
    if m.method is not None and any(b > 0x7f for _, v in m.fields for b in v):
        return "a byte above 0x7f"
    return None

"""Hostile streams, made from a seed: requests of a client, answers of a key service.

A case is a list of parts, the segments that are sent one after the other.
"""

import base64
import json
import random

KEY = b"76c2c9cb-9095-5a24-811b-0ef4b24ac4d5"
CRN = b"crn%3Av1%3Abluemix%3Apublic%3As3%3Aglobal%3Aa%2Ftwo%3Aid%3Abucket%3Aname%252f1"
METHODS = [b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"HEAD", b"OPTIONS"]
PATHS = [b"/api/v2/keys", b"/api/v2/keys/" + KEY, b"/api/v2/keys/" + KEY + b"/actions/wrap",
         b"/api/v2/keys/" + KEY + b"?action=unwrap", b"/api/v2/keys?limit=5&search=a%20b",
         b"/api/v2/keys/" + KEY + b"/registrations/" + CRN, b"/api/v2/key_rings/a-ring",
         b"/api/v2/import_token", b"/elsewhere/12/x", b"/api/v2/keys/" + KEY + b"/policies", b"/"]

# What stands for a header line of a valid request, or joins it.
LINES = [
    # framing
    b"Content-Length: 5", b"Content-Length: 0", b"Content-Length: 05", b"Content-Length: +5",
    b"Content-Length: -5", b"Content-Length: 5, 5", b"Content-Length: ", b"Content-Length:\t5",
    b"Content-Length: 5 ", b"Content-Length: 5 5", b"Content-Length: 0x5", b"Content-Length: 5;",
    b"Content-Length: 18446744073709551621", b"Content-Length: 9223372036854775808",
    b"Content-Length : 5", b"Content-Length\t: 5", b"Content_Length: 5", b"Content-Length\0: 5",
    b"content.length: 5", b"Transfer-Encoding: chunked", b"Transfer-Encoding: Chunked",
    b"Transfer-Encoding: chunked ", b"Transfer-Encoding:\tchunked", b"Transfer-Encoding: chunked\t",
    b"Transfer-Encoding: \x0bchunked", b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding: ,chunked",
    b"Transfer-Encoding: chunked,", b"Transfer-Encoding: identity", b"Transfer-Encoding: gzip",
    b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: deflate, chunked",
    b"Transfer-Encoding: chunked, identity", b"Transfer-Encoding: chunked;q=1",
    b"Transfer-Encoding: \"chunked\"", b"Transfer-Encoding:", b"Transfer_Encoding: chunked",
    b"Transfer-Encoding : chunked", b"Transfer-Encoding\r\n : chunked",
    b"Transfer-Encoding:\r\n chunked", b" Transfer-Encoding: chunked",
    b"X: y\nTransfer-Encoding: chunked", b"X: y\rTransfer-Encoding: chunked",
    # hop by hop
    b"Connection: close", b"Connection: keep-alive", b"Connection: close, keep-alive",
    b"Connection: authorization", b"Connection: Content-Length", b"Connection: transfer-encoding",
    b"Connection: host", b"Connection: correlation-id", b"Connection: bluemix-instance",
    b"Connection: x-forwarded-for", b"Connection: forwarded", b"Connection: x_forwarded_for",
    b"Connection: x-a", b"Connection: ,", b"Connection: ;", b"Connection: \"close\"",
    b"Connection: upgrade", b"Connection: te", b"Keep-Alive: timeout=5", b"Proxy-Connection: close",
    b"TE: trailers", b"TE: chunked", b"Trailer: X-Sum", b"Upgrade: websocket", b"Upgrade: h2c",
    b"HTTP2-Settings: AAMAAABkAAQAAP__", b"Proxy-Authorization: Basic eDp5",
    b"Expect: 100-continue", b"Expect: 200-ok", b"Expect: 100-continue, x", b"Expect:",
    b"Expect: 100-Continue",
    # whence
    b"Host: other.example", b"Host:", b"Host: a b", b"Host: a/b", b"Host: a@b", b"Host: a:0",
    b"Host: [::1]:8443", b"Host : localhost", b"Forwarded: for=198.51.100.1", b"Via: 1.1 liar",
    b"X-Forwarded-For: 198.51.100.1", b"X-Forwarded-Host: evil", b"X-Forwarded-Proto: http",
    b"X_Forwarded_For: 198.51.100.1", b"X-Real-IP: 198.51.100.1",
    b"True-Client-IP: 198.51.100.1", b"cf-connecting-ip: 198.51.100.1",
    # who and what
    b"Authorization: Bearer a.b.c", b"Authorization: Bearer a, Bearer b", b"authorization: x",
    b"Bluemix-Instance: fd692647-43d0-4699-9f83-f39a54b1327b", b"Bluemix-Instance: a, b",
    b"Bluemix_Instance: x", b"X-Kms-Key-Ring: default", b"X-Kms-Key-Ring: a,b",
    b"Correlation-Id: 0b9a1e6e-86e2-4d5e-9b65-3f4f0f1a2b3c", b"Correlation-Id: forged\tline",
    b"Correlation-Id: a, b", b"Prefer: return=minimal", b"Prefer: a, b",
    b"X-HTTP-Method-Override: DELETE", b"X-HTTP-Method: DELETE", b"X-Method-Override: DELETE",
    b"X-Operation: export", b"X-Operation: wrap", b"x-operation: Export", b"X-Operation:",
    b"X-Operation: export, wrap", b"X_Operation: export", b"X-Operation: %65xport",
    b"Connection: x-operation", b"Connection: x-request-id", b"X-Request-Id: a, b",
    b"X-Request-Id: 0b9a1e6e-86e2-4d5e-9b65-3f4f0f1a2b3c", b"X.Request.Id: x",
    b"X-HTTP-Method-Override: delete", b"X-HTTP-Request: x", b"X-Original-URL: /api/v2/import_token", b"X-Rewrite-URL: /x",
    b"Content-Type: application/json", b"Content-Type: application/x-www-form-urlencoded",
    b"Content-Type: multipart/form-data; boundary=x", b"Content-Encoding: gzip",
    # the grammar
    b"X-A: b", b"X-A : b", b"X-A\t: b", b": b", b"X-A", b"X A: b", b"X-A: b\0", b"X-A: \x01",
    b"X-A: b\x7f", b"X-A: \xff", b"X-A\xff: b", b"X-A: b\r", b"X-A: b\n", b"X-A: b\r\n folded",
    b"X-A: b\r\n\tfolded", b"\tX-A: b", b"X-(A): b", b"X-A:", b"X-A:    b\t ", b"X-A: a:b", b"",
    b"X-A: " + b"a" * 9000, b"X-A: " + b"a" * 40000,
]

TARGETS = [
    b"/api//v2/keys", b"//api/v2/keys", b"/api/v2/keys/", b"/api/v2/./keys", b"/api/v2/../v2/keys",
    b"/api/v2/%2e%2e/keys", b"/api/v2/%2e/keys", b"/api/v2/.%2e/keys", b"/api/v2/ke%79s",
    b"/api/v2/keys%zz", b"/api/v2/keys%", b"/api/v2/keys%4", b"/api/v2/keys%00", b"/api%2fv2/keys",
    b"/api/v2%5ckeys", b"/api\\v2\\keys", b"/api/v2/keys;x=1", b"/api/v2/keys%3bx",
    b"/api/v2/keys#x", b"/api/v2/keys\x01", b"/api/v2/keys\xff", b"/API/v2/keys", b"/api/v2/Keys",
    b"/api/v2/keys/" + KEY + b"%2factions%2fwrap", b"/api/v2/keys/" + KEY + b"/Actions/wrap",
    b"/api/v2/keys/x%2f..%2fy", b"/api/v2/keys/x%252f..%252fy", b"/api/v2/keys/%ff",
    b"/api/v2/keys/%c0%af", b"/api/v2/keys/%e4%bd%a0", b"/api/v2/keys/" + KEY + b".json",
    b"/api/v2/keys/" + KEY + b"?action=wrap&action=unwrap",
    b"/api/v2/keys/" + KEY + b"?Action=wrap", b"/api/v2/keys/" + KEY + b"?action=un%77rap",
    b"/api/v2/keys/" + KEY + b"?%61ction=wrap", b"/api/v2/keys/" + KEY + b"?action[]=wrap",
    b"/api/v2/keys/" + KEY + b"?action=nothing", b"/api/v2/keys/" + KEY + b"?action",
    b"/api/v2/keys/" + KEY + b"?action=", b"/api/v2/keys/" + KEY + b"?x=1;action=wrap",
    b"/api/v2/keys/" + KEY + b"?%2561ction=wrap", b"/api/v2/keys/" + KEY + b"?+action=wrap",
    b"/api/v2/keys/" + KEY + b"?" + b"+" * 260 + b"action=unwrap",
    b"/api/v2/keys/" + KEY + b"?action" + b"+" * 260 + b"=unwrap",
    b"/api/v2/keys/" + KEY + b"?x=1%26action=unwrap", b"/api/v2/keys/" + KEY + b"?x%26action=unwrap",
    b"/api/v2/keys/" + KEY + b"?x=1%2526action=unwrap",
    b"/api/v2/keys/" + KEY + b"?action%3dunwrap",
    b"/api/v2/keys/" + KEY + b"?action=wrap&%c1%a1ction=unwrap",
    b"/api/v2/keys/" + KEY + b"?action=wrap&x=1%c0%a6action=unwrap",
    b"/api/v2/keys/" + KEY + b"?action=wrap&%25c1%25a1ction=unwrap",
    b"/api/v2/keys/" + KEY + b"?" + b"+" * 260 + b"_method=DELETE",
    b"/api/v2/keys/" + KEY + b"?_method=DELETE", b"/api/v2/keys?_method=DELETE",
    b"/api/v2/keys/" + KEY + b"?_method=delete", b"/api/v2/keys/" + KEY + b"?_method=DELETE&_method=GET",
    b"/api/v2/keys/" + KEY + b"?_Method=DELETE",
    b"/api/v2/keys/" + KEY + b"/actions/wrap?action=unwrap", b"/api/v2/keys?action=wrap",
    b"/api/v2/keys/" + KEY + b"?", b"/?", b"/api/v2/keys?a=%00", b"/api/v2/keys?a=\"<>",
    b"/api/v2/keys?a?b/c", b"*", b"", b"keys", b"?x", b"localhost:443", b"http://localhost",
    b"http://localhost/api/v2/keys", b"https://LOCALHOST/api/v2/keys", b"http://other/api/v2/keys",
    b"http://a@localhost/", b"ftp://localhost/", b"http:///api/v2/keys", b"http://localhost:80:/x",
    b"http://localhost?x=1", b"/" + b"a" * 9000, b"/api/v2/keys HTTP/1.1 x",
]

VERSIONS = [
    b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/0.9", b"http/1.1", b"HTTP/1.10",
    b"HTTP/1.1 ", b" HTTP/1.1", b"HTTP/01.1", b"HTTP/1", b"", b"HTTP/1.1\t", b"HTTPS/1.1",
]
ODD_METHODS = [
    b"get", b"CONNECT", b"TRACE", b"PRI", b"PURGE", b"G\0T", b"", b"G E", b"POST/", b"\r\nGET",
    b"\nGET", b" GET", b"GET\t", b"XGET", b"M-SEARCH", b"A" * 300,
]
LINE_ENDS = [b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n ", b"\r\n\t", b"\0", b"\x0b\r\n", b"\x85"]
CHUNKS = [
    b"5\r\nhello\r\n", b"05\r\nhello\r\n", b"5;a=b\r\nhello\r\n", b"5;a=\"x;y\"\r\nhello\r\n",
    b"5 \r\nhello\r\n", b" 5\r\nhello\r\n", b"+5\r\nhello\r\n", b"-5\r\nhello\r\n",
    b"0x5\r\nhello\r\n", b"5\nhello\n", b"5\r\nhello", b"5\r\nhelloXX", b"5\r\nhello\n",
    b"5\rhello\r\n", b"g\r\n\r\n", b"10000000000000005\r\nhello\r\n",
    b"ffffffffffffffff\r\nhello\r\n", b"5;\r\nhello\r\n", b"5;a\nb\r\nhello\r\n",
    b"5;" + b"a" * 300 + b"\r\nhello\r\n", b"5\t;a\r\nhello\r\n", b"\r\n",
    b"5;a=\"\r\n\r\nhello\r\n", b"00000000000000005\r\nhello\r\n", b"5;\0\r\nhello\r\n",
    b"5_0\r\nhello\r\n", b"6\r\nhello\r\n", b"4\r\nhello\r\n", b"A\r\n0123456789\r\n",
]
LASTS = [
    b"0\r\n\r\n", b"000\r\n\r\n", b"0;x\r\n\r\n", b"0\r\nX-Sum: 1\r\n\r\n",
    b"0\r\nContent-Length: 9\r\n\r\n", b"0\r\nHost: x\r\n\r\n",
    b"0\r\nAuthorization: Bearer x\r\n\r\n", b"0\r\nX: y\n\r\n", b"0\n\n",
    b"0\r\n X: folded\r\n\r\n", b"0\r\nTransfer_Encoding: x\r\n\r\n",
    b"0\r\nbluemix-instance: x\r\n\r\n", b"0\r\nX: y", b"0\r\n\n", b"0\r\nX\r\n\r\n",
    b"0\r\nX : y\r\n\r\n", b"0\r\nX:\t y \r\n\r\n", b"0\r\n\r", b"0\r\nX-Forwarded-For: 1\r\n\r\n",
    b"0\r\nX: \xff\r\n\r\n", b"", b"0\r\nX_Real_IP: 1\r\n\r\n", b"0\r\nIf.Match: x\r\n\r\n",
    b"0\r\nX-HTTP-Method-Override: DELETE\r\n\r\n", b"0\r\nX-Operation: wrap\r\n\r\n",
    b"0\r\nX_Request_Id: x\r\n\r\n",
]
NAMING = b"Connection: te, x-sum,X-Absent"
TRAILED = b"5\r\nhello\r\n0\r\nX-Kept: 1\r\nX-Sum: 2\r\nX-Last:3\r\n\r\n"
HIDDEN = b"DELETE /api/v2/keys/hidden HTTP/1.1\r\nHost: localhost\r\n\r\n"


def valid_request(r):
    """(request line, header lines, body) of a request that any server takes."""
    method, lines, body = r.choice(METHODS), [b"Host: localhost"], b""
    if r.random() < 0.4:
        lines.append(b"Authorization: Bearer a.b.c")
    if r.random() < 0.2:
        lines.append(b"X-Operation: " + r.choice([b"export", b"wrap"]))
    if r.random() < 0.5 and method not in (b"GET", b"HEAD"):
        body = r.choice([b"", b"{}", b"hello", HIDDEN, b"x" * r.randrange(20000)])
        if r.random() < 0.5:
            lines.append(b"Content-Length: %d" % len(body))
        else:
            lines.append(b"Transfer-Encoding: chunked")
            body = chunked(r, body)
    return [method, r.choice(PATHS), b"HTTP/1.1"], lines, body


def chunked(r, body):
    out, at = b"", 0
    while at < len(body):
        n = r.randrange(1, len(body) - at + 1)
        out += b"%x\r\n%s\r\n" % (n, body[at:at + n])
        at += n
    return out + b"0\r\n\r\n"


def trailed(r, lines):
    """Odd chunks and trailers, or good ones, of which Connection names some."""
    if r.random() < 0.2:
        lines.append(NAMING)
        return TRAILED
    return b"".join(r.choice(CHUNKS) for _ in range(r.randrange(1, 3))) + r.choice(LASTS)


def join(first, lines, body, end=b"\r\n"):
    return end.join([b" ".join(first), *lines, b"", b""]) + body


def alter_lines(r, lines, others):
    for _ in range(r.choice([1, 1, 1, 2, 3])):
        at = r.randrange(len(lines) + 1)
        kind = r.randrange(5)
        if kind < 3 or not lines:
            lines.insert(at, r.choice(others))
        elif kind == 3:
            del lines[at % len(lines)]
        else:
            lines.insert(at, r.choice(lines))
    r.shuffle(lines)


def hostile_request(r):
    first, lines, body = valid_request(r)
    kind = r.randrange(8)
    if kind <= 2:
        alter_lines(r, lines, LINES)
    elif kind == 3:
        first[1] = r.choice(TARGETS)
    elif kind == 4:
        part = r.randrange(2)
        first[0 if part else 2] = r.choice(ODD_METHODS if part else VERSIONS)
    elif kind == 5:
        lines = [line for line in lines if not line.startswith((b"Content-L", b"Transfer"))]
        lines.append(b"Transfer-Encoding: chunked")
        first[0] = b"POST"
        body = trailed(r, lines)
    elif kind == 6:
        data = join(first, lines, body)
        at = r.choice([i for i in range(len(data)) if data.startswith(b"\r\n", i)])
        return data[:at] + r.choice(LINE_ENDS) + data[at + 2:]
    else:
        return join(first, lines, body, r.choice([b"\n", b"\r\n"]))
    return join(first, lines, body)


def mutate(r, data):
    """Bytes flipped, put in, taken out, moved or doubled."""
    data = bytearray(data)
    for _ in range(r.choice([1, 1, 2, 4])):
        at = r.randrange(len(data) + 1)
        n = r.choice([1, 1, 2, 8, 40])
        kind = r.randrange(6)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << r.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = r.choice(b"\r\n\0 \t:;,0\xff\x7f/%_-5")
        elif kind == 2:
            data[at:at] = bytes([r.choice(b"\r\n\0 \t:;,0\xff/%_-5")])
        elif kind == 3:
            del data[at:at + n]
        elif kind == 4:
            data[at:at] = data[at:at + n]
        else:
            data[at:at] = r.choice([b"\r\n", b"\r\n\r\n", b"\n\n", b"Content-Length: 1\r\n", HIDDEN,
                                    b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", r.choice(LINES)])
    return bytes(data)


def cut(r, data):
    """Segments: mostly one, else cut at some points, seldom at every byte."""
    kind = r.random()
    if kind < 0.6 or len(data) < 2:
        return [data]
    if kind < 0.95 or len(data) > 400:
        points = sorted(r.sample(range(1, len(data)), min(len(data) - 1, r.randrange(1, 6))))
        return [data[a:b] for a, b in zip([0, *points], [*points, len(data)])]
    return [data[i:i + 1] for i in range(len(data))]


def request_case(seed, number):
    """The segments of one connection: requests, some of them hostile, pipelined."""
    r = random.Random(f"{seed} request {number}")
    data = b"".join(join(*valid_request(r)) if r.random() < 0.4 else hostile_request(r)
                    for _ in range(r.choice([1, 1, 2, 3])))
    if r.random() < 0.4:
        data = mutate(r, data)
    if r.random() < 0.5:
        data += HIDDEN
    if r.random() < 0.1:
        data = data[:r.randrange(len(data))]
    return cut(r, data)


def every_request():
    """Each entry of the tables above in an otherwise valid request, followed by another one."""
    def get(method=b"GET", target=PATHS[0], version=VERSIONS[0], *lines):
        return join([method, target, version], [b"Host: localhost", *lines], b"")

    post = join([b"POST", PATHS[0], VERSIONS[0]], [b"Host: localhost", b"Transfer-Encoding: chunked"], b"")
    made = [get(b"GET", PATHS[0], VERSIONS[0], line) for line in LINES]
    made += [join([b"POST", PATHS[0], VERSIONS[0]], [b"Host: localhost", line], b"hello") for line in LINES]
    made += [get(b"POST", target) for target in TARGETS] + [get(b"GET", target) for target in TARGETS]
    made += [get(b"GET", PATHS[0], version) for version in VERSIONS]
    made += [get(method) for method in ODD_METHODS]
    made += [post + chunk + LASTS[0] for chunk in CHUNKS] + [post + CHUNKS[0] + last for last in LASTS]
    made.append(post.replace(b"\r\n", b"\r\n" + NAMING + b"\r\n", 1) + TRAILED)
    made += [get().replace(b"\r\n", end, n) for end in LINE_ENDS for n in (1, 2, 3)]
    return [[data + HIDDEN] for data in made]


# ---- answers ----

STATUS_LINES = [
    b"HTTP/1.1 200 OK", b"HTTP/1.1 201 Created", b"HTTP/1.1 204 No Content",
    b"HTTP/1.1 304 Not Modified", b"HTTP/1.1 404 Not Found", b"HTTP/1.1 200 ", b"HTTP/1.0 200 OK",
    b"HTTP/1.1 200", b"HTTP/2 200 OK", b"HTTP/1.1 20 OK", b"HTTP/1.1 2000 OK", b"HTTP/1.1 099 x",
    b"HTTP/1.1 600 x", b"HTTP/1.1  200 OK", b"HTTP/1.1 200\tOK", b"HTTP/1.1 200 O\0K",
    b"HTTP/1.1 200 O\rK", b"http/1.1 200 OK", b" HTTP/1.1 200 OK", b"ICY 200 OK", b"",
    b"HTTP/1.1 101 Switching Protocols", b"HTTP/1.1 +20 OK", b"HTTP/1.1 200 \xff",
]
INTERIM = [
    b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
    b"HTTP/1.1 102 Processing\r\nContent-Length: 5\r\n\r\n", b"HTTP/1.1 199 x\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 10, b"HTTP/1.1 103 x\r\n\r\n" * 11,
    b"HTTP/1.1 101 x\r\n\r\n",
]
ANSWER_LINES = [line for line in LINES if not line.startswith((b"Host", b"Expect", b"X-A: aaa"))] + [
    b"Location: /api/v2/keys/1", b"Location: https://evil.example/x", b"Location: //evil.example/",
    b"Location: https://localhost/x", b"Location: javascript:alert(1)", b"Location: \\\\evil.example",
    b"Location: /a\r\nSet-Cookie: x=y", b"Alt-Svc: h3=\":443\"", b"Set-Cookie: a=b", b"Date: now",
    b"Location: https:/\\evil.example", b"Location: https://localhost@evil.example/",
    b"Location: /\t/evil.example",
    b"Connection: x-request-id\r\nX-Request-Id: 0b9a1e6e-86e2-4d5e-9b65-3f4f0f1a2b3c",
    b"X-Request-Id: 0b9a1e6e-86e2-4d5e-9b65-3f4f0f1a2b3c\r\nX-Request-Id: another",
    b"Connection: correlation-id\r\nCorrelation-Id: 0b9a1e6e-86e2-4d5e-9b65-3f4f0f1a2b3c"]


def valid_answer(r, method):
    lines, body = [b"Content-Type: application/json"], r.choice([b"", b"{}", b"y" * r.randrange(20000)])
    if method == b"HEAD":
        return [b"HTTP/1.1 200 OK"], lines + [b"Content-Length: 7"], b""
    if r.random() < 0.6:
        return [b"HTTP/1.1 200 OK"], lines + [b"Content-Length: %d" % len(body)], body
    if r.random() < 0.7:
        return [b"HTTP/1.1 200 OK"], lines + [b"Transfer-Encoding: chunked"], chunked(r, body)
    return [b"HTTP/1.1 200 OK"], lines, body


def hostile_answer(r, method):
    first, lines, body = valid_answer(r, method)
    kind = r.randrange(6)
    if kind <= 1:
        alter_lines(r, lines, ANSWER_LINES)
    elif kind == 2:
        first = [r.choice(STATUS_LINES)]
    elif kind == 3:
        lines = [line for line in lines if not line.startswith(b"Content-L")]
        lines.append(b"Transfer-Encoding: chunked")
        body = trailed(r, lines)
    elif kind == 4:
        return r.choice(INTERIM) + join(first, lines, body)
    else:
        data = join(first, lines, body)
        at = r.choice([i for i in range(len(data)) if data.startswith(b"\r\n", i)])
        return data[:at] + r.choice(LINE_ENDS) + data[at + 2:]
    return join(first, lines, body)


SMUGGLED = b"HTTP/1.1 200 OK\r\nX-Smuggled: 1\r\nContent-Length: 8\r\n\r\nsmuggled"


def answer_case(seed, number):
    """(method of the request that is answered, segments of the answer)"""
    r = random.Random(f"{seed} answer {number}")
    method = r.choice([b"GET", b"GET", b"POST", b"HEAD", b"DELETE"])
    data = hostile_answer(r, method) if r.random() < 0.8 else join(*valid_answer(r, method))
    if r.random() < 0.3:
        data = mutate(r, data)
    if r.random() < 0.4:
        data += r.choice([SMUGGLED, b"\r\n", b"x", b"HTTP/1.1 100 Continue\r\n\r\n"])
    if r.random() < 0.15:
        data = data[:r.randrange(len(data) + 1)]
    return method, cut(r, data)


def every_answer():
    """Each entry of the tables above in an otherwise valid answer."""
    length = b"Content-Length: 2"
    made = [join([STATUS_LINES[0]], [length, line], b"{}") for line in ANSWER_LINES]
    made += [join([line], [length], b"{}") for line in STATUS_LINES]
    made += [some + join([STATUS_LINES[0]], [length], b"{}") for some in INTERIM]
    coded = join([STATUS_LINES[0]], [b"Transfer-Encoding: chunked"], b"")
    made += [coded + chunk + LASTS[0] for chunk in CHUNKS] + [coded + CHUNKS[0] + last for last in LASTS]
    made.append(coded.replace(b"\r\n", b"\r\n" + NAMING + b"\r\n", 1) + TRAILED)
    made += [join([STATUS_LINES[0]], [length], b"{}" + more) for more in (SMUGGLED, b"\r\n", b"x")]
    return [(b"GET", [data]) for data in made]


# ---- suites that are kept as data ----

def read_suite(path):
    """[(name, kind, segments)] of a suite: JSON with `cases`, each with base64 `parts`."""
    suite = json.loads(path.read_text())
    kind = "answer" if suite["suite"].endswith("resp") else "request"
    return [(f"{suite['suite']} {case['id']}", kind, [base64.b64decode(p["b"]) for p in case["parts"]])
            for case in suite["cases"]]

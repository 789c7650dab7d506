"""The clients: what they send, and what they say of the answers."""

import base64
import contextlib
import dataclasses
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile

from subjects import CIPHER, INSTANCE, path_of

TOKEN_BYTES = 900
UPLOAD_BYTES = 1 << 20


@dataclasses.dataclass
class Answered:
    requests: int
    rate: float = 0
    latency_us: tuple = ()  # p50, p99, p99.9


def token(size=TOKEN_BYTES):
    """A bearer token with the claims of the key service's tokens; nobody signed it."""
    def part(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    head = part(b'{"kid":"20260101-0000","alg":"RS256"}')
    claims = part(json.dumps({
        "iam_id": "IBMid-110000P9W2", "id": "IBMid-110000P9W2", "sub": "jane.doe@example.com",
        "account": {"valid": True, "bss": "a12333e9bd28461a8c92385628efac9f"},
        "iat": 1760000000, "exp": 4000000000, "iss": "https://iam.example.com/identity",
        "grant_type": "urn:ibm:params:oauth:grant-type:apikey", "scope": "ibm openid",
        "client_id": "default", "authn": {"sub": "jane.doe@example.com"}}).encode())
    start = f"{head}.{claims}."
    return start + "A" * (size - len(start))


HEADERS = {"Authorization": f"Bearer {token()}", "Bluemix-Instance": INSTANCE}

# Requests whose events are of different sizes: without a word of who asks, and with every one.
BRIEF, VERBOSE = {}, HEADERS | {"User-Agent": " ".join(f"tool{n}/1.2.3" for n in range(10)),
                                "X-Kms-Key-Ring": "ring-" + "r" * 90, "Correlation-Id": "c" * 64}


class Client:
    """Runs load generators on the processors that are not the proxy's."""

    def __init__(self, folder, build, cpus):
        self.folder, self.dialer, self.cpus = folder, str(build / "bench/dial"), cpus
        conf = folder / "openssl.cnf"
        conf.write_text("openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n"
                        f"[c]\nCiphersuites = {CIPHER}\nMinProtocol = TLSv1.3\n")
        upload = folder / "upload.lua"
        upload.write_text('wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n'
                          f"local head = '{{\"metadata\":{{}},\"resources\":[{{\"payload\":\"'\n"
                          f"wrk.body = head .. string.rep('A', {UPLOAD_BYTES} - #head - 4) .. '\"}}]}}'\n")
        self.upload_script = str(upload)
        head = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
        self.env = dict(os.environ, OPENSSL_CONF=str(conf))
        self.closing = f"GET {path_of(1024)} HTTP/1.1\r\nHost: localhost\r\n{head}Connection: close\r\n\r\n"
        self.keeping = f"GET {path_of(1024)} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n"

    def popen(self, command, **more):
        return subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True,
                                preexec_fn=lambda: os.sched_setaffinity(0, self.cpus),
                                **({"env": self.env} | more))

    def run(self, command, **more):
        process = self.popen(command, **({"stderr": subprocess.STDOUT} | more))
        text = process.communicate()[0]
        if process.returncode:
            sys.exit(f"bench: {command[0]} ended with {process.returncode}:\n{text}")
        return text

    def wrk(self, port, connections, seconds, size=1024, upload=False, tls=True, headers=None):
        """As fast as it goes, on kept connections."""
        target = "/api/v2/keys" if upload else path_of(size)
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "--latency"]
        for name, value in (HEADERS if headers is None else headers).items():
            command += ["-H", f"{name}: {value}"]
        if upload:
            command += ["-s", self.upload_script]
        text = self.run([*command, f"{'https' if tls else 'http'}://127.0.0.1:{port}{target}"])
        if "Non-2xx" in text or "Socket errors" in text:
            sys.exit(f"bench: wrk met errors:\n{text}")
        return Answered(int(found(text, r"(\d+) requests in")),
                        float(found(text, r"Requests/sec:\s+([\d.]+)")))

    def dial(self, port, seconds, resumed):
        """A new connection for each request."""
        text = self.run([self.dialer, "resumed" if resumed else "full", port, CIPHER, seconds, 8],
                        env=dict(self.env, REQUEST=self.closing))
        answered, reused = (int(n) for n in re.search(r"answered (\d+) resumed (\d+)", text).groups())
        if resumed != (reused > answered // 2):
            sys.exit(f"bench: of {answered} connections {reused} were resumed")
        return Answered(answered, answered / seconds)

    def paced(self, port, connections, rate, seconds):
        """At a fixed rate, whatever the answers take."""
        with tempfile.NamedTemporaryFile("r", dir=self.folder) as log:
            command = ["h2load", "--h1", f"-c{connections}", f"--rps={max(1, rate // connections)}",
                       "-D", seconds, f"--log-file={log.name}"]
            for name, value in HEADERS.items():
                command += ["-H", f"{name}: {value}"]
            self.run([*command, f"https://127.0.0.1:{port}{path_of(1024)}"])
            rows = [line.split() for line in log]
        bad = [row for row in rows if not row[1].startswith("2")]
        if bad or len(rows) < 10:
            sys.exit(f"bench: h2load made {len(rows)} requests, {len(bad)} of them failed")
        times = statistics.quantiles((int(row[2]) for row in rows), n=1000, method="inclusive")
        return Answered(len(rows), len(rows) / seconds, (times[499], times[989], times[998]))

    @contextlib.contextmanager
    def idle(self, port, connections, tls=True):
        """So many connections, each after one request."""
        process = self.popen([self.dialer, "hold", port, CIPHER if tls else "plain", connections], stdin=subprocess.PIPE,
                             env=dict(self.env, REQUEST=self.keeping))
        if process.stdout.readline() != f"held {connections}\n":
            sys.exit(f"bench: {connections} connections could not be held")
        try:
            yield
        finally:
            process.communicate()


def found(text, pattern):
    match = re.search(pattern, text, re.M)
    if not match:
        sys.exit(f"bench: no {pattern} in:\n{text}")
    return match[1]

"""The clients: what they send, and what they say of the answers."""

import base64
import contextlib
import dataclasses
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile

from subjects import CIPHER, INSTANCE, openssl_defaults, path_of

TOKEN_BYTES = 900
TOKENS = 1024  # sixteen for each row of what a worker remembers of tokens
UPLOAD_BYTES = 1 << 20
CALLERS = 8  # that dial
FEW_ERRORS = 0.01  # of the answers: a load with more of them was not that load


@dataclasses.dataclass
class Answered:
    requests: int
    errors: int = 0
    tickets: float = None   # for each connection, where they were counted
    latency_us: tuple = None  # p50, p99, p99.9


def token(size=TOKEN_BYTES, who="jane.doe"):
    """A bearer token with the claims of the key service's tokens; nobody signed it."""
    def part(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    head = part(b'{"kid":"20260101-0000","alg":"RS256"}')
    claims = part(json.dumps({
        "iam_id": "IBMid-110000P9W2", "id": "IBMid-110000P9W2", "sub": f"{who}@example.com",
        "account": {"valid": True, "bss": "a12333e9bd28461a8c92385628efac9f"},
        "iat": 1760000000, "exp": 4000000000, "iss": "https://iam.example.com/identity",
        "grant_type": "urn:ibm:params:oauth:grant-type:apikey", "scope": "ibm openid",
        "client_id": "default", "authn": {"sub": f"{who}@example.com"}}).encode())
    start = f"{head}.{claims}."
    return start + "A" * (size - len(start))


HEADERS = {"Authorization": f"Bearer {token()}", "Bluemix-Instance": INSTANCE}

# With what makes an event longer, in steps.
AGENT = HEADERS | {"User-Agent": " ".join(f"tool{n}/1.2.3" for n in range(10))}
VERBOSE = AGENT | {"X-Kms-Key-Ring": "ring-" + "r" * 90, "Correlation-Id": "c" * 64}

UPLOAD = f"""wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local head = '{{"metadata":{{}},"resources":[{{"payload":"'
wrk.body = head .. string.rep('A', {UPLOAD_BYTES} - #head - 4) .. '"}}]}}'
"""
TURNS = """local requests, n = {}, 0
init = function()
  for token in io.lines("%s") do
    wrk.headers["Authorization"] = "Bearer " .. token
    table.insert(requests, wrk.format())
  end
end
request = function()
  n = n %% #requests + 1
  return requests[n]
end
"""


class Traffic:
    """A client at work.  `read` makes Answered of what it prints."""

    def __init__(self, process, read):
        self.process, self.read = process, read

    def stop(self):
        """wrk ends when interrupted, dial when its input does."""
        if not self.process.stdin:
            self.process.send_signal(signal.SIGINT)
        return self.end()

    def end(self):
        text = self.process.communicate()[0]
        if self.process.returncode:
            sys.exit(f"bench: {self.process.args[0]} ended with {self.process.returncode}:\n{text}")
        done = self.read(text)
        if done.errors > FEW_ERRORS * done.requests:
            sys.exit(f"bench: {done.errors} errors and {done.requests} answers:\n{text}")
        return done


class Client:
    """Runs load generators on the processors that are not the proxy's."""

    def __init__(self, folder, build, cpus):
        self.folder, self.dialer, self.cpus, self.processes = folder, build / "bench/dial", cpus, []
        tokens = folder / "tokens"
        tokens.write_text("\n".join(token(who=f"caller{n:04}") for n in range(TOKENS)) + "\n")
        self.scripts = {"upload": folder / "upload.lua", "turns": folder / "turns.lua"}
        self.scripts["upload"].write_text(UPLOAD)
        self.scripts["turns"].write_text(TURNS % tokens)
        conf = folder / "openssl.cnf"
        conf.write_text(openssl_defaults(f"Ciphersuites = {CIPHER}\nMinProtocol = TLSv1.3"))
        self.env = dict(os.environ, OPENSSL_CONF=str(conf))
        head = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
        self.keeping = f"GET {path_of(1024)} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n"
        self.closing = f"{self.keeping[:-2]}Connection: close\r\n\r\n"

    def popen(self, command, **more):
        self.processes.append(subprocess.Popen(
            [str(part) for part in command], stdout=subprocess.PIPE, text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, self.cpus), **({"env": self.env} | more)))
        return self.processes[-1]

    def close(self):
        """No client outlives a bench that failed."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()

    def begin(self, command, read, **more):
        return Traffic(self.popen(command, stderr=subprocess.STDOUT, **more), read)

    def wrk(self, port, connections, size=1024, script=None, tls=True, headers=None):
        """As fast as it goes, on kept connections, until it is stopped."""
        target = "/api/v2/keys" if script == "upload" else path_of(size)
        command = ["wrk", "-t1", f"-c{connections}", "-d1h", "--timeout", "10s"]
        for name, value in (headers or HEADERS).items():
            command += ["-H", f"{name}: {value}"]
        if script:
            command += ["-s", self.scripts[script]]
        return self.begin([*command, f"{'https' if tls else 'http'}://127.0.0.1:{port}{target}"],
                          read_wrk)

    def dial(self, port, resumed):
        """A new connection for each request, until it is stopped."""
        command = [self.dialer, "resumed" if resumed else "full", port, CIPHER, CALLERS]
        return self.begin(command, lambda text: read_dial(text, resumed), stdin=subprocess.PIPE,
                          env=dict(self.env, REQUEST=self.closing))

    def h2load(self, port, *options):
        command = ["h2load", "--h1", *options]
        for name, value in HEADERS.items():
            command += ["-H", f"{name}: {value}"]
        return self.begin([*command, f"https://127.0.0.1:{port}{path_of(1024)}"], read_h2load)

    def paced(self, port, connections, rate, warm, seconds):
        """At a fixed rate, whatever the answers take; without the first `warm` seconds."""
        with tempfile.NamedTemporaryFile("r", dir=self.folder) as log:
            done = self.h2load(port, f"-c{connections}", f"--rps={max(1, rate // connections)}",
                               "-D", f"{round(1000 * (warm + seconds))}ms", f"--log-file={log.name}").end()
            rows = [[int(n) for n in line.split()] for line in log]
        begin = min((at for at, *_ in rows), default=0) + warm * 1e6
        took = [took for at, _, took in rows if at >= begin]
        if len(took) > 1:
            times = statistics.quantiles(took, n=1000, method="inclusive")
            done.latency_us = (times[499], times[989], times[998])
        return done

    @contextlib.contextmanager
    def idle(self, port, connections, tls=True):
        """So many connections, each after one request."""
        process = self.popen([self.dialer, "hold", port, CIPHER if tls else "plain", connections],
                             stdin=subprocess.PIPE, env=dict(self.env, REQUEST=self.keeping))
        if process.stdout.readline() != f"held {connections}\n":
            sys.exit(f"bench: {connections} connections could not be held")
        try:
            yield
        finally:
            process.communicate()


# ---- what they say ------------------------------------------------------------------------------


def found(text, pattern):
    match = re.search(pattern, text, re.M)
    if not match:
        sys.exit(f"bench: no {pattern} in:\n{text}")
    return [int(n) for n in match.groups()]


def read_wrk(text):
    errors = sum(int(n) for line in re.findall(r"^ *(?:Socket errors|Non-2xx).*$", text, re.M)
                 for n in re.findall(r"\b\d+\b", line.partition(":")[2]))
    return Answered(*found(text, r"(\d+) requests in"), errors)


def read_dial(text, resumed):
    answered, reused, tickets = found(text, r"answered (\d+) resumed (\d+) tickets (\d+)")
    wrong = answered - reused if resumed else reused
    return Answered(answered, max(0, wrong - CALLERS), tickets / max(1, answered))


def read_h2load(text):
    good, bad = found(text, r"(\d+) succeeded, (\d+) failed")
    return Answered(good, bad)

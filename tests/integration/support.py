"""What the integration tests share: the programs under test as objects."""

import base64
import contextlib
import functools
import hashlib
import hmac
import itertools
import json
import os
import random
import re
import signal
import socket
import ssl
import subprocess
import time
import urllib.request
import uuid
from pathlib import Path

import http1

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("KEYTRAIL_BUILD", ROOT / "build"))
KEYTRAIL = Path(os.environ.get("KEYTRAIL_BIN", BUILD / "keytrail"))
KMS = Path(os.environ.get("KEYTRAIL_KMS", BUILD / "kms"))
ROUTES = ROOT / "proxy" / "routes" / "key-protect.json"
SANITIZED = not {"address", "thread", "valgrind"}.isdisjoint((BUILD.name, KEYTRAIL.parent.name))
SANITIZER = {"TSAN_OPTIONS": f"suppressions={ROOT / 'tests' / 'tsan.supp'}",
             "UBSAN_OPTIONS": "print_stacktrace=1"}
# The sinks that keytrail was built with, of those that are modules.
MODULES = {kind for kind in ("http", "kafka") if (BUILD / f"sink_{kind}.so").exists()}
# How long a condition may take.  Nothing waits that long unless something is wrong.
PATIENCE = 60 if SANITIZED else 20

INSTANCE = "fd692647-43d0-4699-9f83-f39a54b1327b"
ACCOUNT = "a12333e9bd28461a8c92385628efac9f"
REPORT = re.compile(r"ERROR: \w+Sanitizer|WARNING: ThreadSanitizer|runtime error:|Assertion")


def wait_for(condition, what, timeout=PATIENCE):
    """The first true value of condition()."""
    end = time.monotonic() + timeout
    while True:
        if value := condition():
            return value
        assert time.monotonic() < end, f"timed out waiting for {what}"
        time.sleep(0.01)


def b64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def make_token(secret, **claims):
    """A token as IAM makes them; claims given as None are left out."""
    now = int(time.time())
    body = {"iam_id": "IBMid-110000P9W2", "id": "IBMid-110000P9W2", "sub": "alice@example.com",
            "grant_type": "urn:ibm:params:oauth:grant-type:apikey", "account": {"bss": ACCOUNT},
            "iss": "https://iam.example.com/identity", "iat": now, "exp": now + 3600,
            "scope": "ibm openid", "client_id": "default"}
    body.update(claims)
    body = {k: v for k, v in body.items() if v is not None}
    text = b64url(b'{"alg":"HS256","typ":"JWT"}') + "." + b64url(json.dumps(body).encode())
    mac = hmac.new(secret, text.encode(), hashlib.sha256).digest()
    return f"{text}.{b64url(mac)}"


def merge(base, over):
    """A copy of base with over's members put in, object by object.  Ellipsis removes."""
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    out = dict(base)
    for key, value in over.items():
        if value is ...:
            out.pop(key, None)
        else:
            out[key] = merge(base.get(key), value)
    return out


def is_free(port):
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def free_ports(n):
    """Outside the range from which the kernel gives ports to others before they are used here."""
    # Other ones in tests that run at the same time, whatever their seed.
    candidates = random.SystemRandom().sample(range(10240, 32768), 50 * n)
    return list(itertools.islice(filter(is_free, candidates), n))


def text_of(path):
    """What there is of a file that somebody may not have made yet."""
    return path.read_text() if path.exists() else ""


def replace(path, content):
    """Whoever looks sees the old file or the new one."""
    temporary = Path(f"{path}.new")
    temporary.write_bytes(content)
    temporary.rename(path)


class Pki:
    """The certificates of certs/make-certs, and odd ones made on demand."""

    def __init__(self, folder):
        self.dir = Path(folder)
        subprocess.run([ROOT / "certs" / "make-certs", self.dir], check=True)

    def __getitem__(self, name):
        return str(self.dir / name)

    def client(self, **options):
        context = ssl.create_default_context(cafile=self["ca.pem"])
        context.set_alpn_protocols(["http/1.1"])
        if version := options.get("version"):
            context.minimum_version = context.maximum_version = version
        if cert := options.get("cert"):
            context.load_cert_chain(self[f"{cert}.pem"], self[f"{cert}.key"])
        return context

    def server(self, name="kms", client_ca=None):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self[f"{name}.pem"], self[f"{name}.key"])
        context.set_alpn_protocols(["http/1.1"])
        if client_ca:
            context.load_verify_locations(self[client_ca])
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def authority(self):
        from cryptography.hazmat.primitives import serialization

        return (self.certificate("ca"),
                serialization.load_pem_private_key(Path(self["ca.key"]).read_bytes(), None))

    def certificate(self, name):
        from cryptography import x509

        return x509.load_pem_x509_certificate(Path(self[f"{name}.pem"]).read_bytes())

    def revoke(self, file, *names, hours_to=1):
        """A revocation list of the trusted CA."""
        import datetime
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization

        ca, ca_key = self.authority()
        now = datetime.datetime.utcnow()
        builder = (x509.CertificateRevocationListBuilder().issuer_name(ca.subject)
                   .last_update(now - datetime.timedelta(hours=2))
                   .next_update(now + datetime.timedelta(hours=hours_to)))
        for name in names:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(self.certificate(name).serial_number)
                .revocation_date(now - datetime.timedelta(hours=2)).build())
        replace(file, builder.sign(ca_key, hashes.SHA256())
                .public_bytes(serialization.Encoding.PEM))
        return str(file)

    def respond(self, file, name, hours_to=1):
        """An OCSP response of the trusted CA: good."""
        import datetime
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.x509 import ocsp

        ca, ca_key = self.authority()
        now = datetime.datetime.utcnow()
        response = (ocsp.OCSPResponseBuilder()
                    .add_response(cert=self.certificate(name), issuer=ca,
                                  algorithm=hashes.SHA1(), cert_status=ocsp.OCSPCertStatus.GOOD,
                                  this_update=now - datetime.timedelta(hours=2),
                                  next_update=now + datetime.timedelta(hours=hours_to),
                                  revocation_time=None, revocation_reason=None)
                    .responder_id(ocsp.OCSPResponderEncoding.HASH, ca)
                    .sign(ca_key, hashes.SHA256()))
        replace(file, response.public_bytes(serialization.Encoding.DER))
        return str(file)

    def issue(self, name, *, dns="localhost", uri=None, days_from=-1, days_to=30):
        """A certificate of the trusted CA with chosen names and dates."""
        import datetime
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

        ca, ca_key = self.authority()
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.utcnow()
        names = [x509.DNSName(dns)] + ([x509.UniformResourceIdentifier(uri)] if uri else [])
        cert = (x509.CertificateBuilder()
                .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
                .issuer_name(ca.subject).public_key(key.public_key())
                .serial_number(x509.random_serial_number())
                .not_valid_before(now + datetime.timedelta(days=days_from))
                .not_valid_after(now + datetime.timedelta(days=days_to))
                .add_extension(x509.SubjectAlternativeName(names), False)
                .add_extension(x509.BasicConstraints(False, None), True)
                .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH,
                                                      ExtendedKeyUsageOID.CLIENT_AUTH]), False)
                .sign(ca_key, hashes.SHA256()))
        Path(self[f"{name}.pem"]).write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        Path(self[f"{name}.key"]).write_bytes(key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption()))
        os.chmod(self[f"{name}.key"], 0o600)
        return name


class Kms:
    """The stand-in key service."""

    def __init__(self, folder, pki, tls=True, extra=()):
        self.folder = Path(folder)
        self.secret = base64.b64encode(os.urandom(32))
        (self.folder / "secret").write_bytes(self.secret + b"\n")
        self.log = self.folder / "requests.jsonl"
        command = [KMS, "--token-secret", self.folder / "secret", "--log", self.log, *extra]
        if tls:
            command += ["--cert", pki["kms.pem"], "--key", pki["kms.key"]]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True,
                                        start_new_session=True)
        self.port = int(json.loads(self.process.stdout.readline())["address"].rpartition(":")[2])

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE) == 0
        self.process.stdout.close()

    def token(self, **claims):
        return make_token(self.secret, **claims)

    def headers(self, **more):
        """Headers that the service wants; correlation=..., token=..., others by name."""
        token = more.pop("token", None) or self.token()
        fields = {"Authorization": f"Bearer {token}", "Bluemix-Instance": INSTANCE}
        if correlation := more.pop("correlation", None):
            fields["Correlation-Id"] = correlation
        fields.update({k.replace("_", "-"): v for k, v in more.items()})
        return fields

    def requests(self, correlation=None):
        """What the service saw, in order."""
        if not self.log.exists():
            return []
        seen = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [r for r in seen if correlation is None or r["correlation"] == correlation]


class Keytrail:
    """The sidecar: a process, its folder, its ports and its trail."""

    accepted = None  # called with each file of which the program has said that it is good

    def __init__(self, folder, pki, backend, config=None, raw=None, environment=None,
                 arguments=()):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.pki = pki
        self.file = self.folder / "routes.json"
        self.stderr_file = self.folder / "stderr"
        self.stdout_file = self.folder / "stdout"
        self.environment = {**os.environ, **SANITIZER, "KEYTRAIL_MODULES_DIR": str(BUILD),
                            **(environment or {})}
        self.arguments = arguments
        self.program = KEYTRAIL
        self.process = None
        self.ports = None  # once it has started
        self.expected_exit = 0
        if raw is None:
            self.config = merge(self.defaults(backend), config or {})
            if SANITIZED or "LD_PRELOAD" in self.environment:
                self.config.setdefault("sandbox", "off")  # they open files of their own
            self.write_config()
        else:
            self.config = {}
            self.file.write_text(raw)

    def defaults(self, backend):
        upstream = {"address": f"127.0.0.1:{backend.port if backend else 9}",
                    "tls": {"ca": self.pki["ca.pem"], "server_name": "localhost"}}
        return {
            "listen": {"address": "127.0.0.1:0",
                       "tls": {"certificate": self.pki["server.pem"],
                               "key": self.pki["server.key"]}},
            "upstream": upstream,
            "metrics": {"address": "127.0.0.1:0"},
            "admin": {"address": "127.0.0.1:0", "token": None},
            "audit": {"trail": str(self.folder / "trail"), "sign": None, "ring_size": 1048576,
                      "segment_size": 4194304},
            "workers": 2,
            "limits": {"connections": 500, "refusals": 0},
            "service": {"region": "us-south"},
            "include": [str(ROUTES)],
        }

    def write_config(self, **over):
        self.config = merge(self.config, over)
        temporary = self.file.with_suffix(".new")
        temporary.write_text(json.dumps(self.config, indent=1))
        temporary.rename(self.file)

    # ---- the process ----

    def spawn(self):
        with open(self.stderr_file, "ab") as err, open(self.stdout_file, "ab") as out:
            self.process = subprocess.Popen([self.program, "run", self.file, *self.arguments],
                                            stdout=out, stderr=err, stdin=subprocess.DEVNULL,
                                            env=self.environment, cwd=self.folder,
                                            start_new_session=True)

    def start(self):
        assert self.spawn_and_listen(), \
            f"keytrail ended with {self.process.poll()}: {self.stderr()[-2000:]}"
        return self

    def spawn_and_listen(self):
        """True when it listens, False when it has ended before that."""
        mark = self.stderr_file.stat().st_size if self.stderr_file.exists() else 0
        self.spawn()
        wanted = {"listen"} | {n for n in ("metrics", "admin") if self.config.get(n)
                               and "address" in self.config[n]}

        def settled():
            ended = self.process.poll() is not None
            ports = {}
            for line in self.log_lines(mark):
                if line.get("event") == "listening":
                    name, _, address = line["message"].partition(" ")
                    if not address.startswith("/"):
                        ports[name] = int(address.rpartition(":")[2])
            return ports if wanted <= ports.keys() and not ended else ended

        ports = wait_for(settled, "the listeners")
        if ports is True:
            return False
        self.ports, self.port = ports, ports["listen"]
        self.tell_accepted()
        return True

    def tell_accepted(self):
        if self.accepted:
            included = (self.folder / name for name in self.config.get("include", ()))
            for path in (self.file, *filter(Path.exists, included)):
                self.accepted(path)

    def stop(self, timeout=PATIENCE):
        """TERM, and all that must hold at the end of a life."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("keytrail did not stop: " + self.stderr()[-2000:]) from None
        self.check_output()
        assert code == self.expected_exit, f"exit {code}: {self.stderr()[-2000:]}"

    def kill(self):
        self.process.kill()
        self.process.wait()
        whole = self.stderr_file.read_bytes().rpartition(b"\n")
        os.truncate(self.stderr_file, len(whole[0] + whole[1]))  # a line that it had begun is nobody's

    def finish(self):
        """For the end of a test: nothing stays, whatever happened."""
        if self.process is None or (self.ports is None and self.process.poll() is not None):
            return
        if self.process.poll() is None:
            self.stop()
        else:
            self.check_output()
        check_trail(self.trail_dir)

    def signal(self, number):
        self.process.send_signal(number)

    def threads(self):
        """{name: its folder in /proc}; one may end while the others are looked for."""
        found = {}
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found[(task / "comm").read_text().strip()] = task
        return found

    def reload(self, **over):
        """Change the configuration, HUP, wait for the record; its outcome."""
        before = {e["id"] for e in self.own("keytrail.reload")}
        if over:
            self.write_config(**over)
        self.signal(signal.SIGHUP)
        events = wait_for(lambda: [e for e in self.own("keytrail.reload") if e["id"] not in before],
                          "the reload")
        if events[-1]["outcome"] == "success":
            self.tell_accepted()
        return events[-1]

    # ---- its log ----

    def stderr(self):
        return self.stderr_file.read_text(errors="replace") if self.stderr_file.exists() else ""

    def log_lines(self, start=0):
        out = []
        with open(self.stderr_file, "rb") as f:
            f.seek(start)
            for line in f.read().split(b"\n")[:-1]:
                try:
                    out.append(json.loads(line))
                except ValueError:
                    pass  # check_output() sees to it
        return out

    def check_output(self):
        text = self.stderr()
        assert not REPORT.search(text), text[-8000:]
        for line in text.splitlines():
            json.loads(line)

    # ---- its trail ----

    @property
    def trail_dir(self):
        return Path(self.config["audit"]["trail"])

    def events(self):
        return read_trail(self.trail_dir)

    def calls(self):
        """The closing events."""
        return [e for e in self.events()
                if not e["action"].startswith("keytrail.") and "kind" not in e]

    def intents(self):
        return [e for e in self.events() if e.get("kind") == "intent"]

    def wait_own(self, action, n=1):
        """At least n events of the sidecar's own life; all that there are."""
        return wait_for(lambda: (found := self.own(action)) if len(self.own(action)) >= n else None,
                        f"{n} of {action}")

    def own(self, action=None):
        return [e for e in self.events() if e["action"].startswith("keytrail.")
                and action in (None, e["action"])]

    def event(self, correlation):
        """The one event of a call; waits for it."""
        def found():
            return [e for e in self.calls() if e["correlationId"] == correlation]
        events = wait_for(found, f"the event of {correlation}")
        assert len(events) == 1, f"{len(events)} events for {correlation}"
        return events[0]

    def wait_calls(self, n):
        """At least n events of calls; all that there are."""
        return wait_for(lambda: (c := self.calls()) if len(self.calls()) >= n else None,
                        f"{n} events")

    def wait_delivered(self, sink, timeout=PATIENCE):
        """Until this sink is done with all that the trail has by now.  That nothing waits says less: an
        answer may be here before the sinks have heard of its event."""
        last = self.events()[-1]["trail"]["seq"]

        def is_done():
            sinks = json.loads(self.fetch("admin", "/status"))["sinks"]
            return next(s["position"] for s in sinks if s["name"] == sink) >= last
        wait_for(is_done, f"sink {sink} to have {last}", timeout)

    # ---- its answers ----

    @property
    def url(self):
        return f"https://localhost:{self.port}"

    def client(self, context=None, **options):
        return http1.Client(self.port, context or self.pki.client(), **options)

    def call(self, method, target, fields=(), body=None):
        """One request on a connection of its own."""
        with self.client() as c:
            return c.request(method, target, fields, body)

    def fetch(self, listener, path, **fields):
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports[listener]}{path}",
                                         headers={k.replace("_", "-"): v for k, v in
                                                  fields.items()})
        with urllib.request.urlopen(request, timeout=PATIENCE) as r:
            return r.read().decode()

    def metrics(self):
        """{(name, ((label, value), ...)): value}"""
        from prometheus_client.parser import text_string_to_metric_families
        return {(s.name, tuple(sorted(s.labels.items()))): s.value
                for family in text_string_to_metric_families(self.fetch("metrics", "/metrics"))
                for s in family.samples}

    def metric(self, name, **labels):
        """The sum of the samples with these labels."""
        return sum(v for (n, ls), v in self.metrics().items()
                   if n == name and set(labels.items()) <= set(ls))


# ---- the trail ----

def crc32c_table():
    table = []
    for i in range(256):
        for _ in range(8):
            i = (i >> 1) ^ (0x82F63B78 if i & 1 else 0)
        table.append(i)
    return table


CRC32C = crc32c_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC32C[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def segments(folder):
    return sorted(p for p in Path(folder).glob("*.jsonl") if p.stem.isdigit())


def mend(line):
    """The line with the sum that belongs to it."""
    head = line[:line.rindex(b',"sum"')]
    return head + b',"sum":"%08x"}}\n' % crc32c(head)


def read_lines(folder):
    """Every whole line of the trail; what a successor's name cuts off is not part of it."""
    files = segments(folder)
    lines = []
    for i, path in enumerate(files):
        end = int(files[i + 1].stem) if i + 1 < len(files) else None
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            continue  # it has expired meanwhile
        for line in text.split(b"\n")[:-1]:
            if end is not None and json.loads(line)["trail"]["seq"] >= end:
                break
            lines.append(line)
    return lines


def read_trail(folder):
    return [json.loads(line) for line in read_lines(folder)]


def expired(events):
    """The number up to which all has expired, as they say."""
    gone = 0
    for e in events:
        if e["action"] == "keytrail.expire":
            gone = max(gone, e["details"]["last"])
        elif e["action"] == "keytrail.keep":
            gone = min(gone, e["details"]["first"] - 1)
    return gone


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@functools.cache
def documented():
    """What the manual has of events: the members of a line, the details of each own event."""
    text = subprocess.run([KEYTRAIL, "reference", "events"], check=True, text=True,
                          stdout=subprocess.PIPE).stdout
    members, own = text.split("\n| action |")
    rows = re.findall(r"^\| `(keytrail\.\w+)` \| (.*?) \|", own, re.M)
    return (set(re.findall(r"^\| `([\w.]+)` \|", members, re.M)),
            {action: set(re.findall(r"`(\w+)`", details)) for action, details in rows})


def leaves(value, path=""):
    if not isinstance(value, dict) or path == "details":
        return [path]
    return [leaf for key, inner in value.items()
            for leaf in leaves(inner, f"{path}.{key}" if path else key)]


def undocumented(event):
    members, own = documented()
    action = event["action"]
    missing = set(leaves(event)) - members
    if action.startswith("keytrail."):
        details = {*event.get("details", ())} - {"detailsCut"}
        missing |= {f"{action} {name}" for name in details - own.get(action, set())}
        missing |= {action} - own.keys()
    return missing


def check_trail(folder, sums=300):
    """What holds for every trail at rest: canonical, numbered without a gap, summed, each event
    there once and every intent closed."""
    lines = read_lines(folder)
    last = None
    seen = set()
    open_intents = set()
    for number, line in enumerate(lines):
        event = json.loads(line)
        assert canonical(event) == line, f"not canonical: {line!r}"
        trail = event["trail"]
        assert last is None or trail["seq"] == last + 1, f"{trail['seq']} follows {last}"
        last = trail["seq"]
        key = event["id"], event.get("kind")
        assert key not in seen, f"twice: {line!r}"
        seen.add(key)
        if key[1] == "intent":
            open_intents.add(key[0])
        else:
            open_intents.discard(key[0])
        if number < sums:
            summed = line[:line.rindex(b',"sum"')]
            assert f"{crc32c(summed):08x}" == trail["sum"], f"wrong sum: {line!r}"
            assert not undocumented(event), "src/audit/event_reference.c has no row of it"
    assert not open_intents, f"intents that nothing closed: {open_intents}"


def new_id():
    return str(uuid.uuid4())

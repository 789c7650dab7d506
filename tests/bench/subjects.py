"""The proxies that are compared, and the back end behind them.

All take TLS from the client and speak verified TLS to the same back end, with the same P-256
certificates and the same cipher on both sides.  All but the relay write one JSON record a request.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "integration"))
from support import free_ports  # noqa: E402

CIPHER = "TLS_AES_128_GCM_SHA256"
CORRELATION = "7f1f0f3e-6b5c-4c2e-9d5a-0d1f6a1e2b3c"
INSTANCE = "fd692647-43d0-4699-9f83-f39a54b1327b"
TICKETS = 1    # after a full handshake: what keytrail sends; OpenSSL's servers send two
ROOM = 16000  # connections that a proxy makes room for at its start
KEYS = {  # a key of the stand-in, by the size of the answer that has it
    1024: "02fd6835-6001-4482-a892-13bd2085f75d",
    65536: "02fd6835-6001-4482-a892-13bd2085f764",
    1048576: "02fd6835-6001-4482-a892-13bd2085f71d",
}


@dataclasses.dataclass
class Subject:
    """A proxy under test: how to start it and how many records it has written."""
    name: str
    command: list
    port: int
    records: object = None  # () -> number; None: it writes none
    metrics: int = 0        # port of /metrics or, of the back end, of its count
    log: pathlib.Path = pathlib.Path("/dev/null")
    trail: pathlib.Path = None
    env: dict = None
    process: subprocess.Popen = None


def path_of(size):
    return f"/api/v2/keys/{KEYS[size]}"


# ---- processes ----------------------------------------------------------------------------------


def wait_for_port(port, process, name):
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if process.poll() is not None:
            sys.exit(f"bench: {name} ended with code {process.returncode} at its start")
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.05)
    sys.exit(f"bench: {name} does not listen on port {port}")


def spawn(subject, cpus, stack):
    said = stack.enter_context(open(subject.log, "ab"))
    subject.process = subprocess.Popen(
        [str(part) for part in subject.command], stdout=subprocess.DEVNULL, stderr=said,
        env=subject.env, preexec_fn=lambda: os.sched_setaffinity(0, cpus))
    stack.callback(stop, subject.process)


def start(subject, cpus, stack):
    spawn(subject, cpus, stack)
    wait_for_port(subject.port, subject.process, subject.name)
    return subject


def stop(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def count_lines(paths):
    """Lines of the files that there are."""
    total = 0
    for path in paths:
        with contextlib.suppress(OSError), open(path, "rb") as lines:
            total += sum(block.count(b"\n") for block in iter(lambda: lines.read(1 << 20), b""))
    return total


class LogReader:
    """The receiver of HAProxy's log, on the clients' processors: its time is not the proxy's."""

    def __init__(self, build, cpus, stack):
        self.process = subprocess.Popen([ROOT / build / "bench/logs"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True,
                                        preexec_fn=lambda: os.sched_setaffinity(0, cpus))
        stack.callback(self.process.communicate)
        self.port = int(self.process.stdout.readline())

    def count(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


# ---- configurations -----------------------------------------------------------------------------


def page(subject, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{subject.metrics}{path}") as answer:
        return answer.read().decode()


def openssl_defaults(lines):
    """An openssl.cnf whose lines hold for every context of a program that reads it."""
    return f"openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n[c]\n{lines}\n"


def nginx_head(folder, log, room=ROOM, workers=1):
    folder.mkdir(parents=True, exist_ok=True)
    user = "user root;" if os.geteuid() == 0 else ""
    temp = "\n".join(f"{kind}_temp_path {folder}/{kind};"
                     for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    return f"""daemon off; {user} worker_processes {workers}; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections {room}; }}
http {{ {temp} keepalive_requests 1000000000; keepalive_timeout 600s; client_max_body_size 0; {log}
ssl_protocols TLSv1.3; ssl_conf_command Ciphersuites {CIPHER}; ssl_session_tickets on;
ssl_conf_command NumTickets {TICKETS};
"""


def answer_text(size):
    head = {"metadata": {"collectionType": "application/vnd.ibm.kms.key+json"},
            "resources": [{"id": KEYS[size], "type": "application/vnd.ibm.kms.key+json", "name": "k",
                           "description": ""}]}
    head["resources"][0]["description"] = "x" * (size - len(json.dumps(head)))
    return json.dumps(head)


def backend(folder, certs):
    """nginx: answers from files; a POST is answered, by a second server, once its body is read."""
    folder.mkdir(exist_ok=True)
    port, second, count = free_ports(3)
    files = folder / "backend" / "answers"
    head = nginx_head(folder / "backend", "access_log off;")
    files.mkdir()
    for size in KEYS:
        (files / KEYS[size]).write_text(answer_text(size))
    config = folder / "backend.conf"
    config.write_text(head + f"""
open_file_cache max=16; sendfile off;
server {{ listen 127.0.0.1:{port} ssl backlog=4096;
ssl_certificate {certs}/kms.pem; ssl_certificate_key {certs}/kms.key;
default_type application/json; add_header Correlation-Id {CORRELATION};
location = /api/v2/keys {{ client_body_buffer_size 2m; proxy_pass_request_body off;
proxy_set_header Content-Length ""; proxy_pass http://127.0.0.1:{second}; }}
location = {path_of(1024)} {{ return 200 '{answer_text(1024)}'; }}
location /api/v2/keys/ {{ alias {files}/; }} }}
server {{ listen 127.0.0.1:{second}; location / {{ return 201 '{answer_text(1024)}'; }} }}
server {{ listen 127.0.0.1:{count}; location / {{ stub_status; }} }} }}
""")
    return Subject("the back end", ["nginx", "-c", config], port, metrics=count)


def received(behind):
    """Requests that the back end has begun to serve, questions like this among them."""
    return int(re.search(r"^ \d+ \d+ (\d+)", page(behind, "/"), re.M)[1])


def relay(certs, target, build):
    port, = free_ports(1)
    return Subject("bare", [ROOT / build / "bench/relay", port, target, certs, CIPHER, TICKETS], port)


def nginx(folder, certs, target, log_options="", room=ROOM, workers=1):
    port, = free_ports(1)
    folder /= re.sub(r"\W+", "-", f"nginx{log_options}-{room}")
    log, config = folder / "log.json", folder / "conf"
    fields = ('{"time":"$time_iso8601","client":"$remote_addr","method":"$request_method",'
              '"uri":"$uri","status":$status,"correlation":"$upstream_http_correlation_id",'
              '"agent":"$http_user_agent","seconds":$request_time}')
    head = nginx_head(
        folder, f"log_format j escape=json '{fields}'; access_log {log} j {log_options};",
        room, workers)
    config.write_text(head + f"""
upstream kms {{ server 127.0.0.1:{target}; keepalive 1024; keepalive_requests 1000000000; }}
server {{ listen 127.0.0.1:{port} ssl backlog=4096;
ssl_certificate {certs}/server.pem; ssl_certificate_key {certs}/server.key;
location / {{ proxy_pass https://kms; proxy_http_version 1.1; proxy_set_header Connection "";
proxy_request_buffering off; proxy_max_temp_file_size 0;
proxy_set_header Host localhost; proxy_ssl_verify on; proxy_ssl_trusted_certificate {certs}/ca.pem;
proxy_ssl_name localhost; proxy_ssl_server_name on; proxy_ssl_protocols TLSv1.3; }} }} }}
""")
    return Subject("nginx", ["nginx", "-c", config], port, lambda: count_lines([log]))


def haproxy(folder, certs, target, log, room=ROOM // 2):
    port, = free_ports(1)
    folder /= f"haproxy-{room}"
    folder.mkdir(exist_ok=True)
    (folder / "openssl.cnf").write_text(openssl_defaults(f"NumTickets = {TICKETS}"))
    (folder / "haproxy.pem").write_text((certs / "server.pem").read_text()
                                        + (certs / "server.key").read_text())
    line = ('{\\"time\\":\\"%tr\\",\\"client\\":\\"%ci\\",\\"method\\":\\"%HM\\",'
            '\\"uri\\":\\"%[var(txn.path),json(utf8s)]\\",\\"status\\":%ST,'
            '\\"correlation\\":\\"%[capture.res.hdr(0),json(utf8s)]\\",\\"ms\\":%Ta}')
    config = folder / "conf"
    config.write_text(f"""
global
    nbthread 1
    maxconn {room}
    log 127.0.0.1:{log.port} format raw daemon
    ssl-default-bind-options ssl-min-ver TLSv1.3
    ssl-default-bind-ciphersuites {CIPHER}
    ssl-default-server-ciphersuites {CIPHER}
defaults
    mode http
    log global
    timeout connect 5s
    timeout client 600s
    timeout server 60s
frontend f
    bind 127.0.0.1:{port} ssl crt {folder}/haproxy.pem
    http-request set-var(txn.path) path
    capture response header Correlation-Id len 36
    log-format "{line}"
    default_backend b
backend b
    http-reuse always
    server s 127.0.0.1:{target} ssl verify required ca-file {certs}/ca.pem sni str(localhost) verifyhost localhost ssl-min-ver TLSv1.3
""")
    return Subject("HAProxy", ["haproxy", "-f", config], port, log.count,
                   env=dict(os.environ, OPENSSL_CONF=str(folder / "openssl.cnf")))


def route_set(folder, guarantee):
    """The shipped Key Protect set with one guarantee for all of its routes."""
    routes = json.loads((ROOT / "proxy/routes/key-protect.json").read_text())
    for route in routes["routes"]:
        route["guarantee"] = guarantee
    name = f"key-protect-{guarantee}.json"
    (folder / name).write_text(json.dumps(routes))
    return name


def keytrail(folder, certs, target, build, name, guarantee="async", sinks=(), routes=0, workers=1,
             tls=True, signed=True, room=20000, sandbox="on"):
    """Classification, identity and scrubbing on: always."""
    port, metrics = free_ports(2)
    home = folder / re.sub(r"\W+", "-", name)
    home.mkdir()
    program = ROOT / build / "keytrail"
    subprocess.run([program, "keygen", home / "sign.key", "bench"], check=True,
                   stdout=subprocess.DEVNULL)
    config = {
        "listen": {"address": f"127.0.0.1:{port}",
                   "tls": {"certificate": f"{certs}/server.pem",
                           "key": f"{certs}/server.key"} if tls else None},
        "metrics": {"address": f"127.0.0.1:{metrics}"},
        "upstream": {"address": f"127.0.0.1:{target}", "pool": {"idle": 1024},
                     "tls": {"ca": f"{certs}/ca.pem", "server_name": "localhost"}},
        "audit": {"trail": str(home / "trail"), "guarantee": guarantee,
                  "sign": {"file": str(home / "sign.key")} if signed else None},
        "limits": {"connections": room, "connections_per_address": 0},
        "timeouts": {"idle": "10m"},
        "workers": workers,
        "sandbox": sandbox,
        "sinks": [{"name": f"{kind}{n}", "type": kind,
                   **({"path": str(home / f"out{n}.jsonl")} if kind == "file" else {})}
                  for n, kind in enumerate(sinks)],
        "include": [route_set(home, guarantee)],
        "routes": [{"action": f"bench.n{n}", "method": "GET",
                    "path": f"/bench/v{n}/{{thing}}/parts/{{part}}"} for n in range(routes)],
    }
    (home / "routes.json").write_text(json.dumps(config, separators=(",", ":")))
    return Subject(name, [program, "run", home / "routes.json"], port,
                   lambda: count_lines((home / "trail").glob("*.jsonl")), metrics, home / "log",
                   home / "trail")

"""Runs cases against a back end that nobody here wrote, nginx: through keytrail, and directly.

What nginx logs of a case that came through keytrail has to be what the trail says, and what nginx
itself makes of the same bytes, up to where keytrail refused to go on.
"""

import asyncio
import json
import re
import shutil
import socket
import subprocess
import time

import campaign
import strict
import support
import verdict

PROGRAM = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")

# A request is answered when all of it is read, which a `return` of its own would not wait for.
SERVER = """
server {{
    listen 127.0.0.1:{port} backlog=1000;
    access_log {log} seen;
    add_header {correlation} $uuid always;
    location / {{ proxy_pass http://unix:{folder}/answer; proxy_ignore_client_abort on; }}
}}"""
# What decides who asks, for what, and where a message ends; by the names of nginx's variables.
FIELDS = ("authorization", "bluemix_instance", "content_encoding", "content_length", "content_type",
          "correlation_id", "prefer", "transfer_encoding", "x_http_method_override", "x_kms_key_ring",
          "x_operation", "x_request_id")
CONFIG = """
daemon off; user root root; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
    log_format seen escape=json '{{"via":"$http_x_forwarded_for","peer":"$remote_addr","id":"$uuid",'
                                '"method":"$request_method","target":"$request_uri",'
                                '"status":$status,"body":"$request_body",{fields}}}';
    map $request_id $uuid {{ "~^(.{{8}})(.{{4}})(.{{4}})(.{{4}})(.{{12}})$" "$1-$2-$3-$4-$5"; }}
    access_log off;
    large_client_header_buffers 8 64k; client_max_body_size 0; keepalive_requests 1000000;
    underscores_in_headers on; ignore_invalid_headers off; merge_slashes off;
    client_body_buffer_size 256k; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/a; uwsgi_temp_path {folder}/b; scgi_temp_path {folder}/c;
    server {{ listen unix:{folder}/answer; location / {{ return 200 "ok"; }} }}
    {servers}
}}"""


CUT = 400, 408, 499  # what nginx logs of a request whose end did not come
# To nginx: it takes no path but those that begin with a slash.
UNKNOWN = re.compile(rb"OPTIONS (\*|(?i:https?)://[^/? ]+) ")


class Nginx:
    """Behind keytrail at one port, reached directly at the other."""

    def __init__(self, folder, correlation):
        self.folder = folder
        folder.mkdir(parents=True)
        self.behind, self.alone = support.free_ports(2)
        servers = "".join(SERVER.format(port=port, folder=folder, log=self.log(port),
                                        correlation=correlation.decode())
                          for port in (self.behind, self.alone))
        (folder / "nginx.conf").write_text(CONFIG.format(
            folder=folder, servers=servers, fields=",".join(f'"{name}":"$http_{name}"' for name in FIELDS)))
        self.process = subprocess.Popen([PROGRAM, "-p", folder, "-c", folder / "nginx.conf",
                                         "-e", folder / "error.log"], start_new_session=True)
        support.wait_for(self.listens, "nginx")

    def listens(self):
        assert self.process.poll() is None, (self.folder / "error.log").read_text()[-2000:]
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.behind)) == 0

    def log(self, port):
        return self.folder / f"{port}.log"

    def stop(self):
        """Its own end waits for what it has begun."""
        self.process.send_signal(subprocess.signal.SIGQUIT)
        self.process.wait(support.PATIENCE)

    def seen(self, port, whose):
        """What it understood, by the client."""
        found = {}
        for line in self.log(port).read_text("latin-1").split("\n")[:-1]:
            entry = json.loads(line)
            client = entry[whose].rpartition(",")[2].strip()  # the last hop before keytrail
            found.setdefault(client, []).append(Understood(entry))
        return found


class Understood:
    """A request as nginx logs it."""

    def __init__(self, entry):
        self.id = entry["id"]
        self.status = entry["status"]
        self.method = entry["method"].encode()
        target = strict.TARGET.fullmatch(entry["target"].encode("latin-1"))
        self.path, self.query = (target[2] or b"/", target[3]) if target else (b"", None)
        self.target = entry["target"]
        self.whole = self.status not in CUT
        self.body = entry.get("body", "")
        self.fields = {name: entry.get(name, "") for name in FIELDS}
        self.fields["transfer_encoding"] = self.fields["transfer_encoding"].lower()

    def __repr__(self):
        return f"{self.method.decode()} {self.target} {self.fields} {self.body[:80]!r} -> {self.status}"

    def get(self, name):
        return self.fields[name.decode().replace("-", "_")].encode() or None

    def all(self, name):
        return [self.get(name)] if self.get(name) else []

    def says_the_same(self, other):
        return (self.method, self.path, self.query) == (other.method, other.path, other.query)

    def is_sent_as(self, alone, correlation, ids):
        """But for the fields that keytrail adds where there are none."""
        added = {"content_type": {"application/octet-stream"}, correlation: ids}
        return (not self.whole or self.body == alone.body) and all(
            got == alone.fields[name] or not alone.fields[name] and got in added.get(name, ())
            for name, got in self.fields.items())


def judge(seen, alone, routes):
    """(what became of the case, its faults)"""
    faults = list(verdict.judge_events(seen, routes))
    correlation = routes.correlation.decode().replace("-", "_")
    # What nginx alone refuses, though it may be legal, is the last that it reads.
    end = len(alone) if alone and alone[-1].status == 400 else len(seen.requests)
    for i, got in enumerate(seen.requests[:end]):
        if i >= len(alone):
            faults.append(f"hidden: nginx alone saw no {got}")
        elif not got.says_the_same(alone[i]) or not got.is_sent_as(
                alone[i], correlation, {e["id"] for e in seen.events}):
            faults.append(f"difference: {got} is alone {alone[i]}")
    refused = any(not verdict.is_answered(e) for e in seen.events)
    if not refused and any(r.whole for r in alone[len(seen.events):]):
        faults.append(f"silence: nothing came of {alone[len(seen.events):]}")
    what = {"forwarded": sum(r.whole for r in seen.requests), "refused": int(refused),
            "cut": sum(not r.whole for r in seen.requests),
            "understood alone": sum(r.whole for r in alone)}
    return what, faults


def run(folder, pki, cases, proxy=campaign.Proxy()):
    """Both ways; a campaign.Result."""
    cases = [[b""] if UNKNOWN.search(b"".join(parts)) else parts for parts in cases]
    result, begin = campaign.Result(), time.monotonic()
    routes = proxy.routes()
    nginx = Nginx(folder / "nginx", routes.correlation)
    try:
        sidecar = support.Keytrail(folder / "keytrail", pki, campaign.Port(nginx.behind),
                                   proxy.config()).start()
        backend = campaign.Backend()  # for what the clients get
        try:
            asyncio.run(campaign.run_all(backend, sidecar.port, cases))
        finally:
            sidecar.finish()
        asyncio.run(campaign.run_all(campaign.Backend(), nginx.alone, cases))
    finally:
        nginx.stop()
    campaign.gather(sidecar, backend.seen)
    behind, alone = nginx.seen(nginx.behind, "via"), nginx.seen(nginx.alone, "peer")
    for number in range(len(cases)):
        address = campaign.address_of(number)
        seen = backend.seen[address]
        seen.requests = behind.pop(address, [])
        result.add(number, *judge(seen, alone.get(address, []), routes))
    result.faults += [(None, f"hidden: {got} of {whose!r}") for whose, got in behind.items()]
    result.counts["cases"] = len(cases)
    result.seconds = time.monotonic() - begin
    return result

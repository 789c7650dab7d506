"""make demo: real traffic through keytrail to a key service, and the trail that it leaves.

Starts the stand-in key service and the sidecar with throw-away certificates, sends one call of
each kind, prints the events as a table and compares them with what was sent.  Ends with 0 only if
every call has exactly the event it should have.  Everything is under build/demo.  Environment:
KEYTRAIL_BUILD, the folder of the programs; SERVE=1, stay up until interrupted.
"""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "integration"))

import support  # noqa: E402  pylint: disable=wrong-import-position

PLAINTEXT = base64.b64encode(b"a data key, 32 bytes long, in it").decode()
COLUMNS = ("time", "action", "outcome", "status", "initiator", "correlation ID")

here = os.path.relpath


class Failed(Exception):
    pass


def expect(condition, what):
    if not condition:
        raise Failed(what)


class Traffic:
    """Sends calls over one TLS connection and remembers what each should leave behind."""

    def __init__(self, kms, sidecar):
        self.kms = kms
        self.client = sidecar.client()
        self.sent = []

    def call(self, method, target, action, status, body=None, **options):
        """One call; its answer, parsed."""
        correlation = support.new_id()
        fields = self.kms.headers(correlation=correlation, **options)
        text = None if body is None else json.dumps(body)
        r = self.client.request(method, target, fields, text)
        expect(r.status == status, f"{method} {target}: wanted {status}, got {r.status} {r.body}")
        expect(r.get("Correlation-Id") == correlation, f"{method} {target}: no correlation ID")
        self.sent.append({"action": action, "status": status, "correlation": correlation,
                          "outcome": "success" if status < 300 else "failure"})
        return json.loads(r.body) if r.body else None

    def act(self, key, word, form, status, body=None):
        target = {"old": f"/api/v2/keys/{key}?action={word}",
                  "new": f"/api/v2/keys/{key}/actions/{word}"}[form]
        return self.call("POST", target, f"kms.secrets.{word}", status, body)

    def wrap_and_unwrap(self, key, form):
        wrapped = self.act(key, "wrap", form, 200, {"plaintext": PLAINTEXT, "aad": ["demo"]})
        self.act(key, "rotate", form, 204)
        opened = self.act(key, "unwrap", form, 200,
                          {"ciphertext": wrapped["ciphertext"], "aad": ["demo"]})
        expect(opened["plaintext"] == PLAINTEXT, "unwrap did not give back what was wrapped")

    def run(self):
        created = self.call("POST", "/api/v2/keys", "kms.secrets.create", 201,
                            {"resources": [{"name": "demo", "extractable": False}]})
        key = created["resources"][0]["id"]
        policy = {"resources": [{"type": "application/vnd.ibm.kms.policy+json",
                                 "rotation": {"interval_month": 3}}]}
        self.call("HEAD", "/api/v2/keys", "kms.secrets.head", 200)
        self.call("GET", "/api/v2/keys?limit=10", "kms.secrets.list", 200)
        self.call("GET", f"/api/v2/keys/{key}", "kms.secrets.read", 200)
        self.wrap_and_unwrap(key, "old")
        self.wrap_and_unwrap(key, "new")
        self.call("PUT", f"/api/v2/keys/{key}/policies", "kms.policies.write", 200, policy)
        self.call("GET", f"/api/v2/keys/{key}/policies", "kms.policies.read", 200)
        self.call("DELETE", f"/api/v2/keys/{key}", "kms.secrets.delete", 204)
        self.call("GET", f"/api/v2/keys/{support.new_id()}", "kms.secrets.read", 404)
        self.call("GET", "/api/v2/keys", "kms.secrets.list", 401, token="not.a.token")
        self.call("GET", "/api/v2/nothing/here", "kms.secrets.default", 404)
        self.client.close()


def row(event):
    initiator = event["initiator"]
    return (event["eventTime"][11:22], event["action"], event["outcome"],
            str(event["reason"].get("reasonCode", "-")),
            initiator.get("id") or initiator.get("name") or "-", event["correlationId"])


def print_table(events):
    rows = [COLUMNS, *(row(e) for e in events)]
    widths = [max(len(r[i]) for r in rows) for i in range(len(COLUMNS))]
    rows.insert(1, tuple("-" * w for w in widths))
    for r in rows:
        print("  " + "  ".join(cell.ljust(w) for cell, w in zip(r, widths)).rstrip())


def compare(events, sent):
    """The trail holds one event for each call, in order, and nothing else."""
    seen = [{"action": e["action"], "status": e["reason"].get("reasonCode"),
             "correlation": e["correlationId"], "outcome": e["outcome"]} for e in events]
    for want in sent:
        found = [s for s in seen if s["correlation"] == want["correlation"]]
        expect(found == [want], f"sent {want}, recorded {found}")
    expect(seen == sent, f"sent {len(sent)} calls in order, recorded {seen}")


def say_where(sidecar, kms):
    print(f"\n  routes file  {here(sidecar.file)}\n"
          f"  trail        {', '.join(here(p) for p in support.segments(sidecar.trail_dir))}\n"
          f"               {here(support.KEYTRAIL)} tail {here(sidecar.trail_dir)}\n"
          f"  metrics      {here(sidecar.folder / 'metrics.txt')}\n"
          f"  own log      {here(sidecar.stderr_file)}\n")
    if os.environ.get("SERVE") != "1":
        return
    print(f"  sidecar      {sidecar.url}\n"
          f"  dashboard    http://127.0.0.1:{sidecar.ports['admin']}/\n"
          f"  metrics      http://127.0.0.1:{sidecar.ports['metrics']}/metrics\n"
          f"  key service  https://localhost:{kms.port}\n\n"
          f"  curl --cacert {here(sidecar.pki['ca.pem'])} \\\n"
          f"       -H 'Authorization: Bearer {kms.token()}' \\\n"
          f"       -H 'Bluemix-Instance: {support.INSTANCE}' \\\n"
          f"       {sidecar.url}/api/v2/keys\n\n"
          "  Up until interrupted (Ctrl-C).", flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        print()


def run(*arguments):
    return subprocess.run([support.KEYTRAIL, *map(str, arguments)], stdout=subprocess.PIPE,
                          check=True, text=True, timeout=support.PATIENCE).stdout.strip()


def make_key(sidecar):
    """The key that signs the trail; the one that verifies it."""
    return run("keygen", sidecar.folder / "sign.key", "example.com/demo")


def check_proof(sidecar, key):
    print(f"  {here(support.KEYTRAIL)} verify {here(sidecar.trail_dir)} \\\n      --key {key}")
    print("    " + run("verify", sidecar.trail_dir, "--key", key).replace("\n", "\n    "))


def demo(folder):
    pki = support.Pki(folder / "pki")
    kms = support.Kms(folder, pki)
    sidecar = None
    try:
        sidecar = support.Keytrail(folder, pki, kms, {"audit": {"sign": {"file": "sign.key"}}})
        key = make_key(sidecar)
        sidecar.start()
        traffic = Traffic(kms, sidecar)
        traffic.run()
        events = sidecar.wait_calls(len(traffic.sent))
        print_table(events)
        compare(events, traffic.sent)
        (folder / "metrics.txt").write_text(sidecar.fetch("metrics", "/metrics"))
        print(f"\n  {len(traffic.sent)} calls sent, {len(events)} events in the trail: "
              "each call has the one it should have.")
        say_where(sidecar, kms)
        if os.environ.get("SERVE") != "1":
            sidecar.stop()
            compare(sidecar.calls(), traffic.sent)
            check_proof(sidecar, key)
    finally:
        if sidecar is not None:
            sidecar.finish()
        kms.stop()


def interrupt(*_):
    raise KeyboardInterrupt


def main():
    folder = support.BUILD / "demo"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)
    try:
        demo(folder)
    except (Failed, AssertionError) as e:
        print(f"demo: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

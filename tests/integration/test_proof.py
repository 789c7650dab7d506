"""Signed trails: keygen, checkpoints while the sidecar runs and when it stops, verify and proof."""

import base64
import hashlib
import json
import os
import re
import subprocess
import threading
import urllib.error

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from support import BUILD, KEYTRAIL, PATIENCE, SANITIZED, mend, new_id, segments, wait_for

ALTERED, INCOMPLETE, CANNOT_TELL, USAGE = 3, 4, 1, 2


def run(*args, **options):
    return subprocess.run([KEYTRAIL, *map(str, args)], timeout=PATIENCE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, encoding="utf-8", check=False, **options)


@pytest.fixture
def signed(keytrail, signer):
    """A running sidecar that has signed for the first time, and the key."""
    sidecar = keytrail(None, {"audit": {"sign": {"file": str(signer[0])}}})
    wait_for((sidecar.trail_dir / "checkpoint").exists, "the first checkpoint")
    return sidecar, signer[1]


def calls(sidecar, n):
    with sidecar.client() as c:
        for _ in range(n):
            assert c.request("GET", "/api/v2/keys", {"Correlation-Id": new_id()}).status


def verify(sidecar, key, *more):
    return run("verify", sidecar.trail_dir, "--key", key, *more)


def test_keygen_makes_a_key_once_and_for_its_owner_alone(tmp_path, signer):
    path, key = signer
    assert path.stat().st_mode & 0o777 == 0o600
    assert re.fullmatch(r"example\.com/test\+[0-9a-f]{8}\+[A-Za-z0-9+/]{44}", key)
    before = path.read_bytes()
    again = run("keygen", path, "example.com/test")
    assert again.returncode == 1 and "exists" in again.stderr and path.read_bytes() == before
    assert run("keygen", tmp_path / "b", "two words").returncode == 1
    assert run("keygen", tmp_path / "b").returncode == USAGE
    assert not (tmp_path / "b").exists()


def test_keygen_refuses_a_trails_directory(signed):
    sidecar, _ = signed
    refused = run("keygen", sidecar.trail_dir / "sign.key", "example.com/test")
    assert refused.returncode == 1 and "trail's directory" in refused.stderr


def test_a_missing_or_foreign_key_file_stops_the_start(keytrail, tmp_path):
    for content in (None, "no key\n"):
        path = tmp_path / "other.key"
        if content is not None:
            path.write_text(content)
            path.chmod(0o600)
        sidecar = keytrail(None, {"audit": {"sign": {"file": str(path)}}}, start=False)
        sidecar.spawn()
        assert sidecar.process.wait(PATIENCE) == 78
        assert "audit.sign" in sidecar.stderr()
        sidecar.process = None


def test_the_start_and_readiness_say_whether_the_trail_is_signed(keytrail, signed):
    sidecar, key = signed
    assert sidecar.wait_own("keytrail.start")[0]["details"]["signing"] == key
    name = "+".join(key.split("+")[:2])
    checks = json.loads(sidecar.fetch("admin", "/readyz?verbose"))["checks"]
    assert {"name": "signing", "ok": True, "detail": f"signed by {name}"} in checks
    status = json.loads(sidecar.fetch("admin", "/status"))["signing"]
    assert status["on"] is True and status["detail"] == f"signed by {name}"
    plain = keytrail(None)
    status = json.loads(plain.fetch("admin", "/status"))["signing"]
    assert status["on"] is False and "audit.sign is null" in status["detail"]
    assert plain.wait_own("keytrail.start")[0]["details"]["signing"] == "none"
    assert plain.metric("keytrail_trail_signed_sequence") == 0


def test_a_stopped_trail_is_signed_whole(signed):
    sidecar, key = signed
    calls(sidecar, 20)
    sidecar.stop()
    good = verify(sidecar, key)
    assert good.returncode == 0, good.stdout + good.stderr
    assert good.stdout.startswith("unaltered: yes\ncomplete:  yes\n")
    report = json.loads(verify(sidecar, key, "--json").stdout)
    last = sidecar.events()[-1]["trail"]
    assert report["size"] == report["last"] == last["seq"] and report["first"] == 1
    assert report["origin"] == f"example.com/test/{last['log']}" and report["unsigned"] == 0


def test_a_checkpoint_is_recorded_logged_and_an_anchor(signed, tmp_path):
    sidecar, key = signed
    sidecar.stop()
    sidecar.start()
    sidecar.stop()
    notes = re.findall(r"note=([A-Za-z0-9+/=]+)", sidecar.stderr())
    assert len(notes) >= 2
    text = base64.b64decode(notes[0]).decode()
    assert text.split("\n")[0].startswith("example.com/test/")
    (tmp_path / "log").write_text(sidecar.stderr())
    (tmp_path / "old").write_text(text)
    kept = verify(sidecar, key, "--anchors", tmp_path / "log", "--since", tmp_path / "old")
    assert kept.returncode == 0, kept.stdout
    assert f"agrees with {len(notes) + 1} checkpoints" in kept.stdout
    (tmp_path / "none").write_text("nothing\n")
    assert verify(sidecar, key, "--anchors", tmp_path / "none").returncode == CANNOT_TELL
    # The log as it was: the first checkpoint with the first run's lines is all there is.
    cut = sidecar.trail_dir / "checkpoint"
    cut.write_bytes(base64.b64decode(notes[0]))
    back = verify(sidecar, key, "--anchors", tmp_path / "log")
    assert back.returncode == ALTERED and "rolled back" in back.stdout


@pytest.mark.skipif(SANITIZED, reason="its memory is the sanitizer's")
def test_verify_takes_no_more_memory_for_a_longer_trail(tmp_path):
    def grows(lines):
        """By how many KiB, over lines of 4,000 bytes."""
        rows = subprocess.run([BUILD / "bench" / "micro", "verify", str(lines), "4000"], check=True,
                              timeout=PATIENCE * 6, stdout=subprocess.PIPE, text=True,
                              env={**os.environ, "TMPDIR": str(tmp_path)}).stdout.splitlines()
        return float(next(row for row in rows if row.startswith("verify.memory ")).split()[1])

    short, long = grows(5000), grows(50000)
    assert 0 < short and long < short + 1024 and long < 16 * 1024


def test_what_a_stop_signs_is_at_the_sinks_and_in_the_own_log(keytrail, signer, tmp_path):
    out = tmp_path / "out.jsonl"
    sidecar = keytrail(None, {"audit": {"sign": {"file": str(signer[0])}},
                              "log": {"level": "error"},
                              "sinks": [{"name": "out", "type": "file", "path": str(out)}]},
                       start=False)
    sidecar.spawn()
    wait_for(lambda: sidecar.own("keytrail.checkpoint"), "the first checkpoint")
    sidecar.process.terminate()
    assert sidecar.process.wait(PATIENCE) == 0
    delivered = [json.loads(line) for line in out.read_text().splitlines()]
    stop, told = delivered[-2:]
    assert stop["action"] == "keytrail.stop" and told["action"] == "keytrail.checkpoint"
    assert told["details"]["events"] == stop["trail"]["seq"]
    assert [line["level"] for line in sidecar.log_lines()] == ["notice"] * 3
    (tmp_path / "log").write_text(sidecar.stderr())
    for anchors in (tmp_path / "log", out):
        kept = verify(sidecar, signer[1], "--anchors", anchors)
        assert kept.returncode == 0, kept.stdout
    assert f"events 1 to {told['trail']['seq']}" in kept.stdout, kept.stdout


def test_many_events_are_signed_while_the_sidecar_runs_and_verify_does_not_cry_wolf(keytrail, signer):
    sidecar = keytrail(None, {"audit": {"sign": {"file": str(signer[0])}, "checkpoint_interval": "1h"}})
    key = signer[1]
    calls(sidecar, 1100)
    event = wait_for(lambda: [e["details"] for e in sidecar.own("keytrail.checkpoint")
                              if e["details"]["events"] >= 1024], "a checkpoint of many")[0]
    assert base64.b64decode(event["note"]).decode().split("\n")[1] == str(event["events"])
    for _ in range(5):
        calls(sidecar, 10)
        now = verify(sidecar, key)
        assert now.returncode == 0, now.stdout + now.stderr
    assert "not signed yet" in now.stdout
    wait_for(lambda: sidecar.metric("keytrail_trail_signed_sequence") >= 1024, "the metric")


def test_verify_agrees_with_a_writer_that_rolls_and_expires(keytrail, signer):
    small = {"sign": {"file": str(signer[0])}, "segment_size": 65536, "max_size": 400000}
    sidecar = keytrail(None, {"audit": small})
    wait_for((sidecar.trail_dir / "checkpoint").exists, "a checkpoint")
    done = threading.Event()

    def traffic():
        while not done.is_set():
            calls(sidecar, 50)

    threads = [threading.Thread(target=traffic) for _ in range(2)]
    for t in threads:
        t.start()
    expired = 0
    try:
        while expired < 4:
            now = verify(sidecar, signer[1])
            assert now.returncode == 0, now.stdout
            expired += "expired: events 1 to" in now.stdout
    finally:
        done.set()
        for t in threads:
            t.join()
    sidecar.stop()
    last = verify(sidecar, signer[1])
    assert last.returncode == 0 and "expired: events 1 to" in last.stdout, last.stdout


def test_a_killed_sidecar_goes_on_with_the_same_tree(signed):
    sidecar, key = signed
    calls(sidecar, 30)
    sidecar.stop()
    sidecar.start()
    calls(sidecar, 30)
    sidecar.kill()
    killed = verify(sidecar, key)
    assert killed.returncode == 0 and "not signed yet" in killed.stdout
    sidecar.start()
    sidecar.stop()
    good = verify(sidecar, key)
    assert good.returncode == 0, good.stdout + good.stderr


def test_cheats_have_their_exit_status(signed, tmp_path):
    sidecar, key = signed
    calls(sidecar, 20)
    sidecar.stop()
    path = segments(sidecar.trail_dir)[0]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:9] + lines[10:]))
    removed = verify(sidecar, key)
    assert removed.returncode == INCOMPLETE and "event 10: the line is gone" in removed.stdout
    path.write_bytes(b"".join(lines[:9] + [lines[9].replace(b"failure", b"success")] + lines[10:]))
    assert verify(sidecar, key).returncode == ALTERED
    path.write_bytes(b"".join(lines))
    assert verify(sidecar, key).returncode == 0
    other = run("keygen", tmp_path / "other.key", "example.com/test").stdout.strip()
    assert verify(sidecar, other).returncode == CANNOT_TELL
    assert run("verify", sidecar.trail_dir).returncode == USAGE
    assert run("verify", sidecar.trail_dir, "--key", "no+key").returncode == USAGE


def test_altered_lines_are_recorded_at_the_next_start(signed):
    sidecar, key = signed
    calls(sidecar, 20)
    sidecar.stop()
    path = segments(sidecar.trail_dir)[0]
    lines = path.read_bytes().splitlines(keepends=True)
    cut = b"".join(lines[:-5])
    path.write_bytes(cut)
    (sidecar.trail_dir / "state").unlink()
    sidecar.start()
    last = len(lines)
    wait_for(lambda: [e for e in sidecar.own("keytrail.tamper") if e["severity"] == "critical"
                      and e["details"] == {"first": last - 4, "last": last}], "the range")
    sidecar.stop()
    result = verify(sidecar, key)
    assert result.returncode == INCOMPLETE
    assert f"events 1 to {last} are of an earlier log" in result.stdout
    sidecar.process = None  # the trail has a gap


def test_a_proof_is_checked_without_the_trail(signed, tmp_path):
    sidecar, key = signed
    calls(sidecar, 20)
    assert run("proof", sidecar.trail_dir, 20).returncode == 1
    sidecar.stop()
    made = run("proof", sidecar.trail_dir, 7, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert made.stdout.split() == ["event-7.json", "event-7.tlog-proof"]
    line = segments(sidecar.trail_dir)[0].read_bytes().splitlines(keepends=True)[6]
    assert (tmp_path / "event-7.json").read_bytes() == line
    proof = tmp_path / "event-7.tlog-proof"
    assert proof.read_text().startswith("c2sp.org/tlog-proof@v1\nindex 6\n")

    def check(file, with_key=key):
        return run("verify", "--proof", proof, "--line", file, "--key", with_key)
    good = check(tmp_path / "event-7.json")
    assert good.returncode == 0 and "event 7" in good.stdout
    (tmp_path / "forged").write_bytes(line.replace(b"failure", b"success"))
    assert check(tmp_path / "forged").returncode == ALTERED
    other = run("keygen", tmp_path / "other.key", "example.com/test").stdout.strip()
    assert check(tmp_path / "event-7.json", other).returncode == CANNOT_TELL
    assert run("proof", sidecar.trail_dir, 7, cwd=tmp_path).returncode == 1
    assert run("proof", sidecar.trail_dir, 7000, cwd=tmp_path).returncode == 1
    assert run("proof", sidecar.trail_dir, 0, cwd=tmp_path).returncode == USAGE


def asked_for_proof(sidecar, query):
    """Status and content of the page."""
    try:
        return 200, json.loads(sidecar.fetch("admin", f"/proof?{query}"))
    except urllib.error.HTTPError as e:
        text = e.read().decode()
        return e.code, json.loads(text) if text.startswith("{") else text


def put_in_place(segment, old, new):
    """While the sidecar writes on."""
    assert len(old) == len(new) and old != new
    with open(segment, "r+b", buffering=0) as f:
        at = f.read().index(old)
        f.seek(at)
        f.write(new)


def test_a_proof_is_had_of_the_running_sidecar(keytrail, signer, tmp_path):
    sidecar = keytrail(None, {"audit": {"sign": {"file": str(signer[0])},
                                        "checkpoint_interval": "1h"}})
    wait_for((sidecar.trail_dir / "checkpoint").exists, "the first checkpoint")
    calls(sidecar, 20)
    status, page = asked_for_proof(sidecar, "seq=7")
    assert status == 409 and page["covered"] < 7 and "not signed yet" in page["error"]
    sidecar.stop()
    sidecar.start()
    wait_for(lambda: sidecar.metric("keytrail_trail_signed_sequence") > 20, "the checkpoint")
    status, page = asked_for_proof(sidecar, "seq=7")
    line = segments(sidecar.trail_dir)[0].read_bytes().splitlines()[6]
    assert (status, page["seq"], page["line"].encode()) == (200, 7, line)
    (tmp_path / "line").write_bytes(line + b"\n")
    (tmp_path / "proof").write_text(page["proof"])
    good = run("verify", "--proof", tmp_path / "proof", "--line", tmp_path / "line",
               "--key", signer[1])
    assert good.returncode == 0 and "event 7" in good.stdout
    covered = int(sidecar.metric("keytrail_trail_signed_sequence"))
    late = covered + len(sidecar.wait_own("keytrail.access"))
    status, page = asked_for_proof(sidecar, f"seq={late}")
    assert (status, page["covered"]) == (409, covered)
    assert asked_for_proof(keytrail(None), "seq=1") == (
        409, {"error": "there is no checkpoint", "covered": 0})
    assert asked_for_proof(sidecar, "seq=7000")[0] == 404
    for query in "", "seq=", "seq=0", "seq=c4n4ry", "seq=1&seq=2", "c4n4ry=1":
        status, text = asked_for_proof(sidecar, query)
        assert status == 400 and "c4n4ry" not in text
    assert {e["details"]["page"] + " " + e["details"]["filter"]
            for e in sidecar.own("keytrail.access")} == {"/proof seq"}
    other = mend(line.replace(b"failure", b"success")).rstrip(b"\n")
    put_in_place(segments(sidecar.trail_dir)[0], line, other)
    status, page = asked_for_proof(sidecar, "seq=7")
    put_in_place(segments(sidecar.trail_dir)[0], other, line)
    assert status == 503 and "not the line that was signed" in page["error"]


def note_of(secret, log, root):
    """A checkpoint of one event, as the signer with this file would sign it."""
    _, _, name, number, key = secret.read_text().strip().split("+", 4)
    text = f"{name}/{log}\n1\n{base64.b64encode(root).decode()}\n".encode()
    private = Ed25519PrivateKey.from_private_bytes(base64.b64decode(key)[1:])
    signature = base64.b64encode(bytes.fromhex(number) + private.sign(text)).decode()
    return text + f"\n\u2014 {name} {signature}\n".encode()


def test_a_line_that_says_it_is_another_ones_is_not_proved(signer, tmp_path):
    """The key has signed it all the same, for whatever reason."""
    own, other = "0" * 31 + "1", "0" * 31 + "2"
    proof = tmp_path / "proof"
    for index, line, good in (
            (0, {"log": own, "seq": 1}, True), (0, {"log": own, "seq": 5}, True),
            (0, {"log": own, "seq": 0}, False), (0, {"log": other, "seq": 1}, False), (0, {}, False)):
        head = b'{"a":1,"trail":' + json.dumps(
            {"at": "2026-01-01T00:00:00.00+0000", "boot": own, **line}, sort_keys=True,
            separators=(",", ":")).encode()[:-1]
        text = mend(head + b',"sum":"00000000"}}\n')
        (tmp_path / "line").write_bytes(text)
        root = hashlib.sha256(b"\0" + text[:-1]).digest()
        proof.write_bytes(b"c2sp.org/tlog-proof@v1\nindex %d\n\n" % index
                          + note_of(signer[0], own, root))
        done = run("verify", "--proof", proof, "--line", tmp_path / "line", "--key", signer[1])
        assert done.returncode == (0 if good else ALTERED), (line, done)
        assert good or "does not say so of itself" in done.stderr


def test_a_key_hands_over_to_another(signed, tmp_path):
    sidecar, old = signed
    calls(sidecar, 5)
    sidecar.stop()
    new = run("keygen", tmp_path / "new.key", "example.com/test").stdout.strip()
    sidecar.write_config(audit={"sign": {"file": str(tmp_path / "new.key")}})
    sidecar.spawn()
    assert sidecar.process.wait(PATIENCE) == 78
    assert "another key has signed" in sidecar.stderr() and "rotate-key" in sidecar.stderr()
    sidecar.stderr_file.unlink()

    def rotate(*keys):
        return run("rotate-key", sidecar.trail_dir, *keys)
    assert rotate(tmp_path / "new.key", tmp_path / "sign.key").returncode == 1
    run("keygen", tmp_path / "name.key", "example.com/other")
    assert "wanted one name" in rotate(tmp_path / "sign.key", tmp_path / "name.key").stderr
    handed = rotate(tmp_path / "sign.key", tmp_path / "new.key")
    assert handed.returncode == 0 and handed.stdout.strip() == new, handed.stderr
    sidecar.start()
    calls(sidecar, 5)
    event = sidecar.wait_own("keytrail.key")[0]
    text = base64.b64decode(event["details"]["note"]).decode()
    assert text.split("\n")[2:4] == [old, new]
    sidecar.stop()
    both = verify(sidecar, old, "--key", new)
    assert both.returncode == 0 and "changes of the key: 1" in both.stdout, both.stdout
    assert verify(sidecar, new).returncode == 0
    assert verify(sidecar, old).returncode == CANNOT_TELL


def hand_over(sidecar, old, new):
    """A new key of this file name, to which the old one hands over; its verifier key."""
    key = run("keygen", new, "example.com/test").stdout.strip()
    handed = run("rotate-key", sidecar.trail_dir, old, new)
    assert handed.returncode == 0 and handed.stdout.strip() == key, handed.stderr
    sidecar.write_config(audit={"sign": {"file": str(new)}})
    return key


def test_a_kill_before_the_new_key_has_signed_alters_nothing(signed, tmp_path):
    """The start records again what it finds: the old key's last checkpoint, the change of keys."""
    sidecar, old = signed
    calls(sidecar, 5)
    sidecar.stop()
    names = ("new", "newer")
    keys = [old]
    for n, name in enumerate(names):
        keys.append(hand_over(sidecar, tmp_path / "sign.key", tmp_path / name))
        for life in (1, 2):
            sidecar.start()
            sidecar.wait_own("keytrail.key", 2 * n + life)
            sidecar.kill()
    sidecar.start()
    calls(sidecar, 5)
    sidecar.stop()
    told = run("verify", sidecar.trail_dir, *(a for key in keys for a in ("--key", key)))
    assert told.returncode == 0 and "changes of the key: 2" in told.stdout, told.stdout
    assert verify(sidecar, keys[-1]).returncode == 0


def test_nothing_is_signed_before_the_change_of_keys_is_durable(keytrail, signer, tmp_path, disk):
    sidecar = keytrail(None, {"audit": {"sign": {"file": str(signer[0])}}},
                       environment=disk.environment)
    sidecar.stop()
    hand_over(sidecar, signer[0], tmp_path / "new.key")
    before = len(sidecar.events())
    disk.set("sync *.jsonl stall 4")  # keytrail.start is durable, what follows it is not
    sidecar.spawn()
    wait_for(lambda: len(sidecar.events()) > before + 1, "what follows keytrail.start")
    threads = sidecar.threads()
    assert "journal" in threads and "ledger" not in threads
    disk.clear()
    wait_for(lambda: any(e["event"] == "started" for e in sidecar.log_lines()), "the start")
    sidecar.wait_own("keytrail.key")


def test_a_heartbeat_is_recorded_and_signed_in_silence(keytrail, signer):
    sidecar = keytrail(None, {"audit": {"sign": {"file": str(signer[0])}, "heartbeat": "1s",
                                        "checkpoint_interval": "1s"}})
    first = sidecar.wait_own("keytrail.heartbeat")[0]["trail"]["seq"]
    wait_for(lambda: sidecar.metric("keytrail_trail_signed_sequence") >= first, "its checkpoint")
    wait_for(lambda: [e for e in sidecar.own("keytrail.checkpoint")
                      if e["details"]["events"] >= first], "the checkpoint's record")


def test_a_stops_checkpoint_is_recorded_at_the_next_start(signed):
    sidecar, _ = signed
    sidecar.stop()
    note = (sidecar.trail_dir / "checkpoint").read_bytes()
    sidecar.start()
    wait_for(lambda: [e for e in sidecar.own("keytrail.checkpoint")
                      if base64.b64decode(e["details"]["note"]) == note], "its record")


def test_what_was_taken_away_before_it_was_signed_is_not_called_lost(keytrail, signer):
    """The numbers of the lines are signed all the same, as having none."""
    sidecar = keytrail(None, {"audit": {"sign": {"file": str(signer[0])}, "checkpoint_interval": "1h"}})
    wait_for((sidecar.trail_dir / "checkpoint").exists, "the first checkpoint")
    calls(sidecar, 30)
    sidecar.wait_calls(30)
    sidecar.kill()
    path = segments(sidecar.trail_dir)[-1]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-20]))
    sidecar.start()
    sidecar.stop()
    told = verify(sidecar, signer[1])
    assert told.returncode == INCOMPLETE, told.stdout
    assert "the log says that it was taken away" in told.stdout and "lost," not in told.stdout
    sidecar.process = None


def test_a_line_with_a_number_out_of_reach_begins_a_new_log_which_is_signed(keytrail, signer):
    """Somebody put it there while nobody ran: no tree can have so many entries."""
    sidecar = keytrail(None, {"audit": {"sign": {"file": str(signer[0])}, "checkpoint_interval": "1s"}})
    calls(sidecar, 5)
    sidecar.stop()
    path = segments(sidecar.trail_dir)[-1]
    line = path.read_bytes().splitlines(keepends=True)[-1]
    number = json.loads(line)["trail"]["seq"]
    with path.open("ab") as segment:
        segment.write(mend(line.replace(b'"seq":%d' % number, b'"seq":%d' % 2**51)))
    sidecar.start()
    calls(sidecar, 5)
    sidecar.stop()
    assert sidecar.own("keytrail.tamper")
    told = verify(sidecar, signer[1])
    assert told.returncode == INCOMPLETE and f"events 1 to {2**51} are of an earlier log" in told.stdout
    assert "unaltered: yes" in told.stdout
    sidecar.process = None  # a trail with a hole

"""keytrail tail: which events it shows, and what of them reaches a terminal."""

import datetime
import os
import pty
import re
import subprocess
import threading

import pytest

import support
from backend import ok
from support import KEYTRAIL, PATIENCE, new_id, read_trail, segments, wait_for

KEY = new_id()


def echo(connection):
    """Answers with the request's own correlation ID; knows no keys by POST."""
    while (request := connection.read_request()) is not None:
        extra = f"Correlation-Id: {request.get('Correlation-Id')}\r\n"
        connection.send(ok(extra=extra) if request.method != "POST" else ok(status="404 Not Found", extra=extra))


def tail(folder, *options, **environment):
    done = subprocess.run([KEYTRAIL, "tail", folder, *map(str, options)], timeout=PATIENCE,
                          capture_output=True, check=True, env={**os.environ, **environment})
    assert done.stderr == b""
    return done.stdout.decode()


@pytest.fixture
def trail(keytrail, raw_backend):
    """Calls of each kind, one of them with an intent, and what the sidecar says of itself."""
    sidecar = keytrail(raw_backend(echo))
    for method, path in 3 * [("GET", "/api/v2/keys"), ("POST", f"/api/v2/keys/{KEY}/actions/wrap"),
                             ("DELETE", f"/api/v2/keys/{KEY}"), ("GET", "/api/v2//keys")]:
        sidecar.call(method, path, {"Correlation-Id": new_id(),
                                    "Authorization": f"Bearer {support.make_token(b'')}"})
    sidecar.stop()
    return sidecar.trail_dir


def at(event):
    return event["trail"]["at"]


@pytest.mark.parametrize("options, fits", [
    (["--action", "kms.secrets.delete"], lambda e, _: e["action"] == "kms.secrets.delete"),
    (["--outcome=pending"], lambda e, _: e["outcome"] == "pending"),
    (["--severity", "warning"], lambda e, _: e["severity"] == "warning"),
    (["--outcome", "failure", "--severity", "warning"],
     lambda e, _: e["outcome"] == "failure" and e["severity"] == "warning"),
    (["--since", "5"], lambda e, _: e["trail"]["seq"] >= 5),
    (["--until", "5"], lambda e, _: e["trail"]["seq"] < 5),
    (["--since", "{time}"], lambda e, all_: at(e) >= at(all_[4])),
    (["--until", "{time}"], lambda e, all_: at(e) < at(all_[4])),
    (["--initiator", "IBMid-110000P9W2"],
     lambda e, _: e.get("initiator", {}).get("id") == "IBMid-110000P9W2"),
    (["--correlation-id", "{correlation}"], lambda e, all_: e.get("correlationId") == all_[4]["correlationId"]),
])
@pytest.mark.parametrize("last", [1000, 2, 0])
def test_filters_choose_the_last_lines_that_fit(trail, options, fits, last):
    events = read_trail(trail)
    options = [o.format(time=at(events[4]), correlation=events[4]["correlationId"]) for o in options]
    want = [e["id"] for e in events if fits(e, events)]
    assert 0 < len(want) < len(events)
    shown = re.findall(r'"id":"([0-9a-f-]{36})","init|"id":"([0-9a-f-]{36})","message":"keytrail',
                       tail(trail, "--json", "-n", last, *options))
    assert [a or b for a, b in shown] == (want[-last:] if last else [])


def test_a_table_has_one_row_a_call_that_fits(trail):
    deleted = tail(trail, "--action", "kms.secrets.delete", "-n", 2).splitlines()
    assert len(deleted) == 3 and all(" success " in row for row in deleted[1:])


def test_a_call_that_was_closed_beyond_the_end_is_not_pending(keytrail, raw_backend):
    go_on = threading.Event()

    def script(connection):
        while (request := connection.read_request()) is not None:
            if request.method == "DELETE":
                go_on.wait(PATIENCE)
            connection.send(ok())

    backend = raw_backend(script)
    sidecar = keytrail(backend)
    with sidecar.client() as c:
        c.send_request("DELETE", f"/api/v2/keys/{KEY}")
        backend.wait(lambda b: b.requests)
        sidecar.call("GET", "/api/v2/keys")
        pending, = sidecar.intents()
        end = pending["trail"]["seq"] + 1
        assert " pending " in tail(sidecar.trail_dir, "--until", end)
        go_on.set()
        assert c.read_response().status == 200
    shown = tail(sidecar.trail_dir, "--until", end)
    assert "kms.secrets.delete" not in shown and "keytrail.start" in shown


@pytest.mark.parametrize("options, says", [
    (["--outcome", "fine"], "outcome: success, failure, unknown or pending is wanted"),
    (["--since", "yesterday"], "since: a number or a time like 2026-01-31T23:59:59Z is wanted"),
    (["--color", "yes"], "--color wants always, never or auto")])
def test_a_filter_that_is_none_is_told(trail, options, says):
    done = subprocess.run([KEYTRAIL, "tail", trail, *options], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"keytrail tail: {says}\n")


def test_who_follows_sees_what_fits_up_to_the_end(keytrail, raw_backend, tmp_path):
    sidecar = keytrail(raw_backend(echo))
    table = tmp_path / "table"
    with table.open("w") as out:
        following = subprocess.Popen([KEYTRAIL, "tail", sidecar.trail_dir, "--follow", "--outcome=failure",
                                      "--until", "7"], stdout=out)
        try:
            for method, path in 2 * [("GET", "/api/v2/keys"), ("POST", f"/api/v2/keys/{KEY}/actions/wrap")]:
                sidecar.call(method, path)
            wait_for(lambda: table.read_text().count(" 404 ") == 2, "the rows that fit")
            assert following.poll() is None
            for _ in range(2):
                sidecar.call("POST", f"/api/v2/keys/{KEY}/actions/wrap")
            assert following.wait(PATIENCE) == 0
        finally:
            following.kill()
            following.wait()
    assert [line.split()[3] for line in table.read_text().splitlines()] == ["STATUS", "404", "404", "404"]


# ---- the terminal ----

def on_terminal(*command, **environment):
    """What the command writes to a terminal."""
    child, terminal = pty.fork()
    if child == 0:
        os.execvpe(command[0], list(map(str, command)), {**os.environ, **environment})
    written = b""
    try:
        while piece := os.read(terminal, 65536):
            written += piece
    except OSError:  # nobody has it open any more
        pass
    os.close(terminal)
    assert os.waitpid(child, 0)[1] == 0
    return written.decode()


PLAIN_TERMINAL = {"TERM": "xterm", "NO_COLOR": ""}
CODES = re.compile("\x1b\\[[0-9;]*m")


def test_colours_tell_outcome_and_severity(trail):
    text = on_terminal(KEYTRAIL, "tail", trail, "-n", 100, **PLAIN_TERMINAL)
    assert CODES.sub("", text).replace("\r", "") == tail(trail, "-n", 100)
    title, *rows = text.splitlines()
    assert title.startswith("\x1b[1mTIME")
    styles = {"success": "\x1b[32m", "failure": "\x1b[1;31m"}
    severities = {"normal": "", "warning": "\x1b[33m", "critical": "\x1b[1;31m"}
    events = {e["id"]: e for e in read_trail(trail)}.values()  # the closing one of each call
    assert len(rows) == len(events)
    for row, event in zip(rows, sorted(events, key=lambda e: e["trail"]["seq"])):
        assert f"{styles[event['outcome']]}{event['outcome']}\x1b[0m" in row
        assert f"  {severities[event['severity']]}{event['action']}" in row


@pytest.mark.parametrize("options, environment, coloured", [
    ([], {"NO_COLOR": "1"}, False), ([], {"TERM": "dumb"}, False), (["--color=never"], {}, False),
    (["--color=auto"], {}, True), (["--color", "always"], {"NO_COLOR": "1", "TERM": "dumb"}, True)])
def test_who_wants_no_colour_gets_none(trail, options, environment, coloured):
    text = on_terminal(KEYTRAIL, "tail", trail, *options, **{**PLAIN_TERMINAL, **environment})
    assert bool(CODES.search(text)) == coloured


def test_a_pipe_gets_colours_when_it_asks(trail):
    assert not CODES.search(tail(trail, **PLAIN_TERMINAL))
    assert CODES.search(tail(trail, "--color", "always", **PLAIN_TERMINAL))


def test_times_of_the_own_zone(trail):
    event = read_trail(trail)[-1]
    time = datetime.datetime.strptime(event["eventTime"], "%Y-%m-%dT%H:%M:%S.%f%z")
    local = time.astimezone(datetime.timezone(datetime.timedelta(hours=5, minutes=30)))
    row = tail(trail, "--local", "-n", 1, TZ="HERE-5:30").splitlines()[1]
    assert row.split()[0] == f"{local:%Y-%m-%dT%H:%M:%S}{event['eventTime'][19:22]}+0530"
    assert event["eventTime"] in tail(trail, "-n", 1, TZ="HERE-5:30")


def edit(trail, old, new):
    """Somebody who knows how to make the sum fit."""
    assert len(old) == len(new)
    segment, = segments(trail)
    lines = segment.read_bytes().splitlines(keepends=True)
    for i, line in enumerate(lines):
        if old in line:
            line = line.replace(old, new)
            summed = line[:line.rindex(b',"sum"')]
            lines[i] = summed + f',"sum":"{support.crc32c(summed):08x}"}}}}\n'.encode()
    segment.write_bytes(b"".join(lines))


def test_columns_are_aligned_by_characters(trail):
    edit(trail, b'"name":"unauthenticated"', '"name":"Zo\u00eb \u2603xxxxxxx"'.encode())
    title, *rows = tail(trail, "-n", 100).splitlines()
    column = title.index("CORRELATION")
    assert any("Zo\u00eb \u2603" in row for row in rows)
    assert all(row[column - 1] == " " and row[column] != " " for row in rows)


@pytest.mark.parametrize("command", [b"\\u001b[2J", "\x9b2J".encode()], ids=["ESC [", "CSI"])
def test_an_edited_trail_commands_no_terminal(trail, command):
    correlation = read_trail(trail)[1]["correlationId"].encode()
    edit(trail, correlation, command + correlation[len(command):])
    text = tail(trail, "-n", "100")
    assert "2J" + correlation.decode()[len(command):] in text
    assert "\x1b" not in text and "\x9b" not in text

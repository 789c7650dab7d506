"""What a container's runtime wants of the first process: it ends when told, and buries orphans."""

import os
import signal
import subprocess

import pytest

from backend import ok
from support import KEYTRAIL, PATIENCE, wait_for


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT],
                         ids=lambda number: number.name)
def test_it_ends_when_told(keytrail, raw_backend, number):
    sidecar = keytrail(raw_backend(ok()))
    assert sidecar.call("GET", "/api/v2/keys").status == 200
    sidecar.signal(number)
    assert sidecar.process.wait(PATIENCE) == 0
    assert [e["action"] for e in sidecar.events()][-1] == "keytrail.stop"


def children(pid):
    done = subprocess.run(["pgrep", "-P", str(pid)], check=False, text=True, stdout=subprocess.PIPE)
    return [int(line) for line in done.stdout.split()]


def test_an_orphan_becomes_no_zombie(keytrail, raw_backend, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("a process namespace can be made by root alone")
    first = tmp_path / "first"
    first.write_text(f'#!/bin/sh\nexec unshare --pid --fork --kill-child {KEYTRAIL} "$@"\n')
    first.chmod(0o700)
    sidecar = keytrail(raw_backend(ok()), start=False)
    sidecar.program = first
    sidecar.start()
    own, = children(sidecar.process.pid)
    before = children(own)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    subprocess.run(["nsenter", f"--pid=/proc/{own}/ns/pid", "sh", "-c", f"(read -r x <{pipe} &)"],
                   check=True)
    wait_for(lambda: children(own) != before, "the orphan to be ours")
    pipe.write_text("go\n")
    wait_for(lambda: children(own) == before, "the orphan to be gone")
    os.kill(own, signal.SIGTERM)  # unshare ends as it does

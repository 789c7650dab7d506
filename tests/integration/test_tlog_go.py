"""The signed trail, judged by a program nobody here wrote: Go's sumdb/note and sumdb/tlog."""

import os
import pathlib
import subprocess

import pytest

from support import PATIENCE, segments
from test_proof import calls, run, signed  # noqa: F401 (fixtures)

LIBRARY = pathlib.Path("/usr/share/gocode")
HERE = pathlib.Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def tlog(tmp_path_factory):
    """The checker, built of Debian's sources and nothing else.  Go keeps what it has compiled."""
    folder = tmp_path_factory.mktemp("tlog")
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": str(LIBRARY), "GOFLAGS": "",
                   "GOTOOLCHAIN": "local"}
    subprocess.run(["go", "build", "-o", str(folder / "tlog"), str(HERE / "tlog" / "main.go")],
                   check=True, timeout=300, env=environment)
    return folder / "tlog"


def test_go_agrees_with_checkpoints_tiles_and_proofs(tlog, signed, tmp_path):  # noqa: F811
    sidecar, key = signed
    calls(sidecar, 20)
    sidecar.stop()
    old = tmp_path / "old"
    old.write_bytes((sidecar.trail_dir / "checkpoint").read_bytes())
    size = old.read_text().split("\n")[1]
    sidecar.start()
    calls(sidecar, 600)
    sidecar.stop()
    proofs = []
    for number in (1, 22, 256, 257, 620):
        assert run("proof", sidecar.trail_dir, number, tmp_path / f"p{number}").returncode == 0
        proofs += [tmp_path / f"p{number}.json", tmp_path / f"p{number}.tlog-proof"]
    lines = tmp_path / "lines"
    lines.write_bytes(b"".join(p.read_bytes() for p in segments(sidecar.trail_dir)))

    def check(*, vkey=key, old=old, lines=lines, proofs=proofs):
        return subprocess.run([tlog, sidecar.trail_dir, vkey, old, lines, *proofs],
                              check=False, timeout=PATIENCE, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, encoding="utf-8")

    good = check()
    assert good.returncode == 0, good.stderr
    assert good.stdout.endswith(f"old {size}, proofs 5\n")

    # And it can fail.
    forged = tmp_path / "forged"
    forged.write_bytes(lines.read_bytes().replace(b"failure", b"success", 1))
    assert check(lines=forged).returncode == 1
    assert check(proofs=[proofs[0], proofs[3]]).returncode == 1
    other = run("keygen", tmp_path / "other.key", "example.com/test").stdout.strip()
    assert check(vkey=other).returncode == 1

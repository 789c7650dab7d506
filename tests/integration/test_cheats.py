"""Ways to cheat with a signed trail, and what `keytrail verify` says of each."""

import base64
import json
import re
import shutil
import struct

import pytest

from support import crc32c, mend, segments
from test_proof import ALTERED, CANNOT_TELL, INCOMPLETE, calls, run, verify


class Trail:
    """A signed trail at rest of several segments, its key, and the means to cheat."""

    def __init__(self, keytrail, sidecar, key, folder):
        self.keytrail, self.others = keytrail, []
        self.sidecar, self.key, self.folder = sidecar, key, folder
        self.dir = sidecar.trail_dir

    def foreign(self):
        """A segment of another trail."""
        if not self.others:
            other = self.keytrail(None)
            calls(other, 30)
            other.stop()
            self.others += segments(other.trail_dir)
        return self.others[0]

    def edit(self, change, segment=0):
        path = segments(self.dir)[segment]
        path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))

    def resign(self):
        """As one would who has another key: all that is there, signed by it."""
        other = self.folder / "thief.key"
        key = run("keygen", other, "example.com/test").stdout.strip()
        for name in ("checkpoint", "tile"):
            path = self.dir / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.sidecar.config["audit"]["sign"] = {"file": str(other)}
        self.sidecar.write_config()
        self.restart()
        return key

    def restart(self):
        self.sidecar.start()
        self.sidecar.stop()


def forge(line):
    return mend(line.replace(b'"failure"', b'"success"'))


def edited(t):
    t.edit(lambda lines: lines[:9] + [lines[9].replace(b'"failure"', b'"success"')] + lines[10:])


def edited_with_its_sum(t):
    t.edit(lambda lines: lines[:9] + [forge(lines[9])] + lines[10:])


def edited_with_sums_and_without_tiles(t):
    edited_with_its_sum(t)
    shutil.rmtree(t.dir / "tile")


def removed(t):
    t.edit(lambda lines: lines[:9] + lines[10:])


def inserted(t):
    t.edit(lambda lines: lines[:10] + [lines[9]] + lines[10:])


def of_a_later_segment(t):
    """A line of the segment, forged and with a number that the next one has."""
    line = segments(t.dir)[0].read_bytes().splitlines(keepends=True)[9]
    later = int(segments(t.dir)[1].stem) + 5
    return forge(line.replace(b'"seq":10,', b'"seq":%d,' % later))


def later_line_inserted(t):
    t.edit(lambda lines: lines[:10] + [of_a_later_segment(t)] + lines[10:])


def later_line_appended(t):
    t.edit(lambda lines: lines + [of_a_later_segment(t)])


def next_line_appended(t):
    """The bytes of the next segment's first one."""
    t.edit(lambda lines: lines + segments(t.dir)[1].read_bytes().splitlines(keepends=True)[:1])


def later_line_appended_before_a_start(t):
    later_line_appended(t)
    t.restart()


def junk_appended(t):
    t.edit(lambda lines: lines + [b'{"action":"kms.secrets.delete","outcome":"success"}\n'])


def swapped(t):
    t.edit(lambda lines: lines[:9] + [lines[10], lines[9]] + lines[11:])


def tail_cut(t):
    t.edit(lambda lines: lines[:-5], -1)


def tail_cut_and_state_made_anew(t):
    """The state page goes, and a start makes another."""
    tail_cut(t)
    (t.dir / "state").unlink()
    t.restart()


def last_segment_removed(t):
    segments(t.dir)[-1].unlink()


def middle_segment_removed(t):
    segments(t.dir)[1].unlink()


def middle_segment_removed_before_a_start(t):
    middle_segment_removed(t)
    t.restart()


def segment_exchanged(t):
    shutil.copy(t.foreign(), segments(t.dir)[1])


def segment_added(t):
    shutil.copy(t.foreign(), t.dir / f"{int(segments(t.dir)[1].stem) + 5:020}.jsonl")


def empty_segment_added(t):
    (t.dir / f"{int(segments(t.dir)[1].stem) + 5:020}.jsonl").touch()


def segment_added_before_a_start(t):
    """It is put aside, and what is there is what was signed."""
    segment_added(t)
    t.restart()


def lines_of_another_log(t):
    t.edit(lambda lines: lines[:9] + t.foreign().read_bytes().splitlines(keepends=True)[9:11]
           + lines[11:])


def rolled_back(t):
    """All of an older state, but somebody has kept the later checkpoint."""
    kept = t.folder / "kept"
    old = t.folder / "old"
    shutil.copytree(t.dir, old)
    t.restart()
    shutil.copy(t.dir / "checkpoint", kept)
    shutil.rmtree(t.dir)
    shutil.copytree(old, t.dir)
    return ["--since", kept]


def rolled_back_and_nobody_remembers(t):
    rolled_back(t)


def rolled_back_before_a_start(t):
    """It signs another head of the size that was kept."""
    options = rolled_back(t)
    t.restart()
    return options


def checkpoint_stripped(t):
    (t.dir / "checkpoint").unlink()


def checkpoint_stripped_but_kept(t):
    kept = t.folder / "kept"
    shutil.move(t.dir / "checkpoint", kept)
    return ["--since", kept]


def checkpoint_stripped_before_a_start(t):
    checkpoint_stripped(t)
    t.restart()


def checkpoint_forged(t):
    path = t.dir / "checkpoint"
    note = path.read_bytes().split(b"\n")
    note[1] = b"%d" % (int(note[1]) - 1)
    path.write_bytes(b"\n".join(note))


def signed_again(t):
    edited_with_its_sum(t)
    t.resign()


def signed_again_and_both_keys_given(t):
    edited_with_its_sum(t)
    return ["--key", t.resign()]


def expiry_forged(t, gone):
    """Killed with lines that are not signed, the last of which then says that a segment expired."""
    t.sidecar.start()
    before = len(t.sidecar.calls())
    calls(t.sidecar, 3)
    t.sidecar.wait_calls(before + 3)
    t.sidecar.kill()
    path = segments(t.dir)[gone]
    last = int(segments(t.dir)[gone + 1].stem) - 1
    t.edit(lambda lines: lines[:-1] + [expiry_of(lines[-1], last)], -1)
    path.unlink()
    return last


def expiry_of(line, last):
    """A line that says so, of the same length."""
    head = b'{"action":"keytrail.expire","dataEvent":false,"details":{"first":1,"last":%d},"x":"' % last
    trail = b'"' + line[line.rindex(b',"trail"'):]
    return mend(head + b"x" * (len(line) - len(head) - len(trail)) + trail)


def expiry_forged_and_a_segment_removed(t):
    expiry_forged(t, 1)


def expiry_forged_and_the_first_segment_removed(t):
    expiry_forged(t, 0)


def expiry_forged_before_a_start(t):
    expiry_forged(t, 0)
    t.restart()


def expiry_forged_in_the_state_too(t):
    """Both halves of the page, their sums made good."""
    last = expiry_forged(t, 0)
    teller = json.loads(segments(t.dir)[-1].read_bytes().splitlines()[-1])["trail"]["seq"]
    page = bytearray((t.dir / "state").read_bytes())
    for at in (512, 1024):
        expired, total = at + 280, at + 456
        assert struct.unpack_from("<Q", page, total)[0] == crc32c(bytes(page[at:total]))
        struct.pack_into("<QQ", page, expired, last, teller)
        struct.pack_into("<Q", page, total, crc32c(bytes(page[at:total])))
    (t.dir / "state").write_bytes(page)
    t.restart()


CHEATS = {
    "a line is edited": (edited, ALTERED, "offset [0-9]+: bytes|event 10"),
    "a line is edited, its CRC sum made to fit":
        (edited_with_its_sum, ALTERED, "event 10 is not the line that was signed"),
    "a line is edited, its sum made to fit, the tiles removed":
        (edited_with_sums_and_without_tiles, ALTERED, "do not lead to the root that was signed"),
    "a line is removed": (removed, INCOMPLETE, "event 10: the line is gone"),
    "a line is inserted (a copy)": (inserted, ALTERED, "a line with number 10 stands where 11"),
    "a forged line with a number of a later segment is inserted":
        (later_line_inserted, ALTERED, "a line with number [0-9]+, which belongs to a later segment"),
    "the same, behind the last line of a segment":
        (later_line_appended, ALTERED, "a line with number [0-9]+, which belongs to a later segment"),
    "a forged line stands there, then a start": (later_line_appended_before_a_start, ALTERED,
        "a line with number [0-9]+, which belongs to a later segment"),
    "the next segment's first line stands there (a copy)":
        (next_line_appended, ALTERED, "a line with number [0-9]+, which belongs to a later segment"),
    "bytes that are no line of the log stand there":
        (junk_appended, CANNOT_TELL, "stand at its end: a power cut may have left them"),
    "two lines are swapped": (swapped, ALTERED, "a line with number 10 stands where"),
    "the tail is cut": (tail_cut, INCOMPLETE, "the line is gone"),
    "the tail is cut, the state made anew by a start":
        (tail_cut_and_state_made_anew, INCOMPLETE, "are of an earlier log"),
    "the last segment is removed": (last_segment_removed, INCOMPLETE, "the line is gone"),
    "a segment in the middle is removed":
        (middle_segment_removed, INCOMPLETE, "the line is gone"),
    "a segment in the middle is removed, then a start":
        (middle_segment_removed_before_a_start, INCOMPLETE, "are of an earlier log"),
    "a segment in the middle is removed, a line behind the checkpoint says that it expired":
        (expiry_forged_and_a_segment_removed, INCOMPLETE, "older ones are there"),
    "the first segment is removed, a line behind the checkpoint says that it expired":
        (expiry_forged_and_the_first_segment_removed, CANNOT_TELL,
         "what says that it expired is not signed"),
    "the same, then a start": (expiry_forged_before_a_start, INCOMPLETE, "are of an earlier log"),
    "the same, the state page says so too, then a start":
        (expiry_forged_in_the_state_too, INCOMPLETE, "are of an earlier log"),
    "lines of another trail stand in the place of two": (lines_of_another_log, ALTERED,
        r"segment 1, offset [0-9.]+: lines of another log, the first with number 10\b"),
    "a segment of another trail stands in the place of one":
        (segment_exchanged, ALTERED, r"offset 0: lines of another log, the first with number 1\b"),
    "a segment of another trail is added":
        (segment_added, ALTERED, r"offset 0: lines of another log, the first with number 1(?m:$)"),
    "an empty file with a segment's name is added": (empty_segment_added, 0, ""),
    "a segment of another trail is added, then a start": (segment_added_before_a_start, 0, ""),
    "the whole directory is rolled back (`--since`)": (rolled_back, INCOMPLETE, "rolled back"),
    "the whole directory is rolled back, nothing is kept elsewhere": (
        rolled_back_and_nobody_remembers, 0, ""),
    "the whole directory is rolled back, then a start (`--since`)": (rolled_back_before_a_start, ALTERED,
        "are not those of a checkpoint kept elsewhere"),
    "the checkpoint is removed": (checkpoint_stripped, CANNOT_TELL, "there is no checkpoint"),
    "the checkpoint is removed (`--since`)":
        (checkpoint_stripped_but_kept, INCOMPLETE, "is kept elsewhere, and here is none"),
    "the checkpoint is removed, then a start":
        (checkpoint_stripped_before_a_start, INCOMPLETE, "are of an earlier log"),
    "the checkpoint is edited": (checkpoint_forged, ALTERED, "the checkpoint is forged"),
    "a line is edited, all is signed with another key":
        (signed_again, CANNOT_TELL, "no signature of a key that was given"),
    "a line is edited, all is signed with another key (both keys given)":
        (signed_again_and_both_keys_given, INCOMPLETE, "are of an earlier log"),
}


@pytest.fixture
def trail(keytrail, signer, tmp_path):
    sidecar = keytrail(None, {"audit": {"sign": {"file": str(signer[0])},
                                        "segment_size": 65536}})
    calls(sidecar, 200)
    sidecar.stop()
    assert len(segments(sidecar.trail_dir)) > 2
    good = verify(sidecar, signer[1])
    assert good.returncode == 0, good.stdout
    yield Trail(keytrail, sidecar, signer[1], tmp_path)
    sidecar.process = None  # the trail is not what it was


@pytest.mark.parametrize("name", CHEATS)
def test_a_cheat_is_told(trail, name):
    cheat, status, words = CHEATS[name]
    more = cheat(trail) or []
    told = verify(trail.sidecar, trail.key, *more)
    print(f"{told.returncode} | {told.stdout}")
    assert told.returncode == status and re.search(words, told.stdout), told.stdout


def starts(sidecar):
    return [(e["action"], e.get("details", {})) for e in sidecar.own()
            if e["action"] in ("keytrail.start", "keytrail.tamper")]


def test_a_trail_that_is_not_what_was_signed_goes_on_as_a_new_log(trail):
    sidecar = trail.sidecar
    old = sidecar.events()[-1]["trail"]
    note = (trail.dir / "checkpoint").read_bytes()
    tail_cut_and_state_made_anew(trail)
    events = sidecar.events()
    new = [e for e in events if e["trail"]["log"] != old["log"]]
    assert new[0]["action"] == "keytrail.tamper" and new[0]["trail"]["seq"] == old["seq"] + 1
    assert base64.b64decode(new[0]["details"]["note"]) == note
    assert (trail.dir / f"checkpoint.{old['log']}").read_bytes() == note
    start = [e for e in new if e["action"] == "keytrail.start"][0]
    assert start["details"]["newLog"] is True
    first = (trail.dir / "checkpoint").read_text().split("\n")
    assert first[0].endswith(new[0]["trail"]["log"]) and int(first[1]) == len(new)
    made = run("proof", trail.dir, new[-1]["trail"]["seq"], cwd=trail.folder)
    assert made.returncode == 0, made.stderr
    prefix = trail.folder / f"event-{new[-1]['trail']['seq']}"
    assert run("verify", "--proof", f"{prefix}.tlog-proof", "--line", f"{prefix}.json",
               "--key", trail.key).returncode == 0


def test_without_create_no_new_log_is_begun(trail):
    tail_cut(trail)
    trail.sidecar.config["audit"]["create"] = False
    trail.sidecar.write_config()
    trail.sidecar.spawn()
    assert trail.sidecar.process.wait(20) == 1
    assert "no new log is begun" in trail.sidecar.stderr()


def test_a_fresh_directory_says_that_it_is_one(trail):
    shutil.rmtree(trail.dir)
    trail.sidecar.start()
    assert trail.sidecar.wait_own("keytrail.start")[0]["details"]["newLog"] is True
    trail.sidecar.stop()
    assert json.loads(verify(trail.sidecar, trail.key, "--json").stdout)["complete"] == "yes"

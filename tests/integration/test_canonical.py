"""Every line the renderer makes is canonical JSON (RFC 8785), as an independent encoder sees it."""

import json
import re
import subprocess

import pytest

import support


@pytest.fixture(scope="module")
def lines():
    program = support.BUILD / "unit" / "test_event"
    done = subprocess.run([program, "--dump"], stdout=subprocess.PIPE, check=True, timeout=60)
    return done.stdout.decode("utf-8", "strict").removesuffix("\n").split("\n")


def no_repeats(pairs):
    members = dict(pairs)
    assert len(members) == len(pairs), f"a name occurs twice in {pairs}"
    return members


def test_a_canonical_encoder_gives_the_same_bytes(lines):
    assert len(lines) > 4000
    for line in lines:
        event = json.loads(line, object_pairs_hook=no_repeats)
        assert line == json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def test_the_trail_member_sorts_last(lines):
    for line in lines:
        assert max(json.loads(line)) < "trail"


def test_the_lines_have_every_member_of_the_manual_and_no_other(lines):
    """The dump would prove little if it never showed a member."""
    seen = {leaf for line in lines for leaf in support.leaves(json.loads(line))}
    members, _ = support.documented()
    assert seen == {m for m in members if not m.startswith("trail.")}


def test_times_and_ids_have_their_form(lines):
    for line in lines:
        event = json.loads(line)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d\d\+0000", event["eventTime"])
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", event["id"])

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


def test_the_lines_cover_every_member(lines):
    """The dump would prove little if it never showed a member."""
    seen = set()

    def walk(path, value):
        seen.add(path)
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{path}.{key}" if path else key, inner)

    for line in lines:
        walk("", json.loads(line))
    wanted = """
        action correlationId correlationSource dataEvent details eventTime id initiator
        initiator.authnId initiator.claimed initiator.claimed.id initiator.claimed.name
        initiator.credential.type initiator.credential.verifiedBy initiator.host.address
        initiator.host.addressType initiator.host.agent initiator.host.peer initiator.id
        initiator.name initiator.typeURI kind logSourceCRN message observer.id observer.name outcome
        reason.reasonCode reason.reasonForFailure reason.reasonType recovered requestData.attempts
        requestData.instanceId requestData.keyRingId requestData.method requestData.path
        requestData.shape requestData.unmatched responseHeader.content.correlationId
        saveServiceCopy severity target.id target.keyRef target.name target.typeURI
        """.split()
    assert set(wanted) <= seen
    assert {p for p in seen if not p.startswith("details.")} - {""} - set(wanted) == {
        "initiator.credential", "initiator.host", "observer", "reason", "requestData",
        "responseHeader", "responseHeader.content", "target"}


def test_times_and_ids_have_their_form(lines):
    for line in lines:
        event = json.loads(line)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d\d\+0000", event["eventTime"])
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", event["id"])

"""What sinks make of events, judged by others' schemas: the golden lines of the unit test, and a sidecar's.

OCSF by its published schema of 1.8.0, the newest that a package brings; `attestation_list`, which 1.9.0
adds, by what is transcribed here from objects/attestation.json and objects/fingerprint.json of that
release.  ECS by the rows of its generated/csv/fields.csv (8.17) that are transcribed here, CloudEvents by
sections 3.1 and 3.2 of its specification 1.0.2, CEF by the dictionary of its implementation standard.
"""

import datetime
import functools
import hashlib
import ipaddress
import json
import re
import sys
import zipfile

import jsonschema
import pytest

import support
from backend import ok
from support import wait_for

GOLDEN = support.ROOT / "tests" / "unit" / "golden"
FORMATS = ("activity-tracker", "ocsf", "ecs", "cloudevents", "cef")
VENDOR = support.ROOT / "build" / "vendor"


def golden(name):
    """(line, what is made of it): of the first and the last line the stub too."""
    lines = (GOLDEN / "lines").read_bytes().splitlines()
    made = (GOLDEN / name).read_text().splitlines()
    pairs = [lines[0], *lines, lines[-1]]
    assert len(pairs) == len(made) > 30
    return list(zip(pairs, made))


def members(value, prefix=""):
    """(dotted name, value) of what is no object."""
    for name, v in value.items():
        if isinstance(v, dict) and v:
            yield from members(v, f"{prefix}{name}.")
        else:
            yield prefix + name, v


def canonical(value):
    """RFC 8785, of what has no fractions."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


# ---- where log, boot, sequence, predecessor and hash are ----


def pairs_of_cef(text):
    """The header's fields, and the extension's pairs."""
    *header, extension = re.split(r"(?<!\\)(?:\\\\)*\|", text, maxsplit=7)
    found = list(re.finditer(r"(?:^| )(\w+)=", extension))
    ends = [m.start() for m in found[1:]] + [len(extension)]
    pairs = {m[1]: re.sub(r"\\(.)", lambda e: {"n": "\n", "r": "\r"}.get(e[1], e[1]),
                          extension[m.end():end]) for m, end in zip(found, ends)}
    return header, pairs


def identity(name, text):
    if name == "cef":
        e = pairs_of_cef(text)[1]
        return e["deviceExternalId"], e["cs2"], int(e["externalId"]), int(e["cn2"]), e["cs3"]
    e = json.loads(text)
    if name == "ocsf":
        rest = e["unmapped"]
        return (rest["log"], rest["boot"], e["metadata"]["sequence"], rest["prev"],
                e["raw_data_hash"]["value"])
    if name == "ecs":
        rest = e["keytrail"]
        return rest["log"], rest["boot"], e["event"]["sequence"], rest["prev"], e["event"]["hash"]
    if name == "cloudevents":
        return e["logid"], e["bootid"], int(e["sequence"]), int(e["prev"]), e["hash"]
    return (*(e["trail"][k] for k in ("log", "boot", "seq")), e["delivery"]["prev"],
            e["delivery"]["hash"])


def identity_of(line, prev):
    trail = json.loads(line)["trail"]
    return (trail["log"], trail["boot"], trail["seq"], prev,
            hashlib.sha256(b"\0" + line).hexdigest())


@pytest.mark.parametrize("name", FORMATS)
def test_the_identity_travels_in_each_format(name):
    for line, made in golden(name):
        assert identity(name, made) == identity_of(line, json.loads(line)["trail"]["seq"] - 1)


def test_activity_tracker_is_the_line_and_a_member_more():
    for line, made in golden("activity-tracker"):
        if '"stub":true' not in made:
            assert re.sub(r'"delivery":\{.*?\},', "", made, count=1).encode() == line
            assert canonical(json.loads(made)) == made.encode()


# ---- OCSF ----


@functools.cache
def judge(class_name):
    wheel, = (VENDOR / "ocsf-json-schema").glob("*.whl")
    sys.path.insert(0, str(wheel))
    try:
        from ocsf_json_schema import OcsfJsonSchemaEmbedded
    finally:
        sys.path.remove(str(wheel))
    with zipfile.ZipFile(wheel) as z:
        published = json.loads(z.read("ocsf_json_schema/ocsf/1.8.0.json"))
    schema = OcsfJsonSchemaEmbedded(published).get_class_schema(class_name)
    return jsonschema.Draft202012Validator(schema)


def faults(event):
    judged = {k: v for k, v in event.items() if k != "attestation_list"}
    validator = judge({6003: "api_activity", 0: "base_event"}[event["class_uid"]])
    return [f"{'/'.join(map(str, e.absolute_path))}: {e.message[:200]}"
            for e in validator.iter_errors(judged)]


def test_ocsf_fits_its_schema():
    kinds = set()
    for line, made in golden("ocsf"):
        event = json.loads(made)
        assert faults(event) == [], line
        assert event["type_uid"] == 100 * event["class_uid"] + event["activity_id"]
        kinds.add((event["class_uid"], event["status_id"]))
    assert kinds >= {(6003, 0), (6003, 1), (6003, 2), (6003, 99), (0, 1)}


@pytest.mark.parametrize("change", [
    {"class": "6003"}, {"actor": ...}, {"api": {"operation": ...}}, {"severity_id": 7},
    {"http_request": {"http_method": "FETCH"}}, {"metadata": {"product": ...}}])
def test_its_schema_minds(change):
    event = json.loads(golden("ocsf")[0][1])
    assert faults(event) == [] != faults(support.merge(event, change))


def test_its_attestation_is_of_the_event_that_is_sent():
    for _, made in golden("ocsf"):
        event = json.loads(made)
        assert canonical(event) == made.encode()
        assert event["metadata"]["profiles"] == ["record_integrity"]
        assert event["metadata"]["version"] == "1.9.0"
        attestation, = event["attestation_list"]
        fingerprint = attestation.pop("fingerprint")
        assert attestation.keys() == {"authority_uid", "chain_uid"}
        value = fingerprint.pop("value")
        assert fingerprint == {"algorithm": "SHA-256", "algorithm_id": 3, "encoding": "Hex",
                               "encoding_id": 1, "serialization": "JCS", "serialization_id": 2}
        assert value == hashlib.sha256(canonical(event)).hexdigest()


# ---- ECS ----

ECS = {"@timestamp": "date", "client.ip": "ip", "ecs.version": "keyword", "event.action": "keyword",
       "event.category": "keyword[]", "event.created": "date", "event.dataset": "keyword",
       "event.hash": "keyword", "event.id": "keyword", "event.kind": "keyword",
       "event.module": "keyword", "event.outcome": "keyword", "event.provider": "keyword",
       "event.reason": "keyword", "event.sequence": "long", "event.severity": "long",
       "event.type": "keyword[]", "http.request.id": "keyword", "http.request.method": "keyword",
       "http.response.status_code": "long", "message": "match_only_text",
       "observer.product": "keyword", "observer.type": "keyword", "observer.vendor": "keyword",
       "observer.version": "keyword", "service.id": "keyword", "service.name": "keyword",
       "source.ip": "ip", "user.id": "keyword", "user.name": "keyword",
       "user_agent.original": "keyword"}
ALLOWED = {
    "event.kind": {"event"},
    "event.outcome": {"success", "failure", "unknown"},
    # category: the types that it expects
    "api": {"access", "admin", "allowed", "change", "creation", "deletion", "denied", "end", "info",
            "start", "user"},
    "process": {"access", "change", "end", "info", "start"},
    "configuration": {"access", "change", "creation", "deletion", "info"},
}
TYPES = {
    "date": datetime.datetime.fromisoformat,
    "ip": ipaddress.ip_address,
    "keyword": lambda v: None if isinstance(v, str) and v else 1 / 0,
    "match_only_text": lambda v: None if isinstance(v, str) else 1 / 0,
    "long": lambda v: None if type(v) is int else 1 / 0,
    "keyword[]": lambda v: None if v and all(isinstance(w, str) for w in v) else 1 / 0,
}


def test_ecs_has_fields_of_its_types():
    seen = set()
    for _, made in golden("ecs"):
        for name, value in members(json.loads(made)):
            seen.add(name)
            if not name.startswith("keytrail."):
                TYPES[ECS[name]](value.removesuffix("Z") + "0000" if ECS[name] == "date" else value)
    assert seen >= ECS.keys()


def test_ecs_has_the_words_of_its_lists():
    for _, made in golden("ecs"):
        event = json.loads(made)["event"]
        assert event["kind"] in ALLOWED["event.kind"]
        assert event.get("outcome", "unknown") in ALLOWED["event.outcome"]
        for category in event.get("category", ()):
            assert set(event["type"]) <= ALLOWED[category]


# ---- CloudEvents ----


def test_cloudevents_are_as_they_must_be():
    ids = set()
    for line, made in golden("cloudevents"):
        event = json.loads(made)
        assert event["specversion"] == "1.0" and event["datacontenttype"] == "application/json"
        assert event["id"] and event["source"] and event["type"] == json.loads(line)["action"]
        for name, value in event.items():
            assert re.fullmatch("[a-z0-9]{1,20}", name), name
            assert name == "data" or isinstance(value, str) and value, name
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d\dZ", event["time"])
        if not event["data"].get("stub"):
            assert canonical(event["data"]) == line
        ids.add(event["id"])
    assert len(ids) == len(golden("cloudevents")) - 2


# ---- CEF ----

# Bytes that the dictionary gives a key.
CEF = {**{f"cs{i}": 4000 for i in range(1, 7)}, **{f"cs{i}Label": 1023 for i in range(1, 7)},
       "cn1": 20, "cn1Label": 1023, "cn2": 20, "cn2Label": 1023, "c6a2": 45, "c6a2Label": 1023,
       "flexString1": 1023, "flexString1Label": 128, "flexString2": 1023, "flexString2Label": 128,
       "cat": 1023, "destinationServiceName": 255, "deviceExternalId": 255, "externalId": 40,
       "outcome": 63, "reason": 1023, "requestClientApplication": 1023, "requestMethod": 1023,
       "rt": 20, "src": 15, "start": 20, "suid": 1023, "suser": 1023}


def test_cef_has_keys_of_its_dictionary():
    seen = set()
    for line, made in golden("cef"):
        header, pairs = pairs_of_cef(made)
        event = json.loads(line)
        assert header[:3] == ["CEF:0", "keytrail", "keytrail"] and header[4] == event["action"]
        assert header[6] in ("3", "6", "9", "Unknown") and len(header) == 7
        seen |= pairs.keys()
        for key, value in pairs.items():
            assert 0 < len(value.encode()) <= CEF[key], key
            assert key.endswith("Label") or key + "Label" not in CEF or key + "Label" in pairs
        if pairs["cat"] in ("call", "intent"):
            name = event["initiator"]["name"]
            assert pairs.get("suser", "") == name
            assert pairs.get("src", pairs.get("c6a2")) == event["initiator"]["host"]["address"]
    assert seen >= CEF.keys()


# ---- a sidecar's ----


def test_a_sidecar_sends_each_format(keytrail, raw_backend, tmp_path):
    files = {name: tmp_path / name for name in FORMATS[1:]}
    sidecar = keytrail(raw_backend(ok()), {"sinks": [
        {"name": name, "type": "file", "path": str(path), "format": name}
        for name, path in files.items()]})
    for path in ("/api/v2/keys", "/nowhere", "/api/v2//keys"):
        sidecar.call("GET", path)
    sidecar.stop()
    lines = support.read_lines(sidecar.trail_dir)
    assert len(lines) >= 5
    for name, path in files.items():
        made = wait_for(path.read_text, name).splitlines()
        want = [identity_of(line, i) for i, line in enumerate(lines)]
        assert [identity(name, text) for text in made] == want, name

"""What sinks make of events, judged by others' schemas: the golden lines of the unit test, and a sidecar's.

OCSF by its published schema of 1.8.0, the newest that a package brings; `attestation_list`, which 1.9.0
adds, by what is transcribed here from objects/attestation.json and objects/fingerprint.json of that
release.  ECS by the fields of 8.11 that its own package brings: later ones of 8 only add some.  OTLP by its
own messages of protocol buffers.  CloudEvents by sections 3.1 and 3.2 of its specification 1.0.2, CEF by
the dictionary of its implementation standard.
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
from receiver import Receiver
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


@functools.cache
def ecs():
    """{field: what the schema says of it}"""
    published = json.loads((VENDOR / "ecs.json").read_text())
    assert published["EcsVersion"].startswith("8.")
    return published["EcsFlat"]


def instance(*classes):
    return lambda value: type(value) in classes


def parsed(function):
    def fits(value):
        try:
            return function(value) is not None
        except ValueError:
            return False
    return lambda value: isinstance(value, str) and fits(value)


TYPES = {
    "date": parsed(lambda v: datetime.datetime.strptime(v, "%Y-%m-%dT%H:%M:%S.%fZ")),
    "ip": parsed(ipaddress.ip_address),
    "keyword": lambda v: isinstance(v, str) and 0 < len(v) <= 1024,
    "match_only_text": instance(str),
    "long": instance(int),
}


def faults_of_ecs(event):
    found = []
    for name, value in members(event):
        field = ecs().get(name)
        if name.startswith("keytrail."):
            continue
        if field is None:
            found.append(f"{name} is none of its fields")
            continue
        values = value if "array" in field["normalize"] else [value]
        if not isinstance(values, list) or not all(map(TYPES[field["type"]], values)):
            found.append(f"{name} is no {field['type']}")
        elif field.get("allowed_values"):
            words = {w["name"]: w for w in field["allowed_values"]}
            found += [f"{name} is {v}" for v in values if v not in words]
            for expected in (words.get(v, {}).get("expected_event_types") for v in values):
                if expected and not set(event["event"]["type"]) <= set(expected):
                    found.append(f"event.type does not go with {value}")
    return found


def test_ecs_has_fields_types_and_words_of_its_schema():
    assert "keytrail" not in {name.split(".")[0] for name in ecs()}
    for _, made in golden("ecs"):
        assert faults_of_ecs(json.loads(made)) == []


@pytest.mark.parametrize("change", [
    {"event": {"sum": "1"}}, {"event": {"action": 1}}, {"event": {"category": "api"}},
    {"event": {"category": ["calls"]}}, {"event": {"type": ["indicator"]}},
    {"event": {"outcome": "pending"}}, {"event": {"sequence": "1"}}, {"source": {"ip": "localhost"}},
    {"@timestamp": "2026-11-23"}])
def test_its_schema_of_fields_minds(change):
    assert faults_of_ecs(support.merge(json.loads(golden("ecs")[0][1]), change)) != []


# ---- what is installed for Elasticsearch and OpenSearch ----

ELASTIC = support.ROOT / "docker" / "elasticsearch"


def mapped():
    """{field: its type} of the index template."""
    def fields(properties, prefix=""):
        for name, field in properties.items():
            if "properties" in field:
                yield from fields(field["properties"], f"{prefix}{name}.")
            else:
                yield prefix + name, field["type"]
    template = json.loads((ELASTIC / "index-template.json").read_text())
    return dict(fields(template["template"]["mappings"]["properties"]))


def test_the_template_has_each_field_of_the_format():
    chapter = (support.ROOT / "docs" / "formats.md").read_text().split("\n## ecs\n")[1].split("\n## ")[0]
    rows = set(re.findall(r"^\| `([^`]+)`", chapter, re.MULTILINE))
    # What a detail is, each action of the sidecar's own has otherwise: no mapping has that.
    assert mapped().keys() == rows - {"keytrail.details"}
    for name, kind in mapped().items():
        if name in ecs():
            assert kind == ecs()[name]["type"].replace("match_only_", ""), name


def test_the_template_fits_what_is_sent():
    fits = TYPES | {"boolean": instance(bool), "text": instance(str)}
    for _, made in golden("ecs"):
        for name, value in members(json.loads(made)):
            if not name.startswith("keytrail.details"):
                for one in value if isinstance(value, list) else [value]:
                    assert fits[mapped()[name]](one), name


def saved_objects():
    lines = (ELASTIC / "saved-objects.ndjson").read_text().splitlines()
    objects = {(o["type"], o["id"]): o for o in map(json.loads, lines)}
    assert len(objects) == len(lines)
    return objects


def test_saved_objects_refer_to_what_is_there():
    objects = saved_objects()
    for one in objects.values():
        references = {r["name"]: objects[r["type"], r["id"]] for r in one["references"]}
        source = one["attributes"].get("kibanaSavedObjectMeta", {}).get("searchSourceJSON", "{}")
        assert {v for k, v in json.loads(source).items() if k.endswith("RefName")} == references.keys()


def test_the_view_shows_each_call():
    """Time, action, outcome, initiator, correlation ID, under the names that events have."""
    pattern = saved_objects()["index-pattern", "keytrail-audit"]["attributes"]
    view = saved_objects()["search", "keytrail-calls"]["attributes"]
    template = json.loads((ELASTIC / "index-template.json").read_text())
    assert [pattern["title"]] == template["index_patterns"]
    columns = [pattern["timeFieldName"], *view["columns"]]
    assert mapped()[columns[0]] == "date" and view["sort"] == [[columns[0], "desc"]]
    query = json.loads(view["kibanaSavedObjectMeta"]["searchSourceJSON"])["query"]
    wanted = dict(re.fullmatch(r'([\w.]+) : "?(\w+)"?', each).groups()
                  for each in query["query"].split(" or "))
    assert query["language"] == "kuery" and {*wanted, *columns} <= mapped().keys()
    calls = 0
    for line, made in golden("ecs"):
        event, shown = json.loads(line), dict(members(json.loads(made)))
        stub = shown.get("keytrail.stub", False)
        assert ("initiator" in event or stub) == any(
            word in json.dumps(shown.get(field)) for field, word in wanted.items())
        assert shown[columns[0]] == event["eventTime"].replace("+0000", "Z")
        if "initiator" in event and not stub:
            calls += 1
            outcome = event["outcome"].replace("pending", "")  # of an intent
            assert [shown.get(c, "") for c in columns[1:]] == [
                event["action"], outcome, event["initiator"]["id"], event["correlationId"]]
    assert calls > 10


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


# ---- OTLP ----


def otlp():
    """Who reads and writes OTLP's messages as JSON, and the module that has those of logs."""
    sys.path.insert(0, str(VENDOR / "otlp"))
    try:
        from google.protobuf import json_format
        from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
    finally:
        sys.path.remove(str(VENDOR / "otlp"))
    return json_format, logs_service_pb2


def records_of(body):
    """Of a request that holds what its messages have, in the one form that they give it, and no more."""
    reader, messages = otlp()
    request = reader.Parse(body, messages.ExportLogsServiceRequest())
    assert reader.MessageToDict(request, use_integers_for_enums=True) == json.loads(body)
    return [record for resource in request.resource_logs for scope in resource.scope_logs
            for record in scope.log_records]


@pytest.mark.skipif("http" not in support.MODULES, reason="built without the http sink")
def test_otlp_is_what_its_messages_hold(keytrail, raw_backend, pki):
    receiver = Receiver(raw_backend, "otlp")
    sidecar = keytrail(raw_backend(ok()), {"sinks": [receiver.sink(pki, compression="none")]})
    for path in ("/api/v2/keys", "/nowhere", "/api/v2//keys"):
        sidecar.call("GET", path)
    sidecar.stop()
    lines = support.read_lines(sidecar.trail_dir)
    records = [r for _, request, _ in receiver.requests for r in records_of(request.body)]
    assert [json.loads(r.body.string_value)["trail"] for r in records] == [
        json.loads(line)["trail"] for line in lines]
    severities = {"normal": "INFO", "warning": "WARN", "critical": "FATAL"}
    seen = set()
    for record, line in zip(records, lines):
        event = json.loads(line)
        attributes = {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in record.attributes}
        log, boot, seq, _, digest = identity_of(line, 0)
        assert attributes == {"keytrail.log": log, "keytrail.boot": boot, "keytrail.seq": seq,
                              "keytrail.hash": digest, "keytrail.action": event["action"]}
        number = record.DESCRIPTOR.fields_by_name["severity_number"].enum_type.values_by_number
        assert number[record.severity_number].name == f"SEVERITY_NUMBER_{record.severity_text}"
        assert record.severity_text == severities[event["severity"]]
        when = datetime.datetime.strptime(event["eventTime"], "%Y-%m-%dT%H:%M:%S.%f%z")
        assert record.time_unix_nano // 10**7 == round(when.timestamp() * 100)
        seen.add(event["severity"])
    assert len(seen) > 1
    # What the receiver of the tests answers is an answer, too.
    refusal = receiver.refusal([]).partition(b"\r\n\r\n")[2]
    reader, messages = otlp()
    assert reader.Parse(refusal, messages.ExportLogsServiceResponse()).HasField("partial_success")


@pytest.mark.parametrize("change", [
    ('"severityNumber"', '"severity"'), ('"timeUnixNano":"', '"timeUnixNano":"x'),
    ('"intValue":"1"', '"intValue":1'), ('"stringValue":"keytrail"', '"stringValue":7')])
def test_its_messages_mind(change):
    body = ('{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":'
            '{"stringValue":"keytrail"}}]},"scopeLogs":[{"logRecords":[{"timeUnixNano":"1",'
            '"severityNumber":9,"attributes":[{"key":"n","value":{"intValue":"1"}}]}]}]}]}')
    assert len(records_of(body)) == 1
    with pytest.raises((otlp()[0].ParseError, AssertionError)):
        records_of(body.replace(*change))

"""Every request is named: one event a call, with the action, status, outcome and correlation ID."""

import json
import re
import uuid

import pytest

import http1
from backend import ok
from support import ACCOUNT, INSTANCE, ROUTES, make_token, new_id

# The nine actions of the 2019 documentation and rotate, in every form, in an order that works:
# method, rest of the path, body, action, status.  {c} is a ciphertext of the key.
K = "/api/v2/keys"
DOCUMENTED = [
    ("HEAD", K, None, "kms.secrets.head", 200),
    ("POST", K, {"resources": [{"name": "n"}]}, "kms.secrets.create", 201),
    ("GET", K, None, "kms.secrets.list", 200),
    ("GET", K + "/{id}", None, "kms.secrets.read", 200),
    ("POST", K + "/{id}?action=wrap", {"plaintext": "c2VjcmV0"}, "kms.secrets.wrap", 200),
    ("POST", K + "/{id}/actions/wrap", {"plaintext": "c2VjcmV0"}, "kms.secrets.wrap", 200),
    ("POST", K + "/{id}?action=unwrap", {"ciphertext": "{c}"}, "kms.secrets.unwrap", 200),
    ("POST", K + "/{id}/actions/unwrap", {"ciphertext": "{c}"}, "kms.secrets.unwrap", 200),
    ("POST", K + "/{id}?action=rotate&include_resource=true", None, "kms.secrets.rotate", 204),
    ("POST", K + "/{id}/actions/rotate", None, "kms.secrets.rotate", 204),
    ("PUT", K + "/{id}/policies", {"resources": []}, "kms.policies.write", 200),
    ("GET", K + "/{id}/policies", None, "kms.policies.read", 200),
    ("DELETE", K + "/{id}", None, "kms.secrets.delete", 204),
]


@pytest.fixture
def ciphertext(kms, pki, key):
    with http1.Client(kms.port, pki.client()) as c:
        r = c.request("POST", f"/api/v2/keys/{key}/actions/wrap", kms.headers(),
                      '{"plaintext":"c2VjcmV0"}')
        return json.loads(r.body)["ciphertext"]


def facts(event):
    return (event["action"], event["reason"].get("reasonCode"), event["outcome"],
            event["correlationId"], event["correlationSource"])


def test_the_documented_actions_through_both_forms(keytrail, kms, key, ciphertext):
    sidecar = keytrail()
    expected = []
    with sidecar.client() as c:
        for method, path, body, action, status in DOCUMENTED:
            correlation = new_id()
            text = None if body is None else json.dumps(body).replace("{c}", ciphertext)
            r = c.request(method, path.replace("{id}", key), kms.headers(correlation=correlation),
                          text)
            assert r.status == status, (method, path)
            assert r.get("Correlation-Id") == correlation
            expected.append((action, status, "success", correlation, "echoed"))
    assert [facts(e) for e in sidecar.wait_calls(len(expected))] == expected
    sidecar.stop()
    assert [facts(e) for e in sidecar.calls()] == expected


def set_of_routes():
    return json.loads(ROUTES.read_text())["routes"]


def target_of(route, key):
    path = route["path"].replace("{id}", key).replace("**", "x/y").replace("*", "x")
    path = re.sub(r"{[^}]*}", "crn%3Av1%3A%2Fx" if "registrations" in path else "name-1", path)
    if "query" in route:
        path += "?" + "&".join(f"{k}={v}" for k, v in route["query"].items()) + "&limit=1"
    return path


def test_every_route_of_the_shipped_set(keytrail, kms, key):
    """Whatever the service says to it: one event, named by the route, with what was answered."""
    sidecar = keytrail()
    expected = []
    with sidecar.client() as c:
        for route in set_of_routes():
            method = "PATCH" if route["method"] == "*" else route["method"]
            target, correlation = target_of(route, key), new_id()
            r = c.request(method, target, kms.headers(correlation=correlation),
                          "{}" if method in ("POST", "PUT", "PATCH") else None)
            expected.append((route["action"], r.status,
                             "success" if r.status < 300 else "failure", correlation, "echoed"))
            if r.get("Connection") == "close":
                c.close()
                c.__init__(sidecar.port, sidecar.pki.client())
    seen = [facts(e) for e in sidecar.wait_calls(len(expected))]
    assert seen == expected
    assert len({e[0] for e in expected}) > 40
    sidecar.stop()
    assert [facts(e) for e in sidecar.calls()] == expected


def test_the_vocabulary_of_2019(keytrail, kms):
    sidecar = keytrail(config={"audit": {"vocabulary": "2019"}})
    sidecar.call("GET", "/api/v2/import_token", kms.headers())
    sidecar.call("GET", "/api/v2/key_rings", kms.headers())
    assert [e["action"] for e in sidecar.wait_calls(2)] == ["kms.importtoken.read",
                                                            "kms.keyrings.list"]


@pytest.mark.parametrize("asked, answered, recorded, source", [
    ("own", None, "own", "echoed"),
    (None, None, "service", "service"),
    ("own", "6a1b0f0e-8d5a-4a64-9d0c-1f3f1f0f7a11", "6a1b0f0e-8d5a-4a64-9d0c-1f3f1f0f7a11",
     "service"),
    ("own", "none", "own", "request"),
    ("not a uuid at all", "none", "[redacted]", "request"),
    ("own", "no uuid either", None, None),
])
def test_where_the_correlation_id_comes_from(keytrail, kms, asked, answered, recorded, source):
    sidecar = keytrail()
    own = new_id()
    fields = kms.headers()
    if asked:
        fields["Correlation-Id"] = own if asked == "own" else asked
    if answered:
        fields["X-Test-Correlation"] = answered
    r = sidecar.call("GET", "/api/v2/keys", fields)
    event, = sidecar.wait_calls(1)
    if source:
        assert event["correlationSource"] == source
    want = {"own": own, "service": r.get("Correlation-Id")}.get(recorded, recorded)
    if want:
        assert event["correlationId"] == want
    else:
        assert "no uuid either" not in json.dumps(event)
    came = source in ("echoed", "service")
    if source:
        assert ("responseHeader" in event) == came
    if came:
        assert event["responseHeader"]["content"]["correlationId"] == event["correlationId"]


def test_the_whole_event(keytrail, kms, key):
    """Each member of the table of the event, as a reader of the documentation finds it."""
    sidecar = keytrail()
    correlation = new_id()
    sidecar.call("POST", f"/api/v2/keys/{key}/actions/wrap",
                 kms.headers(correlation=correlation, X_Kms_Key_Ring="ring-1",
                             User_Agent="curl/7.88.1 (x; y) OpenSSL/3.0"), '{"plaintext":""}')
    event = sidecar.event(correlation)
    crn = f"crn:v1:bluemix:public:kms:us-south:a/{ACCOUNT}:{INSTANCE}::"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d\d\+0000", event.pop("eventTime"))
    assert uuid.UUID(event.pop("id")).version == 7
    trail = event.pop("trail")
    assert event.pop("observer") == {"id": "keytrail/" + trail["log"], "name": "ActivityTracker"}
    assert event == {
        "action": "kms.secrets.wrap", "correlationId": correlation, "correlationSource": "echoed",
        "dataEvent": True,
        "initiator": {"credential": {"type": "apikey", "verifiedBy": "service"},
                      "host": {"address": "127.0.0.1", "addressType": "IPv4",
                               "agent": "curl/7.88.1 OpenSSL/3.0"},
                      "id": "IBMid-110000P9W2", "name": "",
                      "typeURI": "service/security/account/user"},
        "logSourceCRN": crn, "message": "Key Protect: wrap secret", "outcome": "success",
        "reason": {"reasonCode": 200, "reasonType": "OK"},
        "requestData": {"instanceId": INSTANCE, "keyRingId": "ring-1", "method": "POST",
                        "path": "/api/v2/keys/{id}/actions/wrap"},
        "responseHeader": {"content": {"correlationId": correlation}},
        "saveServiceCopy": True, "severity": "normal",
        "target": {"id": crn, "name": "", "typeURI": "kms/secrets"},
    }


def test_a_failure_says_so(keytrail, kms):
    sidecar = keytrail()
    correlation = new_id()
    r = sidecar.call("GET", f"/api/v2/keys/{new_id()}", kms.headers(correlation=correlation))
    assert r.status == 404
    event = sidecar.event(correlation)
    assert event["message"] == "Key Protect: read secret -failure"
    assert event["reason"] == {"reasonCode": 404, "reasonForFailure": "status 404",
                               "reasonType": "Not Found"}


# ---- who asked ----

@pytest.mark.parametrize("label, claims, expected", [
    ("an API key", {}, {"id": "IBMid-110000P9W2", "credential.type": "apikey",
                        "typeURI": "service/security/account/user"}),
    ("a service id", {"iam_id": "iam-ServiceId-1f", "sub": "ServiceId-1f",
                      "sub_type": "ServiceId"},
     {"id": "iam-ServiceId-1f", "typeURI": "service/security/account/serviceid"}),
    ("a password", {"grant_type": "password"}, {"credential.type": "user"}),
    ("on behalf of", {"authn": {"iam_id": "IBMid-2700", "name": "b", "sub": "b"}},
     {"authnId": "IBMid-2700"}),
])
def test_the_initiator(keytrail, kms, label, claims, expected):
    sidecar = keytrail()
    sidecar.call("GET", "/api/v2/keys", kms.headers(token=kms.token(**claims)))
    event, = sidecar.wait_calls(1)
    initiator = event["initiator"]
    initiator["credential.type"] = initiator["credential"]["type"]
    assert {k: initiator[k] for k in expected} == expected, label


@pytest.mark.parametrize("status", ["401 Unauthorized", "400 Bad Request", "403 Forbidden",
                                    "404 Not Found", "500 Internal Server Error", "302 Found"])
def test_nobody_writes_a_victims_name(keytrail, raw_backend, status):
    """Whatever but 2xx is the answer to a token that anybody may have made."""
    sidecar = keytrail(raw_backend(ok(status=status)), {"audit": {"identity_name": "plain"}})
    forged = make_token(b"another secret", iam_id="IBMid-VICTIM", sub="victim@example.com",
                        authn={"iam_id": "IBMid-VICTIM"})
    r = sidecar.call("GET", "/api/v2/keys", {"Authorization": f"Bearer {forged}"})
    assert r.status == int(status[:3])
    event, = sidecar.wait_calls(1)
    initiator = event["initiator"]
    assert initiator["id"] == ""
    assert initiator["name"] == ("unauthenticated" if r.status == 401 else "unverified")
    assert initiator["claimed"] == {"id": "IBMid-VICTIM", "name": "victim@example.com"}
    assert initiator["credential"]["verifiedBy"] == "none"
    assert "victim" not in json.dumps({k: v for k, v in initiator.items()
                                       if k != "claimed"}).lower()


def test_a_forged_token_at_the_key_service(keytrail, kms):
    sidecar = keytrail()
    forged = make_token(b"another secret", iam_id="IBMid-VICTIM")
    assert sidecar.call("GET", "/api/v2/keys", kms.headers(token=forged)).status == 401
    event, = sidecar.wait_calls(1)
    assert event["severity"] == "critical" and event["initiator"]["id"] == ""


@pytest.mark.parametrize("header", ["Bearer not-a-token", "Basic dXNlcjpwYXNz", "Bearer a.b.c"])
def test_an_unparsable_token(keytrail, raw_backend, header):
    from backend import ok
    sidecar = keytrail(raw_backend(ok()))
    sidecar.call("GET", "/api/v2/keys", {"Authorization": header})
    event, = sidecar.wait_calls(1)
    assert event["initiator"]["name"] == "unparsable" and event["initiator"]["id"] == ""


@pytest.mark.parametrize("names, want", [("plain", "alice@example.com"), ("omit", "")])
def test_names_only_as_the_configuration_says(keytrail, kms, names, want):
    sidecar = keytrail(config={"audit": {"identity_name": names}})
    sidecar.call("GET", "/api/v2/keys", kms.headers())
    event, = sidecar.wait_calls(1)
    assert event["initiator"]["name"] == want


@pytest.mark.parametrize("how", ["omit", "hmac", "plain"])
def test_key_ids_only_as_the_configuration_says(keytrail, kms, key, tmp_path, how):
    secret = tmp_path / "hmac"
    secret.write_text("11" * 32)
    secret.chmod(0o600)
    audit = {"key_ids": how}
    if how == "hmac":
        audit["hmac_key"] = {"file": str(secret)}
    sidecar = keytrail(config={"audit": audit})
    sidecar.call("GET", f"/api/v2/keys/{key}", kms.headers())
    sidecar.call("GET", f"/api/v2/keys/{key}/policies", kms.headers())
    first, second = sidecar.wait_calls(2)
    assert (key in json.dumps(first)) == (how == "plain")
    if how == "plain":
        assert first["target"]["id"].endswith(f":{INSTANCE}:key:{key}")
    if how == "hmac":
        assert re.fullmatch(r"h1:1:[A-Z2-7a-z]{26}", first["target"]["keyRef"])
        assert first["target"]["keyRef"] == second["target"]["keyRef"]


def test_an_instance_is_believed_once_it_is_verified(keytrail, kms):
    sidecar = keytrail()
    sidecar.call("GET", "/api/v2/keys", kms.headers(token="x.y.z"))
    event, = sidecar.wait_calls(1)
    assert event["target"]["id"].startswith("crn:v1:bluemix:public:kms:us-south:a/:")
    assert INSTANCE not in event["target"]["id"]
    assert event["requestData"]["instanceId"] == INSTANCE

"""The stand-in key service is honest: what the other tests rely on."""

import base64
import json
import os

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import http1
from support import INSTANCE, new_id


@pytest.fixture
def service(kms, pki):
    """call(method, target, body=..., **headers) -> (answer, parsed body)"""
    with http1.Client(kms.port, pki.client()) as c:
        def call(method, target, body=None, **headers):
            r = c.request(method, target, kms.headers(**headers),
                          None if body is None else json.dumps(body))
            return r, json.loads(r.body) if r.body else None
        yield call


def act(service, key, action, body=None, form="new"):
    target = f"/api/v2/keys/{key}?action={action}" if form == "old" else \
        f"/api/v2/keys/{key}/actions/{action}"
    return service("POST", target, body)


@pytest.mark.parametrize("form", ["old", "new"])
def test_unwrap_gives_back_what_was_wrapped_also_after_a_rotation(service, key, form):
    plain = base64.b64encode(os.urandom(32)).decode()
    r, wrapped = act(service, key, "wrap", {"plaintext": plain, "aad": ["a", "bc"]}, form)
    assert r.status == 200
    assert act(service, key, "rotate", None, form)[0].status == 204
    r, unwrapped = act(service, key, "unwrap",
                       {"ciphertext": wrapped["ciphertext"], "aad": ["a", "bc"]}, form)
    assert r.status == 200 and unwrapped["plaintext"] == plain
    r, again = act(service, key, "rewrap",
                   {"ciphertext": wrapped["ciphertext"], "aad": ["a", "bc"]}, form)
    assert r.status == 200 and again["ciphertext"] != wrapped["ciphertext"]
    r, unwrapped = act(service, key, "unwrap",
                       {"ciphertext": again["ciphertext"], "aad": ["a", "bc"]}, form)
    assert unwrapped["plaintext"] == plain and "rewrappedPlaintext" not in unwrapped


def test_wrap_without_plaintext_makes_one(service, key):
    _, wrapped = act(service, key, "wrap", {})
    _, unwrapped = act(service, key, "unwrap", {"ciphertext": wrapped["ciphertext"]})
    assert unwrapped["plaintext"] == wrapped["plaintext"]
    assert len(base64.b64decode(wrapped["plaintext"])) == 32


def tampered(ciphertext):
    envelope = json.loads(base64.b64decode(ciphertext))
    sealed = bytearray(base64.b64decode(envelope["ciphertext"]))
    sealed[0] ^= 1
    envelope["ciphertext"] = base64.b64encode(sealed).decode()
    return base64.b64encode(json.dumps(envelope).encode()).decode()


@pytest.mark.parametrize("label, change", [
    ("another aad", lambda c: {"ciphertext": c, "aad": ["ab", "c"]}),
    ("no aad", lambda c: {"ciphertext": c}),
    ("a flipped bit", lambda c: {"ciphertext": tampered(c), "aad": ["a", "bc"]}),
    ("no envelope", lambda c: {"ciphertext": "AAAA", "aad": ["a", "bc"]}),
])
def test_unwrap_refuses(service, key, label, change):
    _, wrapped = act(service, key, "wrap", {"plaintext": "c2VjcmV0", "aad": ["a", "bc"]})
    r, answer = act(service, key, "unwrap", change(wrapped["ciphertext"]))
    assert r.status == 422, label
    assert answer["resources"][0]["reasons"][0]["code"] == "UNPROCESSABLE_CIPHERTEXT_ERR"


def test_another_key_does_not_unwrap(service, key):
    _, wrapped = act(service, key, "wrap", {"plaintext": "c2VjcmV0"})
    _, other = service("POST", "/api/v2/keys", {"resources": [{"name": "other"}]})
    r, _ = act(service, other["resources"][0]["id"], "unwrap",
               {"ciphertext": wrapped["ciphertext"]})
    assert r.status == 422


@pytest.mark.parametrize("label, claims, secret, status", [
    ("an expired token", {"exp": 1}, None, 401),
    ("another secret", {}, b"x" * 32, 401),
    ("no role", {"role": "none"}, None, 403),
])
def test_tokens_are_checked(kms, pki, label, claims, secret, status):
    from support import make_token
    token = make_token(secret or kms.secret, **claims)
    with http1.Client(kms.port, pki.client()) as c:
        r = c.request("GET", "/api/v2/keys", kms.headers(token=token))
    assert r.status == status, label
    assert ("reasons" in json.loads(r.body)["resources"][0]) == (status == 403)


def test_a_request_without_token_or_instance_is_refused(kms, pki):
    with http1.Client(kms.port, pki.client()) as c:
        assert c.request("GET", "/api/v2/keys", {"Bluemix-Instance": INSTANCE}).status == 401
        assert c.request("GET", "/api/v2/keys",
                         {"Authorization": "Bearer " + kms.token()}).status == 400


def test_the_correlation_id_is_echoed_or_made(service):
    correlation = new_id()
    assert service("GET", "/api/v2/keys", correlation=correlation)[0].get(
        "Correlation-Id") == correlation
    made = service("GET", "/api/v2/keys", correlation="not a uuid")[0].get("Correlation-Id")
    assert len(made) == 36 and made[14] == "4"


def test_states_of_a_key(service, key):
    steps = [("POST", "/actions/disable", 204), ("POST", "/actions/disable", 409),
             ("POST", "/actions/wrap", 409), ("POST", "/actions/enable", 204),
             ("DELETE", "", 204), ("DELETE", "", 410), ("GET", "", 410),
             ("GET", "/metadata", 200), ("POST", "/restore", 201), ("GET", "", 200),
             ("DELETE", "/purge", 409), ("DELETE", "", 204), ("DELETE", "/purge", 204),
             ("GET", "/metadata", 404)]
    for method, rest, status in steps:
        r, _ = service(method, f"/api/v2/keys/{key}{rest}")
        assert r.status == status, (method, rest)


def test_prefer_decides_whether_a_delete_answers_with_the_key(service, key):
    r, answer = service("DELETE", f"/api/v2/keys/{key}", Prefer="return=representation")
    assert r.status == 200 and answer["resources"][0]["deleted"] is True


def test_lists_are_chunked_and_counted(service, key):
    r, answer = service("GET", "/api/v2/keys?limit=1")
    assert r.get("Transfer-Encoding") == "chunked" and len(answer["resources"]) == 1
    r, _ = service("HEAD", "/api/v2/keys")
    assert int(r.get("Key-Total")) >= 1


def test_aliases_policies_and_rings(service, key):
    alias = "alias-" + key[:8]
    assert service("POST", f"/api/v2/keys/{key}/aliases/{alias}")[0].status == 201
    assert service("GET", f"/api/v2/keys/{alias}")[1]["resources"][0]["id"] == key
    assert service("DELETE", f"/api/v2/keys/{key}/aliases/{alias}")[0].status == 204
    assert service("GET", f"/api/v2/keys/{alias}")[0].status == 404
    policy = {"type": "application/vnd.ibm.kms.policy+json", "rotation": {"interval_month": 3}}
    assert service("PUT", f"/api/v2/keys/{key}/policies", {"resources": [policy]})[0].status == 200
    assert service("GET", f"/api/v2/keys/{key}/policies")[1]["resources"] == [policy]
    ring = "ring-" + key[:8]
    assert service("POST", f"/api/v2/key_rings/{ring}")[0].status == 201
    assert service("POST", f"/api/v2/key_rings/{ring}")[0].status == 409
    assert {"id": ring} in service("GET", "/api/v2/key_rings")[1]["resources"]
    assert service("DELETE", f"/api/v2/key_rings/{ring}")[0].status == 204


def test_an_import_token_opens_an_encrypted_import(service):
    _, token = service("POST", "/api/v2/import_token")
    public = serialization.load_pem_public_key(base64.b64decode(token["payload"]))
    material, iv = os.urandom(32), os.urandom(12)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    given = {"name": "imported", "extractable": False,
             "payload": base64.b64encode(public.encrypt(material, oaep)).decode(),
             "encryptedNonce": base64.b64encode(AESGCM(material).encrypt(
                 iv, base64.b64decode(token["nonce"]), None)).decode(),
             "iv": base64.b64encode(iv).decode()}
    r, answer = service("POST", "/api/v2/keys", {"resources": [given]})
    assert r.status == 201 and answer["resources"][0]["imported"] is True
    given["encryptedNonce"] = base64.b64encode(os.urandom(32)).decode()
    assert service("POST", "/api/v2/keys", {"resources": [given]})[0].status == 400


def test_a_standard_key_gives_its_payload_and_cannot_wrap(service):
    payload = base64.b64encode(b"a standard key's material").decode()
    _, answer = service("POST", "/api/v2/keys", {"resources": [
        {"name": "s", "extractable": True, "payload": payload}]})
    key = answer["resources"][0]["id"]
    assert service("GET", f"/api/v2/keys/{key}")[1]["resources"][0]["payload"] == payload
    assert act(service, key, "wrap", {})[0].status == 400


def test_the_log_tells_what_came(kms, service):
    correlation = new_id()
    service("POST", "/api/v2/keys/x%2Fy?action=wrap", {"plaintext": ""}, correlation=correlation)
    seen, = kms.requests(correlation)
    assert seen["target"] == "/api/v2/keys/x%2Fy?action=wrap" and seen["status"] == 404
    assert seen["bodyLength"] == 17 and seen["names"][0] == "Host"

"""Bad input at the start: one line that says what and where, and the exit code for it."""

import socket

import pytest

from backend import ok
from support import BUILD, PATIENCE, Keytrail, segments

FAILED, BAD_CONFIGURATION = 1, 78


def start_in_vain(sidecar):
    """Exit code and the one line."""
    sidecar.spawn()
    code = sidecar.process.wait(PATIENCE)
    sidecar.process = None
    lines = [line for line in sidecar.stderr().strip().splitlines() if not line.startswith("{")]
    assert len(lines) == 1, lines
    return code, lines[0]


@pytest.mark.parametrize("label, text, words", [
    ("no JSON", '{ "listen": \n  oops }', ["routes.json:2:3"]),
    ("an empty file", "", ["routes.json:1:1"]),
    ("a member twice", '{\n "workers": 1,\n "workers": 2 }', ["routes.json:3:2", "workers"]),
    ("nothing in it", "{}", ["routes.json:1:1", '"listen"', "required"]),
])
def test_a_file_that_is_no_configuration(tmp_path, pki, label, text, words):
    code, line = start_in_vain(Keytrail(tmp_path / "k", pki, None, raw=text))
    assert code == BAD_CONFIGURATION, label
    for word in words:
        assert word in line


@pytest.mark.parametrize("over, words", [
    ({"wokers": 2}, ['"wokers"', '"workers"']),
    ({"workers": "two"}, ['"workers"', "number"]),
    ({"timeouts": {"answer": "10 parsecs"}}, ["10 parsecs"]),
    ({"listen": {"address": "localhost"}}, ["listen.address", "host:port"]),
    ({"upstream": {"address": "127.0.0.1:0"}}, ["port"]),
    ({"include": ["no-such-set.json"]}, ["no-such-set.json"]),
    ({"routes": [{"action": "a.b.c", "method": "PSOT", "path": "/x"}]}, ["PSOT", "POST"]),
    ({"sinks": [{"name": "x", "type": "flie"}]}, ["flie", "file"]),
    ({"listen": {"tls": {"certificate": "/nonexistent/cert.pem"}}}, ["/nonexistent/cert.pem"]),
    ({"upstream": {"tls": {"ca": "/nonexistent/ca.pem"}}}, ["/nonexistent/ca.pem"]),
    ({"admin": {"address": "0.0.0.0:0", "token": None}}, ["admin", "token"]),
    ({"listen": {"address": "${KEYTRAIL_NO_SUCH_NAME}"}}, ["KEYTRAIL_NO_SUCH_NAME"]),
], ids=lambda v: str(v)[:40])
def test_a_member_that_is_wrong(keytrail, raw_backend, over, words):
    code, line = start_in_vain(keytrail(raw_backend(ok()), over, start=False))
    assert code == BAD_CONFIGURATION
    for word in words:
        assert word in line


@pytest.mark.parametrize("which, why", [("nowhere", "No such file or directory"),
                                        ("version", "made for keytrail 0.0.1")])
def test_a_sink_without_its_module(keytrail, raw_backend, which, why):
    code, line = start_in_vain(keytrail(
        raw_backend(ok()), {"sinks": [{"name": "far", "type": "http", "url": "https://a"}]}, start=False,
        environment={"KEYTRAIL_MODULES_DIR": str(BUILD / "modules" / which)}))
    assert code == BAD_CONFIGURATION
    assert "sink far: " in line and "sink_http.so" in line and why in line


def test_a_key_that_does_not_fit_its_certificate(keytrail, raw_backend, pki):
    code, line = start_in_vain(keytrail(raw_backend(ok()), {"listen": {"tls": {
        "key": pki["kms.key"]}}}, start=False))
    assert code == BAD_CONFIGURATION and pki["kms.key"] in line


@pytest.mark.parametrize("listener", ["listen", "metrics", "admin"])
def test_a_port_in_use(keytrail, raw_backend, listener):
    with socket.create_server(("127.0.0.1", 0)) as s:
        address = f"127.0.0.1:{s.getsockname()[1]}"
        code, line = start_in_vain(keytrail(raw_backend(ok()), {listener: {"address": address}},
                                            start=False))
    assert code == FAILED and address in line and "in use" in line


def test_a_file_that_is_not_there(tmp_path, pki):
    sidecar = Keytrail(tmp_path / "k", pki, None, raw="")
    sidecar.file.unlink()
    code, line = start_in_vain(sidecar)
    assert code == BAD_CONFIGURATION and str(sidecar.file) in line


def test_the_environment_is_put_in_and_never_shown(keytrail, raw_backend, pki):
    backend = raw_backend(ok())
    sidecar = keytrail(backend, {"upstream": {"address": "${KMS_HOST}:" + str(backend.port)}},
                       environment={"KMS_HOST": "127.0.0.1"})
    assert sidecar.call("GET", "/api/v2/keys").status == 200
    code, line = start_in_vain(keytrail(backend, {"upstream": {"address": "${KMS_HOST}"}},
                                        environment={"KMS_HOST": "s3cr3t value"}, start=False))
    assert code == BAD_CONFIGURATION and "s3cr3t" not in line and "KMS_HOST" in line


def test_a_dead_key_service_is_no_reason_not_to_start(keytrail):
    """Calls get their 502; it may come later."""
    sidecar = keytrail(config={"upstream": {"address": "127.0.0.1:9"}})
    assert sidecar.call("GET", "/api/v2/keys").status == 502


def test_a_start_in_vain_hides_no_damage(keytrail, raw_backend):
    backend = raw_backend(ok())
    sidecar = keytrail(backend)
    for _ in range(5):
        sidecar.call("GET", "/api/v2/keys")
    sidecar.stop()
    segment = segments(sidecar.trail_dir)[-1]
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-40] + b"?" + whole[-39:])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        other = keytrail(backend, {
            "listen": {"address": "127.0.0.1:%d" % taken.getsockname()[1]},
            "audit": {"trail": str(sidecar.trail_dir)}}, start=False)
        code, line = start_in_vain(other)
        assert code == FAILED and "in use" in line
    segment.write_bytes(whole)  # what was found is told all the same
    sidecar.start()
    last = whole.count(b"\n")
    corrupt = sidecar.wait_own("keytrail.corrupt")[0]["details"]
    assert (corrupt["first"], corrupt["last"]) == (last, last)
    assert sidecar.own("keytrail.start")[-1]["details"]["clean"] is True

"""The subcommands that answer and end: check, explain, routes, version; and how the program is used."""

import json
import os
import re
import subprocess
from pathlib import Path

import jsonschema
import pytest

import support

SET = support.ROUTES
UUID = "76c2c9cb-9095-5a24-811b-0ef4b24ac4d5"


def keytrail(*arguments, cwd=None, stderr=subprocess.PIPE, **environment):
    done = subprocess.run([support.KEYTRAIL, *map(str, arguments)], stdout=subprocess.PIPE,
                          stderr=stderr, text=True, cwd=cwd, timeout=support.PATIENCE,
                          env={**os.environ, "KEYTRAIL_ROUTES_DIR": str(SET.parent), **environment})
    assert not support.REPORT.search(done.stderr or done.stdout), done.stderr or done.stdout
    return done


def base(**over):
    return support.merge({"listen": {"address": "127.0.0.1:0", "tls": None},
                          "upstream": {"address": "127.0.0.1:9", "tls": None},
                          "audit": {"trail": "trail", "sign": None},
                          "include": ["key-protect.json"]}, over)


@pytest.fixture
def file(tmp_path):
    """file(config): a routes file in a folder of its own, with one member a line."""
    def make(config):
        path = tmp_path / "routes.json"
        path.write_text(config if isinstance(config, str) else json.dumps(config, indent=1))
        return path
    return make


def explain(path, method, url, *headers):
    arguments = [a for h in headers for a in ("-H", h)]
    done = keytrail("explain", path, method, url, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# ---- usage ----


def test_no_command_shows_the_usage():
    done = keytrail()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: keytrail COMMAND")


def test_help_is_no_error():
    done = keytrail("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for command in ("run [FILE]", "check [FILE] [--environment]", "explain [FILE] METHOD URL [",
                    "routes --schema", "reference (commands | routes |", "tail DIR", "version",
                    "degrade [FILE | --socket PATH] --for TIME --reason TEXT", "hold list [FILE |"):
        assert f"  keytrail {command}" in done.stdout


def test_help_of_a_command_tells_what_it_takes():
    for asked in ("--help", "-h", "help"):
        text = keytrail("hold", asked).stdout
        assert "\n  keytrail hold remove NAME [FILE | --socket PATH]\n" in text
        assert re.findall(r"^  (--\S+)", text, re.M) == ["--from", "--to", "--socket"]
    assert "\n  -f, --follow\n" in keytrail("tail", "--help").stdout


@pytest.mark.parametrize("arguments, message", [
    (["chek"], 'keytrail: no command "chek"; did you mean "check"?'),
    (["frobnicate"], 'keytrail: no command "frobnicate"; "keytrail help" lists them'),
    (["check"], "keytrail check: wanted FILE"),
    (["check", "a", "b"], 'keytrail check: what is "b"?'),
    (["check", "a", "--enviroment"],
     'keytrail check: no option "--enviroment"; did you mean "--environment"?'),
    (["check", "a", "--environment=yes"], 'keytrail check: no option "--environment=yes"; '
     'did you mean "--environment"?'),
    (["explain", "a", "GET"], "keytrail explain: wanted URL"),
    (["explain", "a", "GET", "/", "/"], 'keytrail explain: what is "/"?'),
    (["explain", "a", "GET", "/", "-H"], "keytrail explain: -H wants 'NAME: VALUE'"),
    (["explain", "a", "GET", "/", "--jsn"],
     'keytrail explain: no option "--jsn"; did you mean "--json"?'),
    (["routes"], "keytrail routes: wanted FILE"),
    (["routes", "--schema", "--json"], "keytrail routes: --json does not go with --schema"),
    (["reference"], "keytrail reference: wanted commands | routes | metrics | events | formats | refusals"),
    (["reference", "rotes"], 'keytrail reference: no word "rotes"; did you mean "routes"?'),
    (["reference", "routes", "metrics"], 'keytrail reference: what is "metrics"?'),
    (["tail", "a", "-n5", "--lines=6"], "keytrail tail: --lines is given twice"),
    (["tail", "a", "-n", "x"], "keytrail tail: -n wants a number from 0 to 1000000"),
    (["tail", "a", "-nx"], "keytrail tail: -n wants a number from 0 to 1000000"),
    (["degrade", "a"], "keytrail degrade: wanted --for TIME"),
    (["degrade", "a", "--for", "1s"], "keytrail degrade: wanted --reason TEXT"),
    (["degrade", "--end"], "keytrail degrade: wanted FILE | --socket PATH"),
    (["degrade", "--end", "--for=1s"], "keytrail degrade: --for does not go with --end"),
    (["degrade", "--end", "a", "--socket", "b"],
     "keytrail degrade: FILE does not go with --socket"),
    (["hold"], "keytrail hold: wanted add"),
    (["hold", "lst", "a"], 'keytrail hold: no word "lst"; did you mean "list"?'),
    (["hold", "list", "a", "b"], 'keytrail hold: what is "b"?'),
    (["hold", "list", "a", "--from", "1"], "keytrail hold: list does not go with --from"),
    (["verify", "a"], "keytrail verify: wanted --key VKEY|FILE"),
    (["verify", "--proof", "a", "--key", "b"], "keytrail verify: wanted --line FILE"),
    (["verify", "--proof", "a", "--since", "b"],
     "keytrail verify: --since does not go with --proof"),
    (["version", "x"], 'keytrail version: what is "x"?'),
])
def test_wrong_usage_says_what_is_right(arguments, message):
    done = keytrail(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[0] == message


def test_the_environment_names_the_routes_file(file, tmp_path):
    path = file(base())
    named = {"KEYTRAIL_CONFIG": str(path)}
    for command in (["check"], ["routes"], ["explain", "GET", "/api/v2/keys"]):
        done = keytrail(*command, **named)
        assert (done.returncode, done.stderr) == (0, ""), command
        other = keytrail(command[0], tmp_path / "none.json", *command[1:], **named)
        assert other.stderr == f"{tmp_path}/none.json: No such file or directory\n"
    assert keytrail("check", KEYTRAIL_CONFIG="").returncode == 2
    # The socket is another way to say which sidecar.
    for ways, said in ((["--socket", "none"], "none: connect: No such file or directory\n"),
                       ([], f'{path}: there is no "admin.socket"\n')):
        assert keytrail("hold", "list", *ways, **named).stderr == said


def test_version_names_what_it_is_built_with():
    lines = dict(line.split(" ", 1) for line in keytrail("version").stdout.splitlines())
    assert lines["keytrail"] == (support.ROOT / "VERSION").read_text().strip()
    assert re.match(r"(gcc|clang) \d+\.", lines["compiler"])
    assert re.match(r"3\.\d+\.\d+", lines["OpenSSL"])
    assert re.match(r"2\.1\.", lines["libevent"])
    assert re.match(r"\d+\.\d+\.\d+$", lines["llhttp"])
    assert keytrail("--version").stdout == keytrail("version").stdout


# ---- check ----


def test_check_says_what_is_in_a_good_file(file):
    path = file(base())
    for command in ("check", "-t"):
        done = keytrail(command, path)
        assert (done.returncode, done.stderr) == (0, "")
        first, digest = done.stdout.splitlines()
        assert first == f"{path} is good: 76 routes, 53 actions, 0 sinks"
        assert re.fullmatch("  digest [0-9a-f]{64}", digest)


@pytest.mark.parametrize("text, message", [
    ('{\n "listn": {}\n}', '2:2: unknown member "listn" in the file; did you mean "listen"?'),
    ('{\n "listen": {},\n "listen": {}\n}', '3:2: "listen" is given twice; the first is at 2:2'),
    ('{}', '1:1: the object here has no "listen"; it is required'),
])
def test_check_points_at_what_is_wrong(file, text, message):
    path = file(text)
    done = keytrail("check", path)
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == f"{path}:{message}\n"


@pytest.mark.parametrize("route, line, message", [
    ({"action": "kms.x", "method": "PSOT", "path": "/x"}, '"PSOT"',
     'unknown method "PSOT"; did you mean "POST"?'),
    ({"action": "kms.x", "method": "POST", "path": "/x", "guarantee": "durabel"}, '"durabel"',
     'unknown guarantee "durabel"; did you mean "durable"?'),
    ({"action": "Kms", "method": "POST", "path": "/x"}, '"Kms"', '"action" is "Kms"; an action is '
     "words of lower-case letters, digits and '-', joined by '.', like \"kms.secrets.unwrap\""),
    ({"action": "kms.x", "method": "POST", "path": "x"}, '"x"',
     '"path" is "x"; a path begins with \'/\''),
])
def test_check_points_into_routes(file, route, line, message):
    path = file(base(routes=[route]))
    lines = path.read_text().splitlines()
    number = next(i for i, text in enumerate(lines, 1) if line in text)
    column = lines[number - 1].index(line) + 1
    done = keytrail("check", path)
    assert done.returncode == 78
    assert done.stderr == f"{path}:{number}:{column}: {message}\n"


def test_check_names_both_places_of_a_clash(tmp_path, file):
    route = {"action": "a.b", "method": "GET", "path": "/a/{x}"}
    other = {"action": "a.c", "method": "GET", "path": "/a/{y}"}
    (tmp_path / "mine.json").write_text(
        json.dumps({"set": "mine", "default": "a.default", "routes": [route, other]}))
    done = keytrail("check", file(base(include=["mine.json"])))
    assert done.returncode == 78
    assert re.fullmatch(rf"{tmp_path}/mine.json:1:\d+: GET /a/\{{y\}} \(a.c\) fits the same "
                        rf"requests as GET /a/\{{x\}} \(a.b\) at {tmp_path}/mine.json:1:\d+\n",
                        done.stderr)


def test_errors_show_the_name_of_a_variable_and_never_its_value(file):
    path = file(base(service={"region": "${KT_REGION}"}))
    done = keytrail("check", path)
    assert done.returncode == 78
    assert done.stderr.endswith(": the environment has no variable KT_REGION\n")
    done = keytrail("check", path, KT_REGION="CANARY IN CAPITALS")
    assert done.returncode == 78
    assert "${KT_REGION}" in done.stderr and "CANARY" not in done.stderr
    assert keytrail("check", path, KT_REGION="us-south").returncode == 0


def test_a_missing_file_is_a_bad_configuration(tmp_path):
    done = keytrail("check", tmp_path / "none.json")
    assert done.returncode == 78
    assert done.stderr == f"{tmp_path}/none.json: No such file or directory\n"


# ---- check --environment ----


def secured(pki, **over):
    return base(listen={"tls": {"certificate": pki["server.pem"], "key": pki["server.key"]}},
                upstream={"tls": {"ca": pki["ca.pem"]}}, **over)


def test_the_environment_of_a_good_file(file, pki, tmp_path):
    path = file(secured(pki, sinks=[{"name": "out", "type": "file", "path": "events.jsonl"}]))
    done = keytrail("check", path, "--environment")
    assert (done.returncode, done.stderr) == (0, "")
    for found in (f"{pki['server.pem']}: valid until ",
                  f"{pki['ca.pem']}: valid until ", "127.0.0.1 port 0 is free",
                  "1 address of the key service can be resolved", f"{tmp_path}/trail will be made",
                  "1 sink file can be written"):
        assert f"\n  {found}" in done.stdout


@pytest.mark.parametrize("listen, message", [
    ({"certificate": "none.pem"}, "{folder}/none.pem: cannot read the certificate: No such file or directory"),
    ({"key": "none.key"}, "{folder}/none.key: cannot read the private key: No such file or directory"),
    ({"certificate": "junk"}, "{folder}/junk: cannot use as a certificate chain in PEM: no start line"),
    ({"key": "junk"}, "{folder}/junk: cannot use as an unencrypted private key in PEM: unsupported"),
    ({"key": "kms.key"}, "{folder}/kms.key: is not the private key of the certificate {pki}/server.pem"),
    ({"client_ca": "junk"}, "{folder}/junk: cannot use as CA certificates in PEM: no certificate or crl found"),
    ({"client_ca": "ca.pem", "client_crl": "junk"}, "{folder}/junk: cannot use as revocation lists in PEM: no start line"),
    ({"ocsp": "junk"}, "{folder}/junk: cannot use as an OCSP response in DER: not enough data"),
    ({"certificates": [{"certificate": "client.pem", "key": "client.key"}]},
     "{folder}/client.pem: the certificate has no DNS name to be asked for by"),
])
def test_certificates_and_keys_that_do_not_fit(file, pki, tmp_path, listen, message):
    (tmp_path / "junk").write_text("no PEM\n")
    for name in ("kms.key", "client.key", "client.pem", "ca.pem"):
        (tmp_path / name).write_bytes((pki.dir / name).read_bytes())
    done = keytrail("check", file(support.merge(secured(pki), {"listen": {"tls": listen}})),
                    "--environment")
    assert done.returncode == 78
    assert done.stderr == "listen.tls: " + message.format(folder=tmp_path, pki=pki.dir) + "\n"


def test_an_expired_certificate_is_told(file, pki):
    name = pki.issue("expired", days_from=-30, days_to=-1)
    done = keytrail("check", "--environment", file(support.merge(secured(pki), {
        "listen": {"tls": {"certificate": pki[f"{name}.pem"], "key": pki[f"{name}.key"]}}})))
    assert done.returncode == 78
    assert f"{pki[f'{name}.pem']}: was valid until " in done.stderr


def test_what_was_found_before_an_error_is_printed_before_it(file, pki):
    name = pki.issue("expired", dns="expired.example", days_from=-30, days_to=-1)
    path = file(support.merge(secured(pki), {"listen": {"tls": {"certificates": [
        {"certificate": pki[f"{name}.pem"], "key": pki[f"{name}.key"]}]}}}))
    printed = keytrail("check", "--environment", path, stderr=subprocess.STDOUT).stdout
    assert re.search(r"/server.pem: valid until .*/expired.pem: was valid until ", printed,
                     re.DOTALL), printed


@pytest.mark.parametrize("over, message", [
    ({"audit": {"trail": "file"}}, "audit.trail: {folder}/file is no directory"),
    ({"audit": {"trail": "none/trail"}},
     "audit.trail: {folder}/none/trail cannot be made in {folder}/none: No such file or directory"),
    ({"audit": {"trail": "none", "create": False}},
     "audit.trail: {folder}/none: No such file or directory"),
    ({"sinks": [{"name": "s", "type": "file", "path": "none/s"}]},
     'sinks: "s": {folder}/none/s cannot be made in {folder}/none: No such file or directory'),
    ({"sinks": [{"name": "s", "type": "file", "path": "."}]}, 'sinks: "s": {folder}/. is a directory'),
    ({"listen": {"address": "192.0.2.1:1"}},
     "listen.address: 192.0.2.1 port 1: Cannot assign requested address"),
])
def test_what_the_machine_lacks(file, tmp_path, over, message):
    (tmp_path / "file").write_text("")
    done = keytrail("check", "--environment", file(base(**over)))
    assert done.returncode == 1
    assert done.stderr == message.format(folder=tmp_path) + "\n"


def test_too_few_descriptors_are_told(file, pki):
    path = file(secured(pki, workers=2))
    done = subprocess.run(
        ["sh", "-c", 'ulimit -n 500 && exec "$@"', "sh", support.KEYTRAIL, "check",
         "--environment", path],
        env={**os.environ, "KEYTRAIL_ROUTES_DIR": str(SET.parent)}, capture_output=True, text=True,
        timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("\n  warning: RLIMIT_NOFILE is 500: limits.connections, and upstream.pool.max of 2 "
            "workers, may take 12304\n") in done.stdout


def test_everything_that_is_wrong_is_told_at_once(file, pki):
    done = keytrail("check", "--environment", file(support.merge(secured(pki), {
        "listen": {"tls": {"key": "none.key"}}, "audit": {"trail": "none/trail"}})))
    assert done.returncode == 78
    assert len(done.stderr.splitlines()) == 2


# ---- explain ----


def rows():
    """The shipped set, each row with a request that it is for."""
    values = {"id": UUID, "alias": "my-alias", "urlEncodedResourceCRN": "crn%3Av1%252fa%2Fb"}
    for row in json.loads(SET.read_text())["routes"]:
        target = re.sub(r"\{([^}]+)\}", lambda m: values.get(m[1], "some-1"), row["path"])
        target = target.replace("/**", "/no/such/thing")
        if query := row.get("query"):
            target += "?" + "&".join(f"{k}={v}" for k, v in query.items())
        yield row, "OPTIONS" if row["method"] == "*" else row["method"], target


@pytest.mark.parametrize("row, method, target", [
    pytest.param(*r, id=f"{r[0]['method']} {r[0]['path']} {r[0].get('query', {}).get('action', '')}")
    for r in rows()])
def test_explain_knows_every_row(file, row, method, target):
    got = explain(file(base()), method, f"https://kms.example.com{target}")
    fallback = row.get("fallback", row["method"] == "*")
    assert got["action"] == got["event"]["action"] == row["action"]
    assert got["matched"] == (not fallback)
    assert got["guarantee"] == row.get("guarantee", "durable")
    assert got["severity"] == row.get("severity", "normal")
    assert got["refusal"] is None
    assert got["where"].startswith(f"{SET}:")
    event = got["event"]
    assert event["dataEvent"] == row.get("data_event", True)
    assert event["outcome"] == "success" and event["reason"]["reasonCode"] == 200
    # A success of a request that nobody knows is worth a look.
    assert event["severity"] == ("critical" if fallback else got["severity"])
    assert "no/such/thing" not in json.dumps(event)


def test_explain_writes_the_vocabulary_that_is_configured(file):
    path = file(base(audit={"vocabulary": "2019"}))
    assert explain(path, "GET", f"/api/v2/keys/{UUID}/metadata")["event"]["action"] == \
        "kms.secrets.readmetadata"


@pytest.mark.parametrize("method, url, headers, status, code", [
    ("POST", "/api/v2/keys/x?action=foo", [], 400, "ambiguous_query"),
    ("POST", "/api/v2/keys/x/actions/wrap?action=unwrap", [], 400, "ambiguous_query"),
    ("GET", "/API/v2/keys", [], 400, "ambiguous_path"),
    ("GET", "/api/v2/keys/", [], 400, "ambiguous_path"),
    ("POST", "/api/v2/keys/x?action=wrap",
     ["Content-Type: application/x-www-form-urlencoded", "Content-Length: 1"], 415, "ambiguous_body"),
    ("GET", "/api/v2/keys", ["Authorization: a", "Authorization: b"], 400, "repeated_header"),
    ("GET", "/api/v2/keys", ["X-Original-URL: /x"], 400, "method_override"),
])
def test_explain_tells_what_is_refused(file, method, url, headers, status, code):
    got = explain(file(base()), method, url, *headers)
    assert (got["refusal"]["status"], got["refusal"]["code"]) == (status, code)
    if got["action"] is not None:
        assert got["why"].startswith("refused before anything is forwarded: ")
        assert got["event"]["outcome"] == "failure"
        assert got["event"]["reason"]["reasonCode"] == status
    text = keytrail("explain", file(base()), method, url, *[a for h in headers for a in ("-H", h)])
    assert text.returncode == 0
    assert f"answer      {status} " in text.stdout and f"({code}: " in text.stdout


def test_explain_denies_what_the_file_denies(file):
    got = explain(file(base(audit={"unmatched": "deny"})), "GET", "/nowhere")
    assert (got["refusal"]["status"], got["refusal"]["code"]) == (403, "denied")
    assert got["matched"] is False
    assert got["event"]["requestData"]["shape"] == "/{}"


def test_explain_refuses_what_the_parser_refuses(file):
    got = explain(file(base()), "GET", "/a b")
    assert got["action"] is None
    assert got["refusal"]["status"] == 400
    got = explain(file(base(limits={"target": 64})), "GET", "/" + 80 * "a")
    assert got["refusal"] == {"status": 414, "code": "target_too_long",
                              "text": "the request target is too long"}


def test_explain_shows_what_would_be_recorded_and_nothing_else(file):
    got = explain(file(base(service={"region": "us-south"})), "POST",
                  f"/api/v2/keys/{UUID}?action=wrap&x=CANARY", "X-Other: CANARY",
                  f"Bluemix-Instance: {support.INSTANCE}", f"Correlation-Id: {UUID}")
    event = got["event"]
    assert event["correlationId"] == UUID and event["correlationSource"] == "echoed"
    assert event["requestData"]["path"] == "/api/v2/keys/{id}"
    assert event["requestData"]["instanceId"] == support.INSTANCE
    assert "CANARY" not in json.dumps(got)


def test_explain_reads_well(file):
    path = file(base())
    done = keytrail("explain", path, "GET", "https://kms.example.com/api/v2/keys?limit=1")
    head, _, event = done.stdout.partition("{")
    assert head.splitlines()[:4] == [
        "action      kms.secrets.list",
        "route       GET /api/v2/keys",
        f"defined at  {SET}:10:5",
        f"why         the most specific route that fits is GET /api/v2/keys ({SET}:10:5)",
    ]
    assert json.loads("{" + event)["action"] == "kms.secrets.list"


# ---- routes ----


def test_routes_is_an_aligned_table(file):
    done = keytrail("routes", file(base()))
    assert (done.returncode, done.stderr) == (0, "")
    head, *lines = done.stdout.splitlines()
    assert head.split() == ["ACTION", "METHOD", "PATH", "SEVERITY", "GUARANTEE", "NOTES"]
    assert len(lines) == 77
    column = head.index("METHOD")
    assert all(line[column - 1] == " " and line[column] != " " for line in lines)
    unwrap = next(line for line in lines if "/actions/unwrap" in line)
    assert unwrap.split() == ["kms.secrets.unwrap", "POST", "/api/v2/keys/{id}/actions/unwrap",
                              "normal", "durable"]
    token = next(line for line in lines if line.startswith("kms.import-token.read"))
    assert token.endswith("no data event, no retry, 2019: kms.importtoken.read")


def test_routes_as_json(file):
    rows = json.loads(keytrail("routes", file(base()), "--json").stdout)
    assert len(rows) == 77
    assert rows[-1]["action"] == "kms.secrets.default" and rows[-1]["path"] == "/**"
    assert sum(r["fallback"] for r in rows) == 10
    assert {r["guarantee"] for r in rows} == {"durable", "intent"}


def test_the_guarantee_of_the_file_is_that_of_routes_without_their_own(file):
    rows = json.loads(keytrail("routes", file(base(audit={"guarantee": "async"})), "--json").stdout)
    guarantees = {r["route"]: r["guarantee"] for r in rows}
    assert guarantees["GET /api/v2/keys"] == "async"
    assert guarantees["DELETE /api/v2/keys/{id}"] == "intent"


def test_the_schema_is_one_and_that_of_the_tree(schema):
    jsonschema.Draft202012Validator.check_schema(schema.schema)
    assert schema.schema == json.loads((SET.parent / "routes.schema.json").read_text())


def test_the_schema_takes_every_shipped_file(schema):
    shipped = [path for folder in ("docker", "proxy") for path in (support.ROOT / folder).rglob("*.json")]
    files = [f for f in map(json.loads, map(Path.read_text, shipped)) if "listen" in f or "set" in f]
    assert len(files) >= 2
    for f in files:
        schema.validate(f)


def test_the_schema_takes_the_environment(schema):
    assert schema.is_valid(base(audit={"guarantee": "${GUARANTEE}"}))
    assert not schema.is_valid(base(audit={"guarantee": "durabel"}))
    assert not schema.is_valid(base(limits={"head": "16KB"}))


# What a schema of types cannot tell.
BEYOND_TYPES = {("upstream", "{}"), ("admin", "{}"), ("include", "[]"), ("audit.spacing.max", "0")}


def members(part, path=()):
    for name, inner in part.get("properties", {}).items():
        yield (*path, name)
        yield from members(inner, (*path, name))


def replaced(config, path, value):
    """A copy with the value in this place; what stands in the way is made an object."""
    config = json.loads(json.dumps(config))
    at = config
    for step in path[:-1]:
        if not isinstance(at[step] if isinstance(step, int) else at.get(step), (dict, list)):
            at[step] = {}
        at = at[step]
    at[path[-1]] = value
    return config


@pytest.mark.parametrize("part, place", [("sidecar", ()), ("sink", ("sinks", 0)),
                                         ("certificate", ("listen", "tls", "certificates", 0)),
                                         ("token", ("admin", "tokens", 0)), ("route", ("routes", 0))])
def test_the_program_and_the_schema_take_the_same_types(file, schema, tmp_path, part, place):
    """Each member with a value of each type: nobody's editor complains of a file that is good, or is
    content with a type that the program refuses."""
    secrets = [tmp_path / name for name in ("one", "two")]
    for secret in secrets:
        secret.write_text(str(secret) * 2)
        secret.chmod(0o600)
    whole = secured({name: name for name in ("server.pem", "server.key", "ca.pem")},
                    admin={"address": "127.0.0.1:0", "socket": "s", "token": {"file": "one"},
                           "tokens": [{"name": "a", "role": "viewer", "token": {"file": "two"}}]},
                    sinks=[{"name": "s", "type": "file", "path": "p"}],
                    routes=[{"action": "a.b", "method": "GET", "path": "/x"}])
    whole["listen"]["tls"]["certificates"] = [{"certificate": "b.pem", "key": "b.key"}]
    assert keytrail("check", file(whole)).stderr == ""
    wrong = {}
    paths = [(*place, *path) for path in members(schema.schema["$defs"][part])]
    for path in paths:
        for value in (None, True, 0, "x", "10s", "1MiB", ["x"], [], {}):
            config = replaced(whole, path, value)
            good, fits = keytrail("check", file(config)).returncode == 0, schema.is_valid(config)
            name = ".".join(map(str, path)), json.dumps(value)
            text = isinstance(value, str) or value == ["x"]  # of which the program asks more
            if good > fits or (good < fits and not text and name not in BEYOND_TYPES):
                wrong[name] = good, fits
    assert len(paths) >= 3 and wrong == {}


def test_the_reference_is_made_of_tables():
    text = keytrail("reference", "routes").stdout
    for title in ("The routes file", "A route set", "A route", "A sink"):
        assert f"## {title}\n" in text
    for line in text.splitlines():
        if line.startswith("| `"):
            assert line.endswith(". |"), line

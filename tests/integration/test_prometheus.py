"""docker/prometheus and docker/grafana: the rules by promtool, and both by a real Prometheus."""

import concurrent.futures
import contextlib
import itertools
import json
import re
import subprocess
import urllib.error
import urllib.parse
import urllib.request

import pytest
import yaml

import support
from backend import ok
from support import free_ports, wait_for
from test_operate import degrade, fill
from test_readme import README

DOCKER = support.ROOT / "docker"
FOLDER = DOCKER / "prometheus"
RULES = FOLDER / "keytrail.rules.yml"
CASES = sorted(FOLDER.glob("*.test.yml"))
DASHBOARD = json.loads((DOCKER / "grafana" / "keytrail.json").read_text())
ALERTS = {rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"]
          for rule in group["rules"]}
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
NAME = re.compile(r"\bkeytrail_\w+")


def promtool(*arguments):
    done = subprocess.run(["promtool", *arguments], text=True, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout


def exported():
    """The names of samples that a sidecar has, histograms in their three forms."""
    table = subprocess.run([support.KEYTRAIL, "reference", "metrics"], check=True, text=True,
                           stdout=subprocess.PIPE).stdout
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", table, re.M)
    assert len(rows) > 40
    return {name + suffix for name, kind in rows
            for suffix in (("_bucket", "_sum", "_count") if kind == "histogram" else ("",))}


# ---- the rules ----


@pytest.mark.parametrize("what", [("rules", RULES), ("config", FOLDER / "prometheus.yml")])
def test_promtool_takes_the_shipped_files(what):
    code, said = promtool("check", *what)
    assert code == 0, said


def test_the_cases_of_the_rules():
    code, said = promtool("test", "rules", *CASES)
    assert code == 0, said


def test_each_alert_says_what_it_is_and_where_to_read_on():
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
               for title in re.findall(r"^#+ (.*)$", README.read_text(), re.M)}
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in ("critical", "warning"), name
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}, name
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert page == "README.md" and anchor in anchors, name


def test_rules_and_dashboard_name_metrics_that_there_are():
    texts = [rule["expr"] for rule in ALERTS.values()]
    texts += [target["expr"] for panel in PANELS for target in panel["targets"]]
    assert {name for text in texts for name in NAME.findall(text)} - exported() == set()


def cases_of(alert):
    """The cases that are about one alert, as a file of their own."""
    for cases in map(yaml.safe_load, (path.read_text() for path in CASES)):
        cases["tests"] = [case for case in cases["tests"]
                          if any(look["alertname"] == alert for look in case["alert_rule_test"])]
        if cases["tests"]:
            return cases
    raise AssertionError(f"no case is about {alert}")


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(alert):
    looks = [look for case in cases_of(alert)["tests"] for look in case["alert_rule_test"]]
    assert any(look["exp_alerts"] for look in looks) and any(not look["exp_alerts"] for look in looks)


# What is changed in an alert, one at a time; its cases must not agree.
OPERATORS = {">": "<", "<": ">", "==": "!=", "=": "!=", "unless": "and", "or": "unless"}
TOKEN = re.compile(r'(?<![=!<>~])(?:[<>]|==?)(?=[ "])|\b(?:unless|or)\b'     # an operator
                   r"|(?<=[<>] )[0-9.]+(?= \* \d)?|(?<=, )\d+(?= \*)"         # a threshold, a horizon
                   r"|(?<=\[)\d+[mhd](?=\])|(?<=offset )\d+[mhd]")            # a range


def changed(token):
    if token in OPERATORS:
        return [OPERATORS[token]]
    number, unit = re.fullmatch(r"([0-9.]+)([mhd]?)", token).groups()
    if unit:  # in seconds, for a quarter may be no whole number of these
        seconds = int(number) * {"m": 60, "h": 3600, "d": 86400}[unit]
        return [f"{4 * seconds}s", f"{seconds // 4}s"]
    return [] if float(number) == 0 else [f"({2 * float(number)})", f"({float(number) / 2})"]


def mutants(rule):
    for found in TOKEN.finditer(rule["expr"]):
        for other in changed(found[0]):
            yield {**rule, "expr": rule["expr"][:found.start()] + other + rule["expr"][found.end():]}
    if "for" in rule:
        number, unit = int(rule["for"][:-1]), rule["for"][-1]
        yield {**rule, "for": "0s"}
        yield {**rule, "for": f"{2 * number}{unit}"}
    yield {**rule, "labels": {"severity": "other"}}


def agrees(folder, number, rule, cases):
    """Whether the cases hold for such a rule."""
    rules = folder / f"{number}.rules.yml"
    rules.write_text(json.dumps({"groups": [{"name": "keytrail", "rules": [rule]}]}))
    (folder / f"{number}.yml").write_text(json.dumps({**cases, "rule_files": [str(rules)]}))
    code, said = promtool("test", "rules", folder / f"{number}.yml")
    assert code == 0 or "FAILED" in said and "exp:" in said, said
    return code == 0


@pytest.mark.parametrize("alert", ALERTS)
def test_the_cases_notice_when_an_alert_is_changed(alert, tmp_path):
    cases = cases_of(alert)
    made = [ALERTS[alert], *mutants(ALERTS[alert])]
    assert len(made) > 2
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        verdicts = list(pool.map(agrees, itertools.repeat(tmp_path), range(len(made)), made,
                                 itertools.repeat(cases)))
    assert verdicts[0]
    unnoticed = [(m["expr"], m.get("for")) for m, same in zip(made[1:], verdicts[1:]) if same]
    assert unnoticed == []


# ---- the dashboard ----


def test_the_dashboard_is_well_formed():
    """As far as can be told without a Grafana."""
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(numbers) == len(set(numbers)) > 20
    cells = [(x, y) for panel in DASHBOARD["panels"]
             for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
             for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) == 23
    variables = {v["name"] for v in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w+)", json.dumps(DASHBOARD["panels"])))
    assert used == variables == {"datasource", "instance"}
    for panel in PANELS:
        assert panel["title"] and panel["datasource"]["uid"] == "${datasource}"
        assert panel["type"] in ("stat", "timeseries", "table")
        assert panel["fieldConfig"]["defaults"]["unit"] in (
            "none", "s", "bytes", "percentunit", "reqps", "ops"), panel["title"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        for target in panel["targets"]:
            assert 'instance=~"$instance"' in target["expr"], panel["title"]


# ---- a real Prometheus ----


class Prometheus:
    """The shipped configuration and rules, at one sidecar, in a hurry."""

    def __init__(self, folder, sidecar):
        config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["scrape_configs"][0]["static_configs"][0]["targets"] = [
            f"127.0.0.1:{sidecar.ports['metrics']}"]
        rules = yaml.safe_load(RULES.read_text())
        for rule in rules["groups"][0]["rules"]:
            rule.pop("for", None)
        folder.mkdir()
        (folder / "prometheus.yml").write_text(json.dumps(config))
        (folder / RULES.name).write_text(json.dumps(rules))
        self.log = folder / "log"
        self.port, = free_ports(1)
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                ["prometheus", f"--config.file={folder / 'prometheus.yml'}",
                 f"--storage.tsdb.path={folder / 'data'}",
                 f"--web.listen-address=127.0.0.1:{self.port}"],
                stdout=log, stderr=log, start_new_session=True)

    def get(self, path, **query):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=support.PATIENCE) as r:
            return json.load(r)["data"]

    def is_up(self):
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.value("up{job='keytrail'}") == 1
        except urllib.error.URLError:
            return False

    def query(self, expr):
        return self.get("query", query=expr)["result"]

    def value(self, expr):
        found = self.query(expr)
        return float(found[0]["value"][1]) if found else None

    def firing(self, name, **labels):
        return [alert for alert in self.get("alerts")["alerts"]
                if alert["state"] == "firing" and alert["labels"]["alertname"] == name
                and labels.items() <= alert["labels"].items()]

    def stop(self):
        self.process.terminate()
        self.process.wait(support.PATIENCE)


@pytest.fixture
def prometheus(tmp_path):
    """prometheus(sidecar): one that has scraped it."""
    with contextlib.ExitStack() as stack:
        def make(sidecar):
            made = Prometheus(tmp_path / "prometheus", sidecar)
            stack.callback(made.stop)
            wait_for(made.is_up, "the first scrape")
            return made
        yield make


def sink(name, path):
    return {"name": name, "type": "file", "path": str(path)}


def test_a_dead_sink_alarms_until_it_is_mended(keytrail, raw_backend, prometheus, tmp_path):
    missing = tmp_path / "no" / "out.jsonl"
    sidecar = keytrail(raw_backend(ok()), {"sinks": [sink("good", tmp_path / "good.jsonl"),
                                                     sink("dead", missing)]})
    server = prometheus(sidecar)
    alert, = wait_for(lambda: server.firing("KeytrailSinkDown"), "the alert")
    assert alert["labels"]["sink"] == "dead"
    assert alert["annotations"]["summary"].endswith("sink dead is down")
    missing.parent.mkdir()
    wait_for(lambda: not server.firing("KeytrailSinkDown"), "its end", 2 * support.PATIENCE)


def test_a_lost_event_alarms(keytrail, raw_backend, prometheus, disk, socket):
    sidecar = keytrail(raw_backend(ok()), {
        "workers": 1, "limits": {"connections": 20}, "audit": {"ring_size": 65536},
        "admin": {"address": "127.0.0.1:0", "token": None, "socket": str(socket)},
    }, environment=disk.environment)
    server = prometheus(sidecar)
    fill(sidecar, disk)
    wait_for(lambda: server.firing("KeytrailTrailNotWritable"), "the alert of the full disk")
    degrade(sidecar, "1h")
    wait_for(lambda: server.firing("KeytrailDegraded"), "the alert of the break-glass")
    assert sidecar.call("GET", "/api/v2/keys").status == 200
    wait_for(lambda: server.firing("KeytrailEventsLost", reason="trail_full"), "the alert of the loss")
    disk.clear()


def test_each_query_of_rules_and_dashboard_is_answered(keytrail, kms, prometheus, signer, tmp_path):
    """Those of the dashboard with data, once there was traffic of each kind."""
    sidecar = keytrail(kms, {"sinks": [sink("out", tmp_path / "out.jsonl")],
                             "audit": {"sign": {"file": str(signer[0])}}})
    server = prometheus(sidecar)

    def call_each():
        for path in ("/api/v2/keys", "/nowhere", "/api/v2//keys"):
            sidecar.call("GET", path, kms.headers())

    def without_data():
        call_each()
        return [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]
                if not server.query(plain(target["expr"]))]

    def plain(expr):
        for variable, value in (("$instance", ".*"), ("$__rate_interval", "1m"), ("$__range", "1m")):
            expr = expr.replace(variable, value)
        return expr

    wait_for(lambda: not without_data(), "data in every panel")
    for rule in server.get("rules")["groups"][0]["rules"]:
        assert rule["health"] == "ok", rule
    assert server.query("ALERTS{alertname='KeytrailUnmatched'}")

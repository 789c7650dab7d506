"""The http sink against OpenSearch and Elasticsearch themselves, which `make test-opensearch` brings.

Elasticsearch's Java artifacts have no data streams: what it has instead is an index.
"""

import json
import os
import subprocess
import urllib.error
import urllib.request

import pytest

from backend import ok
from support import ROOT, free_ports, wait_for
from test_sink_http import numbers, send, the_sink

ENGINES = [ROOT / engine for engine in os.environ.get("KEYTRAIL_ENGINES", "").split()]
SHIPPED = ROOT / "docker" / "elasticsearch"

pytestmark = pytest.mark.skipif(not ENGINES, reason="make test-opensearch brings them")


class Engine:
    def __init__(self, jars, folder):
        self.jars, self.folder = jars, folder
        self.preset = jars.name.split("-")[0]
        self.streams = self.preset == "opensearch"
        self.port, = free_ports(1)
        self.process = None

    def start(self):
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                ["java", "-Xmx512m", "-cp", f"{self.jars}/*:{self.jars}", "Server", self.folder / "home",
                 str(self.port)], stdout=log, stderr=log)
        wait_for(self.healthy, self.preset, timeout=300)

    def healthy(self):
        assert self.process.poll() is None, (self.folder / "log").read_text()[-3000:]
        try:
            return self.ask("GET", "/_cluster/health")["status"] in ("green", "yellow")
        except (OSError, KeyError):
            return False

    def kill(self):
        self.process.kill()
        self.process.wait()

    def ask(self, method, path, body=None):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", method=method,
            data=None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    def documents(self):
        """{id: document} of what is stored."""
        self.ask("POST", "/keytrail-audit/_refresh")
        hits = self.ask("POST", "/keytrail-audit/_search?size=5000", {"query": {"match_all": {}}})
        return {hit["_id"]: hit["_source"] for hit in hits["hits"]["hits"]}


    def install(self):
        """What is shipped, and no document."""
        template = json.loads((SHIPPED / "index-template.json").read_text())
        if not self.streams:
            del template["data_stream"]
        self.ask("PUT", "/_index_template/keytrail", template)
        try:
            self.ask("DELETE", "/_data_stream/keytrail-audit" if self.streams else "/keytrail-audit")
        except urllib.error.HTTPError as e:
            assert e.code == 404  # there was none


@pytest.fixture(scope="module", params=ENGINES, ids=lambda jars: jars.name)
def server(request, tmp_path_factory):
    server = Engine(request.param, tmp_path_factory.mktemp("engine"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def engine(server):
    server.install()
    return server


def start(keytrail, raw_backend, engine):
    return keytrail(raw_backend(ok()), {"sinks": [
        {"name": "it", "type": "http", "preset": engine.preset, "url": f"http://127.0.0.1:{engine.port}"}]})


def stored(sidecar, engine):
    wait_for(lambda: the_sink(sidecar)["waiting"] == 0, "the sink to catch up", timeout=120)
    found = engine.documents()
    assert sorted(d["event"]["sequence"] for d in found.values()) == numbers(sidecar.events())
    assert all(identity.endswith(f"-{d['event']['sequence']}") for identity, d in found.items())
    assert the_sink(sidecar)["rejected"] == 0


def shown(engine, calls):
    """The saved view has the calls, and columns that can be searched."""
    objects = map(json.loads, (SHIPPED / "saved-objects.ndjson").read_text().splitlines())
    view, = (o["attributes"] for o in objects if o["type"] == "search")
    query = json.loads(view["kibanaSavedObjectMeta"]["searchSourceJSON"])["query"]["query"]
    lucene = query.replace(" : ", ":").replace(" or ", " OR ")
    found = engine.ask("POST", "/keytrail-audit/_search", {"query": {"query_string": {"query": lucene}}})
    assert found["hits"]["total"]["value"] == calls
    fields = engine.ask("GET", f"/keytrail-audit/_field_caps?fields={','.join(view['columns'])}")["fields"]
    assert all(kind["searchable"] for name in view["columns"] for kind in fields[name].values())


def test_it_gets_every_event_once(keytrail, raw_backend, engine):
    sidecar = start(keytrail, raw_backend, engine)
    send(sidecar, 300)
    stored(sidecar, engine)
    found = engine.ask("POST", "/keytrail-audit/_search", {"query": {"bool": {"filter": [
        {"term": {"event.action": "kms.secrets.list"}}, {"term": {"event.outcome": "success"}},
        {"range": {"@timestamp": {"gte": "now-1h"}}}]}}})
    assert found["hits"]["total"]["value"] == 300
    shown(engine, 300)
    # All of it again: what is there stays as it is.
    sidecar.kill()
    (sidecar.trail_dir / "cursor.it").unlink()
    sidecar.start()
    stored(sidecar, engine)


def test_a_killed_server_goes_on_where_it_was(keytrail, raw_backend, engine):
    sidecar = start(keytrail, raw_backend, engine)
    send(sidecar, 100)
    engine.kill()
    send(sidecar, 100)
    engine.start()
    send(sidecar, 100)
    stored(sidecar, engine)


def test_another_document_under_an_identity_is_an_alarm(keytrail, raw_backend, engine):
    sidecar = start(keytrail, raw_backend, engine)
    send(sidecar, 3)
    stored(sidecar, engine)
    last = sidecar.events()[-1]["trail"]
    forged = f"{last['log']}-{last['boot']}-{last['seq'] + 1}"
    engine.ask("PUT", f"/keytrail-audit/_create/{forged}",
               {"@timestamp": "2026-01-01T00:00:00Z", "forged": True})
    send(sidecar, 3)
    rejected = sidecar.wait_own("keytrail.reject")
    assert rejected[0]["details"]["first"] == last["seq"] + 1
    assert "conflict: another document has the identity" in rejected[0]["details"]["reason"]
    assert engine.documents()[forged]["forged"]

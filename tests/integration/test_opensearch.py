"""The http sink against OpenSearch itself: `make test-opensearch` brings it, from its Java artifacts."""

import json
import socket
import subprocess
import urllib.error
import urllib.request

import pytest

from backend import ok
from support import ROOT, wait_for
from test_sink_http import numbers, send, the_sink

SERVER = ROOT / "build" / "vendor" / "opensearch"
TEMPLATE = ROOT / "docker" / "elasticsearch" / "index-template.json"

pytestmark = pytest.mark.skipif(not SERVER.exists(), reason="make test-opensearch brings it")


class OpenSearch:
    def __init__(self, folder):
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as s:
            self.port = s.getsockname()[1]
        self.process = None

    def start(self):
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                ["java", "-Xmx512m", "-cp", f"{SERVER}/*:{SERVER}", "Server", self.folder / "home",
                 str(self.port)], stdout=log, stderr=log)
        wait_for(self.healthy, "OpenSearch", timeout=120)

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


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = OpenSearch(tmp_path_factory.mktemp("opensearch"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def opensearch(server):
    """Without a document, and with our template."""
    server.ask("PUT", "/_index_template/keytrail", TEMPLATE.read_bytes())
    try:
        server.ask("DELETE", "/_data_stream/keytrail-audit")
    except urllib.error.HTTPError:
        pass  # there was none
    return server


def start(keytrail, raw_backend, opensearch):
    return keytrail(raw_backend(ok()), {"sinks": [
        {"name": "it", "type": "http", "preset": "opensearch", "url": f"http://127.0.0.1:{opensearch.port}"}]})


def stored(sidecar, opensearch):
    wait_for(lambda: the_sink(sidecar)["waiting"] == 0, "the sink to catch up", timeout=120)
    found = opensearch.documents()
    assert sorted(d["event"]["sequence"] for d in found.values()) == numbers(sidecar.events())
    assert all(identity.endswith(f"-{d['event']['sequence']}") for identity, d in found.items())
    assert the_sink(sidecar)["rejected"] == 0


def test_a_data_stream_gets_every_event_once(keytrail, raw_backend, opensearch):
    sidecar = start(keytrail, raw_backend, opensearch)
    send(sidecar, 300)
    stored(sidecar, opensearch)
    found = opensearch.ask("POST", "/keytrail-audit/_search", {"query": {"bool": {"filter": [
        {"term": {"event.action": "kms.secrets.list"}}, {"term": {"event.outcome": "success"}},
        {"range": {"@timestamp": {"gte": "now-1h"}}}]}}})
    assert found["hits"]["total"]["value"] == 300
    # All of it again: what is there stays as it is.
    sidecar.kill()
    (sidecar.trail_dir / "cursor.it").unlink()
    sidecar.start()
    stored(sidecar, opensearch)


def test_a_killed_server_goes_on_where_it_was(keytrail, raw_backend, opensearch):
    sidecar = start(keytrail, raw_backend, opensearch)
    send(sidecar, 100)
    opensearch.kill()
    send(sidecar, 100)
    opensearch.start()
    send(sidecar, 100)
    stored(sidecar, opensearch)


def test_another_document_under_an_identity_is_an_alarm(keytrail, raw_backend, opensearch):
    sidecar = start(keytrail, raw_backend, opensearch)
    send(sidecar, 3)
    stored(sidecar, opensearch)
    last = sidecar.events()[-1]["trail"]
    forged = f"{last['log']}-{last['boot']}-{last['seq'] + 1}"
    opensearch.ask("PUT", f"/keytrail-audit/_create/{forged}",
                   {"@timestamp": "2026-01-01T00:00:00Z", "forged": True})
    send(sidecar, 3)
    rejected = sidecar.wait_own("keytrail.reject")
    assert rejected[0]["details"]["first"] == last["seq"] + 1
    assert "conflict: another document has the identity" in rejected[0]["details"]["reason"]
    assert opensearch.documents()[forged]["forged"]

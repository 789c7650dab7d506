"""The files of the dashboard, as the admin listener gives them.  tests/browser opens them."""

import re

import pytest

import http1
from support import ROOT

PAGE = ROOT / "proxy" / "admin" / "page"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript",
         ".svg": "image/svg+xml"}


def get(sidecar, listener, path, **fields):
    with http1.Client(sidecar.ports[listener]) as c:
        return c.request("GET", path, {"Host": "localhost", **fields})


@pytest.fixture
def locked(keytrail, tmp_path):
    token = tmp_path / "token"
    token.write_text("a token of a test, long enough")
    token.chmod(0o600)
    return keytrail(config={"admin": {"token": {"file": str(token)}}})


def test_each_file_is_served_as_it_is_and_without_a_token(locked):
    assert get(locked, "admin", "/status").status == 401
    for file in PAGE.iterdir():
        r = get(locked, "admin", f"/{file.name}")
        assert (r.status, r.body) == (200, file.read_bytes())
        assert r.get("Content-Type").split(";")[0] == TYPES[file.suffix]
    assert get(locked, "admin", "/").body == (PAGE / "index.html").read_bytes()


def test_it_runs_nothing_but_its_own_and_stands_in_no_frame(locked):
    r = get(locked, "admin", "/")
    rules = dict(rule.split(" ", 1) for rule in r.get("Content-Security-Policy").split("; ")
                 if " " in rule)
    assert rules["default-src"] == rules["frame-ancestors"] == rules["form-action"] == "'none'"
    assert rules["script-src"] == rules["connect-src"] == rules["style-src"] == "'self'"
    assert rules["require-trusted-types-for"] == "'script'"
    assert r.get("X-Content-Type-Options") == "nosniff"
    assert r.get("Referrer-Policy") == "no-referrer"
    assert r.get("Cross-Origin-Opener-Policy") == "same-origin"
    assert not re.search(rb"""\son\w+=|\sstyle=|(?:src|href)=["']?(?:[a-z]+:)?//""", r.body)


def test_who_may_not_ask_gets_no_page(locked):
    assert get(locked, "admin", "/", Host="evil.example").status == 403
    assert get(locked, "admin", "/app.js", **{"Sec-Fetch-Site": "cross-site"}).status == 403
    assert get(locked, "metrics", "/").status == 404


def test_it_is_small():
    assert sum(f.stat().st_size for f in PAGE.iterdir()) < 60 * 1024

"""What is installed: the pages for man(1), as the tools that read them see them."""

import json
import os
import re
import subprocess

import pytest

import support

PAGES = ("keytrail.1", "keytrail-routes.5", "keytrail-events.5")


def run(*command, **options):
    return subprocess.run([str(c) for c in command], check=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, **options).stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder below which `make install` put everything."""
    if support.SANITIZED:
        pytest.skip("what is installed is no such build")
    root = tmp_path_factory.mktemp("installed")
    run("make", "-s", "-C", support.ROOT, "install", f"DESTDIR={root}")
    return root / "usr/local"


@pytest.fixture(scope="module", params=PAGES)
def page(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("pages") / request.param
    path.write_text(run(support.KEYTRAIL, "reference", "--man", request.param))
    return path


def read(page):
    """As it is on a wide terminal."""
    return run("mandoc", "-Tascii", "-Owidth=400", page)


def plain(page):
    return re.sub(".\b", "", read(page))


def test_the_tools_find_no_fault_in_a_page(page):
    done = subprocess.run(["man", "--warnings", "-l", page], check=True, text=True,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert done.stderr == ""
    lint = subprocess.run(["mandoc", "-Tlint", "-W", "warning", page], stdout=subprocess.PIPE,
                          text=True, check=False).stdout.splitlines()
    assert [line for line in lint if "missing date" not in line] == []


def test_what_is_a_page_there_is_told(tmp_path):
    done = subprocess.run([support.KEYTRAIL, "reference", "--man", "keytrail-route.5"], text=True,
                          capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith('keytrail reference: no page "keytrail-route.5"; '
                                  'did you mean "keytrail-routes.5"?\n')


def page_named(name, tmp_path):
    path = tmp_path / name
    path.write_text(run(support.KEYTRAIL, "reference", "--man", name))
    return plain(path)


def test_the_page_of_the_program_has_each_command_with_what_it_takes(tmp_path):
    text = page_named("keytrail.1", tmp_path)
    for line in re.findall(r"^  (keytrail .*)$", run(support.KEYTRAIL, "help"), re.M):
        name = line.split()[1]
        assert text.count(f"     {line}\n") == 2, line  # the synopsis and its own
        taken = run(support.KEYTRAIL, name, "--help").split("\n\n")[2:]
        for row in re.findall(r"^  (\S.*)$", "".join(taken), re.M):
            assert re.search(rf"^ +{re.escape(row)}( |$)", text, re.M), row
    assert re.search(r"^ +78 +bad configuration", text, re.M)
    assert re.search(r"^ +keytrail_requests_total +\(type: counter; labels: action, outcome, code\)$",
                     text, re.M)


def members(schema, prefix=""):
    for name, inner in schema.get("properties", {}).items():
        yield prefix + name
        yield from members(inner, f"{prefix}{name}.")


def test_the_page_of_the_routes_file_has_each_member_of_the_schema(tmp_path):
    text = page_named("keytrail-routes.5", tmp_path)
    schema = json.loads(run(support.KEYTRAIL, "routes", "--schema"))
    names = [name for part in schema["$defs"].values() for name in members(part)
             if not name.endswith(".file")]
    assert len(names) > 100
    assert [n for n in names if not re.search(rf"^ +{re.escape(n)}( |$)", text, re.M)] == []


def test_the_example_of_the_page_is_good(tmp_path):
    text = page_named("keytrail-routes.5", tmp_path)
    example = re.search(r"^EXAMPLE\n(.*?)^MEMBERS", text, re.M | re.S)[1]
    (tmp_path / "routes.json").write_text(example)
    assert "is good: 77 routes" in run(support.KEYTRAIL, "check", tmp_path / "routes.json",
                                       env={**os.environ, "KEYTRAIL_ROUTES_DIR": str(support.ROUTES.parent)})


def test_the_page_of_events_has_each_member_and_own_event(tmp_path):
    text = page_named("keytrail-events.5", tmp_path)
    names, own = support.documented()
    for name in [*names, *own]:
        assert re.search(rf"^ +{re.escape(name)}( |$)", text, re.M), name
    assert re.search(r"^ +keytrail\.expire +\(details: first, last\)$", text, re.M)


def test_install_puts_everything_below_its_root(installed):
    found = {str(p.relative_to(installed)): p.stat().st_mode & 0o7777
             for p in installed.rglob("*") if p.is_file()}
    assert found == {"bin/keytrail": 0o755,
                     **{f"share/keytrail/routes/{p.name}": 0o644
                        for p in support.ROUTES.parent.glob("*.json")},
                     **{f"share/man/man{p[-1]}/{p}.gz": 0o644 for p in PAGES}}
    assert [p.name for p in installed.parents[1].iterdir()] == ["usr"]


def test_man_finds_what_is_installed(installed):
    for name in PAGES:
        text = run("man", "-M", installed / "share/man", name[-1], name[:-2],
                   env={**os.environ, "MANPAGER": "cat", "MANWIDTH": "100"})
        assert text.startswith(f"{name[:-2].upper()}({name[-1]})")
    # The same bytes each time it is built.
    page = installed / "share/man/man1/keytrail.1.gz"
    assert page.read_bytes()[4:8] == bytes(4)

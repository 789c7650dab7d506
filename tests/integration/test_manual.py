"""What is installed: pages for man(1) and completion, as the programs that read them see them."""

import json
import os
import pty
import re
import select
import subprocess

import pytest

import support

COMPLETIONS = {"bash": "bash-completion/completions/keytrail",
               "zsh": "zsh/site-functions/_keytrail",
               "fish": "fish/vendor_completions.d/keytrail.fish"}
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
                     **{f"share/keytrail/elasticsearch/{p.name}": 0o644
                        for p in (support.ROOT / "docker" / "elasticsearch").iterdir()},
                     **{f"lib/keytrail/{p.name}": 0o755 for p in support.BUILD.glob("sink_*.so")},
                     **{f"share/keytrail/routes/{p.name}": 0o644
                        for p in support.ROUTES.parent.glob("*.json")},
                     **{f"share/man/man{p[-1]}/{p}.gz": 0o644 for p in PAGES},
                     **{f"share/{p}": 0o644 for p in COMPLETIONS.values()}}
    assert [p.name for p in installed.parents[1].iterdir()] == ["usr"]


def test_man_finds_what_is_installed(installed):
    for name in PAGES:
        text = run("man", "-M", installed / "share/man", name[-1], name[:-2],
                   env={**os.environ, "MANPAGER": "cat", "MANWIDTH": "100"})
        assert text.startswith(f"{name[:-2].upper()}({name[-1]})")
    # The same bytes each time it is built.
    page = installed / "share/man/man1/keytrail.1.gz"
    assert page.read_bytes()[4:8] == bytes(4)


# ---- completion ----

def taken(command):
    """The options and the words of a command, as its help has them."""
    text = "".join(run(support.KEYTRAIL, command, "--help").split("\n\n")[2:])
    names = re.findall(r"^  (?:-\w, )?(--[\w-]+|[a-z]+)(?: \S+)*$", text, re.M)
    return [n for n in names if n.startswith("-")], [n for n in names if not n.startswith("-")]


@pytest.fixture(scope="module")
def rows():
    """What each command takes: some have words, some options, one has neither."""
    commands = re.findall(r"^  keytrail (\S+)", run(support.KEYTRAIL, "help"), re.M)
    found = {command: taken(command) for command in commands}
    assert found["hold"] == (["--from", "--to", "--socket"], ["add", "remove", "list", "reset"])
    assert found["version"] == ([], [])
    return found


def test_bash_completes_what_each_command_takes(installed, rows):
    def complete(*words):
        script = ('source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _keytrail; '
                  'complete -p keytrail; echo "${COMPREPLY[@]}"')
        how, found = run("bash", "--norc", "-c", script, "bash", installed / "share" / COMPLETIONS["bash"],
                         "keytrail", *words).splitlines()
        assert how == "complete -o default -F _keytrail keytrail"  # where nothing fits: files
        return found.split()

    assert complete("") == [*rows]
    assert complete("ver") == ["verify", "version"]
    for command, (options, words) in rows.items():
        assert complete(command, "-") == options
        assert complete(command, "") == words
        assert complete(command, "x", "") == []
    assert complete("hold", "add", "x", "--f") == ["--from"]


def test_fish_completes_what_each_command_takes(installed, rows):
    def complete(line):
        script = f"source {installed}/share/{COMPLETIONS['fish']}; complete -C '{line}'"
        found = run("fish", "--no-config", "-c", script, cwd=installed / "share/man",
                    env={**os.environ, "XDG_CONFIG_HOME": str(installed)})
        return {line.split("\t")[0] for line in found.splitlines()}

    assert complete("keytrail ") == {*rows}
    for command, (options, words) in rows.items():
        assert complete(f"keytrail {command} --") >= {*options}
        assert complete(f"keytrail {command} ") >= {*words}
    assert complete("keytrail hold list ") == {"man1/", "man5/"}
    assert "-f" in complete("keytrail tail -") and "-f" not in complete("keytrail check -")


def test_zsh_completes_what_is_typed(installed, tmp_path):
    """In a terminal, as somebody who hits the tabulator."""
    (tmp_path / "routes.json").write_text("")
    typed = {"deg\t--rea\t": "degrade --reason", "hold li\t": "hold list",
             "check --env\trou\t": "check --environment routes.json",
             "verify --anch\trou\t": "verify --anchors routes.json",
             "explain --header x --hea\t": "explain --header x --header"}
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        os.execvpe("zsh", ["zsh", "-f", "-i"], {"PATH": os.environ["PATH"], "TERM": "dumb", "PS1": "> ",
                                                "HOME": str(tmp_path)})
    shown = b""

    def until(text):
        nonlocal shown
        while text.encode() not in shown:
            assert select.select([terminal], [], [], support.PATIENCE)[0], shown
            shown += os.read(terminal, 4096)
        shown = b""

    try:
        os.write(terminal, f"fpath=({installed}/share/zsh/site-functions $fpath); unsetopt beep; "
                           "autoload -U compinit; compinit -u -D; keytrail() { echo \"<$*\"\">\" }\n".encode())
        for line, want in typed.items():
            os.write(terminal, f"keytrail {line}\n".encode())
            until(f"<{want}")
    finally:
        os.close(terminal)
        os.kill(child, 9)
        os.waitpid(child, 0)

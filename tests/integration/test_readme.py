"""The manual: the chapters made from tables are current, and the README's tour does what it shows."""

import json
import os
import re
import shutil
import signal
import subprocess

import pytest

import receiver
import support
import test_cheats
import test_sink_contract

README = support.ROOT / "README.md"
PORTS = ("8443", "8444", "9480", "9481")
# What the reader of the tour sleeps for.
WAITS = ("[ $(wc -l <copy.jsonl) = 6 ]", "keytrail tail trail | grep -q keytrail.reload",
         "keytrail tail trail | grep -q ' 403 '")
UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
# What differs from run to run, and what stands for it; in this order.
VARIES = ((UUID, "UUID"), (r"\b[0-9a-f]{32,64}\b", "HEX"), (r'"[0-9a-f]{8}"', "SUM"),
          (r"[A-Z][a-z]{2} [ \d]\d [\d:]{8} \d{4}", "DATE"), (r"\d+", "N"), (r"[ \t]+", " "))


def reference(chapter):
    return subprocess.run([support.KEYTRAIL, "reference", chapter], check=True, text=True,
                          stdout=subprocess.PIPE).stdout


@pytest.mark.parametrize("chapter, page", [("commands", "commands.md"), ("routes", "routes-file.md"),
                                           ("metrics", "metrics.md"), ("formats", "formats.md")])
def test_a_generated_chapter_is_current(chapter, page):
    made = (support.ROOT / "docs" / page).read_text()
    assert made == reference(chapter), "`make docs` writes it anew"


def test_the_chapters_of_the_readme_are_current():
    """They stand there without title and origin."""
    made = re.findall("^<!-- made by keytrail reference (\\w+) -->\n(.*?)^<!-- end -->$",
                      README.read_text(), re.S | re.M)
    assert made == [(chapter, reference(chapter).split("\n\n", 2)[2])
                    for chapter in ("events", "refusals")], "`make docs` writes it anew"


def test_the_measured_figures_are_those_of_the_report():
    """`make bench` writes both, and the plots."""
    shown = README.read_text().split("<!-- measured by `make bench` -->\n")[1].split("<!-- measured: end -->")[0]
    report = (support.ROOT / "docs/bench/report.md").read_text()
    assert shown.strip() and shown.replace("(docs/bench/", "(").strip() in report


@pytest.mark.parametrize("member", [1, 2], ids=["requests", "handshakes"])
def test_each_refusal_of_the_table_has_its_row(member):
    """As the header has them, of which the program is made."""
    header = (support.ROOT / "include/keytrail/refusal.h").read_text()
    table = re.findall(r"#define REFUSAL_\w+\(X\)(.*?)\n\n", header, re.S)[member - 1]
    labels = set(re.findall(r'\bX\(\w+,.*?"(\w+)"', table, re.S)) - {"none"}
    assert labels and labels <= set(re.findall(r"^\| \S+ \| \S+ \| `(\w+)` \|", README.read_text(), re.M))


def test_each_detail_that_is_named_in_a_source_has_its_row():
    """The rarest one too, that no test's trail holds."""
    sources = "".join(path.read_text() for folder in ("src/trail", "proxy")
                      for path in (support.ROOT / folder).rglob("*.c"))
    details = set(re.findall(r'\{ "(\w+)", EVENT_DETAIL_|\.(?:words|names|names_cut) = "(\w+)"|'
                             r'\b(?:NUMBER|STRING)\("(\w+)"', sources))
    named = {name for names in details for name in names if name}
    actions = set(re.findall(r'"(keytrail\.[a-z]+)"', sources))
    _, own = support.documented()
    assert len(named) > 40 and named <= set().union(*own.values())
    assert len(actions) > 14 and actions <= own.keys()


def test_what_the_readme_names_is_there():
    """Every relative link, and every path of the tree in the text."""
    text = README.read_text()
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    paths = re.findall(r"`((?:src|proxy|tests|include|certs|docker|docs)/[\w./-]*)`", text)
    assert links and paths
    missing = [p for p in links + paths if not (support.ROOT / p).exists()]
    assert missing == []


def test_the_readme_lists_the_targets_of_make():
    listed = subprocess.run(["make", "--no-print-directory", "-C", support.ROOT, "help"],
                            check=True, text=True, stdout=subprocess.PIPE).stdout
    text = README.read_text()
    assert [line for line in listed.splitlines() if f"\n{line.strip()}\n" not in text] == []


def rows(chapter, header):
    """The cells of the table with this first column."""
    part = README.read_text().split(f"\n## {chapter}\n")[1].split("\n## ")[0]
    table = part.split(f"\n| {header} |")[1].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")]
            for line in table.splitlines()[2:]]


def all_tests():
    found = {name for path in (support.ROOT / "tests" / "integration").glob("test_*.py")
             for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)}
    return found | {name for path in (support.ROOT / "tests" / "unit").glob("test_*.c")
                    for name in re.findall(r"^(\w+)\(void \*\*state\)", path.read_text(), re.M)}


def test_each_row_of_what_can_be_lost_names_tests_that_exist():
    found = all_tests()
    table = rows("What can be lost, and when", "fault")
    named = [(row[0], re.findall(r"`(\w+)`", row[-1])) for row in table]
    assert len(named) > 20
    assert [(fault, names) for fault, names in named if not names or set(names) - found] == []


def test_each_way_around_that_is_shut_names_tests_that_exist():
    table = rows("What keytrail cannot see", "not seen")
    named = [(row[0], re.findall(r"`(\w+)`", row[-1])) for row in table if row[-1] != "-"]
    assert len(named) > 3
    assert [(way, names) for way, names in named if not names or set(names) - all_tests()] == []


def test_the_table_of_cheats_says_what_is_tried_and_told():
    said = {row[0]: (int(row[1]), row[2]) for row in rows("Proof", "cheat")}
    tried = {name.replace("`", ""): told for name, (_, *told) in test_cheats.CHEATS.items()}
    assert said.keys() == tried.keys()
    assert [name for name, (status, words) in tried.items()
            if said[name][0] != status or not re.search(words, said[name][1])] == []


def test_the_table_of_sinks_has_each_fault_of_each():
    """`make sinks` writes it."""
    table = rows("Sinks", "sink")
    assert {(row[0], row[1]) for row in table} == \
        {(cls.name, fault) for cls, fault in test_sink_contract.PAIRS}
    may_lose = {cls.name for cls in test_sink_contract.peers.PEERS if not cls.keeps}
    assert [row for row in table if int(row[2].replace(",", "")) == 0] == []
    assert [row for row in table if row[0] not in may_lose and row[5] != "0"] == []


# ---- the tour ----


def tour():
    """The blocks of the tour: what is typed, and what is shown."""
    part = README.read_text().split("\n## A five-minute tour\n")[1].split("\n## ")[0]
    blocks = re.findall(r"^```(sh|text|json)\n(.*?)^```$", part, re.S | re.M)
    typed = "".join(text for kind, text in blocks if kind == "sh")
    shown = "".join(text for kind, text in blocks if kind != "sh")
    return typed, shown.splitlines()


def plain(line):
    for pattern, name in VARIES:
        line = re.sub(pattern, name, line)
    return line.strip()


def pattern_of(line):
    return re.compile(re.escape(plain(line)).replace(re.escape("..."), ".*"))


def run_in_bash(script, folder):
    """What the script prints.  It runs in a session of its own, of which nothing is left."""
    with open(folder / "output", "w+", encoding="utf-8") as out:
        with subprocess.Popen(["bash", "-u", "-c", script], cwd=folder, stdout=out,
                              stderr=subprocess.STDOUT, start_new_session=True) as bash:
            try:
                bash.wait(6 * support.PATIENCE)
            finally:
                try:
                    os.killpg(bash.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        out.seek(0)
        return out.read()


def test_the_tour_shows_what_happens(tmp_path):
    typed, shown = tour()
    for name, place in (("certs", support.ROOT), ("proxy", support.ROOT)):
        (tmp_path / name).symlink_to(place / name)
    (tmp_path / "build").mkdir()
    for program in (support.KEYTRAIL, support.KMS):
        (tmp_path / "build" / program.name).symlink_to(program)
    ports = dict(zip(PORTS, map(str, support.free_ports(len(PORTS)))))
    typed = re.sub("|".join(PORTS), lambda port: ports[port[0]], typed)
    # Nobody types so fast that the key service would not listen yet.
    typed = typed.replace("KMS=$!\n", "KMS=$!\nuntil (exec 3<>/dev/tcp/127.0.0.1/"
                          f"{ports['8444']}) 2>/dev/null; do sleep 0.05; done\n", 1)
    waits = iter(WAITS)
    typed = re.sub(r"^sleep .*$", lambda _: f"until {next(waits)}; do sleep 0.05; done", typed,
                   flags=re.M)
    output = run_in_bash(typed, tmp_path)
    assert next(waits, None) is None
    assert not support.REPORT.search(output), output
    happened = [plain(line) for line in output.splitlines()]
    missing = [line for line in shown if line.strip() not in ("", "...")
               and not any(pattern_of(line).fullmatch(h) for h in happened)]
    assert missing == [], output


def examples_of(chapter):
    """The sinks that a section of the chapter on sinks shows."""
    part = README.read_text().split(f"\n### {chapter}\n")[1].split("\n## ")[0].split("\n### ")[0]
    return [json.loads(text) for text in re.findall(r"^```json\n(.*?)^```$", part, re.S | re.M)]


def test_check_accepts_each_sink_over_http(keytrail, raw_backend, pki):
    sinks = examples_of("http")
    assert {sink.get("preset", "ndjson") for sink in sinks} == set(receiver.PATHS) - {"json"}
    sidecar = keytrail(raw_backend(b""), {"sinks": sinks}, start=False)
    folder = sidecar.folder / "secrets"
    folder.mkdir()
    (folder / "token").write_text("a-secret\n")
    (folder / "token").chmod(0o600)
    shutil.copy(pki["ca.pem"], folder / "ca.pem")
    subprocess.run([support.KEYTRAIL, "check", sidecar.file], check=True, env=sidecar.environment)

#!/usr/bin/env python3
"""The checks of this folder must find what they are for: each case plants one fault in a tree."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent

LAYERS = """
low:
high: low
third:
stream: high
cli: low
<event2/: stream
<jansson.h>: third
"""

CLEAN = {
    "tests/lint/layers.txt": LAYERS,
    "include/keytrail/low.h": "#include <stdint.h>\n",
    "include/keytrail/high.h": '#include "keytrail/low.h"\n',
    "src/base/low.c": '#include "keytrail/low.h"\n#include <sys/stat.h>\n',
    "src/base/high_part.c": '#include "keytrail/high.h"\n#include "keytrail/low.h"\n',
    "src/base/third.c": "#include <jansson.h>\n",
    "proxy/data/stream.h": '#include "keytrail/high.h"\n',
    "proxy/data/stream.c": '#include "data/stream.h"\n#include <event2/event.h>\n',
    "proxy/cli/run.c": '#include "keytrail/low.h"\n\nint\nrun_all(void)\n{\n}\n',
    "tests/model/trail.pml": "inline run_all(x)\ninline env_disk()\nproctype run_all()\n",
}

LAYER_FAULTS = [
    ("an include that no line allows", "src/base/low.c",
     '\n#include "keytrail/high.h"\n', "src/base/low.c:2: module low may not include"),
    ("an include of a module below", "tests/lint/layers.txt",
     "low: high\nhigh:\n", "tests/lint/layers.txt:1: low may include only modules above it"),
    ("a file of no module", "src/base/stray.c", "\n", "src/base/stray.c:1: belongs to no module"),
    ("a header of no module", "include/keytrail/stray.h", "\n",
     "include/keytrail/stray.h:1: belongs to no module"),
    ("a third-party header in the wrong module", "src/base/low.c",
     "#include <jansson.h>\n", "src/base/low.c:1: module low may not include <jansson.h>"),
    ("a folder of third-party headers", "src/base/high.c",
     "#include <event2/event.h>\n", "src/base/high.c:1: module high may not include <event2/"),
    ("a third-party header nobody listed", "src/base/low.c",
     "#include <curl/curl.h>\n", "src/base/low.c:1: <curl/curl.h> is neither"),
    ("proxy's header in src", "src/base/high.c",
     '#include "../../proxy/data/stream.h"\n', "src/base/high.c:1: module high may not include"),
    ("a header that is not there", "src/base/low.c",
     '#include "nowhere.h"\n', 'src/base/low.c:1: "nowhere.h" is not in'),
    ("an include with blanks around the #", "src/base/low.c",
     '  #  include  "keytrail/high.h"\n', "src/base/low.c:1: module low may not include"),
    ("a module listed twice", "tests/lint/layers.txt",
     LAYERS + "low:\n", "module low is listed twice"),
    ("a command with an include of its own", "proxy/cli/run.c",
     '#include "data/stream.h"\n', "proxy/cli/run.c:1: module cli may not include"),
]

TREE_FAULTS = [
    ("a mark of unfinished work", "src/a.c", "/* TO" "DO */\n", "src/a.c:1: unfinished"),
    ("a path of a machine", "README.md", "\n\nsee /ho" "me/ann/x\n", "README.md:3:"),
    ("a private key", "certs/x.txt", "-----BEGIN EC PRIVATE " "KEY-----\n" + "A" * 64 + "\n",
     "certs/x.txt:1: a private key"),
    ("a key file", "certs/server.key", "", "certs/server.key:1: a key file"),
    ("a blank at the end of a line", "src/a.c", "int x; \n", "src/a.c:1: blanks"),
]

MODEL_FAULTS = [
    ("a step that is no function", "tests/model/trail.pml",
     "\ninline run_some(x)\n", "tests/model/trail.pml:2: run_some is no function"),
    ("a process that is no function", "tests/model/trail.pml",
     "proctype gone()\n", "tests/model/trail.pml:1: gone is no function"),
    ("a function that is only called", "proxy/cli/run.c",
     "\trun_all(1);\n", "tests/model/trail.pml:1: run_all is no function"),
]


def run(check, files):
    with tempfile.TemporaryDirectory() as scratch:
        for name, text in files.items():
            path = pathlib.Path(scratch, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        done = subprocess.run([sys.executable, HERE / check, scratch],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return done.returncode, done.stdout


class Lint(unittest.TestCase):
    def expect(self, check, faults):
        for label, name, text, wanted in faults:
            with self.subTest(label):
                code, output = run(check, {**CLEAN, name: text})
                self.assertEqual(code, 1, output)
                self.assertIn(wanted, output)

    def test_clean_tree_passes(self):
        for check in ("check-layers", "check-tree", "check-model"):
            self.assertEqual(run(check, CLEAN), (0, ""))

    def test_layer_faults_are_found(self):
        self.expect("check-layers", LAYER_FAULTS)

    def test_tree_faults_are_found(self):
        self.expect("check-tree", TREE_FAULTS)

    def test_model_faults_are_found(self):
        self.expect("check-model", MODEL_FAULTS)


if __name__ == "__main__":
    unittest.main()

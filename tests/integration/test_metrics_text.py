"""The text of /metrics, as parsers see it that nobody here wrote: promtool and prometheus_client."""

import math
import re
import subprocess

import prometheus_client.openmetrics.parser as openmetrics
import prometheus_client.parser as text
import pytest

import support


def dump(what):
    program = support.BUILD / "unit" / "test_metrics"
    done = subprocess.run([program, what], stdout=subprocess.PIPE, check=True, timeout=60)
    return done.stdout.decode("ascii")


def families(parser, what):
    return {f.name: f for f in parser.text_string_to_metric_families(dump(what))}


@pytest.mark.parametrize("what", ["--dump", "--dump-empty"])
def test_promtool_has_nothing_to_say(what):
    done = subprocess.run(["promtool", "check", "metrics"], input=dump(what), text=True, timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert (done.returncode, done.stdout) == (0, "")


def test_both_formats_say_the_same():
    def samples(parsed):
        return {
            (s.name, *sorted((k, float(v) if k == "le" else v) for k, v in s.labels.items())): s.value
            for f in parsed.values() for s in f.samples
        }

    old = samples(families(text, "--dump"))
    new = samples(families(openmetrics, "--dump-openmetrics"))
    assert len(old) > 150
    assert old == new


def test_every_family_has_help_type_and_unit():
    parsed = families(openmetrics, "--dump-openmetrics")
    assert len(parsed) > 40
    for name, family in parsed.items():
        assert name.startswith("keytrail_")
        assert family.documentation.endswith("."), name
        assert family.type in ("counter", "gauge", "histogram", "info"), name
        assert (family.unit == "seconds") == name.endswith("_seconds"), name
        assert (family.unit == "bytes") == name.endswith("_bytes"), name
        assert family.samples, name


def test_histograms_add_up():
    for family in families(openmetrics, "--dump-openmetrics").values():
        if family.type != "histogram":
            continue
        for sink in {s.labels.get("sink") for s in family.samples}:
            samples = [s for s in family.samples if s.labels.get("sink") == sink]
            buckets = [(float(s.labels["le"]), s.value) for s in samples
                       if s.name.endswith("_bucket")]
            assert buckets == sorted(buckets)
            assert math.isinf(buckets[-1][0])
            values = {s.name: s.value for s in samples}
            assert values[family.name + "_count"] == buckets[-1][1] > 0
            assert values[family.name + "_sum"] > 0


def test_no_sample_stands_there_twice():
    names = re.findall(r"^([^#].*) \S+$", dump("--dump"), re.M)
    assert len(names) == len(set(names))

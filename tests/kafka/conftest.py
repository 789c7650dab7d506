"""Fixtures: those of the integration tests, and Kafka."""

import importlib.util

import pytest

import cluster as clusters

_spec = importlib.util.spec_from_file_location(
    "integration_fixtures", clusters.ROOT / "tests" / "integration" / "conftest.py")
_fixtures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_fixtures)
for _name in ("seed", "pki", "kms", "raw_backend", "schema", "keytrail", "signer",
              "whatever_is_accepted_fits_the_schema"):
    globals()[_name] = getattr(_fixtures, _name)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory, pki):
    made = clusters.Cluster(tmp_path_factory.mktemp("kafka"), pki)
    try:
        made.format()
        made.start()
        made.allow("Write", clusters.SECURED, "prefixed")
        yield made
    finally:
        made.close()

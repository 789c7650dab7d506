"""docker/compose.yaml: what it mounts is there and fits together, as far as can be told without an engine."""

import json
import subprocess
import zipfile

import jsonschema
import pytest
import yaml

import support

FOLDER = support.ROOT / "docker"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]


def mounts(service):
    """{target: source}"""
    return {target: source for source, target, *_ in
            (volume.split(":") for volume in SERVICES[service]["volumes"])}


def source_of(service, path):
    """The file of this tree that a service finds there."""
    target = max((t for t in mounts(service) if path == t or path.startswith(t + "/")), key=len)
    return FOLDER / mounts(service)[target] / path[len(target):].lstrip("/")


@pytest.mark.parametrize("file", ["compose.yaml", "fleet/compose.yaml"])
def test_it_is_what_the_specification_of_compose_allows(file):
    """By the schema that check-jsonschema brings; a member that it has not is told."""
    package, = (support.ROOT / "build" / "vendor" / "check-jsonschema").glob("*.whl")
    with zipfile.ZipFile(package) as wheel:
        schema = json.loads(wheel.read("check_jsonschema/builtin_schemas/vendor/compose-spec.json"))
    judge = jsonschema.validators.validator_for(schema)(schema)
    compose = yaml.safe_load((FOLDER / file).read_text())
    judge.validate(compose)
    compose["services"]["kms"]["volume"] = []
    assert not judge.is_valid(compose)


def test_what_it_mounts_is_there():
    for service in SERVICES:
        for source in mounts(service).values():
            assert source in COMPOSE["volumes"] if "/" not in source else (FOLDER / source).exists()
    for service in SERVICES.values():
        assert service.keys() & {"build", "image"}
        assert "build" in service or service["image"].rpartition(":")[2] not in ("", "latest")


def test_the_sidecar_may_do_nothing_it_need_not():
    sidecar = SERVICES["keytrail"]
    assert sidecar["read_only"] and sidecar["cap_drop"] == ["ALL"]
    assert sidecar["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for service in SERVICES.values()
               for port in service.get("ports", []))


def test_the_routes_file_is_good_with_what_make_pki_makes(tmp_path, pki):
    """With the folders of this machine for those that are mounted."""
    text = source_of("keytrail", "/etc/keytrail/routes.json").read_text()
    made = tmp_path / "pki"
    environment = {"PATH": f"{support.ROOT / 'certs'}:{support.BUILD}:/usr/bin:/bin",
                   "KEYTRAIL_ROUTES_DIR": str(support.ROUTES.parent)}
    for _ in range(2):  # it may be run again
        subprocess.run([FOLDER / "make-pki", made], check=True, env=environment)
    for target in mounts("keytrail"):
        text = text.replace(f'"{target}/', f'"{tmp_path}/{target.rpartition("/")[2]}/')
    file = tmp_path / "routes.json"
    file.write_text(text)
    done = subprocess.run([support.KEYTRAIL, "check", file], check=False, text=True, env=environment,
                          capture_output=True)
    assert done.returncode == 0, done.stderr
    for option in SERVICES["kms"]["command"]:
        if option.startswith("/pki/"):
            assert (made / option[len("/pki/"):]).exists()


def test_prometheus_and_grafana_find_what_they_are_for():
    routes = json.loads(source_of("keytrail", "/etc/keytrail/routes.json").read_text())
    config = yaml.safe_load(source_of("prometheus", "/etc/prometheus/prometheus.yml").read_text())
    target, = config["scrape_configs"][0]["static_configs"][0]["targets"]
    host, _, port = target.partition(":")
    assert host in SERVICES and routes["metrics"]["address"].endswith(f":{port}")
    assert all(source_of("prometheus", f"/etc/prometheus/{file}").exists()
               for file in config["rule_files"])
    provisioned = "/etc/grafana/provisioning"
    data = yaml.safe_load(source_of("grafana", f"{provisioned}/datasources/prometheus.yml").read_text())
    assert data["datasources"][0]["url"] == "http://prometheus:9090" and "prometheus" in SERVICES
    boards = yaml.safe_load(source_of("grafana", f"{provisioned}/dashboards/keytrail.yml").read_text())
    folder = boards["providers"][0]["options"]["path"]
    assert json.loads(source_of("grafana", f"{folder}/keytrail.json").read_text())["uid"] == "keytrail"

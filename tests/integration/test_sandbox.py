"""What the running sidecar has given up: told of, in force, and required where that is asked for."""

import ctypes
import json
import os
import pwd
import shutil
import stat
import tempfile
from pathlib import Path

import pytest

from faults import said, wait_said
from oracle import KEY
from support import BUILD, KEYTRAIL, PATIENCE, ROUTES, SANITIZED, Keytrail, merge, segments, wait_for
from test_startup import BAD_CONFIGURATION, FAILED, start_in_vain

NO_SECCOMP = BUILD / "keytrail-noseccomp"
OLD_KERNEL = Path(__file__).parent / "old_kernel"
USER, GROUP = "daemon", "adm"  # which Debian always has

pytestmark = pytest.mark.skipif(SANITIZED, reason="a sanitizer needs what the sandbox takes")
as_root = pytest.mark.skipif(os.getuid() != 0, reason="root alone can become another user")

needs_landlock = pytest.mark.skipif(ctypes.CDLL(None).syscall(444, 0, 0, 1) < 2,
                                    reason="the kernel has no landlock")


@pytest.fixture
def own_folder(pki):
    """A folder that USER may pass, with its own copy of the PKI, and an empty one that is USER's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for file in ("ca.pem", "server.pem", "server.key"):
            shutil.copy(pki[file], folder)
            (folder / file).chmod(0o644)
        (folder / "its").mkdir()
        shutil.chown(folder / "its", USER, USER)
        yield folder


def of_user(folder, **more):
    return merge({"user": USER, "listen": {"tls": {"certificate": str(folder / "server.pem"),
                                                   "key": str(folder / "server.key")}},
                  "upstream": {"tls": {"ca": str(folder / "ca.pem")}},
                  "include": [str(folder / "set.json")],
                  "audit": {"trail": str(folder / "its" / "trail")}}, more)


@pytest.fixture
def start_as_user(own_folder, pki, kms):
    """start_as_user(**config): a sidecar of USER's, stopped and its trail checked at the end."""
    made = []
    shutil.copy(ROUTES, own_folder / "set.json")

    def start(**config):
        made.append(Keytrail(own_folder / "keytrail", pki, kms, of_user(own_folder, **config)))
        return made[-1].start()
    yield start
    for sidecar in made:
        sidecar.finish()


def parts(sidecar):
    sandbox = json.loads(sidecar.fetch("admin", "/status"))["sandbox"]
    return {p["name"]: p for p in sandbox["parts"]}


def proc(sidecar, name):
    """A file of /proc/<pid>, as {first word: the others}."""
    lines = Path(f"/proc/{sidecar.process.pid}/{name}").read_text(encoding="ascii").splitlines()
    return {line.partition(":")[0]: line.partition(":")[2].split() for line in lines}


def test_what_is_in_force_is_told(keytrail):
    sidecar = keytrail()
    found = parts(sidecar)
    assert proc(sidecar, "status")["NoNewPrivs"] == ["1"] and found["no_new_privs"]["on"]
    limits = Path(f"/proc/{sidecar.process.pid}/limits").read_text(encoding="ascii")
    assert "Max core file size        0                    0 " in limits and found["no_core"]["on"]
    assert found["not_dumpable"]["on"]
    assert found["user"]["on"] == (os.getuid() != 0)
    started = sidecar.own("keytrail.start")[0]["details"]["sandbox"]
    assert set(started.split()) == {name for name, p in found.items() if p["on"]}
    missing = any(not p["on"] for p in found.values())
    off = (wait_said if missing else said)(sidecar, "sandbox")
    assert len(off) == (1 if missing else 0)
    for name, p in found.items():
        assert p["on"] or f"{name} ({p['detail']})" in off[0]


@as_root
def test_it_becomes_its_own_user(start_as_user, own_folder):
    sidecar = start_as_user(audit={"group": GROUP})
    who = pwd.getpwnam(USER)
    status = proc(sidecar, "status")
    assert status["Uid"] == [str(who.pw_uid)] * 4 and status["Gid"] == [str(who.pw_gid)] * 4
    assert status["CapEff"] == status["CapPrm"] == ["0000000000000000"]
    assert parts(sidecar)["user"] == {"name": "user", "on": True, "detail": f"uid {who.pw_uid}"}
    assert parts(sidecar)["not_dumpable"]["on"]
    assert os.stat(f"/proc/{sidecar.process.pid}/environ").st_uid == 0, "it may be dumped"
    correlation = "00000000-0000-4000-8000-000000000001"
    assert sidecar.call("GET", f"/api/v2/keys/{KEY}", {"Correlation-Id": correlation}).status < 500
    sidecar.event(correlation)
    segment = segments(sidecar.trail_dir)[0]
    assert (segment.owner(), segment.group()) == (USER, GROUP)
    assert stat.S_IMODE(segment.stat().st_mode) == 0o640
    assert sidecar.reload(limits={"fields": 99})["outcome"] == "success"


@as_root
def test_its_user_takes_over_from_itself(start_as_user):
    """Neither is root by then, nor may it look at the other."""
    sidecar = start_as_user()
    old = sidecar.process
    sidecar.arguments = ("--takeover",)
    sidecar.start()
    assert old.wait(PATIENCE) == 0
    assert [e["details"]["takeover"] for e in sidecar.own("keytrail.start")] == [False, True]


@as_root
def test_what_a_reload_reads_must_be_readable_to_that_user(own_folder, pki, kms):
    shutil.copy(ROUTES, own_folder / "set.json")
    (own_folder / "server.key").chmod(0o600)
    code, line = start_in_vain(Keytrail(own_folder / "keytrail", pki, kms, of_user(own_folder)))
    assert code == BAD_CONFIGURATION
    assert line == f'"user" is "{USER}": {own_folder}/server.key: Permission denied'


@as_root
def test_a_user_that_is_not_there(tmp_path, pki, kms):
    code, line = start_in_vain(Keytrail(tmp_path / "k", pki, kms, {"user": "nobody-at-all"}))
    assert (code, line) == (BAD_CONFIGURATION, '"user": there is no user "nobody-at-all"')


@as_root
def test_what_is_required_and_not_in_force_prevents_a_start(tmp_path, pki, kms):
    code, line = start_in_vain(Keytrail(tmp_path / "k", pki, kms, {"sandbox": "require"}))
    assert code == FAILED
    assert line == ('"sandbox" is "require", and these are not in force: user (it runs as root)')
    assert not (tmp_path / "k" / "trail").exists()


@as_root
def test_what_is_required_and_in_force(start_as_user):
    sidecar = start_as_user(sandbox="require")
    assert all(p["on"] for p in parts(sidecar).values())
    assert json.loads(sidecar.fetch("admin", "/status"))["sandbox"]["required"] is True
    assert not [line for line in sidecar.log_lines() if line["event"] == "sandbox"]


# ---- files ----

def test_hup_may_name_what_is_beside_what_was_named(keytrail, pki):
    sidecar = keytrail()
    shutil.copy(pki["server.pem"], sidecar.folder / "beside.pem")
    tls = {"certificate": str(sidecar.folder / "beside.pem")}
    assert sidecar.reload(listen={"tls": tls})["outcome"] == "success"


@needs_landlock
@pytest.mark.parametrize("what", ["certificate", "sink"])
def test_hup_may_not_name_what_is_elsewhere(keytrail, pki, tmp_path, what):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(pki["server.pem"], elsewhere)
    sidecar = keytrail()
    over, named = {
        "certificate": ({"listen": {"tls": {"certificate": str(elsewhere / "server.pem")}}},
                        elsewhere / "server.pem"),
        "sink": ({"sinks": [{"name": "s", "type": "file", "path": str(elsewhere / "s")}]},
                 elsewhere),
    }[what]
    assert sidecar.reload(**over)["outcome"] == "failure"
    assert wait_said(sidecar, "reload_failed") == [
        f'{named} is not what the process may use since its start ("sandbox"): restart; '
        'the running configuration stays']
    sidecar.stop()
    assert sidecar.start().call("GET", "/livez").status < 500


def without(what):
    return {"KEYTRAIL": str(KEYTRAIL), "WITHOUT": what}


def test_a_kernel_without_landlock_is_told_of_once(keytrail):
    sidecar = keytrail(start=False, environment=without("landlock"))
    sidecar.program = OLD_KERNEL
    sidecar.start()
    assert parts(sidecar)["landlock"] == {"name": "landlock", "on": False,
                                          "detail": "the kernel has none"}
    told, = wait_said(sidecar, "sandbox")
    assert "landlock (the kernel has none)" in told
    assert sidecar.call("GET", "/livez").status < 500


@as_root
def test_a_kernel_without_landlock_where_it_is_required(own_folder, pki, kms):
    shutil.copy(ROUTES, own_folder / "set.json")
    sidecar = Keytrail(own_folder / "keytrail", pki, kms, of_user(own_folder, sandbox="require"),
                       environment=without("landlock"))
    sidecar.program = OLD_KERNEL
    code, line = start_in_vain(sidecar)
    assert code == FAILED
    assert line == ('"sandbox" is "require", and these are not in force: '
                    'landlock (the kernel has none)')
    assert not (own_folder / "its" / "trail").exists()


# ---- system calls ----

def threads(sidecar):
    """{name of a thread: what proc says of it}, when all have begun."""
    return {name: proc(sidecar, f"task/{task.name}/status") for name, task in sidecar.threads().items()}


def test_each_thread_has_a_filter(keytrail, signer, tmp_path):
    def sink(name):
        return {"name": name, "type": "file", "path": str(tmp_path / name)}
    sidecar = keytrail(config={"sinks": [sink("first")], "audit": {"sign": {"file": str(signer[0])}}})
    detail = parts(sidecar)["seccomp"]["detail"]
    if detail == "it was built without libseccomp":
        pytest.skip(detail)
    assert sidecar.reload(sinks=[sink("first"), sink("late")])["outcome"] == "success"
    names = {"keytrail", "journal", "ledger", "reader", "follow", "sink first", "sink late",
             "worker-0", "worker-1"}
    found = wait_for(lambda: t if (t := threads(sidecar)).keys() == names else None, "the threads")
    assert {n: s["Seccomp"] for n, s in found.items()} == dict.fromkeys(names, ["2"])
    assert found["sink late"]["Seccomp_filters"] == ["2"], "its own, and what it has of main"
    assert parts(sidecar)["seccomp"] == {"name": "seccomp", "on": True, "detail":
                                         "main worker journal ledger reader follow sink publish"}


def syslog(name, port, **more):
    return {"name": name, "type": "syslog", "address": f"127.0.0.1:{port}", "transport": "tcp", **more}


def has_seccomp(sidecar):
    detail = parts(sidecar)["seccomp"]["detail"]
    if detail == "it was built without libseccomp":
        pytest.skip(detail)


def test_hup_may_add_a_sink_of_the_network_where_there_is_one(keytrail, dead_port):
    """Its thread has a filter of its own, and what main may, too."""
    sidecar = keytrail(config={"sinks": [syslog("first", dead_port())]})
    has_seccomp(sidecar)
    assert sidecar.reload(sinks=[syslog("first", dead_port()),
                                 syslog("late", dead_port())])["outcome"] == "success"
    found = wait_for(lambda: t if "publish late" in (t := threads(sidecar)) else None, "the thread")
    assert {found[n]["Seccomp_filters"][0] for n in ("publish first", "publish late")} == {"1", "2"}

    def refused():
        """It may try to connect."""
        sinks = json.loads(sidecar.fetch("admin", "/status"))["sinks"]
        return all(s["lastError"].endswith("connect: Connection refused") for s in sinks)
    wait_for(refused, "both to try")


def test_hup_may_not_bring_the_first_sink_of_the_network(keytrail, dead_port):
    sidecar = keytrail()
    has_seccomp(sidecar)
    assert sidecar.reload(sinks=[syslog("far", dead_port())])["outcome"] == "failure"
    assert wait_said(sidecar, "reload_failed") == [
        'sink far uses the network, which the process gave up at its start ("sandbox"): '
        "restart; the running configuration stays"]


def test_hup_may_not_have_a_sink_begin_to_use_the_network(keytrail, dead_port, tmp_path):
    """Whose thread has given it up."""
    far = syslog("far", dead_port())
    sidecar = keytrail(config={"sinks": [far, {"name": "near", "type": "stdout"}]})
    sidecar.reload(sinks=[far, syslog("near", dead_port())])
    assert wait_said(sidecar, "reload_failed") == [
        "sink near: its thread began without the network: restart, or give it another "
        "name; the running configuration stays"]


def test_a_thread_without_its_filter_is_told_of(keytrail):
    sidecar = keytrail(start=False, environment=without("filter"))
    sidecar.program = OLD_KERNEL
    sidecar.start()
    found = parts(sidecar)["seccomp"]
    if found["detail"] == "it was built without libseccomp":
        pytest.skip(found["detail"])
    assert found == {"name": "seccomp", "on": False,
                     "detail": "a thread could not take its filter"}
    told, = wait_said(sidecar, "sandbox")
    assert "seccomp (a thread could not take its filter)" in told
    assert sidecar.call("GET", "/livez").status < 500


@as_root
def test_a_thread_without_its_filter_where_that_is_required(own_folder, pki, kms):
    shutil.copy(ROUTES, own_folder / "set.json")
    sidecar = Keytrail(own_folder / "keytrail", pki, kms, of_user(own_folder, sandbox="require"),
                       environment=without("filter"))
    sidecar.program = OLD_KERNEL
    code, line = start_in_vain(sidecar)
    assert code == FAILED
    assert line == 'thread "reader" could not take its seccomp filter'


def test_a_program_without_libseccomp(keytrail):
    sidecar = keytrail(start=False)
    sidecar.program = NO_SECCOMP
    sidecar.start()
    assert proc(sidecar, "status")["Seccomp"] == ["0"]
    assert parts(sidecar)["seccomp"] == {"name": "seccomp", "on": False,
                                         "detail": "it was built without libseccomp"}
    assert sidecar.call("GET", "/livez").status < 500


@as_root
def test_a_program_without_libseccomp_where_it_is_required(own_folder, pki, kms):
    shutil.copy(ROUTES, own_folder / "set.json")
    sidecar = Keytrail(own_folder / "keytrail", pki, kms, of_user(own_folder, sandbox="require"))
    sidecar.program = NO_SECCOMP
    code, line = start_in_vain(sidecar)
    assert code == FAILED
    assert line == ('"sandbox" is "require", and these are not in force: '
                    'seccomp (it was built without libseccomp)')


def test_switched_off(keytrail):
    sidecar = keytrail(config={"sandbox": "off"})
    assert proc(sidecar, "status")["Seccomp"] == ["0"]
    found = parts(sidecar)
    assert not found["seccomp"]["on"]
    assert found["landlock"] == {"name": "landlock", "on": False, "detail": '"sandbox" is "off"'}
    assert found["no_new_privs"]["on"]

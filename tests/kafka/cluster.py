"""Apache Kafka itself: three brokers that are their own controllers, one process each."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "integration"))

from support import free_ports, wait_for  # noqa: E402  pylint: disable=wrong-import-position

JARS = ROOT / "build" / "vendor" / "kafka"
BROKERS = 3
PATIENCE = 120
USER, PASSWORD = "keytrail", "for-tests-only"
SECURED = "secured"  # what the names of topics begin with that the user may write to

PROPERTIES = """
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAIN://127.0.0.1:{plain},SECURE://127.0.0.1:{secure},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAIN://127.0.0.1:{plain},SECURE://127.0.0.1:{secure}
listener.security.protocol.map=PLAIN:PLAINTEXT,SECURE:SASL_SSL,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAIN
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.secure.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}="{password}";
listener.name.secure.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.secure.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
listener.name.secure.ssl.keystore.type=PEM
listener.name.secure.ssl.keystore.location={pem}
log.dirs={data}
num.network.threads=2
num.io.threads=2
num.partitions=1
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
replica.lag.time.max.ms=5000
controller.quorum.election.timeout.ms=1000
controller.quorum.fetch.timeout.ms=2000
offsets.topic.replication.factor=3
"""


def java(*arguments, **options):
    """Which ends with the tests, however they end."""
    command = ["setpriv", "--pdeathsig", "KILL", "java", "-Xmx256m", "-XX:+UseSerialGC",
               "-XX:TieredStopAtLevel=1", "-cp", f"{JARS}/*"]
    return subprocess.Popen([*command, *arguments], stdin=subprocess.DEVNULL, start_new_session=True,
                            stderr=subprocess.STDOUT, **options)


def tool(*arguments):
    """One of Kafka's own; what it prints."""
    process = java(*arguments, stdout=subprocess.PIPE, text=True)
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, out
    return out


class Cluster:
    """Brokers 1, 2 and 3; .brokers and .secure are their addresses."""

    def __init__(self, folder, pki):
        self.folder = Path(folder)
        ports = free_ports(3 * BROKERS)
        self.plain, self.secured, controllers = (ports[i::3] for i in range(3))
        self.brokers = ",".join(f"127.0.0.1:{p}" for p in self.plain)
        self.secure = ",".join(f"127.0.0.1:{p}" for p in self.secured)
        self.processes = {}
        pem = self.make_pem(pki)
        voters = ",".join(f"{i + 1}@127.0.0.1:{p}" for i, p in enumerate(controllers))
        for i in range(BROKERS):
            self.file(i + 1).write_text(PROPERTIES.format(
                node=i + 1, voters=voters, plain=self.plain[i], secure=self.secured[i],
                controller=controllers[i], user=USER, password=PASSWORD, pem=pem,
                data=self.folder / f"data{i + 1}"))

    def file(self, node):
        return self.folder / f"server{node}.properties"

    def make_pem(self, pki):
        """A key and its chain as Kafka reads them."""
        key = subprocess.run(["openssl", "pkcs8", "-topk8", "-nocrypt", "-in", pki["kms.key"]],
                             check=True, stdout=subprocess.PIPE, text=True).stdout
        pem = self.folder / "broker.pem"
        pem.write_text(key + Path(pki["kms.pem"]).read_text() + Path(pki["ca.pem"]).read_text())
        return pem

    def format(self):
        scram = [f"SCRAM-SHA-{n}=[name={USER},password={PASSWORD}]" for n in (256, 512)]
        for node in range(1, BROKERS + 1):
            tool("kafka.tools.StorageTool", "format", "-t", "keytrailkeytrailkeytr", "-c",
                 str(self.file(node)), "--add-scram", scram[0], "--add-scram", scram[1])

    # ---- brokers ----

    def start(self, *nodes):
        for node in nodes or range(1, BROKERS + 1):
            with open(self.folder / f"broker{node}.log", "ab") as log:
                self.processes[node] = java("kafka.Kafka", str(self.file(node)), stdout=log)
        for node in nodes or range(1, BROKERS + 1):
            self.wait_listening(node)

    def wait_listening(self, node):
        def listens():
            assert self.processes[node].poll() is None, self.log(node)
            with socket.socket() as s:
                return s.connect_ex(("127.0.0.1", self.plain[node - 1])) == 0
        wait_for(listens, f"broker {node}", PATIENCE)

    def log(self, node):
        return (self.folder / f"broker{node}.log").read_text()[-4000:]

    def end(self, node, how):
        process = self.processes.pop(node)
        process.send_signal(how)
        process.wait(PATIENCE)

    def stop(self, *nodes):
        for node in nodes:
            self.end(node, signal.SIGTERM)

    def kill(self, node):
        self.end(node, signal.SIGKILL)

    def close(self):
        for node in list(self.processes):
            self.kill(node)

    # ---- topics ----

    def make_topic(self, name, partitions=6, **settings):
        settings = {"min.insync.replicas": 2, **{k.replace("_", "."): v for k, v in settings.items()}}
        pairs = [word for k, v in settings.items() for word in ("--config", f"{k}={v}")]
        tool("org.apache.kafka.tools.TopicCommand", "--bootstrap-server", self.brokers, "--create",
             "--topic", name, "--partitions", str(partitions), "--replication-factor", "3", *pairs)
        wait_for(lambda: all(len(self.describe(name, f"127.0.0.1:{port}")) == partitions
                             for port in self.plain), "every broker to know the topic", PATIENCE)

    def allow(self, operation, topics, pattern="literal"):
        """What the user may; without it nothing."""
        tool("kafka.admin.AclCommand", "--bootstrap-server", self.brokers, "--add", "--topic", topics,
             "--resource-pattern-type", pattern, "--allow-principal", f"User:{USER}",
             "--operation", operation)

    def describe(self, name, brokers=None):
        """Of each partition leader and replicas in sync; kcat asks for the topic of all that there
        are, so that it is not made."""
        text = subprocess.run(["kcat", "-L", "-J", "-b", brokers or self.brokers], check=True,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=PATIENCE).stdout
        return {p["partition"]: (p["leader"], {r["id"] for r in p["isrs"]})
                for topic in json.loads(text)["topics"] if topic["topic"] == name
                for p in topic["partitions"]}

    def wait_in_sync(self, name):
        wait_for(lambda: all(len(isr) == BROKERS for _, isr in self.describe(name).values()),
                 "all replicas to be in sync", PATIENCE)

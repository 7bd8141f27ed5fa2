"""Examples of who is let in: `keep-clients-out` with CrowdSec and places, `client-certificates`, and `shared-limits` of two machines."""

import contextlib
import json
import shutil
import socket
from functools import partial
from pathlib import Path

from tests.interop.children import PATIENCE, Child, answered, eventually, output_of, run, write
from tests.interop.originals import Named, client_hello
from tests.interop.servers import start_redis
from tests.support.certificates import Identity, make_authority
from tests.support.kit import EXAMPLES, Example, Namespace, ScenarioTestCase, Twist
from tests.support.places import country, system, write_places

_PUBLIC, _CLIENT, _LISTED = "192.0.2.1", "203.0.113.7", "198.51.100.7"
_HELLO = b"SSH-2.0-test\r\n"

_CONFIG = """\
common: {{daemonize: false, log_media: stdout, log_level: info}}
config_paths:
  config_dir: {folder}
  data_dir: {folder}
  simulation_path: {folder}/simulation.yaml
  hub_dir: {folder}/hub
  index_path: {folder}/hub/.index.json
  notification_dir: {folder}
  plugin_dir: {folder}
db_config: {{type: sqlite, log_level: info, db_path: {folder}/crowdsec.db}}
api:
  client: {{insecure_skip_verify: false, credentials_path: {folder}/local.yaml}}
  server: {{log_level: info, listen_uri: "127.0.0.1:8080", profiles_path: {folder}/profiles.yaml}}
"""
_PROFILES = """\
name: default
filters: [Alert.Remediation == true]
decisions: [{type: ban, duration: 4h}]
on_success: break
"""


_PROVIDER, _FRENCH, _GERMAN = _CLIENT, _LISTED, "198.51.100.8"

_NAME = "ops.example.com"


class KeepClientsOutTests(ScenarioTestCase):
    addresses = (_PUBLIC, _CLIENT, _LISTED, _GERMAN)

    def leads(self, client: str = _CLIENT, said: bytes = _HELLO) -> str | None:
        """Return the server that a client comes to; nothing if it is closed."""
        return answered((_PUBLIC, 443), said, client)

    def test_decisions(self) -> None:
        """A ban counts within eleven seconds and ends the connection; when it is deleted, the client is let in again."""
        # The Local API of CrowdSec, which neither reads logs nor tells anybody else.
        folder, rules = self.make_folder("crowdsec"), self.folder / "rules"
        config = write(folder / "config.yaml", _CONFIG.format(folder=folder))
        write(folder / "simulation.yaml", "simulation: false\n")
        write(folder / "profiles.yaml", _PROFILES)
        write(folder / "hub/.index.json", "{}")
        cscli = partial(output_of, "cscli", "-c", config)
        cscli("machines", "add", "--auto", "-f", folder / "local.yaml")
        ready = r"listening on 127\.0\.0\.1:8080"
        crowdsec = self.own(Child("crowdsec", "-c", config, "-no-cs", ready=ready))
        shutil.copytree(EXAMPLES / "keep-clients-out", rules)
        key = cscli("bouncers", "add", "txmux", "-o", "raw").decode()
        write(rules / "secrets/crowdsec.key", key)
        Named(self, "ssh", port=22)
        mux = self.own(Example(rules / "rules.ini"))
        mux.child.wait_for("receiving its bans")

        def asked() -> int:
            return crowdsec.output.count("GET /v1/decisions/stream")

        self.assertEqual(self.leads(_LISTED), "")
        place = ((_PUBLIC, 443), PATIENCE, (_CLIENT, 0))
        connected = self.enterContext(socket.create_connection(*place))
        connected.sendall(_HELLO)
        self.assertEqual(connected.recv(100), b"ssh\n")
        cscli("decisions", "add", "--ip", _CLIENT, "--duration", "1h")
        self.assertEqual(len(json.loads(cscli("decisions", "list", "-o", "json"))), 1)
        before = asked()
        with contextlib.suppress(ConnectionResetError):
            self.assertEqual(connected.recv(1), b"")
        # That is as often as somebody asks every ten seconds who gets its answer at once.
        self.assertLessEqual(asked(), before + 2)
        self.assertEqual(self.leads(), "")

        def ends() -> set[tuple[str, str]]:
            return {(line["reason"], line["route"]) for line in mux.lines()}

        eventually(lambda: ("denied", "ssh") in ends(), "the connection's end is logged")
        cscli("decisions", "delete", "--ip", _CLIENT)
        eventually(lambda: self.leads() == "ssh", "the client is let in again")

    def test_places(self) -> None:
        """Clients of the country come to the operators' site, those of the provider nowhere; a database that is renewed counts."""
        databases = self.make_folder("GeoIP")
        countries = {f"{_FRENCH}/32": country("FR"), f"{_GERMAN}/32": country("DE")}
        write_places(databases / "GeoLite2-Country.mmdb", countries)
        providers = databases / "GeoLite2-ASN.mmdb"
        write_places(providers, {"203.0.113.0/24": system(64500)})
        for port, name in ((8443, "site"), (9443, "operators")):
            Named(self, name, port=port)
        self.own(Example(EXAMPLES / "keep-clients-out/places.ini", {"/var/lib": databases.parent}))
        admin, www = client_hello("admin.example.com"), client_hello("www.example.com")
        for client, hello, server in (
            (_FRENCH, admin, "operators"), (_GERMAN, admin, "site"), (_GERMAN, www, "site"),
            (_PROVIDER, www, ""),
        ):  # fmt: skip
            self.assertEqual(self.leads(client, hello), server, client)
        write_places(providers, {f"{_GERMAN}/32": system(64501)})
        eventually(lambda: self.leads(_GERMAN, www) == "", "the provider is kept out")
        eventually(lambda: self.leads(_PROVIDER, www) == "site", "the other comes in")

    def ping(self, shown: Identity | None) -> bytes:
        options = ["--tls", "--sni", _NAME, "--cacert", str(self.files / "authority.pem")]
        if shown is not None:
            own = str(shown.write(self.folder / "client.pem", key=True))
            options += ["--cert", own, "--key", own]
        return run("redis-cli", "-p", "443", *options, "PING").stdout.strip()

    def test_clients(self) -> None:
        """Who is of the unit, or has the name, is let in; who has none, one of another unit or authority, or one that was revoked, is not: the log says who it was, and why."""
        self.files = self.make_folder("ssl/ops")
        authority = make_authority("Operators")
        issue = partial(authority.issue, usage=False)
        revoked = issue("carol", units=("ops",))
        authority.issue(_NAME).write(self.files / "server.pem", key=True)
        authority.write(self.files / "authority.pem")
        (self.files / "revoked.pem").write_bytes(authority.revoke(revoked))
        self.own(start_redis(self.folder, 6379))
        rules = EXAMPLES / "client-certificates/rules.ini"
        mux = self.own(Example(rules, {"/etc/ssl": self.files.parent}))
        stranger = make_authority("Others").issue("alice", usage=False, units=("ops",))
        for shown, who, why in (
            (issue("alice", units=("ops",)), "alice", ""),
            (issue("deploy.example.com"), "deploy.example.com", ""),
            (None, "", "has sent no certificate"),
            (issue("bob", units=("sales",)), "", "is not one of those in allow_client"),
            (stranger, "", "is of an authority that is not in tls_client_ca"),
            (revoked, "", "was revoked"),
        ):
            self.assertEqual(self.ping(shown) == b"PONG", bool(who))
            line = mux.take_one()
            if who:
                self.assertEqual((line["reason"], line["server"]), ("done", "127.0.0.1:6379"))
                self.assertIn(who, line["facts"]["tls_client"])
            else:
                self.assertEqual(line["reason"], "tls-failed")
                self.assertIn(why, line["facts"]["tls_error"])


_MACHINES = ("10.0.0.11", "10.0.0.12")
_SERVERS = ("10.0.0.21", "10.0.0.22")
_CLIENTS = tuple(f"10.0.0.{number}" for number in range(101, 109))
_BUSY = "10.0.0.109"  # for a second after its connections, each machine believes that the other one has them
_TLS_HELLO = client_hello("www.example.com")


class SharedLimitsTests(ScenarioTestCase):
    """The example on two machines; clients, servers and Redis are in the middle."""

    def start(self, number: int, rules: Path) -> Path:
        machine = Namespace(self)
        self.network.plug(machine, _MACHINES[number])
        folder = self.make_folder(f"run{number}")
        before = (*machine.command, "env", f"RUNTIME_DIRECTORY={folder}")
        self.own(Twist("--rules", rules, before=before)).child.wait_for("Starting reactor")
        return folder

    def connect(self, machine: int, client: str) -> tuple[socket.socket, str]:
        """Connect as a client, and give which server it has come to; it stays."""
        place = ((_MACHINES[machine], 443), PATIENCE, (client, 0))
        connected = self.enterContext(socket.create_connection(*place))
        connected.sendall(_TLS_HELLO)
        return connected, connected.recv(100).decode().strip()

    def leads(self, machine: int, client: str) -> str | None:
        return answered((_MACHINES[machine], 443), _TLS_HELLO, client)

    def test_two_machines(self) -> None:
        """A client comes to the same server by either. A ban of one machine ends its connection at the other one, and is taken back by any; what both have counts together."""
        self.network.make_lan("10.0.0.9", *_SERVERS, *_CLIENTS, _BUSY)
        example = (EXAMPLES / "shared-limits/rules.ini").read_text()
        rules = write(self.folder / "rules/rules.ini", example)
        write(rules.parent / "secrets/redis.password", "secret\n")
        own = ("--bind", "10.0.0.9", "--requirepass", "secret", "--save", "", "--dir", self.folder)
        self.own(Child("redis-server", *own, ready="[Rr]eady to accept connections"))
        for address in _SERVERS:
            Named(self, address, host=address, port=8443)
        folders = [self.start(number, rules) for number in (0, 1)]

        def txmux(machine: int, *words: str) -> str:
            place = f"unix:{folders[machine]}/rules.sock"
            return output_of("txmux", words[0], "--admin", place, *words[1:]).decode()

        found = [[self.connect(machine, one)[1] for one in _CLIENTS] for machine in (0, 1)]
        self.assertEqual(found[0], found[1])
        self.assertEqual({*found[0]}, {*_SERVERS})

        client = _CLIENTS[0]
        connected, server = self.connect(1, client)
        self.assertIn(server, _SERVERS)
        self.assertEqual(txmux(0, "ban", client, "1h", "passwords"), f"{client} is banned\n")
        with contextlib.suppress(ConnectionResetError):
            self.assertEqual(connected.recv(1), b"")
        self.assertIn("passwords", txmux(1, "bans"))
        self.assertEqual([self.leads(machine, client) for machine in (0, 1)], ["", ""])
        txmux(1, "unban", client)
        eventually(lambda: self.leads(0, client) in _SERVERS, "the client is let in again")

        for _ in range(15):
            self.assertIn(self.connect(0, _BUSY)[1], _SERVERS)
        # From half of the limit on, a machine asks what others have.
        for _ in range(10):
            with contextlib.suppress(ConnectionError):
                self.connect(1, _BUSY)
        eventually(lambda: self.leads(1, _BUSY) == "", "the sum is known to be above the limit")

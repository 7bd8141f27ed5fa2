"""psql reaches the server of its name through one port, by TLS that goes all the way."""

import os
import re
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import ClassVar

from tests.admin.processes import text_of
from tests.interop.children import Child, InteropTestCase, eventually, run
from tests.interop.servers import Certificate, make_certificate, start_postgres
from tests.support.each import for_each
from tests.support.ports import free_port
from tests.support.services import RELAYS, Service

_LISTEN = """
[listen db]
endpoint = 127.0.0.1:0
default = reject
"""

_RULES = """
[route direct]
match = tls sni=one.example.com alpn=postgresql
backend = 127.0.0.1:{one}

[route ended]
match = postgres sni=ended.example.com
terminate_tls = {ended}

[route inside]
under = ended
match = postgres database=postgres
backend = 127.0.0.1:{plain}

[route unencrypted]
match = postgres user=*
backend = 127.0.0.1:{plain}
"""

_WHO = "select current_setting('port'), ssl, version from pg_stat_ssl where pid = pg_backend_pid()"

_SLEEP = "select pg_sleep(60)"
_SLEEPING = f"select count(*) from pg_stat_activity where query = '{_SLEEP}' and state = 'active'"


@for_each("relay", RELAYS)
class PsqlTests(InteropTestCase):
    relay: str
    muxes: ClassVar[dict[str, Service]]
    ports: ClassVar[dict[str, int]]
    certificates: ClassVar[dict[str, Certificate]]
    servers: ClassVar[dict[str, Child]]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.ports, cls.certificates, cls.servers = {}, {}, {}
        for name in ("one", "two", "plain"):
            folder = cls.make_folder(name)
            cls.ports[name] = free_port()
            settings: dict[str, str | Path] = {}
            if name != "plain":
                certificate = make_certificate(folder, f"{name}.example.com")
                certificate.key.chmod(0o600)
                cls.certificates[name] = certificate
                settings = {
                    "ssl": "on",
                    "ssl_cert_file": certificate.chain,
                    "ssl_key_file": certificate.key,
                }
            cls.servers[name] = cls.share(start_postgres(folder, cls.ports[name], **settings))
        certificate = make_certificate(cls.folder, "ended.example.com")
        rules = _LISTEN + "".join(
            f"[route {name}]\nmatch = postgres sni={name}.example.com\nbackend = 127.0.0.1:{port}\n"
            for name, port in cls.ports.items()
        )
        rules += _RULES.format(ended=certificate.both, **cls.ports)
        cls.muxes = {
            relay: cls.share(Service(cls.folder, rules, f"relay = {relay}", admin=True))
            for relay in RELAYS
        }

    def setUp(self) -> None:
        self.mux = self.muxes[self.relay]

    def address(self, host: str, **settings: object) -> str:
        all_settings = {
            "host": host, "hostaddr": "127.0.0.1", "port": self.mux.port, "user": "postgres",
            "password": "secret", "dbname": "postgres", "connect_timeout": 180, **settings,
        }  # fmt: skip
        return " ".join(f"{name}={value}" for name, value in all_settings.items())

    def psql(self, host: str, **settings: object) -> subprocess.CompletedProcess[bytes]:
        return run("psql", "-XAtc", _WHO, self.address(host, **settings))

    def test_names_with_verified_certificates(self) -> None:
        for name in ("one", "two"):
            for mode in ("require", "verify-full"):
                root = self.certificates[name].chain if mode == "verify-full" else "/nowhere"
                done = self.psql(f"{name}.example.com", sslmode=mode, sslrootcert=root)
                self.assertEqual(done.stderr, b"")
                self.assertEqual(done.stdout.decode(), f"{self.ports[name]}|t|TLSv1.3\n")
                record = self.mux.take_one()
                self.assertEqual(record["route"], name)
                self.assertEqual(record["reason"], "done")
                self.assertEqual(record["facts"]["sni"], f"{name}.example.com")

    def test_healthy_sessions_are_no_errors(self) -> None:
        """Neither side reads the other's close-notify, so either ends by a reset; and the share of errors on the page is none."""
        page = Path("docs/how-to/prometheus.md").read_text()
        [error] = re.findall(r'sum\(rate\(txmux_connections_ended_total\{reason!="(.*?)"', page)
        before = self.ended()
        for _ in range(20):
            self.assertEqual(self.psql("one.example.com", sslmode="require").stderr, b"")
        for record in self.mux.take(20):
            self.assertEqual(record["reason"], "done")
            self.assertEqual(record["facts"].get("reset", "late"), "late")
        self.assertEqual(self.ended() - before, Counter({error: 20}))

    def ended(self) -> Counter[str]:
        line = r'(?m)^txmux_connections_ended_total\{.*reason="(.*?)".*\} (\d+)'
        counted: Counter[str] = Counter()
        for reason, number in re.findall(line, text_of(self.mux.admin, "/metrics")):
            counted[reason] += int(number)
        return counted

    def test_unknown_name_and_server_without_tls_are_clear_causes(self) -> None:
        done = self.psql("three.example.com", sslmode="require")
        self.assertIn(b"unrecognized name", done.stderr)
        self.assertEqual(self.mux.take_fields("route", "reason"), (None, "no-route"))
        done = self.psql("plain.example.com", sslmode="require")
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(self.mux.take_one()["reason"], "tls-failed")
        self.mux.child.wait_for(r"it answered b'N' when it was asked .* 'ssl = on'")

    def test_ctrl_c_ends_the_query_at_its_server(self) -> None:
        """It comes in the clear, without a name."""
        queries = {
            name: self.own(Child("psql", "-XAtc", _SLEEP, self.address(f"{name}.example.com")))
            for name in ("one", "two")
        }
        for name in queries:
            eventually(lambda name=name: self.sleeping(name) == 1, "the query runs")  # type: ignore[misc]
        for name, left in (("one", 1), ("two", 0)):
            os.kill(queries[name].pid, signal.SIGINT)
            queries[name].wait_for("canceling statement due to user request")
            self.assertEqual(self.sleeping("one") + self.sleeping("two"), left)
            asked, session = sorted(self.mux.take(2), key=lambda line: str(line["route"]))
            self.assertEqual((asked["facts"]["cancel"], asked["reason"]), ("3 of 3", "done"))
            self.assertEqual(session["route"], name)

    def sleeping(self, name: str) -> int:
        direct = f"host=127.0.0.1 port={self.ports[name]} user=postgres password=secret"
        return int(run("psql", "-XAtc", _SLEEPING, direct).stdout)

    def test_tls_ended_here_and_none(self) -> None:
        for name, mode, route, database in (
            ("ended", "require", "inside", "postgres"),
            ("one", "disable", "unencrypted", None),
        ):
            done = self.psql(f"{name}.example.com", sslmode=mode)
            self.assertEqual(
                (done.stdout.decode(), done.stderr), (f"{self.ports['plain']}|f|\n", b"")
            )
            record = self.mux.take_one()
            self.assertEqual(record["route"], route)
            if database:
                self.assertEqual(record["facts"]["database"], database)

"""psql reaches the server of its name through one port, by TLS that goes all the way."""

import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from tests.admin.processes import text_of
from tests.interop.servers import make_certificate, start_postgres
from tests.support.kit import RELAYS, Child, InteropTestCase, Service, eventually, free_port, run

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


class PsqlTests(InteropTestCase):
    def address(self, host: str, **settings: object) -> str:
        all_settings = {
            "host": host, "hostaddr": "127.0.0.1", "port": self.mux.port, "user": "postgres",
            "password": "secret", "dbname": "postgres", "connect_timeout": 180, **settings,
        }  # fmt: skip
        return " ".join(f"{name}={value}" for name, value in all_settings.items())

    def psql(self, name: str, **settings: object) -> subprocess.CompletedProcess[bytes]:
        return run("psql", "-XAtc", _WHO, self.address(f"{name}.example.com", **settings))

    def test_both_relays(self) -> None:
        self.ports: dict[str, int] = {}
        roots: dict[str, Path] = {}
        for name in ("one", "two", "plain"):
            folder = self.make_folder(name)
            self.ports[name] = free_port()
            settings: dict[str, str | Path] = {}
            if name != "plain":
                own = make_certificate(folder, f"{name}.example.com")
                own.key.chmod(0o600)
                roots[name] = own.chain
                settings = {"ssl": "on", "ssl_cert_file": own.chain, "ssl_key_file": own.key}
            self.own(start_postgres(folder, self.ports[name], **settings))
        ended = make_certificate(self.folder, "ended.example.com").both
        rules = _LISTEN
        for name, port in self.ports.items():
            rules += f"[route {name}]\nmatch = postgres sni={name}.example.com\nbackend = 127.0.0.1:{port}\n"
        rules += _RULES.format(ended=ended, **self.ports)
        for relay in RELAYS:
            with self.subTest(relay):
                self.mux = self.own(Service(self.folder, rules, f"relay = {relay}", admin=True))
                self.assert_named_servers(roots)
                self.assert_healthy_sessions_are_no_errors()
                self.assertIn(b"unrecognized name", self.psql("three", sslmode="require").stderr)
                self.assertEqual(self.mux.take_fields("route", "reason"), (None, "no-route"))
                self.assertNotEqual(self.psql("plain", sslmode="require").returncode, 0)
                self.assertEqual(self.mux.take_one()["reason"], "tls-failed")
                self.mux.child.wait_for(r"it answered b'N' when it was asked .* 'ssl = on'")
                self.assert_cancels()
                self.assert_tls_ended_here_and_none()

    def assert_named_servers(self, roots: Mapping[str, Path]) -> None:
        for name, verified in roots.items():
            for mode, root in (("require", "/nowhere"), ("verify-full", verified)):
                done = self.psql(name, sslmode=mode, sslrootcert=root)
                self.assertEqual(done.stderr, b"")
                self.assertEqual(done.stdout.decode(), f"{self.ports[name]}|t|TLSv1.3\n")
                record = self.mux.take_one()
                self.assertEqual((record["route"], record["reason"]), (name, "done"))
                self.assertEqual(record["facts"]["sni"], f"{name}.example.com")

    def assert_healthy_sessions_are_no_errors(self) -> None:
        """Neither side reads the other's close-notify, so either ends by a reset; and the share of errors on the page is none."""
        page = Path("docs/how-to/prometheus.md").read_text()
        [error] = re.findall(r'sum\(rate\(txmux_connections_ended_total\{reason!="(.*?)"', page)
        before = self.ended()
        for _ in range(20):
            self.assertEqual(self.psql("one", sslmode="require").stderr, b"")
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

    def assert_cancels(self) -> None:
        """Ctrl-C ends a query at its server; it comes in the clear, without a name."""
        there = {name: self.address(f"{name}.example.com") for name in ("one", "two")}
        queries = {one: self.own(Child("psql", "-XAtc", _SLEEP, at)) for one, at in there.items()}
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

    def assert_tls_ended_here_and_none(self) -> None:
        ended = ("ended", "require", "inside", "postgres")
        for name, mode, route, database in (ended, ("one", "disable", "unencrypted", None)):
            done = self.psql(name, sslmode=mode)
            said = (done.stdout.decode(), done.stderr)
            self.assertEqual(said, (f"{self.ports['plain']}|f|\n", b""))
            record = self.mux.take_one()
            self.assertEqual(record["route"], route)
            if database:
                self.assertEqual(record["facts"]["database"], database)

"""Clients that wait: PostgreSQL is restarted under load, and a server is woken."""

import signal

import pytest

from tests.interop.servers import postgres_program, restart_postgres, start_postgres
from tests.support.kit import Child, InteropTestCase, Service, eventually, free_port

_RULES = "[listen public]\nendpoint = 127.0.0.1:0\ndefault = db\n[backend db]\n"


@pytest.mark.by_turns
class PostgresTests(InteropTestCase):
    def test_restart_under_load_fails_no_transaction(self) -> None:
        folder, port = self.make_folder(), free_port()
        server = self.own(start_postgres(folder, port))
        rules = f"{_RULES}server = 127.0.0.1:{port}\n"
        mux = self.own(Service(self.make_folder(), rules, admin=True))
        program = ("env", "PGPASSWORD=secret", "PGSSLMODE=disable", postgres_program("pgbench"))
        there = ("-h", "127.0.0.1", "-p", str(mux.port), "-U", "postgres", "-n", "-C")
        how = ("-f", "-", "-c", "4", "-j", "4", "-T", "8", "postgres")
        load = self.own(Child(*program, *there, *how, stdin=True))
        load.say(b"SELECT 1;\n")

        def servers() -> dict[str, int]:
            (backend,) = mux.api("backends")
            (found,) = backend["servers"]
            return {**found, "held": backend["held"]}

        eventually(lambda: servers()["total"] > 20, "the load has begun")
        mux.api("backends/db/hold", {"seconds": 60})
        eventually(lambda: not servers()["active"] and servers()["held"] == 4, "all clients wait")
        server.process.send_signal(signal.SIGTERM)
        server.wait()
        self.own(restart_postgres(folder, port))
        before = servers()["total"]
        mux.api("backends/db/release", {})
        eventually(lambda: servers()["total"] > before + 20, "the load goes on")
        self.assertEqual(load.wait(), 0, load.output)
        self.assertIn("number of failed transactions: 0 (0.000%)", load.output)
        self.assertNotIn("error", load.output)
        lines = mux.lines()
        self.assertEqual({line["reason"] for line in lines}, {"done"})
        self.assertEqual(sum("held" in line["facts"] for line in lines), 4)

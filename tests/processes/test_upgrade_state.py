"""A new process goes on with what the old one has found out and counted."""

import contextlib
import os
import re
import signal
import socket
import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.admin.processes import text_of
from tests.support.kit import RULES, Record, Service, WorkersTestCase, eventually, free_port
from tests.support.proc import workers_of

pytestmark = pytest.mark.by_turns(each=True)

_ROUTE = "[route all]\nmatch = any\nbackend = pool\n"


class StateTest(WorkersTestCase):
    def visit(self, mux: Service, count: int = 1) -> list[Record]:
        for _ in range(count):
            with mux.connect() as client, contextlib.suppress(ConnectionError):  # it is refused
                client.sendall(b"x")
                client.recv(1)
        return mux.take(count)

    def closing(self) -> int:
        listening = self.backend()
        listening.settimeout(None)  # clients may be long in coming while a process starts

        def serve() -> None:
            while True:
                try:
                    client, _ = listening.accept()
                except OSError:
                    return
                client.recv(1)
                client.close()

        threading.Thread(target=serve, daemon=True).start()
        return int(listening.getsockname()[1])

    def test_rate_of_a_source_goes_on(self) -> None:
        """Also in the old process, if the upgrade fails."""
        mux = self.upgrading(f"{RULES}connection_rate_per_source = 3/h burst=3\n", "workers = 2")
        reasons = [line["reason"] for line in self.visit(mux, 4)]
        # Workers write their lines by themselves.
        self.assertEqual(sorted(reasons), ["limit", *["no-route"] * 3])
        text = mux.file.read_text()
        mux.file.write_text(f"{text}\ncolour = blue\n")
        mux.refuse("colour")
        self.assertEqual(self.visit(mux)[0]["reason"], "limit")
        mux.file.write_text(text)
        mux.upgrade()
        self.assertEqual(self.visit(mux)[0]["reason"], "limit")

    def test_what_ended_last_is_kept(self) -> None:
        """It outlasts the worker that it was of, and upgrades."""
        mux = self.upgrading(RULES, "workers = 2", admin=True)
        known = [line["id"] for line in self.visit(mux, 3)]

        def are_listed() -> bool:
            return sorted(row["id"] for row in mux.api("recent")) == sorted(known)

        eventually(are_listed, "they are listed")
        for pid in workers_of(mux.pid):
            mux.kill(pid)
        self.assertTrue(are_listed())
        for _ in range(2):
            mux.upgrade()
            self.assertTrue(are_listed())
            known += [line["id"] for line in self.visit(mux, 1)]
            eventually(are_listed, "the next one is listed")

    def test_server_that_is_down_stays_down(self) -> None:
        dead, well = free_port(), self.closing()
        pool = (
            f"[backend pool]\nbalance = first\nserver = 127.0.0.1:{dead}\n    127.0.0.1:{well}\n"
            "check = tcp interval=200ms fall=2\n"
        )
        mux = self.upgrading(f"{RULES}{_ROUTE}{pool}", "workers = 2")
        mux.child.wait_for(f"127.0.0.1:{dead} is down")
        for _ in range(2):
            mux.upgrade()
            self.assertNotIn("tried", self.visit(mux)[0]["facts"])
        self.assertEqual(mux.child.output.count(f"127.0.0.1:{dead} is down"), 1)

    def test_turns_go_on(self) -> None:
        ports = [self.closing() for _ in range(2)]
        pool = "[backend pool]\nserver =" + "".join(f"\n    127.0.0.1:{port}" for port in ports)
        mux = self.upgrading(f"{RULES}{_ROUTE}{pool}\n")
        found = [self.visit(mux)[0]["server"]]
        for _ in range(2):
            mux.upgrade()
            found.append(self.visit(mux)[0]["server"])
        self.assertEqual(found, [f"127.0.0.1:{port}" for port in [*ports, ports[0]]])

    def test_versions(self) -> None:
        """The number of the version of the rules goes on, and is the next one if they were edited; so does what the last reload said, unless it had failed."""

        def status() -> tuple[int, list[str] | None]:
            told = mux.api("status")
            return told["generation"], (told["last_reload"] or {"errors": None})["errors"]

        mux = self.upgrading(RULES, "workers = 2", admin=True)
        text = f"{mux.file.read_text()}[route r]\nmatch = ssh\nbackend = close\n"
        for said, generation, errors in ((text, 2, 0), (f"{text}colour = blue\n", 2, 1)):
            mux.file.write_text(said)
            os.kill(mux.pid, signal.SIGHUP)
            eventually(
                lambda known=(generation, errors): (status()[0], len(status()[1] or "")) == known,  # type: ignore[misc]
                "it is reloaded, or not",
            )
        known = status()
        self.assertIn("colour", str(known[1]))
        mux.file.write_text(text)
        mux.upgrade()
        self.assertEqual(status(), (known[0], []))
        mux.file.write_text(text.replace("ssh", "tls"))
        mux.upgrade()
        self.assertEqual(status(), (3, []))
        # A sample of charts was taken at the start of each process, and a chart has the time between two.
        page = text_of(mux.admin, "/")
        times = re.findall(r'data-chart="active" data-times="\[(.*)\]" data', page)
        self.assertNotEqual(times, [""])


class WantedTest(WorkersTestCase):
    def test_wanted(self) -> None:
        """A server that drains gets no client of the new process, and a listener that is shut accepts none; until that is changed."""
        listening = self.backend()
        server = f"127.0.0.1:{listening.getsockname()[1]}"
        rules = f"{RULES}[route all]\nmatch = any\nbackend = b\n[backend b]\nserver = {server}\n"
        mux = self.upgrading(rules, "workers = 2", admin=True)
        mux.api(f"backends/b/servers/{server}", {"state": "drain"})
        mux.upgrade()
        with mux.connect() as client:
            client.sendall(b"x")
            self.assertEqual(client.recv(1), b"")
        self.assertEqual(mux.take_one()["reason"], "no-server")
        mux.api(f"backends/b/servers/{server}", {"state": "ready"})
        mux.api("listeners/public", {"accepting": False})
        mux.upgrade()
        waiting = mux.connect()
        waiting.sendall(b"x")
        self.assertFalse(mux.api("status")["listeners"][0]["accepting"])
        self.assertEqual(mux.api("connections"), [])
        mux.api("listeners/public", {"accepting": True})
        with waiting, self.accept_from(listening, b"x"):
            (row,) = mux.api("connections?state=relaying")
            mux.upgrade()
            eventually(
                lambda before=row["id"]: (  # type: ignore[misc]
                    [one["id"] for one in mux.api("connections")] == [before]
                ),
                "the connection is the new process's",
            )
            told = mux.api(f"connections/{row['id']}")
            self.assertEqual((told["bytes_in"], told["route"]), (1, "all"))
            self.assertEqual(
                (told["explanation"]["bytes"], told["explanation"]["routes"]), (None, [])
            )
            waiting.shutdown(socket.SHUT_WR)
        mux.take_one()

    def test_clients_that_wait_in_the_old_process_are_released(self) -> None:
        listening = self.backend()
        server = f"127.0.0.1:{listening.getsockname()[1]}"
        rules = (
            f"{RULES}accept_proxy_from = 127.0.0.1\n"
            f"[route all]\nmatch = any\nbackend = b\n[backend b]\nserver = {server}\n"
        )
        mux = self.upgrading(rules, admin=True)
        mux.api("backends/b/hold", {})
        with mux.connect() as client:
            client.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nx")
            eventually(lambda: mux.api("backends")[0]["held"], "it waits")
            mux.replace()
            eventually(lambda: "connections handed over: 0" in mux.child.output, "it stays there")
            mux.api("backends/b/release", {})
            with self.accept_from(listening, b"x"):
                pass
        self.assertEqual(mux.take_one()["reason"], "done")
        mux.stop()

    def test_bans(self) -> None:
        """Who is banned stays so in a new process and its workers, until that is taken back; the connection there was is ended."""
        listening = self.backend()
        server = f"127.0.0.1:{listening.getsockname()[1]}"
        rules = f"{RULES}end_denied = yes\n[route all]\nmatch = any\nbackend = {server}\n"
        mux = self.upgrading(rules, "workers = 2", admin=True)
        with mux.connect() as client:
            client.sendall(b"x")
            with self.accept_from(listening, b"x"):
                mux.upgrade()
                mux.api("bans", {"network": "127.0.0.1", "seconds": 600})
                with contextlib.suppress(ConnectionResetError):
                    self.assertEqual(client.recv(1), b"")
        line = mux.take_one()
        self.assertEqual((line["reason"], line["route"]), ("denied", "all"))
        mux.upgrade()
        for _ in range(4):
            with contextlib.suppress(ConnectionResetError), mux.connect() as client:
                self.assertEqual(client.recv(1), b"")
            self.assertEqual(mux.take_one()["reason"], "denied")
        mux.api("bans/remove", {"network": "127.0.0.1"})
        with mux.connect() as client:
            client.sendall(b"y")
            with self.accept_from(listening, b"y"):
                pass


_NAMES = ("connections_total", "connections_active", "route_matches_total", "bytes_total")


class CountingTest(WorkersTestCase):
    def read(self) -> list[float]:
        """Give numbers: clients, connections, matches, and bytes both ways."""
        text = text_of(self.folder / "metrics.sock", "/metrics")
        samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]
        return [sum(one.value for one in samples if one.name == f"txmux_{name}") for name in _NAMES]

    def counting(self, settings: str, more: str = "") -> Service:
        self.listening = self.backend()
        settings += f"\nmetrics = unix:{self.folder / 'metrics.sock'}"
        return self.upgrading(self.relaying(self.listening, more), settings)

    def test_goes_on(self) -> None:
        """A process goes on with the numbers of another one, and a third with those of both."""
        mux = self.counting("workers = 2")
        kept, server = self.relayed(mux, self.listening)
        self.over(*self.relayed(mux, self.listening))
        self.wait_for([2, 1, 2, 2])
        mux.upgrade()
        self.wait_for([2, 1, 2, 2])
        kept.sendall(b"more")
        self.assertEqual(server.recv(10), b"more")
        self.wait_for([2, 1, 2, 6])
        self.over(*self.relayed(mux, self.listening))
        mux.upgrade()
        self.wait_for([3, 1, 3, 7])
        self.over(kept, server)
        self.wait_for([3, 0, 3, 7])
        mux.stop()

    def wait_for(self, numbers: list[float]) -> None:
        eventually(lambda: self.read() == numbers, f"the metrics are {numbers}")

    def test_two_that_drain(self) -> None:
        """What a process keeps whose place was taken twice is counted until it has ended."""
        ssh = "[route ssh]\nmatch = ssh\nbackend = 127.0.0.1:1\n"
        mux = self.counting("drain_timeout = 10m", f"detect_timeout = 10m\n{ssh}")
        client = self.client(mux)
        self.wait_for([1, 1, 0, 0])
        old = []
        for _ in range(2):
            old += mux.replace()
            self.wait_for([1, 1, 0, 0])
        client.sendall(b"x")
        server = self.accept_from(self.listening, b"x")
        eventually(lambda: self.read()[:3] == [1, 1, 1], "it is relayed")
        self.over(client, server)
        self.assert_gone(old)
        self.wait_for([1, 0, 1, 1])
        mux.upgrade()
        self.wait_for([1, 0, 1, 1])

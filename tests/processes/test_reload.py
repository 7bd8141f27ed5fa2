"""Other rules while several processes serve."""

from __future__ import annotations

import os
import re
import signal
import socket

from tests.interop.children import eventually
from tests.interop.mux import Mux
from tests.processes.reloading import ReloadingTestCase, listening_inodes
from tests.processes.running import RULES, halted, serves, workers_of


class ReloadTest(ReloadingTestCase):
    """Services with workers, or that come to have some."""

    def test_all_or_none(self) -> None:
        """All workers change, or none does; connections go on, the sockets and the processes stay."""
        mux, server = self.begin()
        client, end = self.relayed(mux, server)
        before = (listening_inodes(mux.child.pid), workers_of(mux.child.pid))
        other = self.backend()
        told = self.reload(mux, lambda text: f"{self.lead_to(other)(text)}[what]\n")
        self.assertIn("not reloaded", told)
        for _ in range(4):
            self.relayed(mux, server)
        told = self.reload(mux, lambda text: text.replace("[what]\n", ""))
        self.assertEqual(
            told, "rules reloaded: 1 route changed (all); 5 connections go on under older rules"
        )
        for _ in range(8):
            self.relayed(mux, other)
        client.sendall(b"more")
        self.assertEqual(end.recv(4), b"more")
        self.assertEqual((listening_inodes(mux.child.pid), workers_of(mux.child.pid)), before)

    def test_refused_by_one(self) -> None:
        """What a worker cannot use is refused, though the parent could."""
        mux, server = self.begin()
        told = self.reload(
            mux, lambda text: text.replace("access.log", f"missing{os.sep}access.log")
        )
        self.assertIn("not reloaded", told)
        mux.child.wait_for("access_log: ")
        self.relayed(mux, server)

    def test_listeners(self) -> None:
        """New listeners are opened in all workers; one that is gone is closed when those who wait have been served."""
        mux, server = self.begin()
        port = mux.port
        with socket.create_connection(("127.0.0.1", port), timeout=60) as waiting:
            waiting.sendall(b"w")
            told = self.reload(
                mux, lambda text: re.sub(r"\[listen public\]", "[listen other]", text)
            )
            self.assertIn("listener other opened; listener public closed", told)
            self.accept_from(server, b"w")
        found = mux.child.wait_for(r"listening on \S+:(\d+) for \[listen other\]")
        with socket.create_connection(("127.0.0.1", int(found[1])), timeout=60) as client:
            client.sendall(b"n")
            self.accept_from(server, b"n")
        eventually(lambda: self.is_refused(port), "the old listener is closed")

    def is_refused(self, port: int) -> bool:
        """Tell whether nobody listens there."""
        with socket.socket() as late:
            return bool(late.connect_ex(("127.0.0.1", port)))

    def test_workers(self) -> None:
        """There are more workers, or fewer; those that are not needed end when their connections have."""
        mux, server = self.begin()
        pairs = [self.relayed(mux, server) for _ in range(12)]
        old = workers_of(mux.child.pid)
        self.reload(mux, lambda text: text.replace("workers = 2", "workers = 4"))
        eventually(lambda: "workers that serve: 4" in mux.child.output, "four workers serve")
        self.assertEqual(workers_of(mux.child.pid)[:2], old)
        pairs += [self.relayed(mux, server) for _ in range(12)]
        inodes = listening_inodes(mux.child.pid)
        self.reload(mux, lambda text: text.replace("workers = 4", "workers = 2"))
        pairs += [self.relayed(mux, server) for _ in range(12)]
        for client, end in pairs:
            client.sendall(b"more")
            self.assertEqual(end.recv(4), b"more")
        for client, end in pairs:
            client.close()
            end.close()
        eventually(lambda: workers_of(mux.child.pid) == old, "two workers are left")
        self.relayed(mux, server)
        self.assertEqual(listening_inodes(mux.child.pid), inodes)
        self.assertNotIn("another one is started", mux.child.output)

    def test_workers_of_other_rules(self) -> None:
        """Workers that are added by a reload serve under its rules."""
        mux, _ = self.begin(1)
        other = self.backend()
        self.reload(mux, lambda text: self.workers(1, 3)(self.lead_to(other)(text)))
        for client in self.one_for_each(mux, workers_of(mux.child.pid)):
            client.sendall(b"x")
            self.accept_from(other, b"x")

    def test_back_again(self) -> None:
        """A worker that was to end, but still has a connection, serves again when as many workers are wanted."""
        mux, server = self.begin(3, "detect_timeout = 10m")
        old = workers_of(mux.child.pid)
        silent = self.one_for_each(mux, old)  # who is undecided cannot be moved
        for count, before in ((2, 3), (3, 2)) * 3:
            told = self.reload(mux, self.workers(before, count))
            self.assertIn("rules reloaded: workers of [txmux] changed", told)
            for _ in range(6):
                self.relayed(mux, server)
            self.assertEqual(workers_of(mux.child.pid), old)
        for client in silent:
            client.sendall(b"s")
            self.accept_from(server, b"s")

    def test_one_and_many(self) -> None:
        """One process becomes several, and several become one; connections go on, and sockets stay."""
        mux, server = self.begin(1)
        pairs = [self.relayed(mux, server)]
        inodes = listening_inodes(mux.child.pid)
        told = self.reload(mux, lambda text: text.replace("workers = 1", "workers = 2"))
        self.assertEqual(
            told,
            "rules reloaded: workers of [txmux] changed; 1 connection goes on under older rules",
        )
        self.assertEqual(len(workers_of(mux.child.pid)), 2)
        pairs += [self.relayed(mux, server) for _ in range(4)]
        self.reload(mux, lambda text: text.replace("workers = 2", "workers = 1"))
        pairs += [self.relayed(mux, server)]
        self.assertEqual(listening_inodes(mux.child.pid), inodes)
        for client, end in pairs:
            client.sendall(b"more")
            self.assertEqual(end.recv(4), b"more")
            client.close()
            end.close()
        eventually(lambda: not workers_of(mux.child.pid), "no worker is left")
        self.relayed(mux, server)

    def test_one_and_many_know(self) -> None:
        """What was found out and counted is known to the several processes, and to the one."""
        mux = Mux(
            self.folder,
            f"{RULES}connection_rate_per_source = 3/h burst=3\n",
            "workers = 1",
        )
        self.addCleanup(mux.child.end)
        self.file = mux.file
        for _ in range(3):
            self.be_closed(mux)
        mux.take(3)
        for number, other in ((1, 2), (2, 1)):
            self.reload(mux, lambda text: text.replace(f"workers = {number}", f"workers = {other}"))  # noqa: B023 - called at once
            with mux.connect():
                self.assertEqual(mux.take_one()["reason"], "limit")

    def test_killed_meanwhile(self) -> None:
        """A worker that is killed during a reload is succeeded by one with the rules that hold then."""
        mux, server = self.begin()
        other = self.backend()
        for number in range(6):
            eventually(lambda: len(workers_of(mux.child.pid)) == 2, "there are two workers")
            victim = workers_of(mux.child.pid)[number % 2]
            self.file.write_text(self.lead_to((other, server)[number % 2])(self.file.read_text()))
            before = mux.child.output.count("rules reloaded")
            os.kill(mux.child.pid, signal.SIGHUP)
            os.kill(victim, signal.SIGKILL)
            self.wait_for_more(mux, before)
            for _ in range(4):
                self.relayed(mux, (other, server)[number % 2])

    def test_storm(self) -> None:
        """Many signals at once make few reloads, of which the last knows what the file says."""
        mux, server = self.begin()
        other = self.backend()
        text = self.file.read_text()
        for number in range(51):
            extra = "[listen extra]\nendpoint = 127.0.0.1:0\n" if number == 50 else ""
            written = self.file.with_suffix(".new")
            written.write_text(extra + self.lead_to((other, server)[number % 2])(text))
            written.rename(self.file)
            os.kill(mux.child.pid, signal.SIGHUP)
        eventually(lambda: "listener extra opened" in mux.child.output, "the last one is known")
        self.assertNotIn("not reloaded", mux.child.output)
        self.assertLess(mux.child.output.count("rules reloaded"), 52)
        for _ in range(6):
            self.relayed(mux, other)

    def test_limits_of_one_and_many(self) -> None:
        """What is counted for limits goes on when one process becomes several, when these become one, and once more."""
        mux, server = self.begin(1, "max_connections = 3")
        pairs = [self.relayed(mux, server)]
        for before, count in ((1, 2), (2, 1), (1, 3), (3, 1)):
            self.reload(mux, self.workers(before, count))
            if len(pairs) < 3:
                pairs.append(self.relayed(mux, server))
        for before, count in ((1, 2), (2, 1)):
            owners = workers_of(mux.child.pid) if before > 1 else [mux.child.pid]
            self.reload(mux, self.workers(before, count))
            self.assert_moved(owners, pairs)
            with mux.connect():
                self.assertEqual(mux.take_one()["reason"], "limit")
        for client, end in pairs:
            client.close()
            end.close()
        mux.take(3)
        for _ in range(3):
            self.relayed(mux, server)
        with mux.connect():
            self.assertEqual(mux.take_one()["reason"], "limit")

    def test_one_and_many_again(self) -> None:
        """However often that is: what has retired but keeps a connection serves again, and listeners that are gone are served."""
        mux, server = self.begin(1, "detect_timeout = 10m")
        silent = [self.client(mux)]  # who is undecided cannot be moved
        eventually(lambda: serves(mux.child.pid, silent[0]), "the client is accepted")
        self.reload(mux, self.workers(1, 2))
        old = workers_of(mux.child.pid)
        silent += self.one_for_each(mux, old)
        for _ in range(3):
            self.reload(mux, self.workers(2, 1))
            silent.append(self.client(mux))
            eventually(lambda: serves(mux.child.pid, silent[-1]), "the one process serves")
            self.reload(mux, self.workers(1, 2))
            self.assertEqual(workers_of(mux.child.pid), old)
            for _ in range(4):
                self.relayed(mux, server)
        for client in silent:
            client.sendall(b"s")
            self.accept_from(server, b"s")

    def test_last_one_meanwhile(self) -> None:
        """The one process serves again, though the last connection that it had kept ends before the several have retired."""
        mux, server = self.begin(1, "detect_timeout = 10m")
        pid = mux.child.pid
        silent = [self.client(mux)]  # who is undecided cannot be moved
        eventually(lambda: serves(pid, silent[0]), "the client is accepted")
        self.reload(mux, self.workers(1, 2))
        with halted(workers_of(pid)):
            self.file.write_text(self.workers(2, 1)(self.file.read_text()))
            before = mux.child.output.count("rules reloaded")
            os.kill(pid, signal.SIGHUP)
            silent.append(self.client(mux))
            eventually(lambda: serves(pid, silent[1]), "the one process accepts")
            for client in silent:
                client.close()
            mux.take(2)
        self.wait_for_more(mux, before)
        eventually(lambda: not workers_of(pid), "no worker is left")
        self.relayed(mux, server)

    def test_limits(self) -> None:
        """Connections of older rules, and of workers that are not needed any more, count for a new limit."""
        mux, server = self.begin()
        pairs = [self.relayed(mux, server) for _ in range(6)]
        self.reload(
            mux,
            lambda text: text.replace("workers = 2", "workers = 3\nmax_connections = 7"),
        )
        pairs.append(self.relayed(mux, server))
        with mux.connect():
            self.assertEqual(mux.take_one()["reason"], "limit")
        client, end = pairs.pop()
        client.close()
        end.close()
        mux.take_one()
        pairs.append(self.relayed(mux, server))

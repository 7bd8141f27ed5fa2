"""Other rules while workers serve."""

from __future__ import annotations

import os
import re
import signal
import socket

from tests.interop.children import eventually
from tests.processes.reloading import ReloadingTestCase, listening_inodes
from tests.processes.running import RULES, workers_of


class ReloadTest(ReloadingTestCase):
    """Services with some number of workers."""

    def test_all_or_none(self) -> None:
        """All workers change, or none does; connections go on, the sockets and the processes stay."""
        mux, server = self.begin()
        client, end = self.relayed(mux, server)
        before = (listening_inodes(mux.child.pid), workers_of(mux.child.pid))
        other = self.backend()
        told = self.reload(mux, lambda text: f"{self.lead_to(other)(text)}[what]\n")
        self.assertIn("reload failed", told)
        for _ in range(4):
            self.relayed(mux, server)
        told = self.reload(mux, lambda text: text.replace("[what]\n", ""))
        self.assertEqual(
            told, "rules reloaded: 1 route changed (all); 5 connections keep older rules"
        )
        for _ in range(8):
            self.relayed(mux, other)
        client.sendall(b"more")
        self.assertEqual(end.recv(4), b"more")
        self.assertEqual((listening_inodes(mux.child.pid), workers_of(mux.child.pid)), before)

    def test_refused_by_one(self) -> None:
        """What a worker cannot use is refused, though the supervisor could."""
        mux, server = self.begin()
        told = self.reload(
            mux, lambda text: text.replace("access.log", f"missing{os.sep}access.log")
        )
        self.assertIn("reload failed", told)
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
        self.reload(mux, self.workers(2, 4))
        workers = workers_of(mux.child.pid)
        self.assertEqual((len(workers), workers[:2]), (4, old))
        pairs += [self.relayed(mux, server) for _ in range(12)]
        inodes = listening_inodes(mux.child.pid)
        self.reload(mux, self.workers(4, 2))
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
        for count, before in ((2, 3), (3, 2), (1, 3), (3, 1)):
            told = self.reload(mux, self.workers(before, count))
            self.assertIn("rules reloaded: workers of [txmux] changed", told)
            for _ in range(6):
                self.relayed(mux, server)
            self.assertEqual(workers_of(mux.child.pid), old)
        for client in silent:
            client.sendall(b"s")
            self.accept_from(server, b"s")

    def test_counted_meanwhile(self) -> None:
        """What was counted of a source is known to workers that are added, and to those that are left."""
        mux = self.start(f"{RULES}connection_rate_per_source = 3/h burst=3\n", "workers = 1")
        self.addCleanup(mux.child.end)
        self.file = mux.file
        for _ in range(3):
            self.be_closed(mux)
        mux.take(3)
        for before, count in ((1, 2), (2, 1)):
            self.reload(mux, self.workers(before, count))
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
        self.assertNotIn("reload failed", mux.child.output)
        self.assertLess(mux.child.output.count("rules reloaded"), 52)
        for _ in range(6):
            self.relayed(mux, other)

    def test_limits_of_other_workers(self) -> None:
        """What is counted for limits goes on when connections move to more workers, or to fewer."""
        mux, server = self.begin(1, "max_connections = 3")
        pairs = [self.relayed(mux, server)]
        for before, count in ((1, 3), (3, 1), (1, 2), (2, 1)):
            owners = workers_of(mux.child.pid)
            self.reload(mux, self.workers(before, count))
            if len(pairs) < 3:
                pairs.append(self.relayed(mux, server))
            else:
                with mux.connect():
                    self.assertEqual(mux.take_one()["reason"], "limit")
            if count == 1:
                eventually(lambda: len(workers_of(mux.child.pid)) == 1, "one worker is left")
                self.assertIn(workers_of(mux.child.pid)[0], owners)
        for client, end in pairs:
            client.close()
            end.close()
        mux.take(3)
        for _ in range(3):
            self.relayed(mux, server)
        with mux.connect():
            self.assertEqual(mux.take_one()["reason"], "limit")

    def test_limits(self) -> None:
        """Connections of older rules, and of workers that are not needed any more, count for a new limit."""
        mux, server = self.begin()
        pairs = [self.relayed(mux, server) for _ in range(6)]
        self.reload(
            mux, lambda text: text.replace("workers = 2", "workers = 3\nmax_connections = 7")
        )
        pairs.append(self.relayed(mux, server))
        with mux.connect():
            self.assertEqual(mux.take_one()["reason"], "limit")
        client, end = pairs.pop()
        client.close()
        end.close()
        mux.take_one()
        pairs.append(self.relayed(mux, server))

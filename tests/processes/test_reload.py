"""Other rules while workers serve."""

import os
import re
import signal
import socket

from tests.processes.reloading import leading_to, listening_inodes, with_more, with_workers
from tests.support.kit import PATIENCE, WorkersTestCase, eventually
from tests.support.proc import workers_of


class ReloadTest(WorkersTestCase):
    def test_all_or_none(self) -> None:
        """All workers change, or none does; connections go on, the sockets and the processes stay."""
        mux, server = self.start_relaying()
        client, end = self.relayed(mux, server)
        before = (listening_inodes(mux.pid), workers_of(mux.pid))
        other = self.backend()
        told = mux.reload(leading_to(other), with_more("[what]\n"))
        self.assertIn("reload failed", told)
        for _ in range(4):
            self.relayed(mux, server)
        told = mux.reload((r"\[what\]\n", ""))
        self.assertEqual(
            told, "rules reloaded: 1 route changed (all); 5 connections keep older rules"
        )
        for _ in range(8):
            self.relayed(mux, other)
        self.answers(client, end)
        self.assertEqual((listening_inodes(mux.pid), workers_of(mux.pid)), before)

    def test_reload_that_only_a_worker_can_refuse(self) -> None:
        mux, server = self.start_relaying()
        told = mux.reload((r"access\.log", "missing/access.log"))
        self.assertIn("reload failed", told)
        mux.child.wait_for("access_log: ")
        self.relayed(mux, server)

    def test_listeners(self) -> None:
        """New listeners are opened in all workers; one that is gone is closed when those who wait have been served."""
        mux, server = self.start_relaying()
        port = mux.port
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as waiting:
            waiting.sendall(b"w")
            told = mux.reload((r"\[listen public\]", "[listen other]"))
            self.assertIn("listener other opened; listener public closed", told)
            self.accept_from(server, b"w")
        match = mux.child.wait_for(r"listening on \S+:(\d+) for \[listen other\]")
        with socket.create_connection(("127.0.0.1", int(match[1])), timeout=PATIENCE) as client:
            client.sendall(b"n")
            self.accept_from(server, b"n")
        eventually(lambda: self.is_refused(port), "the old listener is closed")

    def test_added_workers_serve_under_the_new_rules(self) -> None:
        mux, _ = self.start_relaying(1)
        other = self.backend()
        mux.reload(with_workers(3), leading_to(other))
        for client in self.one_for_each(mux, workers_of(mux.pid)):
            client.sendall(b"x")
            self.accept_from(other, b"x")

    def test_retiring_worker_with_a_connection_serves_again(self) -> None:
        mux, server = self.start_relaying(3, "detect_timeout = 10m")
        old = workers_of(mux.pid)
        silent = self.one_for_each(mux, old)  # who is undecided cannot be moved
        for count in (2, 3, 1, 3):
            told = mux.reload(with_workers(count))
            self.assertIn("rules reloaded: workers of [txmux] changed", told)
            for _ in range(6):
                self.relayed(mux, server)
            self.assertEqual(workers_of(mux.pid), old)
        for client in silent:
            client.sendall(b"s")
            self.accept_from(server, b"s")

    def test_client_that_is_unknown_when_its_listener_goes(self) -> None:
        """Its PROXY header comes only after that: it does not count for another listener."""
        more = "[listen l0]\nendpoint = 127.0.0.1:0\nmax_connections = 1\naccept_proxy_from = 127.0.0.1\nproxy_timeout = 10m"
        mux, server = self.start_relaying(2, more)
        ends = [self.enterContext(socket.create_connection(("127.0.0.1", mux.ports["l0"])))]
        for number in (1, 2):
            mux.reload((r"(?<=listen l)\d", str(number)))
        port = int(mux.child.wait_for(r"listening on \S+:(\d+) for \[listen l2\]")[1])
        ends.append(self.enterContext(socket.create_connection(("127.0.0.1", port))))
        for client in ends:
            client.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nx")
            self.accept_from(server, b"x").close()
            client.close()
        self.assertEqual({line["listener"] for line in mux.take(2)}, {"l0", "l2"})

    def test_storm(self) -> None:
        """Many signals at once make few reloads, of which the last knows what the file says."""
        mux, server = self.start_relaying()
        other = self.backend()
        text = mux.file.read_text()
        for number in range(51):
            extra = "[listen extra]\nendpoint = 127.0.0.1:0\n" if number == 50 else ""
            written = mux.file.with_suffix(".new")
            written.write_text(extra + re.sub(*leading_to((other, server)[number % 2]), text))
            written.rename(mux.file)
            os.kill(mux.pid, signal.SIGHUP)
        eventually(lambda: "listener extra opened" in mux.child.output, "the last one is known")
        self.assertNotIn("reload failed", mux.child.output)
        self.assertLess(mux.child.output.count("rules reloaded"), 52)
        for _ in range(6):
            self.relayed(mux, other)

    def test_worker_about_to_end_is_not_used_again(self) -> None:
        mux, server = self.start_relaying(3)
        for count in (2, 3, 1, 3) * 4:
            mux.reload(with_workers(count))
            self.over(*self.relayed(mux, server))
        self.assertNotIn("another one is started", mux.child.output)
        self.assertNotIn("warn]", mux.child.output)

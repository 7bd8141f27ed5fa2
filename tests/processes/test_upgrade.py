"""The program is started again, and goes on with what the old process did."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from tests.interop.children import eventually
from tests.processes.running import RULES, WorkersTestCase, is_gone, pids_of
from tests.processes.upgrading import Upgrading

if TYPE_CHECKING:
    from tests.interop.mux import Mux


class UpgradeTestCase(WorkersTestCase):
    """Services that can be upgraded."""

    def upgrading(self, rules: str = RULES, settings: str = "") -> Upgrading:
        """Start a service."""
        mux = Upgrading(self.folder, rules, settings)
        self.addCleanup(mux.kill)
        return mux

    def answers(self, client: socket.socket, server: socket.socket) -> None:
        """See whether bytes go both ways."""
        for sender, receiver in ((client, server), (server, client)):
            sender.sendall(b"more")
            self.assertEqual(receiver.recv(4, socket.MSG_WAITALL), b"more")

    def over(self, client: socket.socket, server: socket.socket) -> None:
        """End a connection."""
        client.close()
        self.assertEqual(server.recv(1), b"")
        server.close()


class UpgradeTest(UpgradeTestCase):
    """One that succeeds."""

    def assert_upgrades(self, mux: Upgrading, times: int) -> None:
        """Upgrade, with connections that go on, and with one line each in the log at their ends."""
        listening = self.backend_of[mux]
        inodes = mux.inodes()
        peers = [self.relayed(mux, listening) for _ in range(5)]
        for _ in range(times):
            mux.upgrade()
            for client, server in peers:
                self.answers(client, server)
            peers.append(self.relayed(mux, listening))
        self.assertEqual(mux.inodes(), inodes)
        for client, server in peers:
            self.over(client, server)
        lines = mux.take(5 + times)
        wanted = [1 + 4 * times] * 5 + [1 + 4 * (times - 1 - number) for number in range(times)]
        self.assertEqual(sorted(line["bytes_in"] for line in lines), sorted(wanted))
        self.assertEqual({line["reason"] for line in lines}, {"done"})
        self.assertEqual(len({line["id"] for line in lines}), 5 + times)
        mux.stop()

    def setUp(self) -> None:
        """Keep the servers behind each service."""
        super().setUp()
        self.backend_of: dict[Mux, socket.socket] = {}

    def service(self, settings: str = "", routes: str = "") -> Upgrading:
        """Start a service that leads everybody to one server."""
        listening = self.backend()
        mux = self.upgrading(self.relaying(listening) + routes, settings)
        self.backend_of[mux] = listening
        return mux

    def test_one_process(self) -> None:
        """Connections go on in the new process, and the sockets that listen are the same."""
        self.assert_upgrades(self.service(), 3)

    def test_workers(self) -> None:
        """With several workers it is the same; connections are spread over the new ones."""
        self.assert_upgrades(self.service("workers = 2"), 2)

    def test_workers_change(self) -> None:
        """The rules are read anew, so that there may be more or fewer workers afterwards."""
        mux = self.service()
        client, server = self.relayed(mux, self.backend_of[mux])
        text = mux.file.read_text()
        for count in (3, 1):
            mux.file.write_text(text.replace("[txmux]\n", f"[txmux]\nworkers = {count}\n"))
            mux.upgrade()
            self.assertEqual(len(pids_of(mux.pid)), count if count > 1 else 0)
            self.answers(client, server)
        self.over(client, server)
        self.assertEqual(mux.take_one()["bytes_in"], 9)
        mux.stop()

    def test_undecided(self) -> None:
        """One that is not decided yet goes on in the old process, which ends when it has."""
        mux = self.service(routes="[route ssh]\nmatch = ssh\nbackend = 127.0.0.1:1\n")
        before = mux.descriptors()
        client = self.client(mux)
        eventually(lambda: mux.descriptors() > before, "it has accepted the client")
        mux.ask()
        old = mux.switched()
        mux.child.wait_for("connections handed over: 0")
        self.assertFalse(is_gone(old))
        client.sendall(b"x")
        server, _ = self.backend_of[mux].accept()
        self.addCleanup(server.close)
        self.assertEqual(server.recv(1), b"x")
        self.answers(client, server)
        self.over(client, server)
        eventually(lambda: is_gone(old), "the old process has ended")
        mux.take_one()
        mux.stop()


class BrokenTest(UpgradeTestCase):
    """One that fails: the old process goes on, and says why."""

    def test_rules(self) -> None:
        """The rules have errors, or a new socket cannot be opened."""
        listening = self.backend()
        mux = self.upgrading(self.relaying(listening))
        client, server = self.relayed(mux, listening)
        text = mux.file.read_text()
        mux.file.write_text(text + "\ncolour = blue\n")
        mux.refuse("colour")
        taken = listening.getsockname()[1]
        mux.file.write_text(f"{text}\n[listen other]\nendpoint = 127.0.0.1:{taken}\n")
        mux.refuse(rf"\[listen other\] endpoint 127.0.0.1:{taken}: cannot listen")
        self.answers(client, server)
        mux.file.write_text(text)
        mux.upgrade()
        self.answers(client, server)
        self.over(client, server)
        mux.take_one()
        mux.stop()

"""Connections of older rules, and of processes that serve no more, go on in a new process, too."""

from __future__ import annotations

import os
import re
import signal
from typing import TYPE_CHECKING

from tests.interop.children import eventually
from tests.processes.running import RULES, has_connection, workers_of
from tests.processes.test_upgrade import UpgradeTestCase

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from tests.processes.upgrading import Upgrading


class KeepingTest(UpgradeTestCase):
    """A reload, and then an upgrade."""

    def setUp(self) -> None:
        super().setUp()
        self.listening = self.backend()

    def begin(self, settings: str = "", more: str = "") -> Upgrading:
        """Start a service."""
        port = self.listening.getsockname()[1]
        self.file_of_rules = (
            f"{RULES}detect_timeout = 10m\n[route first]\nmatch = ssh\nbackend = pool\n"
            f"[backend pool]\nserver = 127.0.0.1:{port}\n{more}"
        )
        return self.upgrading(self.file_of_rules, settings)

    def change(self, mux: Upgrading, *changes: tuple[str, str]) -> None:
        """Change the rules, and wait until they hold."""
        text = mux.file.read_text()
        for old, new in changes:
            self.assertIn(old, text)
            text = text.replace(old, new)
        mux.file.write_text(text)
        before = mux.child.output.count("rules reloaded")
        os.kill(mux.pid, signal.SIGHUP)
        eventually(lambda: mux.child.output.count("rules reloaded") > before, "it is reloaded")

    def decided(self, client: socket.socket) -> socket.socket:
        """Have a client say what it is, and give the server's end."""
        client.sendall(b"SSH-2.0-x\r\n")
        return self.accept_from(self.listening, b"SSH-2.0-x\r\n")

    def assert_moves(
        self, mux: Upgrading, pairs: Sequence[tuple[socket.socket, socket.socket]]
    ) -> None:
        """Upgrade, and see that the connections go on in the new process until they end."""
        mux.upgrade()
        mux.child.wait_for(f"connections handed over: {len(pairs)}\\b")
        for client, server in pairs:
            self.answers(client, server)
            self.over(client, server)
        lines = mux.take(len(pairs))
        self.assertEqual({line["reason"] for line in lines}, {"done"})
        self.assertEqual({line["bytes_in"] for line in lines}, {11 + 4})

    def test_older_rules(self) -> None:
        """Their route, backend and listener are gone; the log names them, and the limits of the service count them."""
        mux = self.begin()
        client = self.client(mux)
        server = self.decided(client)
        self.change(mux, ("first", "second"), ("pool", "other"), ("public", "new"))
        found = mux.child.wait_for(r"listening on \S+:(\d+) for \[listen new\]")
        mux.ports = {"new": int(found[1])}
        mux.file.write_text(mux.file.read_text().replace("[txmux]", "[txmux]\nmax_connections = 1"))
        mux.upgrade()
        with mux.connect():
            self.assertEqual(mux.take_one()["reason"], "limit")
        self.answers(client, server)
        self.over(client, server)
        line = mux.take_one()
        told = (line["listener"], line["route"], line["backend"], line["reason"])
        self.assertEqual(told, ("public", "first", "pool", "done"))
        with self.client(mux):
            pass
        self.assertEqual(mux.take_one()["reason"], "client-gone")
        mux.stop()

    def test_timers(self) -> None:
        """The time that they have is that of the rules by which they were led."""
        mux = self.begin(more="idle_timeout = 3s\n")
        client = self.client(mux)
        server = self.decided(client)
        self.change(mux, ("idle_timeout = 3s", "idle_timeout = 1h"))
        mux.upgrade()
        self.assertEqual(server.recv(1), b"")
        self.assertEqual(mux.take_one()["reason"], "idle-timeout")
        client.close()
        mux.stop()

    def test_retiring_worker(self) -> None:
        """One that was not decided stayed in a worker which was not needed any more; when it is relayed, it can be moved."""
        mux = self.begin("workers = 3")
        mux.child.wait_for("workers that serve: 3")
        clients = self.one_for_each(mux, workers_of(mux.pid))
        self.change(mux, ("workers = 3", "workers = 2"))
        pairs = [(client, self.decided(client)) for client in clients]
        self.assertEqual(len(workers_of(mux.pid)), 3)
        self.assert_moves(mux, pairs)
        mux.stop()

    def test_fewer_workers(self) -> None:
        """What a worker relays that is not needed any more goes on in the others, and counts for their limits."""
        mux = self.begin("workers = 2\nmax_connections = 2")
        mux.child.wait_for("workers that serve: 2")
        workers = workers_of(mux.pid)
        pairs = [(client, self.decided(client)) for client in self.one_for_each(mux, workers)]
        self.change(mux, ("workers = 2", "workers = 1"))
        eventually(lambda: len(workers_of(mux.pid)) == 1, "the other worker has ended")
        (left,) = workers_of(mux.pid)
        self.assertIn(left, workers)
        for client, server in pairs:
            self.assertTrue(has_connection(left, server))
            self.answers(client, server)
        with mux.connect():
            self.assertEqual(mux.take_one()["reason"], "limit")
        for client, server in pairs:
            self.over(client, server)
        self.assertEqual({line["bytes_in"] for line in mux.take(2)}, {11 + 4})
        mux.stop()

    def test_drain_removed(self) -> None:
        """Connections of a route that is gone end, though they are moved from a worker that is not needed any more."""
        mux = self.begin("workers = 3\ndrain_removed = yes\ndrain_timeout = 1s")
        for _ in range(9):
            self.decided(self.client(mux))
        self.change(mux, ("first", "second"), ("workers = 3", "workers = 1"))
        lines = mux.take(9)
        self.assertEqual({line["reason"] for line in lines}, {"drained"})
        self.assertFalse(re.search("Traceback|Unhandled", mux.child.output))
        mux.stop()

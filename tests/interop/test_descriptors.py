"""A service that runs out of descriptors waits for some, says so once, and goes on."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from collections import Counter
from pathlib import Path

from tests.interop.children import InteropTestCase, eventually
from tests.interop.mux import Mux

_LIMIT = 96
_CLIENTS = 300

_RULES = """
[listen public]
endpoint = 127.0.0.1:0
backlog  = {clients}

[route all]
match   = any
backend = 127.0.0.1:{port}
"""


class DescriptorTests(InteropTestCase):
    """More clients than there are descriptors for."""

    def setUp(self) -> None:
        """Start an echo server and txmux with few descriptors."""
        self.backend = socket.create_server(("127.0.0.1", 0), backlog=_CLIENTS)
        self.addCleanup(self.backend.close)
        self.served: list[socket.socket] = []
        threading.Thread(target=self.serve, daemon=True).start()
        rules = _RULES.format(clients=_CLIENTS, port=self.backend.getsockname()[1])
        few = ("sh", "-c", f'ulimit -n {_LIMIT}; exec "$@"', "sh")
        self.mux = self.own(Mux(self.folder, rules, before=few))

    def serve(self) -> None:
        """Echo the first bytes of each that comes."""
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = self.backend.accept()
                with accepted:
                    accepted.sendall(accepted.recv(100))

    def cpu(self) -> float:
        """Give the seconds of processor time that txmux has used (proc(5))."""
        _, _, fields = Path(f"/proc/{self.mux.child.pid}/stat").read_text().rpartition(")")
        user, system = map(int, fields.split()[11:13])
        return (user + system) / os.sysconf("SC_CLK_TCK")

    def open(self) -> int:
        """Count txmux's descriptors."""
        return len(list(Path(f"/proc/{self.mux.child.pid}/fd").iterdir()))

    def warnings(self) -> list[str]:
        """Give what txmux has said about it."""
        return re.findall(r".*clients wait until.*", self.mux.child.output)

    def connect(self) -> socket.socket:
        """Connect a client that says something."""
        client = self.mux.connect()
        client.sendall(b"hello")
        return client

    def test_too_many_clients(self) -> None:
        """They wait, at no cost, and are served as soon as others have gone; it is said once."""
        clients = [self.connect() for _ in range(_CLIENTS)]
        eventually(lambda: len(self.warnings()) > 0, "it is said")
        self.assertIn("LimitNOFILE=", self.warnings()[0])
        before = self.cpu()
        # Not a wait for anything: the time over which the processor time is measured.
        time.sleep(1)
        self.assertLess(self.cpu() - before, 0.2)
        answered = 0
        for client in clients:  # each that goes makes room
            with client, contextlib.suppress(ConnectionError):
                answered += client.recv(5) == b"hello"
        eventually(lambda: self.open() < _LIMIT // 2, "descriptors are free again")
        self.assertEqual(len(self.warnings()), 1)
        with self.connect() as late:
            self.assertEqual(late.recv(5), b"hello")
        counted = Counter(line["reason"] for line in self.mux.take(_CLIENTS + 1))
        # For one that was let in there may be no descriptor left to reach its server.
        self.assertEqual(counted, {"done": answered + 1, "error": _CLIENTS - answered})
        self.assertGreater(answered, _LIMIT // 4)

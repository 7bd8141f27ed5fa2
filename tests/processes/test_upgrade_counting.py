"""What was counted goes on in a new process."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from tests.interop.children import eventually
from tests.processes.running import is_gone
from tests.processes.test_upgrade import UpgradeTestCase

if TYPE_CHECKING:
    from tests.processes.upgrading import Upgrading

_NAMES = ("connections_total", "connections_active", "route_matches_total", "bytes_total")


class CountingTest(UpgradeTestCase):
    """Upgrades with connections that last and others that have ended."""

    def read(self) -> list[float]:
        """Give numbers: clients, connections, matches, and bytes both ways."""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(60)
            asking.connect(str(self.folder / "metrics.sock"))
            asking.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            text = b"".join(iter(lambda: asking.recv(2**16), b"")).decode()
        head, _, body = text.partition("\r\n\r\n")
        self.assertIn(" 200 ", head.splitlines()[0])
        samples = [
            sample for family in text_string_to_metric_families(body) for sample in family.samples
        ]
        return [sum(one.value for one in samples if one.name == f"txmux_{name}") for name in _NAMES]

    def served(self, settings: str) -> None:
        """Upgrade twice, and compare the numbers."""
        listening = self.backend()
        settings += f"\nmetrics = unix:{self.folder / 'metrics.sock'}"
        mux = self.upgrading(self.relaying(listening), settings)
        kept, server = self.relayed(mux, listening)
        self.end(mux, listening)
        self.wait_for([2, 1, 2, 2])
        mux.upgrade()
        self.wait_for([2, 1, 2, 2])
        kept.sendall(b"more")
        self.assertEqual(server.recv(10), b"more")
        self.wait_for([2, 1, 2, 6])
        self.end(mux, listening)
        mux.upgrade()
        self.wait_for([3, 1, 3, 7])
        self.over(kept, server)
        self.wait_for([3, 0, 3, 7])
        mux.stop()

    def end(self, mux: Upgrading, listening: socket.socket) -> None:
        """Make a connection that ends, after one byte."""
        self.over(*self.relayed(mux, listening))

    def wait_for(self, numbers: list[float]) -> None:
        """Wait until these are told."""
        eventually(lambda: self.read() == numbers, f"the metrics are {numbers}")

    def test_goes_on(self) -> None:
        """One process goes on with the numbers of another one, and a third with those of both, with one worker or several."""
        for workers in (1, 2):
            self.served(f"workers = {workers}")

    def test_two_that_drain(self) -> None:
        """What a process keeps whose place was taken twice is counted until it has ended."""
        for workers in (1, 2):
            listening = self.backend()
            settings = f"workers = {workers}\ndrain_timeout = 10m\nmetrics = unix:{self.folder / 'metrics.sock'}"
            ssh = "[route ssh]\nmatch = ssh\nbackend = 127.0.0.1:1\n"
            mux = self.upgrading(self.relaying(listening, f"detect_timeout = 10m\n{ssh}"), settings)
            client = self.client(mux)
            self.wait_for([1, 1, 0, 0])
            mux.ask()
            first = mux.switched()
            self.wait_for([1, 1, 0, 0])
            mux.upgrade()
            self.wait_for([1, 1, 0, 0])
            client.sendall(b"x")
            server = self.accept_from(listening, b"x")
            self.wait_for([1, 1, 1, 0])  # the bytes are counted at its end
            self.over(client, server)
            eventually(lambda pid=first: is_gone(pid), "it has ended")  # type: ignore[misc]
            self.wait_for([1, 0, 1, 1])
            mux.upgrade()
            self.wait_for([1, 0, 1, 1])
            mux.stop()

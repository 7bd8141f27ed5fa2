"""A service that is run from a file, which changes."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING, Any

from twisted.internet.task import deferLater

from tests.support.peers import connect, reactor
from tests.support.service import ServiceTestCase
from txmux import MuxService

if TYPE_CHECKING:
    from tests.support.peers import Peer
    from txmux.control import Report

__all__ = ["LISTEN", "ReloadCase"]

LISTEN = "[listen x]\nendpoint = 127.0.0.1:0\n"


class ReloadCase(ServiceTestCase):
    """Runs a service from a file, and changes that."""

    def setUp(self) -> None:
        super().setUp()
        self.rules = self.folder / "rules.ini"

    def write(self, text: str) -> None:
        """Write the rules file."""
        self.rules.write_text(text.replace("LOG", str(self.log)))

    def start(self, text: str, use: Any = reactor) -> int:
        """Start a service, and give the port of its first listener."""
        self.write(text)
        self.running = MuxService.from_file(self.rules, reactor=use)
        self.running.startService()
        self.addCleanup(self.stop)
        return 0 if "unix:" in text else self.port()

    def port(self, number: int = 0) -> int:
        """Give the port of a listener."""
        found: Any = self.running.ports[number]
        port: int = found.getHost().port
        return port

    async def change(self, text: str) -> str:
        """Reload other rules, and give what has changed."""
        self.write(text)
        report = await self.running.reload()
        self.assertEqual(report.errors, ())
        return report.changes

    async def refused(self, text: str) -> str:
        """Find that other rules are refused and leave all as it was; give what is told of that."""
        gc.collect()  # what tests before this one have left would go in between
        before = (self.inodes(), self.running.rules, len(os.listdir("/proc/self/fd")))  # noqa: PTH208
        self.write(text)
        report: Report = await self.running.reload()
        self.assertEqual((report.ok, report.changes), (False, ""))
        after = (self.inodes(), self.running.rules, len(os.listdir("/proc/self/fd")))  # noqa: PTH208
        self.assertEqual(after, before)
        return "\n".join(report.errors)

    def inodes(self) -> list[int]:
        """Give what tells the listening sockets apart, whoever has them open."""
        return [os.fstat(one.fileno()).st_ino for one in self.running._sockets.sockets().values()]

    async def turn(self, times: int = 3) -> None:
        """Let the reactor do what it has to do."""
        for _ in range(times):
            await deferLater(reactor, 0)

    async def gone(self, client: Peer) -> None:
        """Break off the connection of the only client, and wait until nothing of it is open."""
        client.reset()
        await client.is_lost()
        while any(factory.connections for factory in self.running.factories):
            await self.turn()
        await self.turn()

    async def greeted(self, port: int, greeting: bytes = b"SSH-2.0-a\r\n") -> Peer:
        """Connect a client that speaks."""
        client = await connect(self, port)
        client.send(greeting)
        return client

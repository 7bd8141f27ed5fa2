"""A service that is run from a file, which changes."""

import gc
import os

from twisted.trial.unittest import TestCase

from tests.support.datagrams import turn
from tests.support.peers import Peer, connect
from tests.support.supervised import SupervisedTestCase

LISTEN = "[listen x]\nendpoint = 127.0.0.1:0\n"


async def greeted(test: TestCase, port: int, greeting: bytes = b"SSH-2.0-a\r\n") -> Peer:
    client = await connect(test, port)
    client.send(greeting)
    return client


def _descriptors() -> int:
    gc.collect()  # what tests before this one have left would go in between
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


class ReloadCase(SupervisedTestCase):
    async def change(self, text: str) -> str:
        self.write(text)
        report = await self.running.reload()
        self.assertEqual(report.errors, ())
        return report.changes

    async def refused(self, text: str) -> str:
        """Find that other rules are refused and leave all as it was; give what is told of that."""
        before, descriptors = self._state(), _descriptors()
        self.write(text)
        report = await self.running.reload()
        self.assertEqual((report.ok, report.changes), (False, ""))
        self.assertEqual(self._state(), before)
        # Some are open for a moment only, at any time.
        while _descriptors() > descriptors:
            await turn()
        return "\n".join(report.errors)

    def _state(self) -> tuple[object, ...]:
        return self.inodes(), self.running.control.rules

    def inodes(self) -> list[int]:
        return [
            os.fstat(one.fileno()).st_ino
            for one in self.running._resources.sockets.sockets().values()
        ]

    async def connections(self, count: int) -> None:
        while (await self.running.control.status())["connections"]["active"] != count:
            await turn()

    async def gone(self, client: Peer) -> None:
        """Break off the connection of the only client, and wait until nothing of it is open."""
        client.reset()
        await client.is_lost()
        await self.connections(0)

    async def logged(self, *said: str) -> None:
        while not (self.log.exists() and all(one in self.log.read_text() for one in said)):
            await turn()

"""Twisted's own transports as txmux makes them: they write at once."""

import socket
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.trial.unittest import TestCase

from tests.interop.children import PATIENCE
from tests.support.peers import Peer, PeerClientFactory
from txmux.net.sockets.plainsocket import reset_on_close
from txmux.net.sockets.reactorsockets import close, connect_tcp, half_close

reactor: Any = _reactor


class WriteTest(TestCase):
    async def connect(self) -> tuple[Peer, socket.socket]:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            factory = PeerClientFactory()
            connect_tcp(reactor, "127.0.0.1", listening.getsockname()[1], factory, 5, None)
            ours = await factory.connected
            theirs, _ = listening.accept()
        self.addCleanup(theirs.close)
        theirs.settimeout(PATIENCE)
        return ours, theirs

    async def test_at_once(self) -> None:
        """What is written, and an end, is sent without a turn of the reactor."""
        ours, theirs = await self.connect()
        ours.send(b"x")
        self.assertEqual(theirs.recv(10), b"x")
        half_close(ours.transport)
        self.assertEqual(theirs.recv(10), b"")
        close(ours.transport)
        self.assertIsNotNone(ours.lost)
        self.assertFalse(ours.was_reset())

    async def test_reset(self) -> None:
        """A reset that a write notices first is not taken for the peer's end."""
        ours, theirs = await self.connect()
        ends: list[None] = []
        self.patch(ours, "readConnectionLost", lambda: ends.append(None))
        reset_on_close(theirs)
        theirs.close()
        ours.send(b"x")
        await ours.is_lost()
        self.assertTrue(ours.was_reset())
        self.assertEqual(ends, [])

    async def test_end_before(self) -> None:
        """An end that came before a write failed is still reported as one."""
        ours, theirs = await self.connect()
        theirs.close()
        ours.send(b"x")  # which the peer answers by a reset
        ours.send(b"y")
        await ours.has_all()
        self.assertIsNone(ours.lost)

    async def test_bytes_before(self) -> None:
        """All that the peer had sent is delivered before what a failed write means, however much that is."""
        ours, theirs = await self.connect()
        theirs.settimeout(0)
        sent = theirs.send(bytes(100_000))
        self.assertGreater(sent, 65_536)
        theirs.close()
        ours.send(b"x")
        ours.send(b"y")
        await ours.is_lost()
        self.assertEqual(len(ours.received), sent)

    async def test_aborted(self) -> None:
        """A reset is sent, and nothing before it, also if the connection is written to and closed after it was aborted."""
        ours, theirs = await self.connect()
        ours.reset()
        ours.send(b"x")
        half_close(ours.transport)
        close(ours.transport)
        await ours.is_lost()
        self.assertRaises(ConnectionResetError, theirs.recv, 10)

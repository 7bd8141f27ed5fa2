"""Clients whose sockets are handed over to another process."""

from __future__ import annotations

import socket
from typing import Any

from tests.support.mux import MuxTestCase, backend_at
from tests.support.taker import Taker
from txmux.embedding import outcome, route

SSH = b"SSH-2.0-test\r\n"
LOWAT = socket.SOL_SOCKET, socket.SO_RCVLOWAT


class GivingTest(MuxTestCase):
    """SSH is handed over; another route leads to an ordinary server."""

    def setUp(self) -> None:
        super().setUp()
        self.taker = Taker(self, self.turn)

    def giving_mux(self, **settings: Any) -> int:
        """Listen with a multiplexer that hands over SSH, and leads HTTP to the test's backend."""
        return self.mux(
            [
                route("ssh", self.taker.outcome, name="ssh"),
                route("http", backend_at(self.backend_port()), name="http"),
            ],
            **settings,
        )

    async def client(self, port: int, said: bytes = b"", host: str = "127.0.0.1") -> socket.socket:
        """Connect a client."""
        client = socket.create_connection((host, port))
        client.settimeout(10)
        self.addCleanup(client.close)
        client.sendall(said)
        return client

    async def test_handed_over(self) -> None:
        """The server gets the client's own socket, with all that it has said in it, and its facts."""
        client = await self.client(self.giving_mux(), SSH)
        given, told = await self.taker.taken()
        record = await self.logged()
        self.assertEqual(given.getpeername(), client.getsockname())
        self.assertEqual(given.getsockname(), client.getpeername())
        self.assertEqual(given.getsockopt(*LOWAT), 1)
        self.assertEqual(given.recv(100), SSH)
        given.sendall(b"SSH-2.0-server\r\n")
        self.assertEqual(client.recv(100), b"SSH-2.0-server\r\n")
        client.close()
        self.assertEqual(given.recv(100), b"")
        self.assertEqual(
            told,
            {
                "version": 1,
                "id": record.id,
                "time": record.time,
                "listener": "public",
                "route": "ssh",
                "client": [*given.getpeername()],
                "local": [*given.getsockname()],
                "facts": {"software": "test"},
            },
        )
        self.assert_story(
            record,
            reason="handed-over",
            route="ssh",
            backend=self.taker.outcome,
            server=self.taker.outcome,
            bytes_in=0,
            bytes_out=0,
            facts={"software": "test"},
        )
        self.assertTrue(record.is_clean)

    async def test_another_route(self) -> None:
        """A client of the same listener that is led to an ordinary server is relayed, each byte once."""
        said = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        client = await self.connect(self.giving_mux(), said[:5])
        await self.seen(5)
        client.send(said[5:])
        server = await self.backend.heard(len(said))
        client.send(b"more")
        await server.has(len(said) + 4)
        self.assertEqual(bytes(server.received), said + b"more")
        server.send(b"answer")
        await client.has(6)
        client.close()
        server.close()
        story = self.assert_story
        story(await self.logged(), reason="done", route="http", bytes_in=len(said) + 4, bytes_out=6)

    async def test_silent(self) -> None:
        """A silent client is handed over without a byte."""
        port = self.mux(silent=outcome(self.taker.outcome), detect_timeout=3)
        client = await self.client(port)
        while not self.factory.connections:
            await self.turn()
        self.time.advance(3.1)
        given, told = await self.taker.taken()
        self.assertEqual((told["route"], told["facts"]), (None, {}))
        given.sendall(b"220 mail\r\n")
        self.assertEqual(client.recv(100), b"220 mail\r\n")
        self.assert_story(await self.logged(), reason="handed-over", route=None, bytes_in=0)

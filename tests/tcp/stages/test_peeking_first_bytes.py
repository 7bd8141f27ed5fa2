"""Clients that have spoken before anybody has accepted them."""

from __future__ import annotations

import socket
import struct

from tests.support.mux import MuxTestCase
from tests.support.queues import until_queued, until_taken

_RESET = struct.pack("ii", 1, 0)


class FirstBytesTest(MuxTestCase):
    """What such a client has said is looked at as it is accepted."""

    def early(self, said: bytes, **settings: int) -> socket.socket:
        address = "127.0.0.1", self.ssh_mux(**settings)
        client = socket.create_connection(address)
        self.addCleanup(client.close)
        client.sendall(said)
        until_taken(client)
        until_queued(self.listening._socket, 1)
        return client

    async def test_deciding_bytes_route_at_once_without_a_timer(self) -> None:
        client = self.early(b"SSH-2.0-test\r\n", detect_timeout=7)
        self.listening.doRead()
        (connection,) = self.factory.connections
        self.assertEqual(connection.record.route, "ssh")
        self.assertNotIn(
            7.0, [timer.getTime() for timer in self.factory.runtime.clock.getDelayedCalls()]
        )
        server = await self.backend.heard(14)
        self.assertEqual(bytes(server.received), b"SSH-2.0-test\r\n")
        client.close()
        server.close()
        await self.assert_logged(route="ssh", reason="done", bytes_in=14)

    async def test_undecided_bytes_leave_the_usual_time(self) -> None:
        client = self.early(b"SS", detect_timeout=7)
        self.listening.doRead()
        (connection,) = self.factory.connections
        self.assertEqual((connection.record.route, connection.record.bytes_in), (None, 2))
        self.time.advance(6.9)
        await self.turn(3)
        self.assertEqual(self.records, [])
        self.time.advance(0.2)
        await self.assert_logged(reason="no-route", bytes_in=2)
        self.assertEqual(client.recv(1), b"")

    async def test_silent_client_is_read_when_it_speaks(self) -> None:
        client = self.early(b"")
        self.listening.doRead()
        client.sendall(b"SSH-2.0-test\r\n")
        server = await self.backend.heard(14)
        client.close()
        server.close()
        await self.assert_logged(route="ssh", reason="done", bytes_in=14)

    async def test_half_closed_client_reaches_its_server_with_its_end(self) -> None:
        client = self.early(b"SSH-2.0-test\r\n")
        client.shutdown(socket.SHUT_WR)
        until_taken(client)
        self.listening.doRead()
        server = await self.backend.heard(14)
        await server.has_all()
        server.close()
        await self.assert_logged(route="ssh", reason="done", bytes_in=14)

    async def test_client_that_left_without_a_byte_is_logged_as_gone(self) -> None:
        client = self.early(b"")
        client.close()
        self.listening.doRead()
        await self.assert_logged(reason="client-gone", bytes_in=0)
        self.assertEqual(self.backend.peers, [])

    async def test_reset_client_is_logged_as_gone(self) -> None:
        client = self.early(b"SS")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        client.close()
        self.listening.doRead()
        await self.assert_logged(reason="client-gone")
        self.assertEqual(self.backend.peers, [])

"""What every relay must do when somebody breaks off."""

from __future__ import annotations

from tests.net.relay.contract import RelayCase
from txmux.net.relay.interface import Timeouts

_MiB = 2**20


class ResetContract(RelayCase):
    """A reset is passed on as a reset, after what came before it; for sockets that know resets."""

    async def test_client_reset(self) -> None:
        client, server = await self.start()
        client.send(b"unfinished sent")
        await server.has(15)
        client.reset()
        result = await self.over(client, server)
        self.assertEqual(result.reason, "client-reset")
        self.assertTrue(server.was_reset())

    async def test_server_reset(self) -> None:
        client, server = await self.start()
        server.send(b"half an ans")
        await client.has(11)
        server.reset()
        result = await self.over(client, server)
        self.assertEqual(result.reason, "server-reset")
        self.assertTrue(client.was_reset())

    async def test_reset_after_all_was_said(self) -> None:
        client, server = await self.start()
        client.transport.pauseProducing()
        server.send(bytes(_MiB))
        server.finish()
        await self.taken(server)
        server.reset()
        await server.is_lost()
        await self.turn(50)
        while not self.relay.ending:
            # Some hear of the reset only when they send. They read this byte; one that nobody reads any more would
            # have the system reset the client's connection, too.
            client.send(b"x")
            await self.turn(50)
        client.transport.resumeProducing()
        result = await self.over(client)
        self.assertEqual(len(client.received), _MiB)
        self.assertFalse(client.was_reset())
        self.assertEqual(result.reason, "server-reset")

    async def test_reset_while_the_other_side_is_stalled(self) -> None:
        client, server = await self.start(timeouts=Timeouts(half_close=0.2), small_buffers=True)
        await self.stall(client, server)
        server.transport.unregisterProducer()
        server.reset()
        await self.assert_rests()
        # What is still on its way to the client cannot tell of its end, so the reset shows when it is read.
        client.transport.resumeProducing()
        result = await self.over(client, server)
        self.assertEqual(result.reason, "server-reset")

    async def test_nothing_is_read_for_nobody(self) -> None:
        """When the server is gone, a client that keeps sending is ended, not listened to."""
        client, server = await self.start()
        server.send(b"bye")
        server.finish()
        await client.has_all()
        server.reset()
        while client.lost is None:
            client.send(bytes(1000))
            await self.turn()
        result = await self.over(client, server)
        self.assertEqual(bytes(client.received), b"bye")
        self.assertLess(result.bytes_in, _MiB)
        self.assertEqual(result.reason, "server-reset")

    async def test_reset_comes_after_the_bytes_before_it(self) -> None:
        client, server = await self.start()
        client.transport.pauseProducing()
        server.send(bytes(_MiB))
        await self.taken(server)
        server.reset()
        await self.turn(50)
        client.transport.resumeProducing()
        result = await self.over(client, server)
        self.assertEqual(len(client.received), _MiB)
        self.assertTrue(client.was_reset())
        self.assertEqual(result.reason, "server-reset")

    async def test_endings_that_meet(self) -> None:
        """A server that finishes when the client has just broken off still gets all, and then the reset."""
        client, server = await self.start()
        server.transport.pauseProducing()
        client.send(bytes(_MiB))
        await self.taken(client)
        client.reset()
        server.finish()
        await self.turn(50)
        server.transport.resumeProducing()
        result = await self.over(server)
        self.assertEqual(len(server.received), _MiB)
        self.assertTrue(server.was_reset())
        self.assertEqual(result.reason, "client-reset")

    async def test_both_have_gone(self) -> None:
        """When the server breaks off, nobody waits for a client that has gone to take what it was sent."""
        client, server = await self.start()
        client.close()
        await server.has_all()
        server.send(b"is anybody there?")
        await self.taken(server)
        server.reset()
        result = await self.over(client, server)
        self.assertIn(result.reason, {"client-reset", "server-reset"})

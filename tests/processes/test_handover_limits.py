"""The limits of several processes while a connection is on its way from one to another."""

from typing import Any

import attrs
from twisted.logger import capturedLogs, formatEvent
from typing_extensions import override

from tests.processes.handover_case import SKIP, Handover
from tests.support.kit import MuxTestCase, Peer
from txmux.access.across_processes import SharedLimits
from txmux.net.channel.channel import Channel
from txmux.processes.worker import handover
from txmux.rules.reading.parser import parse
from txmux.serving.listen_addresses import open_socket, socket_address
from txmux.tcp.listener import MuxFactory

_RULES = "[listen public]\nendpoint = 127.0.0.1:0\n"


class LimitsTest(MuxTestCase):
    """The service of both ends of the channel, which are its first two workers, has a limit."""

    skip = SKIP

    def setUp(self) -> None:
        super().setUp()
        self.handover = Handover(self)
        self.handover.prepare = lambda made: self.counted_by(made, 2)
        self.limits = SharedLimits.make(parse(_RULES, "x"), 3)
        self.addCleanup(self.limits.close)
        self.handover.awaited = self.limits.awaited(2)
        self.found: list[tuple[str, int]] = []

    def counted_by(self, factory: MuxFactory, worker: int) -> MuxFactory:
        admissions = self.limits.admissions(worker, self.time.seconds, 0)
        admission = admissions(factory.configuration.settings)
        factory.configuration = attrs.evolve(factory.configuration, admission=admission)
        return factory

    @override
    def mux(self, *arguments: Any, **settings: Any) -> int:
        port = super().mux(*arguments, **settings)
        self.counted_by(self.factory, 1)
        return port

    def count(self) -> int:
        """Tell, once the supervisor has looked, the lowest limits of the service and of the listener that let one more in, as the third worker finds; they are one number."""
        self.limits.collect()
        found = []
        for name in ("", "public"):
            limit = 1
            while not (tally := self.limits.tally(limit, name, 3)).take():
                limit += 1
            tally.give_back()
            found.append(limit - 1)
        service, listener = found
        self.assertEqual(service, listener)
        return service

    async def test_on_the_way(self) -> None:
        """Each counts once at each moment, also when one process has let go and the other has not heard of it, or a worker was killed."""
        for is_killed in (False, True):
            self.found.clear()
            peers = await self.handover.relayed(3)

            def go_on(*, is_killed: bool = is_killed, **values: Any) -> None:
                if is_killed:
                    self.limits.worker_ended(2)
                self.found.append(("let go", self.count()))
                self.assertEqual(self.handover.old.connections, set())
                self.handover.does["go_on"](**values)
                self.found.append(("adopted", self.count()))

            self.assertEqual(self.count(), 3)
            self.assertEqual(await self.handover.hand(self.handover.adopting(go_on=go_on)), 3)
            self.assertEqual(self.found, [("let go", 3), ("adopted", 3)])
            self.assertEqual(self.count(), 3)
            await self.handover.end_all(peers)
            await self.logged(3)
            self.assertEqual(self.count(), 0)
            self.forget()

    async def test_lost_connections_count_no_more(self) -> None:
        await self.handover.relayed(2)

        def go_on(**_: Any) -> None:
            self.found.append(("let go", self.count()))
            self.handover.there.transport.abortConnection()

        channel = self.handover.adopting(go_on=go_on)
        with capturedLogs() as events:
            self.assertEqual(await self.handover.hand(channel), 2)
            self.assertEqual(self.found, [("let go", 2)])
            while self.handover.adopts.undecided:
                await self.turn()
        self.assertIn("connections lost: 2, since", str([*map(formatEvent, events)]))
        self.assertEqual(self.count(), 0)

    async def test_connections_that_cannot_go_on_count_no_more(self) -> None:
        """Whether one of them fails, or what goes through all."""

        def fail(*_: object) -> None:
            raise ValueError

        for does in ("adopt", "_adopt"):
            await self.handover.relayed(1)
            self.patch(self.handover.new if does == "adopt" else handover, does, fail)
            self.assertEqual(await self.handover.hand(self.handover.adopting()), 1)
            self.assertEqual(self.count(), 0)
            self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
            self.backend.peers.clear()


class KeepingTest(MuxTestCase):
    """With room for one, which is taken; one waits in the old process, and one in the new one."""

    skip = SKIP

    def setUp(self) -> None:
        super().setUp()
        self.handover = Handover(self)

    async def waiting(self, factory: MuxFactory, client: Peer) -> Peer:
        while not any(
            one.record.server is None and one.record.bytes_in for one in factory.connections
        ):
            await self.turn()
        await self.turn(3)
        return client

    async def moved(self, **settings: Any) -> Channel:
        ((self.first, self.server),) = await self.handover.relayed(1, queue=2, **settings)
        address = socket_address("127.0.0.1:0", 10)
        assert address is not None
        with open_socket(address) as opened:
            port: Any = self.handover.new.listen(opened)
        self.addCleanup(port.stopListening)
        self.handover.new.upstreams.start()
        (one,) = self.handover.old.connections
        old = await self.connect(one.transport.getHost().port, b"SSH-2.0-old\r\n")
        self.old_client = await self.waiting(self.handover.old, old)
        channel = self.handover.adopting()
        self.assertEqual(await self.handover.hand(channel), 1)
        new = await self.connect(port.getHost().port, b"SSH-2.0-new\r\n")
        self.new_client = await self.waiting(self.handover.new, new)
        self.assertEqual(len(self.backend.peers), 1)
        return channel

    async def served(self, number: int, said: bytes) -> Peer:
        """Wait until the server has another client; nobody else may be let in."""
        peer = await self.backend.heard(len(said), number)
        self.assertEqual(bytes(peer.received), said)
        await self.turn(10)
        self.assertEqual(len(self.backend.peers), number + 1)
        return peer

    async def end(self, client: Peer, server: Peer) -> None:
        client.close()
        await server.is_lost()
        await client.is_lost()

    async def assert_all_free(self) -> None:
        while self.handover.old.connections or self.handover.new.connections:
            await self.turn()
        await self.turn(5)
        for factory in (self.handover.old, self.handover.new):
            (upstream,) = factory.upstreams.all()
            self.assertEqual(upstream.pool.connections, 0)
            self.assertEqual([member.connections for member in upstream.pool.members], [0])

    async def test_slot_goes_to_the_old_process_first(self) -> None:
        """Be it one of the backend or of its server."""
        for number, limit in enumerate(({"max_connections": 1}, {"of_server": 1}), 1):
            channel = await self.moved(**limit)
            self.handover.kept[0].close_when_done()
            await self.end(self.first, self.server)
            server = await self.served(1, b"SSH-2.0-old\r\n")
            self.assertTrue(channel.is_open)
            await self.end(self.old_client, server)
            server = await self.served(2, b"SSH-2.0-new\r\n")
            await self.end(self.new_client, server)
            await self.assert_all_free()
            self.time.advance(0)
            await self.turn(3)
            self.assertFalse(channel.is_open)
            await self.logged(3 * number)
            self.backend.peers.clear()

    async def test_slot_is_free_if_the_client_gives_up_once_served(self) -> None:
        await self.moved(max_connections=1)
        await self.end(self.first, self.server)
        server = await self.served(1, b"SSH-2.0-old\r\n")
        self.old_client.reset()
        await self.is_gone(server)
        server = await self.served(2, b"SSH-2.0-new\r\n")
        await self.end(self.new_client, server)
        await self.assert_all_free()

    async def test_slot_is_free_if_the_waiting_client_leaves(self) -> None:
        await self.moved(max_connections=1)
        self.old_client.reset()
        while self.handover.old.connections:
            await self.turn()
        await self.end(self.first, self.server)
        server = await self.served(1, b"SSH-2.0-new\r\n")
        await self.end(self.new_client, server)
        await self.assert_all_free()

    async def test_slots_are_free_when_the_old_process_has_ended(self) -> None:
        channel = await self.moved(max_connections=1)
        await self.end(self.first, self.server)
        server = await self.served(1, b"SSH-2.0-old\r\n")
        channel.close()
        await self.end(self.new_client, await self.served(2, b"SSH-2.0-new\r\n"))
        await self.end(self.old_client, server)
        await self.assert_all_free()

    async def test_slots_are_free_when_the_new_process_has_ended(self) -> None:
        channel = await self.moved(max_connections=1)
        self.handover.there.transport.abortConnection()
        while channel.is_open:
            await self.turn()
        self.handover.kept[0].channel_lost()
        server = await self.served(1, b"SSH-2.0-old\r\n")
        await self.end(self.old_client, server)
        await self.end(self.first, self.server)
        await self.end(self.new_client, await self.served(2, b"SSH-2.0-new\r\n"))
        await self.assert_all_free()

    async def test_on_and_on(self) -> None:
        """One that moves twice keeps its place in both processes that it has left."""
        await self.moved(max_connections=1)
        (second,) = self.handover.kept
        between = self.handover.new
        self.handover.new, self.handover.old = self.handover.another(), self.handover.new
        (adopted,) = (one for one in between.connections if one.record.server)
        self.assertEqual(await self.handover.hand_these([adopted], self.handover.adopting()), 1)
        await self.turn(5)
        self.assertEqual(len(self.backend.peers), 1)
        await self.end(self.first, self.server)
        # Both come before any newcomer, and never both at once.
        peer = await self.backend.peer(1)
        await self.turn(10)
        self.assertEqual(len(self.backend.peers), 2)
        waiting = [self.old_client, self.new_client]
        first = waiting.pop(b"new" in peer.received)
        await self.end(first, peer)
        await self.end(waiting[0], await self.backend.peer(2))
        second.close_when_done()
        await self.assert_all_free()

    async def test_old_is_slow(self) -> None:
        """However long the old process does not answer, as on a small machine, it keeps its places: its supervisor ends one that hangs."""
        channel = await self.moved(max_connections=1, connect_timeout=100.0)
        time: Any = self.time
        self.handover.there.clock = time
        channel.transport.stopReading()
        await self.end(self.first, self.server)
        while len(self.handover.new.connections) > 1:
            await self.turn()
        for _ in range(12):
            self.time.advance(5)
            await self.turn(10)
        self.assertEqual(len(self.backend.peers), 1)
        channel.transport.startReading()
        await self.end(self.old_client, await self.served(1, b"SSH-2.0-old\r\n"))
        await self.end(self.new_client, await self.served(2, b"SSH-2.0-new\r\n"))
        await self.assert_all_free()

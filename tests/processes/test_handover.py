"""Connections go on in another process; here, both are in one, with a channel between them."""

import gc
import socket
import weakref
from collections.abc import Callable, Sequence
from itertools import count
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs

from tests.processes.handover_case import SKIP, Handover, descriptors
from tests.support.changes import change_constants
from tests.support.kit import MuxTestCase, Peer, reactor
from txmux.access.admission import Tally
from txmux.client.io_runtime import IORuntime
from txmux.net.channel import messages
from txmux.net.channel.channel import Channel, attach
from txmux.net.channel.descriptorstream import close_all
from txmux.net.relay.interface import SideState
from txmux.net.relay.kernel import KernelSide
from txmux.net.relay.relay import Relay
from txmux.processes.worker import handover
from txmux.processes.worker.handover import Adopting
from txmux.processes.worker.transfer import ConnectionTransfer
from txmux.serving.listening_ports import ListeningPorts
from txmux.tcp.connection import MuxProtocol
from txmux.tcp.listener import MuxFactory
from txmux.tcp.stages import relaying


class HandoverTest(MuxTestCase):
    skip = SKIP

    def setUp(self) -> None:
        super().setUp()
        self.handover = Handover(self)

    async def assert_go_on(self, peers: list[tuple[Peer, Peer]], where: MuxFactory) -> None:
        """Let all say something each way, and end; each is logged once, with all its bytes."""
        self.assertEqual(len(where.connections), len(peers))
        for client, server in peers:
            client.send(b"more")
            server.send(b"answer")
        for client, server in peers:
            await server.has(15)
            await client.has(6)
            client.close()
            await server.is_lost()
            self.assertEqual((server.received, client.received), (b"SSH-2.0-a\r\nmore", b"answer"))
        await self.logged(len(peers))
        stories = {(one.bytes_in, one.bytes_out, one.reason) for one in self.records}
        self.assertEqual(stories, {(15, 6, "done")})
        self.assertEqual(len({one.id for one in self.records}), len(peers))

    async def test_all_move(self) -> None:
        """They move in batches, over several channels; the old process has nothing of them any more, and the new one frees them without the garbage collector."""
        change_constants(self, handover, _BATCH=3)
        peers = await self.handover.relayed(10)
        channels = [self.handover.adopting(), self.handover.adopting()]
        self.assertEqual(await self.handover.hand(*channels), 10)
        self.assertEqual(self.handover.old.connections, set())
        self.assertEqual(descriptors(), self.handover.sockets + 4)
        known: list[Any] = [weakref.ref(one) for one in self.handover.new.connections]
        known += [weakref.ref(one.transport) for one in self.handover.new.connections]
        gc.disable()
        self.addCleanup(gc.enable)
        await self.assert_go_on(peers, self.handover.new)
        await self.turn(3)
        self.assertEqual([one() for one in known], [None] * 20)

    async def test_connection_with_many_bytes_completes_its_batch(self) -> None:
        change_constants(self, handover, _HELD=1)
        peers = await self.handover.relayed(2)
        client, server = peers[0]
        server.transport.pauseProducing()
        client.send(b"x" * 2**23)
        port = f":{client.transport.getHost().port}"
        found = (one for one in self.handover.old.connections if one.record.client.endswith(port))
        first = next(found)
        first.attach_stage()
        while not self.held(first):
            await self.turn()
        sizes: list[int] = []
        channel = self.handover.adopting()
        self.handover.before_adopting(
            lambda values: sizes.append(len(values["connections"]["rows"]))
        )
        self.assertEqual(
            await self.handover.hand_these(
                [first, *(self.handover.old.connections - {first})], channel
            ),
            2,
        )
        self.assertEqual(sizes, [1, 1])
        server.transport.resumeProducing()
        await server.has(11 + 2**23)
        await self.handover.end_all(peers)
        await self.logged(2)

    def held(self, connection: MuxProtocol) -> bytes:
        moved, _ = connection.suspend()
        connection.resume(moved)
        return moved.relay.server.held

    async def test_one_stays(self) -> None:
        """One that cannot be suspended, or of which a version that has too little tells; the rest is taken."""
        suspend, calls = KernelSide.suspend, count()

        def fails(side: KernelSide, quiet: float) -> SideState:
            if next(calls) == 3:
                raise ZeroDivisionError
            return suspend(side, quiet)

        for number, levels in ((4, ["error"]), (2, [])):
            peers = await self.handover.relayed(number)
            channel = self.handover.adopting()
            if levels:
                self.patch(KernelSide, "suspend", fails)
            else:
                self.handover.before_adopting(lambda values: values["connections"]["rows"][0].pop())
            with capturedLogs() as events:
                self.assertEqual(await self.handover.hand(channel), number - 1)
            if levels:
                self.assertEqual([one["log_level"].name for one in events], levels)
            left = len(self.handover.old.connections), len(self.handover.new.connections)
            self.assertEqual(left, (1, number - 1))
            for client, server in peers:
                client.send(b"more")
                await server.has(15)
            await self.handover.end_all(peers)
            await self.logged(number)
            self.forget()

    async def test_rates(self) -> None:
        """A rate limits a connection that has moved as before, and what waits for it moves, too."""
        rates = {"upload_rate": 1000, "download_rate": 1000}
        ((client, server),) = await self.handover.relayed(**rates)
        data = bytes(range(250)) * 12
        for _ in range(2):
            wanted, tenths = [peer.received + data for peer in (client, server)], 0
            client.send(data)
            server.send(data)
            self.assertEqual(await self.handover.hand(self.handover.adopting()), 1)
            while [client.received, server.received] != wanted and tenths < 99:
                self.time.advance(0.1)
                await self.turn(5)
                tenths += 1
            self.assertIn(tenths, range(27, 50))  # less a burst, and more if the system is slow
            self.handover.old, self.handover.new = self.handover.new, self.handover.another()
        await self.handover.end_all([(client, server)])
        await self.logged(1)

    async def test_no_answer(self) -> None:
        """If no answer comes, the old process goes on, and the new one does not, whenever it answers."""
        peers = await self.handover.relayed(2)
        asked: Deferred[None] = Deferred()
        answer: Deferred[object] = Deferred()
        adopt: Any = None

        def late(**values: Any) -> Deferred[object]:
            answer.addCallback(lambda _: adopt(**values))
            asked.callback(None)
            return answer

        channel = self.handover.adopting(adopt=late)
        adopt = self.handover.does["adopt"]
        handing = Deferred.fromCoroutine(self.handover.hand(channel))
        await asked
        self.time.advance(10)
        self.assertEqual(await handing, 0)
        await self.turn(5)
        answer.callback(None)
        await self.turn(5)
        channel.close()
        while self.handover.there.is_open:
            await self.turn()
        self.assertEqual(self.handover.new.connections, set())
        self.assertEqual(descriptors(), self.handover.sockets)
        await self.assert_go_on(peers, self.handover.old)

    async def test_out_of_memory_for_one_that_comes(self) -> None:
        """Both its ends are closed, and neither process counts it for its server any more."""
        ((client, server),) = await self.handover.relayed(of_server=1)
        channel = self.handover.adopting()
        without_memory = Mock(side_effect=MemoryError)
        self.handover.before_adopting(lambda _: self.patch(relaying, "Relaying", without_memory))
        self.assertEqual(await self.handover.hand(channel), 1)
        await client.is_lost()
        await server.is_lost()
        for factory in (self.handover.old, self.handover.new):
            (upstream,) = factory.upstreams.all()
            while upstream.pool.connections:
                await self.turn()
        self.time.advance(0)
        await self.logged(1)
        self.assertEqual([one.reason for one in self.records], ["error"])

    async def test_all_stay(self) -> None:
        """None stays suspended, whatever keeps it from being offered or taken.

        If the old process ends before it has said who goes on, the new one lets go: nobody knows what the old one has done.
        """
        for why in ("old is lost", "unknown", "about to end", "ends", "gone", "no memory"):
            with self.subTest(why):
                peers = await self.handover.relayed(2)
                self.assertEqual(await self.handover.hand(await self.taking_none(why)), 0)
                self.assertEqual(self.handover.new.connections, set())
                if why == "old is lost":
                    await self.turn(5)
                    self.assertEqual(descriptors(), self.handover.sockets)
                await self.assert_go_on(peers, self.handover.old)
            self.forget()

    async def taking_none(self, why: str) -> Channel:
        if why == "unknown":  # the rules there have none of this name
            return self.handover.adopted_by(Adopting(dict[str, MuxFactory]().__getitem__))
        if why == "about to end":
            transfer, channel = self.transfer()
            await transfer.close()
            return channel
        channel = self.handover.adopting()
        if why == "old is lost":
            adopt: Any = self.handover.does["adopt"]

            def adopted(**values: Any) -> object:
                answer = adopt(**values)
                self.handover.there.transport.abortConnection()
                return answer

            self.handover.there.handlers[messages.ADOPT] = adopted
        elif why == "ends":  # instead of answering

            def end(descriptors: Sequence[int], **_: Any) -> None:
                close_all(descriptors)
                self.handover.there.transport.abortConnection()

            self.handover.there.handlers[messages.ADOPT] = end
        elif why == "gone":
            channel.close()
            while channel.is_open:
                await self.turn()
            self.assertEqual(await self.handover.hand_these([], channel), 0)
        else:
            self.patch(handover, "packed", Mock(side_effect=MemoryError))
        return channel

    async def test_connection_that_ends_is_not_moved(self) -> None:
        """Before its turn, and while it is suspended."""
        peers = await self.handover.relayed(2)
        both = [*self.handover.old.connections]
        await self.handover.end_all(peers[:1])
        await self.logged(1)
        self.assertEqual(await self.handover.hand_these(both, self.handover.adopting()), 1)
        self.assertEqual(self.handover.old.connections, set())
        await self.handover.end_all(peers)
        await self.logged(2)
        self.assertEqual([record.reason for record in self.records], ["done"] * 2)
        self.forget()
        peers = await self.handover.relayed(2)
        one, other = self.handover.old.connections
        one.attach_stage()
        other.attach_stage()
        channel = self.handover.adopting()
        self.handover.before_adopting(lambda _: one.stage.abort("killed"))
        self.assertEqual(await self.handover.hand(channel), 1)
        self.assertEqual([record.reason for record in self.records], ["killed"])
        (moved,) = self.handover.new.connections
        self.assertEqual(moved.record.id, other.record.id)
        await self.handover.end_all(peers)
        await self.logged(2)
        self.assertEqual({record.reason for record in self.records}, {"killed", "done"})

    def transfer(
        self, factory_of: Callable[[str], MuxFactory] | None = None
    ) -> tuple[ConnectionTransfer, Channel]:
        ports = ListeningPorts(accepting=True)
        serving: Any = SimpleNamespace(
            factory_of=factory_of or (lambda _: self.handover.new),
            listening_ports=ports,
            connections=list,
            runtime=self.handover.new.runtime,
            end_denied=lambda: None,
        )
        transfer = ConnectionTransfer(serving, reactor, Tally())
        own, far = socket.socketpair()
        transfer.handlers[messages.TAKE_OVER](descriptors=[far.detach()])
        channel = Channel({}, lambda: None, reactor)
        attach(reactor, channel, own)
        self.addCleanup(channel.close)
        return transfer, channel

    async def test_offered_to_one_at_a_time(self) -> None:
        """An upgrade may begin while connections move to other workers; what both had taken would go on in two processes."""
        peers = await self.handover.relayed(2)
        asked: Deferred[None] = Deferred()
        answer: Deferred[object] = Deferred()

        def late(descriptors: Sequence[int], **_: Any) -> Deferred[object]:
            close_all(descriptors)
            asked.callback(None)
            return answer

        serving: Any = SimpleNamespace(
            listening_ports=ListeningPorts(accepting=True),
            connections=lambda: self.handover.old.connections,
        )
        giving = ConnectionTransfer(serving, reactor, Tally())
        (own, far), (other, last) = socket.socketpair(), socket.socketpair()
        first = Channel({messages.ADOPT: late}, lambda: None, reactor)
        attach(reactor, first, far)
        first.send(messages.TAKES, connections=0, reads=False)
        moving = Deferred.fromCoroutine(giving.hand_over([own]))
        await asked
        taking, channel = self.transfer()
        channel.close()
        taking.handlers[messages.TAKE_OVER](descriptors=[last.detach()])
        upgrading = Deferred.fromCoroutine(giving.hand_over([other]))
        await self.turn(10)
        self.assertEqual(self.handover.new.connections, set())
        answer.callback({"taken": [], "connections": 0})
        self.assertEqual((await moving)["stays"], {"refused": 2})
        self.assertEqual((await upgrading)["moved"], 2)
        await self.assert_go_on(peers, self.handover.new)

    async def test_promised_connections_arrive_before_the_process_ends(self) -> None:
        peers = await self.handover.relayed(3)
        arrived: list[int] = []

        async def close() -> None:
            await transfer.close()
            arrived.append(len(self.handover.new.connections))

        def close_soon(_name: str) -> MuxFactory:
            if not closing:
                closing.append(deferLater(reactor, 0, lambda: Deferred.fromCoroutine(close())))
            new: MuxFactory = self.handover.new
            return new

        closing: list[Deferred[Any]] = []
        transfer, channel = self.transfer(close_soon)
        self.assertEqual(await self.handover.hand(channel), 3)
        await closing[0]
        self.assertEqual(arrived, [3])
        await self.assert_go_on(peers, self.handover.new)

    async def test_one_fails(self) -> None:
        """One with which something goes wrong in the new process ends there, with a line in the log; the rest of its batch goes on."""
        for where, what in ((IORuntime, "transport"), (Relay, "_set_timers")):
            peers = await self.handover.relayed(3)
            for one in [*self.handover.old.connections]:
                one.attach_stage()
            before, kind = len(self.records), cast("Any", where)
            as_it_is, calls = getattr(kind, what), iter([True])

            def once(*values: Any, original: Any = as_it_is, calls: Any = calls) -> Any:
                if next(calls, False):
                    raise ZeroDivisionError
                return original(*values)

            self.patch(kind, what, once)
            self.assertEqual(await self.handover.hand(self.handover.adopting()), 3)
            await self.turn(3)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
            self.assertEqual([one.reason for one in self.records[before:]], ["error"])
            self.assertEqual(len(self.handover.new.connections), 2)
            ((_, upstream),) = self.handover.new.upstreams._upstreams.items()
            self.assertEqual(upstream.pool.connections, 2)
            await self.handover.end_all(peers)
            await self.logged(before + 3)
            self.assertEqual(upstream.pool.connections, 0)
            self.backend.peers.clear()

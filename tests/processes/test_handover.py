"""Connections, and flows of UDP, go on in another process, and count once; here, both are in one, with a channel between them."""

import gc
import socket
import weakref
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, formatEvent
from typing_extensions import override

from tests.processes.handover_case import SKIP, Handover, descriptors
from tests.support.kit import (
    MuxTestCase,
    Peer,
    backend_at,
    change_constants,
    connect,
    free_port,
    reactor,
)
from txmux.access.across_processes import SharedLimits
from txmux.access.admission import Tally
from txmux.client.io_runtime import IORuntime
from txmux.detection.ranked import finish
from txmux.net.channel import messages
from txmux.net.channel.channel import Channel, attach
from txmux.net.channel.descriptorstream import close_all
from txmux.net.relay.interface import SideState
from txmux.net.relay.kernel import KernelSide
from txmux.net.relay.relay import Relay
from txmux.processes.worker import handover
from txmux.processes.worker.handover import Adopting
from txmux.processes.worker.transfer import ConnectionTransfer
from txmux.rules.embedding import route
from txmux.rules.model import Rules, Settings
from txmux.rules.reading.parser import parse
from txmux.serving.listen_addresses import open_socket, socket_address
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
        self.handover.before_adopting(lambda its: sizes.append(len(its["connections"]["rows"])))
        others = self.handover.old.connections - {first}
        self.assertEqual(await self.handover.hand_these([first, *others], channel), 2)
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
        """None stays suspended, whatever keeps it from being offered or taken."""
        for why in ("old is lost", "unknown", "about to end", "ends", "gone", "no memory"):
            with self.subTest(why):
                peers = await self.handover.relayed(2)
                self.assertEqual(await self.handover.hand(await self.taking_none(why)), 0)
                self.assertEqual(self.handover.new.connections, set())
                # Since nobody knows what the old process has done, the new one lets go.
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

    async def test_backend_that_goes_while_a_waiting_client_moves(self) -> None:
        """A reload may come between the new process's promise and the client, which then waits as those do that were there before it."""
        place, handed = free_port(), self.handover
        backend = backend_at(place, hold=600.0, retries=0)
        handed.routes = [route("ssh", backend, name="ssh")]
        client = await connect(self, self.mux(handed.routes))
        client.send(b"SSH-2.0-a\r\n")
        await self.until_so(lambda: self.factory.upstreams.upstream_of(backend).pool.waiting)
        handed.old = self.factory
        handed.new = handed.another()
        rules = Rules(Path("rules.ini"), Settings(), (), ())

        def reload(**values: Any) -> None:
            upstreams = handed.new.upstreams
            upstreams.commit(finish(upstreams.prepare_all_in_steps(rules)))
            handed.does["go_on"](**values)

        self.assertEqual(await handed.hand(handed.adopting(go_on=reload)), 1)
        await self.turn(20)
        self.assertEqual(len(handed.new.connections), 1)
        self.addCleanup(reactor.listenTCP(place, self.backend, interface="127.0.0.1").stopListening)
        while not self.backend.peers:
            self.time.advance(0.1)
            await self.turn()
        server = self.backend.peers[0]
        await server.has(11)
        client.close()
        await server.is_lost()
        record = await self.logged()
        self.assertEqual((record.reason, record.backend, record.bytes_in), ("done", "backend", 11))

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
            (upstream,) = self.handover.new.upstreams.all()
            self.assertEqual(upstream.pool.connections, 2)
            await self.handover.end_all(peers)
            await self.logged(before + 3)
            self.assertEqual(upstream.pool.connections, 0)
            self.backend.peers.clear()


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
        for does in ("adopt", "_adopt"):
            await self.handover.relayed(1)
            owner = self.handover.new if does == "adopt" else handover
            self.patch(owner, does, Mock(side_effect=ValueError))
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

    async def test_slots_are_free(self) -> None:
        """Whether the waiting client leaves, or gives up once served, or either process has ended."""
        old, new = b"SSH-2.0-old\r\n", b"SSH-2.0-new\r\n"
        for why in ("gives up", "leaves", "old has ended", "new has ended"):
            channel = await self.moved(max_connections=1)
            if why == "leaves":
                self.old_client.reset()
                while self.handover.old.connections:
                    await self.turn()
            elif why == "new has ended":
                self.handover.there.transport.abortConnection()
                while channel.is_open:
                    await self.turn()
                self.handover.kept[0].channel_lost()
                await self.end(self.old_client, await self.served(1, old))
            await self.end(self.first, self.server)
            if why in {"gives up", "old has ended"}:
                server = await self.served(1, old)
                if why == "gives up":
                    self.old_client.reset()
                    await self.is_gone(server)
                else:
                    channel.close()
            await self.end(self.new_client, await self.served(1 + (why != "leaves"), new))
            if why == "old has ended":
                await self.end(self.old_client, server)
            await self.assert_all_free()
            self.forget()

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

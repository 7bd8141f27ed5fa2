"""What a worker tells of its flows of UDP to the one that goes on with them."""

import socket
from functools import partial
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.processes.handover_case import Handover
from tests.support.kit import MuxTestCase, reactor
from txmux.access.admission import Tally
from txmux.net.channel import messages
from txmux.net.channel.channel import Channel, ChannelError, attach
from txmux.net.sockets.descriptors import Descriptors
from txmux.processes.worker.handover import Adopting
from txmux.processes.worker.transfer import ConnectionTransfer
from txmux.serving.listening_ports import ListeningPorts
from txmux.tcp.moving import packed


class FlowsDoneTest(TestCase):
    def setUp(self) -> None:
        self.ports = ListeningPorts(accepting=True)
        serving: Any = SimpleNamespace(
            listening_ports=self.ports, connections=list, factory_of=None, end_denied=list,
            runtime=SimpleNamespace(descriptors=Descriptors()),
        )  # fmt: skip
        self.transfer = ConnectionTransfer(serving, reactor, Tally())

    async def told(self) -> int:
        own, far = socket.socketpair()
        told: list[None] = []
        ended: Deferred[None] = Deferred()
        handlers: Any = {messages.FLOWS_DONE: lambda: told.append(None)}
        channel = Channel(handlers, lambda: ended.callback(None), reactor)
        attach(reactor, channel, far)
        channel.send(messages.TAKES, connections=0, reads=True)
        await self.transfer.hand_over([own])
        await ended
        return len(told)

    async def test_flows_are_reported_once(self) -> None:
        self.assertEqual(await self.told(), 1)
        self.assertEqual(await self.told(), 0)

    async def test_retired_process_takes_no_flows(self) -> None:
        """It says so, and they are offered to the next reader: that they are not taken would mean that nobody has their listener."""
        own, far = socket.socketpair()
        channel = Channel({}, lambda: None, reactor)
        attach(reactor, channel, own)
        self.addCleanup(channel.close)
        listens = self.patch(self.ports, "keys", lambda: {"x"})
        self.transfer.handlers[messages.TAKE_OVER](descriptors=[far.detach()])
        await channel.ask(messages.ADOPT_FLOWS, seconds=5.0, flows=[])
        listens.restore()
        with self.assertRaisesRegex(ChannelError, "reads no datagrams"):
            await channel.ask(messages.ADOPT_FLOWS, seconds=5.0, flows=[])


class OnTheirWayTest(MuxTestCase):
    async def test_what_comes_while_a_process_retires_moves_on_from_it(self) -> None:
        """What is offered before its last round moves by that; what would come later is refused, and goes elsewhere."""
        given = Handover(self)
        pairs = await given.relayed()
        ports = ListeningPorts(accepting=True)
        serving: Any = SimpleNamespace(
            listening_ports=ports, connections=lambda: [*given.new.connections], end_denied=list,
            factory_of=lambda _: given.new, runtime=SimpleNamespace(descriptors=Descriptors()),
        )  # fmt: skip
        transfer = ConnectionTransfer(serving, reactor, Tally())
        own, far = socket.socketpair()
        channel = Channel({}, lambda: None, reactor)
        attach(reactor, channel, own)
        self.addCleanup(channel.close)
        transfer.handlers[messages.TAKE_OVER](descriptors=[far.detach()])
        [connection] = given.old.connections
        connection.attach_stage()
        moved, sockets = connection.suspend()
        offer = partial(channel.ask, messages.ADOPT, seconds=5.0, batch=0)
        ends = [end.fileno() for end in sockets]
        self.assertEqual((await offer(connections=packed([moved]), descriptors=ends))["taken"], [0])
        third = given.another()
        adopting = Adopting(lambda _: third)
        end, other = socket.socketpair()
        adopting.channel = Channel(adopting.handlers, adopting.channel_lost, reactor)
        attach(reactor, adopting.channel, other)
        adopting.open()
        handing_over = Deferred.fromCoroutine(transfer.hand_over([end]))
        may_end = Deferred.fromCoroutine(transfer.until_slots_are_free(0.0))
        reactor.callLater(0.2, channel.send, messages.GO_ON, batch=0, which=[0], kept=[])
        self.assertEqual(await handing_over, {"moved": 1, "stays": {}})
        self.assertNoResult(may_end)  # before its supervisor has the answer
        await may_end
        with self.assertRaisesRegex(ChannelError, "about to end"):
            await offer(connections=packed([]), descriptors=[])
        connection.detach()
        self.assertEqual(len(third.connections), 1)
        await given.end_all(pairs)

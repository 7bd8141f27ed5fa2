"""What a worker tells of its flows of UDP to the one that goes on with them."""

import gc
import socket
import weakref
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support.peers import reactor
from txmux.access.admission import Tally
from txmux.net import collecting
from txmux.net.channel import messages
from txmux.net.channel.channel import Channel, ChannelError, attach
from txmux.net.collecting import UNCOLLECTED_FOR_GOOD
from txmux.net.sockets.descriptors import Descriptors
from txmux.processes.worker.transfer import ConnectionTransfer
from txmux.serving.listening_ports import ListeningPorts


class FlowsDoneTest(TestCase):
    def setUp(self) -> None:
        serving: Any = SimpleNamespace(
            listening_ports=ListeningPorts(accepting=True), connections=list, factory_of=None,
            end_denied=list, runtime=SimpleNamespace(descriptors=Descriptors()),
        )  # fmt: skip
        self.transfer = ConnectionTransfer(serving, reactor, Tally())

    async def test_flows_are_reported_once(self) -> None:
        told = list[None]()
        handlers: Any = {messages.FLOWS_DONE: lambda: told.append(None)}
        for _ in range(2):
            own, far = socket.socketpair()
            ended: Deferred[None] = Deferred()
            channel = Channel(handlers, lambda: ended.callback(None), reactor)  # noqa: B023
            attach(reactor, channel, far)
            channel.send(messages.TAKES, connections=0, reads=True)
            await self.transfer.hand_over([own])
            await ended
            self.assertEqual(len(told), 1)

    async def test_retired_process_takes_no_flows(self) -> None:
        """It says so, and they are offered to the next reader: that they are not taken would mean that nobody has their listener."""
        own, far = socket.socketpair()
        channel = Channel({}, lambda: None, reactor)
        attach(reactor, channel, own)
        self.addCleanup(channel.close)
        self.transfer.handlers[messages.TAKE_OVER](descriptors=[far.detach()])
        with self.assertRaisesRegex(ChannelError, "reads no datagrams"):
            await channel.ask(messages.ADOPT_FLOWS, seconds=5.0, flows=[])


class _Ring:
    """Garbage, as soon as nobody has it."""

    def __init__(self) -> None:
        self.own = self


class CollectingTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.addCleanup(gc.enable)

    def moved(self, count: int) -> weakref.ref[_Ring]:
        ring = _Ring()
        found = weakref.ref(ring)
        with UNCOLLECTED_FOR_GOOD:
            del ring
            self.came = [[number] for number in range(count)]
        return found

    def test_few_and_many(self) -> None:
        # The garbage collector is off meanwhile, also where one such time is within another one; then it is on again.
        with UNCOLLECTED_FOR_GOOD:
            with UNCOLLECTED_FOR_GOOD:
                self.assertFalse(gc.isenabled())
            self.assertFalse(gc.isenabled())
        self.assertTrue(gc.isenabled())
        # Where few objects come, garbage is freed as ever, so that many small moves leave none.
        before = gc.get_freeze_count()
        ring = self.moved(100)
        self.assertEqual(gc.get_freeze_count(), before)
        gc.collect()
        self.assertIsNone(ring())
        # Very many are not looked through afterwards.
        ring = self.moved(collecting._MANY + 1000)
        gc.collect()
        self.assertIsNotNone(ring())

"""What a worker tells of its flows of UDP to the one that goes on with them."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.support.peers import reactor
from txmux.net.channel.channel import Channel, attach
from txmux.processes.upgrade.transfer import ConnectionTransfer
from txmux.serving.listening_port import ListeningPort
from txmux.serving.listening_ports import ListeningPorts


class FlowsDoneTest(TestCase):
    """Only the process that has the flows tells that all have come."""

    def setUp(self) -> None:
        self.ports = ListeningPorts(accepting=True)
        serving: Any = SimpleNamespace(listening_ports=self.ports, connections=list)
        self.transfer = ConnectionTransfer(serving, reactor)

    async def told(self) -> int:
        """Have the process hand over what it has, and count how often it tells that these were all flows."""
        own, far = socket.socketpair()
        told: list[None] = []
        ended: Deferred[None] = Deferred()
        channel = Channel(
            {"flows_done": lambda: told.append(None)}, lambda: ended.callback(None), reactor
        )
        attach(reactor, channel, far)
        await self.transfer.hand_over([own])
        await ended
        return len(told)

    async def test_once(self) -> None:
        """A process that has handed its flows over once does not speak for the one that has them now."""
        self.assertEqual(await self.told(), 1)
        self.assertEqual(await self.told(), 0)

    async def test_reads_again(self) -> None:
        """It does again when it reads datagrams again."""
        await self.told()
        self.ports.take_datagrams()
        self.assertEqual(await self.told(), 1)

    async def test_serves_again(self) -> None:
        """It does again when it has ports again, unless another worker reads datagrams."""
        port: Any = SimpleNamespace(startReading=lambda: None, stopReading=lambda: None)
        factory: Any = SimpleNamespace(
            configuration=SimpleNamespace(settings=SimpleNamespace(name="u"))
        )
        await self.told()
        self.ports.enter("u", ListeningPort(port, factory))
        self.assertEqual(await self.told(), 1)
        self.ports.leave_datagrams()
        self.assertEqual(await self.told(), 0)

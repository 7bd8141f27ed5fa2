import contextlib
import json
import socket
import time
from typing import Any

from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.trial.unittest import TestCase

from tests.support.messages import made_up
from tests.support.peers import reactor
from txmux.net.channel.channel import Channel, LogForwarder, attach
from txmux.telemetry.lines import LOST_LINES


class ForwardingTest(TestCase):
    async def test_stalled_supervisor(self) -> None:
        """They are kept up to a limit, at the same cost however many wait; how many are lost is told; other messages are never lost."""
        supervisor, own = socket.socketpair()
        self.addCleanup(supervisor.close)
        channel = Channel({}, lambda: None, reactor)
        attach(reactor, channel, own)
        log = Logger(namespace="txmux.access", observer=LogForwarder(lambda: channel))
        count, line = 40_000, "x" * 100
        LOST_LINES.take_count()
        spent = []
        for _ in range(20):
            began = time.thread_time()
            for _ in range(count // 20):
                log.info("{line}", line=line)
            spent.append(time.thread_time() - began)
        self.assertLess(min(spent[-5:]), 5 * min(spent[:5]))
        self.assertLess(channel.backlog(), 5 * 2**20)
        channel.send(made_up("ready"))
        received = await self.read_until(supervisor, b"", b'"ready"')
        Logger(namespace="txmux.other", observer=log.observer).warn("too {what}", what="slow")
        log.info("{line}", line="last")
        received = await self.read_until(supervisor, received, b'"last"')
        messages: list[dict[str, Any]] = [*map(json.loads, received.splitlines())]
        told, other = [message["text"] for message in messages if message["kind"] == "log"]
        self.assertEqual(other, "too slow")
        lines = sum(message["kind"] == "access" for message in messages)
        self.assertRegex(told, rf"\b{count + 1 - lines} were lost")
        self.assertEqual((LOST_LINES.take_count(), channel.backlog()), (count + 1 - lines, 0))
        channel.close()
        await deferLater(reactor, 0)

    async def read_until(self, supervisor: socket.socket, received: bytes, end: bytes) -> bytes:
        supervisor.setblocking(False)  # noqa: FBT003 - the socket module's signature
        while end not in received[-2000:]:
            await deferLater(reactor, 0)
            with contextlib.suppress(BlockingIOError):
                received += supervisor.recv(2**20)
        return received

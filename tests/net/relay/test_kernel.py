import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
from twisted.internet.task import Clock
from twisted.python.monkey import MonkeyPatcher
from twisted.trial.unittest import SynchronousTestCase

from tests.net.relay import test_contract
from tests.net.relay.relay_case import RelayCase, Way
from tests.net.relay.wiring import LeanTcpWiring
from tests.net.sockets.scarcity import make_scarce
from tests.support.kit import reactor, run
from txmux.net.relay import kernel
from txmux.net.relay.interface import Timeouts
from txmux.net.relay.kernel import KernelSide
from txmux.net.relay.relay import Relay
from txmux.net.sockets.memory import MEMORY
from txmux.net.sockets.poller import Poller


class TransportsTest(RelayCase):
    way = Way(on_transports=True)

    async def test_endings_in_one_turn(self) -> None:
        client, server = await self.start()
        server.transport.pauseProducing()
        size = 1024 * 1024
        client.send(bytes(size))
        relayed: Any = self.relay
        while relayed.client.received < size:
            await self.turn()
        client.reset()
        while not relayed.client.is_closed:
            await self.turn()
        self.ends[1].readConnectionLost()
        server.transport.resumeProducing()
        await self.over(server, reason="client-reset")
        self.assertEqual(len(server.received), size)
        self.assertTrue(server.was_reset())


@pytest.mark.whole
@pytest.mark.by_turns(each=True)
class ReactorsTest(SynchronousTestCase):
    """The same on other reactors, in a process of its own; `test_schedules` plays its schedules on each, whatever is run."""

    def check(self, kind: str) -> None:
        trial = (sys.executable, "-m", "twisted.trial", f"--reactor={kind}")
        done = run(*trial, f"--temp-directory={self.mktemp()}", test_contract.__name__)
        self.assertEqual(done.returncode, 0, done.stdout.decode()[-4000:])

    def test_select(self) -> None:
        self.check("select")

    def test_poll(self) -> None:
        self.check("poll")

    def test_asyncio(self) -> None:
        self.check("asyncio")


class _After:
    def __init__(self, relay: Relay, before: Callable[[], object]) -> None:
        self._relay = relay
        self._before = before
        self.abort, self.suspend = relay.abort, relay.suspend

    def start(self, *arguments: Any, **named: Any) -> None:
        self._before()
        self._relay.start(*arguments, **named)


class KernelScarceTest(RelayCase):
    """Where the system lacks what it takes, or something goes wrong as a relay starts."""

    way = Way(LeanTcpWiring)

    def make_relay(self, clock: Any, timeouts: Timeouts) -> Relay:
        relay: Any = _After(super().make_relay(clock, timeouts), self.before)
        return relay  # type: ignore[no-any-return]

    async def assert_ended(self, said: bytes = b"") -> None:
        clock = Clock()
        client, server = await self.start(b"pending", clock=clock)
        client.send(said)
        await self.over(client, server, reason="error")
        self.assertEqual(clock.getDelayedCalls(), [])

    async def test_unwatchable(self) -> None:
        """The client's end is paused, and so not watched."""
        self.before = lambda: setattr(make_scarce(self, Poller.for_reactor(reactor)), "room", 0)
        await self.assert_ended()

    async def test_raises(self) -> None:
        """As it starts, or later: what is ready would be reported again and again, and nobody else would be served."""
        for name, wrong in (("start_forwarding", MemoryError), ("_receive", ZeroDivisionError)):
            failing = MonkeyPatcher((KernelSide, name, Mock(side_effect=wrong)))
            self.before = failing.patch
            await self.assert_ended(b"x")
            failing.restore()
            self.assertEqual(len(self.flushLoggedErrors(wrong)), 1)

    async def test_out_of_memory(self) -> None:
        """If bytes that were read cannot be kept, the pair is broken off: no stream goes on with a gap."""
        self.before = lambda: self.patch(KernelSide, "_hold", Mock(side_effect=MemoryError))
        self.patch(kernel.pipes, "take_pipe", lambda: None)
        self.addCleanup(setattr, MEMORY, "short_since", None)
        client, server = await self.start(small_buffers=True)
        server.transport.pauseProducing()
        client.send(bytes(2**22))
        await client.is_lost()
        server.transport.resumeProducing()
        await self.over(client, server, reason="error")
        self.assertTrue(client.was_reset())

    async def test_out_of_memory_as_it_moves(self) -> None:
        self.before = lambda: None
        self.addCleanup(setattr, MEMORY, "short_since", None)
        client, server = await self.start()
        self.patch(KernelSide, "suspend", Mock(side_effect=MemoryError))
        self.assertRaises(MemoryError, self.relay.suspend)
        self.assertIsNotNone(MEMORY.short_since)
        await self.over(client, server, reason="error")

    async def test_out_of_memory_at_end(self) -> None:
        def put_away(_side: object) -> None:
            patched.restore()
            raise MemoryError

        self.before = lambda: None
        self.addCleanup(setattr, MEMORY, "short_since", None)
        client, server = await self.start()
        patched = self.patch(KernelSide, "_put_pipe_away", put_away)
        client.reset()
        await self.over(client, server, reason="error")

"""The kernel relay keeps the relays' contract."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.interop.children import run
from tests.net.relay.contract import OrderContract, RelayCase, ResetContract
from tests.net.relay.wiring import (
    LeanTcpWiring,
    LeanUnixWiring,
    Sides,
    TlsOfClientWiring,
    TlsOfServerWiring,
    TlsOnTransportsWiring,
    TlsWiring,
    UnixWiring,
)
from tests.net.sockets.scarcity import make_scarce
from tests.support.peers import reactor
from txmux.net.relay import kernel
from txmux.net.relay.interface import Timeouts
from txmux.net.relay.kernel import KernelSide
from txmux.net.relay.peers import Peer
from txmux.net.relay.relay import Relay
from txmux.net.relay.transport_end import TransportEnd
from txmux.net.sockets.memory import MEMORY
from txmux.net.sockets.poller import Poller

_RATE = 1 << 30


class KernelRelayTest(ResetContract, TestCase):
    """Over TCP sockets of Twisted's."""


class KernelUnixTest(OrderContract, TestCase):
    """Over UNIX sockets of Twisted's."""

    wires = UnixWiring


class KernelLeanTest(ResetContract, TestCase):
    """Over TCP sockets that a poller serves."""

    wires = LeanTcpWiring


class KernelLeanUnixTest(OrderContract, TestCase):
    """Over UNIX sockets that a poller serves."""

    wires = LeanUnixWiring


class TlsTest(ResetContract, TestCase):
    """Over TLS, with both peers."""

    wires = peer_wires = TlsWiring


@pytest.mark.by_turns(each=True)
class TlsOnTransportsTest(ResetContract, TestCase):
    """Over TLS on Twisted's transports."""

    wires = peer_wires = TlsOnTransportsWiring
    finds_late = False  # a transport may have closed its socket by then


class TlsOfClientTest(ResetContract, TestCase):
    """Over TLS with the client, and a TCP socket to the server."""

    wires, peer_wires = TlsOfClientWiring, TlsOfServerWiring


class TlsOfServerTest(ResetContract, TestCase):
    """Over a TCP socket of the client, and TLS to the server."""

    wires, peer_wires = TlsOfServerWiring, TlsOfClientWiring
    is_client_plain = True


class PacedTest(ResetContract, TestCase):
    """Held to a rate, over TCP sockets of Twisted's."""

    rate = _RATE


@pytest.mark.by_turns(each=True)
class PacedUnixTest(OrderContract, TestCase):
    """The same over UNIX sockets."""

    wires, rate = UnixWiring, _RATE


@pytest.mark.by_turns(each=True)
class PacedLeanTest(ResetContract, TestCase):
    """The same over TCP sockets that a poller serves."""

    wires, rate = LeanTcpWiring, _RATE


@pytest.mark.by_turns(each=True)
class PacedTlsTest(ResetContract, TestCase):
    """The same over TLS."""

    wires, peer_wires, rate = TlsWiring, TlsWiring, _RATE


class TransportsTest(ResetContract, TestCase):
    """Over transports of Twisted's that are not known as sockets."""

    on_transports = True

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


class TransportOfClientTest(ResetContract, TestCase):
    """Over such a transport of the client, and a socket to the server."""

    def make_sides(self, client: Peer, server: Peer) -> Sides:
        TransportEnd.under(client, self.poller)
        return super().make_sides(client, server)


@pytest.mark.by_turns(each=True)
class TransportsUnixTest(OrderContract, TestCase):
    """Over such transports of UNIX sockets."""

    wires, on_transports = UnixWiring, True


@pytest.mark.by_turns(each=True)
class PacedTransportsTest(ResetContract, TestCase):
    """Over such transports, held to a rate."""

    rate, on_transports = _RATE, True


class WatchedTest(ResetContract, TestCase):
    """Over TCP sockets of Twisted's, which the reactor watches for the relay."""

    is_watched = True


@pytest.mark.by_turns(each=True)
class WatchedTlsTest(ResetContract, TestCase):
    """Over TLS, where the reactor watches each socket."""

    wires, peer_wires, is_watched = TlsWiring, TlsWiring, True


@pytest.mark.by_turns(each=True)
class WatchedLeanTest(ResetContract, TestCase):
    """Over TCP sockets that the reactor watches."""

    wires, is_watched = LeanTcpWiring, True


@pytest.mark.by_turns(each=True)
class WatchedLeanUnixTest(OrderContract, TestCase):
    """Over UNIX sockets that the reactor watches."""

    wires, is_watched = LeanUnixWiring, True


@pytest.mark.whole
@pytest.mark.by_turns(each=True)
class ReactorsTest(SynchronousTestCase):
    """The same on other reactors, in a process of its own; `test_schedules` plays its schedules on each, whatever is run."""

    def check(self, kind: str) -> None:
        names = [f"{__name__}.{case.__name__}" for case in (
            KernelLeanTest, WatchedTest, WatchedLeanTest, WatchedLeanUnixTest
        )]  # fmt: skip
        trial = (sys.executable, "-m", "twisted.trial", f"--reactor={kind}")
        done = run(*trial, f"--temp-directory={self.mktemp()}", *names)
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
        self.abort = relay.abort

    def start(self, *arguments: Any, **named: Any) -> None:
        self._before()
        self._relay.start(*arguments, **named)


class KernelScarceTest(RelayCase, TestCase):
    """Where the system lacks what it takes, or something goes wrong as a relay starts."""

    wires = LeanTcpWiring

    def make_relay(self, clock: Any, timeouts: Timeouts) -> Relay:
        relay: Any = _After(super().make_relay(clock, timeouts), self.before)
        return relay  # type: ignore[no-any-return]

    async def assert_ended(self) -> None:
        clock = Clock()
        client, server = await self.start(b"pending", clock=clock)
        await self.over(client, server, reason="error")
        self.assertEqual(clock.getDelayedCalls(), [])

    async def test_unwatchable(self) -> None:
        def before() -> None:
            make_scarce(
                self, Poller.for_reactor(reactor)
            ).room = 0  # the client's end is paused, and so not watched

        self.before = before
        await self.assert_ended()

    async def test_raises(self) -> None:
        def start(_side: object, *, reading: bool) -> None:
            raise MemoryError(reading)

        self.before = lambda: self.patch(KernelSide, "start_forwarding", start)
        await self.assert_ended()
        self.assertEqual(len(self.flushLoggedErrors(MemoryError)), 1)

    async def test_out_of_memory(self) -> None:
        """If bytes that were read cannot be kept, the pair is broken off: no stream goes on with a gap."""

        def hold(_side: object, data: bytes) -> None:
            raise MemoryError(len(data))

        self.before = lambda: self.patch(KernelSide, "_hold", hold)
        self.patch(kernel.pipes, "take_pipe", lambda: None)
        self.addCleanup(setattr, MEMORY, "short_since", None)
        client, server = await self.start(small_buffers=True)
        server.transport.pauseProducing()
        client.send(bytes(2**22))
        await client.is_lost()
        server.transport.resumeProducing()
        await self.over(client, server, reason="error")
        self.assertTrue(client.was_reset())

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

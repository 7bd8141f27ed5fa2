import errno
import itertools
import os
import select
import socket
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionDone
from twisted.internet.error import ConnectionRefusedError as TwistedRefused
from twisted.internet.error import TimeoutError as TwistedTimeout
from twisted.internet.interfaces import IListeningPort, ITCPTransport
from twisted.internet.task import Clock, deferLater
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from tests.support.kit import for_each, free_port, make_folder, pair
from tests.support.peers import Peer, PeerClientFactory, PeerFactory, make_stalled_port, reactor
from tests.support.queues import until_queued
from txmux.client.socket_options import keepalive_options
from txmux.net.sockets.client import DatagramClient, SocketConnector, socket_name
from txmux.net.sockets.descriptors import Descriptors
from txmux.net.sockets.plainsocket import LeanSocket
from txmux.net.sockets.poller import READ, Poller, ReactorPoller, after_turn
from txmux.net.sockets.port import SocketPort


class NameTest(SynchronousTestCase):
    def test_only_addresses_are_connected_without_a_look_up(self) -> None:
        for kind, host, expected in (
            ("tcp", "192.0.2.1", (socket.AF_INET, ("192.0.2.1", 80))),
            ("tcp", "2001:db8::1", (socket.AF_INET6, ("2001:db8::1", 80))), ("tcp", "www.example", None),
            ("srv", "192.0.2.1", None), ("srv", "2001:db8::1", None), ("unix", "", (socket.AF_UNIX, "/run/x")),
        ):  # fmt: skip
            self.assertEqual(socket_name(kind, host, 80, "/run/x"), expected, (kind, host))


class _From:
    tries = 1

    def __init__(self, host: str, port: int) -> None:
        self.name = (host, port)

    def bind(self, unbound: socket.socket) -> None:
        unbound.bind(self.name)


@for_each("make_poller", (Poller.for_reactor, ReactorPoller))
class PolledSocketsTest(TestCase):
    make_poller: Callable[[Any], Poller]

    def setUp(self) -> None:
        self.poller = self.make_poller(reactor)
        self.factory = PeerFactory()

    def listen(
        self, family: int = socket.AF_INET, host: Any = ("127.0.0.1", 0), **options: Any
    ) -> Any:
        listening = socket.socket(family)
        listening.bind(host)
        listening.listen(64)
        self.port = SocketPort(self.poller, listening, self.factory, **options)
        self.port.startListening()
        self.addCleanup(self.port.stopListening)
        return listening.getsockname()

    async def connect(
        self, name: Any, family: int = socket.AF_INET, clock: Any = reactor, **options: Any
    ) -> Peer:
        client = PeerClientFactory()
        self.connector = SocketConnector(self.poller, clock, family, name, client)
        self.connector.connect(60, options=keepalive_options(60, 15, 4), **options)
        peer = await client.connected

        async def end() -> None:
            if peer.lost is None:
                await peer.is_lost(peer.reset)

        self.addCleanup(lambda: Deferred.fromCoroutine(end()))
        return peer

    async def both(
        self, family: int = socket.AF_INET, host: Any = ("127.0.0.1", 0), **options: Any
    ) -> tuple[Peer, Peer]:
        number = len(self.factory.peers)
        client = await self.connect(self.listen(family, host), family, **options)
        return client, await self.factory.peer(number)

    async def test_turns(self) -> None:
        """Many clients are accepted at once, unless that takes long: then others have their turn after each."""
        cases: list[tuple[dict[str, Any], int]] = [
            ({"max_batch_time": 3600.0}, 3),
            ({"max_batch_time": 0.0}, 1),
            ({"batch_size": 2, "max_batch_time": 3600.0}, 2),
        ]
        for options, expected in cases:
            self.factory = PeerFactory()
            name = self.listen(**options)
            for _ in range(3):
                self.addCleanup(socket.create_connection(name).close)
            until_queued(self.port, 3)
            self.port.doRead()
            self.assertEqual(len(self.factory.peers), expected)
            await self.factory.peer(2)
            for peer in self.factory.peers:
                await peer.is_lost(peer.reset)

    async def test_both_ways(self) -> None:
        client, server = await self.both(eager=True)
        await client.tell(server, b"question")
        server.transport.writeSequence([b"an", b"swer"])
        await client.has(6)
        self.assertEqual((client.received, server.received), (b"answer", b"question"))
        self.assertEqual(client.transport.getPeer(), server.transport.getHost())
        self.assertEqual(client.transport.getHost(), server.transport.getPeer())
        self.assertIn("127.0.0.1", repr(client.transport))
        verifyObject(ITCPTransport, client.transport)
        verifyObject(IListeningPort, self.port)
        for end in (client, server):
            self.assertTrue(end.transport.getTcpNoDelay())
        self.assertTrue(client.transport.getTcpKeepAlive())

    async def test_owner(self) -> None:
        """Whose server it has to be counts, also where the path has come to lead to another's."""
        path = str(make_folder(self) / "s")
        self.listen(socket.AF_UNIX, path)
        for owner, why in ((os.geteuid(), ""), (os.geteuid() + 1, "its server is of user")):
            client = PeerClientFactory()
            SocketConnector(
                self.poller, reactor, socket.AF_UNIX, path, client, owner=owner
            ).connect(60)
            if why:
                refused = await self.assertFailure(client.connected, ConnectError)
                self.assertIn(why, str(refused))
            else:
                self.assertTrue(client.connected.called, "at once")
                peer = await client.connected
                await self.factory.peer()
                await peer.is_lost(peer.reset)

    async def test_abort_is_a_reset(self) -> None:
        """What epoll calls a hang-up when both have ended in order is none."""
        client, server = await self.both()
        server.transport.abortConnection()
        server.transport.abortConnection()
        self.assertIsNone(server.lost)
        await client.is_lost()
        self.assertTrue(client.was_reset())
        server.transport.connectionLost(Failure(ValueError()))  # once is enough
        client, server = await self.both()
        client.transport.getHandle().send(b"x")
        select.select([server.transport.getHandle()], [], [])
        server.transport.handle_pending_events()
        self.assertEqual(server.received, b"x")
        await server.has_all(client.finish)
        server.transport.watch_for_reset()
        await client.has_all(server.finish)
        server.transport.handle_pending_events()
        self.assertIsNone(server.lost)
        self.assertNotIn(server.transport.fileno(), self.poller.handlers)
        await server.is_lost()
        self.assertFalse(server.was_reset())

    async def test_itself(self) -> None:
        """A connection to itself, which a port can have that nobody listens at, is refused, and its port is free."""
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            port = free_port(host, family)
            with self.assertRaises(TwistedRefused) as caught:
                await self.connect((host, port), family, sources=[_From(host, port)])
            self.assertIn("nothing listens there", str(caught.exception))
            with socket.socket(family) as other:
                other.bind((host, port))

    async def test_clients_wait_without_descriptors(self) -> None:
        """A server sees to which address one came."""
        _, port = self.listen(host=("0.0.0.0", 0))
        self.port.pause_accepting(os.strerror(errno.ENFILE))
        client = await self.connect(("127.0.0.2", port))
        client.send(b"x")
        server = await self.factory.peer()
        await server.has(1)
        self.assertEqual(server.transport.getHost().host, "127.0.0.2")

    async def test_full_queue(self) -> None:
        path = str(make_folder(self) / "socket")
        with socket.socket(socket.AF_UNIX) as full, socket.socket(socket.AF_UNIX) as first:
            full.bind(path)
            full.listen(0)
            first.connect(path)
            connecting = Deferred.fromCoroutine(self.connect(path, socket.AF_UNIX))
            self.assertFalse(connecting.called)
            full.accept()[0].close()
            await connecting

    async def test_refused(self) -> None:
        """So is one of a port that is stopped, be it twice; an address of another family is an error."""
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            with self.assertRaises(TwistedRefused):
                await self.connect(unused.getsockname())
        with self.assertRaises(Exception) as caught:
            await self.connect(("127.0.0.1", 70000 - 65536), socket.AF_INET6)
        self.assertIn("Error", type(caught.exception).__name__)
        client, denied = PeerClientFactory(), OSError(errno.EACCES, "denied")
        to = DatagramClient(self.poller, "127.0.0.1", 9, client)
        to.connect(Mock(side_effect=denied))
        await self.assertFailure(client.connected, ConnectError)
        name = self.listen(descriptors=Descriptors(lambda: 100, lambda: 100))
        await self.connect(name)
        await deferLater(reactor, 0.01)
        self.assertEqual(self.factory.peers, [])
        await self.port.stopListening()
        await self.port.stopListening()
        with self.assertRaises(TwistedRefused):
            await self.connect(name)

    async def test_attempts_that_end_leave_no_timer(self) -> None:
        clock, name = Clock(), ("127.0.0.1", make_stalled_port(self))
        connecting = Deferred.fromCoroutine(self.connect(name, clock=clock))
        clock.advance(60)
        with self.assertRaises(TwistedTimeout):
            await connecting
        self.assertEqual(clock.getDelayedCalls(), [])
        client = PeerClientFactory()
        connector = SocketConnector(self.poller, clock, socket.AF_INET, name, client)
        connector.connect(5)
        connector.disconnect()
        self.assertEqual(clock.getDelayedCalls(), [])
        self.assertFalse(client.connected.called)

    async def test_protocol_raises(self) -> None:
        """So may what makes it, or there is none."""
        name = self.listen()
        client, other = await self.connect(name), await self.connect(name)
        server = await self.factory.peer(0)
        server.dataReceived = lambda _data: 1 // 0  # type: ignore[assignment,method-assign]
        client.send(b"x")
        await client.is_lost()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        other.send(b"y")
        await (await self.factory.peer(1)).has(1)
        for count, build in enumerate((lambda _addr: None, lambda _addr: 1 // 0)):
            self.factory.buildProtocol = build  # type: ignore[assignment,method-assign]
            await (await self.connect(name)).is_lost()
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), count)

    async def test_close_after_all_is_written(self) -> None:
        path = str(make_folder(self) / "socket")
        places: tuple[tuple[Any, ...], ...] = (
            (), (socket.AF_INET6, ("::1", 0)), (socket.AF_UNIX, path),
        )  # fmt: skip
        for place in places:
            client, server = await self.both(*place)
            client.transport.pauseProducing()
            server.send(b"x" * 10_000_000)
            server.close()
            client.transport.resumeProducing()
            await client.has_all()
            self.assertEqual(len(client.received), 10_000_000)
            await server.is_lost(client.close)
            assert server.lost is not None
            self.assertIs(server.lost.type, ConnectionDone)

    async def test_half_close(self) -> None:
        """A direction is shut down after all that was written before it and right after it, and its protocol is told so once."""
        for size in (0, 5, 3_000_000):
            client, server = await self.both()
            reported: list[int] = []
            server.writeConnectionLost = lambda reported=reported: reported.append(1)  # type: ignore[method-assign, misc]
            server.send(bytes(size))
            server.transport.loseWriteConnection()
            server.transport.loseWriteConnection()
            self.assertEqual(reported, [])
            server.send(b"then")
            await client.has_all()
            self.assertEqual(len(client.received), size + 4)
            await client.tell(server, b"back")
            self.assertEqual(reported, [1])

    async def test_half_close_of_what_ends(self) -> None:
        for ending in ("loseConnection", "abortConnection"):
            client, server = await self.both()
            server.writeConnectionLost = self.fail  # type: ignore[method-assign]
            server.transport.loseWriteConnection()
            getattr(server.transport, ending)()
            await server.is_lost()
            await client.is_lost()
            self.assertEqual(client.was_reset(), ending == "abortConnection")

    async def test_shortage(self) -> None:
        limit = [100]
        open_now = [100 - 16 - 4]  # what is spared, and two clients with their servers
        scarce = Descriptors(lambda: open_now[0] + 2 * len(self.factory.peers), lambda: limit[0])
        self.factory.build = lambda: scarce.client_accepted() or Peer()  # type: ignore[func-returns-value]
        given_back: list[int] = []
        scarce.add_cache(lambda: given_back.append(1))
        with capturedLogs() as events:
            name = self.listen(descriptors=scarce)
            clients = [await self.connect(name) for _ in range(4)]
            await self.factory.peer(1)
            await deferLater(reactor, 0.15)
            self.assertEqual(len(self.factory.peers), 2)
            self.assertTrue(given_back)
            limit[0] = 102
            scarce.connection_ended()
            await self.factory.peer(2)
            limit[0] = 200
            await self.factory.peer(3)
            self.assertEqual(len([e for e in events if "cannot accept" in e["log_format"]]), 1)
            await self.port.stopListening()
        self.assertEqual(len([e for e in events if "no client is waiting" in e["log_format"]]), 1)
        del clients


class PollerTest(TestCase):
    def _raise(self) -> None:
        raise ValueError

    async def test_raising_handler_is_logged(self) -> None:
        """What it was to be told is told again, until it stops to watch."""
        for poller in (Poller.for_reactor(reactor), ReactorPoller(reactor)):
            ours, theirs = pair(self)
            seen: list[int] = []

            def ready(
                events: int, poller: Poller = poller, ours: Any = ours, seen: list[int] = seen
            ) -> None:
                seen.append(events)
                poller.call_soon(self._raise)
                poller.call_soon(lambda: seen.append(-1))
                if len(seen) > 1:
                    poller.unwatch(ours.fileno())
                raise ValueError

            poller.watch(ours.fileno(), READ, ready)
            self.assertIn(ours.fileno(), poller.handlers)
            theirs.send(b"x")
            while len(seen) < 4:
                await deferLater(reactor, 0)
            self.assertEqual(seen, [1, -1, 1, -1])
            self.assertNotIn(ours.fileno(), poller.handlers)
            self.assertEqual(len(self.flushLoggedErrors(ValueError)), 4)
            self.assertEqual(poller.logPrefix(), "sockets")

    async def test_after_turn_when_nothing_is_ready(self) -> None:
        done: Deferred[None] = Deferred()
        after_turn(reactor)(lambda: done.callback(None))
        await done

    def test_stops_meanwhile(self) -> None:
        """Who stops to read while others of the same batch are served is not told of what has come."""
        poller = Poller(reactor)
        pairs = [socket.socketpair() for _ in range(2)]
        descriptors = {end.fileno() for end, _ in pairs}
        served: list[int] = []

        def stop_other(descriptor: int) -> None:
            served.append(descriptor)
            poller.unwatch(descriptor)
            (other,) = descriptors - {descriptor}
            poller.watch(other, 0, lambda _: served.append(other))

        for end, peer in pairs:
            which = end.fileno()
            poller.watch(which, READ, lambda _, which=which: stop_other(which))  # type: ignore[misc]
            peer.send(b"x")
        poller.doRead()
        self.assertEqual(len(served), 1)
        poller.unwatch(*(descriptors - {*served}))
        for end in itertools.chain(*pairs):
            end.close()

    def test_closing_ends_the_connection_of_its_last_descriptor(self) -> None:
        """Closing a lean socket, be it twice, ends the connection, unless its descriptor was duplicated or detached before."""
        for how in ("close", "dup", "detach", "makefile"):
            one, other = socket.socketpair()
            self.addCleanup(other.close)
            lean = LeanSocket(one.family, one.type, one.proto, one.detach())
            self.assertIsInstance(lean, socket.socket)
            duplicate: socket.socket = other
            if how == "dup":
                duplicate = lean.dup()
            elif how == "detach":
                duplicate = socket.socket(fileno=lean.detach())
            elif how == "makefile":
                other.sendall(b"line\n")
                with lean, lean.makefile("rb") as file:
                    self.assertEqual(file.readline(), b"line\n")
                    lean.sendall(b"x")
            for _ in range(2):
                self.assertIn("LeanSocket", repr(lean))
                lean.close()
            self.assertIn("LeanSocket", repr(lean))
            self.assertEqual(lean.fileno(), -1)
            if how in {"dup", "detach"}:
                with duplicate:
                    duplicate.sendall(b"x")
            self.assertEqual(other.recv(2), b"" if how == "close" else b"x", how)
            self.assertEqual(other.recv(2), b"")

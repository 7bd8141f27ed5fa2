from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase

from tests.interop.children import PATIENCE
from tests.support import peers
from tests.support.certificates import authority
from tests.support.folders import make_folder
from tests.support.looks import is_looked_for, look_again
from tests.support.peers import GREETING, Peer, PeerFactory, close, connect, listen, reactor
from tests.support.secure import SecurePeer, client_context, connect_tls
from txmux.client.io_runtime import IORuntime
from txmux.net.relay.peer_state import queued_in
from txmux.rules.embedding import route
from txmux.rules.model import Backend, Listener, Refusal, Route, Server, TlsSettings
from txmux.serving.listen_addresses import open_socket, socket_address
from txmux.tcp.listener import MuxFactory
from txmux.telemetry.record import ConnectionRecord

SSH = b"SSH-2.0-test\r\n"
_PAUSE = 0.01  # seconds, in which a relay's virtual time goes on by one of up to a second


class ListLog:
    def __init__(self) -> None:
        self.records: list[ConnectionRecord] = []

    def write(self, record: ConnectionRecord) -> None:
        self.records.append(record)

    def reopen(self) -> None:
        pass

    def write_rest(self) -> bool:
        return True

    def close(self) -> None:
        pass


class VirtualTime:
    """The real reactor, but for its clock, which a test moves, and these functions."""

    def __init__(self, **instead: Callable[..., object]) -> None:
        self.clock = Clock()
        self.callLater = self.clock.callLater
        self.seconds = self.clock.seconds
        self.advance = self.clock.advance
        vars(self).update(instead)

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)

    def let_connect(self) -> None:
        """Let the moment pass that Twisted waits before it tries another address, and no more: however long that takes, no limit is over."""
        now = self.seconds()
        moments = [call.getTime() - now for call in self.clock.getDelayedCalls()]
        self.advance(min((one for one in moments if one < 1), default=0.0))


def server_at(port: int, host: str = "127.0.0.1") -> Server:
    return Server(f"{host}:{port}", "tcp", host=host, port=port)


def backend_at(*ports: int, **settings: Any) -> Backend:
    return Backend("backend", tuple(map(server_at, ports)), **settings)


class Termination:
    """Ends TLS with certificates of one authority, and connects clients of it.

    Attributes:
        folder: For files; removed with the test.
        ca: The file of the authority.
    """

    def __init__(self, test: "MuxTestCase") -> None:
        self._test = test

    @cached_property
    def folder(self) -> Path:
        return make_folder(self._test)

    @cached_property
    def ca(self) -> Path:
        return authority().write(self.folder / "ca.pem")

    def pem(self, *names: str, file: str = "") -> Path:
        return authority().issue(*names).write(self.folder / (file or f"{names[0]}.pem"), key=True)

    def route(self, name: str = "tls", match: str = "tls", under: str = "", **end: Any) -> Route:
        files = end.pop("files", None) or (self.pem("a.example"),)
        outcome = end.pop("outcome", None)
        made = route(match, outcome or CLOSE, name=name)
        places = (under,) if under else ()
        return attrs.evolve(
            made, outcome=outcome, terminate_tls=TlsSettings(files, **end), under=places
        )

    def inner(self, match: str = "ssh", under: str = "tls", name: str = "") -> Route:
        made = route(match, backend_at(self._test.backend_port()), name=name or match)
        return attrs.evolve(made, under=(under,))

    def peer(self, name: str | None = "a.example", **settings: Any) -> SecurePeer:
        context = settings.pop("context", None) or client_context(self.ca, **settings)
        return SecurePeer((context, name))

    def hello(self) -> bytes:
        first = self.peer().layers[0]
        first.advance()
        return first.outgoing.read()

    async def client(self, port: int, name: str = "a.example", **settings: Any) -> SecurePeer:
        peer = await connect_tls(self._test, port, self.peer(name, **settings))
        await peer.ready()
        # A client is ready before its last message has come.
        while not all(connection.agreed_tls for connection in self._test.factory.connections):
            await self._test.turn()
        return peer

    async def relayed(self, **settings: Any) -> tuple[SecurePeer, Peer]:
        client = await self.client(self._test.mux([self.route(), self.inner()], **settings))
        client.send(SSH)
        server = await self._test.backend.heard(len(SSH))
        server.send(b"hello")
        await client.has(5)
        return client, server


class MuxTestCase(TestCase):
    """Each test may run one multiplexer, which may end TLS by `tls`; whatever it logs is in `records`."""

    relay: Literal["auto", "portable"] = "auto"
    factory: Any  # tests look into its connections, which are just `ClientSession` to others

    def setUp(self) -> None:
        self.log = ListLog()
        self.records = self.log.records
        self.time = VirtualTime()
        self.backend = PeerFactory()
        self.greeter = PeerFactory(peers.Greeter)
        self.made: list[MuxFactory] = []
        self.tls = Termination(self)

    def backend_port(self) -> int:
        return listen(self, self.backend)

    def greeting(self, **settings: Any) -> Backend:
        return attrs.evolve(backend_at(listen(self, self.greeter), **settings), name="greeter")

    def mux(self, routes: Iterable[Route] = (), *, reactor: Any = None, **settings: Any) -> int:
        interface = settings.pop("interface", "127.0.0.1")
        return self.mux_for(routes, Listener("public", **settings), reactor, interface)

    def mux_for(
        self, routes: Iterable[Route], of: Listener, reactor: Any = None, host: str = "127.0.0.1"
    ) -> int:
        runtime = IORuntime(reactor or self.time, self.relay)
        self.factory = MuxFactory(routes, of, access_log=self.log, runtime=runtime)
        address = socket_address(f"[{host}]:0" if ":" in host else f"{host}:0", 1024)
        assert address is not None
        with open_socket(address) as opened:
            port: Any = self.factory.listen(opened)
        self.addCleanup(port.stopListening)
        factory = self.factory
        self.made.append(factory)
        self.addCleanup(lambda: Deferred.fromCoroutine(self._all_end(factory)))
        self.listening = port
        return int(port.getHost().port)

    def ssh_mux(self, **settings: Any) -> int:
        return self.mux([route("ssh", backend_at(self.backend_port()), name="ssh")], **settings)

    async def connect(self, port: int, said: bytes = b"", *, host: str = "127.0.0.1") -> Peer:
        client = await connect(self, port, host)
        if said:
            client.send(said)
        return client

    async def send_in_pieces(self, client: Peer, data: bytes, size: int = 1) -> None:
        for at in range(0, len(data), size):
            client.send(data[at : at + size])
            await self.turn()

    async def connect_read(self, port: int, said: bytes) -> Peer:
        client = await self.connect(port, said)
        await self.seen(len(said))
        return client

    async def both(self, port: int, said: bytes, count: int = 0) -> tuple[Peer, Peer]:
        """Connect a client, and give it and its server's end when that has heard all, or so much."""
        number = len(self.backend.peers)
        client = await self.connect(port, said)
        return client, await self.backend.heard(count or len(said), number)

    async def connect_until_lost(self, port: int, said: bytes = b"") -> Peer:
        client = await self.connect(port, said)
        await client.is_lost()
        return client

    async def connect_answered(self, port: int, said: bytes, answer: bytes) -> Peer:
        client = await self.connect(port, said)
        await client.has(len(answer))
        self.assertEqual(bytes(client.received), answer)
        return client

    async def has_greeting(self, client: Peer, *, after: float = 0.0) -> None:
        if after:
            self.time.advance(after)
        await client.has(len(GREETING))
        self.assertEqual(bytes(client.received), GREETING)

    async def greets_nobody(self) -> None:
        await self.accepted()
        await self.turn(5)
        self.assertEqual(self.greeter.peers, [])

    async def turn(self, times: int = 1) -> None:
        for _ in range(times):
            await deferLater(reactor, 0)

    async def accepted(self, count: int = 1) -> None:
        while len(self.factory.connections) < count:
            await self.turn()

    async def accepted_for(self, seconds: float) -> None:
        await self.accepted()
        self.time.advance(seconds)

    async def seen(self, count: int) -> None:
        await self.accepted()
        (connection,) = self.factory.connections
        while connection.record.bytes_in < count:
            await self.turn()

    async def taken(self) -> None:
        """Wait until the system knows that both peers of each relay have all they were sent; until then, none of them is idle."""
        while any(map(_unsent_of, self.factory.connections)):
            await self.turn()

    def only(self) -> Any:
        (connection,) = self.factory.connections
        connection.attach_stage()
        return connection

    async def logged(self, count: int = 1) -> ConnectionRecord:
        await self.until_logged(count)
        self.assertEqual(len(self.records), count)
        if not self.factory.connections:
            for factory in {*self.made, self.factory}:
                factory.drop_idle_timers()
            self.assertEqual(self.time.clock.getDelayedCalls(), [])
            for upstream in self.factory.upstreams.all():
                counted = [member.connections for member in upstream.pool.members]
                self.assertEqual((upstream.pool.connections, sum(counted)), (0, 0))
                self.assertEqual(len(upstream.queue or ()), 0)
        return self.records[-1]

    async def assert_logged(self, count: int = 1, **wanted: Any) -> ConnectionRecord:
        record = await self.logged(count)
        self.assert_story(record, **wanted)
        return record

    async def assert_closed(
        self, client: Peer, server: Peer, count: int = 1, /, **wanted: Any
    ) -> ConnectionRecord:
        """Close both ends, and then do as `assert_logged`."""
        close(client, server)
        return await self.assert_logged(count, **wanted)

    async def assert_ended(self, peer: Peer, count: int = 1, **wanted: Any) -> ConnectionRecord:
        """Wait until a peer's connection is over, and then do as `assert_logged`."""
        await peer.is_lost()
        return await self.assert_logged(count, **wanted)

    async def closed(self, client: Peer, server: Peer) -> ConnectionRecord:
        close(client, server)
        return await self.logged()

    async def assert_waits(self, seconds: float) -> None:
        self.time.advance(seconds - 0.1)
        await self.turn(3)
        self.assertEqual((self.records, self.backend.peers), ([], []))
        self.time.advance(0.2)

    async def until_logged(self, count: int = 1) -> None:
        """Wait for this many lines of the access log, or more.

        Meanwhile relays look again whether a peer has taken all that it was sent, whenever that is what they wait for:
        on a busy machine its acknowledgement may come after the first look.
        """
        await self.until_so(lambda: len(self.records) >= count)

    async def passes(self, condition: Callable[[], object], step: float = 0.05) -> None:
        """Let time pass until something is so."""
        while not condition():
            self.time.advance(step)
            await self.turn()

    async def is_gone(self, peer: Peer, does: Callable[[], object] = bool) -> None:
        lost = peer.is_lost(does)
        await self.until_so(lambda: lost.called)
        await lost

    async def is_reset(self, peer: Peer, does: Callable[[], object] = bool) -> None:
        await self.is_gone(peer, does)
        self.assertTrue(peer.was_reset())

    async def is_lost_cleanly(self, peer: Peer) -> None:
        await peer.is_lost()
        self.assertFalse(peer.was_reset())

    def anew(self, rows: Iterable[Any]) -> Iterator[Any]:
        """Iterate over rows of a test each of which begins without lines of the log and connections of servers; a failure shows the last row."""
        for row in rows:
            print(f"row: {row!r}")  # noqa: T201 - seen if the test fails
            yield row
            self.forget()

    def forget(self) -> None:
        """Begin anew, without a line of the log and a server's connection."""
        self.records.clear()
        self.backend.peers.clear()

    async def until_so(self, condition: Callable[[], object]) -> None:
        while not condition():
            await self.turn()
            for one in {*self.made, self.factory}:
                await self._look_again(one)

    async def _all_end(self, factory: MuxFactory) -> None:
        """Let connections end whose clients have gone, as they have at the end of a test; trial tells of those that do not."""
        deadline = reactor.seconds() + PATIENCE
        while factory.connections and reactor.seconds() < deadline:
            await self.turn()
            await self._look_again(factory)

    async def _look_again(self, factory: MuxFactory) -> None:
        if is_looked_for(factory.runtime.clock):
            # The relay's patience must not end before the kernel has had the time for an acknowledgement.
            await deferLater(reactor, _PAUSE)
            look_again(self.time.clock, factory.runtime.clock)

    def assert_story(self, record: ConnectionRecord, **wanted: Any) -> None:
        story = attrs.asdict(record, recurse=False)
        self.assertEqual({name: story[name] for name in wanted}, wanted)


def _unsent_of(connection: Any) -> int:
    """Count what the peers of a relayed connection have yet to take."""
    if connection.transport is None:
        return sum(map(queued_in, filter(None, (connection.socket, connection.server))))
    relay = connection.stage.relay
    return int(relay.client.unsent() + relay.server.unsent())


CLOSE, RESET = Refusal.CLOSE, Refusal.RESET

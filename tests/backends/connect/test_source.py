import errno
import itertools
import socket
import sys
from collections.abc import Sequence
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectBindError, ConnectError
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support.mux import server_at
from tests.support.peers import Peer, PeerFactory, listen, reactor
from tests.support.ports import free_ports
from tests.support.privileges import require_transparent
from txmux.backends.connect.client import ProxyClientFactory
from txmux.backends.connect.dial import LOCAL_ERRORS, Dialler
from txmux.backends.connect.socket_plan import ServerSocketPlan
from txmux.backends.connect.source import (
    SourceAddress,
    Sources,
    check_transparent,
    transparent_hints,
)
from txmux.errors import MuxError
from txmux.net.sockets.poller import Poller, ReactorPoller
from txmux.rules.model import Backend, Server
from txmux.rules.reading.endpoints import server
from txmux.wire.proxyprotocol.header import Address


def client(host: str) -> Address:
    return Address(ip_address(host), 50000)


class InTurnTests(SynchronousTestCase):
    def addresses(self, sources: Sources, host: str = "192.0.2.1") -> list[str]:
        return [source.address for source in sources.sources_towards(host, None)]

    def test_each_begins_with_the_next(self) -> None:
        sources = Sources(("10.0.0.1", "10.0.0.2", "10.0.0.3"))
        found = [self.addresses(sources) for _ in range(4)]
        self.assertEqual(found[0], ["10.0.0.1", "10.0.0.2", "10.0.0.3"])
        self.assertEqual(found[1], ["10.0.0.2", "10.0.0.3", "10.0.0.1"])
        self.assertEqual((found[2], found[3]), (["10.0.0.3", "10.0.0.1", "10.0.0.2"], found[0]))

    def test_families(self) -> None:
        sources = Sources(("10.0.0.1", "2001:db8::1", "10.0.0.2", "2001:db8::2"))
        self.assertEqual(self.addresses(sources), ["10.0.0.1", "10.0.0.2"])
        self.assertEqual(self.addresses(sources, "2001:db8::9"), ["2001:db8::1", "2001:db8::2"])
        self.assertEqual(self.addresses(sources), ["10.0.0.2", "10.0.0.1"])

    def test_without_source(self) -> None:
        self.assertEqual(self.addresses(Sources(())), [])

    def test_no_such_family(self) -> None:
        error = self.assertRaises(
            ConnectBindError, Sources(("::2",)).sources_towards, "192.0.2.1", None
        )
        self.assertIn("no address in source is IPv4, as this server's is", str(error))
        self.assertEqual(error.osError, errno.EADDRNOTAVAIL)


class OfTheClientTests(SynchronousTestCase):
    def chosen(self, host: str, client: Address | None) -> Sequence[SourceAddress]:
        return Sources(("client",)).sources_towards(host, client)

    def test_client(self) -> None:
        self.assertEqual(
            self.chosen("192.0.2.1", client("198.51.100.7")),
            (SourceAddress("198.51.100.7", transparent=True, client_port=50000),),
        )
        self.assertEqual(
            self.chosen("::1", client("2001:db8::7")),
            (SourceAddress("2001:db8::7", transparent=True, client_port=50000),),
        )

    def test_no_address(self) -> None:
        self.assertEqual(self.chosen("192.0.2.1", None), ())

    def test_client_of_this_machine(self) -> None:
        self.assertEqual(self.chosen("192.0.2.1", client("127.0.0.1")), ())
        self.assertEqual(
            self.chosen("127.0.0.1", client("127.0.0.5")),
            (SourceAddress("127.0.0.5", transparent=True, client_port=50000),),
        )

    def test_other_family(self) -> None:
        error = self.assertRaises(ConnectBindError, self.chosen, "192.0.2.1", client("2001:db8::7"))
        self.assertIn("the client's address is IPv6, and this server's IPv4", str(error))


class PortRangeTests(TestCase):
    def setUp(self) -> None:
        self.peers = PeerFactory()
        self.port = listen(self, self.peers)

    def connect(self, sources: Sources, port: int) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        factory = ProxyClientFactory(done.callback, done.errback)
        dialler = attrs.evolve(Dialler.of(reactor), sockets=ServerSocketPlan(sources=sources))
        factory.connect(dialler, server_at(port), 60)
        return done

    async def ended(self, ends: list[Any]) -> None:
        for end in ends:
            end.give_up()
        for peer in self.peers.peers:
            await peer.is_lost()

    async def test_ports_in_turn_until_none_is_left(self) -> None:
        ports = free_ports(5, "127.0.0.1")
        sources = Sources((f"127.0.0.1:{ports[0]}-{ports[-1]}",))
        ends = [await self.connect(sources, self.port) for _ in ports]
        used = [end.transport.getHost().port for end in ends]
        self.assertEqual(sorted(used), list(ports))
        steps = {(after - before) % len(ports) for before, after in itertools.pairwise(used)}
        self.assertEqual(steps, {1})
        with self.assertRaises(ConnectError) as caught:
            await self.connect(sources, self.port)
        self.assertIn("all ports of all addresses in source are in use", str(caught.exception))
        self.assertIn(caught.exception.osError, LOCAL_ERRORS)
        ends.append(await self.connect(sources, listen(self, self.peers)))
        self.assertIn(ends[-1].transport.getHost().port, ports)
        await self.ended(ends)

    async def test_port_of_another_program(self) -> None:
        ports = free_ports(2, "127.0.0.1")
        sources = Sources((f"127.0.0.1:{ports[0]}-{ports[1]}",))
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", ports[0]))
            taken.listen()
            end = await self.connect(sources, self.port)
            self.assertEqual(end.transport.getHost().port, ports[1])
            await self.ended([end])

    async def test_not_ours(self) -> None:
        """An address that this machine does not have is not tried with all of its ports; the next source is taken."""
        sources = Sources(("192.0.2.1:20000-30000", "127.0.0.1"))
        ends = [await self.connect(sources, self.port) for _ in range(2)]
        self.assertEqual({end.transport.getHost().host for end in ends}, {"127.0.0.1"})
        await self.ended(ends)


class DialTests(TestCase):
    def setUp(self) -> None:
        if sys.platform != "linux":
            self.skipTest("only Linux has all of 127.0.0.0/8")
        self.peers = PeerFactory()

    def dial(
        self, target: Server, sources: Sequence[SourceAddress], poller: Poller | None = None
    ) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()

        def connected(end: Any) -> None:
            end.receiver = self
            self.end = end
            done.callback(end)

        factory = ProxyClientFactory(connected, done.errback)
        given: Any = SimpleNamespace(sources_towards=lambda *_: sources)
        plan = ServerSocketPlan(sources=given)
        poller = poller or Poller.for_reactor(reactor)
        factory.connect(Dialler(reactor, reactor, poller, sockets=plan), target, 60)
        return done

    def peer_finished(self) -> None:
        self.end.give_up()

    def connection_lost(self, reason: object) -> None: ...

    async def seen_from(
        self,
        sources: Sequence[SourceAddress],
        poller: Poller | None = None,
        host: str = "127.0.0.1",
    ) -> str:
        number = len(self.peers.peers)
        port = listen(self, self.peers, interface=host)
        await self.dial(server_at(port, host), sources, poller)
        peer: Peer = await self.peers.peer(number)
        address: str = peer.transport.getPeer().host
        peer.close()
        await peer.is_lost()
        return address

    async def test_bound(self) -> None:
        own, foreign = SourceAddress("127.0.0.7"), SourceAddress("192.0.2.1")
        self.assertEqual(await self.seen_from([own], Poller.for_reactor(reactor)), "127.0.0.7")
        self.assertEqual(await self.seen_from([own]), "127.0.0.7")
        self.assertEqual(await self.seen_from([SourceAddress("::1")], host="::1"), "::1")
        self.assertEqual(await self.seen_from([foreign, own]), "127.0.0.7")

    async def test_own_address_as_another(self) -> None:
        require_transparent()
        for host, source in (("127.0.0.1", "127.0.0.7"), ("::1", "::1")):
            sources = [SourceAddress(source, transparent=True)]
            self.assertEqual(await self.seen_from(sources, host=host), source)

    async def test_none_left(self) -> None:
        target = server_at(listen(self, self.peers))
        error = await self.assertFailure(
            self.dial(target, [SourceAddress("192.0.2.1")]), ConnectError
        )
        self.assertIn("192.0.2.1 is not an address of this machine", str(error))
        self.assertEqual(error.osError, errno.EADDRNOTAVAIL)

    async def test_wrong_family(self) -> None:
        target = server_at(listen(self, self.peers))
        sources = [SourceAddress("2001:db8::1"), SourceAddress("127.0.0.7")]
        await self.assertFailure(self.dial(target, sources), ConnectError)

    async def test_without_epoll(self) -> None:
        poller, source = ReactorPoller(reactor), SourceAddress("127.0.0.7")
        self.assertEqual(await self.seen_from([source], poller), "127.0.0.7")

    def test_other_systems(self) -> None:
        self.patch(sys, "platform", "freebsd14")
        with socket.socket() as bound:
            SourceAddress("127.0.0.7").bind(bound)
            self.assertNotEqual(bound.getsockname()[1], 0)


class PrivilegeTests(SynchronousTestCase):
    def test_without_privilege(self) -> None:
        class Refusing(socket.socket):
            def setsockopt(self, *_: object) -> None:
                raise PermissionError(errno.EPERM, "Operation not permitted")

        self.patch(socket, "socket", Refusing)
        error = self.assertRaises(MuxError, check_transparent)
        self.assertRegex(
            str(error),
            r"^'client': user \d+ may not connect from the addresses of others "
            r"\(Operation not permitted\); run with the capability CAP_NET_ADMIN, or use proxy_protocol$",
        )

    def test_with_privilege(self) -> None:
        class Willing(socket.socket):
            def setsockopt(self, *_: object) -> None:
                pass

        self.patch(socket, "socket", Willing)
        check_transparent()

    def test_other_systems(self) -> None:
        self.patch(sys, "platform", "darwin")
        error = self.assertRaises(MuxError, check_transparent)
        self.assertEqual(str(error), "'client' needs Linux; remove it, or use proxy_protocol")


class HintTests(SynchronousTestCase):
    def hints(self, *servers: str, source: tuple[str, ...] = ("client",)) -> list[str]:
        return transparent_hints(Backend("web", tuple(map(server, servers)), source=source))

    def test_not_transparent(self) -> None:
        self.assertEqual(self.hints("192.0.2.1:80", source=("192.0.2.9",)), [])

    def test_on_this_machine(self) -> None:
        self.assertEqual(
            self.hints("127.0.0.1:22", "[::1]:22")[2:],
            [
                "ip rule add from 127.0.0.1 ipproto tcp sport 22 lookup 100",
                "ip -6 rule add from ::1 ipproto tcp sport 22 lookup 100",
                "ip route add local default dev lo table 100",
                "ip -6 route add local default dev lo table 100",
            ],
        )

    def test_elsewhere(self) -> None:
        found = self.hints("192.0.2.1:80", "192.0.2.2:80")
        self.assertEqual(
            found[2:],
            [
                "ip rule add from 192.0.2.1 ipproto tcp sport 80 lookup 100",
                "ip rule add from 192.0.2.2 ipproto tcp sport 80 lookup 100",
                "ip route add local default dev lo table 100",
                "# on 192.0.2.1:80, 192.0.2.2:80: make this machine the gateway to the clients",
            ],
        )

    def test_asked_for(self) -> None:
        self.assertEqual(
            self.hints("{local}:80")[2:4],
            [
                "# for each address of {local}:",
                "ip rule add from IPV4-ADDRESS ipproto tcp sport 80 lookup 100",
            ],
        )
        self.assertNotIn("gateway", self.hints("{local}:80")[-1])

    def test_names(self) -> None:
        self.assertEqual(
            self.hints("db.example.com:80")[2:-1],
            [
                "# for each address of db.example.com:",
                "ip rule add from IPV4-ADDRESS ipproto tcp sport 80 lookup 100",
                "ip -6 rule add from IPV6-ADDRESS ipproto tcp sport 80 lookup 100",
                "ip route add local default dev lo table 100",
                "ip -6 route add local default dev lo table 100",
            ],
        )

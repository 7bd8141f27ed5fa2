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

from tests.support.kit import Peer, PeerFactory, change_constants, listen, reactor
from tests.support.mux import server_at
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


class SourcesTests(SynchronousTestCase):
    def addresses(self, sources: Sources, host: str = "192.0.2.1") -> list[str]:
        return [source.address for source in sources.sources_towards(host, None)]

    def test_each_begins_with_the_next_of_its_family(self) -> None:
        sources = Sources(("10.0.0.1", "10.0.0.2", "10.0.0.3"))
        found = [[host.rpartition(".")[2] for host in self.addresses(sources)] for _ in range(4)]
        self.assertEqual([*map("".join, found)], ["123", "231", "312", "123"])
        self.assertEqual(self.addresses(Sources(())), [])
        sources = Sources(("10.0.0.1", "2001:db8::1", "10.0.0.2", "2001:db8::2"))
        self.assertEqual(self.addresses(sources), ["10.0.0.1", "10.0.0.2"])
        self.assertEqual(self.addresses(sources, "2001:db8::9"), ["2001:db8::1", "2001:db8::2"])
        self.assertEqual(self.addresses(sources), ["10.0.0.2", "10.0.0.1"])
        six = Sources(("::2",))
        error = self.assertRaises(ConnectBindError, six.sources_towards, "192.0.2.1", None)
        self.assertIn("no address in source is IPv4, as this server's is", str(error))
        self.assertEqual(error.osError, errno.EADDRNOTAVAIL)

    def chosen(self, host: str, client: Address | None) -> Sequence[SourceAddress]:
        return Sources(("client",)).sources_towards(host, client)

    def test_address_of_the_client_unless_it_is_of_this_machine_alone(self) -> None:
        for host, source, is_taken in (
            ("192.0.2.1", "198.51.100.7", True), ("::1", "2001:db8::7", True),
            ("127.0.0.1", "127.0.0.5", True), ("192.0.2.1", "127.0.0.1", False),
        ):  # fmt: skip
            taken = (SourceAddress(source, transparent=True, client_port=50000),)
            self.assertEqual(self.chosen(host, client(source)), taken if is_taken else ())
        self.assertEqual(self.chosen("192.0.2.1", None), ())
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

    async def test_ports_and_addresses_of_others(self) -> None:
        ports = free_ports(2, "127.0.0.1")
        sources = Sources((f"127.0.0.1:{ports[0]}-{ports[1]}",))
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", ports[0]))
            taken.listen()
            end = await self.connect(sources, self.port)
            self.assertEqual(end.transport.getHost().port, ports[1])
            await self.ended([end])
        # An address that this machine does not have is not tried with all of its ports; the next source is taken.
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
        self, sources: Sequence[SourceAddress], poller: Any = None, host: str = "127.0.0.1"
    ) -> str:
        number = len(self.peers.peers)
        await self.dial(server_at(listen(self, self.peers, interface=host), host), sources, poller)
        peer: Peer = await self.peers.peer(number)
        address: str = peer.transport.getPeer().host
        peer.close()
        await peer.is_lost()
        return address

    async def test_bound_or_none_left(self) -> None:
        own, foreign = SourceAddress("127.0.0.7"), SourceAddress("192.0.2.1")
        for poller in (Poller.for_reactor(reactor), ReactorPoller(reactor)):
            self.assertEqual(await self.seen_from([own], poller), "127.0.0.7")
        self.assertEqual(await self.seen_from([SourceAddress("::1")], host="::1"), "::1")
        self.assertEqual(await self.seen_from([foreign, own]), "127.0.0.7")
        target = server_at(listen(self, self.peers))
        error = await self.assertFailure(self.dial(target, [foreign]), ConnectError)
        self.assertIn("192.0.2.1 is not an address of this machine", str(error))
        self.assertEqual(error.osError, errno.EADDRNOTAVAIL)
        sources = [SourceAddress("2001:db8::1"), SourceAddress("127.0.0.7")]  # wrong family
        await self.assertFailure(self.dial(target, sources), ConnectError)

    async def test_own_address_as_another(self) -> None:
        require_transparent()
        for host, source in (("127.0.0.1", "127.0.0.7"), ("::1", "::1")):
            sources = [SourceAddress(source, transparent=True)]
            self.assertEqual(await self.seen_from(sources, host=host), source)

    def test_other_systems(self) -> None:
        change_constants(self, sys, platform="freebsd14")
        with socket.socket() as bound:
            SourceAddress("127.0.0.7").bind(bound)
            self.assertNotEqual(bound.getsockname()[1], 0)


class TransparentTests(SynchronousTestCase):
    def test_what_the_kernel_says(self) -> None:
        for problem in (PermissionError(errno.EPERM, "Operation not permitted"), None):

            class Socket(socket.socket):
                def setsockopt(self, *_: object, problem: OSError | None = problem) -> None:
                    if problem:
                        raise problem

            self.patch(socket, "socket", Socket)
            if problem is None:
                check_transparent()
                continue
            error = self.assertRaises(MuxError, check_transparent)
            self.assertRegex(
                str(error),
                r"^'client': user \d+ may not connect from the addresses of others "
                r"\(Operation not permitted\); run with the capability CAP_NET_ADMIN, or use proxy_protocol$",
            )
        change_constants(self, sys, platform="darwin")
        error = self.assertRaises(MuxError, check_transparent)
        self.assertEqual(str(error), "'client' needs Linux; remove it, or use proxy_protocol")

    def hints(self, *servers: str, source: tuple[str, ...] = ("client",)) -> list[str]:
        return transparent_hints(Backend("web", tuple(map(server, servers)), source=source))

    def test_commands_behind_those_of_every_server(self) -> None:
        rule, lead = "ip rule add from {} ipproto tcp sport {} lookup 100", "ip{} route add local default dev lo table 100"  # fmt: skip
        four, six = lead.format(""), lead.format(" -6")
        for texts, expected in (
            (["127.0.0.1:22", "[::1]:22"],
             [rule.format("127.0.0.1", 22), "ip -6" + rule.format("::1", 22)[2:], four, six]),
            (["192.0.2.1:80", "192.0.2.2:80"],
             [rule.format("192.0.2.1", 80), rule.format("192.0.2.2", 80), four,
              "# on 192.0.2.1:80, 192.0.2.2:80: make this machine the gateway to the clients"]),
            (["db.example.com:80"],
             ["# for each address of db.example.com:", rule.format("IPV4-ADDRESS", 80),
              "ip -6" + rule.format("IPV6-ADDRESS", 80)[2:], four, six]),
        ):  # fmt: skip
            found = self.hints(*texts)[2:]
            self.assertEqual(found[: -1 if "db" in texts[0] else None], expected)
        local = self.hints("{local}:80")
        each = ["# for each address of {local}:", rule.format("IPV4-ADDRESS", 80)]
        self.assertEqual(local[2:4], each)
        self.assertNotIn("gateway", local[-1])
        self.assertEqual(self.hints("192.0.2.1:80", source=("192.0.2.9",)), [])

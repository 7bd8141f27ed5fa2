import select
import socket
from ipaddress import ip_address

import attrs

from tests.backends.pool.test_balance import order
from tests.support.datagrams import Talker, turn
from tests.support.ports import free_port
from tests.support.privileges import require_transparent
from tests.udp.flow_case import LISTEN, FlowCase
from tests.udp.test_connections import opening
from txmux.backends.health.checks import key_of
from txmux.wire.proxyprotocol.decode import decode_datagram
from txmux.wire.proxyprotocol.encode import encode_v2
from txmux.wire.proxyprotocol.header import Address, Command, ProxyHeader


def _behind_header(data: bytes) -> bytes:
    found = decode_datagram(data)
    return data if found is None else data[found.length :]


class ProxyTests(FlowCase):
    async def test_each_datagram_has_the_header_and_answers_have_none(self) -> None:
        server, client, port = self.served(_behind_header, backend="proxy_protocol = v2")
        await client.asks(b"one", port)
        client.bulk(b"abcdefgh" * 20, 50, port)
        client.bulk(b"z" * 60, 50, port)
        await client.hears(7)
        several = [(b"abcdefgh" * 20)[at : at + 50] for at in range(0, 160, 50)]
        self.assertEqual(client.heard, [b"one", *several, b"z" * 50, b"z" * 10])
        for data in server.heard:
            found = decode_datagram(data)
            assert found is not None
            source, local = found.header.source, found.header.destination
            self.assertEqual(
                (str(source), str(local)), (f"127.0.0.1:{client.port}", f"127.0.0.1:{port}")
            )
            self.assertEqual((found.length, data[13]), (28, 0x12))

    async def test_next_server_gets_the_header(self) -> None:
        server, client = Talker.listening(self, answer=_behind_header), Talker.listening(self)
        lines = "proxy_protocol = v2\nbalance = first"
        port = self.begin(free_port(kind=socket.SOCK_DGRAM), server.port, backend=lines)
        client.say(b"one", port)
        await server.hears(1)
        self.assertEqual(len(server.heard[0]), 31)

    async def test_flow_goes_to_the_address_that_its_client_asked(self) -> None:
        five = Talker.listening(self, "127.0.0.5", answer=lambda _: b"five")
        Talker.listening(self, "127.0.0.6", five.port, answer=lambda _: b"six")
        client, proxy = Talker.listening(self), Talker.listening(self, "127.0.0.9")
        [port] = self.run_service(
            "[txmux]\naccess_log = LOG\naccess_log_format = json\n"
            "[listen u]\nendpoint = udp:0\naccept_proxy_from = 127.0.0.9\n"
            f"default = udp:{{local}}:{five.port}\n"
        )
        for host, name in (("127.0.0.5", b"five"), ("127.0.0.6", b"six"), ("127.0.0.5", b"five")):
            self.assertEqual(await client.asks(b"x", port, host), name)
        who, asked = (Address(ip_address(host), 53) for host in ("192.0.2.1", "127.0.0.6"))
        header = encode_v2(ProxyHeader(Command.PROXY, who, asked), datagrams=True)
        self.assertEqual(await proxy.asks(header + b"x", port, "127.0.0.5"), b"six")
        lines = await self.stopped(3)
        reported = {(line["local"], line["server"]) for line in lines}
        self.assertEqual(
            reported,
            {
                (f"127.0.0.5:{port}", f"udp:127.0.0.5:{five.port}"),
                ("127.0.0.6:53", f"udp:127.0.0.6:{five.port}"),
                (f"127.0.0.6:{port}", f"udp:127.0.0.6:{five.port}"),
            },
        )

    async def test_header_of_the_first_datagram_holds_for_the_flow(self) -> None:
        server, proxy = Talker.listening(self, answer=lambda d: d), Talker.listening(self)
        port = self.begin(server.port, listen="accept_proxy_from = 127.0.0.1")
        proxy.say(b"no header", port)
        header, other = (
            encode_v2(
                ProxyHeader(
                    Command.PROXY,
                    Address(ip_address(host), 4000),
                    Address(ip_address("192.0.2.1"), 53),
                ),
                datagrams=True,
            )
            for host in ("198.51.100.7", "198.51.100.8")
        )
        self.assertEqual(await proxy.asks(header + b"one", port), b"one")
        proxy.say(other + b"another", port)
        self.assertEqual(await proxy.asks(b"two", port), b"two")
        self.assertEqual(await proxy.asks(header + b"three", port), b"three")
        self.assertEqual(server.heard, [b"one", b"two", b"three"])
        refused, line = await self.stopped(2)
        self.assertEqual(refused["reason"], "proxy-header")
        self.assertEqual((line["client"], line["local"]), ("198.51.100.7:4000", "192.0.2.1:53"))


class SourceTests(FlowCase):
    async def test_flow_comes_from_the_source_address(self) -> None:
        server, client, port = self.served(lambda d: d, backend="source = 127.0.0.77")
        await client.asks(b"one", port)
        self.assertEqual(server.senders[0][0], "127.0.0.77")

    async def test_source_client_shows_the_server_the_client(self) -> None:
        require_transparent()
        server = Talker.listening(self)
        port = self.begin(server.port, backend="source = client")
        client = _sharing(self)
        client.sendto(b"one", ("127.0.0.1", port))
        await server.hears(1)
        self.assertEqual(server.senders, [client.getsockname()])

    async def test_flows_have_ports_of_their_own_in_a_range(self) -> None:
        first = free_port("127.0.0.77", kind=socket.SOCK_DGRAM)
        server = Talker.listening(self)
        port = self.begin(server.port, backend=f"source = 127.0.0.77:{first}-{first + 2}")
        clients = [Talker.listening(self) for _ in range(4)]
        for client in clients:
            client.say(b"from %d" % client.port, port)
        line = await self.assert_ended(reason="error")
        await server.hears(3)
        self.assertEqual(
            {flow[:2] for flow in server.senders},
            {("127.0.0.77", number) for number in range(first, first + 3)},
        )
        for heard, sender in zip(server.heard, server.senders, strict=True):
            server.say(heard, sender[1], sender[0])
        reported = line["client"]
        for client in clients:
            if reported != f"127.0.0.1:{client.port}":
                self.assertEqual(await client.hears(1), [b"from %d" % client.port])

    async def test_port_in_use_is_skipped(self) -> None:
        first = free_port("127.0.0.77", kind=socket.SOCK_DGRAM)
        server = Talker.listening(self, answer=lambda d: d)
        port = self.begin(server.port, backend=f"source = 127.0.0.77:{first}-{first + 1}")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.77", first))
            await Talker.listening(self).asks(b"one", port)
        self.assertEqual(server.senders[0][:2], ("127.0.0.77", first + 1))

    async def test_client_of_two_addresses_is_answered_from_each(self) -> None:
        require_transparent()
        server, client = Talker.listening(self, answer=lambda d: d), _sharing(self)
        [port] = self.run_service(
            "[listen u]\nendpoint = udp:0\ndefault = b\n"
            f"[backend b]\nserver = udp:127.0.0.1:{server.port}\nsource = client\n"
        )
        for host in ("127.0.0.1", "127.0.0.2", "127.0.0.1", "127.0.0.2"):
            client.sendto(host.encode(), (host, port))
            while not select.select([client], [], [], 0)[0]:
                await turn()
            data, sender = client.recvfrom(100)
            self.assertEqual((data.decode(), sender), (host, (host, port)))
        self.assertEqual([sender[0] for sender in server.senders], ["127.0.0.66"] * 4)
        self.assertEqual(server.senders[0], client.getsockname())
        self.assertNotEqual(server.senders[1], client.getsockname())


def _sharing(test: FlowCase) -> socket.socket:
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    test.addCleanup(client.close)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    client.bind(("127.0.0.66", 0))
    return client


class BackendTests(FlowCase):
    async def test_flow_ends_when_checks_find_its_server_down(self) -> None:
        check = f"check = tcp port={free_port()} interval=1h fall=1\nend_on_down = yes"
        _, client, port = self.served(backend=check)
        await client.asks(b"one", port)
        upstreams = self.running.listeners[0].upstreams
        (upstream,) = upstreams.all()
        (member,) = upstream.pool.members
        upstreams.apply_check(upstream.backend.name, key_of(member), ok=False, why="it said no")
        await self.assert_ended(reason="server-down")

    async def test_unanswered_flows_eject_a_server(self) -> None:
        quiet, server = Talker.listening(self), Talker.listening(self, answer=lambda d: d)
        port = self.begin(
            quiet.port,
            server.port,
            backend="balance = first\nunanswered_timeout = 500ms\neject = unanswered=2 for=1m",
        )
        for count, source in enumerate(("127.0.0.1", "127.0.0.1", "127.0.0.2"), 1):
            Talker.listening(self, source).say(b"one", port)
            lines = await self.ended(count)
            self.assertEqual(lines[-1]["reason"], "unanswered")
        await Talker.listening(self).asks(b"four", port)
        self.assertEqual((len(quiet.heard), server.heard), (3, [b"four"]))

    def test_answer_resets_the_count_of_failures(self) -> None:
        [port] = self.run_service(
            "[listen u]\nendpoint = udp:127.0.0.1:0\ndefault = b\n[backend b]\n"
            "server = udp:127.0.0.1:1\n  udp:127.0.0.1:2\neject = unanswered=2\n"
        )
        self.assertTrue(port)
        pool = self.running.listeners[0].upstreams.all()[0].pool
        for source, what in enumerate(("unanswered", "answered", "unanswered")):
            member = next(one for one in pool.members if one.target.port == 1)
            while (picked := pool.pick()) is not member:
                assert attrs.has(type(picked))
                pool.abandoned(picked)  # type: ignore[arg-type]
            if what == "answered":
                pool.connected(member)
                pool.released(member)
            else:
                pool.unanswered(member, source)
        self.assertEqual([one.state.value for one in pool.members], ["up", "up"])

    async def test_sni_hash(self) -> None:
        servers = [Talker.listening(self) for _ in range(4)]
        texts = {f"udp:127.0.0.1:{server.port}": server for server in servers}
        lines = "\n    ".join(texts)
        [port] = self.run_service(
            f"{LISTEN}[route site]\nmatch = quic\nbackend = b\n[backend b]\nserver = {lines}\nbalance = sni-hash\n"
        )
        for name in "abcdef":
            Talker.listening(self).say(opening(name), port)
            chosen = order("sni-hash", f"{name}.example.com", dict.fromkeys(texts, 1))[0]
            while opening(name) not in texts[chosen].heard:
                await turn()

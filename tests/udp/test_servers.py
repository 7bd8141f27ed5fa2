import math
import socket
from ipaddress import ip_address
from typing import Any

import attrs
from twisted.internet.defer import maybeDeferred
from twisted.internet.protocol import Factory, Protocol

from tests.backends.pool.test_balance import order
from tests.support.kit import Talker, free_port, reactor, turn
from tests.support.privileges import require_transparent
from tests.support.servers import counted, waited
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
            expected = (f"127.0.0.1:{client.port}", f"127.0.0.1:{port}")
            self.assertEqual((str(source), str(local)), expected)
            self.assertEqual((found.length, data[13]), (28, 0x12))

    async def test_next_server_gets_the_header(self) -> None:
        server, lines = Talker.listening(self), "proxy_protocol = v2\nbalance = first"
        port = self.begin(free_port(kind=socket.SOCK_DGRAM), server.port, backend=lines)
        Talker.listening(self).say(b"one", port)
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
        found = {(line["local"], line["server"]) for line in await self.stopped(3)}
        there, other = (f"udp:127.0.0.{number}:{five.port}" for number in (5, 6))
        expected = {(f"127.0.0.5:{port}", there), ("127.0.0.6:53", other)}
        self.assertEqual(found, expected | {(f"127.0.0.6:{port}", other)})

    async def test_header_of_the_first_datagram_holds_for_the_flow(self) -> None:
        server, proxy, port = self.served(bytes, listen="accept_proxy_from = 127.0.0.1")
        proxy.say(b"no header", port)
        asked = Address(ip_address("192.0.2.1"), 53)
        sources = (Address(ip_address(f"198.51.100.{number}"), 4000) for number in (7, 8))
        headers = (ProxyHeader(Command.PROXY, source, asked) for source in sources)
        header, other = (encode_v2(its, datagrams=True) for its in headers)
        self.assertEqual(await proxy.asks(header + b"one", port), b"one")
        proxy.say(other + b"another", port)
        self.assertEqual(await proxy.asks(b"two", port), b"two")
        self.assertEqual(await proxy.asks(header + b"three", port), b"three")
        self.assertEqual(server.heard, [b"one", b"two", b"three"])
        refused, line = await self.stopped(2)
        self.assertEqual(refused["reason"], "proxy-header")
        self.assertEqual((line["client"], line["local"]), ("198.51.100.7:4000", "192.0.2.1:53"))


class SourceTests(FlowCase):
    async def test_source_client_shows_the_server_the_client(self) -> None:
        require_transparent()
        server = Talker.listening(self)
        port = self.begin(server.port, backend="source = client")
        client = self.sharing()
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
        expected = {("127.0.0.77", number) for number in range(first, first + 3)}
        self.assertEqual({flow[:2] for flow in server.senders}, expected)
        for heard, sender in zip(server.heard, server.senders, strict=True):
            server.say(heard, sender[1], sender[0])
        for client in clients:
            if line["client"] != f"127.0.0.1:{client.port}":
                self.assertEqual(await client.hears(1), [b"from %d" % client.port])

    async def test_port_in_use_is_skipped(self) -> None:
        first = free_port("127.0.0.77", kind=socket.SOCK_DGRAM)
        server, client, port = self.served(backend=f"source = 127.0.0.77:{first}-{first + 1}")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.77", first))
            await client.asks(b"one", port)
        self.assertEqual(server.senders[0][:2], ("127.0.0.77", first + 1))

    async def test_client_of_two_addresses_is_answered_from_each(self) -> None:
        require_transparent()
        server, client = Talker.listening(self, answer=lambda d: d), self.sharing()
        [port] = self.run_service(
            "[listen u]\nendpoint = udp:0\ndefault = b\n"
            f"[backend b]\nserver = udp:127.0.0.1:{server.port}\nsource = client\n"
        )
        for host in ("127.0.0.1", "127.0.0.2", "127.0.0.1", "127.0.0.2"):
            client.sendto(host.encode(), (host, port))
            self.assertEqual(await self.heard_by(client), (host.encode(), (host, port)))
        self.assertEqual([sender[0] for sender in server.senders], ["127.0.0.66"] * 4)
        self.assertEqual(server.senders[0], client.getsockname())
        self.assertNotEqual(server.senders[1], client.getsockname())


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
        keys = "balance = first\nunanswered_timeout = 500ms\neject = unanswered=2 for=1m"
        port = self.begin(quiet.port, server.port, backend=keys)
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


class CheckTests(FlowCase):
    async def until_state(self, state: str) -> None:
        [upstream] = self.running.listeners[0].upstreams.all()
        await self.until(lambda: upstream.pool.members[0].state.value == state)

    async def test_server_without_the_right_answer_is_down(self) -> None:
        """So is one whose port is closed."""
        says = [b"PONG"]

        def answer(data: bytes) -> bytes:
            found = decode_datagram(data)
            assert found is not None
            assert data[found.length :] == b"PING"
            return says[0]

        place = free_port(kind=socket.SOCK_DGRAM)
        check = "check = send=PING expect=PONG interval=100ms timeout=100ms rise=1 fall=1"
        self.begin(place, backend=f"proxy_protocol = v2\n{check}")
        await self.until_state("down")
        Talker.listening(self, port=place, answer=answer)
        for says[0], state in ((b"PONG", "up"), (b"?", "down"), (b"PONG!", "up")):
            await self.until_state(state)

    async def test_dns_server_that_answers_is_up_also_without_such_a_name(self) -> None:
        codes = [0]
        server = Talker.listening(
            self, answer=lambda data: data[:2] + bytes([0x81, 0x80 | codes[0]]) + data[4:]
        )
        check = "check = dns name=www.example.com interval=100ms rise=1 fall=1"
        self.begin(server.port, backend=check)
        self.assertIn(b"\3www\7example\3com\0\0\1\0\1", (await server.hears(1))[0])
        codes[0] = 2
        await self.until_state("down")
        codes[0] = 3
        await self.until_state("up")

    async def test_port_checks_a_tcp_service_beside_it(self) -> None:
        beside = reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")
        self.addCleanup(beside.stopListening)
        check = f"check = tcp port={beside.getHost().port} interval=100ms rise=1 fall=1"
        self.begin(free_port(kind=socket.SOCK_DGRAM), backend=check)
        await self.until_state("up")
        runtime = self.running.listeners[0].runtime
        await maybeDeferred(beside.stopListening)
        await self.until_state("down")
        await self._stop()
        runtime.clock.drop_idle()


class ServerCountsTests(FlowCase):
    def begin(self, *servers: int, **rules: str) -> int:
        port = super().begin(*servers, **rules)
        [self.listener] = self.running.listeners
        return port

    async def test_first_answer_at_once_and_bytes_of_live_flows(self) -> None:
        server, client, port = self.served(lambda _: b"")
        client.say(b"ab", port)
        client.say(b"abc", port)
        await server.hears(2)
        self.assertEqual(counted(self.listener), {"asked": 1})
        for _ in range(2):
            server.say(b"answer", server.senders[0][1])
        await client.hears(2)
        self.assertEqual(counted(self.listener), {"asked": 1, "answered": 1})
        seconds, number = waited(self.listener)
        self.assertEqual((0 < seconds < 60, number), (True, 1))
        (flow,) = self.listener.connections
        flow.count_bytes()
        transferred = {"bytes in": 5, "bytes out": 12}
        self.assertEqual(counted(self.listener, names=transferred), transferred)
        await self.assert_stopped(bytes_in=5)
        self.assertEqual(counted(self.listener, names=transferred), transferred)

    async def test_flow_without_an_answer(self) -> None:
        """A refusal is no missing answer."""
        Talker.listening(self).say(b"ab", self.begin(free_port(kind=socket.SOCK_DGRAM)))
        await self.until(lambda: "failed connect-refused" in counted(self.listener))
        await self._stop()
        self.assertEqual(counted(self.listener), {"asked": 1, "failed connect-refused": 1})
        self.log.unlink()
        _, client, port = self.served(lambda _: b"", backend="unanswered_timeout = 50ms")
        client.say(b"ab", port)
        await self.assert_ended(reason="unanswered")
        self.assertEqual(counted(self.listener), {"asked": 1, "unanswered": 1})


class HoldTests(FlowCase):
    def hold(self, lines: str = "hold = 60s") -> tuple[Talker, int, int]:
        place = free_port(kind=socket.SOCK_DGRAM)
        port = self.begin(place, backend=lines)
        return Talker.listening(self), place, port

    async def waits(self, count: int = 1) -> None:
        [listener] = self.running.listeners
        while [flow.state for flow in listener.connections] != ["connecting"] * count:
            await turn()

    async def test_datagrams_are_kept_for_the_server(self) -> None:
        """Sixteen, and no more than the peek limit, which has room for a QUIC client's first window: 14,720 bytes (RFC 9002, 7.2)."""
        for size, kept in ((4, 16), (1472, 11)):
            client, place, port = self.hold()
            sent = [b"%d".ljust(size) % number for number in range(10, 30)]
            client.say(sent[0], port)
            await self.waits()
            for datagram in sent[1:]:
                client.say(datagram, port)
            flows: list[Any] = [*self.running.listeners[0].connections]
            while flows[0].datagrams_in < 20:
                await turn()
            server = Talker.listening(self, port=place, answer=lambda data: b"<" + data)
            await client.hears(kept)
            self.assertEqual(server.heard, sent[:kept])
            self.assertEqual(self.datagrams("lost"), 20 - kept)
            self.assertEqual(await client.asks(b"later", port), b"<later")
            line = await self.assert_stopped(server=f"udp:127.0.0.1:{place}", reason="killed")
            self.assertIn("held", line["facts"])
            self.log.unlink()

    async def test_limit_makes_room_for_a_source_that_has_less(self) -> None:
        client, _, port = self.hold("hold = 60s\nhold_limit = 2")
        for count, talker in enumerate((client, Talker.listening(self)), start=1):
            talker.say(b"x", port)
            await self.waits(count)
        Talker.listening(self, "127.0.0.2").say(b"x", port)
        line = await self.assert_ended(reason="limit")
        self.assertEqual(str(line["client"])[:9], "127.0.0.1")
        self.assertIn("held", line["facts"])

    async def test_end_of_the_wait(self) -> None:
        # Longer than several tries take, each of which the server refuses.
        place = free_port(kind=socket.SOCK_DGRAM)
        other = f"[backend other]\nserver = udp:127.0.0.1:{place}\nhold = 1s"
        client, _, port = self.hold(f"hold = 1s\nfallback = other\n{other}")
        client.say(b"x", port)
        await self.waits()
        line = await self.assert_ended(reason="connect-refused")
        self.assertRegex(line["facts"]["held"], r"[2-9]\.[0-9]s")  # type: ignore[index]

    async def test_server_that_was_moved_meanwhile(self) -> None:
        client, _, port = self.hold("hold = 1h")
        client.say(b"0", port)
        await self.waits()
        (flow,) = self.old.connections
        self.assertGreater(flow.queue.timeout[0], 3600)  # what is held ends by itself before
        server = Talker.listening(self, answer=lambda data: b"<" + data)
        self.reload(LISTEN + f"default = b\n[backend b]\nserver = udp:127.0.0.1:{server.port}\n")
        await client.hears(1)
        self.assertEqual(server.heard, [b"0"])
        await self.assert_stopped(server=f"udp:127.0.0.1:{server.port}", reason="killed")

    async def test_operator_lets_flows_wait(self) -> None:
        server, client, port = self.served()
        upstreams = self.running.listeners[0].upstreams
        upstreams.apply_overrides({}, {"b": math.inf})
        client.say(b"ab", port)
        await self.waits()
        self.assertEqual(server.heard, [])
        upstreams.apply_overrides({}, {})
        await client.hears(1)
        self.assertEqual(client.heard, [b"ba"])

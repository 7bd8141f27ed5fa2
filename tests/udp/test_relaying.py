import socket

from twisted.logger import LogLevel, capturedLogs, formatEvent

from tests.support.kit import Talker, change_constants, free_port, turn
from tests.udp.flow_case import LISTEN, FlowCase, reversed_bytes
from txmux.net.sockets.descriptors import soft_limit
from txmux.udp import ancillary, listener, live_flows
from txmux.udp import flow as flow_module
from txmux.udp import port as port_module
from txmux.udp.live_flows import ProcessFlows


class RelayingTests(FlowCase):
    async def test_datagrams_go_unchanged_and_answers_come_from_the_asked_address(self) -> None:
        """One that is cut is counted, and dropped."""
        server, client, port = self.served()
        for data in (b"hello", b"x" * 60_000, b"world"):
            self.assertEqual(await client.asks(data, port), data[::-1])
        client.say(b"", port)
        self.assertEqual((await server.hears(4))[3], b"")
        change_constants(self, port_module, _BUFFER=memoryview(bytearray(100)))
        client.say(b"x" * 101, port)
        self.assertEqual(await client.asks(b"ab", port), b"ba")
        self.assertEqual(server.heard[4:], [b"ab"])
        self.assertEqual((self.datagrams("cut"), self.datagrams("in")), (1, 5))
        self.assertEqual(set(client.senders), {("127.0.0.1", port)})
        self.assertEqual(len(set(server.senders)), 1)
        line = await self.assert_stopped(
            datagrams_in=5, datagrams_out=4, bytes_in=60_012, bytes_out=60_012
        )
        self.assertEqual((line["reason"], line["backend"]), ("killed", "b"))

    async def test_port_on_every_address_answers_from_the_asked_one(self) -> None:
        server = Talker.listening(self, answer=reversed_bytes)
        [port] = self.run_service(
            f"[listen u]\nendpoint = udp:0\ndefault = udp:127.0.0.1:{server.port}\n"
        )
        for host, own in (("127.0.0.9", "127.0.0.1"), ("::1", "::1")):
            client = Talker.listening(self, own)
            self.assertEqual(await client.asks(b"abc", port, host), b"cba")
            self.assertEqual(client.senders[0][0], host)

    async def test_joined_datagrams_arrive_one_by_one_in_order(self) -> None:
        server, client, port = self.served(lambda data: data)
        for size, count, rest in ((1200, 40, 700), (50, 64, 1), (9000, 7, 0)):
            data = bytes(number % 251 for number in range(size * count + rest))
            sent = [bytes(part) for part in ancillary.split(data, size)]
            client.heard.clear()
            server.heard.clear()
            client.bulk(data, size, port)
            self.assertEqual(await server.hears(len(sent)), sent)
            self.assertEqual(await client.hears(len(sent)), sent)
            client.heard.clear()
            server.bulk(data, size, server.senders[-1][1])
            self.assertEqual(await client.hears(len(sent)), sent)

    async def test_answers_ends_the_flow_after_that_many(self) -> None:
        """It waits for all that was asked."""
        server, client, port = self.served(lambda _: b"", backend="answers = 1")
        heard: list[bytes] = []
        for asked in ((b"A",), (b"A", b"AAAA")):
            heard += asked
            for data in asked:
                client.say(data + b"?", port)
            await server.hears(len(heard))
            flow = server.senders[-1][1]
            for data in asked:
                server.say(data, flow)
            self.assertEqual(await client.hears(len(heard)), heard)
        lines = await self.ended(2)
        found = [(line["reason"], line["datagrams_out"]) for line in lines]
        self.assertEqual(found, [("done", 1), ("done", 2)])
        self.assertEqual(len(set(server.senders)), 2)

    async def test_idle_flow_ends_with_its_line(self) -> None:
        """Unless an answer has come that is not read yet."""
        server, client, port = self.served(backend="idle_timeout = 500ms")
        await client.asks(b"ab", port)
        (flow,) = self.old.connections
        server.say(b"late", server.senders[0][1])
        flow.time_is_over()
        self.assertIsNone(flow.record.reason)
        await self.assert_ended(reason="idle-timeout", datagrams_out=2)

    async def test_unmatched_client_is_one_flow_without_answers(self) -> None:
        client = Talker.listening(self)
        [port] = self.run_service(LISTEN)
        for _ in range(5):
            client.say(b"ab", port)
        [listener] = self.running.listeners
        while sum(flow.relayed().bytes_in for flow in listener.connections) < 10:
            await turn()
        # It is only remembered, so a service that stops does not wait for it.
        await self.running.stopService()
        line = await self.assert_ended(reason="no-route")
        self.assertEqual((line["datagrams_in"], line["bytes_out"], client.heard), (5, 0, []))


class KeepAliveTests(FlowCase):
    _SIP = (
        f"{LISTEN}detect_timeout = %s\ndefault = udp:127.0.0.1:%d\n"
        "[route sip]\nmatch = sip\nbackend = udp:127.0.0.1:%d\n"
    )

    def serve_sip(self, timeout: str) -> tuple[Talker, Talker, int]:
        server, other = Talker.listening(self, answer=reversed_bytes), Talker.listening(self)
        [port] = self.run_service(self._SIP % (timeout, other.port, server.port))
        return server, other, port

    async def test_registration_decides_behind_keepalives(self) -> None:
        server, other, port = self.serve_sip("1m")
        for noise in (b"\r\n\r\n", b"\r\n", bytes(4), b""):
            phone = Talker.listening(self)
            for _ in range(6):
                phone.say(noise, port)
            register = b"REGISTER sip:example.com SIP/2.0\r\n\r\n"
            self.assertEqual(await phone.asks(register, port), register[::-1])
        self.assertEqual((len(server.heard), other.heard), (4, []))

    async def test_keepalives_alone_are_forgotten_at_the_deadline(self) -> None:
        _, other, port = self.serve_sip("10ms")
        phone = Talker.listening(self)
        phone.say(b"\r\n", port)
        [line] = await self.ended()
        self.assertEqual((line["reason"], line["route"], other.heard), ("no-route", None, []))
        self.assertEqual(len(self.running.listeners[0].connections), 0)
        self.assertEqual(await phone.asks(b"BYE sip:b SIP/2.0\r\n", port), b"\n\r0.2/PIS b:pis EYB")

    async def test_keepalives_go_to_the_default_without_routes(self) -> None:
        server, client, port = self.served(lambda _: b"")
        client.say(b"", port)
        client.say(b"\r\n", port)
        self.assertEqual(await server.hears(2), [b"", b"\r\n"])

    async def test_empty_first_datagram_goes_where_any_leads(self) -> None:
        server = Talker.listening(self)
        [port] = self.run_service(
            "[txmux]\n[listen u]\nendpoint = udp:127.0.0.1:0\n[route dns]\nmatch = dns\nbackend = close\n"
            f"[route time]\nmatch = any\nbackend = udp:127.0.0.1:{server.port}\n"
        )
        Talker.listening(self).say(b"", port)
        self.assertEqual(await server.hears(1), [b""])


class RefusedTests(FlowCase):
    async def test_refused_datagrams_go_to_the_next_server_in_order(self) -> None:
        server, client = Talker.listening(self, answer=reversed_bytes), Talker.listening(self)
        gone = free_port(kind=socket.SOCK_DGRAM)
        port = self.begin(gone, server.port, backend="balance = first")
        client.say(b"one", port)
        await server.hears(1)
        client.say(b"two", port)
        self.assertEqual(await client.hears(2), [b"eno", b"owt"])
        self.assertEqual(server.heard, [b"one", b"two"])
        tried = {"tried": f"udp:127.0.0.1:{gone} connect-refused"}
        await self.assert_stopped(server=f"udp:127.0.0.1:{server.port}", facts=tried)
        change_constants(self, flow_module, _TRIED_AGAIN=0.05)  # a server that returns
        self.log.unlink()
        port = self.begin(gone, backend="eject = off")
        client.say(b"one", port)
        await self.assert_ended(reason="connect-refused", datagrams_in=1)
        Talker.listening(self, port=gone, answer=reversed_bytes)
        self.assertEqual(await client.asks(b"two", port), b"owt")

    async def test_logs_why_no_server_is_left(self) -> None:
        client = Talker.listening(self)
        gone = [free_port(kind=socket.SOCK_DGRAM) for _ in range(2)]
        port = self.begin(*gone, backend="eject = off\nbalance = first")
        with capturedLogs() as events:
            client.say(b"one", port)
            [listener] = self.running.listeners
            await self.until(lambda: any(one.state == "closing" for one in listener.connections))
        await self.running.stopService()
        servers = [f"udp:127.0.0.1:{one}" for one in gone]
        tried = ", ".join(f"{server} connect-refused" for server in servers)
        await self.assert_ended(
            reason="connect-refused", datagrams_out=0, facts={"tried": tried}, server=servers[-1]
        )
        [warned] = [formatEvent(one) for one in events if one["log_level"] is LogLevel.warn]
        self.assertEqual(warned, f"backend b: cannot connect to {servers[-1]}: connection refused")

    async def test_max_flows_ends_unanswered_flows_first(self) -> None:
        answering = Talker.listening(self, answer=lambda data: data if data != b"quiet" else b"")
        port = self.begin(answering.port, listen="max_flows = 2")
        first, quiet, third, fourth = (Talker.listening(self) for _ in range(4))
        await first.asks(b"a", port)
        quiet.say(b"quiet", port)
        await answering.hears(2)
        await third.asks(b"c", port)  # the quiet one makes room
        await self.assert_ended(reason="limit")
        fourth.say(b"d", port)  # there is no room for it
        self.assertEqual(await first.asks(b"again", port), b"again")
        self.assertEqual(answering.heard, [b"a", b"quiet", b"c", b"again"])

    async def test_listeners_share_the_descriptors(self) -> None:
        """One that is flooded makes room for others, and what it has filled leaves them a part."""
        server, flooded, other = self.share()
        for _ in range(3):
            Talker.listening(self).say(b"quiet", flooded)
        await server.hears(3)
        asked = (other, other, other, flooded, flooded)
        served = [(Talker.listening(self), port) for port in asked]
        for number, (client, port) in enumerate(served):
            self.assertEqual(await client.asks(b"%d" % number, port), b"%d" % number)
        ended = await self.ended(3)
        self.assertEqual({(line["listener"], line["reason"]) for line in ended}, {("u", "limit")})
        for client, port in (served[0], served[4]):
            Talker.listening(self).say(b"more", port)  # there is no room for it
            self.assertEqual(await client.asks(b"again", port), b"again")
        self.assertNotIn(b"more", server.heard)

    async def test_client_that_waits_for_its_answer_makes_no_room_while_there_is_some(self) -> None:
        server, filled, other = self.share()
        for number in range(3):
            await Talker.listening(self).asks(b"%d" % number, filled)
        waiting = Talker.listening(self)
        waiting.say(b"quiet", other)
        await server.hears(4)
        await Talker.listening(self).asks(b"more", other)
        server.say(b"late", server.senders[3][1])
        self.assertEqual(await waiting.hears(1), [b"late"])

    def share(self) -> tuple[Talker, int, int]:
        """Have two listeners and descriptors for four flows; the server does not answer ``quiet``."""
        flows = ProcessFlows()  # other tests may have left some
        change_constants(self, live_flows, FLOWS=flows)
        change_constants(self, listener, FLOWS=flows, _DESCRIPTOR_SHARE=4.5 / soft_limit())
        server = Talker.listening(self, answer=lambda data: data if data != b"quiet" else b"")
        sections = "".join(
            f"[listen {name}]\nendpoint = udp:127.0.0.1:0\ndefault = udp:127.0.0.1:{server.port}\n"
            for name in "uv"
        )
        ports = self.run_service(f"[txmux]\naccess_log = LOG\naccess_log_format = json\n{sections}")
        return server, ports[0], ports[1]

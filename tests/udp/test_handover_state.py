import socket
from typing import Any

from tests.support.datagrams import Talker, turn
from tests.support.ports import free_port
from tests.udp.flow_case import LISTEN, FlowCase, There
from tests.udp.test_migration import FIRST, SHORT, WG_ANSWER, WG_DATA, WG_FIRST, answer
from tests.wire.quic_builder import HELLO, crypto, initial
from txmux.client.active_listener import ActiveListener
from txmux.udp.handover import hand_over_flows
from txmux.wire.proxyprotocol.decode import decode_datagram

V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c" + bytes([9, 9, 9, 9, 8, 8, 8, 8, 0, 7, 0, 8])
"""A header: 9.9.9.9:7 has asked 8.8.8.8:8."""


class StateTests(FlowCase):
    async def test_undecided_flow_is_decided_there_in_order(self) -> None:
        server = Talker.listening(self, answer=lambda d: d)
        [port] = self.run_service(
            "[listen u]\nendpoint = udp:127.0.0.1:0\ndetect_timeout = 10m\n"
            f"[route q]\nmatch = quic sni=www.example.com\nbackend = udp:127.0.0.1:{server.port}\n"
        )
        client = Talker.listening(self)
        half = len(HELLO) // 2
        first = initial(crypto(0, HELLO[:half]))
        second = initial(crypto(half, HELLO[half:]), number=1)
        client.say(first, port)
        while not any(one.held for one in self.old.connections):
            await turn()
        self.assertEqual(await self.hand_over(), 1)
        [flow] = self.new.connections
        self.assertEqual((flow.state, flow.held, flow.queue.seconds), ("peeking", (first,), 600))
        client.say(second, port)
        self.assertEqual(await client.hears(2), [first, second])
        self.assertEqual(server.heard, [first, second])
        self.assertEqual((flow.record.route, flow.datagrams_in), ("q", 2))

    async def test_held_datagrams_go_to_the_next_server_there(self) -> None:
        quiet, server = Talker.listening(self), Talker.listening(self, answer=lambda d: d)
        port = self.begin(quiet.port, server.port, backend="balance = first")
        client = Talker.listening(self)
        client.say(b"one", port)
        await quiet.hears(1)
        await self.hand_over()
        transport: Any = quiet.transport
        await transport.stopListening()
        client.say(b"two", port)
        self.assertEqual(sorted(await client.hears(2)), [b"one", b"two"])
        self.assertEqual(server.heard, [b"one", b"two"])

    async def test_flow_that_waits_for_a_server_waits_on_there(self) -> None:
        client, port, place = await self.waiting_client()

        def earlier(fields: dict[str, Any]) -> None:
            fields["way"]["waited"] += 20

        self.assertEqual(await self.hand_over(edit=earlier), 1)
        self.assertEqual((self.waiting(self.old), self.waiting(self.new)), (0, 1))
        client.say(b"two", port)
        Talker.listening(self, port=place, answer=lambda d: d)
        self.assertEqual(await client.hears(2), [b"one", b"two"])
        self.assertEqual(self.waiting(self.new), 0)
        self.new.abort("killed")
        [line] = await self.ended(1)
        self.assertRegex(line["facts"]["held"], r"2[0-9]\.[0-9]s")  # type: ignore[index]

    async def test_flow_that_waits_and_is_not_taken_waits_on_here(self) -> None:
        client, _, place = await self.waiting_client()
        self.assertEqual(await hand_over_flows([*self.old.connections], There()), 0)
        self.assertEqual(self.waiting(self.old), 1)
        Talker.listening(self, port=place, answer=lambda d: d)
        self.assertEqual(await client.hears(1), [b"one"])

    async def waiting_client(self) -> tuple[Talker, int, int]:
        place = free_port(kind=socket.SOCK_DGRAM)
        port = self.begin(place, backend="hold = 60s")
        client = Talker.listening(self)
        client.say(b"one", port)
        while not self.waiting(self.old):
            await turn()
        return client, port, place

    def waiting(self, listener: ActiveListener) -> int:
        return sum(len(one.pool.waiting) for one in listener.upstreams.all())

    async def test_unmatched_flow_stays_unmatched_and_is_logged_once(self) -> None:
        [port] = self.run_service(LISTEN)
        client = Talker.listening(self)
        client.say(b"one", port)
        while not (self.old.connections and next(iter(self.old.connections)).state == "closing"):
            await turn()
        await self.hand_over()
        client.say(b"two", port)
        [flow] = self.new.connections
        while flow.datagrams_in < 2:
            await turn()
        flow.time_is_over()
        await self.assert_ended(reason="no-route", client=f"127.0.0.1:{client.port}")

    async def test_incoming_proxy_header_still_holds(self) -> None:
        server, proxy, port = self.served(lambda d: d, listen="accept_proxy_from = 127.0.0.1")
        await proxy.asks(V2 + b"one", port)
        await self.hand_over()
        self.assertEqual(await proxy.asks(V2 + b"two", port), b"two")
        proxy.say(V2[:-4] + bytes([0, 9, 0, 8]) + b"three", port)
        self.assertEqual(await proxy.asks(b"four", port), b"four")
        self.assertEqual(server.heard, [b"one", b"two", b"four"])
        [flow] = self.new.connections
        self.assertEqual(str(flow.client), "9.9.9.9:7")

    async def test_proxy_header_in_each_datagram_goes_on(self) -> None:
        server, client, port = self.served(lambda _: b"ok", backend="proxy_protocol = v2")
        await client.asks(b"one", port)
        await self.hand_over()
        await client.asks(b"two", port)
        for heard, data in zip(server.heard, (b"one", b"two"), strict=True):
            found = decode_datagram(heard)
            assert found is not None
            assert found.header.source is not None
            self.assertEqual((found.header.source.port, heard[found.length :]), (client.port, data))


class MovingTests(FlowCase):
    silence = 0.05

    async def test_client_may_move_after_the_handover(self) -> None:
        for first, said, data in ((FIRST, answer(), SHORT), (WG_FIRST, WG_ANSWER, WG_DATA)):
            answers = {first: said}
            server = Talker.listening(self, answer=lambda d, a=answers: a.get(d, d))
            old, new = Talker.listening(self), Talker.listening(self)
            port = self.begin(server.port)
            await old.asks(first, port)
            await self.hand_over()
            await new.insists(data, port)
            self.assertEqual(len(set(server.senders)), 1)
            await self._stop()

    async def test_client_may_move_during_the_handover(self) -> None:
        server, old, new, port = self.quic_service()
        await old.asks(FIRST, port)
        there = self.there()
        new.say(SHORT, port)
        while not (self.port_there.early and self.port_there.early.datagrams):
            await turn()
        await self.finish_handover(there)
        await new.insists(SHORT, port)
        self.assertEqual(len(set(server.senders)), 1)

    async def test_ended_flow_leaves_nothing_there(self) -> None:
        _, old, new, port = self.quic_service()
        await old.asks(FIRST, port)
        await new.insists(SHORT, port)
        await self.hand_over()
        for listener in (self.old, self.new):
            listener.abort("killed")
            found = listener.live.migration
            self.assertEqual((found.paths, found.lengths), ({}, {}))
        self.assertEqual(self.port_there.flows, {})

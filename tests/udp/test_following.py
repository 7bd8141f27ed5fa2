from tests.support.kit import Talker, change_constants, turn
from tests.support.privileges import require_transparent
from tests.udp.flow_case import PROXIED, FlowCase
from tests.udp.test_migration import FIRST, SHORT, WG_ANSWER, WG_DATA, WG_FIRST, answer
from tests.wire.quic_builder import initial
from txmux.telemetry.counting.counter_groups import LISTENER
from txmux.udp import following, migration
from txmux.wire.proxyprotocol.decode import decode_datagram


def source_port(datagram: bytes) -> int:
    found = decode_datagram(datagram)
    assert found is not None
    assert found.header.source is not None
    return found.header.source.port


class MovingTests(FlowCase):
    silence = 0.05

    async def test_quic_client_at_another_port_keeps_its_server_socket(self) -> None:
        server, old, new, port = await self.quic_begun()
        await new.insists(SHORT, port)
        self.assertEqual(len(set(server.senders)), 1)
        await new.asks(SHORT, port)
        line = await self.assert_stopped(client=f"127.0.0.1:{old.port}")
        self.assertEqual(line["facts"], {"moved_to": f"127.0.0.1:{new.port}"})

    async def test_another_address_has_a_socket_to_the_server_until_the_flow_moves(self) -> None:
        server, old, new, port = await self.quic_begun("127.0.0.2")
        await old.asks(SHORT, port)
        await turn(6)
        self.assertEqual(await new.asks(SHORT, port), SHORT)
        first, second = dict.fromkeys(server.senders)
        self.assertEqual(await old.asks(SHORT, port), SHORT)
        new.say(SHORT, port)
        self.assertEqual((await old.hears(4))[3], SHORT)
        self.assertEqual([*server.senders[-2:]], [first, first])
        await turn(6)
        self.assertEqual(await new.asks(SHORT, port), SHORT)
        server.say(b"to the new one", second[1])
        server.say(b"to the old one", first[1])
        self.assertEqual((await new.hears(3))[2], b"to the new one")
        self.assertEqual((await old.hears(5))[4], b"to the old one")
        await new.asks(SHORT, port)
        self.assertEqual((server.senders[-1], len(old.heard)), (second, 5))
        line = await self.assert_stopped(datagrams_in=7, datagrams_out=9)
        self.assertEqual(line["facts"], {"moved_to": f"127.0.0.2:{new.port}"})

    async def test_flow_that_ends_before_it_moves_has_the_new_address_in_the_log(self) -> None:
        change_constants(self, migration, SILENCE=600.0)
        server, old, new, port = await self.quic_begun("127.0.0.2")
        await old.asks(SHORT, port)
        await new.asks(SHORT, port)
        await new.asks(SHORT, port)
        self.assertEqual(len({*server.senders}), 2)
        line = await self.assert_stopped(client=f"127.0.0.1:{old.port}")
        self.assertEqual(line["facts"], {"moved_to": f"127.0.0.2:{new.port}"})

    async def test_without_descriptors_the_flow_stays_where_it_is(self) -> None:
        server, old, new, port = await self.quic_begun("127.0.0.2")
        await old.asks(SHORT, port)
        [listener] = self.running.listeners
        self.patch(listener.runtime.descriptors, "room", lambda: False)
        for _ in range(10):
            await turn()
            new.say(SHORT + b"lost", port)
        Talker.listening(self).say(b"a new client", port)
        self.assertEqual(await old.asks(SHORT, port), SHORT)
        self.assertEqual((len({*server.senders}), new.heard), (1, []))
        self.assertGreater(self.datagrams("lost"), 2)
        refused = LISTENER.names.index("refused descriptors")
        self.assertEqual(listener.configuration.counts.cells[refused], 1)

    async def test_wireguard_client_at_another_address(self) -> None:
        server = Talker.listening(self, answer=lambda data: WG_ANSWER if data == WG_FIRST else data)
        old, new = Talker.listening(self), Talker.listening(self, "127.0.0.2")
        port = self.begin(server.port)
        await old.asks(WG_FIRST, port)
        while len(new.heard) < 10:
            new.say(WG_DATA, port)
            await turn()
        self.assertEqual({*new.heard}, {WG_DATA})
        line = await self.assert_stopped(client=f"127.0.0.1:{old.port}")
        self.assertEqual(line["facts"], {"moved_to": f"127.0.0.2:{new.port}"})

    async def test_server_sees_what_waits_for_it_and_its_last_answers_arrive(self) -> None:
        server, old, new, port = await self.quic_begun("127.0.0.2")
        await old.asks(SHORT, port)
        await turn(6)
        await new.asks(SHORT, port)
        [first, second] = dict.fromkeys(server.senders)
        # Both wait when the flow moves.
        for number in range(20):
            server.say(b"%02d" % number, second[1])
        server.say(b"for the old one", first[1])
        new.say(SHORT, port)
        await new.hears(22)
        self.assertEqual(sorted(new.heard)[:20], [b"%02d" % number for number in range(20)])

    async def test_moves_to_no_denied_address(self) -> None:
        """Also if rules deny it that are newer than the flow."""
        text = "[listen u]\nendpoint = udp:127.0.0.1:0\n%sdefault = udp:127.0.0.1:%d\n"
        for before in ("deny = 127.0.0.2\n", ""):
            server = Talker.listening(self, answer=lambda data: answer() if data == FIRST else data)
            old, new = Talker.listening(self), Talker.listening(self, "127.0.0.2")
            [port] = self.run_service(text % (before, server.port))
            self.assertEqual(await old.asks(FIRST, port), answer())
            self.reload(text % ("deny = 127.0.0.2\n", server.port))
            await new.repeats(SHORT, port, 20)
            self.assertEqual((server.heard, new.heard), ([FIRST], []))
            self.assertEqual(await old.asks(SHORT, port), SHORT)
            await self._stop()

    async def test_moves_to_no_address_that_the_route_does_not_serve(self) -> None:
        server = Talker.listening(self, answer=lambda data: answer() if data == FIRST else data)
        other = Talker.listening(self, answer=lambda data: data[::-1])
        old, new = Talker.listening(self), Talker.listening(self, "127.0.0.2")
        [port] = self.run_service(
            f"[listen u]\nendpoint = udp:127.0.0.1:0\ndefault = udp:127.0.0.1:{other.port}\n"
            f"[route a]\nmatch = quic\nfrom = 127.0.0.1\nbackend = udp:127.0.0.1:{server.port}\n"
        )
        self.assertEqual(await old.asks(FIRST, port), answer())
        self.assertEqual(await new.asks(SHORT, port), SHORT[::-1])
        self.assertEqual(await old.asks(SHORT, port), SHORT)
        self.assertEqual(len(set(server.senders)), 1)

    async def test_header_in_each_datagram_has_the_new_address(self) -> None:
        server = Talker.listening(
            self, answer=lambda data: answer() if data.endswith(FIRST) else data[-len(SHORT) :]
        )
        old, new = Talker.listening(self), Talker.listening(self)
        port = self.begin(server.port, backend="proxy_protocol = v2")
        await old.asks(FIRST, port)
        await new.insists(SHORT, port)
        await new.asks(SHORT, port)
        self.assertEqual(source_port(server.heard[0]), old.port)
        self.assertEqual(source_port(server.heard[-1]), new.port)

    async def test_proxied_flow_does_not_move_and_none_moves_to_a_proxy(self) -> None:
        server, proxy, direct, port = self.quic_service(
            "127.0.0.2", listen="accept_proxy_from = 127.0.0.1"
        )
        await proxy.asks(PROXIED + FIRST, port)
        self.assertEqual(await direct.asks(SHORT, port), SHORT)
        self.assertEqual(len(set(server.senders)), 2)
        other = initial(b"\1", destination=bytes(9))
        server.answer = lambda data: answer(b"x" * 9) if data == other else data
        again, silent = Talker.listening(self, "127.0.0.3"), Talker.listening(self)
        await again.asks(other, port)
        await silent.repeats(b"\x41" + b"x" * 9 + bytes(30), port)
        self.assertEqual(len(server.heard), 3)


class ForgedTests(FlowCase):
    silence = 0.05

    """Someone who has seen a connection ID wants its download sent to a victim."""

    async def test_client_that_speaks_keeps_all_answers_and_no_other_address_gets_more(
        self,
    ) -> None:
        """The server gets what is forged at once, until its client speaks again."""
        server = Talker.listening(self, answer=lambda data: answer() if data == FIRST else data * 2)
        old, victim = Talker.listening(self), Talker.listening(self, "127.0.0.2")
        port = self.begin(server.port)
        await old.asks(FIRST, port)
        [home] = {*server.senders}
        self.assertEqual(await old.asks(SHORT, port), SHORT * 2)
        victim.say(SHORT[:29], port)
        await victim.hears(1)
        [_, other] = dict.fromkeys(server.senders)
        for number in range(20):
            server.say(b"\x41" * 1200, other[1])  # as if it believed what is forged
            data = SHORT + bytes([number])
            self.assertEqual(await old.asks(data, port), data * 2)
            self.assertEqual(server.senders[-1], home)
        self.assertEqual([*map(len, victim.heard)], [58])

    async def test_client_keeps_its_server_though_that_answers_what_is_forged(self) -> None:
        """As a server of QUIC answers another version to anybody, and one of several processes with a reset, if it gets what another one knows."""
        server, old, forged, port = await self.quic_begun("127.0.0.2")
        old.say(SHORT + b"last", port)
        await old.hears(2)
        await forged.repeats(SHORT, port)
        await forged.hears(10)  # then the flow has moved
        [home, other] = dict.fromkeys(server.senders)
        many = [b"\x41" * 1200 for _ in range(40)]  # more than come one by one
        for _ in range(2):
            had = len(old.heard)
            for data in many:
                server.say(data, home[1])
                await turn()
            self.assertEqual((await old.hears(had + 40))[had:], many)
        had = len(old.heard)
        old.say(SHORT + b"on", port)
        self.assertEqual((await old.hears(had + 1))[had:], [SHORT + b"on"])
        self.assertEqual(server.senders[-1], home)
        had, count = len(old.heard), len(forged.heard)
        server.say(b"dropped", other[1])
        for data in many:
            server.say(data, home[1])
        self.assertEqual((await old.hears(had + 40))[had:], many)
        self.assertEqual(len(forged.heard), count)
        await self.assert_stopped(client=f"127.0.0.1:{old.port}")

    async def test_client_that_waits_gets_its_answer_though_another_port_was_forged(self) -> None:
        for first, reply, data in ((FIRST, answer(), SHORT), (WG_FIRST, WG_ANSWER, WG_DATA)):
            answers = {first: reply}
            server = Talker.listening(self, answer=lambda said, to=answers: to.get(said, b""))
            old, forged = Talker.listening(self), Talker.listening(self)
            port = self.begin(server.port)
            await old.asks(first, port)
            [home] = {*server.senders}
            for number in range(12):
                forged.say(data, port)
                await server.hears(2 + number)
                await turn()
            server.say(data, home[1])
            self.assertEqual((await old.hears(2))[1], data)
            await forged.hears(1)
            old.say(data, port)
            await server.hears(14)
            server.say(data, home[1])
            self.assertEqual((await old.hears(3))[2], data)
            self.assertEqual(len(forged.heard), 1)
            await self._stop()

    async def test_port_that_a_client_has_left_gets_answers_for_a_while_only(self) -> None:
        change_constants(self, following, _STILL_TOLD=0.1)
        server, old, new, port = await self.quic_begun()
        while not new.heard:
            new.say(SHORT, port)
            await turn()
        had = len(old.heard)
        while len(new.heard) < had + 40:
            await new.asks(SHORT, port)
            await turn()
        had = len(old.heard)
        for _ in range(5):
            await new.asks(SHORT, port)
        self.assertEqual((len(old.heard), len(set(server.senders))), (had, 1))


class SourceTests(FlowCase):
    silence = 0.05

    async def moved(self, port: int, old: Talker, new: Talker) -> bool:
        await old.asks(FIRST, port)
        await new.repeats(SHORT, port, 20)
        return bool(new.heard)

    async def test_flow_counts_for_the_source_that_it_has(self) -> None:
        """One that returns counts at its first source alone."""
        server, old, new, port = self.quic_service("127.0.0.2", listen="max_flows_per_source = 1")
        [listener] = self.running.listeners
        self.assertTrue(await self.moved(port, old, new))
        await Talker.listening(self).asks(b"one", port)
        self.assertEqual(await old.asks(SHORT, port), SHORT)
        await Talker.listening(self, "127.0.0.2").asks(b"two", port)
        listener.abort("killed")
        assert listener.configuration.admission.per_source is not None
        self.assertEqual(listener.configuration.admission.per_source.tracked(), 0)
        await self.ended(3)
        server.senders.clear()
        new.heard.clear()
        await Talker.listening(self, "127.0.0.2").asks(b"one", port)
        self.assertFalse(await self.moved(port, old, new))
        self.assertEqual(await old.asks(SHORT, port), SHORT)
        self.assertEqual(len(set(server.senders)), 2)
        listener.abort("killed")
        await self.ended(5)
        self.assertTrue(await self.moved(port, old, new))
        again, other = Talker.listening(self, "127.0.0.2"), Talker.listening(self)
        again.say(b"one", port)  # moved flow counts for its new source alone
        await other.asks(b"two", port)
        self.assertEqual((again.heard, server.heard[-1]), ([], b"two"))
        listener.abort("killed")
        await again.asks(b"three", port)
        await Talker.listening(self).asks(b"four", port)

    async def test_move_to_another_source_costs_as_much_as_a_new_flow(self) -> None:
        rate = "connection_rate_per_source = 1/h"
        server, old, far, port = self.quic_service("127.0.0.2", listen=rate)
        self.assertTrue(await self.moved(port, old, Talker.listening(self)))
        while not far.heard:
            far.say(SHORT, port)
            await turn()
        await Talker.listening(self, "127.0.0.2").repeats(b"one", port, 5)
        self.assertNotIn(b"one", server.heard)

    async def test_source_client_shows_the_server_the_new_address(self) -> None:
        require_transparent()
        server = Talker.listening(self, answer=lambda data: answer() if data == FIRST else data)
        port = self.begin(server.port, backend="source = client")
        old, new = self.sharing("127.0.0.66"), self.sharing("127.0.0.67")
        old.sendto(FIRST, ("127.0.0.1", port))
        await server.hears(1)
        self.assertEqual((await self.heard_by(old))[0], answer())
        while server.senders[-1] != new.getsockname():
            new.sendto(SHORT, ("127.0.0.1", port))
            await turn()
        self.assertEqual((await self.heard_by(new))[0], SHORT)
        self.assertEqual({*server.senders}, {old.getsockname(), new.getsockname()})

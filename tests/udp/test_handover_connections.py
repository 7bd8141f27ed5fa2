"""QUIC connections of one address that go on in another process, each for itself."""

from typing import Any

from tests.support.datagrams import Talker, turn
from tests.udp.test_connections import ConnectionsCase, finished, nameless, opening, served, short
from tests.udp.test_migration import answer as answering
from tests.wire.quic_builder import SOURCE, other_version
from txmux.udp import migration
from txmux.udp.handover import hand_over_flows


class ConnectionHandoverTests(ConnectionsCase):
    async def test_connections_stay_apart_by_what_was_learnt_before(self) -> None:
        client, port = await self.connected("a", "b")
        self.assertEqual(await self.hand_over(), 2)
        await client.asks(opening("a"), port)
        await self.assert_answered(client, port, "abba")
        self.assertEqual(len(self.new.connections), 2)
        await client.asks(opening("b", 1), port)
        self.assertEqual(len(self.new.connections), 3)

    async def test_connections_stay_apart_in_the_middle_of_a_handshake(self) -> None:
        client, port = Talker.listening(self), self.serve()
        self.b.answer = lambda data: data if data[0] < 0x80 else b""
        self.assertEqual(await client.asks(opening("a"), port), answering(served("a")))
        client.say(opening("b"), port)
        await self.b.hears(1)
        self.assertEqual(await self.hand_over(), 2)
        self.b.say(answering(served("b")), self.b.senders[0][1])
        await client.hears(2)
        for name in "ab":
            client.say(finished(name), port)
        await self.assert_answered(client, port, "abab")
        self.assertEqual(len(self.new.connections), 2)

    async def test_id_that_a_lone_connection_changed_to_stays_its_own(self) -> None:
        client, port = await self.connected("a")
        changed = b"\x41changed! and more"
        await client.asks(changed, port)
        await self.hand_over()
        await self.connect(client, port, "b")
        self.assertEqual(await client.asks(changed, port), changed)
        self.assertEqual(self.a.heard[-1], changed)

    async def test_early_datagrams_wait_for_their_own_connection(self) -> None:
        client, port = await self.connected("a", "b")
        there = self.there()
        self.b.answer = lambda _: b""
        early = [opening("b"), finished("b"), short("a"), b"\x41unknown! and more", short("b")]
        for data in early:
            client.say(data, port)
        waiting = self.port_there._waiting
        assert waiting is not None
        while sum(map(len, waiting._datagrams.values())) < len(early):
            await turn()
        flows = sorted(self.old.connections, key=lambda one: str(one.record.route))
        for flow in flows:
            await hand_over_flows([flow], there)
        self.assertEqual((await self.a.hears(3))[2:], [short("a")])
        self.assertEqual((await self.b.hears(5))[2:], [opening("b"), finished("b"), short("b")])
        self.port_there.await_no_more()
        while b"\x41unknown! and more" not in (*self.a.heard, *self.b.heard):
            await turn()
        self.assertEqual(len(self.new.connections), 2)

    async def test_returning_flow_takes_no_other_flows_place(self) -> None:
        client, port = await self.connected("a", "b")
        here: Any = self.running.ports[0]
        await hand_over_flows([*self.old.connections], self.to_itself(here))
        self.assertEqual(len(self.old.connections), 2)
        self.assertEqual(len(here.at(*here.flows)), 2)
        await self.assert_answered(client, port, "abba")

    def to_itself(self, port: Any) -> Any:
        """Make another process that is this one."""
        there = self.there()
        self.port_there.stopReading()
        there._taken = self.old, port
        port.startReading()
        return there

    async def test_versions_without_ids_tell_enough(self) -> None:
        client, port = await self.connected("a", "b")
        self.a.answer = lambda data: data if data[0] < 0x80 else b""
        client.say(opening("a", 1), port)
        await self.a.hears(3)

        def edit(reported: dict[str, Any]) -> None:
            del reported["ids"]

        self.assertEqual(await self.hand_over(edit=edit), 3)
        for name in "abba":
            self.assertEqual(await client.asks(short(name), port), short(name))
        client.say(opening("a", 1), port)
        await self.a.hears(6)
        self.assertEqual((len({*self.a.senders}), len(self.new.connections)), (2, 3))

    async def test_connections_without_ids_go_on(self) -> None:
        client, port = Talker.listening(self), self.serve()
        self.a.answer = nameless
        for number in (0, 1):
            await client.asks(opening("a", number), port)
            client.say(answering(SOURCE, destination=b""), port)
        await self.connect(client, port, "b")
        await client.asks(other_version(), port)
        there = self.there()
        client.say(short("b"), port)
        waiting = self.port_there._waiting
        assert waiting is not None
        while not waiting._datagrams:
            await turn()
        order = ["others", "a", "b"]
        for flow in sorted(self.old.connections, key=lambda one: order.index(one.record.route)):
            await hand_over_flows([flow], there)
        self.port_there.await_no_more()
        self.assertEqual((await self.b.hears(3))[-1], short("b"))
        self.assertEqual(len(self.new.connections), 4)

    async def test_one_connection_moves_after_the_handover(self) -> None:
        self.patch(migration, "SILENCE", 0.05)
        client, port = await self.connected("a", "b")
        await self.hand_over()
        new = Talker.listening(self)
        await new.insists(short("a"), port)
        await self.assert_answered(client, port, "b")
        await self.assert_answered(new, port, "a")

    async def test_client_at_another_address_moves_after_the_handover(self) -> None:
        self.patch(migration, "SILENCE", 0.05)
        client, port = await self.connected("a")
        self.assertEqual(await client.asks(short("a"), port), short("a"))
        new = Talker.listening(self, "127.0.0.2")
        await new.insists(short("a"), port)
        await self.hand_over()
        self.assertEqual(await new.asks(short("a", b"1"), port), short("a", b"1"))
        for _ in range(6):
            await turn()
        self.assertEqual(await new.asks(short("a", b"2"), port), short("a", b"2"))
        [flow] = self.new.connections
        self.assertEqual(flow.record.facts["moved_to"], f"127.0.0.2:{new.port}")
        flow.end("killed")
        self.assertEqual(self.new.live.migration.paths, {})

"""Several QUIC connections from one port of a client, through sockets: each is decided about, counted, and ended for itself."""

from collections.abc import Sequence
from typing import Any

from twisted.trial.unittest import TestCase

from tests.support.kit import Talker, change_constants, turn
from tests.udp.flow_case import LISTEN, PROXIED, FlowCase
from tests.udp.test_migration import WG_ANSWER, WG_DATA, WG_FIRST
from tests.udp.test_migration import answer as answering
from tests.wire.hello_builder import client_hello, extension, server_name, versions
from tests.wire.quic_builder import SOURCE, crypto, cut, initial, other_version, zero_rtt
from txmux.udp import flow as flow_module
from txmux.udp.handover import hand_over_flows

_RULES = f"""{LISTEN}%s
[route a]
match = quic sni=a.example.com
backend = udp:127.0.0.1:%d
[route b]
match = quic sni=b.example.com
backend = udp:127.0.0.1:%d
[route others]
match = quic version=other
    wireguard
backend = udp:127.0.0.1:%d
"""


def hello(name: str) -> bytes:
    return client_hello(
        server_name(f"{name}.example.com"), versions(0x0304), extension(0x39, b"\4\4\x80\0\xff")
    )


def opening(name: str, number: int = 0) -> bytes:
    return initial(crypto(0, hello(name)), destination=_destination(name, number))


def _destination(name: str, number: int) -> bytes:
    return f"{name}{number:07}".encode()


HALVES = [
    initial(frame, number=number, destination=_destination("a", 0))
    for number, frame in enumerate(cut(hello("a"), 40))
]


def served(server: str) -> bytes:
    return f"server {server}".encode()


def short(name: str, more: bytes = b"") -> bytes:
    return b"\x41" + served(name) + b"\xff" + more


def finished(name: str) -> bytes:
    return answering(SOURCE, destination=served(name))


def nameless(data: bytes) -> bytes:
    return data if data[0] < 0x80 else answering(b"") if data[0] & 0xF0 == 0xC0 else b""


def host(test: TestCase, name: str) -> Talker:
    handshake = answering(served(name))

    def answer(data: bytes) -> bytes:
        return handshake if data[0] & 0xF0 == 0xC0 else b"" if data[0] & 0x80 else data

    return Talker.listening(test, answer=answer)


class ConnectionsTests(FlowCase):
    silence = 0.05

    def serve(self, listen: str = "") -> int:
        self.a, self.b, self.others = (host(self, name) for name in "abc")
        hosts = (self.a.port, self.b.port, self.others.port)
        [port] = self.run_service(_RULES % (listen, *hosts))
        return port

    def here(self, client: Talker) -> list[str]:
        port: Any = self.running.ports[0]
        keys = [key for key in port.flows if key[0][1] == client.port]
        return sorted(str(flow.record.route) for key in keys for flow in port.at(key))

    async def connected(self, *names: str, listen: str = "") -> tuple[Talker, int]:
        client, port = Talker.listening(self), self.serve(listen)
        await self.connect(client, port, *names)
        return client, port

    async def assert_answered(self, client: Talker, port: int, names: str) -> None:
        """Check that each server answers by its one socket."""
        for name in names:
            self.assertEqual(await client.asks(short(name), port), short(name))
        self.assertEqual([len({*host.senders}) for host in (self.a, self.b)], [1, 1])

    async def connect(self, client: Talker, port: int, *names: str) -> None:
        for name in names:
            self.assertEqual(await client.asks(opening(name), port), answering(served(name)))
            client.say(finished(name), port)

    async def test_connection_goes_to_the_server_of_its_name(self) -> None:
        """Joined datagrams go to their own servers in order."""
        client, port = await self.connected("a", "b")
        await self.assert_answered(client, port, "abbaab")
        self.assertEqual([len(host.heard) for host in (self.a, self.b)], [5, 5])
        names = "aaabbaababbbba"
        sent = [short(name, b"%02d" % number).ljust(60) for number, name in enumerate(names)]
        client.bulk(b"".join(sent), 60, port)
        for its, letter in ((self.a, b"a"), (self.b, b"b")):
            self.assertEqual((await its.hears(12))[5:], [one for one in sent if one[8:9] == letter])
        lines = await self.stopped(2)
        self.assertEqual({line["route"] for line in lines}, {"a", "b"})
        self.assertEqual({line["client"] for line in lines}, {f"127.0.0.1:{client.port}"})
        self.assertEqual([line["datagrams_in"] for line in lines], [12, 12])

    async def test_hello_of_which_a_part_was_lost_decides_once_it_is_sent_again(self) -> None:
        """One in two datagrams survives another connection between."""
        change_constants(self, flow_module, _REMEMBERED=600.0)  # it does not count
        client, port = Talker.listening(self), self.serve("detect_timeout = 50ms\n")
        client.say(HALVES[1], port)
        await self.assert_ended(reason="no-route", route=None, datagrams_in=1)
        client.say(HALVES[0], port)
        client.say(opening("b"), port)
        client.say(HALVES[1], port)
        self.assertEqual(await self.a.hears(2), HALVES)
        self.assertEqual(await self.b.hears(1), [opening("b")])

    async def test_unmatched_connection_is_remembered_and_others_are_not_refused(self) -> None:
        client, port = Talker.listening(self), self.serve()
        for _ in range(3):
            client.say(opening("x"), port)
        await self.connect(client, port, "b")
        client.say(opening("x"), port)
        self.assertEqual(await client.asks(short("b"), port), short("b"))
        lines = await self.stopped(2)
        self.assertEqual({line["route"]: line["datagrams_in"] for line in lines}, {None: 4, "b": 3})

    async def test_early_data_opens_the_connection_before_its_initial(self) -> None:
        """So does an unknown version, which is a connection of its own."""
        client, port = await self.connected("a")
        early = zero_rtt()
        client.say(early, port)
        client.say(initial(crypto(0, hello("b"))), port)
        self.assertEqual(await self.b.hears(2), [early, initial(crypto(0, hello("b")))])
        await client.hears(2)
        self.assertEqual(await client.asks(other_version(), port), answering(served("c")))
        await self.connect(client, port, "b")
        self.assertEqual([len(host.heard) for host in (self.a, self.b, self.others)], [2, 3, 1])

    async def test_joined_datagrams_may_open_several_connections(self) -> None:
        client, port = Talker.listening(self), self.serve()
        client.bulk(opening("a") + opening("b"), 1200, port)
        await client.hears(2)
        client.say(finished("a"), port)
        client.say(finished("b"), port)
        long = short("a").ljust(1200)
        client.bulk(long + opening("b", 1) + long + opening("a", 1) + long, 1200, port)
        self.assertEqual((await self.a.hears(6))[2:], [long, long, opening("a", 1), long])
        self.assertEqual((await self.b.hears(3))[2:], [opening("b", 1)])

    async def test_ended_connection_leaves_the_others(self) -> None:
        client, port = await self.connected("a", "b")
        [listener] = self.running.listeners
        for name in "ab":
            next(one for one in listener.connections if one.record.route == name).end("killed")
            if name == "a":
                self.assertEqual(await client.asks(short("b"), port), short("b"))
        own: Any = self.running.ports[0]
        self.assertEqual(len(own.flows), 0)
        await self.connect(client, port, "a")
        self.assertEqual(await client.asks(short("a"), port), short("a"))

    async def test_every_connection_counts_for_its_source(self) -> None:
        client, port = Talker.listening(self), self.serve("max_flows_per_source = 3")
        for number in range(50):
            client.say(opening("a", number), port)
        await client.hears(3)
        client.say(opening("a"), port)
        await client.hears(4)
        self.assertEqual(len({*self.a.senders}), 3)
        [listener] = self.running.listeners
        self.assertEqual(len(listener.connections), 3)

    async def test_flow_that_makes_room_may_share_its_address(self) -> None:
        client, port = await self.connected("a", listen="max_flows = 3")
        for number in range(20):
            client.say(opening("x", number), port)
        await self.connect(client, port, "b")
        await self.assert_answered(client, port, "ab")

    async def test_proxied_client_is_known_by_its_address_alone(self) -> None:
        proxy, port = Talker.listening(self), self.serve("accept_proxy_from = 127.0.0.1")
        await proxy.asks(PROXIED + opening("a"), port)
        for data in (opening("a"), PROXIED + opening("b"), PROXIED + opening("a", 1), short("a")):
            proxy.say(data, port)
        self.assertEqual((await self.a.hears(4))[1:], [opening("a"), opening("a", 1), short("a")])
        self.assertEqual(len({*self.a.senders}), 1)

    async def moved(self, client: Talker, port: int, names: Sequence[str]) -> None:
        for name in names:
            while not client.heard or client.heard[-1] != short(name):
                client.say(short(name), port)
                await turn()

    async def test_one_connection_moves_and_the_other_stays(self) -> None:
        """Some that move together leave one behind."""
        old, new, port = Talker.listening(self), Talker.listening(self), self.serve()
        await self.connect(old, port, "a", "b")
        self.assertEqual(await old.asks(other_version(), port), answering(served("c")))
        await self.moved(new, port, "a")
        self.assertEqual(await old.asks(short("b"), port), short("b"))
        await self.assert_answered(new, port, "a")
        self.assertEqual((self.here(old), self.here(new)), (["b", "others"], ["a"]))
        await self.moved(new, port, "b")
        self.assertEqual(self.here(old), ["others"])
        self.assertEqual(self.here(new), ["a", "b"])
        await self.assert_answered(new, port, "ab")
        lines = await self.stopped(3)
        moved = [line["route"] for line in lines if "moved_to" in str(line["facts"])]
        self.assertEqual(sorted(map(str, moved)), ["a", "b"])

    async def test_tunnel_moves_to_the_port_of_a_connection(self) -> None:
        old, new, port = Talker.listening(self), Talker.listening(self), self.serve()
        self.others.answer = lambda data: WG_ANSWER if data == WG_FIRST else data
        await self.connect(new, port, "a")
        self.assertEqual(await old.asks(WG_FIRST, port), WG_ANSWER)
        await old.asks(WG_DATA, port)
        while WG_DATA not in new.heard:
            new.say(WG_DATA, port)
            await turn()
        for _ in range(20):
            new.heard.clear()
            self.assertEqual(await new.asks(WG_DATA, port), WG_DATA)
            await turn()
        self.assertEqual(await new.asks(short("a"), port), short("a"))

    # In another process they go on, each for itself.

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
        waiting = self.port_there.early
        assert waiting is not None
        await self.until(lambda: sum(map(len, waiting.datagrams.values())) >= len(early))
        for flow in sorted(self.old.connections, key=lambda one: str(one.record.route)):
            await hand_over_flows([flow], there)
        self.assertEqual((await self.a.hears(3))[2:], [short("a")])
        self.assertEqual((await self.b.hears(5))[2:], [opening("b"), finished("b"), short("b")])
        self.port_there.await_no_more()
        await self.until(lambda: b"\x41unknown! and more" in (*self.a.heard, *self.b.heard))
        self.assertEqual(len(self.new.connections), 2)

    async def test_returning_flow_takes_no_other_flows_place(self) -> None:
        client, port = await self.connected("a", "b")
        here: Any = self.running.ports[0]
        there = self.there()
        self.port_there.stopReading()
        there.taken = self.old, here
        here.startReading()
        await hand_over_flows([*self.old.connections], there)
        self.assertEqual(len(self.old.connections), 2)
        self.assertEqual(len(here.at(*here.flows)), 2)
        await self.assert_answered(client, port, "abba")

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
        waiting = self.port_there.early
        assert waiting is not None
        await self.until(lambda: waiting.datagrams)
        order = ["others", "a", "b"]
        for flow in sorted(self.old.connections, key=lambda one: order.index(one.record.route)):
            await hand_over_flows([flow], there)
        self.port_there.await_no_more()
        self.assertEqual((await self.b.hears(3))[-1], short("b"))
        self.assertEqual(len(self.new.connections), 4)

    async def test_client_at_another_address_moves_after_the_handover(self) -> None:
        client, port = await self.connected("a")
        self.assertEqual(await client.asks(short("a"), port), short("a"))
        new = Talker.listening(self, "127.0.0.2")
        await new.insists(short("a"), port)
        await self.hand_over()
        self.assertEqual(await new.asks(short("a", b"1"), port), short("a", b"1"))
        await turn(6)
        self.assertEqual(await new.asks(short("a", b"2"), port), short("a", b"2"))
        [flow] = self.new.connections
        self.assertEqual(flow.record.facts["moved_to"], f"127.0.0.2:{new.port}")
        flow.end("killed")
        self.assertEqual(self.new.live.migration.paths, {})

import json
import socket
from collections.abc import Sequence
from functools import partial
from itertools import product
from types import SimpleNamespace
from typing import Any, cast

import attrs
from twisted.internet.defer import Deferred, fail

from tests.processes.handover_case import descriptors
from tests.support.kit import Talker, free_port, turn
from tests.support.servers import counted
from tests.udp.flow_case import LISTEN, PROXIED, FlowCase, There
from tests.udp.test_migration import FIRST, SHORT, WG_ANSWER, WG_DATA, WG_FIRST, answer
from tests.wire.quic_builder import HELLO, crypto, initial
from txmux.client.active_listener import ActiveListener
from txmux.control.worker_answers import explain_connection
from txmux.errors import MuxError
from txmux.net.channel.message import Message
from txmux.rules.model import Backend, Server
from txmux.udp.flow import Flow
from txmux.udp.handover import adopt_flows, hand_over_flows
from txmux.wire.proxyprotocol.decode import decode_datagram


def _connected(port: int) -> int:
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.connect(("127.0.0.1", port))
    return one.detach()


class HandoverTests(FlowCase):
    async def prepare(self, **options: str) -> tuple[Talker, Talker, Talker, int]:
        server = Talker.listening(self, answer=lambda d: d if d != b"quiet" else b"")
        client, quiet = Talker.listening(self), Talker.listening(self)
        port = self.begin(server.port, **options)
        await client.asks(b"one", port)
        quiet.say(b"quiet", port)
        await server.hears(2)
        return server, client, quiet, port

    async def test_flow_keeps_its_socket_numbers_id_and_single_log_line(self) -> None:
        """Joined datagrams are split as before."""
        server, client, quiet, port = await self.prepare()
        for number in range(40):
            await client.asks(b"%d" % number, port)
        before = {one.record.id for one in self.old.connections}
        explained = [explain_connection(one) for one in self.old.connections]
        self.assertEqual(await self.hand_over(), 2)
        self.assertEqual((len(self.old.connections), len(self.new.connections)), (0, 2))
        self.assertCountEqual(map(explain_connection, self.new.connections), explained)
        self.assertEqual(await client.asks(b"two", port), b"two")
        self.assertEqual(await quiet.asks(b"three", port), b"three")
        server.say(b"unasked", server.senders[0][1])
        self.assertEqual((await client.hears(43))[42], b"unasked")
        self.assertEqual(server.senders[0], server.senders[42])
        self.assertEqual(server.senders[1], server.senders[43])
        data = b"".join(b"%04d" % number * 300 for number in range(20))
        server.bulk(data, 1200, server.senders[0][1])
        heard = (await client.hears(63))[43:]
        self.assertEqual({len(one) for one in heard}, {1200})
        self.assertEqual(b"".join(heard), data)
        self.new.abort("killed")
        lines = await self.ended(2)
        self.assertEqual({line["id"] for line in lines}, before)
        found = sorted((line["datagrams_in"], line["datagrams_out"]) for line in lines)
        self.assertEqual(found, [(2, 1), (42, 63)])
        self.assertEqual(counted(self.old, self.new), {"asked": 2, "answered": 2})
        [backend] = self.new.upstreams.all()
        self.assertEqual(backend.pool.connections, 0)

    async def test_server_that_the_new_rules_do_not_have(self) -> None:
        """As after a reload: answered flows go on, with the backend's options, and others go elsewhere."""
        options = "idle_timeout = 7m\nanswers = 9\nproxy_protocol = v2\nsource = 127.0.0.2"
        server = Talker.listening(self, answer=lambda d: d[28:] if d[28:] != b"quiet" else b"")
        client, quiet = Talker.listening(self), Talker.listening(self)
        port = self.begin(server.port, backend=options)
        await client.asks(b"one", port)
        quiet.say(b"quiet", port)
        await server.hears(2)
        other = Talker.listening(self, answer=lambda d: b"other " + d)
        server_there = Server(f"udp:127.0.0.1:{other.port}", "udp", "127.0.0.1", other.port)
        settings = attrs.evolve(
            self.old.configuration.settings, default=Backend("b", (server_there,))
        )
        rules = self.parsed(f"{LISTEN}[route later]\nmatch = payload text=later\nbackend = close\n")
        there = self.there(rules.routes, settings)
        self.new.configuration = attrs.evolve(self.new.configuration, version=2)
        self.assertEqual(await self.finish_handover(there), 1)
        [moved] = self.new.connections
        told = explain_connection(moved)
        self.assertEqual((told["by"], told["bytes"], told["routes"]), ("default", None, []))
        self.assertEqual(await client.asks(b"two", port), b"two")
        self.assertEqual(server.senders[0], server.senders[2])
        self.assertEqual(server.senders[0][0], "127.0.0.2")
        self.assertEqual(moved.queue.timeout[0], 420.0)
        assert moved.server_socket is not None
        self.assertEqual(moved.server_socket.upstream.backend.source, ("127.0.0.2",))
        for talker in (quiet, Talker.listening(self)):
            self.assertEqual(await talker.asks(b"three", port), b"other three")
        self.new.abort("killed")
        lines = await self.ended(3)
        self.assertEqual({line["reason"] for line in lines}, {"killed"})

    async def test_flow_that_is_not_taken_goes_on_here(self) -> None:
        """So it does if the other process does not answer."""
        server, client, quiet, port = await self.prepare()
        here = self.old.connections

        def speak() -> None:
            server.say(b"meanwhile", server.senders[0][1])

        count = await hand_over_flows([*here], There(meanwhile=speak))
        self.assertEqual((count, len(here)), (0, 2))
        self.assertEqual((await client.hears(2))[1], b"meanwhile")
        self.assertEqual(await client.asks(b"two", port), b"two")
        self.assertEqual(await quiet.asks(b"three", port), b"three")
        unknown = MuxError("'adopt_flows' is not known here")
        deaf: Any = SimpleNamespace(ask=lambda *_, **__: fail(unknown))
        with self.assertRaises(MuxError):
            await hand_over_flows([*here], deaf)
        self.assertEqual(len(here), 2)
        self.assertEqual(await client.asks(b"four", port), b"four")

    async def test_early_datagrams_reach_their_flows_in_order(self) -> None:
        server, client, quiet, port = await self.prepare()
        other = Talker.listening(self)
        there = self.there()
        for data in (b"a", b"b"):
            client.say(data, port)
        quiet.say(b"c", port)
        other.say(b"d", port)
        await self.until(lambda: sum(map(len, self._kept())) >= 4)
        self.assertEqual(len(server.heard), 2)
        await hand_over_flows([*self.old.connections], there)
        self.assertEqual((await client.hears(3))[1:], [b"a", b"b"])
        self.assertEqual(await quiet.hears(1), [b"c"])
        self.assertEqual(other.heard, [])
        self.port_there.await_no_more()
        self.assertEqual(await other.hears(1), [b"d"])
        self.assertEqual(len(set(server.senders)), 3)

    def _kept(self) -> Sequence[Any]:
        waiting = self.port_there.early
        assert waiting is not None
        return [*waiting.datagrams.values()]

    async def test_flow_that_is_ended_on_its_way_ends_there_with_one_line(self) -> None:
        """Also for a reason that is not known."""
        for reason, logged in (("killed", "killed"), (cast("Any", "later"), "error")):
            _, client, _, port = await self.prepare()
            chosen = next(one for one in self.old.connections if one.bytes_out)
            count = await self.hand_over(meanwhile=partial(chosen.end, reason))
            self.assertEqual((count, len(self.new.connections)), (2, 1))
            await self.assert_ended(id=chosen.record.id, reason=logged)
            self.assertEqual(await client.asks(b"anew", port), b"anew")
            self.new.abort("killed")
            await self.stopped(3)
            self.log.unlink()

    async def test_flow_keeps_the_time_that_it_had_left(self) -> None:
        await self.prepare(backend="idle_timeout = 100s")
        now = self.old.runtime.clock.seconds()
        for one in self.old.connections:
            one.last_received_at, one.entered_at = now - 50, now - 20
        await self.hand_over()
        table = self.new.live.table
        left = {queue.seconds: table.next_at() for queue in table._queues.values() if queue.flows}
        self.assertEqual(sorted(left), [30, 100])
        spare: Any = table.spare()  # one without an answer makes room for others, here, too
        self.assertEqual((table.count_spare(), spare.server_socket.is_answered), (1, False))
        for one in self.new.connections:
            self.assertApproximates(self.new.runtime.clock.seconds() - one.last_received_at, 50, 5)
            self.assertApproximates(self.new.runtime.clock.seconds() - one.entered_at, 20, 5)

    async def test_unknown_fields_are_ignored_and_missing_ones_default(self) -> None:
        server, client, _, port = await self.prepare()
        known = {"record", "peer", "local", "place", "age", "logged", "counts", "has_socket"}

        def edit(reported: dict[str, Any]) -> None:
            for name in {*reported} - known:
                del reported[name]
            reported.update(later={"what": 1})
            reported["record"]["later"] = 1

        self.assertEqual(await self.hand_over(edit=edit), 2)
        self.assertEqual(await client.asks(b"two", port), b"two")
        self.assertEqual(server.senders[0], server.senders[2])

    async def test_rows_that_are_no_flows_are_refused_by_themselves(self) -> None:
        server = Talker.listening(self, answer=lambda d: d)
        clients = [Talker.listening(self) for _ in range(4)]
        port = self.begin(server.port)
        for client in clients:
            await client.asks(b"one", port)
        there = self.there()
        before = descriptors()
        ask = there.ask
        spoilt: list[Any] = []

        def spoil(message: Message, *, flows: list[dict[str, Any]], **values: Any) -> Deferred[Any]:
            spoilt.extend(reported["peer"] for reported in flows[:2])
            return ask(
                message, flows=["what", {**flows[1], "client": "nobody"}, *flows[2:]], **values
            )

        self.patch(there, "ask", spoil)
        self.assertEqual(await hand_over_flows([*self.old.connections], there), 2)
        self.assertEqual((len(self.old.connections), len(self.new.connections)), (2, 2))
        self.assertEqual(descriptors(), before)
        [backend] = self.new.upstreams.all()
        self.assertEqual(backend.pool.connections, 2)
        for client, seen in zip(clients, [*server.senders], strict=True):
            server.say(b"unasked", seen[1])
            self.assertEqual((await client.hears(2))[1], b"unasked")
        moved = [client for client in clients if ("127.0.0.1", client.port) not in spoilt]
        self.assertEqual(len(moved), 2)
        for client in moved:
            self.assertEqual(await client.asks(b"two", port), b"two")

    async def test_any_value_in_a_row_leaves_the_others_alone(self) -> None:
        server, _, _, _ = await self.prepare()
        flows = [one for one in self.old.connections if isinstance(one, Flow)]
        reported = json.dumps([{**one.as_json(), "has_socket": True} for one in flows])
        self.there()
        before = descriptors()
        [backend] = self.new.upstreams.all()
        [row, _] = json.loads(reported)
        names = {*row, *(f"record {key}" for key in row["record"])} - {"has_socket"}
        for name, value in product(sorted(names), (None, "what", -1, [None], {"what": None})):
            rows = json.loads(reported)
            inside, key = (
                (rows[0]["record"], name[7:]) if name[:7] == "record " else (rows[0], name)
            )
            inside[key] = value
            sockets = [_connected(server.port) for _ in rows]
            answer = adopt_flows(sockets, rows, lambda *_: (self.new, self.port_there))
            count = len(answer["taken"])
            self.assertIn(1, answer["taken"], (name, value))
            left = len(self.new.connections), backend.pool.connections, descriptors() - before
            self.assertLessEqual(max(left), count, (name, value))
            self.new.abort("killed")
            left = len(self.new.connections), backend.pool.connections, descriptors() - before
            self.assertEqual((left, self.port_there.flows), ((0, 0, 0), {}), (name, value))

    async def test_wrong_number_of_sockets_takes_no_flow_and_closes_all(self) -> None:
        await self.prepare()
        there = self.there()
        before = descriptors()
        ask = there.ask

        def spoil(message: Message, *, flows: list[dict[str, Any]], **values: Any) -> Deferred[Any]:
            return ask(message, flows=[{**flows[0], "has_socket": False}, *flows[1:]], **values)

        self.patch(there, "ask", spoil)
        self.assertEqual(await hand_over_flows([*self.old.connections], there), 0)
        self.assertEqual((len(self.old.connections), len(self.new.connections)), (2, 0))
        self.assertEqual(descriptors(), before)


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
        await self.until(lambda: any(one.held for one in self.old.connections))
        found = await self.hand_over(edit=lambda its: its.update(in_state=590.0, quiet=590.0))
        self.assertEqual(found, 1)
        [flow] = self.new.connections
        self.assertEqual((flow.state, flow.held, flow.queue.seconds), ("peeking", (first,), 600))
        self.assertLess(self.new.live.table.next_at() - self.new.runtime.clock.seconds(), 11)
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
        await self.until(lambda: self.waiting(self.old))
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
        await self.until(lambda: flow.datagrams_in >= 2)
        flow.time_is_over()
        await self.assert_ended(reason="no-route", client=f"127.0.0.1:{client.port}")

    async def test_incoming_proxy_header_still_holds(self) -> None:
        server, proxy, port = self.served(lambda d: d, listen="accept_proxy_from = 127.0.0.1")
        await proxy.asks(PROXIED + b"one", port)
        await self.hand_over()
        self.assertEqual(await proxy.asks(PROXIED + b"two", port), b"two")
        proxy.say(PROXIED[:-4] + bytes([0, 9, 0, 8]) + b"three", port)
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
        server, _, new, port = await self.quic_begun()
        there = self.there()
        new.say(SHORT, port)
        await self.until(lambda: self.port_there.early and self.port_there.early.datagrams)
        await self.finish_handover(there)
        await new.insists(SHORT, port)
        self.assertEqual(len(set(server.senders)), 1)

    async def test_ended_flow_leaves_nothing_there(self) -> None:
        _, _, new, port = await self.quic_begun()
        await new.insists(SHORT, port)
        await self.hand_over()
        for listener in (self.old, self.new):
            listener.abort("killed")
            found = listener.live.migration
            self.assertEqual((found.paths, found.lengths), ({}, {}))
        self.assertEqual(self.port_there.flows, {})

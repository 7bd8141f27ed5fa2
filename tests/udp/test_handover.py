"""Flows that go on in another process."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred, fail

from tests.processes.handover_case import descriptors
from tests.support.datagrams import Talker, turn
from tests.udp.handover_case import HandoverCase, There
from txmux.errors import MuxError
from txmux.udp.flow import Flow
from txmux.udp.handover import adopt_flows, hand_over_flows

if TYPE_CHECKING:
    from collections.abc import Sequence


def _connected(port: int) -> int:
    """Give the descriptor of a socket to a server."""
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.connect(("127.0.0.1", port))
    return one.detach()


class HandoverTests(HandoverCase):
    """What goes there, and what does not."""

    async def prepare(self, **options: str) -> tuple[Talker, Talker, Talker, int]:
        """Have a flow that is answered, and one that is not."""
        server = Talker.listening(self, answer=lambda d: d if d != b"quiet" else b"")
        client, quiet = Talker.listening(self), Talker.listening(self)
        port = self.begin(server.port, **options)
        await client.asks(b"one", port)
        quiet.say(b"quiet", port)
        await server.hears(2)
        return server, client, quiet, port

    async def test_goes_on(self) -> None:
        """A flow keeps its socket, its numbers and its ID, whether a server has answered or not; it has one line in the log."""
        server, client, quiet, port = await self.prepare()
        before = {one.record.id for one in self.old.connections}
        self.assertEqual(await self.hand_over(), 2)
        self.assertEqual((len(self.old.connections), len(self.new.connections)), (0, 2))
        self.assertEqual(await client.asks(b"two", port), b"two")
        self.assertEqual(await quiet.asks(b"three", port), b"three")
        server.say(b"unasked", server.senders[0][1])
        self.assertEqual((await client.hears(3))[2], b"unasked")
        self.assertEqual(server.senders[0], server.senders[2])
        self.assertEqual(server.senders[1], server.senders[3])
        self.new.abort("killed")
        lines = await self.ended(2)
        self.assertEqual({line["id"] for line in lines}, before)
        found = sorted((line["datagrams_in"], line["datagrams_out"]) for line in lines)
        self.assertEqual(found, [(2, 1), (2, 3)])
        [backend] = self.new.upstreams.all()
        self.assertEqual(backend.pool.connections, 0)

    async def test_nobody_takes_it(self) -> None:
        """What the other process does not take goes on here, and what its server has said meanwhile is passed on."""
        server, client, quiet, port = await self.prepare()
        here = self.old.connections

        def speak() -> None:
            server.say(b"meanwhile", server.senders[0][1])

        count = await hand_over_flows([*here], There(meanwhile=speak))
        self.assertEqual((count, len(here)), (0, 2))
        self.assertEqual((await client.hears(2))[1], b"meanwhile")
        self.assertEqual(await client.asks(b"two", port), b"two")
        self.assertEqual(await quiet.asks(b"three", port), b"three")

    async def test_no_answer(self) -> None:
        """The same if it does not know what flows are, or has ended."""
        _, client, _, port = await self.prepare()

        class Deaf(There):
            def ask(self, *_: Any, **__: Any) -> Deferred[Any]:
                return fail(MuxError("'adopt_flows' is not known here"))

        here = self.old.connections
        with self.assertRaises(MuxError):
            await hand_over_flows([*here], Deaf())
        self.assertEqual(len(here), 2)
        self.assertEqual(await client.asks(b"two", port), b"two")

    async def test_early(self) -> None:
        """What clients say before their flows are there goes to these, in its order; what new ones say begins flows after that."""
        server, client, quiet, port = await self.prepare()
        other = Talker.listening(self)
        there = self.there()
        for data in (b"a", b"b"):
            client.say(data, port)
        quiet.say(b"c", port)
        other.say(b"d", port)
        while sum(map(len, self._kept())) < 4:
            await turn()
        self.assertEqual(len(server.heard), 2)
        await hand_over_flows([*self.old.connections], there)
        self.assertEqual((await client.hears(3))[1:], [b"a", b"b"])
        self.assertEqual(await quiet.hears(1), [b"c"])
        self.assertEqual(other.heard, [])
        self.port_there.await_no_more()
        self.assertEqual(await other.hears(1), [b"d"])
        self.assertEqual(len(set(server.senders)), 3)

    def _kept(self) -> Sequence[Any]:
        waiting = self.port_there._waiting
        assert waiting is not None
        return [*waiting._datagrams.values()]

    async def test_killed_meanwhile(self) -> None:
        """A flow that is ended while it is on its way ends there, with one line."""
        _, client, _, port = await self.prepare()
        chosen = next(one for one in self.old.connections if one.bytes_out)
        count = await self.hand_over(meanwhile=lambda: chosen.end("killed"))
        self.assertEqual((count, len(self.new.connections)), (2, 1))
        [line] = await self.ended(1)
        self.assertEqual((line["id"], line["reason"]), (chosen.record.id, "killed"))
        self.assertEqual(await client.asks(b"anew", port), b"anew")

    async def test_unknown_reason(self) -> None:
        """One that ends for a reason that only the other version knows ends all the same."""
        await self.prepare()
        chosen, later = next(iter(self.old.connections)), cast("Any", "later")
        await self.hand_over(meanwhile=lambda: chosen.end(later))
        [line] = await self.ended(1)
        self.assertEqual((line["id"], line["reason"]), (chosen.record.id, "error"))

    async def test_times(self) -> None:
        """A flow has as much time there as it had left here."""
        await self.prepare(backend="idle_timeout = 100s")
        now = self.old.runtime.clock.seconds()
        for one in self.old.connections:
            one.last_received_at, one.entered_at = now - 50, now - 20
        await self.hand_over()
        table = self.flows_there().live.table
        left = {queue.seconds: table.next_at() for queue in table._queues.values() if queue.flows}
        self.assertEqual(sorted(left), [30, 100])
        for one in self.new.connections:
            self.assertApproximates(self.new.runtime.clock.seconds() - one.last_received_at, 50, 5)
            self.assertApproximates(self.new.runtime.clock.seconds() - one.entered_at, 20, 5)

    async def test_bulk(self) -> None:
        """Datagrams that the system puts together on their way are single ones again after that, too."""
        server, client, _, port = await self.prepare()
        for number in range(40):
            await client.asks(b"%d" % number, port)
        await self.hand_over()
        count = len(client.heard)
        data = b"".join(b"%04d" % number * 300 for number in range(20))
        server.bulk(data, 1200, server.senders[0][1])
        heard = (await client.hears(count + 20))[count:]
        self.assertEqual({len(one) for one in heard}, {1200})
        self.assertEqual(b"".join(heard), data)

    async def test_other_versions(self) -> None:
        """What one version does not tell is done without, and what another one tells besides is overlooked."""
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

    async def test_unreadable(self) -> None:
        """What cannot be read is not taken, and goes on here; the others are."""
        server, client, _, _port = await self.prepare()

        def edit(reported: dict[str, Any]) -> None:
            if reported["answered"]:
                reported["counts"] = 1

        self.assertEqual(await self.hand_over(edit=edit), 1)
        self.assertEqual((len(self.old.connections), len(self.new.connections)), (1, 1))
        server.say(b"unasked", server.senders[0][1])
        self.assertEqual((await client.hears(2))[1], b"unasked")

    async def test_row_that_is_no_flow(self) -> None:
        """Of a batch, a row that is no flow at all, and one whose client is unreadable, are refused by themselves; no descriptor stays open."""
        server = Talker.listening(self, answer=lambda d: d)
        clients = [Talker.listening(self) for _ in range(4)]
        port = self.begin(server.port)
        for client in clients:
            await client.asks(b"one", port)
        there = self.there()
        before = descriptors()
        ask = there.ask
        spoilt: list[Any] = []

        def spoil(kind: str, *, flows: list[dict[str, Any]], **values: Any) -> Deferred[Any]:
            spoilt.extend(reported["peer"] for reported in flows[:2])
            return ask(kind, flows=["what", {**flows[1], "client": "nobody"}, *flows[2:]], **values)

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

    async def test_any_value(self) -> None:
        """Whatever a row has in the place of a value, the other row is taken, and nothing is left of what is refused."""
        server, _, _, _ = await self.prepare()
        flows = [one for one in self.old.connections if isinstance(one, Flow)]
        reported = json.dumps([{**one.as_json(), "has_socket": True} for one in flows])
        self.there()
        before = descriptors()
        [backend] = self.new.upstreams.all()
        [row, _] = json.loads(reported)
        for name, value in [
            (name, value)
            for name in (*row, *(f"record {key}" for key in row["record"]))
            if name != "has_socket"
            for value in (None, "what", -1, [None], {"what": None})
        ]:
            rows = json.loads(reported)
            inside, key = (
                (rows[0]["record"], name[7:]) if name[:7] == "record " else (rows[0], name)
            )
            inside[key] = value
            answer = adopt_flows(
                [_connected(server.port) for _ in rows],
                rows,
                lambda *_: (self.new, self.port_there),
            )
            count = len(answer["taken"])
            self.assertIn(1, answer["taken"], (name, value))
            left = len(self.new.connections), backend.pool.connections, descriptors() - before
            self.assertLessEqual(max(left), count, (name, value))
            self.new.abort("killed")
            left = len(self.new.connections), backend.pool.connections, descriptors() - before
            self.assertEqual((left, self.port_there.flows), ((0, 0, 0), {}), (name, value))

    async def test_another_number_of_sockets(self) -> None:
        """If nobody knows which socket is whose, no flow is taken, and all sockets are closed."""
        await self.prepare()
        there = self.there()
        before = descriptors()
        ask = there.ask

        def spoil(kind: str, *, flows: list[dict[str, Any]], **values: Any) -> Deferred[Any]:
            return ask(kind, flows=[{**flows[0], "has_socket": False}, *flows[1:]], **values)

        self.patch(there, "ask", spoil)
        self.assertEqual(await hand_over_flows([*self.old.connections], there), 0)
        self.assertEqual((len(self.old.connections), len(self.new.connections)), (2, 0))
        self.assertEqual(descriptors(), before)

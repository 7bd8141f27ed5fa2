import itertools
import json
from typing import Any
from unittest.mock import patch

import attrs

from tests.client.test_client_table import rows_of
from tests.support.kit import MuxTestCase, Peer, backend_at
from tests.support.servers import counted, waited
from txmux.net.sockets.poller import is_available
from txmux.rules.embedding import route
from txmux.tcp import connection as tcp_connection
from txmux.tcp.connection import MuxProtocol
from txmux.tcp.moving import MovedConnection, Sockets, Unpacking, accepted_at, packed


class MovingTest(MuxTestCase):
    skip = None if is_available() else "these need Linux"

    async def relayed(self, **settings: Any) -> tuple[Peer, Peer]:
        self.backend_settings = backend_at(self.backend_port(), idle_timeout=100.0)
        port = self.mux([route("ssh", self.backend_settings, name="ssh")], **settings)
        client, server = await self.both(port, b"SSH-2.0-a\r\n")
        self.old = self.factory
        return client, server

    on_the_way = 0.0

    def suspend(self) -> tuple[MuxProtocol, MovedConnection, Sockets]:
        connection = next(iter(self.old.connections))
        connection.attach_stage()
        self.assertIsNone(connection.cannot_move_because)
        return connection, *connection.suspend()

    def move(self, **settings: Any) -> Any:
        connection, moved, sockets = self.suspend()
        message = json.loads(json.dumps(packed([moved])))
        copies: Any = tuple(one.dup() for one in sockets)
        self.time.advance(self.on_the_way)
        self.mux([route("ssh", self.backend_settings, name="ssh")], **settings)
        (row,) = message["rows"]
        self.factory.adopt(Unpacking(message["names"]).read(row), copies)
        connection.detach()
        return self.factory

    async def end(self, client: Peer, server: Peer, **expected: Any) -> None:
        client.close()
        await self.assert_ended(server, **expected)

    async def test_connection_that_is_not_suspended_after_all_goes_on(self) -> None:
        """Its duration excludes the move if the clock was set."""
        client, server = await self.relayed()
        self.time.advance(3)
        with patch.object(tcp_connection, "MovedConnection", side_effect=MemoryError):
            self.assertRaises(MemoryError, self.suspend)
        await client.tell(server, b"more", 15)
        connection, moved, _ = self.suspend()
        now = self.time.seconds()
        times = now, now + 2, now + 86400, now - 2
        ages = [then - accepted_at(moved.age, moved.at, then) for then in times]
        self.assertEqual(ages, [3, 5, 3, 3])
        client.send(b"more")
        connection.resume(moved)
        await server.has(19)
        await self.end(client, server, bytes_in=19, reason="done")
        self.assertEqual((connection.decided, moved.decided), ({"software": "a"}, {}))

    async def test_connection_that_cannot_be_taken_over_keeps_no_place_at_its_server(self) -> None:
        client, server = await self.relayed()
        connection, moved, sockets = self.suspend()
        self.mux([route("ssh", self.backend_settings, name="ssh")])
        copy = attrs.evolve(moved, record=attrs.evolve(moved.record))
        with patch.object(MuxProtocol, "adopt", side_effect=MemoryError):
            self.assertRaises(MemoryError, self.factory.adopt, copy, sockets)
        connection.resume(moved)
        await client.tell(server, b"more", 15)
        await server.is_lost(client.close)
        await self.logged(2)
        pool = self.factory.upstreams.upstream_of(self.backend_settings).pool
        self.assertEqual((pool.connections, self.records[0].reason), (0, "error"))

    async def test_relay_goes_on_with_one_log_line(self) -> None:
        """An answer counts once, though its connection moves again."""
        client, server = await self.relayed()
        self.time.advance(3)
        self.on_the_way = 0.5
        self.move()
        self.assertEqual(counted(self.old), {"asked": 1})
        await client.tell(server, b"more", 15)
        await server.tell(client, b"answer")
        self.assertEqual((counted(self.factory), waited(self.factory)), ({"answered": 1}, (3.5, 1)))
        first, self.old = self.old, self.factory
        self.move()
        await server.tell(client, b" and more", 15)
        self.time.advance(2)
        await server.is_lost(client.close)
        story = await self.logged()
        self.assert_story(story, route="ssh", backend="backend", bytes_in=15, bytes_out=15)
        self.assertEqual((story.reason, story.duration_ms, len(self.records)), ("done", 6000, 1))
        self.assertEqual((first.connections, self.old.connections), (set(), set()))
        self.assertEqual(counted(first, self.old, self.factory), {"asked": 1, "answered": 1})

    async def test_moved_connection_counts_once_whatever_the_limit(self) -> None:
        client, server = await self.relayed(max_connections=1, max_connections_per_source=1)

        def counts() -> list[list[int]]:
            """Return the counts of pools, and those of the service and the listener."""
            both = (self.old, self.factory)
            pools = [its.upstreams.upstream_of(self.backend_settings).pool for its in both]
            return [
                [pool.connections for pool in pools],
                *([one.count for one in its.configuration.admission.tallies] for its in both),
            ]

        self.assertEqual(counts(), [[1, 1], [1, 1], [1, 1]])  # they are the same yet
        self.move(max_connections=1, max_connections_per_source=1)
        self.assertEqual(counts(), [[0, 1], [0, 0], [1, 1]])
        before, after = (its.runtime.clients for its in (self.old, self.factory))
        self.assertEqual(rows_of(before), [])
        await self.end(client, server)
        self.assertEqual(counts(), [[0, 0]] * 3)
        ((_, live, ended, _, bytes_in, *_),) = rows_of(after)
        self.assertEqual((live, ended, bytes_in), (0, 1, 11))

    async def test_idle_time_before_the_move_counts(self) -> None:
        client, server = await self.relayed()
        await self.taken()
        self.time.advance(60)
        self.move()
        self.time.advance(39)
        self.assertEqual(self.records, [])
        self.time.advance(1)
        await client.is_lost()
        await self.assert_ended(server, reason="idle-timeout")

    async def test_relay_goes_on_if_the_backend_is_unknown_here(self) -> None:
        client, server = await self.relayed()
        self.backend_settings = backend_at(1)
        self.move()
        await client.tell(server, b"more", 15)
        await self.end(client, server, backend="backend", bytes_in=15, reason="done")

    async def test_unknown_fields_are_dropped_and_missing_ones_default(self) -> None:
        client, server = await self.relayed()
        connection, moved, _ = self.suspend()
        message = packed([moved])
        (row,) = message["rows"]
        values = dict(zip(message["names"], row, strict=True))
        values |= {"of": "tomorrow", "record.colour": "blue"}
        del values["relay.client.is_unwritable"], values["relay.server.rate"]
        for name, value in itertools.product(
            (one for one in message["names"] if one.startswith("record.")), ([None], {"x": None})
        ):
            changed = values | {name: value}
            self.assertRaises(TypeError, Unpacking([*changed]).read, [*changed.values()])
        self.assertEqual(Unpacking([*values]).read([*values.values()]), moved)
        del values["relay.quiet"]
        self.assertRaises(TypeError, Unpacking([*values]).read, [*values.values()])
        connection.resume(moved)
        await self.end(client, server)

"""What happens while a client has not been recognised."""

from __future__ import annotations

from tests.support.mux import CLOSE, RESET, MuxTestCase, backend_at
from txmux.rules.embedding import route


class DecidingTest(MuxTestCase):
    """Clients whose bytes decide."""

    async def test_bytes_go_on_once(self) -> None:
        """All that was peeked at reaches the backend first, once, and what comes later follows."""
        client = await self.connect(self.ssh_mux())
        for byte in b"SSH-":
            client.send(bytes([byte]))
            await self.turn(3)
        client.send(b"2.0-test\r\n")
        server = await self.backend.heard(14)
        self.assertEqual(bytes(server.received), b"SSH-2.0-test\r\n")
        client.close()
        server.close()
        record = await self.logged()
        self.assert_story(
            record,
            listener="public",
            route="ssh",
            backend="backend",
            reason="done",
            bytes_in=14,
            bytes_out=0,
        )
        self.assertTrue(record.client.startswith("127.0.0.1:"))
        self.assertTrue((record.local or "").startswith("127.0.0.1:"))
        self.assertTrue((record.server or "").startswith("127.0.0.1:"))

    async def test_first_route_decides(self) -> None:
        """A route that matches waits for an earlier one that is still undecided."""
        other = self.backend_port()
        port = self.mux(
            [route("payload text=GET!", "close"), route("payload text=GE", backend_at(other))]
        )
        client = await self.connect(port, b"GET")
        await self.seen(3)
        self.assertEqual(self.backend.peers, [])
        client.send(b"?")
        await self.backend.heard(4)

    async def test_close(self) -> None:
        """A route may lead to a closed door, and the log says which."""
        port = self.mux([route("http", "close", name="no-web")])
        client = await self.connect(port, b"GET / HTTP/1.1\r\n")
        await client.is_lost()
        self.assertFalse(client.was_reset())
        self.assert_story(await self.logged(), route="no-web", backend=None, reason="denied")

    async def test_reset(self) -> None:
        """A route may reset the connection."""
        port = self.mux([route("http", "reset", name="no-web")])
        client = await self.connect(port, b"GET / HTTP/1.1\r\n")
        await client.is_lost()
        self.assertTrue(client.was_reset())
        self.assert_story(await self.logged(), route="no-web", reason="denied")

    async def test_no_line_for_a_route(self) -> None:
        """A route with `log = no` leaves no line."""
        port = self.mux([route("http", "close", log=False), route("ssh", "close")])
        client = await self.connect(port, b"GET / HTTP/1.1\r\n")
        await client.is_lost()
        client = await self.connect(port, b"SSH-")
        self.assert_story(await self.logged(), route="ssh")

    async def test_lines_for_errors(self) -> None:
        """With `log = errors` a client that leaves without a byte has no line, but one that was turned away has."""
        port = self.mux([route("http", "close", log="errors")], log="errors")
        client = await self.connect(port)
        client.close()
        await client.is_lost()
        client = await self.connect(port, b"SSH-")
        self.assert_story(await self.logged(), route=None, reason="no-route")

    async def test_no_line_for_a_listener(self) -> None:
        """A listener with `log = no` has none, whatever its routes say."""
        port = self.mux([route("http", "close")], log=False)
        client = await self.connect(port, b"GET / HTTP/1.1\r\n")
        await client.is_lost()
        self.assertEqual(self.log.records, [])

    async def test_from(self) -> None:
        """A route that does not serve the client's network is as if it were not there."""
        port = self.mux(
            [
                route("ssh", "close", from_=["10.0.0.0/8"]),
                route("any", "reset", not_from=["10.0.0.0/8"]),
            ]
        )
        client = await self.connect(port, b"SSH-")
        await client.is_lost()
        self.assert_story(await self.logged(), route="any")

    async def test_facts(self) -> None:
        """What was learnt is told, whether a route won or not."""
        port = self.mux([route("http host=here", "close")])
        for number, host in enumerate(["here", "there"], 1):
            client = await self.connect(port, b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % host.encode())
            await client.is_lost()
            record = await self.logged(number)
            self.assertEqual(record.facts["host"], host)
        self.assert_story(record, route=None, reason="no-route")


class UndecidedTest(MuxTestCase):
    """Clients that do not become recognisable."""

    async def test_default(self) -> None:
        """When all routes have said no, the default applies at once."""
        client = await self.connect(self.ssh_mux(default=RESET), b"SSX")
        await client.is_lost()
        self.assertTrue(client.was_reset())
        self.assert_story(await self.logged(), route=None, reason="no-route", bytes_in=3)

    async def test_default_backend(self) -> None:
        """The default may be a backend, which gets all bytes."""
        client = await self.connect(self.mux(default=backend_at(self.backend_port())), b"whatever")
        server = await self.backend.heard(8)
        client.close()
        server.close()
        self.assert_story(await self.logged(), route=None, backend="backend", reason="done")

    async def test_deadline(self) -> None:
        """A client that is still undecided at the deadline is the default's."""
        client = await self.connect(self.ssh_mux(detect_timeout=5), b"SS")
        await self.seen(2)
        self.time.advance(4.9)
        await self.turn(3)
        self.assertIsNone(client.lost)
        self.time.advance(0.2)
        await client.is_lost()
        self.assert_story(await self.logged(), reason="no-route", bytes_in=2)

    async def test_deadline_counts_from_accept(self) -> None:
        """One byte now and then does not make the deadline later."""
        client = await self.connect(self.ssh_mux(detect_timeout=5))
        for count, byte in enumerate(b"SSH", 1):
            client.send(bytes([byte]))
            await self.seen(count)
            self.time.advance(1.6)
        self.time.advance(0.3)
        await client.is_lost()
        self.assert_story(await self.logged(), reason="no-route", bytes_in=3)

    async def test_later_route_at_the_deadline(self) -> None:
        """At the deadline an undecided route counts as a no, and a later one may win."""
        port = self.mux([route("ssh", "reset"), route("payload text=SS", "close", name="second")])
        client = await self.connect(port, b"SS")
        await self.seen(2)
        self.time.advance(5)
        await client.is_lost()
        self.assert_story(await self.logged(), route="second", reason="denied")

    async def test_silent_closed(self) -> None:
        """A client that says nothing is closed when its time is over."""
        client = await self.connect(self.ssh_mux())
        while not self.factory.connections:
            await self.turn()
        self.time.advance(5)
        await client.is_lost()
        self.assert_story(await self.logged(), route=None, reason="silent", bytes_in=0)

    async def test_silent_backend(self) -> None:
        """A client that waits for the server to speak hears it."""
        client = await self.connect(self.mux(silent=backend_at(self.backend_port())))
        while not self.factory.connections:
            await self.turn()
        self.time.advance(5)
        server = await self.backend.peer()
        server.send(b"220 welcome\r\n")
        await client.has(13)
        client.close()
        await server.has_all()
        server.close()
        self.assert_story(await self.logged(), backend="backend", reason="done", bytes_out=13)

    async def test_no_deadline_after_the_decision(self) -> None:
        """Once decided, the deadline is gone: the connection lives on."""
        client = await self.connect(self.ssh_mux(), b"SSH-")
        server = await self.backend.heard(4)
        self.time.advance(3000)
        server.send(b"still here")
        await client.has(10)

    async def test_peek_limit(self) -> None:
        """At the limit the undecided count as a no; bytes beyond it are kept for the default."""
        port = self.mux(
            [route("payload offset=8 text=x", CLOSE)],
            peek_limit=8,
            default=backend_at(self.backend_port()),
        )
        client = await self.connect(port, b"1234567")
        await self.seen(7)
        self.assertEqual(self.backend.peers, [])
        client.send(b"8x rest")
        server = await self.backend.heard(14)
        self.assertEqual(bytes(server.received), b"12345678x rest")

    async def test_a_raising_matcher(self) -> None:
        """A matcher that raises is a no, is logged once with its traceback, and costs nobody anything."""

        class Raises:
            longest = 1

            def __call__(self, peeked: object) -> object:
                raise ZeroDivisionError

        broken = route("any", "reset")
        alternative = broken.alternatives[0]
        object.__setattr__(alternative, "predicate", Raises())
        port = self.mux([broken, route("any", "close", name="next")])
        for number in (1, 2):
            client = await self.connect(port, b"x")
            await client.is_lost()
            self.assert_story(await self.logged(number), route="next")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class LeavingTest(MuxTestCase):
    """Clients that leave before they are recognised."""

    async def test_port_scan(self) -> None:
        """A client that closes without a byte opens no backend connection, whatever the rules say."""
        backend = backend_at(self.backend_port())
        client = await self.connect(
            self.mux([route("any", backend)], silent=backend, default=backend)
        )
        client.close()
        self.assert_story(await self.logged(), reason="client-gone", backend=None)
        self.assertEqual(self.backend.peers, [])

    async def test_finished_early(self) -> None:
        """A client that finishes sending while undecided is the default's, and gets its answer."""
        port = self.mux([route("ssh", CLOSE)], default=backend_at(self.backend_port()))
        client = await self.connect(port, b"SS")
        client.finish()
        server = await self.backend.peer()
        await server.has_all()
        self.assertEqual(bytes(server.received), b"SS")
        server.send(b"answer")
        server.close()
        await client.has_all()
        self.assertEqual(bytes(client.received), b"answer")
        client.close()
        self.assert_story(await self.logged(), reason="done", bytes_in=2, bytes_out=6)

    async def test_reset(self) -> None:
        """A client that breaks off while undecided is gone."""
        client = await self.connect(self.ssh_mux(), b"SS")
        await self.seen(2)
        client.reset()
        self.assert_story(await self.logged(), reason="client-gone", bytes_in=2)

    async def test_drained(self) -> None:
        """At the end of a drain an undecided client is reset."""
        client = await self.connect(self.ssh_mux(), b"SS")
        await self.seen(2)
        self.factory.abort("drained")
        await client.is_lost()
        self.assertTrue(client.was_reset())
        self.assert_story(await self.logged(), reason="drained")

    async def test_flood(self) -> None:
        """A client that sends without end and without a match is closed, and little of it is read."""
        port = self.mux([route("payload offset=30000 text=x", CLOSE)], peek_limit=32768)
        client = await self.connect(port, bytes(8 * 1024 * 1024))
        await client.is_lost()
        record = await self.logged()
        self.assert_story(record, reason="no-route")
        self.assertLess(record.bytes_in, 256 * 1024)

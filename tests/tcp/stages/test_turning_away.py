from tests.support.kit import MuxTestCase, backend_at, free_port, reactor
from txmux.rules.embedding import route
from txmux.rules.model import Refusal
from txmux.wire.http2_opening import PREFACE

REJECT = Refusal.REJECT
GET = b"GET / HTTP/1.1\r\n\r\n"
FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\n"
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\n"


class RejectingTest(MuxTestCase):
    async def rejected(self, said: bytes = GET) -> None:
        self.client = await self.connect(self.mux(default=REJECT))
        self.client.send(said)

    async def test_uploading_client_gets_the_answer_and_no_reset(self) -> None:
        await self.rejected(b"POST / HTTP/1.1\r\nContent-Length: 99999\r\n\r\n" + bytes(50_000))
        await self.client.has_all()
        self.client.send(bytes(49_999))
        await self.client.is_lost()
        self.assertTrue(self.client.received.startswith(FORBIDDEN))
        self.assertFalse(self.client.was_reset())

    async def test_endless_upload_is_read_no_further_until_it_is_closed(self) -> None:
        """A reset would keep a client that still sends from reading the answer."""
        await self.rejected()
        await self.accepted()
        self.client.transport.pauseProducing()
        connection = self.only()
        while connection.transport in reactor.getReaders():
            self.client.send(bytes(50_000))
            await self.turn()
        for _ in range(9):
            self.client.send(bytes(50_000))
            await self.turn()
        self.assertIsNone(self.client.lost)
        self.client.transport.resumeProducing()
        await self.client.has_all()
        self.assertTrue(self.client.received.startswith(FORBIDDEN))
        self.time.advance(3)
        # Who has nothing more to send does not hear of a reset here.
        while self.client.lost is None:
            self.client.send(bytes(50_000))
            await self.turn()
        record = await self.logged()
        self.assertLess(record.bytes_in, 1_000_000)

    async def test_end_of_a_client_that_has_its_answer(self) -> None:
        """One that does not close is closed; an abort does not wait for it, and its reset leaves nothing."""
        for end, seconds in self.anew((("close", 3), ("reset", 0), ("abort", 0))):
            await self.rejected()
            await self.client.has_all()
            self.assertEqual(self.records, [])
            self.time.advance(seconds)
            if end == "abort":
                self.factory.abort("drained")
            else:
                getattr(self.client, end)()
            await self.assert_logged(reason="no-route")

    async def test_answer_may_depend_on_bytes_after_the_decision(self) -> None:
        """An incomplete request gets none."""
        port = self.mux([route("any", REJECT)])
        client = await self.connect_read(port, b"GET /")
        self.assertEqual(self.records, [])
        self.time.advance(3)
        await client.is_lost()
        self.assertEqual(client.received, b"")
        await self.assert_logged(reason="denied")
        client = await self.connect(port)
        await self.send_in_pieces(client, GET)
        await client.is_lost()
        self.assertTrue(client.received.startswith(FORBIDDEN))

    async def test_http2_client_gets_its_settings_first(self) -> None:
        await self.rejected(PREFACE)
        await self.client.has(9)
        self.client.send(bytes.fromhex("000000040000000000 000003010500000001 828486"))
        await self.client.is_lost()
        self.assertIn(b"\x08\x03403", self.client.received)
        await self.assert_logged(bytes_out=len(self.client.received))

    async def test_half_closed_client_is_answered(self) -> None:
        late = backend_at(free_port(), fallback=REJECT)
        for rules, said, answer in (
            ([], GET[:-2], FORBIDDEN), ([route("http", late)], GET, UNAVAILABLE),
        ):  # fmt: skip
            client = await self.connect(self.mux(rules, default=REJECT), said)
            await client.is_lost(client.finish)
            self.assertTrue(client.received.startswith(answer))

    async def test_client_that_never_reads_is_aborted(self) -> None:
        await self.rejected(b"GET /")
        await self.seen(5)
        self.only().transport.write(bytes(20_000_000))
        self.client.transport.pauseProducing()
        self.time.advance(3)
        await self.turn(3)
        self.assertEqual(self.records, [])
        self.time.advance(3)
        await self.assert_logged(reason="no-route")

    async def test_route_or_default_rejects_and_is_logged(self) -> None:
        """A client without a known protocol is closed."""
        rejecting = [route("http", REJECT, name="no-web")]
        for routes, said, answer, its_route, reason in self.anew((
            (rejecting, GET, FORBIDDEN, "no-web", "denied"),
            ([], b"SSH-2.0-x\r\n", b"not allowed here", None, "no-route"), ([], b"\xff\xff", b"", None, "no-route"),
        )):  # fmt: skip
            client = await self.connect_until_lost(self.mux(routes, default=REJECT), said)
            self.assertIn(answer, client.received)
            self.assertEqual(client.received.startswith(answer), answer != b"not allowed here")
            self.assertEqual(bool(client.received), bool(answer))
            self.assertFalse(client.was_reset())
            record = await self.assert_logged(route=its_route, backend=None, reason=reason)
            self.assert_story(record, bytes_in=len(said), bytes_out=len(client.received))

    async def test_silent_client_gets_no_answer(self) -> None:
        client = await self.connect(self.mux([route("http", "close")], silent=REJECT))
        await self.accepted_for(5)
        await client.is_lost()
        self.assertEqual(client.received, b"")
        self.assertFalse(client.was_reset())
        await self.assert_logged(reason="silent")

    async def test_fallback_rejects_with_the_cause_in_the_log(self) -> None:
        """Also a client that is paused."""
        one = backend_at(free_port(), fallback=REJECT)
        two = backend_at(free_port(), fallback=one)
        for backend, more in self.anew(((one, b""), (two, b""), (one, bytes(20_000)))):
            port = self.mux([route("http", backend, name="web")], peek_limit=100)
            client = await self.connect_until_lost(port, GET + more)
            self.assertTrue(client.received.startswith(UNAVAILABLE))
            self.assertFalse(client.was_reset())
            size = len(GET + more)
            await self.assert_logged(route="web", reason="connect-refused", bytes_in=size)

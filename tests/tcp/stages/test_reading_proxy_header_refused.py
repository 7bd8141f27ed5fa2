from typing import Any

from tests.support.mux import MuxTestCase, backend_at
from tests.support.peers import close
from tests.tcp.stages.test_reading_proxy_header import LINE, SENDERS
from tests.wire.proxyprotocol.vectors import SIGNATURE
from txmux.rules.embedding import route
from txmux.telemetry.record import ConnectionRecord


class RefusedTest(MuxTestCase):
    async def refused(self, *pieces: bytes, count: int = 1) -> ConnectionRecord:
        client = await self.connect(self.port)
        for piece in pieces:
            client.send(piece)
            await self.turn(2)
        await client.is_lost()
        record = await self.logged(count)
        self.assertEqual(self.backend.peers, [])
        return record

    def setUp(self) -> None:
        super().setUp()
        backend = backend_at(self.backend_port())
        self.port = self.mux(
            accept_proxy_from=SENDERS,
            routes=[route("any", backend)],
            silent=backend,
            default=backend,
        )

    async def test_malformed_header(self) -> None:
        addresses = "c0a80001c0a8000bdc0401bb"
        wrong = [
            b"SSH-2.0-test\r\n", b"PROXY TCP4 192.168.0.1 192.168.0.11 65536 443\r\n",
            *(
                SIGNATURE + bytes.fromhex(rest)
                for rest in (
                    f"1111000c{addresses}",  # version
                    f"21110013{addresses}0300041c1ae9c7",  # a wrong checksum
                    f"21110011{addresses}2000020100",  # an SSL field that is too short
                    f"21110017{addresses}2000080100000000210001",  # a field that overruns in it
                )
            ),
        ]  # fmt: skip
        for count, header in enumerate(wrong, 1):
            record = await self.refused(header, b"SSH-2.0-", count=count)
            self.assert_story(record, reason="proxy-header", bytes_in=0, route=None, backend=None)
            self.assertIn("proxy_error", record.facts, header)

    async def test_refused_at_the_first_wrong_byte(self) -> None:
        for count, wrong in enumerate([b"S", b"PROXY TCP5", b"\r\n\r\r", SIGNATURE + b"\x11"], 1):
            self.assert_story(await self.refused(wrong, count=count), reason="proxy-header")

    async def test_header_must_be_complete_within_proxy_timeout_of_accept(self) -> None:
        for count, sent in enumerate([b"", LINE[:-1]], 1):
            client = await self.connect(self.port, sent)
            await self.accepted()
            await self.turn(5)
            self.time.advance(2.9)
            await self.turn(3)
            self.assertIsNone(client.lost)
            self.time.advance(0.2)
            record = await self.assert_ended(
                client, count, reason="proxy-header", duration_ms=3100.0
            )
            self.assertIn("3 s", record.facts["proxy_error"])
        self.assertEqual(self.backend.peers, [])

    async def test_stream_that_ends_inside_the_header(self) -> None:
        client = await self.connect(self.port, LINE[:-1])
        client.finish()
        await self.assert_ended(client, reason="proxy-header")

    async def test_reset_inside_the_header(self) -> None:
        client = await self.connect(self.port, LINE[:-1])
        await self.accepted()
        await self.turn(5)
        client.reset()
        await self.assert_logged(reason="proxy-header")

    async def test_connection_without_a_byte_is_no_error(self) -> None:
        client = await self.connect(self.port)
        client.finish()
        await self.assert_ended(client, reason="client-gone")
        client = await self.connect(self.port)
        client.reset()
        await self.assert_logged(2, reason="client-gone")
        self.assertEqual(self.backend.peers, [])

    async def test_drain_does_not_wait_for_the_header(self) -> None:
        client = await self.connect(self.port)
        await self.accepted()
        self.factory.abort("drained")
        await self.is_reset(client)
        await self.assert_logged(reason="drained")


class DetectionTimeTest(MuxTestCase):
    async def introduce_after(self, seconds: float, port: int, data: bytes = b"") -> Any:
        client = await self.connect(port)
        await self.accepted()
        self.time.advance(seconds)
        client.send(LINE + data)
        await self.turn(5)
        return client

    async def test_detect_timeout_includes_the_time_of_the_header(self) -> None:
        port = self.ssh_mux(
            accept_proxy_from=SENDERS, detect_timeout=5.0, silent=backend_at(self.backend_port())
        )
        client = await self.introduce_after(2, port)
        self.time.advance(2.9)
        await self.turn(3)
        self.assertEqual(self.backend.peers, [])
        self.time.advance(0.1)
        server = await self.backend.peer()
        await server.tell(client, b"220 welcome\r\n")
        close(client, server)
        await self.assert_logged(reason="done", detect_ms=5000.0)

    async def test_silent_if_the_header_takes_all_the_time(self) -> None:
        port = self.ssh_mux(
            accept_proxy_from=SENDERS, detect_timeout=1, silent=backend_at(self.backend_port())
        )
        await self.introduce_after(2, port)
        await self.backend.peer()

    async def test_bytes_with_a_late_header_decide(self) -> None:
        routes = [route("payload text=ab", "close", name="ab"), route("any", "close", name="any")]
        port = self.mux(accept_proxy_from=SENDERS, routes=routes, detect_timeout=1)
        for count, (data, name) in enumerate([(b"ab", "ab"), (b"a", "any")], 1):
            client = await self.introduce_after(2, port, data)
            await self.assert_ended(client, count, route=name)

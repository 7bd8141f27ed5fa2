from typing import Any

from twisted.logger import capturedLogs, eventAsText

from tests.features.starttls.test_dialogue import CLIENTS
from tests.support.kit import MuxTestCase, Peer, backend_at, close, free_port
from tests.support.starttls import EHLO, GO, GREETING, HELLO, OFFERS, STARTTLS
from txmux.net.sockets import client as client_sockets
from txmux.net.sockets.plainsocket import EAGER, set_options
from txmux.rules.embedding import route

NOT_TLS = "it sent something else than TLS behind STARTTLS, or did not wait for the answer"

MORE = {"starttls": "smtp", "starttls_banner": "here ESMTP"}


class StartTLSTests(MuxTestCase):
    def port(self, backend: Any = None, banner: str = "here ESMTP", **settings: Any) -> int:
        made = backend or backend_at(self.backend_port())
        more = {"starttls": settings.pop("protocol", "smtp")}
        more |= {"starttls_banner": banner} if banner else {}
        return self.mux([route("tls sni=b.example", made)], more=more, **settings)

    async def greeted(self, port: int, said: bytes = STARTTLS, first: bytes = b"") -> Peer:
        client = await self.connect(port, said)
        expected = (first or b"220 here ESMTP\r\n") + GO
        await client.has(len(expected))
        self.assertEqual(client.received, expected)
        client.received.clear()
        client.send(HELLO)
        return client

    async def asked(self, peer: Peer, *dialogue: tuple[bytes, bytes]) -> None:
        for request, answer in dialogue:
            await peer.has(len(request))
            self.assertEqual(peer.received, request)
            peer.received.clear()
            peer.send(answer)

    async def test_tls_goes_to_the_server_of_the_name(self) -> None:
        no = route("tls sni=other.example", backend_at(free_port()))
        yes = route("tls sni=b.example", backend_at(self.backend_port()), name="b")
        client = await self.greeted(self.mux([no, yes], more=MORE))
        server = await self.backend.peer()
        await self.asked(server, (b"", GREETING), (EHLO, OFFERS), (STARTTLS, b"220 go\r\n"))
        await server.has(len(HELLO))
        self.assertEqual(server.received, HELLO)
        server.send(b"hello")
        await client.has(5)
        self.assertEqual(client.received, b"hello")
        record = await self.assert_closed(
            client, server, route="b", reason="done", bytes_in=len(STARTTLS + HELLO)
        )
        self.assertEqual(record.bytes_out, 16 + len(GO) + 5)
        self.assertEqual((record.facts["starttls"], record.facts["sni"]), ("smtp", "b.example"))

    async def test_server_that_greets_is_connected_at_once(self) -> None:
        """Nothing is sent to it with the last packet of TCP's handshake, which must not wait for that."""
        eager = []

        def noted(unconnected: Any, options: Any) -> None:
            eager.append({*EAGER} <= {*options})
            set_options(unconnected, options)

        self.patch(client_sockets, "set_options", noted)
        close(await self.greeted(self.port()), await self.backend.peer())
        self.assertEqual(eager, [False])

    async def assert_refused(self, client: Peer, why: str, count: int = 1) -> None:
        record = await self.assert_ended(client, count, reason="tls-failed", backend=None)
        self.assertEqual(record.facts["tls_error"], why)

    async def test_time(self) -> None:
        """Until TLS has begun; that has its own."""
        port = self.port()
        await self.assert_ended(await self.connect(port, b"QUIT\r\n"), reason="client-gone")
        half_closes = await self.connect(port)
        await half_closes.has(16)
        half_closes.finish()
        await self.assert_ended(half_closes, 2, reason="client-gone")
        client = await self.connect(self.port(), STARTTLS)
        await client.has(16 + len(GO))
        self.time.advance(5.1)
        await self.assert_refused(client, "no TLS began within detect_timeout", 3)
        client = await self.connect(self.listening.getHost().port, STARTTLS)
        await client.has(16 + len(GO))
        self.time.advance(4)
        client.send(HELLO[:1])
        await self.seen(len(STARTTLS) + 1)
        self.time.advance(4)
        client.send(HELLO[1:])
        close(client, await self.backend.peer())
        await self.logged(4)

    async def test_each_protocol(self) -> None:
        for number, (name, dialogue) in enumerate(CLIENTS.items(), start=1):
            client = await self.connect(self.port(protocol=name, banner="mail.example ESMTP"))
            for request, answer in dialogue:
                client.send(request)
                await client.until(lambda end=answer, its=client: its.received.endswith(end))  # type: ignore[misc]
            client.send(b"x")
            await self.assert_refused(client, NOT_TLS, number)

    async def test_of_the_first_server(self) -> None:
        """It is learnt once, and then from each connection."""
        port = self.port(banner="")
        client = await self.connect(port, STARTTLS)
        await self.asked(await self.backend.peer(), (b"", GREETING))
        await client.has(len(GREETING + GO))
        self.assertEqual(client.received, GREETING + GO)
        client.send(HELLO)
        server = await self.backend.peer(1)
        server.send(b"220-c.example\r\n220 x\r\n")
        await server.has(len(EHLO))
        await self.greeted(port, first=b"220 c.example\r\n")

    async def test_server_is_away(self) -> None:
        """It is not tried for each client."""
        port = self.port(backend_at(free_port()), banner="")
        with capturedLogs() as logged:
            for _ in range(3):
                client = await self.connect(port)
                await client.has(21)
                self.assertEqual(client.received, b"220 localhost ESMTP\r\n")
        tried = [line for line in map(eventAsText, logged) if "cannot connect" in line]
        self.assertEqual(len(tried), 1)

    async def test_silent_server(self) -> None:
        client = await self.connect(self.port(banner="", detect_timeout=1.5), STARTTLS)
        server = await self.backend.peer()
        await self.seen(len(STARTTLS))
        self.assertEqual(client.received, b"")
        self.time.advance(0.8)  # half of the client's time is left to it
        await client.has(21 + len(GO))
        await server.is_lost()

    async def test_client_leaves_before(self) -> None:
        client = await self.connect(self.port(banner=""))
        server = await self.backend.peer()
        client.reset()
        await server.is_lost()
        await self.assert_logged(reason="client-gone")

    async def test_useless_answers(self) -> None:
        for why, *dialogue in (
            ("it answered '502 5.5.1 no' when it was sent 'STARTTLS'",
             (b"", GREETING), (EHLO, b"250 b.example\r\n"), (STARTTLS, b"502 5.5.1 no\r\n")),
            ("it answered 'SSH-2.0-OpenSSH_9' instead of a greeting", (b"", b"SSH-2.0-OpenSSH_9\r\n")),
            ("it sent more than its answer, 14 bytes, when it was sent 'STARTTLS'",
             (b"", GREETING), (EHLO, OFFERS), (STARTTLS, b"220 go\r\n250 x\r\n"[:14])),
            ("it sent more than its answer", (b"", GREETING), (EHLO, b"250-x\r\n" * 3000)),
            ("it closed the connection instead of a greeting",), ("no answer within 5 s",),
        ):  # fmt: skip
            with self.subTest(why), capturedLogs() as logged:
                client = await self.greeted(self.port())
                server = await self.backend.peer()
                is_late = why.startswith("no answer")
                if not dialogue:
                    self.time.advance(5.1) if is_late else server.close()
                await self.asked(server, *dialogue)
                reason = "connect-timeout" if is_late else "tls-failed"
                await self.assert_ended(client, reason=reason)
                await server.is_lost()
                self.assertEqual(client.received, b"")
                self.assertIn(why, " ".join(map(str, map(eventAsText, logged))))
                self.backend.peers.clear()
                self.records.clear()

"""What a connection costs, in calls of functions, from accept to its line in the access log."""

from pathlib import Path

from tests.support.calls import Calls, within
from tests.support.kit import Peer, SecurePeer, close
from tests.support.mux import SSH, MuxTestCase, backend_at
from tests.wire import hello_builder
from tests.wire.hello_builder import alpn, client_hello, records, server_hello, server_name
from txmux.rules.embedding import route

_NAME = "a.example"
_SAID = (Path(__file__).parents[2] / "docs/explanation/performance.md").read_text()
_HELLO = client_hello(
    server_name(_NAME), alpn(b"h2", b"http/1.1"), hello_builder.versions(0x0304, 0x0303)
)


def _as_said(bound: Calls) -> Calls:
    """Return a bound that the docs have, too."""
    assert f" {bound.python} calls of Python functions" in _SAID
    return bound


class CallsTest(MuxTestCase):
    async def test_bounds(self) -> None:
        """One is for a client that resets once it has its answer, as in a storm: no stage is made for that."""
        for match, asked, answer, is_reset, bound in (
            ("ssh", SSH, b"SSH-2.0-y\r\n", False, _as_said(Calls(90, 74, 23))),
            ("ssh", SSH, b"hello", True, Calls(109, 89, 25)),
            (f"tls sni={_NAME}", records(_HELLO), records(server_hello(bytes(32))), False,
             Calls(103, 83, 23)),
            (f"http host={_NAME}", b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
             b"HTTP/1.1 204 OK\r\n\r\n", False, Calls(96, 82, 23)),
        ):  # fmt: skip
            name = match.split()[0]
            port = self.mux([route(match, backend_at(self.backend_port()), name=name)])

            async def one() -> None:
                logged, peers = len(self.records), len(self.backend.peers)
                client = await self.connect(port, asked)  # noqa: B023
                server = await self.backend.heard(len(asked), peers)  # noqa: B023
                await server.tell(client, answer)  # noqa: B023
                client.reset() if is_reset else close(client, server)  # noqa: B023
                await self.until_logged(logged + 1)

            counted = await within(bound, one)
            self.assertTrue(all(map(int.__le__, counted, bound)), (match, counted, bound))
            reason = "client-reset" if is_reset else "done"
            self.assert_story(self.records[-1], route=name, reason=reason)

    async def answered(self, port: int) -> tuple[SecurePeer, Peer]:
        peers = len(self.backend.peers)
        client = await self.tls.client(port)
        client.send(SSH)
        server = await self.backend.heard(len(SSH), peers)
        await server.tell(client, b"hello")
        return client, server

    async def test_bounds_with_tls(self) -> None:
        """With TLS that ends here; a client may go without reading the close-notify: nothing is missing, and no stage is made for that."""
        port = self.mux([self.tls.route(), self.tls.inner()])
        for is_reset, bound in ((False, _as_said(Calls(178, 198))), (True, Calls(188, 210))):

            async def one() -> None:
                logged = len(self.records)
                client, server = await self.answered(port)
                if is_reset:  # noqa: B023
                    client.transport.pauseProducing()
                    server.close()
                    while not any(
                        connection.half_closed for connection in self.factory.connections
                    ):
                        await self.turn()
                    client.reset()
                else:
                    await client.has_close_notify(server.close)
                    client.close()
                await self.until_logged(logged + 1)

            counted = await within(bound, one)
            self.assertTrue(all(map(int.__le__, counted, bound)), (counted, bound))
            self.assert_story(self.records[-1], route="ssh", reason="done")
            self.assertEqual(self.records[-1].facts.get("reset"), "late" if is_reset else None)

    async def test_reset_with_an_answer_within_tls_on_its_way(self) -> None:
        """Many clients leave without reading the close-notify, before their system has acknowledged the answer: no stage is made for that."""
        client, server = await self.answered(self.mux([self.tls.route(), self.tls.inner()]))
        [connection] = self.factory.connections
        client.transport.pauseProducing()
        server.send(bytes(2**17))
        server.close()
        while not connection.half_closed:
            await self.turn()
        client.reset()
        await self.until_logged(1)
        self.assertIsNone(connection.transport)
        self.assertEqual(self.records[-1].reason, "client-reset")

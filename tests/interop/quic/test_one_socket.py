"""Several connections of aioquic on one UDP socket, each to the server that it names."""

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar

from aioquic.tls import SessionTicket

from tests.interop.children import InteropTestCase
from tests.interop.quic.case import QuicServers, assert_served, logged, on_asyncio, run_mux
from tests.interop.quic.h3_client import H3Client, configuration, one_socket

V1, V2, NOT_KNOWN = 1, 0x6B3343CF, 0x1A2A3A4A
NAMES = ("site", "shop", "blog")


class OneSocketTests(InteropTestCase):
    servers: ClassVar = QuicServers(
        **dict.fromkeys(NAMES, ()), careful=("--retry",), nameless=("--nameless",)
    )

    def setUp(self) -> None:
        others = f"[route others]\nmatch = quic version=other\nbackend = udp:127.0.0.1:{self.servers['site'].port}\n"
        self.rules = self.servers.rules() + others
        self.mux = run_mux(self, self.rules)

    def assert_routes(self, *names: str) -> None:
        lines = logged(self.mux)
        self.assertEqual(sorted(line["route"] for line in lines), sorted(names))
        self.assertEqual(len({line["client"] for line in lines}), 1)

    @on_asyncio
    async def test_one_after_another(self) -> None:
        """Each goes on beside later ones: with a server that sends a Retry, one without IDs, and clients that have chosen none, as browsers do."""
        no_id: dict[str, Any] = {"connection_id_length": 0}
        for names, more in (
            (NAMES, {}),
            (("site", "careful", "shop"), {}),
            (("site", "nameless", "shop"), {}),
            (NAMES, no_id),
        ):
            async with one_socket(self.mux.port) as here:
                made: list[H3Client] = []
                for name in names:
                    settings = configuration(f"{name}.example.com", **more)
                    made.append(await here.connect(settings))
                    # A NAT gives the port of a client that has no ID to the next one.
                    for one, its_name in [*zip(made, names, strict=False)][-1 if more else 0 :]:
                        await assert_served(self, one, its_name)
            self.assert_routes(*names)
            self.mux = run_mux(self, self.rules)

    async def at_once(self, port: int, names: Sequence[str]) -> None:
        async with one_socket(port) as here:
            settings = [
                configuration(f"{name}.example.com", versions=(version,), protocols=protocols)
                for name, version, protocols in zip(names, (V1, V2, V1), (0, 36, 36), strict=True)
            ]
            made = await asyncio.gather(*(here.connect(one) for one in settings))
            for _ in range(3):
                served = zip(made, names, strict=True)
                await asyncio.gather(*(assert_served(self, one, name) for one, name in served))

    def test_at_once_in_both_versions_and_sizes(self) -> None:
        """Also to the same server, where each has its flow."""
        for names in (NAMES, ("site", "site", "site")):
            asyncio.run(self.at_once(self.mux.port, names))
            self.assert_routes(*names)
            self.mux = run_mux(self, self.rules)

    @on_asyncio
    async def test_changed_connection_ids(self) -> None:
        async with one_socket(self.mux.port) as here:
            settings = [configuration(f"{name}.example.com") for name in NAMES]
            made = await asyncio.gather(*(here.connect(one) for one in settings))
            for _ in range(3):
                for one, name in zip(made, NAMES, strict=True):
                    one.change_connection_id()
                    await assert_served(self, one, name)
                for one, name in zip(made, NAMES, strict=True):
                    await assert_served(self, one, name)
        self.assert_routes(*NAMES)

    @on_asyncio
    async def test_negotiation(self) -> None:
        """A version that nobody knows leads to a server that offers others; aioquic keeps its ID, and its name decides."""
        async with one_socket(self.mux.port) as here:
            shop = await here.connect(configuration("shop.example.com"))
            settings = configuration("site.example.com", versions=(NOT_KNOWN, V1))
            other = await here.connect(settings)
            await assert_served(self, other, "site")
            self.assertEqual(other.version, V1)
            await assert_served(self, shop, "shop")
        self.assert_routes("shop", "others", "site")

    @on_asyncio
    async def test_early_data(self) -> None:
        tickets: list[SessionTicket] = []
        async with one_socket(self.mux.port) as here:
            one = await here.connect(configuration("blog.example.com"), tickets=tickets)
            await assert_served(self, one, "blog")
            shop = await here.connect(configuration("shop.example.com"))
            again = configuration("blog.example.com", session_ticket=tickets[-1])
            early = await here.connect(again, waits=False)
            await assert_served(self, early, "blog")
            assert early.established is not None
            self.assertTrue(early.established.early_data_accepted)
            await assert_served(self, shop, "shop")
        self.assert_routes("blog", "blog", "shop")

"""QUIC and HTTP/3 with aioquic at both ends, through a service, and several connections on one UDP socket."""

import asyncio
import random
import sys
from typing import Any, ClassVar

from aioquic.tls import SessionTicket

from tests.interop.children import InteropTestCase, output_of
from tests.interop.quic.case import QuicServers, assert_served, logged, on_asyncio, run_mux
from tests.interop.quic.h3_client import H3Client, client, configuration, one_socket

V1, V2, NOT_KNOWN = 1, 0x6B3343CF, 0x1A2A3A4A
NAMES = ("site", "shop", "blog")

MIB = 1024 * 1024


class AioquicTests(InteropTestCase):
    """What a client gets is from the server that it names, and whole, also where several are on one socket."""

    more: ClassVar = {"careful": ("--retry",), "nameless": ("--nameless",)}
    more["newer"] = ("--versions=6b3343cf,1",)
    servers: ClassVar = QuicServers(**dict.fromkeys(NAMES, ()), **more)

    def start(self, **more: str) -> int:
        others = f"[route others]\nmatch = quic version=other\nbackend = udp:127.0.0.1:{self.servers['site'].port}\n"
        self.mux = run_mux(self, self.servers.rules(**more) + others)
        return self.mux.port

    def assert_routes(self, *names: str) -> None:
        lines = logged(self.mux)
        self.assertEqual(sorted(line["route"] for line in lines), sorted(names))
        self.assertEqual(len({line["client"] for line in lines}), 1)

    @on_asyncio
    async def test_one_after_another(self) -> None:
        """Each goes on beside later ones: with a server that sends a Retry, one without IDs, and clients that have chosen none, as browsers do."""
        no_id: dict[str, Any] = {"connection_id_length": 0}
        others = (("site", name, "shop") for name in ("careful", "nameless"))
        rows = [*((names, dict[str, Any]()) for names in (NAMES, *others)), (NAMES, no_id)]
        for names, more in rows:
            async with one_socket(self.start()) as here:
                made: list[H3Client] = []
                for name in names:
                    made.append(await here.connect(configuration(f"{name}.example.com", **more)))
                    # A NAT gives the port of a client that has no ID to the next one.
                    for one, its_name in [*zip(made, names, strict=False)][-1 if more else 0 :]:
                        await assert_served(self, one, its_name)
            self.assert_routes(*names)

    @on_asyncio
    async def test_at_once_in_both_versions_and_sizes(self) -> None:
        """Also to the same server, where each has its flow; then with connection IDs that change."""
        for names in (NAMES, ("site", "site", "site")):
            async with one_socket(self.start()) as here:
                hellos = zip(names, (V1, V2, V1), (0, 36, 36), strict=True)
                settings = [
                    configuration(f"{name}.example.com", versions=(version,), protocols=count)
                    for name, version, count in hellos
                ]
                made = await asyncio.gather(*(here.connect(one) for one in settings))
                for _ in range(3):
                    served = zip(made, names, strict=True)
                    await asyncio.gather(*(assert_served(self, one, name) for one, name in served))
            self.assert_routes(*names)
        async with one_socket(self.start()) as here:
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
    async def test_negotiation_and_early_data(self) -> None:
        """A version that nobody knows leads to a server that offers others; aioquic keeps its ID, and its name decides."""
        async with one_socket(self.start()) as here:
            shop = await here.connect(configuration("shop.example.com"))
            other = await here.connect(configuration("site.example.com", versions=(NOT_KNOWN, V1)))
            await assert_served(self, other, "site")
            self.assertEqual(other.version, V1)
            await assert_served(self, shop, "shop")
        self.assert_routes("shop", "others", "site")
        tickets: list[SessionTicket] = []
        async with one_socket(self.start()) as here:
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

    @on_asyncio
    async def test_both_versions(self) -> None:
        """A server may go on with another version than that of the hello."""
        port = self.start(newer="version=1")
        for version in (V1, V2):
            settings = configuration("site.example.com", versions=(version,))
            async with client(port, settings) as one:
                await assert_served(self, one, "site", 2 * MIB)
                self.assertEqual(one.version, version)
        settings = configuration("newer.example.com", versions=(V2, V1), begins=V1)
        async with client(port, settings) as one:
            await assert_served(self, one, "newer", 100_000)
            self.assertEqual(one.version, V2)
        *lines, newer = logged(self.mux)
        self.assertEqual([line["facts"]["quic"] for line in lines], ["1", "2"])
        for line in lines:
            self.assertEqual(line["route"], "site")
            self.assertEqual(line["facts"]["sni"], "site.example.com")
            self.assertEqual(line["facts"]["alpn"], "h3")
            self.assertGreater(line["bytes_out"], 2 * MIB)
        facts = (newer["facts"]["quic"], newer["facts"]["sni"])
        self.assertEqual((newer["route"], *facts), ("newer", "1", "newer.example.com"))

    def test_port_test(self) -> None:
        """`txmux test --udp` gets the same certificate, in whatever order the datagrams of a hello come."""
        address = f"127.0.0.1:{self.start(shop='alpn=h3')}"
        options = ("--udp", "--sni=shop.example.com", "--timeout=1")
        output = output_of(sys.executable, "-m", "txmux", "test", address, *options).decode()
        for line in (
            r"whole +answered +\d+ ms +certificate example\.com",
            "in 2 datagrams, any order +2 of 2 +the same certificate",
            "in 3 datagrams, any order +6 of 6 +the same certificate",
            r"half, then silence +no answer after \d\.\d s",
            "result: the decision does not depend on packets",
        ):
            self.assertRegex(output, line)

    @on_asyncio
    async def test_hello_in_two_datagrams_and_scrambled(self) -> None:
        port = self.start(shop="alpn=h3")
        for number, protocols in enumerate((36, 0, 36, 0, 36)):
            settings = configuration("shop.example.com", protocols=protocols)
            scramble = random.Random(number) if number else None
            async with client(port, settings, scramble=scramble) as one:
                await assert_served(self, one, "shop", 100_000 if not number else 1000)
        lines = logged(self.mux)
        self.assertEqual([(line["route"], line["reason"]) for line in lines], [("shop", "drained")] * 5)  # fmt: skip
        for line in lines:
            facts = {name: line["facts"][name] for name in ("sni", "quic", "tls")}
            self.assertEqual(facts, {"sni": "shop.example.com", "quic": "1", "tls": "1.3"})
            self.assertGreater(line["datagrams_out"], 1)

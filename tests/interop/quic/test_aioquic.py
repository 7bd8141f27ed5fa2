"""QUIC and HTTP/3 with aioquic at both ends, through a service."""

import random
import sys
from typing import ClassVar

from tests.interop.children import InteropTestCase, output_of
from tests.interop.quic.case import QuicServers, assert_served, logged, on_asyncio, run_mux
from tests.interop.quic.h3_client import client, configuration

V1, V2, NOT_KNOWN = 1, 0x6B3343CF, 0x1A2A3A4A
MIB = 1024 * 1024


class AioquicTests(InteropTestCase):
    """What a client gets is from the server that it names, and whole."""

    servers: ClassVar = QuicServers(site=(), shop=(), newer=("--versions=6b3343cf,1",))

    def setUp(self) -> None:
        others = f"[route others]\nmatch = quic version=other\nbackend = udp:127.0.0.1:{self.servers['site'].port}\n"
        self.mux = run_mux(self, self.servers.rules(shop="alpn=h3", newer="version=1") + others)

    @on_asyncio
    async def test_both_versions(self) -> None:
        for version in (V1, V2):
            settings = configuration("site.example.com", versions=(version,))
            async with client(self.mux.port, settings) as one:
                await assert_served(self, one, "site", 2 * MIB)
                self.assertEqual(one.version, version)
        lines = logged(self.mux)
        self.assertEqual([line["facts"]["quic"] for line in lines], ["1", "2"])
        for line in lines:
            self.assertEqual(line["route"], "site")
            self.assertEqual(line["facts"]["sni"], "site.example.com")
            self.assertEqual(line["facts"]["alpn"], "h3")
            self.assertGreater(line["bytes_out"], 2 * MIB)

    def test_port_test(self) -> None:
        """`txmux test --udp` gets the same certificate, in whatever order the datagrams of a hello come."""
        address, options = f"127.0.0.1:{self.mux.port}", ("--sni=shop.example.com", "--timeout=1")
        said = output_of(sys.executable, "-m", "txmux", "test", address, "--udp", *options)
        output = said.decode()
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
        for number, protocols in enumerate((36, 0, 36, 0, 36)):
            settings = configuration("shop.example.com", protocols=protocols)
            scramble = random.Random(number) if number else None
            async with client(self.mux.port, settings, scramble=scramble) as one:
                await assert_served(self, one, "shop", 100_000 if not number else 1000)
        lines = logged(self.mux)
        self.assertEqual([(line["route"], line["reason"]) for line in lines], [("shop", "drained")] * 5)  # fmt: skip
        for line in lines:
            facts = {name: line["facts"][name] for name in ("sni", "quic", "tls")}
            self.assertEqual(facts, {"sni": "shop.example.com", "quic": "1", "tls": "1.3"})
            self.assertGreater(line["datagrams_out"], 1)

    @on_asyncio
    async def test_server_goes_on_with_another_version(self) -> None:
        settings = configuration("newer.example.com", versions=(V2, V1), begins=V1)
        async with client(self.mux.port, settings) as one:
            await assert_served(self, one, "newer", 100_000)
            self.assertEqual(one.version, V2)
        [line] = logged(self.mux)
        facts = (line["facts"]["quic"], line["facts"]["sni"])
        self.assertEqual((line["route"], *facts), ("newer", "1", "newer.example.com"))

"""Clients whose NAT gives them another port or address while they speak HTTP/3."""

import asyncio
import itertools
from typing import ClassVar

from tests.interop.children import InteropTestCase, eventually
from tests.interop.namespaces import Namespace, cable
from tests.interop.quic.case import Server, logged, on_asyncio, run_mux
from tests.interop.quic.content import content
from tests.interop.quic.h3_client import PATIENCE, H3Client, client, configuration
from tests.interop.servers import make_certificate
from tests.programs import require_program

PUBLIC = "192.0.2.10"
"""The address where services are."""
OUTER = ("192.0.2.1", "192.0.2.2")
"""Those that the NAT can give to clients."""

_NAT = """
table ip nat {
    chain out { type nat hook postrouting priority srcnat; }
}
table ip filter {
    # What comes to a port that the NAT has forgotten is dropped without a word.
    chain in { type filter hook input priority filter; ip saddr 192.0.2.0/24 meta l4proto udp drop; }
}
"""


class Nat:
    """Three networks: the client's at home, the public one of services, and the NAT between them."""

    def __init__(self, test: type[InteropTestCase]) -> None:
        self._nft, self._conntrack = require_program("nft"), require_program("conntrack")
        self.home, self._middle, self.public = (Namespace(test) for _ in range(3))
        cable(self.home, ["10.9.0.2/24"], self._middle, ["10.9.0.1/24"])
        outer = [f"{address}/24" for address in OUTER]
        cable(self._middle, outer, self.public, [f"{PUBLIC}/24"])
        self.home.ip("route add default via 10.9.0.1")
        self._middle.set("ipv4/ip_forward", "1")
        self._middle.run_lines([f"{self._nft} -f - <<'END'\n{_NAT}\nEND"])

    def give(self, address: str, port: int) -> None:
        """Give the client one of `OUTER` and a hundred ports, as if the NAT had forgotten the ones before."""
        rule = f"ip saddr 10.9.0.0/24 meta l4proto udp snat to {address}:{port}-{port + 99}"
        self._middle.run_lines(
            [
                f"{self._nft} -f - <<'END'\nflush chain ip nat out\nadd rule ip nat out {rule}\nEND",
                f"{self._conntrack} -F 2>/dev/null",
            ]
        )


_COUNT = 3 * 1024 * 1024
_RULES = f"""
[listen u]
endpoint = udp:{PUBLIC}:443
[route site]
match = quic sni=site.example.com
backend = udp:{PUBLIC}:4433
[route other]
match = any
backend = udp:{PUBLIC}:4434
"""


class NatTests(InteropTestCase):
    """A client in a network of its own, behind a NAT. The service has a route for whom it does not know, which leads elsewhere."""

    nat: ClassVar[Nat]
    server: ClassVar[Server]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.certificate = make_certificate(cls.folder, "example.com", "*.example.com")
        cls.nat = Nat(cls)
        at = f"--at={PUBLIC}:4433"
        public = cls.nat.public.command
        cls.server = cls.share(Server("site", cls.certificate, at, before=public))
        cls.nat.home.enter()

    def setUp(self) -> None:
        self.ports = itertools.count(20_000, 200)
        self.closed_before = len(self.server.told("closed"))
        self.give(OUTER[0])
        self.mux = run_mux(self, _RULES, before=self.nat.public.command)

    def give(self, address: str) -> None:
        self.nat.give(address, next(self.ports))

    def assert_stayed(self, last: str, most: int) -> None:
        """Check that it is one connection, whose server has seen at most so many addresses: txmux shows it a change of the IP address, not of the port."""
        eventually(lambda: len(self.server.told("closed")) > self.closed_before, "it is closed")
        [line] = logged(self.mux)
        self.assertEqual((line["route"], line["reason"]), ("site", "drained"))
        self.assertEqual(line["facts"]["moved_to"].rpartition(":")[0], last)
        self.assertLessEqual(self.server.told("closed")[-1]["peers"], most)

    @on_asyncio
    async def test_port_and_address_change_in_a_download(self) -> None:
        async def speak(one: H3Client) -> None:
            while True:  # as browsers do while they wait for something
                await one.ping()
                await asyncio.sleep(0.1)

        async with client(443, configuration("site.example.com"), host=PUBLIC) as one:
            speaking = asyncio.create_task(speak(one))
            answer = one.ask(f"/{_COUNT}")
            for part, address in enumerate(OUTER, 1):
                await one.has(_COUNT * part // 3)
                self.give(address)
            await asyncio.wait_for(answer.whole, PATIENCE)
            speaking.cancel()
            self.assertEqual(answer.body, content("site", _COUNT))
        self.assert_stayed(OUTER[1], most=2)

    @on_asyncio
    async def test_after_a_pause(self) -> None:
        """A NAT has forgotten a silent client: its next request comes from another port or address, and is answered there."""
        async with client(443, configuration("site.example.com"), host=PUBLIC) as one:
            for count, address in enumerate((*OUTER, OUTER[0]), 10_000):
                answer = await one.get(f"/{count}")
                self.assertEqual(answer.body, content("site", count))
                self.give(address)

            answer = await one.get("/10")
            self.assertEqual(answer.body, content("site", 10))
        self.assert_stayed(OUTER[0], most=3)

"""Connections of HTTP/3 go on while txmux is reloaded and upgraded under them, and while their client moves."""

import asyncio
from typing import ClassVar

from tests.interop.quic.case import QuicServers, assert_served, on_asyncio
from tests.interop.quic.content import content
from tests.interop.quic.h3_client import PATIENCE, H3Client, client, configuration, one_socket
from tests.support.kit import InteropTestCase, Service, eventually

_COUNT = 100_000
_LONG = 3 * 1024 * 1024
_SETTINGS = """
workers = 1
drain_timeout = 0s
"""


class ChangeTests(InteropTestCase):
    mux: Service
    servers: ClassVar = QuicServers(site=(), shop=(), nameless=("--nameless",))

    def setUp(self) -> None:
        self.mux = Service(self.folder, self.servers.rules(), _SETTINGS)
        self.addCleanup(self.mux.kill_all)

    def reload(self) -> None:
        self.mux.reload((r"\[route shop\]", "[route renamed]"))

    @on_asyncio
    async def test_one(self) -> None:
        """Requests go on without a pause while the rules change, then the program, and then the client's port."""

        async def keep_asking(one: H3Client) -> None:
            while True:
                await assert_served(self, one, "shop", _COUNT)
                await asyncio.sleep(0.03)  # so that there is time for what else runs

        async with client(self.mux.port, configuration("shop.example.com")) as one:
            asking = asyncio.create_task(keep_asking(one))
            for change in (self.reload, self.mux.upgrade):
                await asyncio.to_thread(change)
                await one.has(one.got + 2 * _COUNT)
            await one.move()
            await one.has(one.got + 2 * _COUNT)
            before = len(self.servers["shop"].closed)
            asking.cancel()
        shop = self.servers["shop"]
        eventually(lambda: len(shop.closed) > before, "the server hears of its end")
        self.assertEqual(shop.closed[-1], 1)
        self.mux.stop()
        [line] = self.mux.lines()
        self.assertEqual((line["route"], line["facts"]["sni"]), ("shop", "shop.example.com"))
        self.assertIn("moved_to", line["facts"])

    @on_asyncio
    async def test_moves(self) -> None:
        """Its port changes, and its address, in a download, and in a pause; its server sees no other port at an address that stays."""
        ways = ["::ffff:127.0.0.1", "::ffff:127.0.0.2"]
        before = len(self.servers["site"].closed)
        async with client(self.mux.port, configuration("site.example.com")) as one:
            answer = one.ask(f"/{_LONG}")
            for part, address in enumerate(ways, 1):
                await one.has(_LONG * part // 3)
                await one.move(address)
                await one.ping()
            await asyncio.wait_for(answer.whole, PATIENCE)
            self.assertEqual(answer.body, content("site", _LONG))
            for count, address in enumerate((ways[1], ways[0]), 10_000):
                await one.move(address)
                await assert_served(self, one, "site", count)
        eventually(lambda: len(self.servers["site"].closed) > before, "it is closed")
        self.assertLessEqual(self.servers["site"].closed[-1], 3)
        self.mux.stop()
        [line] = self.mux.lines()
        self.assertEqual((line["route"], line["reason"]), ("site", "drained"))
        self.assertTrue(line["facts"]["moved_to"].startswith("127.0.0.1:"))

    @on_asyncio
    async def test_several(self) -> None:
        """Each goes on through a reload and two upgrades, with IDs of its own or none, and new ones begin beside them."""
        async with one_socket(self.mux.port) as here:
            settings = {name: configuration(f"{name}.example.com") for name in self.servers.names}
            made = [(name, await here.connect(its)) for name, its in settings.items()]
            for change in (self.mux.upgrade, self.reload, self.mux.upgrade):
                made[0][1].change_connection_id()
                await asyncio.to_thread(change)
                for name, one in made:
                    await assert_served(self, one, name, _COUNT)
                made.append(("shop", await here.connect(configuration("shop.example.com"))))
        self.mux.stop()
        lines = self.mux.lines()
        self.assertEqual(len(lines), 6)
        self.assertEqual(len({line["client"] for line in lines}), 1)

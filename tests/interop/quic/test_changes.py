"""A connection of HTTP/3 goes on while txmux is reloaded and upgraded under it, and while its client moves."""

from __future__ import annotations

import asyncio
import os
import signal

from tests.interop.children import eventually
from tests.interop.quic.case import QuicCase, Server
from tests.interop.quic.content import content
from tests.interop.quic.h3_client import H3Client, client, configuration, one_socket
from tests.processes.upgrading import Upgrading

_COUNT = 100_000
_RULES = """
[listen u]
endpoint = udp:127.0.0.1:0
[route site]
match = quic sni=site.example.com
backend = udp:127.0.0.1:{port}
"""


_NAMES = ("site", "shop", "nameless")
_ROUTE = """
[route {name}]
match = quic sni={name}.example.com
backend = udp:127.0.0.1:{port}
"""
_SETTINGS = """
workers = 1
drain_timeout = 0s
"""


class ChangeTests(QuicCase):
    """One connection, and what happens in its middle."""

    def setUp(self) -> None:
        self.server = self.own(Server("site", self.certificate))
        self.mux = Upgrading(self.folder, _RULES.format(port=self.server.port), _SETTINGS)
        self.addCleanup(self.mux.kill)

    def reload(self) -> None:
        text = self.mux.file.read_text()
        self.mux.file.write_text(text.replace("[route site]", "[route renamed]"))
        os.kill(self.mux.pid, signal.SIGHUP)
        eventually(lambda: "rules reloaded: " in self.mux.child.output, "the rules are reloaded")

    def test_changes(self) -> None:
        """Requests go on without a pause while the rules change, then the program, and then the client's port."""

        async def keep_asking(one: H3Client) -> None:
            while True:
                answer = await one.get(f"/{_COUNT}")
                self.assertEqual(answer.body, content("site", _COUNT))
                await asyncio.sleep(0.03)  # so that there is time for what else runs

        async def run() -> None:
            async with client(self.mux.port, configuration("site.example.com")) as one:
                asking = asyncio.create_task(keep_asking(one))
                for change in (self.reload, self.mux.upgrade):
                    await asyncio.to_thread(change)
                    await one.has(one.got + 2 * _COUNT)
                await one.move()
                await one.has(one.got + 2 * _COUNT)
                asking.cancel()

        asyncio.run(run())
        eventually(lambda: bool(self.server.told("closed")), "the server hears of its end")
        self.assertEqual(self.server.told("closed")[-1]["peers"], 1)
        self.mux.stop()
        [line] = self.mux.lines()
        self.assertEqual((line["route"], line["facts"]["sni"]), ("site", "site.example.com"))
        self.assertIn("moved_to", line["facts"])


class SeveralTests(QuicCase):
    """Several connections on one socket, and what happens in their middle."""

    def setUp(self) -> None:
        options = {"nameless": ["--nameless"]}
        servers = {
            name: self.own(Server(name, self.certificate, *options.get(name, ())))
            for name in _NAMES
        }
        routes = [_ROUTE.format(name=name, port=one.port) for name, one in servers.items()]
        rules = "[listen u]\nendpoint = udp:127.0.0.1:0\n" + "".join(routes)
        self.mux = Upgrading(self.folder, rules, _SETTINGS)
        self.addCleanup(self.mux.kill)

    def reload(self) -> None:
        text = self.mux.file.read_text()
        self.mux.file.write_text(text.replace("[route shop]", "[route renamed]"))
        os.kill(self.mux.pid, signal.SIGHUP)
        eventually(lambda: "rules reloaded: " in self.mux.child.output, "the rules are reloaded")

    async def assert_served(self, one: H3Client, name: str) -> None:
        answer = await one.get(f"/{_COUNT}")
        self.assertEqual((answer.server, answer.body), (name, content(name, _COUNT)))

    def test_changes(self) -> None:
        """Each goes on through a reload and two upgrades, with IDs of its own or none, and new ones begin beside them."""

        async def run() -> None:
            async with one_socket(self.mux.port) as here:
                made = [(n, await here.connect(configuration(f"{n}.example.com"))) for n in _NAMES]
                for change in (self.mux.upgrade, self.reload, self.mux.upgrade):
                    made[0][1].change_connection_id()
                    await asyncio.to_thread(change)
                    for name, one in made:
                        await self.assert_served(one, name)
                    made.append(("shop", await here.connect(configuration("shop.example.com"))))

        asyncio.run(run())
        self.mux.stop()
        lines = self.mux.lines()
        self.assertEqual(len(lines), 6)
        self.assertEqual(len({line["client"] for line in lines}), 1)

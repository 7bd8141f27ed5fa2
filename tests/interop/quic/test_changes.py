"""A connection of HTTP/3 goes on while txmux is reloaded and upgraded under it, and while its client moves."""

from __future__ import annotations

import asyncio
import os
import signal

from tests.interop.children import eventually
from tests.interop.quic.case import QuicCase, Server
from tests.interop.quic.content import content
from tests.interop.quic.h3_client import H3Client, client, configuration
from tests.processes.upgrading import Upgrading

_COUNT = 100_000
_RULES = """
[listen u]
endpoint = udp:127.0.0.1:0
[route site]
match = quic sni=site.example.com
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
        """Have other rules read."""
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

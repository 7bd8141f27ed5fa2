"""Routes by silence in what a service reports: numbers, the log, explanations and the page."""

import json
from typing import Any

from tests.support.kit import AdminCase, turn
from tests.support.peers import GREETING, Greeter, Peer, PeerFactory, close, connect, listen

_RULES = """[listen x]
endpoint = 127.0.0.1:0
silent = 127.0.0.1:{port} after=100ms
[listen y]
endpoint = 127.0.0.1:0
silent = close
[route mail]
match = silent after=150ms
under = *
from = 127.0.0.2
{more}
backend = 127.0.0.1:{port}
[route any]
match = any
under = *
backend = close
"""


class SilentTest(AdminCase):
    async def begin(self, more: str = "") -> None:
        self.greeter = PeerFactory(Greeter)
        self.backend = listen(self, self.greeter)
        self.log = self.folder / "access.log"
        await self.start(f"access_log = {self.log}\naccess_log_format = json", self.rules(more))

    def rules(self, more: str = "") -> str:
        return _RULES.format(port=self.backend, more=more)

    async def greeted(self, source: str) -> Peer:
        client = await connect(self, self.port, source=source)
        await client.has(len(GREETING))
        return client

    async def ended(self, client: Peer, count: int) -> dict[str, Any]:
        close(client, self.greeter.peers[-1])
        while not self.log.exists() or len(self.log.read_text().splitlines()) < count:
            await turn()
        line: dict[str, Any] = json.loads(self.log.read_text().splitlines()[-1])
        return line

    async def test_names_and_numbers(self) -> None:
        await self.begin()
        for source, route, count in (("127.0.0.2", "mail", 1), ("127.0.0.3", "silent", 2)):
            client = await self.greeted(source)
            (row,) = (await self.get(f"/api/connections?route={route}")).json
            shown = (await self.get(f"/api/connections/{row['id']}")).json["explanation"]
            by = "route" if route == "mail" else "silent"
            self.assertEqual((shown["by"], shown["route"], shown["bytes"]), (by, route, 0))
            line = await self.ended(client, count)
            self.assertEqual((line["route"], line["bytes_in"]), (route, 0))
            self.assertEqual((line["reason"], line["bytes_out"]), ("done", len(GREETING)))
        mail, _ = (await self.get("/api/routes")).json
        self.assertEqual((mail["name"], mail["matches"], mail["bytes_out"]), ("mail", 1, 24))
        metrics = (await self.get("/metrics")).body.decode()
        for name in ("mail", "silent"):
            metric = f'txmux_route_matches_total{{listener="x",route="{name}"}} 1.0\n'
            self.assertIn(metric, metrics)
        page = (await self.get("/")).body.decode()
        self.assertEqual(page.count("route silent"), 4)  # of each, in the drawing and in the list

    async def test_dry_run_and_another_time_by_a_reload(self) -> None:
        await self.begin("dry_run = yes")
        line = await self.ended(await self.greeted("127.0.0.2"), 1)
        self.assertEqual(line["route"], "silent")  # which is sooner than the dry run
        self.write_rules(
            f"access_log = {self.log}\naccess_log_format = json",
            self.rules("dry_run = yes").replace("after=100ms", "after=200ms"),
        )
        await self.post("/api/reload")
        line = await self.ended(await self.greeted("127.0.0.2"), 2)
        self.assertEqual((line["route"], line["facts"]), ("silent", {"dry_run": "mail"}))
        mail, _ = (await self.get("/api/routes")).json
        self.assertEqual((mail["matches"], mail["dry_run_matches"]), (0, 1))

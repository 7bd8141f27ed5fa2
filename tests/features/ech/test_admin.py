"""The keys of Encrypted ClientHello, and how many hellos they open, in the API, in metrics and on the page."""

from __future__ import annotations

from tests.admin.asking import LISTEN, AdminCase
from tests.features.ech.client import MadeKey, Sealer, inner
from tests.support.folders import make_folder
from tests.support.peers import connect
from tests.wire.hello_builder import records


class HiddenHellosTest(AdminCase):
    async def test_keys_and_counts(self) -> None:
        made, folder = MadeKey(), make_folder(self)
        path = made.write(folder / "a.pem")
        await self.start(
            rules=f"{LISTEN}ech_keys = {folder}\n[route all]\nmatch = tls\nbackend = reset\n"
        )
        for key in (made, made, MadeKey()):
            client = await connect(self, self.port)
            client.send(records(Sealer(key).hello(inner())))
            await client.is_lost()
        status = (await self.get("/api/status")).json
        (listener,) = status["listeners"]
        written = path.stat().st_mtime_ns / 1e9
        shown = {"id": 7, "public_name": "public.example", "written": written}
        self.assertEqual(listener["ech"], {"keys": [shown], "opened": 2, "unopened": 1})
        metrics = (await self.get("/metrics")).body.decode()
        self.assertIn('txmux_hidden_hellos_total{listener="x",result="opened"} 2.0', metrics)
        page = (await self.get("/", Accept="text/html")).body.decode()
        self.assertIn("public.example (7)", page)
        self.assertIn("2 of 3 opened", page)

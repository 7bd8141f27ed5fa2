import os
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.admin.asking import LISTEN, AdminCase
from tests.features.ech.client import HIDDEN, INNER, SESSION, MadeKey, Sealer, inner
from tests.processes.test_opener import HelperOfRules
from tests.support.kit import make_folder
from tests.tcp import test_preambles
from tests.wire import hello_builder
from tests.wire.hello_builder import client_hello, extension, records, server_name, sized, versions
from txmux.net.channel import messages


class HiddenHellosTest(AdminCase):
    async def test_keys_and_counts(self) -> None:
        made, folder = MadeKey(), make_folder(self)
        path = made.write(folder / "a.pem")
        route = "[route all]\nmatch = tls\nbackend = reset\n"
        await self.start(rules=f"{LISTEN}ech_keys = {folder}\n{route}")
        for key in (made, made, MadeKey()):
            await self.connect_until_lost(records(Sealer(key).hello(inner())))
        (listener,) = (await self.get("/api/status")).json["listeners"]
        written = path.stat().st_mtime_ns / 1e9
        shown = {"id": 7, "public_name": "public.example", "written": written}
        self.assertEqual(listener["ech"], {"keys": [shown], "opened": 2, "unopened": 1})
        metrics = (await self.get("/metrics")).body.decode()
        self.assertIn('txmux_hidden_hellos_total{listener="x",result="opened"} 2.0', metrics)
        page = (await self.get("/", Accept="text/html")).body.decode()
        self.assertIn("public.example (7)", page)
        self.assertIn("2 of 3 opened", page)
        # A key that is put beside the others opens, too, without a reload.
        late = MadeKey(8)
        late.write(folder / "b.pem")
        while listener["ech"]["opened"] < 3:
            await self.connect_until_lost(records(Sealer(late).hello(inner())))
            (listener,) = (await self.get("/api/status")).json["listeners"]


class FolderTest(SynchronousTestCase):
    def test_folder(self) -> None:
        """Of a folder with keys, its keys are read and its names, and nothing above it, below it or beside it."""
        helper = HelperOfRules(self)
        folder = helper.folder / "ech"
        (folder / "below.pem").mkdir(parents=True)
        for name in ("a.pem", "b.ech", "notes", ".hidden.pem"):
            (folder / name).write_text(name)
        (helper.folder / "beside.pem").write_text("x")
        helper.write(f"127.0.0.1:0\nech_keys = {folder}")
        helper.opener.read_rules()
        for name in ("a.pem", "b.ech"):
            self.assertEqual(helper.text(folder / name), name)
        listed = helper.opener.open_file(folder)
        self.addCleanup(os.close, listed)
        self.assertIn("a.pem", os.listdir(listed))  # noqa: PTH208 - a descriptor
        for name in (
            "..", ".", "", "./", "notes", ".hidden.pem", "below.pem", "below.pem/..", "../beside.pem",
            "../ech/a.pem", "./a.pem", "/a.pem", "a.pem/", "..pem", ".pem", "../ech",
        ):  # fmt: skip
            path = f"{folder}/{name}"
            with self.assertRaises(PermissionError, msg=name):
                # As no client of the helper does, which makes the path a plain one.
                os.close(helper.opener.descriptor(messages.OPEN, path=path, write=False))


_MADE = MadeKey()
_SHARE = extension(hello_builder.KEY_SHARE, sized(2, b"share"))
_OPENED = client_hello(server_name(HIDDEN), INNER, versions(0x0304), _SHARE, session_id=SESSION)


class HiddenTest(test_preambles.OrderTest):
    lasts = ("e",)

    def setUp(self) -> None:
        super().setUp()
        self.keys = _MADE.write(self.tls.folder / "ech.pem")

    def settings(self, chain: str) -> dict[str, Any]:
        settings = super().settings(chain)
        settings["more"]["ech_keys"] = self.keys
        return settings

    def payload(self, chain: str) -> tuple[bytes, bytes]:
        return records(Sealer(_MADE).hello(inner())), self.asked + records(_OPENED)

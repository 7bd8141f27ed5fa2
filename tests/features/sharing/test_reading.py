from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

from txmux.features.sharing.store import Store
from txmux.rules.model import Rules
from txmux.rules.named_files import needed_modules
from txmux.rules.reading.parser import parse


def read(store: str) -> Rules:
    settings = f"[txmux]\nshared_limits = {store}\n"
    return parse(f"{settings}[listen a]\nendpoint = 127.0.0.1:1\n", "/etc/rules.ini")


class StoreTests(SynchronousTestCase):
    def test_forms(self) -> None:
        for text, expected in (
            ("redis://10.0.0.9", Store("", "10.0.0.9")),
            ("redis://10.0.0.9:7000/2", Store("", "10.0.0.9", 7000, database=2)),
            ("rediss://me@r.example", Store("", "r.example", tls=True, user="me")),
            ("redis://[2001:db8::1]:1", Store("", "2001:db8::1", 1)),
            ("unix:/run/r.sock?db=3", Store("", path=Path("/run/r.sock"), database=3)),
            ("unix:r.sock password=p", Store("", path=Path("/etc/r.sock"), password=Path("/etc/p"))),
            ("unix:r.sock", Store("", path=Path("/etc/r.sock"))),
        ):  # fmt: skip
            found = read(text).settings.more["shared_limits"]
            self.assertEqual(found.text, text.split()[0])
            self.assertEqual(attrs.evolve(found, text=""), expected)

    def test_no_module_is_loaded_in_vain(self) -> None:
        for scheme, needs_tls in (("redis", False), ("rediss", True)):
            modules = {*needed_modules(read(f"{scheme}://127.0.0.1:1"))}
            self.assertIn("twisted.internet.endpoints", modules)
            self.assertEqual("txmux.net.tls.verification" in modules, needs_tls)

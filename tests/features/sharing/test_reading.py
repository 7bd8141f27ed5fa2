from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

from txmux.features.sharing.store import Store
from txmux.rules.model import Settings
from txmux.rules.named_files import needed_modules
from txmux.rules.reading.parser import parse


def read(lines: str) -> Settings:
    return parse(f"[txmux]\n{lines}\n[listen a]\nendpoint = :1\n", "/etc/txmux/rules.ini").settings


class StoreTests(SynchronousTestCase):
    def test_forms(self) -> None:
        for text, expected in (
            ("redis://10.0.0.9", Store("", "10.0.0.9")),
            ("redis://10.0.0.9:7000/2", Store("", "10.0.0.9", 7000, database=2)),
            ("rediss://me@r.example", Store("", "r.example", tls=True, user="me")),
            ("redis://[2001:db8::1]:1", Store("", "2001:db8::1", 1)),
            ("unix:/run/r.sock?db=3", Store("", path=Path("/run/r.sock"), database=3)),
            ("unix:r.sock password=p",
             Store("", path=Path("/etc/txmux/r.sock"), password=Path("/etc/txmux/p"))),
            ("unix:r.sock", Store("", path=Path("/etc/txmux/r.sock"))),
        ):  # fmt: skip
            found = read(f"shared_limits = {text}").more["shared_limits"]
            self.assertEqual(found.text, text.split()[0])
            self.assertEqual(attrs.evolve(found, text=""), expected)


class ModulesTest(SynchronousTestCase):
    def test_by_value(self) -> None:
        """No module is loaded in vain."""

        def modules(text: str) -> set[str]:
            listen = "[listen a]\nendpoint = 127.0.0.1:1\n"
            rules = parse(f"[txmux]\nshared_limits = {text}://127.0.0.1:1\n{listen}", "x.ini")
            return {*needed_modules(rules)}

        self.assertIn("twisted.internet.endpoints", modules("redis"))
        self.assertNotIn("txmux.net.tls.verification", modules("redis"))
        self.assertIn("txmux.net.tls.verification", modules("rediss"))

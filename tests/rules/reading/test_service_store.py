"""Tests of ``shared_limits``."""

from __future__ import annotations

from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

from txmux.rules.model.settings import Store
from txmux.rules.problems import RulesError
from txmux.rules.reading.parser import parse


def store(text: str) -> Store:
    rules = parse(f"[txmux]\nshared_limits = {text}\n[listen a]\nendpoint = :1\n", "/etc/x.ini")
    assert rules.settings.shared_limits is not None
    return rules.settings.shared_limits


class StoreTests(SynchronousTestCase):
    def test_forms(self) -> None:
        for text, expected in (
            ("redis://10.0.0.9", Store("", "10.0.0.9")),
            ("redis://10.0.0.9:7000/2", Store("", "10.0.0.9", 7000, database=2)),
            ("rediss://me@r.example", Store("", "r.example", tls=True, user="me")),
            ("redis://[2001:db8::1]:1", Store("", "2001:db8::1", 1)),
            ("unix:/run/r.sock?db=3", Store("", path=Path("/run/r.sock"), database=3)),
            ("unix:r.sock", Store("", path=Path("/etc/r.sock"))),
        ):
            found = store(text)
            self.assertEqual(found.text, text)
            self.assertEqual(attrs.evolve(found, text=""), expected)

    def test_wrong(self) -> None:
        for text in (
            "10.0.0.9:6379",
            "redis://",
            "redis://a/x",
            "http://a",
            "unix:",
            "redis://a:0",
        ):
            with self.assertRaisesRegex(RulesError, "is not the address of a Redis"):
                store(text)
        with self.assertRaisesRegex(RulesError, "write it into a file") as caught:
            store("redis://:secret@10.0.0.9")
        self.assertNotIn("secret@", str(caught.exception))

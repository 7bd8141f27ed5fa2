"""Reading rules from a text, and what is said of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from tests.rules.fakes import MATCHERS
from txmux.rules.problems import RulesError
from txmux.rules.reading.parser import parse

if TYPE_CHECKING:
    from txmux.rules.model import Backend, Rules


class ReadingTestCase(SynchronousTestCase):
    listen = "[listen a]\nendpoint = :1\n"

    def read(self, text: str) -> Rules:
        return parse(text, "x.ini", MATCHERS)

    def complaints(self, text: str) -> list[str]:
        error = self.assertRaises(RulesError, self.read, text)
        return [f"{p.line} {p.key}: {p.message}" for p in error.problems]


class BackendTestCase(SynchronousTestCase):
    maxDiff = None

    def rules(self, text: str, *, servers: str = "10.0.0.1:80") -> Rules:
        whole = f"[listen l]\nendpoint = :1\nsilent = b\n[backend b]\nserver = {servers}\n{text}\n"
        return parse(whole, "etc/rules.ini", MATCHERS)

    def backend(self, text: str = "", *, servers: str = "10.0.0.1:80") -> Backend:
        return self.rules(text, servers=servers).backends["b"]

    def complaints(self, text: str = "", *, servers: str = "10.0.0.1:80") -> list[str]:
        """Give what is said of a file; its first key has the line 6, and its first server the line 5."""
        error = self.assertRaises(RulesError, self.rules, text, servers=servers)
        return [f"{p.line} {p.key}: {p.message}" for p in error.problems]

"""Reading rules from a text, and what is said of them."""

from collections.abc import Callable, Mapping

from twisted.trial.unittest import SynchronousTestCase

from tests.rules.fakes import MATCHERS
from txmux.interfaces import IProtocolMatcher
from txmux.rules.model import Backend, Rules
from txmux.rules.problems import InvalidValueError, RulesError
from txmux.rules.reading.parser import parse


class ReadingTestCase(SynchronousTestCase):
    maxDiff = None
    listen = "[listen a]\nendpoint = :1\n"
    matchers: Mapping[str, IProtocolMatcher] = MATCHERS

    def read(self, text: str) -> Rules:
        return parse(text, "x.ini", self.matchers)

    def complaints(self, text: str = "", **more: str) -> list[str]:
        error = self.assertRaises(RulesError, self.read, text, **more)
        return [f"{p.line} {p.key}: {p.message}" for p in error.problems]

    def complaint(self, read: Callable[[str], object], text: str) -> str:
        """Read one value; all that is reported of it, one message a line."""
        error: InvalidValueError = self.assertRaises(InvalidValueError, read, text)
        return "\n".join(error.messages)

    def refuses(self, text: str, *told: str, **more: str) -> None:
        self.assertEqual(self.complaints(text, **more), [*told])


class BackendTestCase(ReadingTestCase):
    """Reads files with a listener and a backend called b; its first server has the line 5, its first key the line 6."""

    def read(self, text: str = "", *, servers: str = "10.0.0.1:80") -> Rules:
        whole = f"[listen l]\nendpoint = :1\nsilent = b\n[backend b]\nserver = {servers}\n{text}\n"
        return parse(whole, "etc/rules.ini", MATCHERS)

    def backend(self, text: str = "", *, servers: str = "10.0.0.1:80") -> Backend:
        return self.read(text, servers=servers).backends["b"]

"""What holds for all matchers that are installed."""

from __future__ import annotations

import contextlib
import itertools
import re

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from txmux.detection.registry import installed_matchers
from txmux.errors import OptionError
from txmux.interfaces import IProtocolMatcher, Peeked, Predicate, Verdict


def with_example(matcher: IProtocolMatcher, name: str) -> Predicate | None:
    """Make a predicate of an option's example and as few others as it takes; without a name, of those alone."""
    examples = {option.name: option.example for option in matcher.options}
    wanted = [name] if name else []
    others = [other for other in examples if other != name]
    for count in range(len(others) + 1):
        for chosen in itertools.combinations(others, count):
            with contextlib.suppress(OptionError):
                return matcher.predicate({other: examples[other] for other in (*wanted, *chosen)})
    return None


class InstalledMatcherTests(SynchronousTestCase):
    """The matchers that the plugin system finds."""

    def test_built_in(self) -> None:
        """The matchers that come with txmux are among them."""
        built_in = {"any", "http", "payload", "redis", "regex", "ssh", "tls"}
        self.assertLessEqual(built_in, installed_matchers().keys())

    def test_interface(self) -> None:
        """They provide the interface, and can be listed."""
        for name, matcher in installed_matchers().items():
            self.assertTrue(verifyObject(IProtocolMatcher, matcher))
            self.assertTrue(re.fullmatch("[a-z0-9-]+", name), name)
            for line in (matcher.summary, *(option.meaning for option in matcher.options)):
                self.assertTrue(line.strip() == line != "", name)
                self.assertNotIn("\n", line)

    def test_examples(self) -> None:
        """Every example of an option works."""
        for name, matcher in installed_matchers().items():
            for option in matcher.options:
                predicate = with_example(matcher, option.name)
                self.assertIsNotNone(predicate, (name, option.name))

    def test_first_bytes(self) -> None:
        """A predicate that names the bytes a stream can begin with says no to all others."""
        for name, matcher in installed_matchers().items():
            for option in (*(option.name for option in matcher.options), ""):
                predicate = with_example(matcher, option)
                first = getattr(predicate, "first_bytes", None)
                if predicate is None or first is None:
                    continue
                for byte in range(256):
                    verdict = predicate(Peeked(bytes([byte])))
                    if byte not in first:
                        self.assertIs(verdict, Verdict.NO, (name, option, byte))

    def test_silence(self) -> None:
        """None of them decides before the first byte."""
        for name, matcher in installed_matchers().items():
            for option in matcher.options:
                predicate = with_example(matcher, option.name)
                assert predicate is not None
                self.assertIs(predicate(Peeked(b"")), Verdict.NEED_MORE, name)
                self.assertGreaterEqual(predicate.longest, 1)

"""Matchers that recognise nothing, but show what the rules file told them."""

from collections.abc import Mapping

import attrs
from zope.interface import implementer

from txmux.errors import OptionError
from txmux.interfaces import IProtocolMatcher, Option, Peeked, Predicate, Verdict


@attrs.frozen
class FakePredicate:
    name: str
    options: tuple[tuple[str, str], ...] = ()
    longest: int = 1

    def __call__(self, peeked: Peeked, /) -> Verdict:
        return Verdict.NO


@implementer(IProtocolMatcher)
@attrs.frozen
class FakeMatcher:
    name: str
    options: tuple[Option, ...] = ()
    summary: str = "for tests"

    def predicate(self, options: Mapping[str, str]) -> Predicate:
        """Take all options; only the matcher called ``picky`` refuses some."""
        if options.get("port") == "bad":
            raise OptionError("port", "must be good")
        if self.name == "picky" and not options:
            raise OptionError(None, "needs port=")
        if self.name == "broken":
            raise ZeroDivisionError("oh")
        return FakePredicate(self.name, tuple(options.items()))


def _matcher(name: str, *options: str) -> FakeMatcher:
    return FakeMatcher(name, tuple(Option(option, "for tests", "x") for option in options))


MATCHERS: dict[str, IProtocolMatcher] = {
    matcher.name: matcher
    for matcher in (
        _matcher("any"), _matcher("broken"), _matcher("payload", "offset", "text", "hex", "mask"),
        _matcher("picky", "port"), _matcher("redis"), _matcher("ssh", "software"),
        _matcher("tls", "sni", "alpn"),
    )
}  # fmt: skip
"""Fakes by name."""

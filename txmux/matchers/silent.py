"""Matches a client that says nothing, so that a server that speaks first has a route. No byte can make it match: only time does."""

from collections.abc import Mapping

from zope.interface import implementer

from txmux.classes import frozen
from txmux.interfaces import IProtocolMatcher, Option, Peeked, Predicate, Verdict


@frozen
class _NoByte:
    silent_after: str
    longest: int = 1
    first_bytes: frozenset[int] = frozenset()

    def __call__(self, peeked: Peeked, /) -> Verdict:
        return Verdict.NO if peeked.data else Verdict.NEED_MORE


@implementer(IProtocolMatcher)
class SilentMatcher:
    """Matches who has said nothing for so long; `txmux.rules.reading.matching` reads the time."""

    name = "silent"
    summary = "a client that says nothing, as one that waits for the server to speak"
    options = (
        Option(
            "after", "seconds without a byte (detect_timeout, or 3s if it is not written)", "1s"
        ),
    )

    def predicate(self, options: Mapping[str, str]) -> Predicate:
        return _NoByte(options.get("after", ""))


silent = SilentMatcher()

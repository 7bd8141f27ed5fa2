"""Matchers without options, written as data."""

import sys
from collections.abc import Callable, Collection, Mapping

import attrs
from zope.interface import implementer

from txmux.classes import frozen
from txmux.interfaces import IProtocolMatcher, Option, Predicate, Transport

__all__ = ["PlainMatcher"]


@implementer(IProtocolMatcher)
@frozen(slots=False)
class PlainMatcher:
    """A matcher without options: one predicate, and its words.

    Args:
        name: The word after ``match =``: lower-case letters, digits and ``-``.
        summary: One line that says what is recognised.
        predicate: What says so; `txmux.wire.predicates` has some to begin with.
        source: Where the first bytes of the protocol are specified, for readers of the code.
        transports: What carries the protocol; TCP by default.
        datagrams: The predicate for UDP, if it is another one than for TCP.
    """

    name: str
    summary: str
    _predicate: Predicate
    source: str = attrs.field(default="", kw_only=True)
    transports: Collection[Transport] = attrs.field(default=(Transport.TCP,), kw_only=True)
    _datagrams: Predicate | None = attrs.field(default=None, kw_only=True)
    options: tuple[Option, ...] = attrs.field(default=(), init=False)

    def __attrs_post_init__(self) -> None:
        # Take `__module__` from the caller, so that `txmux matchers` can name the package.
        object.__setattr__(
            self, "__module__", sys._getframe(2).f_globals.get("__name__", "__main__")
        )

    def predicate(self, options: Mapping[str, str]) -> Predicate:  # noqa: ARG002
        """Return the predicate, the same for all lines."""
        return self._predicate

    @property
    def datagram_predicate(self) -> Callable[[Mapping[str, str]], Predicate] | None:
        """Returns the predicate for UDP, the same for all lines; ``None`` if it is that for TCP."""
        predicate = self._datagrams
        return None if predicate is None else lambda _options: predicate

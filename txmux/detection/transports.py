"""Over which transports a matcher recognises its protocol, and the predicate it has for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from txmux.interfaces import Datagrams, Key, Transport, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from txmux.interfaces import IProtocolMatcher, Predicate

__all__ = ["WholeDatagram", "datagram_predicate", "transports_of"]

_ALL = frozenset(Transport)
_TCP_ONLY = frozenset({Transport.TCP})


def transports_of(matcher: IProtocolMatcher) -> frozenset[Transport]:
    """Return the transports that a matcher declares; without a declaration it is for TCP only.

    Raises:
        TypeError: It declares something else, or nothing.
    """
    declared = getattr(matcher, "transports", _TCP_ONLY)
    transports = frozenset(declared)
    if not transports or not transports <= _ALL:
        raise TypeError(f"its 'transports' is {declared!r}, not a collection of Transport")
    return transports


def datagram_predicate(
    matcher: IProtocolMatcher, options: Mapping[str, str], predicate: Predicate
) -> Predicate | None:
    """Return the predicate that is asked about datagrams; ``None`` if the matcher is not for them.

    Args:
        matcher: The plugin.
        options: Those of the line.
        predicate: What the matcher has made of them by `predicate`.

    Raises:
        OptionError: As the matcher says.
    """
    transports = transports_of(matcher)
    if Transport.UDP not in transports:
        return None
    own: Callable[[Mapping[str, str]], Predicate] | None = getattr(
        matcher, "datagram_predicate", None
    )
    if own is not None:
        return own(options)
    return WholeDatagram(predicate) if Transport.TCP in transports else predicate


@attrs.frozen
class WholeDatagram:
    """Asks a predicate for streams about the first datagram, to which nothing will be added.

    Args:
        of: The predicate. What is undecided for it is a no.
    """

    of: Predicate
    longest: int = attrs.field(default=1, init=False)

    @property
    def first_bytes(self) -> frozenset[int] | None:
        """The same as for streams."""
        found: frozenset[int] | None = getattr(self.of, "first_bytes", None)
        return found

    @property
    def key(self) -> Key | None:
        """The same as for streams."""
        found: Key | None = getattr(self.of, "key", None)
        return found

    @property
    def learnt(self) -> Callable[[Any], Mapping[str, str]] | None:
        """The same as for streams: it sees the first datagram."""
        found: Callable[[Any], Mapping[str, str]] | None = getattr(self.of, "learnt", None)
        return found

    def __call__(self, peeked: Datagrams, /) -> Verdict:
        """Say what the first datagram is."""
        verdict = self.of(peeked)
        return Verdict.NO if verdict is Verdict.NEED_MORE else verdict

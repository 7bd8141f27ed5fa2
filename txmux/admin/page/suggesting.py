"""Which matcher knows the bytes of a client that no route took."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from txmux.detection.registry import installed_matchers
from txmux.detection.transports import datagram_predicate, transports_of
from txmux.errors import OptionError
from txmux.interfaces import Datagrams, Peeked, Transport, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from txmux.interfaces import Predicate

_SAY_LITTLE = frozenset({"any", "random"})
"""Matchers that take bytes of which nothing is known."""

_EVERY_BYTE = 256


@lru_cache(maxsize=256)
def matcher_of(data: bytes, over: Transport = Transport.TCP) -> str:
    """Return a line of ``match =`` for a matcher that knows these bytes, the one that is hardest to please; empty if none does.

    Args:
        data: What a client has said first.
        over: By what; of a datagram it has to be all.
    """
    if not data:
        return ""
    peeked = Peeked(data) if over is Transport.TCP else Datagrams((data,))
    known = [
        (_first_bytes(predicate), name)
        for name, predicate in _predicates(over).items()
        if _matches(predicate, peeked)
    ]
    return f"match = {min(known)[1]}" if known else ""


def _matches(predicate: Predicate, peeked: Peeked) -> bool:
    try:
        return predicate(peeked) is Verdict.MATCH
    except Exception:  # noqa: BLE001 - a plugin may raise anything
        return False


def _first_bytes(predicate: Predicate) -> int:
    first = getattr(predicate, "first_bytes", None)
    return _EVERY_BYTE if first is None else len(first)


@lru_cache(maxsize=2)
def _predicates(over: Transport) -> Mapping[str, Predicate]:
    """Make the predicates of all matchers that need no option."""
    predicates = {}
    for name, matcher in installed_matchers().items():
        if name not in _SAY_LITTLE and over in transports_of(matcher):
            try:
                predicate: Predicate | None = matcher.predicate({})
                if over is Transport.UDP and predicate is not None:
                    predicate = datagram_predicate(matcher, {}, predicate)
            except OptionError:
                continue
            if predicate is not None:
                predicates[name] = predicate
    return predicates

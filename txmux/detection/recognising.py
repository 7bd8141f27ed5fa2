"""Names the protocols of clients that no route took. Pure."""

import re
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

from txmux.detection.registry import datagram_predicate, installed_matchers, transports_of
from txmux.errors import OptionError
from txmux.interfaces import Datagrams, Peeked, Predicate, Transport, Verdict

_IDENTIFY_NOTHING = frozenset({"any", "random"})  # matchers that identify no protocol
_EVERY_BYTE = 256
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")


@lru_cache(maxsize=256)
def matcher_of(data: bytes, over: Transport = Transport.TCP) -> str:
    """Return a line of ``match =`` for the most specific matcher that takes these bytes; empty if none does."""
    if not data:
        return ""
    peeked = Peeked(data) if over is Transport.TCP else Datagrams((data,))
    candidates = [
        (_first_bytes(predicate), name)
        for name, predicate in _predicates(over).items()
        if _matches(predicate, peeked)
    ]
    if not candidates:
        return ""
    name = min(candidates)[1]
    return f"match = {name}{_name_asked_for(name, _predicates(over)[name], peeked)}"


def _name_asked_for(matcher: str, predicate: Predicate, peeked: Any) -> str:
    """Return the option for the name that the client asks for, if that is a plain host name."""
    options = {option.name for option in installed_matchers()[matcher].options}
    try:
        facts = predicate.learnt(peeked) if hasattr(predicate, "learnt") else {}
    except Exception:  # noqa: BLE001 - as below
        return ""
    names = ((name, facts[name]) for name in ("sni", "host") if name in options and name in facts)
    return next((f" {name}={value}" for name, value in names if _HOST_NAME.fullmatch(value)), "")


def _matches(predicate: Predicate, peeked: Peeked) -> bool:
    try:
        return predicate(peeked) is Verdict.MATCH
    except Exception:  # noqa: BLE001 - a plugin may raise anything
        return False


def _first_bytes(predicate: Predicate) -> int:
    first = getattr(predicate, "first_bytes", None)
    return _EVERY_BYTE if first is None else len(first)


@cache
def _predicates(over: Transport) -> Mapping[str, Predicate]:
    """Make the predicates of all matchers that need no option."""
    predicates = {}
    for name, matcher in installed_matchers().items():
        if name not in _IDENTIFY_NOTHING and over in transports_of(matcher):
            try:
                predicate: Predicate | None = matcher.predicate({})
                if over is Transport.UDP and predicate is not None:
                    predicate = datagram_predicate(matcher, {}, predicate)
            except OptionError:
                continue
            if predicate is not None:
                predicates[name] = predicate
    return predicates

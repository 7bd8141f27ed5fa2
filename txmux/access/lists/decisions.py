"""What CrowdSec tells of its decisions, and who is banned by that. Pure.

Source: CrowdSec, Local API, ``GET /v1/decisions/stream``.
"""

from __future__ import annotations

import re
from contextlib import suppress
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from txmux.access.bans import banned_network
from txmux.rules.model import NetworkSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from txmux.rules.model import IPNetwork

__all__ = ["Decisions", "seconds_in"]

_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(h|ms|m|s|us|µs|ns)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_SCOPES = frozenset({"ip", "range"})


def seconds_in(duration: str) -> float:
    """Read a duration as Go writes it, such as ``3h59m49.4s``.

    Raises:
        ValueError: It is not one.
    """
    sign, text = (-1, duration[1:]) if duration.startswith("-") else (1, duration)
    if not text or _PART.sub("", text):
        raise ValueError(f"{duration!r} is not a duration")
    return sign * sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


class Decisions:
    """The bans that are known of one CrowdSec."""

    def __init__(self) -> None:
        self._until: dict[IPNetwork, float] = {}

    def replace(self, told: object, now: float) -> None:
        """Take in the answer to ``startup=true``, which has all that hold.

        Args:
            told: The answer, whatever it may be.
            now: The time, in seconds.

        Raises:
            ValueError: It is not one; all is as before.
        """
        new, _ = _listed(told)
        self._until = dict(_bans(new, now))

    def change(self, told: object, now: float) -> None:
        """Take in an answer that tells what has changed since the last one; the arguments are those of `replace`."""
        new, deleted = _listed(told)
        for network, _ in _bans(deleted, now):
            self._until.pop(network, None)
        self._until.update(_bans(new, now))

    def networks(self, now: float) -> NetworkSet:
        """Return who is banned, and forget whose time is over."""
        self._until = {network: until for network, until in self._until.items() if until > now}
        return NetworkSet(self._until)


def _listed(told: object) -> tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]]:
    """Return the new decisions of an answer, and the deleted ones.

    CrowdSec always tells both, if only as ``null``. What something before it answers in its place may be JSON, too, and must let nobody in.
    """
    if not isinstance(told, dict):
        raise ValueError("its answer is not an object of JSON")  # noqa: TRY004 - it came in as text
    return _list_of(told, "new"), _list_of(told, "deleted")


def _list_of(told: dict[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    found = told.get(name, ...)
    if found is None:
        return ()
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ValueError(f"there is no list of {name} decisions in its answer")
    return found


def _bans(decisions: Iterable[Mapping[str, Any]], now: float) -> Iterator[tuple[IPNetwork, float]]:
    """Yield whom decisions ban; others than bans, and of other things than addresses, are left out."""
    for one in decisions:
        # One that cannot be read must not save the others.
        with suppress(KeyError, TypeError, AttributeError, ValueError):
            if one["type"].lower() == "ban" and one["scope"].lower() in _SCOPES:
                yield _network(one["value"]), now + seconds_in(one["duration"])


def _network(value: str) -> IPNetwork:
    try:
        return banned_network(value)
    except ValueError:
        return ip_network(value, strict=False)  # 192.0.2.7/24 is meant as its network

"""Single tests of HAProxy, taken apart, and those that ask where a client has come in."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

import attrs

from txmux.convert.terms import ALWAYS, NEVER, Condition, InexpressibleError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from txmux.convert.haproxy.place import Place

_OPERATORS = {
    "eq": lambda value, low, high: low <= value <= high,
    "ge": lambda value, low, _: value >= low,
    "gt": lambda value, _, high: value > high,
    "le": lambda value, _, high: value <= high,
    "lt": lambda value, low, _: value < low,
}

PLACED = frozenset({"dst", "dst_port", "ssl_fc"})
"""What depends on the place where a client has come in."""


@attrs.frozen
class Criterion:
    """One test, taken apart.

    Attributes:
        name: Of the fetch method.
        args: What is in its parentheses.
        converters: What changes the sample.
        method: After ``-m``, or implied by the name; else nothing.
        ignore_case: ``-i`` is there.
    """

    name: str
    args: str
    converters: tuple[str, ...]
    method: str
    ignore_case: bool
    values: tuple[str, ...]


def _range(text: str, unit: int) -> tuple[int, int]:
    """Read a number, a range of them, or decimals, which are numbers times `unit`."""
    low, colon, high = text.partition(":")
    ends = (low, high) if colon else (low, low)
    numbers = []
    for end, absent in zip(ends, (0, 10**9), strict=True):
        if end and not re.fullmatch(r"\d{1,9}(\.\d{1,2})?", end):
            raise InexpressibleError(f"'{text}' is not a number")
        whole, _, fraction = end.partition(".")
        numbers.append(int(whole) * unit + int(fraction or 0) if end else absent)
    return numbers[0], numbers[1]


def compared(test: Criterion, numbers: Iterable[int], unit: int = 1) -> list[int]:
    """Return those of the numbers that a test is true of."""
    values = list(test.values)
    compare = _OPERATORS[values.pop(0) if values and values[0] in _OPERATORS else "eq"]
    ranges = [_range(value, unit) for value in values]
    return [n for n in numbers if any(compare(n, low, high) for low, high in ranges)]


def placed(test: Criterion, place: Place) -> Condition:
    """Return whether what is asked for is so at a place, for whoever comes there.

    Raises:
        InexpressibleError: It depends on the client.
    """
    if test.name == "ssl_fc":
        return ALWAYS if place.secured else NEVER
    if test.name == "dst_port" and place.port.isdecimal():
        return ALWAYS if compared(test, [int(place.port)]) else NEVER
    if test.name == "dst":
        try:
            host = ipaddress.ip_address(place.host)
            if not host.is_unspecified:
                networks = [ipaddress.ip_network(value, strict=False) for value in test.values]
                return ALWAYS if any(host in network for network in networks) else NEVER
        except ValueError:
            pass
    raise InexpressibleError(f"{test.name} is not known where the client comes in")

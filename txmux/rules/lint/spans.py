"""Sets of clients as intervals, to compare what routes and listeners serve."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from txmux.rules.model import NetworkSet

__all__ = ["EVERYONE", "NOBODY", "WITH_ADDRESS", "Clients", "clients"]

_Span = tuple[int, int]

# All clients on one line of numbers: those without an IP address, as on a UNIX socket; IPv4; IPv6.
_START = {4: 0, 6: 1 << 32}
_FIRST, _END = -1, (1 << 32) + (1 << 128)


@attrs.frozen
class Clients:
    """A set of clients.

    Attributes:
        spans: Intervals without their ends: sorted, apart from each other, none empty.
    """

    spans: tuple[_Span, ...]

    def __bool__(self) -> bool:
        return bool(self.spans)

    def __invert__(self) -> Clients:
        edges = [_FIRST, *(edge for span in self.spans for edge in span), _END]
        gaps = zip(edges[::2], edges[1::2], strict=True)
        return Clients(tuple(gap for gap in gaps if gap[0] < gap[1]))

    def __or__(self, other: Clients) -> Clients:
        return self if self is other else Clients(tuple(_merged((*self.spans, *other.spans))))

    def __and__(self, other: Clients) -> Clients:
        # Mostly all are let in, or one set is all that there is; it may be of a hundred thousand networks.
        if self is other or other is EVERYONE:
            return self
        return other if self is EVERYONE else ~(~self | ~other)

    def __sub__(self, other: Clients) -> Clients:
        if self is other:
            return NOBODY
        return self if self._is_apart(other) else ~(~self | other)

    def _is_apart(self, other: Clients) -> bool:
        """Tell whether the sets lie beside each other, which is quickly found and the case for most pairs of routes."""
        if not (self.spans and other.spans):
            return True
        return self.spans[-1][1] <= other.spans[0][0] or other.spans[-1][1] <= self.spans[0][0]


@cache
def clients(allowed: NetworkSet | None, excluded: NetworkSet | None) -> Clients:
    """Give the clients that are allowed and not excluded. What was found is kept until `clients.cache_clear()`.

    Args:
        allowed: The only networks; ``None`` is everyone, also clients without an IP address.
        excluded: Networks that are taken out.
    """
    some = EVERYONE if allowed is None else _of(allowed)
    return some if excluded is None else some - _of(excluded)


def _of(networks: NetworkSet) -> Clients:
    spans = networks.spans()
    return Clients(
        tuple(
            _merged(
                (_START[version] + first, _START[version] + end) for version, first, end in spans
            )
        )
    )


def _merged(spans: Iterable[_Span]) -> Iterator[_Span]:
    """Join spans that overlap or touch."""
    ordered = sorted(spans)
    if not ordered:
        return
    start, end = ordered[0]
    for next_start, next_end in ordered[1:]:
        if next_start > end:
            yield start, end
            start, end = next_start, next_end
        else:
            end = max(end, next_end)
    yield start, end


EVERYONE = Clients(((_FIRST, _END),))
"""All clients there can be."""

NOBODY = Clients(())
"""No clients."""

WITH_ADDRESS = Clients(((0, _END),))
"""Those that have an IP address."""

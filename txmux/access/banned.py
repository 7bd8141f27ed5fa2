"""Who is banned just now, in one process."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from txmux.access.bans import Change
    from txmux.rules.model import IPAddress

__all__ = ["Banned", "Row", "rows_of"]

Row: TypeAlias = "tuple[int, int, int, float | None]"
"""A change as a message between processes has it: the version, how many bits of an address may be any, the others as a number, and until
when it is banned, which is ``None`` for always and 0 for no more."""


def rows_of(changes: Iterable[Change]) -> list[Row]:
    """Return what other processes are told of changes."""
    rows: list[Row] = []
    for network, ban in changes:
        shift = network.max_prefixlen - network.prefixlen
        until = 0 if ban is None else None if ban.until == math.inf else ban.until
        rows.append((network.version, shift, int(network.network_address) >> shift, until))
    return rows


class Banned:
    """Networks that are banned until some time; whose time is over is let in without a timer.

    Args:
        now: Tells the time of day, in seconds since 1970.

    Attributes:
        any: Whether there may be somebody.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._until: dict[int, dict[int, dict[int, float]]] = {4: {}, 6: {}}
        self.any = False

    def change(self, rows: Iterable[Row]) -> bool:
        """Ban networks, or no more, as `rows_of` tells it.

        Returns:
            Whether anybody is banned who was not.
        """
        now, is_new = self._now(), False
        for version, shift, prefix, end in rows:
            by_shift = self._until[version]
            ends = by_shift.setdefault(shift, {})
            before, until = ends.pop(prefix, 0.0), math.inf if end is None else float(end)
            if until:
                ends[prefix] = until
                is_new = is_new or before <= now < until
            elif not ends:  # each length that is there costs all clients a look
                del by_shift[shift]
        self.any = any(self._until.values())
        return is_new

    def __contains__(self, address: IPAddress) -> bool:
        number = int(address)
        for shift, ends in self._until[address.version].items():
            until = ends.get(number >> shift)
            if until is not None and until > self._now():
                return True
        return False

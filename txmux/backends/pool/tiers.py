"""Which members may be used, and in which order their groups are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs

from txmux.backends.pool.server_health import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from txmux.backends.pool.member import Member

_SUSPECT = {State.EJECTED, State.PROBING}
"""What connections have found of a member, not its checks."""


@attrs.frozen
class Tiers:
    """Members in groups, of which each is used only when none of those before it is left.

    Attributes:
        usable: Those that are up, or whose ejection is over.
        last_resort: Those that are ejected or being tried, for connections that would find nobody otherwise.
        in_shortage: Whether no member is up, so that the last resort is all there is.
        probe_at: When the next ejection is over, so that they have to be arranged again; infinite if there is none.
    """

    usable: Sequence[Sequence[Member]] = ()
    last_resort: Sequence[Sequence[Member]] = ()
    in_shortage: bool = False
    probe_at: float = math.inf

    @classmethod
    def of(cls, members: Iterable[Member], now: float, *, has_last_resort: bool) -> Tiers:
        """Arrange members.

        Args:
            members: All members, in the order of the rules.
            now: The time, in seconds.
            has_last_resort: Whether those that are ejected are used rather than nobody.

        Returns:
            New groups each time, as balancers want it.
        """
        usable, suspect = [], []
        for member in members:
            if member.state is State.UP or is_due(member, now):
                usable.append(member)
            elif member.state in _SUSPECT:
                suspect.append(member)
        return cls(
            _groups(usable),
            _groups(suspect) if has_last_resort else (),
            has_last_resort
            and bool(usable or suspect)
            and all(member.state is not State.UP for member in usable),
            min(
                (m.health.out_until for m in suspect if m.state is State.EJECTED),
                default=math.inf,
            ),
        )


def is_due(member: Member, now: float) -> bool:
    """Return whether a member's ejection is over, so that one connection may try it."""
    return member.state is State.EJECTED and member.health.out_until <= now


def _groups(members: Iterable[Member]) -> list[list[Member]]:
    groups: dict[tuple[bool, int], list[Member]] = {}
    for member in members:
        groups.setdefault(member.rank, []).append(member)
    return [groups[rank] for rank in sorted(groups)]

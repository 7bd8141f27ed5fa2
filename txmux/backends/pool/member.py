"""One address of a backend, and how it is."""

from __future__ import annotations

import math
from hashlib import blake2b
from typing import TYPE_CHECKING

import attrs

from txmux.backends.pool.server_health import ServerHealth, State
from txmux.telemetry.counting.process_counters import ProcessCounters

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from txmux.rules.model import Server
    from txmux.telemetry.counting.counts import ServerCounts


@attrs.frozen
class ResolvedAddress:
    """One address that a name has.

    Attributes:
        host: An IP address.
        weight: Its share among the addresses of the name, as in an SRV record (RFC 2782).
        priority: Only when none with a lower number is up, it is used.
        name: The host that has the address, which TLS verifies; empty is the server's own.
    """

    host: str
    port: int
    weight: int = 1
    priority: int = 0
    name: str = ""


def _uncounted() -> ServerCounts:
    return ProcessCounters().server("", "")


@attrs.define(eq=False)
class Member:
    """One address that a backend's connections can be led to. `Pool` makes it and alone changes it.

    Attributes:
        server: What the rules say.
        target: The same with an IP address for a name: what is connected to, unless that depends on the client: see
            `target_for`. Its ``text`` is for logs.
        name: The host name of it, which TLS verifies; empty if there is none.
        share: What its weight is multiplied by: its share among the addresses of the name.
        rank: Only when none of a lower one is up, it is used.
        counts: Counts the connections to its server.
        seed: Its part in the choice by a hash; the same in every process and on every machine.
    """

    server: Server
    target: Server
    name: str
    weight: int = 1
    rank: tuple[bool, int] = (False, 0)
    share: int = 1
    health: ServerHealth = attrs.field(factory=ServerHealth)
    counts: ServerCounts = attrs.field(factory=_uncounted)
    seed: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        digest = blake2b(self.target.text.encode(), digest_size=8).digest()
        self.seed = int.from_bytes(digest, "big")

    @property
    def state(self) -> State:
        """Whether connections are led to it."""
        health = self.health
        return State.DISABLED if self.server.down else health.held or health.state

    @property
    def connections(self) -> int:
        return self.health.connections

    @property
    def why(self) -> str:
        """What led to the state."""
        if self.server.down:
            return "the rules say down"
        return "an operator asked for it" if self.health.held else self.health.why

    def weigh(self) -> None:
        self.weight = (self.health.weight or self.server.weight) * self.share

    def target_for(self, local: str) -> Server:
        """Return what a client is connected to that has asked for this IP address; without one, `target` as it is."""
        if not local or not self.server.depends_on_client:
            return self.target
        return self.server.at(local)

    def is_at(self, place: str) -> bool:
        """Return whether a connection to this address, which is written as in the access log, goes to it."""
        if self.server.depends_on_client:
            return place.endswith(f":{self.server.port}")
        return place == self.target.text

    def has_room(self) -> bool:
        """Return whether its own limit leaves room for a connection."""
        most = self.server.max_connections
        return not most or self.health.connections < most


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

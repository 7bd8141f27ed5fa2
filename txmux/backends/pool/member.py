"""One address of a backend with its state, and groups of members in the order in which they are used."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from hashlib import blake2b

import attrs

from txmux.backends.connect.socket_plan import ServerSocketPlan
from txmux.backends.pool.server_health import BY_OPERATOR, MemberState, ServerHealth
from txmux.classes import define, frozen
from txmux.net.sockets.client import socket_name
from txmux.net.sockets.plainsocket import SocketOption
from txmux.rules.model import Server
from txmux.telemetry.counting.counter_groups import ServerCounts
from txmux.telemetry.counting.process_counters import ProcessCounters
from txmux.telemetry.formatting import AND_DOWN

_LEAST_PART = 0.01
"""Of its weight, for a server that has just come."""


@frozen
class ResolvedAddress:
    """One address of a name."""

    host: str
    port: int
    weight: int = 1  # its share among the addresses of the name, as in an SRV record (RFC 2782)
    priority: int = 0  # it is used only when none with a lower number is up
    name: str = ""  # the host that has the address, which TLS verifies; empty is the server's own


@define(eq=False)
class Member:
    """One address for a backend's connections. Only `BackendPool` makes and changes it."""

    server: Server
    target: Server  # with an IP address for a name; its text is for logs
    name: str  # its host name, which TLS verifies; empty if there is none
    weight: float = 1  # less than the full one while it starts slowly
    rank: tuple[bool, int] = (False, 0)  # it is used only when none of a lower rank is up
    health: ServerHealth = attrs.field(factory=ServerHealth)
    counts: ServerCounts = attrs.field(factory=lambda: ProcessCounters().server("", ""))
    sockets: ServerSocketPlan = attrs.field(factory=ServerSocketPlan)
    share: int = 1  # among the addresses of the name; multiplies the weight
    takes_slot: bool = True  # of `max_connections`; not a copy for what is beside the sessions
    _options: tuple[SocketOption, ...] | None = attrs.field(default=None, init=False)
    # Family, and TCP address.
    socket_address: tuple[int, tuple[str, int]] | None = attrs.field(init=False)
    seed: int = attrs.field(init=False)  # in the choice by a hash; the same on every machine

    def __attrs_post_init__(self) -> None:
        digest = blake2b(self.target.text.encode(), digest_size=8).digest()
        target = self.target
        # Without a port it is that of the client.
        is_literal = target.kind == "tcp" and target.port > 0 and "%" not in target.host
        self.socket_address = (
            socket_name("tcp", target.host, target.port, "") if is_literal else None
        )
        self.seed = int.from_bytes(digest, "big")

    @property
    def options(self) -> tuple[SocketOption, ...]:
        """Those beside the listener's. They ask the system, which takes long for thousands of members at once."""
        if self._options is None:
            self._options = self.sockets.options_for(self.target)
        return self._options

    @property
    def state(self) -> MemberState:
        health = self.health
        return MemberState.DISABLED if self.server.down else health.held or health.state

    @property
    def connections(self) -> int:
        return self.health.connections

    @property
    def why(self) -> str:
        if self.server.down:
            return "the rules say down"
        health = self.health
        if health.held is None:
            return health.why
        is_down = health.state is MemberState.DOWN and health.held is MemberState.DRAIN
        return f"{BY_OPERATOR[health.held]}{f'{AND_DOWN}: {health.why}' if is_down else ''}"

    @property
    def full_weight(self) -> int:
        return (self.health.weight or self.server.weight) * self.share

    def ramp(self, now: float, slow_start: float) -> float:
        """Return its current share of its weight, which grows evenly during `slow_start`."""
        came_at = self.health.came_at
        if not came_at or now - came_at >= slow_start:
            return 1
        return max(_LEAST_PART, (now - came_at) / slow_start)

    def is_at(self, target: str) -> bool:
        """Return whether a connection to this address, written as in the access log, is to this member."""
        if self.server.depends_on_client:
            return target.endswith(f":{self.server.port or ''}") or not self.server.port
        return target == self.target.text

    def has_room(self) -> bool:
        most = self.server.max_connections
        return not most or self.health.connections < most


SUSPECT = {MemberState.EJECTED, MemberState.PROBING}
"""States caused by failed connections, not by checks."""


@frozen
class Tiers:
    """Members in groups; a group is used only when the groups before it have no member left."""

    usable: Sequence[Sequence[Member]] = ()  # up, or with an ejection that has ended
    last_resort: Sequence[Sequence[Member]] = ()  # ejected, for connections without any other
    probe_at: float = math.inf  # the next end of an ejection, to be arranged again

    @classmethod
    def arranged(cls, members: Iterable[Member], now: float, *, has_last_resort: bool) -> Tiers:
        """Arrange members, which are in the order of the rules; new groups each time, as balancers need them."""
        usable, suspect = [], []
        for member in members:
            if member.state is MemberState.UP or is_due(member, now):
                usable.append(member)
            elif member.state in SUSPECT:
                suspect.append(member)
        # They have a share of those beside others.
        if all(member.server.final for member in usable):
            usable = []
        return cls(
            _groups(usable),
            _groups(suspect) if has_last_resort else (),
            min(
                (m.health.out_until for m in suspect if m.state is MemberState.EJECTED),
                default=math.inf,
            ),
        )


def is_due(member: Member, now: float) -> bool:
    return member.state is MemberState.EJECTED and member.health.out_until <= now


def _groups(members: Iterable[Member]) -> list[list[Member]]:
    groups: dict[tuple[bool, int], list[Member]] = {}
    for member in members:
        groups.setdefault(member.rank, []).append(member)
    return [groups[rank] for rank in sorted(groups)]

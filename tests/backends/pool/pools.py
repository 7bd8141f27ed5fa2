from random import Random
from typing import Any

import attrs
from twisted.internet.task import Clock

from txmux.backends.pool.member import Member
from txmux.backends.pool.pool import BackendPool
from txmux.backends.pool.server_health import MemberState
from txmux.rules.model import Backend, Server
from txmux.rules.reading.endpoints import server


def servers(*texts: str, **options: Any) -> tuple[Server, ...]:
    return tuple(attrs.evolve(server(text), **options) for text in texts)


SPARE = Backend("spare", servers("10.0.9.1:80"))
"""As a fallback: there is a server left when all of the backend are out, so none has to be a last resort."""


class Watched:
    """A pool, its clock, and its changes: ``server: before -> after``, and ``short`` when no server is up any more, ``up again``."""

    def __init__(
        self, *of: Server, backend_health: Any = None, clock: Clock | None = None, **options: Any
    ) -> None:
        self.clock = clock or Clock()
        self.changes: list[str] = []
        backend = Backend("b", of or servers("10.0.0.1:80", "10.0.0.2:80"), **options)
        self.pool = BackendPool(
            backend, self.clock.seconds, self._changed, Random(1), backend_health
        )
        self.pool.on_shortage = lambda began: self.changes.append("short" if began else "up again")
        self.members = self.pool.members

    def _changed(self, member: Member, before: MemberState) -> None:
        self.changes.append(f"{member.target.text}: {before.value} -> {member.state.value}")

    def pick(self, *tried: Member, client: str = "") -> Member:
        found = self.pool.pick(client, tried)
        assert isinstance(found, Member), found
        return found

    def take_out(self, member: Member) -> None:
        others = [other for other in self.pool.members if other is not member]
        while member.state is MemberState.UP:
            found = self.pool.pick("", others)
            assert found is member, found
            self.pool.failed(member)

"""Workers that are ready for other rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

if TYPE_CHECKING:
    from txmux.backends.upstreams import PreparedUpstreams
    from txmux.processes.workers.worker import Worker
    from txmux.rules.model import Rules

__all__ = ["PreparedWorkers"]


class _Parent(Protocol):
    is_changing: bool

    async def commit(self, prepared: PreparedWorkers, /) -> int: ...


@attrs.define
class PreparedWorkers:
    """Workers that are ready for other rules, with the IDs of their processes; ends by `commit` or `abandon`."""

    _parent: _Parent
    rules: Rules
    upstreams: PreparedUpstreams
    workers: dict[Worker, int]
    afresh: bool = attrs.field(kw_only=True)

    async def commit(self) -> int:
        """Have them accept the next clients under these rules, and tell how many connections go on under older ones.

        Everything that decides has happened when this first waits.
        """
        return await self._parent.commit(self)

    def abandon(self) -> None:
        """Have all go on as before."""
        self._parent.is_changing = False
        self.upstreams.abandon()
        for worker in self.workers:
            worker.tell("abandon")

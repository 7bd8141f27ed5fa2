"""Workers under other rules, or in place of one process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, DeferredList, FirstError

from txmux.processes.supervisor.parent import Parent
from txmux.serving.store import close_socket

if TYPE_CHECKING:
    from txmux.processes.privilege.opener import Opener
    from txmux.processes.supervisor.limits import SharedLimits
    from txmux.rules.model import Rules
    from txmux.serving.opening import Opening
    from txmux.serving.store import ListeningSockets, PreparedSockets

__all__ = ["change_workers", "start_workers"]


async def change_workers(
    parent: Parent,
    store: ListeningSockets,
    rules: Rules,
    owner: tuple[int, int] | None,
    *,
    afresh: bool,
) -> int:
    """Have workers serve other rules, and give the number of connections that keep the older ones.

    Args:
        parent: Of the workers.
        store: The sockets of the service.
        rules: The others.
        owner: The user and group IDs that the workers run as.
        afresh: Whether these are others at all; otherwise only files are read again.

    Raises:
        MuxError: They cannot; nothing has changed.
    """
    sockets = store.prepare(rules.listeners)
    try:
        prepared = await parent.prepare(rules, sockets, owner, afresh=afresh)
    except BaseException:
        sockets.abandon()
        raise
    unused = sockets.commit()
    older = await prepared.commit()
    for key, opened in unused.items():
        close_socket(key, opened)
    return older


async def start_workers(
    rules: Rules,
    opening: Opening,
    store: ListeningSockets,
    sockets: PreparedSockets,
    limits: SharedLimits,
    opener: Opener | None,
    owner: tuple[int, int] | None,
    *,
    generation: int,
) -> Parent:
    """Start workers that could serve, but do not accept yet; `generation` is the number of the version of the rules.

    Raises:
        MuxError: One cannot start; then none is left.
    """
    failed: Deferred[None] = Deferred()
    parent = Parent(
        rules,
        opening.reactor,
        store,
        limits,
        opener,
        opening.counters,
        failed.errback,
        accepting=False,
    )
    parent.generation = generation
    parent.check(owner)
    parent.start(sockets.sockets)
    try:
        await DeferredList(
            [parent.all_ready(), failed],
            fireOnOneCallback=True,
            fireOnOneErrback=True,
            consumeErrors=True,  # this alone tells of them
        )
    except FirstError as problem:
        await parent.drain()
        problem.subFailure.raiseException()
    return parent

"""Several processes go on with what one does, or one with what several do."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from twisted.internet import defer
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.logger import Logger

from txmux.processes.channel.channel import ChannelError
from txmux.processes.supervisor.changing import change_workers, start_workers
from txmux.processes.supervisor.parent import Parent
from txmux.processes.upgrade.collecting import UNCOLLECTED
from txmux.processes.upgrade.exchange import OneProcess, Together
from txmux.serving.serving import Serving
from txmux.serving.store import close_socket

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from twisted.internet.interfaces import IListeningPort
    from twisted.python.failure import Failure

    from txmux.processes.privilege.opener import Opener
    from txmux.processes.supervisor.counting import Counting
    from txmux.processes.upgrade.exchange import Exchange
    from txmux.rules.model import Rules
    from txmux.serving.door import Forwarding
    from txmux.serving.opening import Opening
    from txmux.serving.store import ListeningSockets

__all__ = ["Kinds"]

_AGAIN = 0.5
"""Seconds until it is looked once more whether a process still takes over connections."""

_LONGEST = 5.0
"""Seconds that flows of datagrams may take from one process to another."""


class Kinds:
    """What serves clients is this process, or workers; what served them before keeps the connections that cannot be moved.

    There is at most one of each kind: what retires serves again when its kind is wanted before its last connection has ended.

    Args:
        sockets: Those of the service.
        opening: Lets this process serve.
        counting: What all processes count together.
        opener: Gives what opens what workers may not open, if there is such a helper.

    Attributes:
        retiring: What keeps connections from before.
    """

    _log = Logger()

    def __init__(
        self,
        sockets: ListeningSockets,
        opening: Opening,
        counting: Counting,
        opener: Callable[[], Opener | None],
    ) -> None:
        self._sockets = sockets
        self._opening = opening
        self._counting = counting
        self._opener = opener
        self.retiring: list[Serving | Parent] = []
        self._returning: Serving | Parent | None = None
        self._takers: dict[Serving, OneProcess] = {}
        self._givers: dict[Serving | Parent, OneProcess] = {}

    async def change(
        self, opened: Serving | Parent, rules: Rules, owner: tuple[int, int] | None
    ) -> tuple[Serving | Parent, int]:
        """Let the other kind serve.

        Args:
            opened: What serves now.
            rules: What the other kind serves.
            owner: The user and group IDs that workers run as.

        Returns:
            What serves, and the number of connections that go on under older rules.

        Raises:
            MuxError: That cannot be; nothing has changed.
        """
        before = {*self._sockets.sockets()}
        new: Serving | Parent
        if isinstance(opened, Parent):
            new = await self._one(opened, rules, owner)
        else:
            new = await self._several(opened, rules, owner)
        older = (await opened.status())["active"]
        if new in self.retiring:
            self.retiring.remove(new)
            self._returning = None
            self._keep_no_places(new)
        self.retiring.append(opened)
        gone = sorted(before - {*self._sockets.sockets()})
        ended = self._retire(opened, new, gone)
        ended.addCallback(lambda _: self._ended(opened))
        await self._flows_moved(opened, new)
        return new, int(older)

    async def _one(self, parent: Parent, rules: Rules, owner: tuple[int, int] | None) -> Serving:
        known = await parent.state()
        for again in self.retiring:
            if isinstance(again, Serving):
                with self._return(again):
                    again.number = parent.generation
                    again.doors.await_flows()
                    await self._opening.change(again, rules, owner, afresh=True)
                    again.recall(known)
                return again
        others: dict[str, tuple[IListeningPort, Forwarding]] = {}
        with ExitStack() as undo:
            sockets = self._sockets.prepare(rules.listeners)
            undo.callback(sockets.abandon)
            new = self._opening.make(rules, owner)
            new.number = parent.generation + 1
            undo.callback(new.give_up)
            new.doors.await_flows()
            new.recall(known)
            await self._opening.open_others(new, rules, others)
            self._opening.listen_all(new, rules, sockets.sockets, others)
            undo.pop_all()
        for key, unused in sockets.commit().items():
            close_socket(key, unused)
        return new

    async def _several(
        self, serving: Serving, rules: Rules, owner: tuple[int, int] | None
    ) -> Parent:
        for again in self.retiring:
            if isinstance(again, Parent):
                with self._return(again):
                    known = await serving.state()
                    again.generation = serving.number
                    again.pool.is_left_alone = True
                    await change_workers(again, self._sockets, rules, owner, afresh=True)
                    again.recall(known)
                    if not again.is_served():
                        await again.all_ready()
                return again
        sockets = self._sockets.prepare(rules.listeners)
        try:
            new = await start_workers(
                rules,
                self._opening,
                self._sockets,
                sockets,
                self._counting.limits(rules),
                self._opener(),
                owner,
                generation=serving.number + 1,
            )
        except BaseException:
            sockets.abandon()
            raise
        unused = sockets.commit()
        new.recall(await serving.state())
        new.pool.is_left_alone = True
        try:
            await new.accept()
        except ChannelError as problem:  # whoever does not answer is replaced
            self._log.warn("a worker does not accept clients yet: {why}", why=problem)
        for key, one in unused.items():
            close_socket(key, one)
        return new

    def _retire(
        self, opened: Serving | Parent, new: Serving | Parent, gone: list[str]
    ) -> Deferred[Any]:
        """Have no more clients accepted, and connections moved as far as that can be; what this gives fires when there are none."""
        if isinstance(opened, Parent):
            assert isinstance(new, Serving)  # noqa: S101 - it is the other kind
            taker = self._takers[new] = OneProcess(new, self._opening.reactor)
            return opened.retire(gone, taker.takers)
        assert isinstance(new, Parent)  # noqa: S101 - as above
        retired = opened.retire(gone)
        are_here = new.pool.await_flows()
        takers = new.pool.takers()
        new.pool.is_left_alone = False
        new.pool.share_datagrams()
        giver = self._givers[opened] = OneProcess(opened, self._opening.reactor)
        moving = giver.hand_over(takers)
        moved = Deferred.fromCoroutine(moving)
        moved.addCallbacks(lambda _: UNCOLLECTED.release(), self._unmoved)
        moved.addCallback(lambda _: are_here())
        return retired

    async def _flows_moved(self, opened: Serving | Parent, new: Serving | Parent) -> None:
        """Wait until flows of datagrams are where they go on, so that the next change finds them there."""
        giver = self._givers.get(opened)
        moved = succeed(None) if giver is None else giver.flows_gone
        if isinstance(new, Serving):
            moved = new.doors.arrived()
        with suppress(defer.TimeoutError):
            await moved.addTimeout(_LONGEST, self._opening.reactor)

    def _keep_no_places(self, retired: Serving | Parent) -> None:
        giver = self._givers.pop(retired, None)
        if giver is not None:
            giver.keep_no_places()

    async def settle(self) -> None:
        """Let nothing take over connections any more, and wait for those on their way, since all is about to end."""
        await gatherResults([Deferred.fromCoroutine(one.close()) for one in self._takers.values()])

    def end_removed(
        self, opened: Serving | Parent, routes: Collection[str], backends: Collection[str]
    ) -> None:
        """End the connections of what is gone, also of what retires; see `Serving.end_removed`."""
        opened.end_removed(routes, backends)
        for retiring in self.retiring:
            retiring.end_removed(routes, backends, retired=True)

    def exchange(self, opened: Serving | Parent) -> Exchange:
        """Give how what serves, with what retires, takes the place of another process, and another one its."""
        return Together(self._exchange_of(opened), [*map(self._exchange_of, self.retiring)])

    def _exchange_of(self, one: Serving | Parent) -> Exchange:
        if isinstance(one, Parent):
            return one.exchange
        return OneProcess(one, self._opening.reactor)

    def _unmoved(self, failure: Failure) -> None:
        self._log.failure("connections stay in this process until they end", failure)

    @contextmanager
    def _return(self, again: Serving | Parent) -> Iterator[None]:
        """Keep what retires from ending while it gets ready to serve again, and from then on until it retires no more."""
        self._returning = again
        try:
            yield
        except BaseException:
            self._returning = None
            self._wait_for_end(again)
            raise

    def _wait_for_end(self, retiring: Serving | Parent) -> None:
        """Wait once more, since what had told of the end of the last connection may have come too early, or while nobody listened."""
        if isinstance(retiring, Parent):
            self._ended(retiring)
        elif retiring in self.retiring and retiring is not self._returning:
            retiring.retire().addCallback(lambda _: self._ended(retiring))

    def _ended(self, opened: Serving | Parent) -> None:
        """Close what is left of what has ended its last connection."""
        if opened not in self.retiring or opened is self._returning:
            return  # it serves again, or is being stopped, or is about to serve again
        if not _is_over(opened):
            return  # this is told of an earlier time; that of its last connection is still to come
        if isinstance(opened, Serving):
            taker = self._takers.get(opened)
            if taker is not None and taker.is_busy:
                # Workers still hand it connections.
                self._opening.reactor.callLater(_AGAIN, self._wait_for_end, opened)
                return
            self._takers.pop(opened, None)
        self.retiring.remove(opened)
        self._keep_no_places(opened)
        Deferred.fromCoroutine(opened.drain())


def _is_over(retiring: Serving | Parent) -> bool:
    if isinstance(retiring, Parent):
        return not retiring.pool.all()
    return not retiring.connections()

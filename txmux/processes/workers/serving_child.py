"""What a worker's process does."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txmux.errors import MuxError
from txmux.files import use_helper
from txmux.live.inside import Inside
from txmux.observe.access_log import open_log
from txmux.observe.counting.column import Column
from txmux.observe.counting.column import Layout as CountersLayout
from txmux.processes.channel.channel import Channel
from txmux.processes.privilege.account import account_of
from txmux.processes.privilege.opener import Opener
from txmux.processes.privilege.sandbox import confine
from txmux.processes.upgrade.exchange import OneProcess
from txmux.processes.workers.starting import Opened, Prepare, Start, close, named, read, sockets_of
from txmux.serving.places import places_of
from txmux.serving.serving import Serving
from txmux.sockets.poller import after_turn

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence

    from txmux.frontend.limits.admission import Admission
    from txmux.processes.supervisor.limits import SharedLimits
    from txmux.rules.model import Listener, Rules
    from txmux.serving.prepared import Prepared

__all__ = ["Child"]


class Child:
    """Serves what its parent tells it to, until the parent tells it to stop, or has ended.

    Args:
        number: Which worker this is, counted from 1.
        reactor: The process's own.

    Attributes:
        channel: Leads to the parent.
        status: What the process ends with.
    """

    _log = Logger()

    def __init__(self, number: int, reactor: Any) -> None:
        self._number = number
        self._reactor = reactor
        self._serving: Serving | None = None
        self._exchange: OneProcess | None = None
        self._limits: SharedLimits | None = None
        self._column = Column()
        self._prepared: tuple[Prepared, Sequence[socket.socket]] | None = None
        self._stopping = self._drained = False
        self.status = 0
        handlers: dict[str, Callable[..., object]] = {
            "count_in": self._count_in,
            "count_more": self._count_more,
            "start": self._start,
            "stop": self.stop,
            "ping": _answer,
        }
        self.channel = Channel(handlers, self._alone, reactor)

    def _count_in(self, descriptors: Sequence[int], **told: Any) -> None:
        """Count where the parent reads, from the start.

        Args:
            descriptors: The memory, and what stays open for as long as this process may count.
            told: See `CountersLayout`.
        """
        try:
            memory, life = descriptors
            self._column = Column(read(CountersLayout, told), memory)
        except (MuxError, ValueError) as problem:
            for descriptor in descriptors:
                os.close(descriptor)
            self._log.error(
                "the numbers of this process are missing in the metrics: {why}", why=problem
            )
            raise
        weakref.finalize(self._column, os.close, life)
        del self.channel.handlers["count_in"]

    def _count_more(self, places: dict[str, int], cells: int, gone: Sequence[str] = ()) -> None:
        """Make use of memory that the parent has made for other rules, and no more of what is gone."""
        more = read(CountersLayout, {"places": places, "cells": cells})
        known = self._column.layout
        for key in gone:
            known.places.pop(key, None)
        known.places.update(more.places)
        known.cells = more.cells
        self._column.use()

    def _start(self, descriptors: Sequence[int], **told: Any) -> None:
        """Serve.

        Args:
            descriptors: See `Opened`.
            told: See `Start`.
        """
        del self.channel.handlers["start"]
        try:
            self._serve(*_received(descriptors, told))
        except Exception:
            self.status = 1
            self._reactor.callLater(0, self._over)  # once the parent is told
            raise

    def begin(self, serving: Serving, exchange: OneProcess) -> None:
        """Do for the parent what one does that serves.

        Args:
            serving: What it serves.
            exchange: Hands its connections over, and takes over others.
        """
        self._serving, self._exchange = serving, exchange
        self.channel.handlers.update(
            end_all=serving.end_all,
            reopen=serving.reopen_log,
            check=serving.check_found,
            servers=serving.servers,
            recall=serving.recall,
            prepare=self._prepare,
            commit=self._commit,
            abandon=self._abandon,
            end_removed=serving.end_removed,
            status=serving.status,
            missing=serving.missing,
            retire=self._retire,
            leave=self._leave,
            take_datagrams=serving.doors.take_datagrams,
            leave_datagrams=serving.doors.leave_datagrams,
            await_flows=serving.doors.await_flows,
            flows_are_here=serving.doors.flows_are_here,
            **exchange.handlers,
            **Inside(serving).handlers,
            listen=self._listen,
        )

    def _listen(self, *, on: bool) -> None:
        """Tell the parent of what happens, or no more."""

        def tell(event: dict[str, Any]) -> None:
            self.channel.send("event", event=event)

        if self._serving is not None:
            Inside(self._serving).listen(tell if on else None)

    def _serve(self, start: Start, opened: Opened) -> None:
        if opened.opener is not None:
            use_helper(Opener(opened.opener).open_file)
        rules, limits = start.rules, opened.limits
        self._limits = limits
        try:
            confine(start.sandbox)  # before anything can start a thread, which would stay free
            admission = self._admission(rules)
            account = account_of(rules)
            access_log = open_log(
                rules.settings, after_turn(self._reactor), account.owner if account else None
            )
            serving = self._serving = Serving(
                rules,
                access_log,
                self._reactor,
                checking=False,
                accepting=False,  # the parent says when
                shared=True,
                hops=limits.hops,
                column=self._column,
            )
            serving.number = start.generation
            serving.admission = admission
            for listener in rules.listeners:
                factory = serving.add(listener, admission(listener))
                for place in places_of(listener):
                    serving.listen(factory, place.key, opened.sockets[place.key])
            if account is not None:
                account.become()
        finally:
            close(opened.sockets.values())  # each was duplicated
        serving.recall(start.state)
        self.begin(serving, OneProcess(serving, self._reactor))

    def _admission(self, rules: Rules) -> Callable[[Listener], Admission]:
        assert self._limits is not None  # noqa: S101 - it serves
        most = rules.settings.max_connections
        return self._limits.admissions(self._number, self._reactor.seconds, most)

    def _prepare(self, descriptors: Sequence[int], **told: Any) -> None:
        """Get ready for other rules.

        Args:
            descriptors: The listening sockets.
            told: See `Prepare`.
        """
        opened = sockets_of(descriptors)
        try:
            other = read(Prepare, told)
            sockets = named(other.sockets, opened, other.rules)
            self._abandon()
            if other.generation and self._serving is not None:
                self._serving.number = other.generation - other.afresh
            self._prepared = self._prepare_serving(other, sockets), opened
        except Exception:
            close(opened)
            raise

    def _prepare_serving(self, other: Prepare, sockets: Mapping[str, socket.socket]) -> Prepared:
        serving, limits = self._serving, self._limits
        assert serving is not None  # noqa: S101 - nobody asks before
        assert limits is not None  # noqa: S101 - as above
        limits.use(other.limits)
        rules = other.rules
        access_log = open_log(rules.settings, after_turn(self._reactor))
        try:
            return serving.prepare(
                rules, sockets, self._admission(rules), access_log, afresh=other.afresh
            )
        except Exception:
            if access_log is not None:
                access_log.close()
            raise

    def _commit(self, *, listening: bool = True) -> int:
        """Serve under the rules that were prepared.

        Args:
            listening: Whether clients are to come in; otherwise this process retires.

        Returns:
            The number of connections that go on under older rules.
        """
        assert self._serving is not None  # noqa: S101 - nobody asks before
        if self._prepared is not None:
            (prepared, opened), self._prepared = self._prepared, None
            if listening and self._exchange is not None:
                self._exchange.keep_no_places()
            # Who comes while this process ends is for another one.
            prepared.commit(listening=listening and not self._stopping)
            for one in opened:
                one.close()
        return len(self._serving.older())

    def _abandon(self) -> None:
        """Go on under the rules that there are."""
        if self._prepared is not None:
            (prepared, opened), self._prepared = self._prepared, None
            prepared.abandon()
            if prepared.access_log is not None:
                prepared.access_log.close()
            for one in opened:
                one.close()

    def _retire(self, gone: Sequence[str] = ()) -> Deferred[None]:
        """Accept no more; answer when the connections have ended, however long they take; see `Serving.retire`."""
        assert self._serving is not None  # noqa: S101 - nobody asks before
        return self._serving.retire(gone).addCallback(_nothing)

    def _leave(self) -> bool:
        """End the process, unless there are connections, or some are on their way; tell whether it does."""
        assert self._serving is not None  # noqa: S101 - nobody asks before
        assert self._exchange is not None  # noqa: S101 - as above
        is_over = not self._serving.connections() and not self._exchange.is_busy
        if is_over:
            self.stop()
        return is_over

    def be_replaced(self) -> None:
        """Ask the parent for a successor, to which the connections move; without a parent, stop."""
        if self.channel.is_open and self._serving is not None:
            self.channel.ask("replace").addErrback(lambda _: self.stop())
        else:
            self.stop()

    def stop(self) -> None:
        """Let connections finish, and end the process."""
        if not self._stopping:
            self._stopping = True
            Deferred.fromCoroutine(self._drain())

    async def _drain(self) -> None:
        if self._serving is not None:
            self._serving.doors.keep_flows()
            self._serving.pause()
            if self._exchange is not None:
                await self._exchange.close()
            await self._serving.drain()
        self._over()

    def _over(self) -> None:
        self._drained = True
        if self.channel.is_open:
            self.channel.close()
        else:
            self._reactor.stop()

    def _alone(self) -> None:
        if self._drained:
            self._reactor.stop()
        else:
            self._log.warn("the parent process is gone; worker {number} stops", number=self._number)
            self.stop()


def _received(descriptors: Sequence[int], told: Mapping[str, Any]) -> tuple[Start, Opened]:
    try:
        start = read(Start, told)
    except Exception:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    return start, Opened.by(start, descriptors)


def _answer() -> None:
    """Show that this process does its work."""


def _nothing(_: object) -> None:
    """Answer that it has happened."""

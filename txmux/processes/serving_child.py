"""What a worker's process does."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txmux.files import use_helper
from txmux.live.inside import Inside
from txmux.observe.access_log import open_log
from txmux.observe.counting.column import Column
from txmux.observe.counting.column import Layout as CountersLayout
from txmux.processes.account import account_of
from txmux.processes.channel import Channel
from txmux.processes.exchange import OneProcess
from txmux.processes.limits import Layout, SharedLimits
from txmux.processes.opener import Opener
from txmux.processes.sandbox import confine
from txmux.rules.model import Files
from txmux.rules.reading.parser import read_again
from txmux.serving.places import places_of
from txmux.serving.serving import Serving
from txmux.sockets.poller import after_turn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from txmux.frontend.limits.admission import Admission
    from txmux.processes.sandbox import Sandbox
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

    def _count_in(self, descriptors: Sequence[int], places: dict[str, int], cells: int) -> None:
        """Count where the parent reads, from the start. The second descriptor stays open for as long as this process may count."""
        self._column = Column(CountersLayout(places, cells), descriptors[0])

    def _count_more(self, places: dict[str, int], cells: int, gone: Sequence[str] = ()) -> None:
        """Make use of memory that the parent has made for other rules, and no more of what is gone."""
        for key in gone:
            self._column.layout.places.pop(key, None)
        self._column.layout.places.update(places)
        self._column.layout.cells = cells
        self._column.use()

    def _start(
        self,
        descriptors: Sequence[int],
        rules: dict[str, Any],
        limits: dict[str, Any],
        sockets: Sequence[str],
        state: Mapping[str, Any] | None = None,
        *,
        generation: int = 1,
        opener: bool = False,
        sandbox: Sandbox = "off",
    ) -> None:
        """Serve.

        Args:
            descriptors: The memory that all workers share, the listening sockets, and what leads to the opener.
            rules: What was in their files.
            limits: Where everything is in the memory.
            sockets: The keys of the places of the sockets, in their order.
            state: What is known already; see `txmux.serving.state`.
            generation: The number of the version of the rules.
            opener: Whether there is a helper that opens files.
            sandbox: Whether this process is to open none by itself; see `txmux.processes.sandbox`.
        """
        memory, *opened = descriptors
        if opener:
            use_helper(Opener(socket.socket(fileno=opened.pop())).open_file)
        try:
            serving = self._serving = self._serve(
                Files(**rules),
                memory,
                Layout(**limits),
                dict(zip(sockets, opened, strict=True)),
                generation,
                sandbox,
            )
            serving.recall({**(state or {})})
        except Exception:
            self.status = 1
            self._reactor.callLater(0, self._over)  # once the parent is told
            raise
        self.begin(serving, OneProcess(serving, self._reactor))

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

    def _serve(
        self,
        files: Files,
        memory: int,
        layout: Layout,
        sockets: Mapping[str, int],
        generation: int,
        sandbox: Sandbox,
    ) -> Serving:
        rules = read_again(files)
        confine(sandbox)  # before anything can start a thread, which would stay free
        limits = self._limits = SharedLimits(memory, layout)
        admission = self._admission(rules)
        account = account_of(rules)
        access_log = open_log(
            rules.settings, after_turn(self._reactor), account.owner if account else None
        )
        serving = Serving(
            rules,
            access_log,
            self._reactor,
            checking=False,
            accepting=False,  # the parent says when
            shared=True,
            hops=limits.hops,
            column=self._column,
        )
        serving.number = generation
        serving.admission = admission
        for listener in rules.listeners:
            factory = serving.add(listener, admission(listener))
            for place in places_of(listener):
                with socket.socket(fileno=sockets[place.key]) as opened:
                    # It is so already, but Python does not know, and would make a duplicate wait for clients.
                    opened.setblocking(False)  # noqa: FBT003 - the socket module's signature
                    serving.listen(factory, place.key, opened)
        if account is not None:
            account.become()
        return serving

    def _admission(self, rules: Rules) -> Callable[[Listener], Admission]:
        assert self._limits is not None  # noqa: S101 - it serves
        most = rules.settings.max_connections
        return self._limits.admissions(self._number, self._reactor.seconds, most)

    def _prepare(
        self,
        descriptors: Sequence[int],
        rules: dict[str, Any],
        limits: dict[str, Any],
        sockets: Sequence[str],
        generation: int = 0,
        *,
        afresh: bool,
    ) -> None:
        """Get ready for other rules.

        Args:
            descriptors: The listening sockets.
            rules: What was in their files.
            limits: Where everything is in the memory, in which there may be more now.
            sockets: The keys of the places of the sockets, in their order.
            generation: The number of the version of the rules; 0 is the next one, if they are others.
            afresh: Whether these are other rules at all.
        """
        opened = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        try:
            for one in opened:
                one.setblocking(False)  # noqa: FBT003 - the socket module's signature
            self._abandon()
            if generation and self._serving is not None:
                self._serving.number = generation - afresh
            self._prepared = (
                self._prepare_serving(
                    read_again(Files(**rules)),
                    Layout(**limits),
                    dict(zip(sockets, opened, strict=True)),
                    afresh=afresh,
                ),
                opened,
            )
        except Exception:
            for one in opened:
                one.close()
            raise

    def _prepare_serving(
        self, rules: Rules, layout: Layout, sockets: Mapping[str, socket.socket], *, afresh: bool
    ) -> Prepared:
        serving, limits = self._serving, self._limits
        assert serving is not None  # noqa: S101 - nobody asks before
        assert limits is not None  # noqa: S101 - as above
        limits.use(layout)
        access_log = open_log(rules.settings, after_turn(self._reactor))
        try:
            return serving.prepare(
                rules, sockets, self._admission(rules), access_log, afresh=afresh
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


def _answer() -> None:
    """Show that this process does its work."""


def _nothing(_: object) -> None:
    """Answer that it has happened."""

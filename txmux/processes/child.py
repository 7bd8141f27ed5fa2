"""What runs in a worker's process: ``python -m txmux.processes.child NUMBER REACTOR``."""

from __future__ import annotations

import signal
import socket
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger, globalLogBeginner

from txmux.files import use_helper
from txmux.observe.access_log import open_log
from txmux.observe.servicelog import ServiceLog
from txmux.processes.account import account_of
from txmux.processes.channel import Channel, attach
from txmux.processes.exchange import OneProcess
from txmux.processes.forwarding import Forwarding
from txmux.processes.limits import Layout, SharedLimits
from txmux.processes.opener import Opener
from txmux.processes.signals import SignalWatch
from txmux.processes.worker import CHANNEL
from txmux.rules.model import Files
from txmux.rules.reading.parser import read_again
from txmux.serving.places import places_of
from txmux.serving.serving import Serving
from txmux.sockets.clock import use_monotonic_time
from txmux.sockets.poller import after_turn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from txmux.frontend.limits.admission import Admission
    from txmux.rules.model import Listener, Rules
    from txmux.serving.prepared import Prepared

__all__ = ["Child", "main"]


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
        self._limits: SharedLimits | None = None
        self._prepared: tuple[Prepared, Sequence[socket.socket]] | None = None
        self._stopping = self._drained = False
        self.status = 0
        handlers: dict[str, Callable[..., object]] = {
            "start": self._start,
            "stop": self.stop,
            "ping": _answer,
        }
        self.channel = Channel(handlers, self._alone, reactor)

    def _start(
        self,
        descriptors: Sequence[int],
        rules: dict[str, Any],
        limits: dict[str, Any],
        sockets: Sequence[str],
        down: Sequence[dict[str, Any]] = (),
        *,
        opener: bool = False,
    ) -> None:
        """Serve.

        Args:
            descriptors: The memory that all workers share, the listening sockets, and what leads to the opener.
            rules: What was in their files.
            limits: Where everything is in the memory.
            sockets: The keys of the places of the sockets, in their order.
            down: What checks have found so far.
            opener: Whether there is a helper that opens files.
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
            )
            for finding in down:
                serving.check_found(**finding)
        except Exception:
            self.status = 1
            self._reactor.callLater(0, self._over)  # once the parent is told
            raise
        self.channel.handlers.update(
            end_all=serving.end_all,
            reopen=serving.reopen_log,
            check=serving.check_found,
            prepare=self._prepare,
            commit=self._commit,
            abandon=self._abandon,
            end_removed=serving.end_removed,
            status=serving.status,
            retire=self.retire,
            **OneProcess(serving, self._reactor).handlers,
        )

    def _serve(
        self, files: Files, memory: int, layout: Layout, sockets: Mapping[str, int]
    ) -> Serving:
        rules = read_again(files)
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
        )
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
        return self._limits.admissions(self._number - 1, self._reactor.seconds, most)

    def _prepare(
        self,
        descriptors: Sequence[int],
        rules: dict[str, Any],
        limits: dict[str, Any],
        sockets: Sequence[str],
        *,
        afresh: bool,
    ) -> None:
        """Get ready for other rules.

        Args:
            descriptors: The listening sockets.
            rules: What was in their files.
            limits: Where everything is in the memory, in which there may be more now.
            sockets: The keys of the places of the sockets, in their order.
            afresh: Whether these are other rules at all.
        """
        opened = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        try:
            for one in opened:
                one.setblocking(False)  # noqa: FBT003 - the socket module's signature
            self._abandon()
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

    def _commit(self) -> int:
        """Serve under the rules that were prepared, and tell how many connections go on under older ones."""
        assert self._serving is not None  # noqa: S101 - nobody asks before
        if self._prepared is not None:
            (prepared, opened), self._prepared = self._prepared, None
            prepared.commit()
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

    def retire(self) -> None:
        """Accept no more, and end the process when its connections have ended, however long they take."""
        if self._serving is not None:
            self._serving.retire().addCallback(lambda _: self.stop())

    def stop(self) -> None:
        """Let connections finish, and end the process."""
        if not self._stopping:
            self._stopping = True
            Deferred.fromCoroutine(self._drain())

    async def _drain(self) -> None:
        if self._serving is not None:
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


def main() -> None:
    """Run a worker."""
    # The parent gets them, too, and says what is to be done.
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    number, kind = sys.argv[1:]
    import_module(kind).install()
    from twisted.internet import reactor as installed  # noqa: PLC0415 - importing it installs it

    reactor: Any = installed
    use_monotonic_time(reactor)
    child = Child(int(number), reactor)
    alone: Any = ServiceLog(sys.stderr, reactor)
    globalLogBeginner.beginLoggingTo([Forwarding(child.channel, alone)], redirectStandardIO=False)
    attach(reactor, child.channel, socket.socket(fileno=CHANNEL))
    # systemd sends it to every process of a service.
    SignalWatch(reactor, child.stop, signal.SIGTERM).start()
    reactor.run(installSignalHandlers=False)
    sys.exit(child.status)


if __name__ == "__main__":
    main()

"""The service: the listeners of a rules file, from start to drained."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger
from typing_extensions import override

from txmux.admin.endpoint import Endpoints
from txmux.control import Report
from txmux.errors import MuxError
from txmux.feeds.feeding import Feeding
from txmux.feeds.rules import RulesWatch
from txmux.feeds.sharing import Sharing
from txmux.live.events import Hub
from txmux.live.inside import processes_of
from txmux.live.rates import Rates
from txmux.live.steering import Steering
from txmux.live.versions import last_reload_in, state_of
from txmux.observe.counting.counters import Counters
from txmux.overview import overview
from txmux.processes.privilege.account import account_of
from txmux.processes.privilege.privilege import Privilege
from txmux.processes.supervisor.counting import Counting
from txmux.processes.supervisor.current import Current
from txmux.processes.supervisor.parent import Parent
from txmux.processes.supervisor.signals import SignalWatch, StopSignals
from txmux.processes.supervisor.startup import WhenRunning
from txmux.processes.systemd.notify import Notifier
from txmux.processes.systemd.pidfile import PidFile
from txmux.processes.upgrade.changeover import Changeover
from txmux.processes.upgrade.successor import UpgradeError
from txmux.rules.changes import unchangeable
from txmux.rules.problems import RulesError
from txmux.rules.reading.parser import load
from txmux.serving.coalescing import Coalescing
from txmux.serving.endpoints import check_servers
from txmux.serving.serving import Serving
from txmux.serving.store import ListeningSockets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.internet.interfaces import IListeningPort

    from txmux.frontend.listener import MuxFactory
    from txmux.live.asking import Askable
    from txmux.observe.counting.snapshot import Counts
    from txmux.rules.model import Rules

__all__ = ["MuxService"]


class MuxService(Steering, Service):
    """Runs what a rules file says.

    Args:
        rules: As `txmux.rules.parser.load` gives them, or made in Python. With several workers they have to
            come from a file, and the reactor has to be the process's own.
        reactor: Listens, connects and tells the time; the process's own if not given.
        pidfile: A file that has the ID of the process that serves.
        upgrades: Whether SIGUSR2 is for the service; see `upgrade`.
        notifies: Whether systemd is told how the service is, and keeps its sockets.
        is_administered: Whether ``admin = auto`` means anything.
        confines: Whether the process is the service's alone, so that it may be put into a sandbox.

    Attributes:
        failure: Why it stopped the reactor, if it did.
        last_reload: When the rules were last asked to be read again, in seconds since 1970, and what came of it.
        started: When it was, in seconds since 1970.
        counted: The counters of all processes.
    """

    _log = Logger()

    def __init__(
        self,
        rules: Rules,
        *,
        reactor: Any = None,
        pidfile: str | Path | None = None,
        upgrades: bool = False,
        notifies: bool = False,
        is_administered: bool = False,
        confines: bool = False,
    ) -> None:
        if reactor is None:
            from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it
        self._reactor = reactor
        self.rules = rules
        self.failure: MuxError | None = None
        self._sockets = ListeningSockets(reactor)
        self._endpoints = Endpoints(reactor, self, is_automatic=is_administered)
        named = PidFile(pidfile) if pidfile else None
        self._privilege = Privilege(
            self._sockets, self._endpoints.store, pidfile=named, confines=confines
        )
        self.counted = Counters()
        self._counting = counting = Counting(reactor.seconds)
        self._reloading = Coalescing(self._reload)
        self._given: Rules | None = None
        self._stopping = False
        self.started = 0.0
        self.rates = Rates(reactor.seconds)
        self.last_reload: tuple[float, Report] | None = None
        self.events = Hub(reactor, self.processes, self.checking)
        self._feeding = Feeding(reactor, self.feed)
        self._sharing = Sharing(reactor, self)
        self._watch = RulesWatch(reactor, self._rules_changed, self._privilege.included_paths)
        self._stop_signals = StopSignals(reactor)
        self._when_running = WhenRunning(reactor, self._runs)
        self._notifier = Notifier(os.environ if notifies else {}, reactor)
        self._changeover = Changeover(
            reactor,
            self._sockets,
            named,
            self._fail,
            self._notifier,
            self._privilege,
            self._endpoints,
            counters=self.counted,
            counting=counting,
        )
        self._current = Current(
            reactor,
            self._sockets,
            self._privilege,
            self._changeover,
            counting,
            self.counted,
            self._fail,
        )
        self._on_hangup = SignalWatch(reactor, self._reloading.ask, signal.SIGHUP)
        self._on_upgrade = SignalWatch(
            reactor, self._asked_to_upgrade, *[signal.SIGUSR2] * upgrades
        )

    @classmethod
    def from_file(cls, path: str | Path, *, reactor: Any = None) -> MuxService:
        """Read a rules file.

        Raises:
            RulesError: It has errors; all are named.
        """
        return cls(load(Path(path)), reactor=reactor)

    def privilegedStartService(self) -> None:
        """Listen, while there still is the privilege to; see `startService` for what it raises."""
        self._open()
        super().privilegedStartService()

    def startService(self) -> None:
        """Listen, if that has not been done yet, become the user that the rules name, and serve.

        Raises:
            AccountError: The process cannot become that user.
            ListenError: A socket cannot be opened; none is left open.
            AccessLogError: The access log's file cannot be opened.
            WorkersError: The rules cannot be handed to workers.
        """
        opened = self._open()
        if isinstance(opened, Parent):
            opened.start()  # each worker changes its user by itself, when it has read its files
        account = self._current.account
        if account is not None and account.become():
            self._privilege.given_up(account.user)
        super().startService()
        self.started = time.time()
        if not self._changeover.is_waiting:
            self._endpoints.accept()
        self._feeding.use(self.rules)
        self._sharing.use(self.rules)
        self._watch.use(self.rules)
        self._stop_signals.start()
        self._on_hangup.start()
        self._on_upgrade.start()
        if isinstance(opened, Serving):
            self._when_running.start()

    async def upgrade(self) -> Report:
        """Start this program again as it was started, and let it serve; this process ends when what it keeps has ended."""
        await self._reloading.idle()
        try:
            changes = await self._upgraded()
        except UpgradeError as problem:
            self._log.error("no upgrade, the old process goes on: {why}", why=problem)
            return Report.refused(problem)
        self._log.info("upgraded: {changes}", changes=changes)
        # Whoever asked is told first.
        self._reactor.callLater(0, self._end)
        return Report(ok=True, changes=changes)

    async def _upgraded(self) -> str:
        await self._changeover.arrival.wait()
        opened = self._current.opened
        if opened is None or not self.running:
            raise UpgradeError(self._why_idle())
        told = partial(state_of, opened, self.rules, self.last_reload, self.rates)
        exchange = self._current.kinds.exchange(opened)
        return await self._changeover.upgrade(self.rules.listeners, exchange, told)

    def _why_idle(self) -> str:
        is_stopping = self._stopping and self._current.opened is not None
        return "the service stops" if is_stopping else "the service does not run"

    def _asked_to_upgrade(self) -> None:
        failed = partial(self._log.failure, "the upgrade failed")
        Deferred.fromCoroutine(self.upgrade()).addErrback(failed)

    @override
    def processes(self) -> Sequence[Askable]:
        return [one for running in self._current.running() for one in processes_of(running)]

    @property
    @override
    def running_now(self) -> Serving | Parent | None:
        return self._current.opened

    @property
    def ports(self) -> list[IListeningPort]:
        """The listening ports, once started; none with several workers, which have them."""
        opened = self._current.opened
        return opened.ports if isinstance(opened, Serving) else []

    @property
    def factories(self) -> list[MuxFactory]:
        """What serves the listeners, in the order of the rules; none with several workers."""
        opened = self._current.opened
        return opened.factories if isinstance(opened, Serving) else []

    def stopService(self) -> Deferred[None]:
        """Stop accepting, let connections finish, and end those that take longer than ``drain_timeout``."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._stopping = True
        self._when_running.stop()
        self.events.stop()
        self._feeding.stop()
        self._watch.stop()
        await self._sharing.stop()
        self._changeover.arrival.over()  # whoever waits for that is refused
        await self._reloading.idle()
        opened = self._current.opened
        self._on_upgrade.stop()
        shared = self._changeover.begin_to_stop()
        if opened is not None and not shared:
            await self._stop_signals.wait(self.rules.settings.grace)
        keep_files = shared or self._notifier.keeps
        self._changeover.stop(keep_files=keep_files)
        if opened is not None:
            await self._current.kinds.settle()
            all_opened = self._current.running()

            def end_all() -> None:
                for one in all_opened:
                    one.end_all()

            self._stop_signals.hurry = end_all
            self._current.kinds.retiring.clear()
            draining = gatherResults([Deferred.fromCoroutine(one.drain()) for one in all_opened])
            if self._stop_signals.is_urgent:
                end_all()
            await draining
            self._current.opened = None
            self._counting.close()
        await self._endpoints.stop(keep_files=keep_files)
        self._privilege.give_up()
        self._stop_signals.stop()
        self._on_hangup.stop()

    def stop(self) -> None:
        """Begin to stop, as at the first SIGTERM; whoever asked can be told before."""
        self._reactor.callLater(0, self._end)

    async def status(self, counts: Counts | None = None) -> dict[str, Any]:
        """Tell how the service is, for ``/api/status``; see `CountingControl.traffic`."""
        traffic, present = await self.traffic(counts)
        told = overview(
            self.rules,
            [await one.status() for one in self._current.running()],
            started=self.started,
            last_reload=self.last_reload,
            draining=self._stopping,
            sockets=self._sockets.sockets(),
            shut=self.shut(),
            traffic=traffic,
        )
        return {**told, **present.told()}

    async def missing(self) -> list[str]:
        """Tell what is missing for all clients to be served, one line each; nothing if all is there."""
        if self._current.opened is None or self._stopping or not self.running:
            return ["the service stops" if self._stopping else "the service does not run"]
        return await self._current.opened.missing()

    def reopen_files(self) -> None:
        """Open the access log's file again, after it was moved away, and read all certificates again."""
        if self._current.opened is not None:
            self._current.opened.reopen_files()

    async def reload(self, rules: Rules | None = None) -> Report:
        """Go on under rules that have changed. Connections that there are keep theirs, and no client is turned away.

        Everything is read and opened first; if anything is wrong, nothing changes. The access log's file is opened again
        in any case. What is asked for while this is under way is done once, after it.

        Args:
            rules: Those that are to hold; without them, the files are read again.
        """
        if rules is not None:
            self._given = rules
        return await self._reloading.ask()

    def _rules_changed(self) -> bool:
        if self._changeover.is_under_way:
            return False
        failed = partial(self._log.failure, "the reload failed")
        self._reloading.ask().addErrback(failed)
        return True

    async def _reload(self) -> Report:
        await self._changeover.arrival.wait()
        opened, given, self._given = self._current.opened, self._given, None
        if opened is not None and self._changeover.is_under_way:
            opened.reopen_log()
            why = "another process is about to serve, or serves already, and reads them itself"
            self._log.error("rules not reloaded: {why}", why=why)
            return Report.refused(why)
        if opened is None or self._stopping:
            return Report.refused(self._why_idle())
        if given is None and (why := self.rules.unreadable):
            opened.reopen_files()
            self._log.info("{why}", why=why)
            return Report(ok=True, changes=why)
        self._notifier.reloading()
        try:
            report = await self._change(opened, given or self._privilege.read(self.rules.path))
        except MuxError as problem:
            report = Report.refused(problem)
        except Exception as problem:  # noqa: BLE001 - whatever it is, whoever asked has to know
            self._log.failure("the rules cannot be reloaded")
            report = Report.refused(repr(problem))
        if report.ok:
            self._log.info("rules reloaded: {changes}", changes=report.changes)
        else:
            opened.reopen_log()
            errors = "\n".join(report.errors)
            self._log.error("rules not reloaded, all goes on as before: {errors}", errors=errors)
        for retiring in self._current.kinds.retiring:
            retiring.reopen_log()
        self._changeover.keep()
        told = f"reloaded: {report.changes}" if report.ok else f"not reloaded: {report.errors[0]}"
        self._notifier.ready(f"serving; rules {told}")
        self.last_reload = (time.time(), report)
        self.events.reloaded(report)
        return report

    async def _change(self, opened: Serving | Parent, rules: Rules) -> Report:
        problems = unchangeable(self.rules.settings, rules.settings)
        if problems:
            raise RulesError(problems)
        self._current.account = account_of(rules)
        check_servers(self._reactor, rules.servers())
        endpoints = self._endpoints.prepare(rules)
        try:
            self.make_room(rules, opened.number)
            report = await self._current.change(opened, self.rules, rules)
            self.rules = rules
            self._feeding.use(rules)
            self._sharing.use(rules)
            self._watch.use(rules)
        except BaseException:
            endpoints.abandon()
            raise
        endpoints.commit()
        return report

    def _open(self) -> Serving | Parent:
        opened = self._current.opened
        if opened is None:
            self._stopping = False
            self._changeover.find_predecessor()
            try:
                opened = self._current.open(self.rules, self._can_serve)
                opened.recall(self._changeover.state)
                self.last_reload = last_reload_in(self._changeover.state)
                self.rates.recall(self._changeover.state.get("history", ()))
            except Exception as problem:
                self._changeover.cannot_serve(problem)
                self._endpoints.store.close(keep_files=self._changeover.is_waiting)
                self._counting.close()
                raise
        return opened

    def _can_serve(self) -> None:
        opened = self._current.opened
        if opened is not None:  # any more
            exchange = self._current.kinds.exchange(opened)
            self._changeover.can_serve(exchange, opened.answers, opened.recall)

    def _runs(self) -> None:
        self._can_serve()
        # Not before: the helper, which would have to name the process then, may still be about to start.
        if self.failure is None:
            self._current.confine(self.rules)

    def _fail(self, error: MuxError) -> None:
        self.failure = error
        self._log.critical("{error}; stopping", error=error)
        self._changeover.cannot_serve(error)
        self._end()

    def _end(self) -> None:
        with suppress(ReactorNotRunning):  # it may be about to stop for another reason
            self._reactor.stop()

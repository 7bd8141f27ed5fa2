"""The service: the listeners of a rules file, from start to drained."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import (
    Deferred,
    gatherResults,
)
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

from txmux.control import Report
from txmux.errors import MuxError
from txmux.frontend.limits.counted import Counted
from txmux.processes.account import account_of
from txmux.processes.changeover import Changeover
from txmux.processes.changing import change_workers, start_workers
from txmux.processes.exchange import OneProcess
from txmux.processes.notify import Notifier
from txmux.processes.parent import Parent
from txmux.processes.pidfile import PidFile
from txmux.processes.privilege import Privilege
from txmux.processes.signals import SignalWatch, StopSignals
from txmux.processes.successor import UpgradeError
from txmux.rules.changes import changes, unchangeable
from txmux.rules.lint.warnings import lint
from txmux.rules.problems import RulesError
from txmux.rules.reading.parser import load
from txmux.serving.coalescing import Coalescing
from txmux.serving.endpoints import check_servers
from txmux.serving.opening import Opening
from txmux.serving.serving import Serving
from txmux.serving.store import ListeningSockets, close_socket

if TYPE_CHECKING:
    from twisted.internet.interfaces import IListeningPort
    from twisted.python.failure import Failure

    from txmux.frontend.listener import MuxFactory
    from txmux.processes.account import Account
    from txmux.processes.exchange import Exchange
    from txmux.rules.model import Rules
    from txmux.serving.door import Forwarding

__all__ = ["MuxService"]


class MuxService(Service):
    """Runs what a rules file says.

    Args:
        rules: As `txmux.rules.parser.load` gives them, or made in Python. With several workers they have to
            come from a file, and the reactor has to be the process's own.
        reactor: Listens, connects and tells the time; the process's own if not given.
        pidfile: A file that has the ID of the process that serves.
        upgrades: Whether SIGUSR2 is for the service; see `upgrade`.
        notifies: Whether systemd is told how the service is, and keeps its sockets.

    Attributes:
        ports: The listening ports, once started; none with several workers, which have them.
        factories: What serves the listeners, in the order of the rules; none with several workers.
        failure: Why it stopped the reactor, if it did.
        last_reload: When the rules were last asked to be read again, in seconds since 1970, and what came of it.
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
    ) -> None:
        if reactor is None:
            from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it
        self._reactor = reactor
        self.rules = rules
        self.ports: list[IListeningPort] = []
        self.factories: list[MuxFactory] = []
        self.failure: MuxError | None = None
        self._account: Account | None = None
        self._sockets = ListeningSockets(reactor)
        self._privilege = Privilege(self._sockets)
        self._opened: Serving | Parent | None = None
        self._counted = Counted(reactor.seconds)
        self._opening = Opening(reactor, self._sockets, self._counted, self._fail)
        self._retiring: list[Serving | Parent] = []
        self._reloading = Coalescing(self._reload)
        self._given: Rules | None = None
        self._folder = Path.cwd()
        self._stopping = False
        self.last_reload: tuple[float, Report] | None = None
        self._stop_signals = StopSignals(reactor)
        self._notifier = Notifier(os.environ if notifies else {}, reactor)
        self._changeover = Changeover(
            reactor,
            self._sockets,
            PidFile(pidfile) if pidfile else None,
            self._fail,
            self._notifier,
            self._privilege,
        )
        self._on_hangup = SignalWatch(reactor, self._hung_up, signal.SIGHUP)
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
        if self._account is not None and self._account.become():
            self._log.info("the process is user {user} from now on", user=self._account.user)
        super().startService()
        self._stop_signals.start()
        self._on_hangup.start()
        self._on_upgrade.start()
        if isinstance(opened, Serving):
            self._reactor.callWhenRunning(self._can_serve)

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
        opened = self._opened
        if opened is None or not self.running:
            raise UpgradeError("the service does not run")
        return await self._changeover.upgrade(
            self.rules.listeners, self._exchange(), {"down": opened.down()}
        )

    def _asked_to_upgrade(self) -> None:
        Deferred.fromCoroutine(self.upgrade()).addErrback(self._upgrade_failed)

    def _upgrade_failed(self, failure: Failure) -> None:
        self._log.failure("the upgrade failed", failure)

    def _exchange(self) -> Exchange:
        assert self._opened is not None  # noqa: S101 - it has been started
        if isinstance(self._opened, Parent):
            return self._opened.exchange
        return OneProcess(self._opened, self._reactor)

    def stopService(self) -> Deferred[None]:
        """Stop accepting, let connections finish, and end those that take longer than ``drain_timeout``."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._stopping = True
        await self._reloading.idle()
        opened = self._opened
        self._on_upgrade.stop()
        self._changeover.stop()
        if opened is not None:
            all_opened = [opened, *self._retiring]

            def end_all() -> None:
                for one in all_opened:
                    one.end_all()

            self._stop_signals.hurry = end_all
            draining = gatherResults([Deferred.fromCoroutine(one.drain()) for one in all_opened])
            if self._stop_signals.is_urgent:
                end_all()
            await draining
            self._opened = None
            self._retiring.clear()
        self._privilege.give_up()
        self._stop_signals.stop()
        self._on_hangup.stop()

    def reopen_files(self) -> None:
        """Open the access log's file again, after it was moved away, and read all certificates again."""
        if self._opened is not None:
            self._opened.reopen_files()

    def _hung_up(self) -> None:
        Deferred.fromCoroutine(self.reload())

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

    async def _reload(self) -> Report:
        opened, given, self._given = self._opened, self._given, None
        if opened is not None and self._changeover.is_under_way:
            opened.reopen_log()
            why = "another process is about to serve, or serves already, and reads them itself"
            self._log.error("rules not reloaded: {why}", why=why)
            return Report.refused(why)
        if opened is None or self._stopping:
            return Report.refused("the service does not run")
        if given is None and not self.rules.files.texts:
            opened.reopen_files()
            return Report(ok=True, changes="nothing changed: the rules were made in Python")
        self._notifier.reloading()
        try:
            report = await self._change(opened, given or self._read())
        except MuxError as problem:
            report = Report.refused(problem)
        except Exception as problem:  # noqa: BLE001 - whatever it is, whoever asked has to know
            self._log.failure("the rules cannot be reloaded")
            report = Report.refused(repr(problem))
        if report.ok:
            self._log.info("rules reloaded: {changes}", changes=report.changes)
        else:
            opened.reopen_log()
            self._log.error(
                "rules not reloaded, all goes on as before: {errors}",
                errors="\n".join(report.errors),
            )
        self._notifier.keep(self._sockets.sockets())
        self._notifier.ready(
            f"serving; rules reloaded: {report.changes}"
            if report.ok
            else f"serving; rules not reloaded: {report.errors[0]}"
        )
        self.last_reload = (time.time(), report)
        return report

    def _owner(self) -> tuple[int, int] | None:
        return self._account.owner if self._account else None

    def _read(self) -> Rules:
        path = self.rules.path
        if Path.cwd() != self._folder:  # whoever runs the service went elsewhere after it was made
            path = self._folder / path
        return self._privilege.read(path)

    async def _change(self, opened: Serving | Parent, rules: Rules) -> Report:
        old = self.rules
        problems = unchangeable(old.settings, rules.settings)
        if problems:
            raise RulesError(problems)
        self._account = account_of(rules)
        check_servers(self._reactor, rules.servers())
        different = changes(old, rules)
        afresh = bool(str(different))
        if isinstance(opened, Parent) != (rules.settings.workers > 1):
            older = await self._change_kind(opened, rules)
        elif isinstance(opened, Parent):
            older = await change_workers(opened, self._sockets, rules, self._owner(), afresh=afresh)
        else:
            older = await self._opening.change(opened, rules, self._owner(), afresh=afresh)
        self.rules = rules
        self._privilege.commit()
        if not str(different):
            return Report(ok=True, changes="nothing changed")
        for warning in lint(rules):
            self._log.warn("{warning}", warning=str(warning))
        if rules.settings.drain_removed:
            running = [*self._retiring] if self._opened is None else [self._opened, *self._retiring]
            for serving in running:
                serving.end_removed(different.routes.gone, different.backends.gone)
        return Report(ok=True, changes=different.told(older))

    async def _change_kind(self, opened: Serving | Parent, rules: Rules) -> int:
        """Go on in workers instead of in this process alone, or the other way round; connections stay where they are.

        Raises:
            MuxError: That cannot be; nothing has changed.
        """
        others: dict[str, tuple[IListeningPort, Forwarding]] = {}
        with ExitStack() as undo:
            sockets = self._sockets.prepare(rules.listeners)
            undo.callback(sockets.abandon)
            new: Serving | Parent
            if isinstance(opened, Parent):
                new = self._opening.make(rules, self._owner())
                undo.callback(new.give_up)
                await self._opening.open_others(new, rules, others)
                self._opening.listen_all(new, rules, sockets.sockets, others)
                self.ports, self.factories = new.ports, new.factories
            else:
                new = await start_workers(
                    rules,
                    self._reactor,
                    self._sockets,
                    sockets,
                    self._privilege.opener,
                    self._owner(),
                )
                self.ports, self.factories = [], []
            undo.pop_all()
        unused = sockets.commit()
        self._opened = new
        if isinstance(new, Parent):
            await new.accept()
        older = (await opened.status())["active"]
        self._retiring.append(opened)
        opened.retire().addCallback(lambda _: self._retired(opened))
        for key, gone in unused.items():
            close_socket(key, gone)
        return int(older)

    def _retired(self, opened: Serving | Parent) -> None:
        """Close what is left of what has ended its last connection."""
        if opened in self._retiring and not self._stopping:
            self._retiring.remove(opened)
            Deferred.fromCoroutine(opened.drain())

    def _open(self) -> Serving | Parent:
        if self._opened is None:
            self._stopping = False
            self._changeover.find_predecessor()
            try:
                self._opened = self._made()
                for finding in self._changeover.down:
                    self._opened.check_found(**finding)
            except Exception as problem:
                self._changeover.cannot_serve(problem)
                raise
        return self._opened

    def _made(self) -> Serving | Parent:
        for warning in lint(self.rules):
            self._log.warn("{warning}", warning=str(warning))
        self._account = account_of(self.rules)
        check_servers(self._reactor, self.rules.servers())
        self._privilege.keep(self.rules, self._account)
        alone = self.rules.settings.workers == 1
        return self._serving() if alone else self._parent()

    def _parent(self) -> Parent:
        parent = Parent(
            self.rules,
            self._reactor,
            self._sockets,
            self._privilege.opener,
            self._fail,
            served=self._can_serve,
            accepting=not self._changeover.is_waiting,
        )
        parent.check(self._owner())
        self._changeover.open(self.rules.listeners)
        return parent

    def _can_serve(self) -> None:
        if self._opened is not None:  # any more
            self._changeover.can_serve(self._exchange(), self._opened.answers)

    def _serving(self) -> Serving:
        serving = self._opening.make(
            self.rules, self._owner(), accepting=not self._changeover.is_waiting
        )
        self.ports, self.factories = serving.ports, serving.factories
        try:
            self._changeover.open(self.rules.listeners)
        except MuxError:
            serving.give_up()
            raise
        self._opening.listen_all(serving, self.rules, self._sockets.sockets(), {})
        return serving

    def _fail(self, error: MuxError) -> None:
        self.failure = error
        self._log.critical("{error}; stopping", error=error)
        self._changeover.cannot_serve(error)
        self._end()

    def _end(self) -> None:
        with suppress(ReactorNotRunning):  # it may be about to stop for another reason
            self._reactor.stop()

"""The service that runs a rules file: the supervisor of its workers, from start to drained."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from txmux.admin.endpoint import AdminEndpoints
from txmux.admin.listen_addresses import at_automatic
from txmux.control.attention import few_of_each_owner
from txmux.control.conditions import Coalescer
from txmux.control.control import STOPPING, Control, ServiceActions
from txmux.control.documents import untaken_documents
from txmux.control.report import Report
from txmux.errors import MuxError
from txmux.files import within_patience
from txmux.net.collecting import UNCOLLECTED_FOR_GOOD
from txmux.net.sockets.descriptors import soft_limit
from txmux.net.turns import first_late, in_thread, start_thread
from txmux.processes.account import UserAccount, account_of
from txmux.processes.forking import Child
from txmux.processes.held_signals import hold_signals, release_signals
from txmux.processes.memory import give_back
from txmux.processes.opener import OpenerError
from txmux.processes.supervisor.notify import Notifier, name_passed_sockets
from txmux.processes.supervisor.pidfile import PidFile
from txmux.processes.supervisor.privilege import Privilege
from txmux.processes.supervisor.resources import Resources
from txmux.processes.supervisor.signals import SignalWatch, StopSignals, stop_by_quit
from txmux.processes.supervisor.starter import Starter
from txmux.processes.supervisor.supervisor import Supervisor
from txmux.processes.upgrade.upgrade import Upgrade, UpgradeError
from txmux.processes.upgrade.upgrades import Upgrades, collect_state, last_reload_in, number_in
from txmux.processes.upgrade.worker_transfers import WorkerTransfers
from txmux.processes.usable import too_many_sockets
from txmux.processes.watching import RulesWatch
from txmux.rules.changes import Changes, changes, described_untaken, unchangeable
from txmux.rules.lint.warnings import lint
from txmux.rules.model import Files, Rules
from txmux.rules.model.files import unit_at
from txmux.rules.model.rules import checked_rules
from txmux.rules.named_files import check_disks, forbidden, unanswered, why_unread
from txmux.rules.problems import Problem, RulesError
from txmux.rules.reading.parser import (
    load_within_patience,
    retaken,
    with_unseen_units,
    without_unservable,
)
from txmux.rules.reading.units import UntakenUnits, changed_units
from txmux.serving.endpoints import unusable_servers
from txmux.serving.state import TransferState
from txmux.serving.store import ListeningSockets
from txmux.telemetry.counting.counters import Counters
from txmux.telemetry.lines import write_rest_of_service_logs
from txmux.telemetry.steps import CommittedSteps

__all__ = ["MuxService"]

_NO_CHANGE = "nothing changed"
_MOST_TRIES = 32
"""For one author, to find which units move too many clients: others wait for that, and who has written thousands could have them wait for long."""


class MuxService(Service):
    """Runs what a rules file says, in worker processes, of which this process is the supervisor.

    Args:
        rules: As `txmux.load` gives them. Those made in Python are for `txmux.MuxFactory` or
            `txmux.serving.embedded.EmbeddedService`.
        reactor: The reactor to use; the process's own if not given.
        pidfile: A file that has the ID of the process that serves.
        upgrades: Whether the service handles SIGUSR1 and SIGUSR2: see `reopen_log` and `upgrade`.
        use_sd_notify: Whether the state is reported to systemd, which then keeps the sockets.
        resolve_admin_auto: Whether ``admin = auto`` opens an endpoint.
        starter: The process of which workers are forked, if it has been started already; see `start_early`.
        warnings: What `lint` has found in the rules, if it was asked already.

    Attributes:
        failure: The error for which the service stopped the reactor, if any.
        control: The operator's interface; it has the rules in force.
        supervisor: The supervisor of the workers; ``None`` before the start and after the end.
    """

    _log = Logger()

    def __init__(
        self,
        rules: Rules,
        *,
        reactor: Any = None,
        pidfile: str | Path | None = None,
        upgrades: bool = False,
        use_sd_notify: bool = False,
        resolve_admin_auto: bool = False,
        starter: Child | None = None,
        warnings: Sequence[Problem] | None = None,
    ) -> None:
        if reactor is None:
            from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it
        rules = checked_rules(rules)
        self._reactor = reactor
        self.failure: MuxError | None = None
        sockets = ListeningSockets(
            reactor,
            lambda: self._resources.store(),  # noqa: PLW0108 - they are not there yet
            self._rules_changed,
        )
        counters = Counters()
        service = ServiceActions(
            reload=self.reload,
            upgrade=self.upgrade,
            check_upgrade=self.check_upgrade,
            stop=self._stop_soon,
            read_rules=self._read_to_try,
            has_outdated_rules=self._has_outdated_rules,
            are_arriving=lambda: self._upgrades.are_arriving,
            renew_elsewhere=lambda name: self._upgrades.renew_in_successor(name),  # noqa: PLW0108 - it is not there yet
        )
        self.control = control = Control(reactor, rules, counters, sockets, service)
        endpoints = AdminEndpoints(reactor, control, sockets, is_automatic=resolve_admin_auto)
        named = PidFile(pidfile) if pidfile else None
        self._resources = resources = Resources(
            sockets=sockets,
            endpoints=endpoints,
            privilege=Privilege(sockets, endpoints.store, pidfile=named),
            counters=counters,
            recurring=control.recurring,
            parts=control.parts,
            notifier=Notifier(os.environ if use_sd_notify else {}, reactor, control.recurring),
            pidfile=named,
        )
        self._starter = Starter(reactor, starter, self._start_upgrade)
        self.supervisor: Supervisor | None = None
        self._account: UserAccount | None = None
        self._warnings = warnings
        self._reloading = Coalescer(self._reload)
        self._is_asked_for = False  # the next reload: it is not just due by `watch_rules`
        self._checking = Coalescer(self._check_upgrade)
        self._pending_rules: Rules | None = None
        self._watch = RulesWatch(reactor, self._rules_changed, control.recurring)
        self._stop_signals = StopSignals(reactor)
        stop = partial(self._stop_signals.stop_reactor, is_both=True)
        self._upgrades = Upgrades(reactor, resources, self._fail, self.reload, control.renew, stop)
        # Watched until the end: by default, any of these would end a process that drains.
        pass_on = self._upgrades.pass_signal_on
        self._signals = [SignalWatch(reactor, self._ask_for_reload, signal.SIGHUP, pass_on)]
        if upgrades:
            self._signals += [
                SignalWatch(reactor, self.reopen_log, signal.SIGUSR1, pass_on),
                SignalWatch(reactor, self._start_upgrade, signal.SIGUSR2),
                SignalWatch(reactor, stop_by_quit, signal.SIGQUIT),
            ]

    @classmethod
    def from_file(cls, path: str | Path, *, reactor: Any = None) -> MuxService:
        """Read a rules file; ``admin = auto``, the default, opens an endpoint.

        A SIGHUP that comes before the service has started is kept, and handled then.

        Raises:
            RulesError: It has errors; all are named.
        """
        name_passed_sockets(os.environ)
        hold_signals(signal.SIGHUP)
        try:
            return cls(load_within_patience(Path(path)), reactor=reactor, resolve_admin_auto=True)
        except BaseException:
            release_signals(signal.SIGHUP)
            raise

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
            SandboxError: This machine cannot have the sandbox that the rules require.
        """
        with self._upgrades.telling_why():
            self._open().start()
            account = self._account
            if account is not None and account.become():
                self._resources.privilege.given_up(account.user)
        super().startService()
        start_thread()
        self.control.started = time.time()
        if not self._upgrades.is_waiting:
            self._resources.endpoints.accept()
        self.control.commit(self.control.rules)
        self._watch.commit(self.control.rules)
        self._stop_signals.start()
        for watch in self._signals:
            watch.start()

    async def upgrade(self) -> Report:
        """Start this program again with the same command, and hand over to it; this process ends after its last connection."""
        await self._upgrades.serves()
        await self._checking.wait_until_idle()
        await self._reloading.wait_until_idle()
        if self._upgrades.has_successor:
            return Report.refused("another upgrade has just been done")
        try:
            upgrade = await self._upgraded()
            report = upgrade.report()
        except (OpenerError, UpgradeError) as problem:
            if self.control.is_stopping:
                self._log.info("no upgrade: the service is shutting down")
                return Report.refused(self._why_idle())
            if self._upgrades.is_upgrading:  # another one, which is reported when it ends
                self._log.info("no upgrade: {why}", why=problem)
                return Report.refused(problem)
            self._log.error("upgrade failed, the old process keeps serving: {why}", why=problem)
            self.control.record_upgrade(report := Report.refused(problem))
            return report
        except Exception as problem:  # noqa: BLE001 - report any failure to the caller
            self._log.failure("upgrade failed, the old process keeps serving")
            self.control.record_upgrade(report := Report.refused(repr(problem)))
            return report
        self._log.info("upgraded: {changes}", changes=report.changes)
        # Answer the API request before stopping.
        if not self.control.is_stopping:
            self._reactor.callLater(0, self._exit, gives_workers=upgrade.gives_workers)
        return report

    async def check_upgrade(self) -> Report:
        """Report which connections an upgrade would move now, and why it would be refused; a new process is started, and ended when ready."""
        return await self._checking.request()

    async def _check_upgrade(self) -> Report:
        await self._upgrades.serves()
        await self._reloading.wait_until_idle()
        await self._upgrades.connections_arrived()
        supervisor = self.supervisor
        if supervisor is None or not self.running:
            return Report.refused(self._why_idle())
        rules = self.control.rules
        transfers = WorkerTransfers(supervisor, rules.settings.drain_timeout)
        report = await transfers.would_stay()
        refusals = [*self._upgrades.refusals(rules.listeners, transfers)]
        if not refusals:
            try:
                await self._upgrades.try_start(transfers, self._state_of(supervisor))
            except (OpenerError, UpgradeError) as problem:
                refusals = str(problem).splitlines()
        return attrs.evolve(report, ok=not refusals, errors=refusals)

    def _state_of(self, supervisor: Supervisor) -> Callable[..., Awaitable[TransferState]]:
        return partial(collect_state, supervisor, self.control, self._resources)

    async def _upgraded(self) -> Upgrade:
        await self._upgrades.connections_arrived()
        supervisor = self.supervisor
        if supervisor is None or not self.running:
            raise UpgradeError(self._why_idle())
        rules, state = self.control.rules, self._state_of(supervisor)
        transfers = WorkerTransfers(supervisor, rules.settings.drain_timeout)
        return await self._upgrades.upgrade(rules.listeners, transfers, state)

    def _why_idle(self) -> str:
        is_ending = self.control.is_stopping and self.supervisor is not None
        return STOPPING if is_ending else "the service does not run"

    def _exit(self, *, gives_workers: bool) -> None:
        """End, as another process serves: at once if that has adopted the workers, or else after the last connection."""

        async def leave(supervisor: Supervisor) -> None:
            if gives_workers:
                await supervisor.pool.give_away()
                supervisor.starter.leave()
            else:
                await supervisor.leave(is_replaced=True)
            await DeferredList([*self._upgrades.renewing])
            self._stop_signals.stop_reactor()

        self.control.be_replaced()
        if self.supervisor is not None:
            Deferred.fromCoroutine(leave(self.supervisor))

    def _start_upgrade(self) -> None:
        failed = partial(self._log.failure, "the upgrade failed")
        Deferred.fromCoroutine(self.upgrade()).addErrback(failed)

    def stopService(self) -> Deferred[None]:
        """Stop accepting, let connections finish, and end those that take longer than ``drain_timeout``."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._watch.stop()
        await self.control.stop_following()
        await self._upgrades.has_taken_over()
        self._upgrades.expect_no_more()  # a reload or an upgrade may wait for connections
        shared = self._upgrades.stop_upgrading()
        if self.failure is None:
            await self._upgrades.report_exit()
        await self._reloading.wait_until_idle()
        supervisor = self.supervisor
        if supervisor is not None and not shared:
            await self._stop_signals.wait(self.control.rules.settings.grace)
        keep_files = shared or self._resources.notifier.keeps
        self._resources.close_sockets(keep_files=keep_files)
        if supervisor is not None:
            until = self._reactor.seconds() + self.control.rules.settings.drain_timeout

            def hurry() -> None:
                nonlocal until
                until = 0.0
                supervisor.end_all()
                self._upgrades.hurry()

            self._stop_signals.hurry = hurry
            draining = Deferred.fromCoroutine(supervisor.drain())
            if self._stop_signals.is_urgent:
                hurry()
            await draining
            await self._upgrades.is_final()
            supervisor.limits.close()  # which an upgrade uses to its end
            await write_rest_of_service_logs(lambda: self._reactor.seconds() >= until)
            self.control.report_end(is_replaced=shared)
            self.supervisor = None
        await self._resources.endpoints.stop(keep_files=keep_files)
        self._resources.privilege.give_up()
        await self._resources.notifier.end()
        self._stop_signals.stop()
        for watch in self._signals:
            watch.stop()

    def _stop_soon(self) -> None:
        # Answer the API request before stopping.
        self._reactor.callLater(0, self._stop_signals.stop_reactor)

    def reopen_log(self) -> None:
        """Reopen the access log's file, after it was moved away."""
        if self.supervisor is not None:
            self.supervisor.reopen_log()

    async def reload(self, rules: Rules | None = None) -> Report:
        """Apply changed rules. Existing connections keep their rules, and no client is turned away.

        Everything is read and opened first; if anything is wrong, nothing changes. The access log's file is reopened
        in any case. Requests during a reload share one more run after it.

        Args:
            rules: The rules to apply; without them, the files are read again.
        """
        if rules is not None:
            self._pending_rules = rules
        return await self._ask_for_reload()

    def _ask_for_reload(self) -> Deferred[Report]:
        self._is_asked_for = True
        return self._reloading.request()

    def _has_outdated_rules(self) -> bool:
        # The new process of an upgrade reads the files itself.
        is_about_to_read = self._upgrades.is_under_way or self._reloading.is_busy
        return self._watch.has_changed and not is_about_to_read

    def _rules_changed(self) -> bool:
        if self._upgrades.is_under_way:
            return False  # the new process reads the files itself
        failed = partial(self._log.failure, "the reload failed")
        self._reloading.request().addErrback(failed)
        return True

    async def _reload(self) -> Report:
        is_asked_for, self._is_asked_for = self._is_asked_for, False
        await self._upgrades.settled()
        if self._upgrades.has_successor:
            return await self._upgrades.reload_successor()
        await self._upgrades.connections_arrived()
        supervisor, given, self._pending_rules = self.supervisor, self._pending_rules, None
        control = self.control
        if supervisor is None or control.is_stopping:
            self._log.warn("reload failed: {why}", why=self._why_idle())
            return Report.refused(self._why_idle())
        if given is None and (why := control.rules.unreadable):
            supervisor.reopen_log()
            self._log.info("{why}", why=why)
            return Report(ok=True, changes=why)
        self._resources.notifier.reloading()
        try:
            with UNCOLLECTED_FOR_GOOD:
                report = await self._change(supervisor, given, is_asked_for=is_asked_for)
        except MuxError as problem:
            report = Report.refused(problem)
        except ImportError as problem:
            why = f"{problem}, or its user cannot read it; restart txmux, which imports it first"
            report = Report.refused(f"cannot import what these rules need: {why}")
        except Exception as problem:  # noqa: BLE001 - report any failure to the caller
            self._log.failure("the rules cannot be reloaded")
            report = Report.refused(repr(problem))
        if changes := report.changes:
            self._log.info("rules reloaded: {changes}", changes=changes)
        else:
            supervisor.reopen_log()
            errors = "\n".join(report.errors)
            self._log.error("reload failed, keeping the previous rules: {errors}", errors=errors)
        status = f"reloaded: {changes}" if changes else f"not reloaded: {report.errors[0]}"
        steps = CommittedSteps(f"the rules are {'in force' if changes else 'as before'}")
        steps.run("report the reload", control.record_reload, report)
        steps.run("leave the sockets with systemd", self._resources.store)
        steps.run("notify systemd", self._resources.notifier.ready, f"serving; rules {status}")
        if steps.troubles:
            report = attrs.evolve(report, ok=False, errors=(*report.errors, *steps.troubles))
            control.last_reload = time.time(), report
        # What was only read, or is no longer in force, may be a third of what this process has.
        giving_back = Deferred.fromCoroutine(in_thread(give_back))
        giving_back.addErrback(lambda why: self._log.failure("cannot give memory back", why))
        return report

    async def _read_to_try(self) -> Rules:
        await self._reloading.wait_until_idle()
        if self._upgrades.has_successor:
            raise MuxError("another process serves by now; ask that")
        if why := self.control.rules.unreadable:
            raise MuxError(why)
        rules = await self._read(None)
        await self._reloading.wait_until_idle()  # one may have begun meanwhile
        if (supervisor := self.supervisor) is not None:
            async with supervisor.reading_files:
                await supervisor.check_tls_files(rules)
        return rules

    async def _read(self, rules: Rules | None) -> Rules:
        """Read the rules again, unless they are given; a `MuxError` if they cannot be used here."""
        try:
            if rules is None:
                read = self._resources.privilege.read
                rules = await in_thread(read, self.control.rules.path, self.control.rules.files)
        except TimeoutError as problem:
            raise _unreadable(problem) from problem
        problems = unchangeable(self.control.rules.settings, rules.settings)
        if problems:
            raise RulesError(map(rules.placed, problems))
        return await self._servable(rules, UntakenUnits(self.control.rules.files))

    async def _servable(self, rules: Rules, units: UntakenUnits) -> Rules:
        """Return rules with what is in force for units that are not taken, or cannot be served."""
        rules = await in_thread(retaken, rules, units)
        self._resources.sockets.awaited.clear()
        while True:
            late = await first_late(check_disks, rules)
            # Whose groups these are, a machine of the network may be asked.
            closed = await in_thread(lambda its: [*forbidden(its)], rules)
            problems = self._unservable(rules, closed, [late] if late else ())
            if not problems:
                return rules
            units.leave_out(problems, rules.units)
            rules = await in_thread(retaken, rules, units)

    async def _allowed(self, rules: Rules) -> Rules:
        """Return rules that came by themselves, without the changes of units that no part allows; a `MuxError` for the operator's."""
        refused: dict[str, Problem] = {}
        tries = 0

        async def take(units: Sequence[tuple[str, Problem]]) -> None:
            """Take these units beside those before that are allowed: all, or else each half for itself."""
            nonlocal tries
            tries -= 1
            if tries < 0:
                return
            for name, _ in units:
                del refused[name]
            try:
                await self._check_change(await self._leaving_out(rules, refused))
            except MuxError as why:
                refused.update(_refused(units, why))
                half = len(units) // 2
                for some in (units[:half], units[half:]) if half else ():
                    await take(some)

        try:
            await self._check_change(rules)
        except MuxError as why:
            in_force = self.control.rules.files
            changed = await in_thread(lambda: [*changed_units(rules, in_force)])
            if not changed:
                raise
            refused |= _refused(changed, why)
            await self._check_change(await self._leaving_out(rules, refused))
            authors = {**in_force.authors, **rules.files.authors}

            def author(unit: tuple[str, Problem]) -> int:
                return authors.get(unit[0], -1)

            for _, its in groupby(sorted(changed, key=author), author):
                tries = _MOST_TRIES
                await take([*its])
        return await self._leaving_out(rules, refused)

    async def _leaving_out(self, rules: Rules, refused: Mapping[str, Problem]) -> Rules:
        if not refused:
            return rules
        units = UntakenUnits(self.control.rules.files)
        units.problems.update((name, (problem,)) for name, problem in refused.items())
        return await self._servable(rules, units)

    async def _check_change(self, rules: Rules) -> None:
        for part in self.control.parts.values():
            await part.check_change(rules)

    async def _change(
        self, supervisor: Supervisor, given: Rules | None, *, is_asked_for: bool
    ) -> Report:
        if changed := self._starter.code.change():
            raise MuxError(f"{changed}: run 'txmux upgrade'")
        rules = await self._read(given)
        if not is_asked_for:
            rules = await self._allowed(rules)
        account = self._account = account_of(rules)
        self._check_servers(rules)
        await supervisor.close_unused()
        different = await in_thread(changes, self.control.rules, rules)
        rules_changed = bool(str(different))
        with _placing(rules):
            endpoints = self._resources.endpoints.prepare(rules)
        steps = CommittedSteps("the rules are in force")
        try:
            await self.control.make_room(rules, supervisor.version)
            with _placing(rules):
                async with supervisor.reading_files:
                    sockets = self._resources.sockets.prepare(rules.listeners)
                    owner = account.owner if account else None
                    await supervisor.change(
                        rules, sockets, owner, steps, rules_changed=rules_changed
                    )
        except BaseException:
            endpoints.sockets.abandon()
            raise
        # The rules are in force now: what fails from here on is no failure of the reload.
        self.control.rules = rules
        steps.run("use the admin endpoints", self._resources.endpoints.commit, endpoints)
        shown = different if rules_changed else None
        complete = partial(self._complete, supervisor, rules, steps, shown)
        report = await steps.wait("complete the reload", complete)
        if report is not None:
            return report
        return Report(ok=False, changes="the rules are in force", errors=tuple(steps.troubles))

    async def _complete(
        self, supervisor: Supervisor, rules: Rules, steps: CommittedSteps, different: Changes | None
    ) -> Report:
        """Complete a reload after the commit."""
        steps.run("open files by the helper", self._resources.privilege.commit, rules.files)
        steps.run("follow the rules", self.control.commit, rules)
        steps.run("watch the rules' files", self._watch.commit, rules)
        warn = partial(self._warn, supervisor, rules, rules_changed=different is not None)
        await steps.wait("warn of what is unusual", warn)
        failed = await steps.wait("wait for the workers", supervisor.all_serve) or []
        if different is not None and rules.settings.drain_removed:
            # Before, a worker that has to catch up has none of older rules.
            gone = different.routes.gone, different.backends.gone
            steps.run("end the connections of removed routes", supervisor.end_removed, *gone)
        unusable = await steps.wait("look for unusable files", self.control.unusable_files) or []
        self._log_warnings(unusable)
        changes = _NO_CHANGE
        if different is not None:
            stayed, _ = self.control.counters.left_behind()
            older = sum(supervisor.older.values()) + stayed
            described = steps.run("describe the change", different.described, older)
            changes = described or "the rules are in force"
        kept = few_of_each_owner(
            [*supervisor.state.files.troubles(), *unusable], self.control.index
        )
        errors = (*failed, *steps.troubles)
        changes = "; ".join([changes, *kept, *described_untaken(rules)])
        untaken = [*untaken_documents(rules)]
        details = {"untaken": untaken} if untaken else {}
        return Report(ok=not errors, changes=changes, errors=errors, details=details)

    async def _warn(self, supervisor: Supervisor, rules: Rules, *, rules_changed: bool) -> None:
        warnings = await in_thread(lint, rules) if rules_changed else []
        ending = map(rules.placed, supervisor.ending_certificates())
        self._log_warnings([*warnings, *ending])

    def _log_warnings(self, warnings: Iterable[Problem | str]) -> None:
        for warning in few_of_each_owner(warnings, self.control.index):
            self._log.warn("{warning}", warning=warning)

    def _open(self) -> Supervisor:
        supervisor = self.supervisor
        if supervisor is None:
            self.control.is_stopping = False
            try:
                self._upgrades.find_predecessor()
                supervisor = self._open_all()
                control, state = self.control, self._upgrades.state
                control.state = supervisor.state
                supervisor.restore(state)
                control.last_reload = last_reload_in(state)
                control.rates.restore(state.get("history", ()))
                control.restore_attention(state.get("attention", {}))
            except Exception as problem:
                self._upgrades.cannot_serve(problem)
                self._resources.endpoints.store.close(keep_files=self._upgrades.is_waiting)
                if self.supervisor is not None:
                    self.supervisor.limits.close()
                    self.supervisor = None
                self._starter.close()
                raise
        return supervisor

    def _check_servers(self, rules: Rules) -> None:
        problems = [*map(rules.placed, unusable_servers(self._reactor, rules))]
        if problems:
            raise RulesError(problems)

    def _unservable(
        self, rules: Rules, closed: Iterable[Problem], late: Iterable[OSError]
    ) -> list[Problem]:
        """Return why units cannot be served: what they listen on, what they connect to, what is closed to their authors, or a file whose disk does not answer.

        For the operator's own rules, that is an error, which is raised here or found later.
        """
        problems: list[Problem] = []
        for problem in late:
            late_in_units = unanswered(rules, problem)
            if not late_in_units:
                raise _unreadable(problem) from problem
            problems += late_in_units
        if rules.units:
            sockets = self._resources.sockets
            of_units = [one for one in rules.listeners if rules.unit_of(one.section)]
            operators = [one for one in rules.listeners if not rules.unit_of(one.section)]
            problems += [*closed, *unusable_servers(self._reactor, rules)]
            problems += at_automatic(rules)
            # With too many, opening them would say less.
            too_many = [*too_many_sockets(rules, soft_limit(), sockets.sockets())]
            problems += too_many or sockets.unavailable(of_units, operators)
        problems = [*map(rules.placed, problems)]
        return [problem for problem in problems if unit_at(rules.units, problem.path, problem.line)]

    def _open_all(self) -> Supervisor:
        """Open all sockets; no worker is started yet."""
        rules, counters = self.control.rules, self.control.counters
        account = self._account = account_of(rules)
        privilege, state = self._resources.privilege, self._upgrades.state
        before = Files(
            state.get("units", {}), state.get("included", {}), authors=state.get("authors", {})
        )
        if privilege.opener is None:  # else its helper has read them, which knows those of before
            rules = with_unseen_units(rules, before)
        privilege.open(rules)
        rules = without_unservable(
            rules,
            UntakenUnits(before),
            lambda its: self._unservable(its, forbidden(its), _late_disks(its)),
        )
        for line in described_untaken(rules):
            self._log.error("{line}", line=line)
        self.control.rules = rules
        self._check_servers(rules)
        counters.extend(rules)
        supervisor = self.supervisor = Supervisor(
            rules,
            self._reactor,
            self._resources,
            self._starter,
            self._fail,
            served=self._can_serve,
            accepting=not self._upgrades.is_waiting,
            limits=self._upgrades.take_limits(),
        )
        supervisor.version = number_in(self._upgrades.state, rules)
        pem = self._upgrades.state.get("pem", ({}, {}))
        supervisor.check(account.owner if account else None, pem)
        warnings = lint(rules) if self._warnings is None else self._warnings
        self._log_warnings([*warnings, *supervisor.ending_certificates()])
        with _placing(rules):
            self._upgrades.open(rules)
        return supervisor

    def _can_serve(self) -> None:
        supervisor = self.supervisor
        if supervisor is not None:  # otherwise the service has stopped
            self._upgrades.can_serve(supervisor)

    def _fail(self, error: MuxError) -> None:
        self.failure = error
        self._log.error("{error}; stopping", error=error)
        self._upgrades.cannot_serve(error)
        self._stop_signals.stop_reactor()


@contextmanager
def _placing(rules: Rules) -> Iterator[None]:
    """Add the lines of the files to errors."""
    try:
        yield
    except MuxError as problem:
        raise rules.placed_error(problem) from None


def _refused(units: Iterable[tuple[str, Problem]], why: MuxError) -> dict[str, Problem]:
    return {
        name: attrs.evolve(problem, message=f"{problem.message}{why}") for name, problem in units
    }


def _late_disks(rules: Rules) -> list[OSError]:
    try:
        within_patience(check_disks, rules)
    except TimeoutError as problem:
        return [problem]
    return []


def _unreadable(problem: OSError) -> MuxError:
    return MuxError(why_unread(problem))

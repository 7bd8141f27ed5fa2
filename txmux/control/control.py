"""The operator's interface to a running service: reports and changes over all its workers."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import attrs
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from txmux.access import bans as banning
from txmux.access.network_sources import ListUpdates
from txmux.classes import frozen
from txmux.client.overrides import Overrides
from txmux.client.parts import Parts, ServiceContext, ServicePart
from txmux.control import attention
from txmux.control import documents as building
from txmux.control.broadcast import (
    ANSWER_TIMEOUT,
    Answers,
    Listing,
    WorkerLink,
    broadcast,
    concurrently,
)
from txmux.control.clients import RefusedClients
from txmux.control.events import Hub
from txmux.control.gauges import COUNT, Gauges, ServiceCounts, WorkerReports, own_gauges
from txmux.control.overrides import ServiceState
from txmux.control.rates import Rates
from txmux.control.report import Report, UnknownError
from txmux.control.rules_index import RulesIndex, known_listener
from txmux.errors import MuxError
from txmux.net.channel import messages
from txmux.net.channel.channel import ChannelError
from txmux.net.channel.message import Message
from txmux.net.turns import Turns, in_thread, look_in_thread
from txmux.rules.model import Rules
from txmux.rules.problems import suggestion
from txmux.serving.store import ListeningSockets
from txmux.telemetry import documents
from txmux.telemetry.attention import AttentionItem, AttentionLog
from txmux.telemetry.counting.counter_groups import PROCESS, ServerTotals
from txmux.telemetry.counting.counters import OWN, Counters, keys_needed
from txmux.telemetry.counting.snapshot import counts_in_steps, server_samples, totals, unrouted
from txmux.telemetry.lines import LOST_LINES, LostLinesLog
from txmux.telemetry.provider_state import ReportedSource, reported_sources
from txmux.telemetry.sources import Source, SourceLog, SourceState, worst
from txmux.telemetry.steps import RecurringSteps
from txmux.transport import IPAddress
from txmux.version import __version__

_MOST_NAMED = 1000
"""Names of backends in a request; more are asked for with all others."""

STOPPING = "the service is shutting down"

_Names = Collection[str] | None

_ALONE = 10.0  # seconds that a worker has for what is asked of it alone
_RECEIVING = 30.0  # seconds that a worker has to take what is sent to its part of a feature


@frozen(eq=False, kw_only=True)
class ServiceActions:
    """What an operator has the service itself do, and what only that knows.

    Attributes:
        read_rules: Reads the files of the rules again, as a reload does; a `MuxError` if one would be refused.
        has_outdated_rules: Whether the files of the rules have changed since they were read.
        are_arriving: Whether connections of the process that this one replaces are still being handed over.
        renew_elsewhere: Renews a certificate in the process that has replaced this one; ``None`` if there is none.
    """

    reload: Callable[[], Awaitable[Report]]
    upgrade: Callable[[], Awaitable[Report]]
    check_upgrade: Callable[[], Awaitable[Report]]
    stop: Callable[[], object]
    read_rules: Callable[[], Awaitable[Rules]]
    has_outdated_rules: Callable[[], bool]
    are_arriving: Callable[[], bool]
    renew_elsewhere: Callable[[str], Awaitable[Report] | None]


class Control:
    """Asks all workers of a service and puts their answers together; passes an operator's changes to all of them.

    Attributes:
        recurring: Runs what this process does again and again.
        rates: The rates of counters.
        index: Finds in the current rules what belongs together.
        bans: Clients that may not connect, beside the rules.
        state: The workers and what they are given beside the rules; from the start on.
        token_trouble: Why the tokens of clients could not be read again; empty if they could.
        started: When the service was started, in seconds since 1970.
        last_reload: The time of the last reload, in seconds since 1970, and its result.
        last_upgrade: The same of an upgrade.
    """

    _log = Logger()
    state: ServiceState

    def __init__(
        self,
        reactor: Any,
        rules: Rules,
        counters: Counters,
        sockets: ListeningSockets,
        service: ServiceActions,
    ) -> None:
        self.rules = rules
        self.index = RulesIndex(rules)
        self.counters = counters
        self._sockets = sockets
        self.service = service
        self.started = 0.0
        self.last_reload: tuple[float, Report] | None = None
        self.last_upgrade: tuple[float, Report] | None = None
        self.is_stopping = False
        self.token_trouble = ""
        self.rates = Rates(reactor.seconds)
        self.events = Hub(reactor, self.workers, lambda: self.state.upstreams)
        self.recurring = recurring = RecurringSteps()
        self.bans = banning.ServiceBans(
            lambda: self.state.bans, self._change_bans, recurring=recurring
        )
        self.lists = ListUpdates(reactor, self.feed)
        context = ServiceContext(
            reactor,
            self.bans,
            self._send_to_parts,
            self.serving,
            lambda: self.state.per_source(),  # noqa: PLW0108 - it is not there yet
        )
        self.parts = Parts[ServicePart](lambda feature: feature.part(context))
        self._of_providers: Sequence[ReportedSource] = ()
        self._source_log, self._provider_log = SourceLog(), SourceLog()
        self._attention_log = AttentionLog()
        self._refused = RefusedClients(counters, reactor.seconds)
        self._lost_lines = LostLinesLog(reactor.seconds)

    def commit(self, rules: Rules) -> None:
        self.rules = rules
        self.index = RulesIndex(rules)
        self.lists.commit(rules)
        self.parts.commit(rules)
        Deferred.fromCoroutine(self.index.look_at_secrets())

    async def unusable_files(self) -> list[str]:
        """Return a sentence for each file that cannot be used of those that are read again by themselves, beside files for TLS."""
        gauges = await self._gauges()
        return [*await self.lists.unusable_files(), *gauges.unread, *gauges.of_others]

    def be_replaced(self) -> None:
        """Leave to another process what changes."""
        self.events.report_stop()
        self.lists.stop()
        for part in self.parts.values():
            part.stop_following()

    async def stop_following(self) -> None:
        """Stop following lists, events and what features do: the service is shutting down."""
        self.is_stopping = True
        self.events.report_stop()
        self.lists.stop()
        await gatherResults(filter(None, [part.stop_following() for part in self.parts.values()]))

    def workers(self) -> Sequence[WorkerLink]:
        return self.state.workers()

    async def ask_workers(
        self, message: Message, *, seconds: float = ANSWER_TIMEOUT, **values: Any
    ) -> Answers:
        return await broadcast(self.serving(), message, seconds=seconds, if_late="skip", **values)

    async def ask_one(self, message: Message, **values: Any) -> Any:
        """Ask a worker what all know, once: it parses bytes of clients, which may be its end; a `ChannelError` if it does not answer."""
        asked = [worker for worker in self.serving() if not worker.is_late][:1]
        answers = await broadcast(asked, message, seconds=_ALONE, if_late="skip", **values)
        for _, answer in answers:
            return answer
        raise ChannelError("; ".join(answers.missing) or "no worker serves that could tell")

    def serving(self) -> list[WorkerLink]:
        return [worker for worker in self.workers() if worker.ready]

    async def change_workers(
        self, message: Message, *, seconds: float = ANSWER_TIMEOUT, **values: Any
    ) -> Answers:
        """Send a change, also to workers that are late: they make it when they answer again."""
        return await broadcast(self.workers(), message, seconds=seconds, if_late="send", **values)

    # The service.

    async def missing(self) -> list[str]:
        """Return what prevents clients from being served, one line each."""
        if self.is_stopping:
            return [STOPPING]
        return await self.state.missing()

    async def ask(self) -> WorkerReports:
        """Ask the workers for what the status, the counts and the backends need."""
        condition = self.state.condition()
        missing, states, served, gauges = await concurrently(
            self.missing(), self._states(), self.state.status(), self._gauges()
        )
        up = await Turns().run(building.weights_up(states))
        gauges, addresses = attrs.evolve(gauges, up=up), self._with_observed(states)
        return WorkerReports(missing, addresses, served, gauges, condition)

    async def ask_for_trouble(self) -> WorkerReports:
        """Ask the workers for what the status needs: of backends whose servers are all up, which may be thousands, for nothing."""
        condition = self.state.condition()
        missing, served, gauges = await concurrently(
            self.missing(), self.state.status(), self._gauges()
        )
        observed = (backend for backend, _ in self.state.observer.observed())
        named = {*gauges.troubled, *self.state.upstreams.troubled(), *observed}
        of = named & self.index.backends.keys()
        addresses = await self.addresses(of)
        return WorkerReports(missing, addresses, served, gauges, condition, of)

    async def status(
        self,
        reports: WorkerReports | None = None,
        backends: Sequence[documents.BackendDocument] | None = None,
    ) -> documents.StatusDocument:
        """Return the document for ``/api/status``; that of the backends is made if it is not given."""
        reports = reports or await self.ask_for_trouble()
        names = [listener.name for listener in self.rules.listeners]
        unserved = [line for line in reports.missing if line.startswith("no worker")]
        closed = {
            **attention.closed_listeners(reports.missing, self.shut()),
            **dict.fromkeys(names if unserved else (), "".join(unserved)),
        }
        if self.is_stopping and not self._sockets.sockets():  # during grace they are still there
            closed = dict.fromkeys(names, STOPPING)
        served, gauges = reports.served, reports.gauges
        totals, last = self._totals()[0], self.last_reload
        shared = (part.shared_bans(gauges.outside) for part in self.parts.values())
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started": self.started,
            "generation": served.get("generation", 0),
            "workers": [*served.get("workers", ())],
            "listeners": [
                *building.listener_documents(
                    self.rules, self._sockets, self.counters, closed, gauges
                )
            ],
            "connections": {
                "active": served.get("active", 0),
                "undecided": served.get("undecided", 0),
                "total": totals["connections"],
                "unrouted": unrouted(self.counters, names),
                "limit": self.rules.settings.max_connections,
            },
            "rates": self.rates.until_now(totals),
            "last_reload": last and {"time": last[0], **last[1].as_json()},
            "draining": self.is_stopping,
            "rules_path": self.index.path,
            "rules_sha256": self.index.sha256,
            "untaken": [*building.untaken_documents(self.rules)],
            **gauges.in_status(),
            "bans": {"active": len(self.bans), "shared": next(filter(None, shared), None)},
            "attention": [item.as_json() for item in await self.attention(reports, backends)],
            "incomplete": reports.lacking,
        }

    async def attention(
        self, reports: WorkerReports, backends: Sequence[documents.BackendDocument] | None = None
    ) -> list[AttentionItem]:
        """Return what needs attention, the worst first."""
        gauges, condition = reports.gauges, self.state.condition()
        missing = attention.lasting(reports.missing, reports.condition, condition)
        if backends is None:
            backends = await self._backends((), gauges, reports.addresses, reports.of)
        now = time.time()
        stayed, orphaned = self.counters.left_behind()
        found = [
            *await Turns().collect(attention.backends(backends, self.index, now)),
            *attention.doubted_servers(self.state.observer.doubts()),
            *attention.not_served(missing),
            *attention.not_accepted(missing, self.shut(), gauges.cannot_accept),
            *attention.overflowed(self.rules, self.state.queues.lost(), gauges.newest),
            *attention.failing_steps(self.recurring.failing),
            *attention.rules_not_in_force(
                self.last_reload,
                str(self.rules.path),
                has_changed=self.service.has_outdated_rules(),
            ),
            *attention.untaken_units(self.rules),
            *attention.failed_upgrade(self.last_upgrade),
            *attention.left_behind(0 if self.service.are_arriving() else stayed, orphaned),
            *attention.clients_that_wait(self.state.overrides.held, gauges.held, time.monotonic()),
            *attention.silent_workers(condition),
            *attention.unusable_answers(reports.unusable),
            *attention.processes(self.state, now, time.monotonic()),
            *attention.measured(gauges, self.rules, now),
            *attention.secrets(self.index.open_secrets, self.token_trouble),
            *(item for part in self.parts.values() for item in part.troubles()),
            *self.refusing(gauges),
        ]
        owned = (attrs.evolve(item, owner=self.index.owner_of(item.section)) for item in found)
        return self._attention_log.record(owned, complete=not reports.lacking)

    def refusing(self, gauges: Gauges) -> Iterator[AttentionItem]:
        """Yield the limits that refuse clients now."""
        listeners = [listener.name for listener in self.rules.listeners]
        return self._refused.attention(listeners, gauges.refusing)

    async def attention_state(self) -> dict[str, Any]:
        await self._gauges()  # with what workers have lost by now
        return {"since": self._attention_log.state(), "lost_lines": {**self._lost_lines.losing}}

    def restore_attention(self, state: Mapping[str, Any]) -> None:
        self._attention_log.restore(state.get("since", ()))
        self._lost_lines.restore(state.get("lost_lines", {}), self._access_log)

    @property
    def _access_log(self) -> str:
        return f"access log {self.rules.settings.access_log}"

    async def look(self) -> None:
        """Notice what needs attention without a request; called every few seconds."""
        await self.index.look_at_secrets()
        await self._look_at_providers()
        await self.attention(await self.ask_for_trouble())

    async def _look_at_providers(self) -> None:
        """Read in a thread whether the sources of providers answer."""
        found: Sequence[ReportedSource] = ()
        with suppress(OSError):  # if the disk does not answer, nothing is known
            if self.rules.files.included:
                found = await look_in_thread(reported_sources, self.rules)
        self._of_providers = found
        self._provider_log.record(self._states_of_providers())

    def record_reload(self, report: Report) -> None:
        self.last_reload = (time.time(), report)
        self.events.reloaded(report)

    def record_upgrade(self, report: Report) -> None:
        self.last_upgrade = (time.time(), report)

    # Counters.

    async def counts(
        self, reports: WorkerReports | None = None, of: _Names = None
    ) -> ServiceCounts:
        """Return the counts of all processes, including open connections; those of all backends and their servers, or of some."""
        gauges = reports.gauges if reports else await self._gauges()
        self._count_lost_lines()
        when, report = self.last_reload or (self.started, Report(ok=True))
        backends = self.index.backends_of(of)
        counts = await Turns().run(counts_in_steps(self.counters, self.rules, backends))
        numbers = attrs.asdict(counts, recurse=False)
        return ServiceCounts(
            **numbers, gauges=gauges, rules=self.index.sha256, reloaded=(report.ok, when)
        )

    def _count_lost_lines(self) -> None:
        self.counters.column(OWN).process.lost_lines(LOST_LINES.take_count())

    def report_end(self, *, is_replaced: bool) -> None:
        """Count what this process has not counted, and log the lost lines, which no other process can report if it `is_replaced` by none."""
        self._count_lost_lines()
        lost = self.counters.cells(PROCESS.key())[PROCESS.lost_lines.at]
        if lost and not is_replaced:
            self._log.warn(
                "lines that logs could not write since the service started: {lost}", lost=lost
            )

    async def _gauges(self) -> Gauges:
        answers = await self.ask_workers(COUNT, gauges=True)
        own = {"lost_lines": LOST_LINES.report()}
        gauges = Gauges.of([own, *(answer for _, answer in answers)])
        totals = [(number, answer.get("lost_in_all", {})) for number, answer in answers]
        totals.append((OWN, LOST_LINES.totals))
        self._lost_lines.record(totals, gauges.lost_lines, gauges.written_logs, self._access_log)
        asked = (source.state() for source in self._sources())
        outside = worst([*asked, *self._states_of_providers(), *gauges.outside])
        return attrs.evolve(
            gauges.with_values(own_gauges(self.state, self.counters)),
            outside=outside,
            lost_lines=self._lost_lines.losing,
            missing=answers.missing,
            unusable=answers.unusable,
        )

    def _sources(self) -> Iterator[Source]:
        """Return what this process asks of others; workers report theirs."""
        yield from self.lists.sources()
        yield from self.state.upstreams.sources()
        for part in self.parts.values():
            yield from part.sources()

    def _states_of_providers(self) -> list[SourceState]:
        now = time.monotonic()
        return [source.state(now) for source in self._of_providers]

    def stale(self) -> list[str]:
        ages = Gauges(stale=self.state.upstreams.stale()).stale_ages().items()
        return [f"backend {backend}: {server}: {why}" for (backend, server), why in ages]

    async def make_room(self, rules: Rules, version: int) -> None:
        """Add counters for the next rules, and clear those of routes that no connection has any longer."""
        needed = await in_thread(keys_needed, rules)
        self.counters.extend(rules, version, needed)
        if self.counters.has_unneeded:
            Deferred.fromCoroutine(self._clear_unused()).addErrback(
                lambda why: self._log.failure(
                    "counters of removed routes could not be cleared", why
                )
            )

    async def _clear_unused(self) -> None:
        answers = await self.ask_workers(COUNT, gauges=True)
        versions = {version for _, answer in answers for version in answer.get("generations", ())}
        if versions and not answers.missing:
            self.counters.forget(versions)

    async def sample(self) -> None:
        """Record the counters for the rates in `status` and the history; called every few seconds."""
        answers = await self.ask_workers(COUNT)
        self._source_log.record(Gauges.of(answer for _, answer in answers).outside)
        self.rates.record(*self._totals())
        self.rates.record_servers(server_samples(self.counters))
        self._refused.record(listener.name for listener in self.rules.listeners)

    def _totals(self) -> tuple[dict[str, int], int]:
        names = (listener.name for listener in self.rules.listeners)
        total, active, bytes_in, bytes_out = totals(self.counters, names)
        return {"connections": total, "bytes_in": bytes_in, "bytes_out": bytes_out}, active

    # Certificates.

    def _send_to_parts(self, feature: str, values: dict[str, Any]) -> Deferred[Answers]:
        """Send values that the parts of a feature in workers `receive`; those that start get the newest with their rules."""
        told: dict[str, Any] = {"feature": feature, "values": values}
        for worker in self.workers():
            if not worker.ready:
                worker.send(messages.PART, **told)
        asking = broadcast(self.serving(), messages.PART, seconds=_RECEIVING, **told)
        return Deferred.fromCoroutine(asking)

    async def certificates(self) -> Listing[documents.CertificateDocument]:
        """List the certificates that clients are shown: those that come by ACME, and those of files."""
        renewed = [row for part in self.parts.values() for row in part.certificates()]
        shown = self.state.files.terminators.shown()
        return Listing(building.certificates_document(self.rules, renewed, shown))

    async def renew(self, name: str) -> Report:
        names = self.rules.managed
        try:
            for part in self.parts.values() if name in names else ():
                if (renewing := part.renew(name)) is not None:
                    changes = await renewing
                    await self.state.files.look_now()
                    return Report(ok=True, changes=changes)
        except MuxError as problem:
            elsewhere = self.service.renew_elsewhere(name)
            return Report.refused(problem) if elsewhere is None else await elsewhere
        raise UnknownError(f"no certificate of {name!r} comes by ACME{suggestion(name, names)}")

    # Routes and backends.

    def recent_failures(self) -> list[documents.EndDocument]:
        return self.state.recent.as_json()

    async def routes(
        self, part: slice = slice(None)
    ) -> tuple[Iterator[documents.RouteDocument], Sequence[str]]:
        """Report the routes in a part of the rules, and a line for each worker whose newest numbers they lack."""
        index = self.index  # a reload may come meanwhile
        counts = await self.counts()
        return building.routes_document(
            index, counts, index.rules.routes[part]
        ), counts.gauges.missing

    async def addresses(self, of: _Names = None) -> Answers:
        return self._with_observed(await self._states(of))

    async def _states(self, of: _Names = None) -> Answers:
        if of is None or len(of) > _MOST_NAMED:
            return await self.ask_workers(messages.ADDRESSES)
        if not of:
            return Answers([])
        return await self.ask_workers(messages.ADDRESSES, backends=sorted(of))

    def _with_observed(self, states: Answers) -> Answers:
        rows = building.with_observed(states, self.state.observer.observed())
        return Listing(rows, states.missing, states.unusable)

    async def backends(
        self,
        counts: ServiceCounts | None = None,
        addresses: Answers | None = None,
        of: _Names = None,
    ) -> Listing[documents.BackendDocument]:
        """Report all backends, or those with such names."""
        if counts is None or addresses is None:
            counts, addresses = await concurrently(self.counts(of=of), self.addresses(of))
        rows = await self._backends(counts.servers, counts.gauges, addresses, of)
        return Listing(rows, addresses.missing)

    async def _backends(
        self, servers: Sequence[ServerTotals], gauges: Gauges, answers: Answers, of: _Names = None
    ) -> list[documents.BackendDocument]:
        turns = Turns()
        if of is not None and not of:
            return []
        checked = await turns.collect(building.address_states(self.state.upstreams, of))
        states: list[tuple[int | None, Any]] = [*answers]
        if not states:  # this process's own are the next best
            states.append((None, checked))
        steps = building.backends_document(
            self.index, servers, gauges, self.state.overrides, states, checked, self.rates, of
        )
        return await turns.run(steps)

    async def explain(
        self, data: bytes, listener: str | None = None, client: IPAddress | None = None
    ) -> documents.ExplanationDocument:
        """Explain how one listener, or all, route the first bytes of a client, as ``txmux explain --json`` does."""
        if listener is not None:
            known_listener(self.index, listener)
        host = None if client is None else str(client)
        streams = await self.ask_one(
            messages.EXPLAIN, data=data.hex(), listener=listener, client=host
        )
        return {"rules": str(self.rules.path), "streams": streams}

    # Changes.

    def shut(self) -> list[str]:
        names = {listener.name for listener in self.rules.listeners}
        return sorted(self.state.overrides.shut & names)

    async def override(self, overrides: Overrides) -> list[str]:
        self.state.apply_overrides(overrides)
        values = overrides.as_json()
        return [*(await self.change_workers(messages.APPLY_OVERRIDES, overrides=values)).missing]

    def feed(self, published: dict[str, Any]) -> None:
        self.state.lists.feed(published)
        # A worker that does not answer is replaced, and its successor starts with all lists.
        Deferred.fromCoroutine(self.change_workers(messages.FEED, published=published))

    async def _change_bans(self, changes: Sequence[banning.Change]) -> list[str]:
        made = self.state.bans.change(changes)
        if not made:
            return []
        return [*(await self.change_workers(messages.BAN, rows=banning.rows_of(made))).missing]

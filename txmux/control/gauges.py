"""What the processes of a service measure at the moment: the rows from which follow the answers of workers, `/metrics`, the status and the docs."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from operator import add
from typing import Any, cast

import attrs

from txmux.backends.pool.ports import PORT_SHORTAGE
from txmux.classes import frozen
from txmux.control.broadcast import Answers
from txmux.control.gauge import Gauge, list_of, merged
from txmux.control.overrides import ServiceState, WorkersCondition
from txmux.net.channel.message import AMOUNT, FLAG, NUMBER, TEXT, TIME, WORD, Field
from txmux.net.channel.messages import between
from txmux.net.tls.validity import Validity
from txmux.net.turns import Turns
from txmux.rules.installed import rows
from txmux.serving.serving import Serving
from txmux.telemetry.attention import OF_FEW, AttentionItem, beside_busiest
from txmux.telemetry.counting.counter_rows import Metric, only
from txmux.telemetry.counting.counters import Counters
from txmux.telemetry.counting.snapshot import Counts
from txmux.telemetry.documents import StatusGauges
from txmux.telemetry.formatting import duration
from txmux.telemetry.lines import LOST_LINES
from txmux.telemetry.sources import SourceState


def _gauge(default: Any, meaning: str = "", **row: Any) -> Any:
    how = {"factory": default} if callable(default) else {"default": default}
    return attrs.field(metadata={"row": Gauge(meaning, **row)}, **how)


_NAMES, _COUNTS = Field(list, of=WORD), Field(dict, of=NUMBER)
_SINCE = list_of(WORD, WORD, TIME)
_SOURCE = WORD, FLAG, attrs.evolve(TIME, is_nullable=True), TIME, FLAG, WORD, WORD


def _chained(reports: Iterable[Iterable[Any]]) -> list[Any]:
    return [*dict.fromkeys(itertools.chain(*reports))]


def _more_ports(one: Sequence[Any], newer: Sequence[Any]) -> tuple[str, int, float]:
    why = max(newer[0], one[0], key=lambda text: text.endswith(OF_FEW))
    return why, one[1] + newer[1], min(one[2], newer[2])


def _more_handovers(one: Sequence[Any], newer: Sequence[Any]) -> tuple[str, int, float, bool]:
    why, count, since, is_many = newer
    return why, one[1] + count, min(one[2], since), one[3] or is_many


def _still_failing(how: Callable[[Any, Any], Any], keys: int = 1) -> Callable[[list[Any]], Any]:
    """Merge failures as `merged` does, without those that some process has seen to work since; see `Failures.ended`."""

    def merge(reports: list[Any]) -> dict[Any, Any]:
        failing, works = [], dict[Any, float]()
        for *row, when in itertools.chain(*reports):
            key = (*row[:keys],)
            if row[keys + 1]:  # failures
                failing.append((key, row, when))
            else:
                works[key] = max(when, works.get(key, 0.0))
        still = [row for key, row, when in failing if when > works.get(key, 0.0)]
        return merged(how, keys)([still])

    return merge


async def _ports(serving: Serving) -> list[tuple[str, str, str, int, float, float]]:
    for backend in {name for name, _ in PORT_SHORTAGE.failing}:
        few = await serving.runtime.clients.of_few(serving.connections(), backend)
        PORT_SHORTAGE.taken(backend, few)
    return PORT_SHORTAGE.report()


def _ends(value: Iterable[tuple[str, Validity]]) -> Mapping[tuple[str, str], float]:
    """Return by route and file when a certificate ends, or one of its chain."""
    ends: dict[tuple[str, str], float] = {}
    for route, cert in value:
        if cert.is_shown:
            ends[route, cert.file] = min(cert.ends, ends.get((route, cert.file), cert.ends))
    return ends


def _unread(serving: Serving) -> Iterator[str]:
    yield from serving.unopened
    if serving.runtime.lists.trouble:
        yield serving.runtime.lists.trouble


def _source_states(serving: Serving) -> list[Any]:
    parts = serving.runtime.parts.values()
    sources = [
        *serving.upstreams.sources(),
        *(source for part in parts for source in part.sources()),
    ]
    # Where this process is the only one, it reports and logs the others itself.
    return [attrs.astuple(source.state()) for source in sources if not source.logs]


@frozen
class Gauges:
    """Measured values of all processes, a `Gauge` each; everything else is counted.

    Attributes:
        missing: A line for each worker of which all this is missing, with the reason.
        unusable: Those of workers that have answered.
        of_features: By their names, the values of the rows of features.
    """

    # fmt: off
    generations: int = _gauge(
        1, combine=lambda reports: max(1, len({*itertools.chain(*reports)})), bounds=Field(list, of=NUMBER),
        collect=lambda its: sorted({its.version, *(one.configuration.version for one in its.connections())}),
        metrics=[Metric("generations", "Versions of the rules in use by a connection, or for new ones.")])
    descriptors: tuple[int, int] = _gauge(
        (0, 0), combine=lambda reports: min(map(tuple, reports), key=lambda pair: pair[1] - pair[0]), bounds=Field(list, row=(NUMBER, NUMBER)), collect=lambda its: its.runtime.descriptors.count_and_limit(),
        metrics=[
            Metric("open_descriptors", "Open descriptors of the process with the least room.", samples=lambda value, _: only(value[0])),
            Metric("max_descriptors", "Descriptors that this process may have.", samples=lambda value, _: only(value[1]))],
        status=("descriptors", lambda value: {"open": value[0], "max": value[1]}))
    sources: Mapping[str, int] = _gauge(
        dict, "By listener; workers count in the same memory.", combine=merged(max), bounds=_COUNTS,
        collect=lambda its: {one.settings.name: one.admission.per_source.tracked() for one in (listener.configuration for listener in its.listeners) if one.admission.per_source is not None},
        metrics=[Metric("sources_tracked", "Sources of clients that are remembered for limits.", "listener", lambda value, counts: [(one.labels, value.get(one.listener, 0)) for one in counts.listeners],
            more="Also those that other machines report by [`shared_limits`](rules.md#shared-limits).")])
    certificates: Sequence[tuple[str, Validity]] = _gauge(
        (), "By route.", own=lambda state, _: state.files.terminators.certificates(),
        metrics=[Metric("certificate_expiry_timestamp_seconds", "When a certificate expires, in seconds since 1970.", "route file",
                        lambda value, _: _ends(value).items(), "Of [`terminate_tls`](rules.md#route-name), or its chain.")],
        status=("certificates", lambda value: [{"route": route, "file": file, "expires": until} for (route, file), until in _ends(value).items()]))
    up: Mapping[tuple[str, str], float] = _gauge(
        dict, "The weight now, by backend and server, of each server that gets connections; only where all addresses were asked for.",
        metrics=[Metric("backend_server_weight", "The weight of a server now, less while it starts slowly; 0 while it gets no clients.", "backend server",
                        lambda value, counts: [(one.labels, value.get(one.labels, 0)) for one in counts.servers], "See [`slow_start`](rules.md#slow-start).")])
    troubles: Sequence[str] = _gauge(
        (), "What else needs an operator's attention, a sentence each.", own=lambda state, _: state.files.troubles())
    of_others: Sequence[str] = _gauge((), "What is wrong with files that workers get from the supervisor, beside those for TLS, a sentence each.", own=lambda state, _: state.files.troubles_of_others())
    unread: Sequence[str] = _gauge((), "What workers could not read or open, beside what `troubles` has, a sentence each.", combine=_chained, bounds=Field(list, of=TEXT), collect=_unread)
    troubled: Sequence[str] = _gauge((), "The names of backends of which not every server is up, in some process.", combine=_chained, bounds=_NAMES, collect=lambda its: its.upstreams.troubled())
    stale: Mapping[tuple[str, str], tuple[float | None, str]] = _gauge(
        dict, "By backend and server, for how many seconds the addresses of a name have not been confirmed, and why; ``None`` if there never were any.", own=lambda state, _: state.upstreams.stale(),
        metrics=[Metric("backend_addresses_stale_seconds", "For how long the name of a server could not be looked up again.", "backend server",
                        lambda value, _: [(key, age) for key, (age, _) in value.items() if age is not None], "Absent while that is not so.")])
    to_servers: Sequence[tuple[str, Validity]] = _gauge(
        (), "By backend, of certificates presented to servers, and of their authorities.", own=lambda state, _: [(backend.name, one) for backend, one in state.upstreams.certificates()])
    held: Mapping[str, int] = _gauge(
        dict, "By backend.", own=lambda _, counters: counters.held(),
        metrics=[Metric("backend_clients_held", "Clients that wait until a server is up.", "backend",
                        lambda value, counts: [([name], value.get(name, 0)) for name in dict.fromkeys(one.backend for one in counts.servers)],
                        "Also those in the old process of an upgrade; see [clients that wait](rules.md#clients-that-wait-for-a-server).")])
    outside: Sequence[SourceState] = _gauge(
        (), "The states of the outside sources that txmux uses.", combine=lambda reports: SourceState.read(itertools.chain(*reports)), bounds=list_of(*_SOURCE), collect=_source_states, is_frequent=True,
        metrics=[
            Metric("source_up", "Whether what txmux asks of others is answered.", "source", lambda value, _: [([one.name], one.up) for one in value],
                   "It is if every process gets answers; [`sources`](admin-api.md#status) says why not."),
            Metric("source_age_seconds", "Seconds since the last good answer.", "source", lambda value, _: [([source.name], source.age) for source in value if source.age is not None], "Absent before the first one.")],
        status=("sources", lambda value: [one.as_json() for one in value]))
    lost_lines: Mapping[str, int] = _gauge(dict, "How many lines each log has lost that cannot be written now, by its name and the reason.", combine=merged(add), bounds=_COUNTS, collect=lambda _: LOST_LINES.report())
    lost_in_all: Mapping[str, int] = _gauge(dict, "How many lines each log has lost until now.", combine=merged(add), bounds=_COUNTS, collect=lambda _: {**LOST_LINES.totals})
    written_logs: Collection[str] = _gauge(frozenset, "The logs that took the last line of some process.", combine=_chained, bounds=_NAMES, collect=lambda _: [*LOST_LINES.written])
    bans: int = _gauge(0, own=lambda state, _: len(state.bans), metrics=[Metric("bans", "Addresses and networks that are banned, beside the rules.", more="See [`txmux ban`](commands.md#txmux-ban).")])
    refusing: Mapping[tuple[str, str, str], float] = _gauge(
        dict, "Refusals a second, by listener, limit (or ``no-route``) and source, or an empty text for all sources.", combine=merged(add, keys=3), bounds=list_of(WORD, WORD, WORD, AMOUNT), collect=lambda its: [*its.runtime.clients.refusing()],
        metrics=[Metric("widely_refused_per_second", "Clients a second that a limit refuses, or no route takes (no-route), beside those of the two busiest sources.", "listener reason",
                        lambda _, counts: counts.gauges.refused_by_many().items(), "So it takes three [sources](admin-api.md#clients).")])
    newest: Mapping[str, float] = _gauge(
        dict, "Connections and flows a second, if they are many, by source, or an empty text for all sources.", combine=merged(add), bounds=list_of(WORD, AMOUNT), collect=lambda its: [*its.runtime.clients.newest()])
    flooded: int = _gauge(0, "How many processes they keep busy.", combine=sum, bounds=FLAG, collect=lambda its: its.runtime.clients.is_flooded())
    cannot_accept: Mapping[str, tuple[str, float]] = _gauge(
        dict, "By listener, why some worker cannot accept its clients, and since when, in seconds since 1970.", combine=merged(), bounds=_SINCE, collect=lambda its: [(name, *held) for name, held in its.listening_ports.held_up().items()])
    ports: Mapping[tuple[str, str], tuple[str, int, float]] = _gauge(
        dict, "By backend and server, why no source port is left, how many connections failed so, and since when.", combine=_still_failing(_more_ports, keys=2), bounds=list_of(WORD, WORD, WORD, NUMBER, TIME, TIME), collect=_ports)
    handovers: Mapping[str, tuple[str, int, float, bool]] = _gauge(
        dict, "By path, why no server takes the sockets of clients, how many clients, since when, and whether they are of three sources.", combine=_still_failing(_more_handovers), bounds=list_of(WORD, WORD, NUMBER, TIME, FLAG, TIME), collect=lambda its: its.runtime.handovers.report())
    missing: Sequence[str] = ()
    unusable: Sequence[str] = ()
    of_features: Mapping[str, Any] = attrs.field(factory=lambda: {row.name: row.default for row in rows(Gauge)})
    # fmt: on

    def refused_by_many(self) -> dict[tuple[str, str], float]:
        """Return, by listener and limit (or ``no-route``), the refusals a second beside those of the two busiest sources."""
        rates: dict[tuple[str, str], list[float]] = {}
        for (listener, limit, _), rate in self.refusing.items():
            rates.setdefault((listener, limit), []).append(rate)
        return {key: beside_busiest(rates) for key, rates in rates.items()}

    def stale_ages(self) -> dict[tuple[str, str], str]:
        """Describe, by backend and server, how old the addresses are that cannot be looked up again."""
        return {
            key: f"addresses {duration(age)} old: {why}"
            if age is not None
            else f"no address: {why}"
            for key, (age, why) in self.stale.items()
        }

    def attention(self) -> Iterator[AttentionItem]:
        """Yield what the rows find that needs attention."""
        items = (row.attention(self.value_of(row)) for row in GAUGES if row.attention is not None)
        return itertools.chain.from_iterable(items)

    @classmethod
    def of(cls, answers: Iterable[Mapping[str, Any]]) -> Gauges:
        """Combine the answers of all processes."""
        answers = [*answers]
        reports = ((row, [one[row.name] for one in answers if row.name in one]) for row in GAUGES)
        return cls().with_values(
            {row.name: row.combine(values) for row, values in reports if values}
        )

    def with_values(self, values: Mapping[str, Any]) -> Gauges:
        """Return these with other values, by the names of their rows."""
        of_features = {name: values.get(name, value) for name, value in self.of_features.items()}
        own = {name: value for name, value in values.items() if name not in of_features}
        return attrs.evolve(self, of_features=of_features, **own)

    def value_of(self, row: Gauge) -> Any:
        return getattr(self, row.name) if hasattr(self, row.name) else self.of_features[row.name]

    def in_status(self) -> StatusGauges:
        shown = ((row.status, self.value_of(row)) for row in GAUGES if row.status)
        return cast("StatusGauges", {name: make(value) for (name, make), value in shown})


GAUGES: Sequence[Gauge] = [
    *(
        attrs.evolve(field.metadata["row"], name=field.name)
        for field in attrs.fields(Gauges)
        if field.metadata
    ),
    *rows(Gauge),
]
"""The rows, in their order; those of features come last."""


async def measure(serving: Serving, *, everything: bool) -> dict[str, Any]:
    """Collect what a process measures: everything, or what is asked for every few seconds."""
    turns, found = Turns(), {}
    for row in GAUGES:
        if row.collect is not None and (everything or row.is_frequent):
            value = row.collect(serving)
            if isinstance(value, Iterator):
                value = turns.collect(value)
            found[row.name] = await value if isinstance(value, Awaitable) else value
    return found


def own_gauges(state: ServiceState, counters: Counters) -> dict[str, Any]:
    return {row.name: row.own(state, counters) for row in GAUGES if row.own is not None}


COUNT = between("supervisor", "worker")(
    "count", "count the bytes of connections until now, and report gauges",
    gauges=attrs.evolve(FLAG, is_optional=True), longest_answer=16 * 2**20,
    answer=Field(dict, fields={
        row.name: attrs.evolve(row.bounds, is_optional=not row.is_frequent)
        for row in GAUGES if row.bounds is not None
    }),
)  # fmt: skip


@frozen
class ServiceCounts(Counts):
    """All numbers of a service.

    Attributes:
        rules: The SHA-256 of the current rules; empty without a file.
        reloaded: Whether the last reload succeeded, and when it was, in seconds since 1970.
        attention: What needs an operator's attention, where it was asked for.
    """

    gauges: Gauges = attrs.field(factory=Gauges)
    rules: str = ""
    reloaded: tuple[bool, float] = (True, 0.0)
    attention: Sequence[AttentionItem] = ()


@frozen
class WorkerReports:
    """What the workers report, asked at one moment.

    Attributes:
        missing: What prevents clients from being served.
        addresses: The states of servers' addresses.
        served: What is served by which worker.
        gauges: What is counted at the moment.
        condition: How the workers were.
        of: The names of the backends whose addresses were asked for; ``None`` are all.
    """

    missing: Sequence[str]
    addresses: Answers
    served: Mapping[str, Any]
    gauges: Gauges
    condition: WorkersCondition
    of: Collection[str] | None = None

    @property
    def lacking(self) -> list[str]:
        return [*dict.fromkeys([*self.addresses.missing, *self.gauges.missing])]

    @property
    def unusable(self) -> list[str]:
        return [*self.addresses.unusable, *self.gauges.unusable]

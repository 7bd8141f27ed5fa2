"""Builds the documents on a running service: its status, routes and backends, and its rules as they were read."""

import math
import operator
import time
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import takewhile
from types import SimpleNamespace
from typing import Any, Final, cast

from txmux.backends.health.checks import MOST_STORED
from txmux.backends.health.observer import ObservedServer, ServerKey
from txmux.backends.health.probes import with_hint
from txmux.backends.pool.server_health import AS_RULED, MemberState
from txmux.backends.upstreams import Upstreams
from txmux.client.overrides import Overrides
from txmux.client.session import ClientSession
from txmux.control.gauges import Gauges
from txmux.control.rates import Rates
from txmux.control.rules_index import RulesIndex
from txmux.net.tls.validity import Validity
from txmux.rules.changes import untaken
from txmux.rules.model import SHORT_FORM, Backend, Refusal, Route, Rules, Section, Server
from txmux.serving.listen_addresses import listen_lines
from txmux.serving.store import ListeningSockets
from txmux.telemetry import documents
from txmux.telemetry.counting.counter_groups import ListenerTotals, ServerTotals
from txmux.telemetry.counting.counters import Counters
from txmux.telemetry.counting.snapshot import Counts
from txmux.telemetry.documents import add_fields, row_of
from txmux.telemetry.formatting import plural
from txmux.telemetry.reasons import FAILURE_TEXTS


def listener_documents(
    rules: Rules,
    sockets: ListeningSockets,
    counters: Counters,
    closed: Mapping[str, str],
    gauges: Gauges,
) -> Iterator[documents.ListenerDocument]:
    """Yield a row of each listener; `closed` has why listeners do not accept."""
    addresses = sockets.addresses
    for listener in rules.listeners:
        lines, name = listen_lines(listener), listener.name
        row: documents.ListenerDocument = {
            "name": name,
            "endpoints": [line.line for line in lines],
            # Twisted alone knows those that are not plain.
            "addresses": [line.with_ports(addresses.get(line.key, line.text)) for line in lines],
            "starttls": listener.more.get("starttls"),
            "accepting": name not in closed,
            "why": closed.get(name, ""),
        }
        totals = ListenerTotals.of(counters.cells, name)
        add_fields(row, documents.ListenerDocument, gauges, totals)
        yield row


def untaken_documents(rules: Rules) -> Iterator[documents.UntakenDocument]:
    for unit, _, is_in_force in untaken(rules):
        errors = [*map(str, rules.files.untaken[unit])]
        yield {"unit": unit, "in_force": is_in_force, "errors": errors}


def certificates_document(
    rules: Rules, renewed: Iterable[Mapping[str, Any]], shown: Iterable[Any]
) -> Iterator[documents.CertificateDocument]:
    """Yield the certificates that a feature gets, whose rows are `renewed`, and those of files, each once of all that workers have shown."""
    by_name: dict[str, Any] = {row["name"]: row for row in renewed}
    for route in rules.routes:
        tls = route.terminate_tls
        for name, file in () if tls is None else zip(tls.managed, tls.files, strict=False):
            if name in by_name:
                row = {key: value for key, value in by_name[name].items() if key != "name"}
                own = {"route": route.name, "file": str(file), "acme": True}
                yield _certificate({**row, **own})
    for row in {(row["route"], row["file"]): row for row in shown}.values():
        more = dict.fromkeys(("next_renewal", "authority", "profile"))
        more |= {"is_self_signed": False, "acme": False}
        yield _certificate({**row, **more})


def _certificate(row: Mapping[str, Any]) -> documents.CertificateDocument:
    now = time.time()
    one = Validity("terminate_tls", "", "", row["not_before"], row["not_after"])
    state = "ends soon" if one.when(now) and not row["acme"] else "valid"
    if not one.is_valid(now):
        state = "ended" if one.ends <= now else "not valid yet"
    return cast("documents.CertificateDocument", {**row, "state": state})


def connection_document(one: ClientSession) -> documents.ConnectionDocument:
    relayed, age = one.relayed(), one.elapsed_ms()
    idle = age
    if relayed.last_at:
        idle = min(age, (one.runtime.clock.seconds() - relayed.last_at) * 1000)
    datagrams_in, datagrams_out = relayed.datagrams or (None, None)
    live = SimpleNamespace(
        state=one.state,
        age_ms=round(age, 1),
        idle_ms=round(max(0.0, idle), 1),
        datagrams_in=datagrams_in,
        datagrams_out=datagrams_out,
        generation=one.configuration.version,
        worker=None,  # the supervisor knows it
    )
    return row_of(documents.ConnectionDocument, live, relayed, one.record)


def routes_document(
    index: RulesIndex, counts: Counts, routes: Iterable[Route]
) -> Iterator[documents.RouteDocument]:
    """Yield a row of each route."""
    for route in routes:
        outcome = route.outcome
        to = None if outcome is None or isinstance(outcome, Refusal) else outcome.name
        counted = [
            row_of(documents.ListenerNumbers, counts.routes.of(listener, route.name))
            for listener in index.listeners_of(route)
        ]
        yield {
            "name": route.name,
            **_sums(counted),
            "under": list(route.under),
            "backend": outcome.value if isinstance(outcome, Refusal) else to,
            "dry_run": route.dry_run,
            "ends_tls": route.terminate_tls is not None,
            "tunnel": bool(route.more.get("tunnel")),
            "listeners": counted,
            "file": route.section.path or None,
            "line": index.rules.line_of(route.section) or None,
            "rule": index.text_of(route.section),
        }


def short_forms(rules: Rules) -> Iterator[Route]:
    """Yield for each listener with lines of ``silent`` the route that they are, to the first one's outcome."""
    for listener in rules.listeners:
        if listener.silent:
            outcome = listener.silent[0].outcome
            under, section = (listener.name,), listener.section
            yield Route(SHORT_FORM, (), outcome, under=under, section=section)


def _sums(counted: Iterable[Mapping[str, Any]]) -> documents.RouteNumbers:
    """Add up what listeners have counted; the last match is the latest."""
    values = {
        name: [row[name] for row in counted] for name in documents.RouteNumbers.__annotations__
    }
    last = max(filter(None, values.pop("last_match")), default=None)
    sums = {name: sum(each) for name, each in values.items()}
    return cast("documents.RouteNumbers", {**sums, "last_match": last})


def rules_document(index: RulesIndex) -> Iterator[documents.FileDocument]:
    for path, text in index.rules.files.texts.items():
        sections = map(partial(_section, index), index.sections(path))
        yield {"file": path, "text": text, "sections": sections}


def _section(index: RulesIndex, section: Section) -> documents.SectionDocument:
    return {
        "name": section.header,
        "line": index.rules.line_of(section),
        "text": index.text_of(section),
    }


_Addresses = dict[tuple[str, str], dict[str, list[tuple[int | None, documents.ReportedAddress]]]]

UNRESOLVED: Final = "unresolved"  # the state of a server whose name has no address yet

_WORST_LAST = [
    "up", "silent", "probing", "ejected", "failing", "down", "drain", "maintenance", "disabled",
]  # fmt: skip


_UNUSED = ServerTotals(("", ""), ServerTotals.combine([]))


def with_observed(
    answers: Iterable[tuple[int, Iterable[documents.ReportedAddress]]],
    observed: Mapping[ServerKey, ObservedServer],
) -> list[tuple[int, list[documents.ReportedAddress]]]:
    """Add the observed state of their server to addresses, unless they have a worse one.

    Rows that no worker of this version reports are left out.
    """

    def of(row: documents.ReportedAddress) -> documents.ReportedAddress:
        found = observed.get((row["backend"], row["server"]))
        if found is None or _WORST_LAST.index(found.state) < _WORST_LAST.index(row["state"]):
            return row
        return {**row, "state": found.state, "why": found.why, "since": found.since}

    return [
        (worker, [of(row) for row in rows if row["state"] in _WORST_LAST])
        for worker, rows in answers
    ]


def weights_up(
    answers: Iterable[tuple[int, Iterable[documents.ReportedAddress]]],
) -> Generator[None, None, dict[tuple[str, str], float]]:
    """Return the weight of each server that gets connections, by backend and server, as in the last worker."""
    totals: dict[tuple[str, str], float] = {}
    for _, rows in answers:
        weights: dict[tuple[str, str], float] = {}
        for row in rows:
            if row["state"] == MemberState.UP.value:
                key = row["backend"], row["server"]
                weights[key] = weights.get(key, 0) + row["effective_weight"]
            yield
        totals |= weights
    return totals


def address_states(
    upstreams: Upstreams, of: Iterable[str] | None = None
) -> Iterator[documents.ReportedAddress]:
    """Yield a row of each address, of all backends or of those with such names."""
    now = time.time()
    return (
        {
            "backend": upstream.backend.name,
            "server": member.server.text,
            "address": member.target.text,
            "state": state.value,
            "why": why,
            "since": None if (age := upstream.pool.since(member)) is None else now - age,
            "weight": member.full_weight,
            "effective_weight": upstream.pool.effective_weight(member),
            "check": upstreams.last_check(upstream, member),
        }
        for upstream in upstreams.all(of)
        for member in upstream.pool.members
        for state, why in [upstream.pool.state_of(member)]
    )


def backends_document(
    index: RulesIndex,
    servers: Iterable[ServerTotals],
    gauges: Gauges,
    overrides: Overrides,
    answers: Iterable[tuple[int | None, Sequence[documents.ReportedAddress]]],
    checked: Iterable[documents.ReportedAddress],
    rates: Rates,
    of: Collection[str] | None = None,
) -> Generator[None, None, list[documents.BackendDocument]]:
    """Report each backend and its servers, in the order of the rules; all, or those with such names."""
    addresses = yield from _by_address(answers)
    checks = {}
    for row in checked:
        if row["check"] is not None:
            checks[row["backend"], row["server"], row["address"]] = row["check"]
        yield
    totals = {(total.backend, total.server): total for total in servers}
    stale = gauges.stale_ages()
    listed: list[documents.BackendDocument] = []
    for name, backend in index.backends.items():
        if of is not None and name not in of:
            continue
        rows_of_servers = []
        for server in backend.servers:
            key = (backend.name, server.text)
            rows = [
                worst_row(seen, checks.get((*key, address)))
                for address, seen in addresses.get(key, {}).items()
            ]
            counted = totals.get(key, _UNUSED)
            rows_of_servers.append(
                _server(backend, server, rows, counted, overrides, rates, stale.get(key, ""))
            )
            yield
        until = overrides.held.get(backend.name, 0.0)
        hold: documents.Hold | None = None
        if (left := until - time.monotonic()) > 0:
            hold = {"until": None if left == math.inf else time.time() + left}
        waiting = gauges.held.get(backend.name, 0)
        listed.append({"name": name, "hold": hold, "held": waiting, "servers": rows_of_servers})
        yield
    return listed


def _by_address(
    answers: Iterable[tuple[int | None, Iterable[documents.ReportedAddress]]],
) -> Generator[None, None, _Addresses]:
    addresses: _Addresses = {}
    for worker, rows in answers:
        for row in rows:
            of = addresses.setdefault((row["backend"], row["server"]), {})
            of.setdefault(row["address"], []).append((worker, row))
            yield
    return addresses


def worst_row(
    seen: Sequence[tuple[int | None, documents.ReportedAddress]],
    check: documents.CheckDocument | None = None,
) -> documents.AddressDocument:
    """Report the worst state of an address among processes, and the processes that report it.

    Processes know why a server went down, and `check` what the last check of it has found since.
    """
    worst = max(seen, key=lambda answer: _WORST_LAST.index(answer[1]["state"]))[1]
    alike = [number for number, row in seen if row["state"] == worst["state"]]
    where = ""
    if len(alike) < len(seen):
        where = f"worker {', '.join(str(number) for number in alike)}: "
    why = worst["why"]
    if worst["state"] == MemberState.DOWN.value and check is not None and not check["ok"]:
        why = f"{_failed_in_a_row(check['history'])} failed; last: {check['result']}"
    row = {key: value for key, value in worst.items() if key not in {"backend", "server"}}
    return cast("documents.AddressDocument", {**row, "why": f"{where}{why}", "check": check})


def _failed_in_a_row(history: Sequence[bool]) -> str:
    count = len(list(takewhile(operator.not_, reversed(history))))
    return f"{'at least ' * (count == MOST_STORED)}{plural(count, 'check')}"


def _server(
    backend: Backend,
    server: Server,
    addresses: list[documents.AddressDocument],
    totals: ServerTotals,
    overrides: Overrides,
    rates: Rates,
    stale: str,
) -> documents.ServerDocument:
    order = overrides.servers.get((backend.name, server.text), AS_RULED)
    # A server with one address up is up.
    best = min(addresses, key=lambda address: _WORST_LAST.index(address["state"]), default=None)
    state: documents.StateDocument = best or {
        "state": UNRESOLVED, "why": "its name has no address yet", "since": None,
        "weight": server.weight, "effective_weight": server.weight, "check": None,
    }  # fmt: skip
    since = order.since if order.held is not None and not server.down else state["since"]
    rate, first_byte_ms = rates.of_server(totals)
    failure: documents.LastFailure | None = None
    if totals.last_failure is not None:
        when, cause = totals.last_failure
        failure = {"time": when, "cause": with_hint(FAILURE_TEXTS[cause], backend)}
    return {
        "server": server.text,
        "state": state["state"],
        "why": "; ".join(filter(None, [state["why"] if best or not stale else "", stale])),
        "since": since,
        "weight": order.weight or server.weight,
        "effective_weight": state["effective_weight"],
        "backup": server.backup,
        "active": totals.active,
        "total": totals.total,
        "failed": sum(totals.failed.values()),
        "failures": {cause: n for cause, n in totals.failed.items() if n},
        "check": state["check"],
        "addresses": addresses,
        "rate": rate,
        "bytes_in": totals.bytes_in,
        "bytes_out": totals.bytes_out,
        "first_byte_ms": first_byte_ms,
        "last_failure": failure,
        "checked": backend.check is not None and server.is_judged,
    }

"""Builds the documents on a running service: its status, routes and backends, and its rules as they were read."""

import math
import os
import time
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import attrs

from txmux.backends.health.observer import ObservedServer, ServerKey
from txmux.backends.pool.server_health import AS_RULED, MemberState
from txmux.backends.upstreams import Upstreams
from txmux.control.overrides import Overrides
from txmux.control.rates import Rates, Traffic
from txmux.control.report import Report
from txmux.control.rules_index import RulesIndex
from txmux.rules.model import Listener, Outcome, Refusal, Route, Section, Server
from txmux.rules.model.rules import OPTIONS
from txmux.serving.listen_addresses import listen_addresses
from txmux.serving.store import ListeningSockets
from txmux.telemetry.counting.snapshot import Counts, Gauges, RouteTotals, ServerTotals
from txmux.telemetry.reasons import FAILURE_TEXTS
from txmux.version import __version__


def status_document(
    index: RulesIndex,
    served: Mapping[str, Any],
    *,
    started: float,
    last_reload: tuple[float, Report] | None,
    draining: bool,
    sockets: ListeningSockets,
    closed: Mapping[str, str],
    traffic: Traffic,
) -> dict[str, Any]:
    """Build the document for ``/api/status``; `closed` has why listeners do not accept."""
    rules = index.rules
    path = str(rules.path)
    # During grace the sockets are still there.
    is_closed = draining and not sockets.sockets()
    return {
        "version": __version__,
        "pid": os.getpid(),
        "started": started,
        "generation": served.get("generation", 0),
        "workers": [*served.get("workers", ())],
        "listeners": [
            _listener(
                listener,
                sockets.addresses,
                "the service is shutting down" if is_closed else closed.get(listener.name),
            )
            for listener in rules.listeners
        ],
        "connections": {
            "active": served.get("active", 0),
            "undecided": served.get("undecided", 0),
            "total": traffic.total,
            "unrouted": dict(traffic.unrouted),
            "limit": rules.settings.max_connections,
        },
        "rates": dict(traffic.rates),
        "last_reload": last_reload and {"time": last_reload[0], **last_reload[1].as_json()},
        "draining": draining,
        "rules_path": path if path == OPTIONS else os.path.abspath(path),  # noqa: PTH100 - links stay
        "rules_sha256": index.sha256,
    }


def _listener(listener: Listener, opened: Mapping[str, str], why: str | None) -> dict[str, Any]:
    addresses = listen_addresses(listener)
    return {
        "name": listener.name,
        "endpoints": [address.text for address in addresses],
        # Twisted alone knows those that are not plain.
        "addresses": [opened.get(address.key, address.text) for address in addresses],
        "starttls": listener.starttls,
        "accepting": why is None,
        "why": why or "",
    }


def routes_document(
    index: RulesIndex, counts: Counts, routes: Iterable[Route]
) -> Iterator[dict[str, Any]]:
    """Yield a row of each route."""
    for route in routes:
        listeners = index.listeners_of(route)
        counted = [counts.routes.of(listener, route.name) for listener in listeners]
        yield {
            "name": route.name,
            **_sums(counted),
            "under": list(route.under),
            "backend": _outcome_name(route.outcome),
            "dry_run": route.dry_run,
            "ends_tls": route.terminate_tls is not None,
            "tunnel": route.tunnel,
            "listeners": [{"listener": totals.listener, **_sums([totals])} for totals in counted],
            "file": route.section.path or None,
            "line": index.rules.line_of(route.section) or None,
            "rule": index.text_of(route.section),
        }


def _sums(counted: Iterable[RouteTotals]) -> dict[str, Any]:
    totals = [*counted]
    return {
        "matches": sum(total.matches for total in totals),
        "dry_run_matches": sum(total.dry_run_matches for total in totals),
        "active": sum(total.active for total in totals),
        "bytes_in": sum(total.bytes_in for total in totals),
        "bytes_out": sum(total.bytes_out for total in totals),
        "last_match": max((total.last_match for total in totals if total.last_match), default=None),
    }


def _outcome_name(outcome: Outcome | None) -> str | None:
    if outcome is None:
        return None
    return outcome.value if isinstance(outcome, Refusal) else outcome.name


def rules_document(index: RulesIndex) -> Iterator[dict[str, Any]]:
    for path, text in index.rules.files.texts.items():
        yield {
            "file": path,
            "text": text,
            "sections": map(partial(_section, index), index.sections(path)),
        }


def _section(index: RulesIndex, section: Section) -> dict[str, Any]:
    return {
        "name": section.header,
        "line": index.rules.line_of(section),
        "text": index.text_of(section),
    }


_Addresses = dict[tuple[str, str], dict[str, list[tuple[int | None, Mapping[str, Any]]]]]

UNRESOLVED = "unresolved"  # the state of a server whose name has no address yet

_WORST_LAST = [
    "up", "silent", "probing", "ejected", "failing", "down", "drain", "maintenance", "disabled",
]  # fmt: skip


def with_observed(
    answers: Iterable[tuple[int, Iterable[Mapping[str, Any]]]],
    observed: Mapping[ServerKey, ObservedServer],
) -> list[tuple[int, list[Mapping[str, Any]]]]:
    """Give addresses the state that is observed of their server, unless they have a worse one.

    Rows that no worker of this version reports are left out.
    """

    def of(row: Mapping[str, Any]) -> Mapping[str, Any]:
        found = observed.get((row["backend"], row["server"]))
        if found is None or _WORST_LAST.index(found.state) < _WORST_LAST.index(row["state"]):
            return row
        return {**row, **attrs.asdict(found)}

    return [
        (worker, [of(row) for row in rows if row["state"] in _WORST_LAST])
        for worker, rows in answers
    ]


def weights_up(
    answers: Iterable[tuple[int, Iterable[Mapping[str, Any]]]],
) -> Generator[None, None, dict[tuple[str, str], float]]:
    """Return the weight of each server that gets connections, by backend and server, as the last worker has it."""
    found: dict[tuple[str, str], float] = {}
    for _, rows in answers:
        weights: dict[tuple[str, str], float] = {}
        for row in rows:
            if row["state"] == MemberState.UP.value:
                key = row["backend"], row["server"]
                weights[key] = weights.get(key, 0) + row["effective_weight"]
            yield
        found |= weights
    return found


def address_states(
    upstreams: Upstreams, of: Iterable[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield a row of each address, of all backends or of those with such names."""
    now = time.time()
    return (
        {
            "backend": upstream.backend.name,
            "server": member.server.text,
            "address": member.target.text,
            "state": member.state.value,
            "why": member.why,
            "since": None if (age := upstream.pool.since(member)) is None else now - age,
            "weight": member.full_weight,
            "effective_weight": upstream.pool.effective_weight(member),
            "check": upstreams.last_check(upstream, member),
        }
        for upstream in upstreams.all(of)
        for member in upstream.pool.members
    )


def backends_document(
    index: RulesIndex,
    servers: Iterable[ServerTotals],
    gauges: Gauges,
    overrides: Overrides,
    answers: Iterable[tuple[int | None, Sequence[Mapping[str, Any]]]],
    checked: Iterable[Mapping[str, Any]],
    rates: Rates,
    of: Collection[str] | None = None,
) -> Generator[None, None, list[dict[str, Any]]]:
    """Report each backend and its servers, in the order of the rules; all, or those with such names."""
    addresses = yield from _by_address(answers)
    checks = {}
    for row in checked:
        if row["check"] is not None:
            checks[row["backend"], row["server"], row["address"]] = row["check"]
        yield
    totals = {(total.backend, total.server): total for total in servers}
    stale = gauges.stale_ages()
    listed = []
    for name, backend in index.backends.items():
        if of is not None and name not in of:
            continue
        rows_of_servers = []
        for server in backend.servers:
            key = (backend.name, server.text)
            rows = [
                {**_worst(seen), "check": checks.get((*key, address))}
                for address, seen in addresses.get(key, {}).items()
            ]
            found_server = _server(
                server, rows, totals.get(key), overrides, key, stale.get(key, "")
            )
            measured = _measured(totals.get(key), rates)
            rows_of_servers.append(
                {**found_server, **measured, "checked": backend.check is not None}
            )
            yield
        until = overrides.held.get(backend.name, 0.0)
        hold = None
        if (left := until - time.monotonic()) > 0:
            hold = {"until": None if left == math.inf else time.time() + left}
        waiting = gauges.held.get(backend.name, 0)
        listed.append({"name": name, "hold": hold, "held": waiting, "servers": rows_of_servers})
        yield
    return listed


def _by_address(
    answers: Iterable[tuple[int | None, Iterable[Mapping[str, Any]]]],
) -> Generator[None, None, _Addresses]:
    addresses: _Addresses = {}
    for worker, rows in answers:
        for row in rows:
            of = addresses.setdefault((row["backend"], row["server"]), {})
            of.setdefault(row["address"], []).append((worker, row))
            yield
    return addresses


def _worst(seen: Sequence[tuple[int | None, Mapping[str, Any]]]) -> dict[str, Any]:
    """Report the worst state of an address among processes, and the processes that report it."""
    worst = max(seen, key=lambda answer: _WORST_LAST.index(answer[1]["state"]))[1]
    alike = [number for number, row in seen if row["state"] == worst["state"]]
    where = ""
    if len(alike) < len(seen):
        where = f"worker {', '.join(str(number) for number in alike)}: "
    row = {key: value for key, value in worst.items() if key not in {"backend", "server"}}
    return {**row, "why": f"{where}{worst['why']}"}


def _server(
    server: Server,
    addresses: Sequence[dict[str, Any]],
    totals: ServerTotals | None,
    overrides: Overrides,
    key: tuple[str, str],
    stale: str,
) -> dict[str, Any]:
    order = overrides.servers.get(key, AS_RULED)
    # A server with one address up is up.
    best = min(addresses, key=lambda address: _WORST_LAST.index(address["state"]), default=None)
    state = best or {
        "state": UNRESOLVED,
        "why": "its name has no address yet",
        "since": None,
        "effective_weight": server.weight,
        "check": None,
    }
    since = order.since if order.held is not None and not server.down else state["since"]
    return {
        "server": server.text,
        "state": state["state"],
        "why": "; ".join(filter(None, [state["why"] if best or not stale else "", stale])),
        "since": since,
        "weight": order.weight or server.weight,
        "effective_weight": state["effective_weight"],
        "backup": server.backup,
        "active": totals.active if totals else 0,
        "total": totals.total if totals else 0,
        "failed": sum(totals.failed.values()) if totals else 0,
        "failures": {cause: n for cause, n in totals.failed.items() if n} if totals else {},
        "check": state["check"],
        "addresses": list(addresses),
    }


def _measured(totals: ServerTotals | None, rates: Rates) -> dict[str, Any]:
    """Report what connections to a server show."""
    failure = totals and totals.last_failure
    rate, first_byte_ms = (0.0, None) if totals is None else rates.of_server(totals)
    return {
        "rate": rate,
        "bytes_in": totals.bytes_in if totals else 0,
        "bytes_out": totals.bytes_out if totals else 0,
        "first_byte_ms": first_byte_ms,
        "last_failure": failure and {"time": failure[0], "cause": FAILURE_TEXTS[failure[1]]},
    }

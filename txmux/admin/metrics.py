"""The counters in the format of Prometheus. Needs the extra ``txmux[admin]``.

It is the text format 0.0.4 (https://prometheus.io/docs/instrumenting/exposition_formats/). Labels are names from the rules and words of
txmux; nothing that a client sends is ever in one.
"""

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain, starmap
from operator import itemgetter
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from txmux.errors import printable
from txmux.telemetry.attention_rows import attention_counts
from txmux.telemetry.counting.snapshot import Counts, ListenerTotals, Observed, ServerTotals
from txmux.version import __version__

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SERVER_CAUSES = ("connect-refused", "connect-timeout", "tls-failed", "reset", "error")
"""Causes that concern one server; others concern the backend."""

_PLANNED = ("drain", "maintenance", "disabled")

_Labels = Sequence[str]
_Samples = Iterable[tuple[_Labels, Any]]
_Family = tuple[str, str, str, str, _Samples]
"""A metric: its type, its name, its help, the names of its labels, and its values by their labels."""

_COUNTER, _GAUGE, _HISTOGRAM = "counter", "gauge", "histogram"


def exposition(counts: Counts, backends: Iterable[Mapping[str, Any]] = ()) -> bytes:
    """Takes long with thousands of routes; `backends` is the document for ``/api/backends``."""
    parts = (_listeners, _routes, _backends, _servers, _service)
    families = chain(*(part(counts) for part in parts), _server_states(counts, backends))
    # The client library takes ten times as long for a sample.
    text = "".join(chain.from_iterable(starmap(_written, families)))
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    return text.encode() + generate_latest(registry)


def _written(kind: str, name: str, text: str, labels: str, samples: _Samples) -> Iterator[str]:
    name = f"txmux_{name}_total" if kind == _COUNTER else f"txmux_{name}"
    yield f"# HELP {name} {text}\n# TYPE {name} {kind}\n"
    order = sorted(enumerate(labels.split()), key=itemgetter(1))
    for texts, value in samples:
        shown = ",".join([f'{label}="{_escaped(texts[at])}"' for at, label in order])
        if isinstance(value, Observed):
            before = f"{shown}," if shown else ""
            buckets = [(f"{bound:g}", count) for bound, count in value.buckets]
            for le, count in [*buckets, ("+Inf", value.count)]:
                yield _sample(f"{name}_bucket", f'{before}le="{le}"', count)
            yield _sample(f"{name}_count", shown, value.count)
            yield _sample(f"{name}_sum", shown, value.sum)
        else:
            yield _sample(name, shown, value)


def _sample(name: str, labels: str, value: float) -> str:
    return f"{name}{{{labels}}} {float(value)}\n" if labels else f"{name} {float(value)}\n"


@lru_cache(maxsize=16_384)  # the same names are in many samples
def _escaped(text: str) -> str:
    return printable(text).replace("\\", r"\\").replace('"', r"\"")


def _only(value: Any) -> _Samples:
    return [((), value)]


def _named(values: Mapping[str, Any]) -> _Samples:
    return [([name], value) for name, value in values.items()]


def _listeners(counts: Counts) -> Sequence[_Family]:
    listeners = counts.listeners

    def each(value: Callable[[ListenerTotals], Any]) -> _Samples:
        return [([listener.name], value(listener)) for listener in listeners]

    return (
        (_COUNTER, "connections", "Clients that have connected.", "listener", each(lambda one: one.total)),
        (_GAUGE, "connections_active", "Open connections.", "listener", each(lambda one: one.active)),
        (_GAUGE, "connections_undecided", "Connections that are not decided yet.", "listener", each(lambda one: one.undecided)),
        (_COUNTER, "limit_refused", "Clients that were not let in, by the limit.", "listener limit",
         [([one.name, limit], count) for one in listeners for limit, count in one.refused.items()]),
        (_COUNTER, "hidden_hellos", "Encrypted ClientHellos, by whether a key has opened them.", "listener result",
         [([one.name, result], n) for one in listeners if any(one.ech.values()) for result, n in one.ech.items()]),
        (_COUNTER, "datagrams", "Datagrams that came from clients (in), went to them (out), were dropped (lost), or were longer than can be taken (cut).", "listener way",
         [([one.name, way], n) for one in listeners if any(one.datagrams.values()) for way, n in one.datagrams.items()]),
        (_GAUGE, "sources_tracked", "Sources of clients that are remembered for limits.", "listener",
         each(lambda one: counts.gauges.sources.get(one.name, 0))),
        (_HISTOGRAM, "detect_seconds", "Time from accept to the decision.", "listener", each(lambda one: one.detect)),
        (_HISTOGRAM, "duration_seconds", "Time from accept to the end.", "listener", each(lambda one: one.duration)),
        (_HISTOGRAM, "detect_bytes", "Bytes that clients had sent when they were decided.", "", _only(counts.detect_bytes)),
    )  # fmt: skip


def _routes(counts: Counts) -> Sequence[_Family]:
    routes = [([route.listener, route.route], route) for route in counts.routes]
    return (
        (_COUNTER, "route_matches", "Clients that a route has taken.", "listener route",
         [(labels, route.matches) for labels, route in routes if route.route]),
        (_COUNTER, "connections_ended", "Connections that have ended, by the reason of the access log, or crashed for those of a worker that was killed.", "listener route reason",
         (([*labels, reason], n) for labels, route in routes for reason, n in route.ended.items() if n or reason == "done")),
        (_COUNTER, "bytes", "Bytes from clients (in) and to them (out), those of live connections with them.", "listener route direction",
         (([*labels, way], n) for labels, route in routes for way, n in (("in", route.bytes_in), ("out", route.bytes_out)))),
    )  # fmt: skip


def _backends(counts: Counts) -> Sequence[_Family]:
    return (
        (_HISTOGRAM, "connect_seconds", "Time from the decision until a server had accepted.", "backend", _named(counts.connect)),
        (_HISTOGRAM, "first_byte_seconds", "Time from the first byte to a server, or its connect if it speaks first, until its first byte.", "backend", _named(counts.first_byte)),
    )  # fmt: skip


def _servers(counts: Counts) -> Sequence[_Family]:
    gauges, names = counts.gauges, "backend server"
    servers = [((server.backend, server.server), server) for server in counts.servers]
    checked = [(key, server) for key, server in servers if server.check_seconds is not None]
    backends = dict.fromkeys(server.backend for server in counts.servers)

    def each(value: Callable[[ServerTotals], Any]) -> _Samples:
        return [(key, value(server)) for key, server in servers]

    return (
        (_COUNTER, "backend_connections", "Connections to a server.", names, each(lambda one: one.total)),
        (_COUNTER, "backend_bytes", "Bytes of clients to a server (in) and from it (out).", f"{names} direction",
         [((*key, way), n) for key, one in servers for way, n in (("in", one.bytes_in), ("out", one.bytes_out))]),
        (_GAUGE, "backend_connections_active", "Open connections to a server.", names, each(lambda one: one.active)),
        (_COUNTER, "backend_connect_failures", "Connections to a server that could not be established, or that it reset before its first byte, by the cause.", f"{names} cause",
         [((*key, cause), one.failed[cause]) for key, one in servers for cause in _SERVER_CAUSES]),
        (_GAUGE, "backend_server_weight", "The weight of a server now, less while it starts slowly; 0 while it gets no clients.", names,
         [(key, gauges.up.get(key, 0)) for key, _ in servers]),
        (_GAUGE, "backend_check_seconds", "How long the last check of a server took.", names,
         [(key, one.check_seconds) for key, one in checked]),
        (_COUNTER, "backend_checks_failed", "Checks of a server that failed.", names, [(key, one.checks_failed) for key, one in checked]),
        (_COUNTER, "backend_checks_recovered", "How often a check of a server succeeded after others that had failed, but had not taken it down.", names,
         [(key, one.checks_recovered) for key, one in checked]),
        (_GAUGE, "backend_addresses_stale_seconds", "For how long the name of a server could not be looked up again.", names,
         [(key, age) for key, (age, _) in gauges.stale.items() if age is not None]),
        (_GAUGE, "backend_clients_held", "Clients that wait until a server is up.", "backend", [([name], gauges.held.get(name, 0)) for name in backends]),
    )  # fmt: skip


def _server_states(counts: Counts, backends: Iterable[Mapping[str, Any]]) -> Sequence[_Family]:
    servers = [
        ((backend["name"], server["server"]), server["state"])
        for backend in backends
        for server in backend["servers"]
    ]

    def is_up(key: tuple[str, str], state: str) -> bool:
        # The state is that in the worst process; a server is up as long as one process sends it clients.
        is_partly_up = state in {"ejected", "probing"} and key in counts.gauges.up
        return state == "up" or state in _PLANNED or is_partly_up

    return (
        (_GAUGE, "backend_server_up", "0 for a server that has failed; 1 also for one that is out of use by the rules or an operator.", "backend server",
         [(key, is_up(key, state)) for key, state in servers]),
        # One series a server and not one a state, as Prometheus itself has it in ALERTS: there may be thousands of servers.
        (_GAUGE, "backend_server_state", "1 for the state that a server has; it has no series for the others.", "backend server state",
         [((*key, state), 1) for key, state in servers]),
    )  # fmt: skip


def _service(counts: Counts) -> Sequence[_Family]:
    gauges, (ok, time) = counts.gauges, counts.reloaded
    opened, most = gauges.descriptors
    return (
        (_COUNTER, "relay_spliced_bytes", "Bytes that the kernel has moved by itself.", "", _only(counts.spliced)),
        (_COUNTER, "worker_restarts", "Workers that were restarted.", "", _only(counts.restarts)),
        (_COUNTER, "access_log_lost", "Lines that a log could not write.", "", _only(counts.lost_lines)),
        (_GAUGE, "open_descriptors", "Open descriptors of the process with the least room.", "", _only(opened)),
        (_GAUGE, "max_descriptors", "Descriptors that this process may have.", "", _only(most)),
        (_GAUGE, "reload_success", "Whether the last reload of the rules succeeded.", "", _only(ok)),
        (_GAUGE, "reload_timestamp_seconds", "When the rules were last read, in seconds since 1970.", "", _only(time)),
        (_GAUGE, "generations", "Versions of the rules in use by a connection, or for new ones.", "", _only(gauges.generations)),
        (_GAUGE, "bans", "Addresses and networks that are banned, beside the rules.", "", _only(gauges.bans)),
        (_GAUGE, "cluster_up", "Whether limits and bans are shared with other machines.", "", [] if gauges.cluster is None else _only(gauges.cluster)),
        (_GAUGE, "source_up", "Whether what txmux asks of others is answered.", "source", [([one.name], one.up) for one in gauges.outside]),
        (_GAUGE, "source_age_seconds", "Seconds since the last good answer.", "source",
         [([one.name], one.age) for one in gauges.outside if one.age is not None]),
        (_GAUGE, "build_info", "Versions of txmux and of Python.", "version python", [((__version__, platform.python_version()), 1)]),
        (_GAUGE, "rules_info", "The SHA-256 of the current rules.", "sha", [([counts.rules], 1)] if counts.rules else []),
        (_GAUGE, "certificate_expiry_timestamp_seconds", "When a certificate expires, in seconds since 1970.", "route file",
         [((route, file), until) for route, file, until in gauges.certificates]),
        (_GAUGE, "certificate_expires_seconds", "In how many seconds a certificate expires that comes by ACME; 0 if there is none yet.", "name", _named(gauges.acme)),
        (_GAUGE, "widely_refused_per_second", "Clients a second that a limit refuses, or no route takes (no-route), beside those of the two busiest sources.", "listener reason",
         gauges.refused_by_many().items()),
        (_GAUGE, "backend_attention", "1 for a backend that needs attention, by the level.", "backend level",
         [((item.subject, item.level), 1) for item in counts.attention if item.what == "backend"]),
        (_GAUGE, "attention", "How many items need attention.", "what level", attention_counts(counts.attention).items()),
    )  # fmt: skip

"""The counters in the format of Prometheus. Needs the extra ``txmux[admin]``.

It is the text format 0.0.4 (https://prometheus.io/docs/instrumenting/exposition_formats/). Labels are names from the rules and words of
txmux; nothing that a client sends is ever in one.
"""

import platform
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from txmux.telemetry.attention import attention_counts
from txmux.telemetry.counting.snapshot import Counts, Observed
from txmux.version import __version__

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SERVER_CAUSES = ("connect-refused", "connect-timeout", "tls-failed", "reset", "error")
"""Causes that concern one server; others concern the backend."""

_PLANNED = ("drain", "maintenance", "disabled")
_STATES = ("up", "down", "ejected", "probing", *_PLANNED, "unresolved", "failing", "silent")


_Family = TypeVar("_Family", bound=Metric)


def exposition(counts: Counts, backends: Iterable[Mapping[str, Any]] = ()) -> bytes:
    """Takes long with thousands of routes; `backends` is the document for ``/api/backends``."""
    metrics = _Metrics()
    for part in (_listeners, _routes, _backends, _service):
        part(metrics, counts)
    _server_states(metrics, counts, backends)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(metrics)
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _Metrics(Collector):
    """All metrics, in the order in which they are made."""

    def __init__(self) -> None:
        self._made: list[Metric] = []

    def collect(self) -> list[Metric]:
        return self._made

    def _add(self, made: _Family) -> _Family:
        self._made.append(made)
        return made

    def counter(
        self, name: str, text: str, labels: str = "", value: float | None = None
    ) -> CounterMetricFamily:
        return self._add(CounterMetricFamily(f"txmux_{name}", text, value, labels.split() or None))

    def gauge(
        self, name: str, text: str, labels: str = "", value: float | None = None
    ) -> GaugeMetricFamily:
        return self._add(GaugeMetricFamily(f"txmux_{name}", text, value, labels.split() or None))

    def histogram(self, name: str, text: str, labels: str = "") -> HistogramMetricFamily:
        return self._add(HistogramMetricFamily(f"txmux_{name}", text, labels=labels.split()))


def _observe(family: HistogramMetricFamily, labels: Sequence[str], observed: Observed) -> None:
    buckets = [(f"{bound:g}", float(count)) for bound, count in observed.buckets]
    family.add_metric(labels, [*buckets, ("+Inf", float(observed.count))], observed.sum)


def _listeners(add: _Metrics, counts: Counts) -> None:
    total = add.counter("connections", "Clients that have connected.", "listener")
    active = add.gauge("connections_active", "Open connections.", "listener")
    undecided = add.gauge(
        "connections_undecided", "Connections that are not decided yet.", "listener"
    )
    refused = add.counter(
        "limit_refused", "Clients that were not let in, by the limit.", "listener limit"
    )
    datagrams = add.counter(
        "datagrams",
        "Datagrams that came from clients (in), went to them (out), were dropped (lost), or were longer than can be taken (cut).",
        "listener way",
    )
    sources = add.gauge(
        "sources_tracked", "Sources of clients that are remembered for limits.", "listener"
    )
    detect = add.histogram("detect_seconds", "Time from accept to the decision.", "listener")
    duration = add.histogram("duration_seconds", "Time from accept to the end.", "listener")
    for listener in counts.listeners:
        labels = [listener.name]
        total.add_metric(labels, listener.total)
        active.add_metric(labels, listener.active)
        undecided.add_metric(labels, listener.undecided)
        for limit, count in listener.refused.items():
            refused.add_metric([listener.name, limit], count)
        if any(listener.datagrams.values()):
            for way, count in listener.datagrams.items():
                datagrams.add_metric([listener.name, way], count)
        sources.add_metric(labels, counts.gauges.sources.get(listener.name, 0))
        _observe(detect, labels, listener.detect)
        _observe(duration, labels, listener.duration)
    needed = add.histogram("detect_bytes", "Bytes that clients had sent when they were decided.")
    _observe(needed, (), counts.detect_bytes)


def _routes(add: _Metrics, counts: Counts) -> None:
    matches = add.counter("route_matches", "Clients that a route has taken.", "listener route")
    ended = add.counter(
        "connections_ended",
        "Connections that have ended, by the reason of the access log, or crashed for those of a worker that was killed.",
        "listener route reason",
    )
    moved = add.counter(
        "bytes",
        "Bytes from clients (in) and to them (out), those of live connections with them.",
        "listener route direction",
    )
    for route in counts.routes:
        labels = [route.listener, route.route]
        if route.route:
            matches.add_metric(labels, route.matches)
        for reason, count in route.ended.items():
            if count or reason == "done":
                ended.add_metric([*labels, reason], count)
        moved.add_metric([*labels, "in"], route.bytes_in)
        moved.add_metric([*labels, "out"], route.bytes_out)


def _backends(add: _Metrics, counts: Counts) -> None:
    connect = add.histogram(
        "connect_seconds", "Time from the decision until a server had accepted.", "backend"
    )
    for name, observed in counts.connect.items():
        _observe(connect, [name], observed)
    first_byte = add.histogram(
        "first_byte_seconds",
        "Time from the first byte to a server, or its connect if it speaks first, until its first byte.",
        "backend",
    )
    for name, observed in counts.first_byte.items():
        _observe(first_byte, [name], observed)
    total = add.counter("backend_connections", "Connections to a server.", "backend server")
    moved = add.counter(
        "backend_bytes",
        "Bytes of clients to a server (in) and from it (out).",
        "backend server direction",
    )
    active = add.gauge(
        "backend_connections_active", "Open connections to a server.", "backend server"
    )
    failures = add.counter(
        "backend_connect_failures",
        "Connections to a server that could not be established, or that it reset before its first byte, by the cause.",
        "backend server cause",
    )
    weight = add.gauge(
        "backend_server_weight",
        "The weight of a server now, less while it starts slowly; 0 while it gets no clients.",
        "backend server",
    )
    check = add.gauge(
        "backend_check_seconds", "How long the last check of a server took.", "backend server"
    )
    checks_failed = add.counter(
        "backend_checks_failed", "Checks of a server that failed.", "backend server"
    )
    stale = add.gauge(
        "backend_addresses_stale_seconds",
        "For how long the name of a server could not be looked up again.",
        "backend server",
    )
    held = add.gauge("backend_clients_held", "Clients that wait until a server is up.", "backend")
    for name in dict.fromkeys(server.backend for server in counts.servers):
        held.add_metric([name], counts.gauges.held.get(name, 0))
    for key, (age, _) in counts.gauges.stale.items():
        if age is not None:
            stale.add_metric(key, age)
    for server in counts.servers:
        labels = [server.backend, server.server]
        active.add_metric(labels, server.active)
        total.add_metric(labels, server.total)
        moved.add_metric([*labels, "in"], server.bytes_in)
        moved.add_metric([*labels, "out"], server.bytes_out)
        for cause in _SERVER_CAUSES:
            failures.add_metric([*labels, cause], server.failed[cause])
        weight.add_metric(labels, counts.gauges.up.get((server.backend, server.server), 0))
        if server.check_seconds is not None:
            check.add_metric(labels, server.check_seconds)
            checks_failed.add_metric(labels, server.checks_failed)


def _server_states(add: _Metrics, counts: Counts, backends: Iterable[Mapping[str, Any]]) -> None:
    is_up = add.gauge(
        "backend_server_up",
        "0 for a server that has failed; 1 also for one that is out of use by the rules or an operator.",
        "backend server",
    )
    is_in_state = add.gauge(
        "backend_server_state",
        "1 for the state of a server, 0 for the others.",
        "backend server state",
    )
    for backend in backends:
        for server in backend["servers"]:
            labels, state = (backend["name"], server["server"]), server["state"]
            # The state is that in the worst process; a server is up as long as one process sends it clients.
            is_partly_up = state in {"ejected", "probing"} and labels in counts.gauges.up
            is_up.add_metric(labels, state == "up" or state in _PLANNED or is_partly_up)
            for name in _STATES:
                is_in_state.add_metric([*labels, name], name == state)


def _service(add: _Metrics, counts: Counts) -> None:
    gauges, (ok, time) = counts.gauges, counts.reloaded
    opened, most = gauges.descriptors
    add.counter(
        "relay_spliced_bytes", "Bytes that the kernel has moved by itself.", value=counts.spliced
    )
    add.counter("worker_restarts", "Workers that were restarted.", value=counts.restarts)
    add.counter("access_log_lost", "Lines that a log could not write.", value=counts.lost_lines)
    add.gauge(
        "open_descriptors", "Open descriptors of the process with the least room.", value=opened
    )
    add.gauge("max_descriptors", "Descriptors that this process may have.", value=most)
    add.gauge("reload_success", "Whether the last reload of the rules succeeded.", value=ok)
    add.gauge(
        "reload_timestamp_seconds",
        "When the rules were last read, in seconds since 1970.",
        value=time,
    )
    add.gauge(
        "generations",
        "Versions of the rules in use by a connection, or for new ones.",
        value=gauges.generations,
    )
    add.gauge(
        "bans", "Addresses and networks that are banned, beside the rules.", value=gauges.bans
    )
    add.gauge(
        "cluster_up",
        "Whether limits and bans are shared with other machines.",
        value=gauges.cluster,
    )
    up = add.gauge("source_up", "Whether what txmux asks of others is answered.", "source")
    age = add.gauge("source_age_seconds", "Seconds since the last good answer.", "source")
    for state in gauges.outside:
        up.add_metric([state.name], state.up)
        if state.age is not None:
            age.add_metric([state.name], state.age)
    build = add.gauge("build_info", "Versions of txmux and of Python.", "version python")
    build.add_metric([__version__, platform.python_version()], 1)
    rules = add.gauge("rules_info", "The SHA-256 of the current rules.", "sha")
    if counts.rules:
        rules.add_metric([counts.rules], 1)
    expiry = add.gauge(
        "certificate_expiry_timestamp_seconds",
        "When a certificate expires, in seconds since 1970.",
        "route file",
    )
    for route, file, until in gauges.certificates:
        expiry.add_metric([route, file], until)
    left = add.gauge(
        "certificate_expires_seconds",
        "In how many seconds a certificate expires that comes by ACME; 0 if there is none yet.",
        "name",
    )
    for name, seconds in gauges.acme.items():
        left.add_metric([name], seconds)
    needed = add.gauge("attention", "How many items need attention.", "what level")
    for labels, count in attention_counts(counts.attention).items():
        needed.add_metric(labels, count)

"""The counters in the format of Prometheus. Needs the extra ``txmux[admin]``.

It is the text format 0.0.4 (https://prometheus.io/docs/instrumenting/exposition_formats/). Labels are names from the rules and words of
txmux; nothing that a client sends is ever in one.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from txmux.version import __version__

if TYPE_CHECKING:
    from txmux.telemetry.counting.snapshot import Counts, Observed

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SERVER_CAUSES = ("connect-refused", "connect-timeout", "tls-failed", "error")
"""Causes that concern one server; others concern the backend."""


def exposition(counts: Counts) -> bytes:
    """Takes long with thousands of routes."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(counts))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _Collector(Collector):
    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        counts = self._counts
        yield from _listeners(counts)
        yield from _routes(counts)
        yield from _backends(counts)
        yield from _service(counts)


def _counter(name: str, text: str, labels: str = "") -> CounterMetricFamily:
    return CounterMetricFamily(f"txmux_{name}", text, labels=labels.split())


def _gauge(name: str, text: str, labels: str = "") -> GaugeMetricFamily:
    return GaugeMetricFamily(f"txmux_{name}", text, labels=labels.split())


def _histogram(name: str, text: str, labels: str = "") -> HistogramMetricFamily:
    return HistogramMetricFamily(f"txmux_{name}", text, labels=labels.split())


def _observe(family: HistogramMetricFamily, labels: Sequence[str], observed: Observed) -> None:
    buckets = [(f"{bound:g}", float(count)) for bound, count in observed.buckets]
    family.add_metric(labels, [*buckets, ("+Inf", float(observed.count))], observed.sum)


def _listeners(counts: Counts) -> Iterator[Metric]:
    total = _counter("connections", "Clients that have connected.", "listener")
    active = _gauge("connections_active", "Open connections.", "listener")
    undecided = _gauge("connections_undecided", "Connections that are not decided yet.", "listener")
    refused = _counter(
        "limit_refused", "Clients that were not let in, by the limit.", "listener limit"
    )
    datagrams = _counter(
        "datagrams",
        "Datagrams that came from clients (in), went to them (out), were dropped (lost), or were longer than can be taken (cut).",
        "listener way",
    )
    sources = _gauge(
        "sources_tracked", "Sources of clients that are remembered for limits.", "listener"
    )
    detect = _histogram("detect_seconds", "Time from accept to the decision.", "listener")
    duration = _histogram("duration_seconds", "Time from accept to the end.", "listener")
    for one in counts.listeners:
        labels = [one.name]
        total.add_metric(labels, one.total)
        active.add_metric(labels, one.active)
        undecided.add_metric(labels, one.undecided)
        for limit, count in one.refused.items():
            refused.add_metric([one.name, limit], count)
        if any(one.datagrams.values()):
            for way, count in one.datagrams.items():
                datagrams.add_metric([one.name, way], count)
        sources.add_metric(labels, counts.gauges.sources.get(one.name, 0))
        _observe(detect, labels, one.detect)
        _observe(duration, labels, one.duration)
    yield from (total, active, undecided, refused, datagrams, sources, detect, duration)
    needed = _histogram("detect_bytes", "Bytes that clients had sent when they were decided.")
    _observe(needed, (), counts.detect_bytes)
    yield needed


def _routes(counts: Counts) -> Iterator[Metric]:
    matches = _counter("route_matches", "Clients that a route has taken.", "listener route")
    ended = _counter(
        "connections_ended",
        "Connections that have ended, by the reason of the access log, or crashed for those of a worker that was killed.",
        "listener route reason",
    )
    moved = _counter(
        "bytes",
        "Bytes from clients (in) and to them (out), those of live connections with them.",
        "listener route direction",
    )
    for one in counts.routes:
        labels = [one.listener, one.route]
        if one.route:
            matches.add_metric(labels, one.matches)
        for reason, count in one.ended.items():
            if count or reason == "done":
                ended.add_metric([*labels, reason], count)
        moved.add_metric([*labels, "in"], one.bytes_in)
        moved.add_metric([*labels, "out"], one.bytes_out)
    yield from (matches, ended, moved)


def _backends(counts: Counts) -> Iterator[Metric]:
    connect = _histogram(
        "connect_seconds", "Time from the decision until a server had accepted.", "backend"
    )
    for name, observed in counts.connect.items():
        _observe(connect, [name], observed)
    active = _gauge("backend_connections_active", "Connections to a server.", "backend server")
    failures = _counter(
        "backend_connect_failures",
        "Connections to a server that could not be established, by the cause.",
        "backend server cause",
    )
    is_up = _gauge("backend_server_up", "Whether a server gets clients.", "backend server")
    weight = _gauge(
        "backend_server_weight",
        "The weight of a server now, less while it starts slowly; 0 while it gets no clients.",
        "backend server",
    )
    check = _gauge(
        "backend_check_seconds", "How long the last check of a server took.", "backend server"
    )
    stale = _gauge(
        "backend_addresses_stale_seconds",
        "For how long the name of a server could not be looked up again.",
        "backend server",
    )
    held = _gauge("backend_clients_held", "Clients that wait until a server is up.", "backend")
    for name in dict.fromkeys(one.backend for one in counts.servers):
        held.add_metric([name], counts.gauges.held.get(name, 0))
    for key, (age, _) in counts.gauges.stale.items():
        if age is not None:
            stale.add_metric(key, age)
    for one in counts.servers:
        labels = [one.backend, one.server]
        active.add_metric(labels, one.active)
        for cause in _SERVER_CAUSES:
            failures.add_metric([*labels, cause], one.failed[cause])
        is_up.add_metric(labels, (one.backend, one.server) in counts.gauges.up)
        weight.add_metric(labels, counts.gauges.up.get((one.backend, one.server), 0))
        if one.check_seconds is not None:
            check.add_metric(labels, one.check_seconds)
    yield from (connect, active, failures, is_up, weight, held, check, stale)


def _service(counts: Counts) -> Iterator[Metric]:
    gauges, (ok, time) = counts.gauges, counts.reloaded
    opened, most = gauges.descriptors
    for make, name, text, value in (
        (
            _counter,
            "relay_spliced_bytes",
            "Bytes that the kernel has moved by itself.",
            counts.spliced,
        ),
        (_counter, "worker_restarts", "Workers that were restarted.", counts.restarts),
        (
            _gauge,
            "open_descriptors",
            "Open descriptors of the process with the least room.",
            opened,
        ),
        (_gauge, "max_descriptors", "Descriptors that this process may have.", most),
        (_gauge, "reload_success", "Whether the last reload of the rules succeeded.", ok),
        (
            _gauge,
            "reload_timestamp_seconds",
            "When the rules were last read, in seconds since 1970.",
            time,
        ),
        (
            _gauge,
            "generations",
            "Versions of the rules in use by a connection, or for new ones.",
            gauges.generations,
        ),
    ):
        family = make(name, text)
        family.add_metric((), value)
        yield family
    cluster = _gauge("cluster_up", "Whether the Redis that shares limits answers.")
    if gauges.cluster is not None:
        cluster.add_metric((), gauges.cluster)
    yield cluster
    build = _gauge("build_info", "Versions of txmux and of Python.", "version python")
    build.add_metric([__version__, platform.python_version()], 1)
    yield build
    rules = _gauge("rules_info", "The SHA-256 of the current rules.", "sha")
    if counts.rules:
        rules.add_metric([counts.rules], 1)
    yield rules
    expiry = _gauge(
        "certificate_expiry_timestamp_seconds",
        "When a certificate expires, in seconds since 1970.",
        "route file",
    )
    for route, file, until in gauges.certificates:
        expiry.add_metric([route, file], until)
    yield expiry
    left = _gauge(
        "certificate_expires_seconds",
        "In how many seconds a certificate expires that comes by ACME; 0 if there is none yet.",
        "name",
    )
    for name, seconds in gauges.acme.items():
        left.add_metric([name], seconds)
    yield left

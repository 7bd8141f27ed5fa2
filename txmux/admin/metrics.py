"""The counters in the format of Prometheus. Needs the extra ``txmux[admin]``.

It is the text format 0.0.4 (https://prometheus.io/docs/instrumenting/exposition_formats/). Labels are names from the rules and words of
txmux; nothing that a client sends is ever in one.
"""

import platform
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import chain, starmap
from operator import itemgetter
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from txmux.control.gauges import GAUGES, ServiceCounts
from txmux.errors import printable
from txmux.telemetry.attention_rows import attention_counts
from txmux.telemetry.counting.counter_groups import TOTALS
from txmux.telemetry.counting.counter_rows import Metric, Observed, Samples, only
from txmux.version import __version__

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_PLANNED = ("drain", "maintenance", "disabled")


def exposition(counts: ServiceCounts, backends: Iterable[Mapping[str, Any]] = ()) -> bytes:
    """Takes long with thousands of routes; `backends` is the document for ``/api/backends``."""
    # The client library takes ten times as long for a sample.
    text = "".join(chain.from_iterable(starmap(_written, _families(counts, backends))))
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    return text.encode() + generate_latest(registry)


def _families(
    counts: ServiceCounts, backends: Iterable[Mapping[str, Any]]
) -> Iterator[tuple[Metric, Samples]]:
    states = [
        ((backend["name"], server["server"]), server["state"])
        for backend in backends
        for server in backend["servers"]
    ]
    counted = counts.listeners, [*counts.routes], counts.backends, counts.servers, [counts.process]
    gauges = map(counts.gauges.value_of, GAUGES)
    values = *counted, *gauges, states, counts
    for value, metrics in zip(values, _METRICS, strict=True):
        for metric in metrics:
            yield metric, metric.samples(value, counts)


def _written(metric: Metric, samples: Samples) -> Iterator[str]:
    name = f"txmux_{metric.name}"
    yield f"# HELP {name} {metric.help}\n# TYPE {name} {metric.kind}\n"
    order = sorted(enumerate(metric.labels.split()), key=itemgetter(1))
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


def _is_up(counts: ServiceCounts, key: tuple[str, str], state: str) -> bool:
    # The state is that in the worst process; a server is up as long as one process sends it clients.
    is_partly_up = state in {"ejected", "probing"} and key in counts.gauges.up
    return state == "up" or state in _PLANNED or is_partly_up


# fmt: off
_OF_STATES = (
    # One series a server and not one a state, as Prometheus itself has it in ALERTS: there may be thousands of servers.
    Metric("backend_server_state", "1 for the state that a server has; it has no series for the others.", "backend server state",
           lambda states, _: [((*key, state), 1) for key, state in states],
           'States as in [`/api/backends`](admin-api.md#backends). There is one series a server: write `unless … {state="up"}` for servers that are not up.'),
    Metric("backend_server_up", "0 for a server that has failed; 1 also for one that is marked down in the rules or by an operator.", "backend server",
           lambda states, counts: [(key, _is_up(counts, key, state)) for key, state in states],
           "Failed: *down*, *failing*, *silent*, *unresolved*, or *ejected* by every process."),
)
_OF_SERVICE = (
    Metric("reload_success", "Whether the last reload of the rules succeeded.", samples=lambda counts, _: only(counts.reloaded[0])),
    Metric("reload_timestamp_seconds", "When the rules were last read, in seconds since 1970.", samples=lambda counts, _: only(counts.reloaded[1]),
           more="At first, when the service was started."),
    Metric("rules_info", "The SHA-256 of the current rules.", "sha", lambda counts, _: [([counts.rules], 1)] if counts.rules else [],
           "As [`rules_sha256`](admin-api.md#status): `count(count by (sha) (txmux_rules_info)) > 1` finds machines with different rules."),
    Metric("build_info", "Versions of txmux and of Python.", "version python", lambda *_: [((__version__, platform.python_version()), 1)]),
    Metric("backend_attention", "1 for a backend that needs attention, by the level.", "backend level",
           lambda counts, _: [((item.subject, item.level), 1) for item in counts.attention if item.what == "backend"],
           "An item of [`attention`](admin-api.md#attention) says why. Absent for all others."),
    Metric("attention", "How many items need attention.", "what level", lambda counts, _: attention_counts(counts.attention).items(),
           "Those of [`attention`](admin-api.md#attention); 0 for each topic and level that may occur."),
)
# fmt: on
_METRICS = [
    *(totals.metrics for totals in TOTALS),
    *(row.metrics for row in GAUGES),
    _OF_STATES,
    _OF_SERVICE,
]
METRICS = [*chain(*_METRICS)]
"""All, in their order."""

"""What a second worker brings, in connections a second.

With two cores only, whatever makes the load shares them with the proxy, so a proxy that is cheap cannot show much.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.bench import Figure
from benchmarks.measures.connection import wrk

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.proxies import Proxy

FIGURES = (
    Figure(
        "scaling.factor",
        "from one worker to two, connections per second",
        "times",
        2,
        more_is_better=True,
    ),
)

_CLIENTS = 40


def measure(bench: Bench, proxy: Proxy) -> dict[str, float]:
    """Measure once, see `Measure`."""
    if not proxy.has_workers:
        return {}
    cores = [*bench.proxy_cores, *bench.load_cores]
    load = cores[2:] or cores
    answered = []
    for workers in (1, 2):
        with bench.running(proxy, workers=workers, cores=cores[:2]) as running:
            answered.append(wrk(bench, running.ports["HTTP"], load, _CLIENTS))
    return {"scaling.factor": answered[1] / answered[0]}

"""What a program takes until it serves, with rules for a few routes, and the memory of one with two workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.bench import Figure

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.proxies import Proxy

FIGURES = (
    Figure("start.cpu", "start, CPU", "ms", 0),
    Figure("start.memory", "memory after the start", "MiB"),
)
WORKERS = (Figure("workers.memory", "with two workers, memory", "MiB"),)


def measure(bench: Bench, proxy: Proxy) -> dict[str, float]:
    """Measure once, see `Measure`."""
    with bench.running(proxy, asks=False) as running:
        spent = running.child.settled()
        return {"start.cpu": spent * 1e3, "start.memory": running.child.memory() / 2**20}


def workers(bench: Bench, proxy: Proxy) -> dict[str, float]:
    """Measure once, see `Measure`: what processes share counts once."""
    if not proxy.has_workers:
        return {}
    with bench.running(proxy, workers=2) as running:
        running.child.settled()
        return {"workers.memory": running.child.memory(shared=False) / 2**20}

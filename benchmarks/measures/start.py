"""What a program takes until it serves, with rules for a few routes."""

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


def measure(bench: Bench, proxy: Proxy) -> dict[str, float]:
    """Measure once, see `Measure`."""
    with bench.running(proxy, asks=False) as running:
        spent = running.child.settled()
        return {"start.cpu": spent * 1e3, "start.memory": running.child.memory() / 2**20}

"""Small requests and replies on fifty connections that stay open. Made by redis-benchmark."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from benchmarks.bench import Figure
from benchmarks.children import BenchmarkError, output_of

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.proxies import Proxy

FIGURES = (
    Figure("small.cpu", "small request and reply, CPU", "µs"),
    Figure("small.rate", "small requests", "/s", 0, more_is_better=True),
)


def measure(bench: Bench, proxy: Proxy) -> dict[str, float]:
    """Measure once, see `Measure`."""
    requests = bench.size(120_000, 20_000)
    with bench.running(proxy) as running:
        port = str(running.ports["REDIS"])
        command = ["redis-benchmark", "-p", port, "-c", "50", "-n", str(requests)]
        before = running.child.cpu()
        output = output_of([*command, "-t", "ping_mbulk", "-q"], bench.load_cores)
        spent = running.child.cpu() - before
    rate = re.search(r"([\d.]+) requests per second, p50", output)
    if rate is None:
        raise BenchmarkError("redis-benchmark told no rate")
    return {"small.cpu": spent / requests * 1e6, "small.rate": float(rate[1])}

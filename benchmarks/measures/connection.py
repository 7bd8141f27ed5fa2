"""The price of one connection: accept, detect, connect, relay a short answer, close. Made by wrk."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from benchmarks.bench import Figure
from benchmarks.children import BenchmarkError, output_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.bench import Bench
    from benchmarks.proxies import Proxy

FIGURES = (
    Figure("connection.cpu", "one connection, CPU", "µs"),
    Figure("connection.rate", "connections", "/s", 0, more_is_better=True),
)


def wrk(bench: Bench, port: int, cores: Sequence[int], clients: int = 20) -> float:
    """Open connections as fast as it goes, each for one request.

    Args:
        bench: The round.
        port: Where to connect.
        cores: The CPU cores for wrk.
        clients: How many connections there are at once.

    Returns:
        The number of requests that were answered.

    Raises:
        BenchmarkError: There were none.
    """
    seconds = bench.size(4, 1)
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "-H", "Connection: close"]
    output = output_of([*command, f"http://127.0.0.1:{port}/"], cores)
    answered = re.search(r"(\d+) requests in", output)
    if answered is None or answered[1] == "0":
        raise BenchmarkError("wrk got no answer")
    errors = re.search(r"Socket errors: (.*)", output)
    if errors is not None:
        bench.notes.append(f"beside {answered[1]} connections some failed (wrk: {errors[1]})")
    return int(answered[1])


def measure(bench: Bench, proxy: Proxy) -> dict[str, float]:
    """Measure once, see `Measure`."""
    with bench.running(proxy) as running:
        before = running.child.cpu()
        answered = wrk(bench, running.ports["HTTP"], bench.load_cores)
        spent = running.child.cpu() - before
    return {
        "connection.cpu": spent / answered * 1e6,
        "connection.rate": answered / bench.size(4, 1),
    }

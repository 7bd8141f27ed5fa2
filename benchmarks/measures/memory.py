"""The resident memory (PSS of all processes) of a connection: idle after one request, and undecided after one byte of HTTP."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from benchmarks.bench import Figure
from benchmarks.children import BenchmarkError
from benchmarks.clients import PING, connected

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.proxies import Proxy

FIGURES = (
    Figure("memory.idle", "idle connection, memory", "KiB"),
    Figure("memory.undecided", "undecided connection, memory", "KiB"),
)

_SETTLED = 1.0
"""Seconds after which a proxy has read what was sent; much shorter than its patience with an undecided client."""


def measure(bench: Bench, proxy: Proxy) -> dict[str, float]:
    """Measure once, see `Measure`."""
    found = {"memory.idle": growth(bench, proxy, PING)}
    if proxy.detects:
        found["memory.undecided"] = growth(bench, proxy, b"G")
    return found


def growth(bench: Bench, proxy: Proxy, said: bytes) -> float:
    """Measure how a fresh process grows.

    Args:
        bench: The round.
        proxy: The proxy.
        said: What each client says.

    Returns:
        KiB a connection.

    Raises:
        BenchmarkError: Some connections were not served.
    """
    count = min(bench.size(1500, 300), proxy.most or 1500)
    with bench.running(proxy) as running, contextlib.ExitStack() as clients:
        before = running.child.memory()
        opened = len(connected(running.ports["REDIS"], count, said, clients))
        time.sleep(_SETTLED)
        grown = running.child.memory() - before
        if opened < count:
            raise BenchmarkError(f"{opened} of {count} connections were served")
    return grown / count / 1024

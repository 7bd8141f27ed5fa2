"""What a proxy adds to the time from request to reply, at a fixed rate of requests.

Requests go out by the clock, whether or not the one before has been answered, each on the next of some connections,
and each is timed from when it went out. A direct connection to the server is timed just before.
"""

from __future__ import annotations

import contextlib
import gc
import select
import statistics
import time
from collections import deque
from typing import TYPE_CHECKING

from benchmarks.bench import Figure
from benchmarks.children import BenchmarkError
from benchmarks.clients import PING, PONG, connected

if TYPE_CHECKING:
    import socket

    from benchmarks.bench import Bench
    from benchmarks.proxies import Proxy

FIGURES = (
    Figure("latency.p50", "latency added, 50th percentile", "µs", 0),
    Figure("latency.p99", "latency added, 99th percentile", "µs", 0),
)

RATE = 4000
"""Requests a second; far below what any of them can do."""
CONNECTIONS = 20

_PATIENCE = 2.0


def measure(bench: Bench, proxy: Proxy) -> dict[str, float]:
    """Measure once, see `Measure`."""
    seconds = bench.size(4, 1)
    with bench.running(proxy) as running:
        direct = percentiles(times(bench.servers.ports["REDIS"], seconds))
        through = percentiles(times(running.ports["REDIS"], seconds))
    return {
        key: (mine - bare) * 1e6
        for key, mine, bare in zip(("latency.p50", "latency.p99"), through, direct, strict=True)
    }


def percentiles(found: list[float]) -> tuple[float, float]:
    """Give the 50th and the 99th percentile."""
    cuts = statistics.quantiles(found, n=100)
    return cuts[49], cuts[98]


def times(port: int, seconds: float) -> list[float]:
    """Time requests.

    Args:
        port: Where to connect on 127.0.0.1.
        seconds: For how long.

    Returns:
        The seconds that each request took.

    Raises:
        BenchmarkError: Not all of them were answered.
    """
    with contextlib.ExitStack() as stack:
        clients = connected(port, CONNECTIONS, PING, stack)
        if len(clients) < CONNECTIONS:
            raise BenchmarkError("not all connections were served")
        gc.disable()
        stack.callback(gc.enable)
        return _exchange(clients, round(RATE * seconds))


def _exchange(clients: list[socket.socket], count: int) -> list[float]:
    sent: dict[socket.socket, deque[float]] = {client: deque() for client in clients}
    found: list[float] = []
    requests = 0
    begun = now = time.perf_counter()
    while len(found) < count:
        due = begun + requests / RATE
        if requests < count and now >= due:
            client = clients[requests % len(clients)]
            sent[client].append(time.perf_counter())
            client.sendall(PING)
            requests += 1
        elif now > begun + count / RATE + _PATIENCE:
            raise BenchmarkError(f"{len(found)} of {count} requests were answered")
        else:
            wait = max(0.0, due - now) if requests < count else _PATIENCE
            for ready in select.select(clients, (), (), wait)[0]:
                replies = len(ready.recv(4096)) // len(PONG)
                arrived = time.perf_counter()
                if not replies:
                    raise BenchmarkError("a connection was closed")
                found += [arrived - sent[ready].popleft() for _ in range(replies)]
        now = time.perf_counter()
    return found

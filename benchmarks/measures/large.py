"""Twenty thousand server names, each with a route of its own: to check such a file, to start with it, and to decide."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from benchmarks.bench import Figure
from benchmarks.children import (
    BenchmarkError,
    Child,
    cost_of,
    eventually,
    free_ports,
    is_listening,
    output_of,
)

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.proxies import Proxy

FIGURES = (
    Figure("large.check", "`txmux check` with 20,000 routes, CPU", "s", 2),
    Figure("large.start", "start with 20,000 routes, CPU", "s", 2),
    Figure("large.memory", "memory with 20,000 routes", "MiB"),
    Figure("large.decision", "decision among 20,000 routes, CPU", "µs"),
)

_HEAD = """[txmux]
access_log = off

[listen public]
endpoint = 127.0.0.1:{port}

"""
_ROUTE = """[route r{number}]
match   = tls sni=h{number}.example.com
backend = 127.0.0.1:{backend}

"""
_BACKENDS = 50


def rules(port: int, count: int) -> str:
    """Write rules with a route for each name."""
    routes = (_ROUTE.format(number=n, backend=10_000 + n % _BACKENDS) for n in range(count))
    return _HEAD.format(port=port) + "".join(routes)


def measure(bench: Bench, proxy: Proxy) -> dict[str, float]:
    """Measure once, see `Measure`."""
    count = bench.size(20_000, 500)
    with free_ports(1) as (port,):
        path = bench.folder / "large.ini"
        path.write_text(rules(port, count))
        program = proxy.path() or proxy.program
        checked = cost_of([program, "check", str(path)], bench.proxy_cores)
        with Child(
            [program, "run", str(path)], bench.folder / "large.log", bench.proxy_cores
        ) as child:
            eventually(lambda: child.has_ended() or is_listening(port), "it listens", 90)
            if child.has_ended():
                raise BenchmarkError(f"it does not start: {child.last_words()}")
            started = child.settled()
            memory = child.memory()
    decided = [sys.executable, "-m", "benchmarks.detection", "--figures", "large", str(count)]
    found = json.loads(output_of(decided, bench.proxy_cores))
    return {"large.check": checked, "large.start": started, "large.memory": memory / 2**20, **found}

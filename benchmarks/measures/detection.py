"""What a decision costs by itself, in a process that does nothing else."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from benchmarks.bench import Figure
from benchmarks.children import output_of

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.proxies import Proxy

FIGURES = (
    Figure("detection.ssh", "decision for `ssh` among ten mixed routes, CPU", "µs"),
    Figure("detection.http", "decision for `http` among ten mixed routes, CPU", "µs"),
    Figure("detection.tls", "decision for `tls sni=` among ten mixed routes, CPU", "µs"),
    Figure("detection.pq", "the same for post-quantum hellos of browsers, CPU, the dearest", "µs"),
    Figure("detection.alpn", "hello of 15,000 names by ALPN, CPU for 16 KiB of it", "ms", 2),
    Figure("detection.odd", "dearest of several odd hellos, CPU for 16 KiB of it", "ms", 2),
    Figure("detection.quic", "decision for `quic sni=` among ten routes of UDP, CPU", "µs"),
)


def measure(bench: Bench, proxy: Proxy) -> dict[str, float]:  # noqa: ARG001
    """Measure once, see `Measure`."""
    command = [sys.executable, "-m", "benchmarks.detection", "--figures", "mixed"]
    found: dict[str, float] = json.loads(output_of(command, bench.proxy_cores))
    return found

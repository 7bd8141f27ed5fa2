"""TLS that ends at the proxy: full handshakes, resumed ones, idle connections, and much data from the server to the client.

All have the same certificate, and no program is told which ciphers to prefer: TLS 1.3 and AES-256-GCM is what comes out.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from benchmarks.bench import Figure
from benchmarks.children import BenchmarkError
from benchmarks.tls_clients import download, handshakes, hold, make_certificate

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.proxies import Proxy

FIGURES = (
    Figure("tls.full", "TLS ended, full handshake, CPU", "µs"),
    Figure("tls.resumed", "TLS ended, resumed session, CPU", "µs"),
    Figure("tls.memory", "TLS ended, idle connection, memory", "KiB"),
    Figure("tls.bulk", "TLS ended, bulk, CPU", "s/GiB", 3),
    Figure("tls.rate", "TLS ended, bulk, throughput", "Gbit/s", 1, more_is_better=True),
)

_CIPHER = "TLS_AES_256_GCM_SHA384"
_WARMING_UP = 40
_SETTLED = 3.0
"""Seconds after which a proxy has freed what it frees of a connection that stays."""


def measure(bench: Bench, proxy: Proxy) -> dict[str, float]:
    """Measure once, see `Measure`."""
    if proxy.tls is None:
        return {}
    if not (bench.folder / "tls.pem").exists():
        make_certificate(bench.folder / "tls.pem")
    count = bench.size(2000, 200)
    found = {}
    with bench.running(proxy, tls=True) as running:
        child, port = running.child, running.ports["HTTP"]
        for key, resumed in (("tls.full", False), ("tls.resumed", True)):
            ciphers = handshakes(port, _WARMING_UP, resumed=resumed)
            before = child.cpu()
            ciphers |= handshakes(port, count, resumed=resumed)
            found[key] = (child.cpu() - before) / count * 1e6
            if ciphers != {_CIPHER}:
                bench.notes.append(f"its cipher suites were {', '.join(sorted(ciphers))}")
    with bench.running(proxy, tls=True) as running, contextlib.ExitStack() as clients:
        handshakes(running.ports["HTTP"], _WARMING_UP, resumed=False)
        grown, held = -running.child.memory(), bench.size(1500, 300)
        hold(running.ports["HTTP"], held, clients)
        time.sleep(_SETTLED)
        found["tls.memory"] = (grown + running.child.memory()) / held / 1024
    with bench.running(proxy, tls=True) as running:
        child, port = running.child, running.ports["HTTP"]
        handshakes(port, _WARMING_UP, resumed=False)
        before, began = child.cpu(), time.monotonic()
        got = download(port, bench.servers.large_file(bench.size(512, 32) * 2**20))
        spent, took = child.cpu() - before, time.monotonic() - began
        if got < bench.size(512, 32) * 2**20:
            raise BenchmarkError(f"the download ended after {got} bytes")
    return {**found, "tls.bulk": spent / got * 2**30, "tls.rate": got * 8 / took / 1e9}

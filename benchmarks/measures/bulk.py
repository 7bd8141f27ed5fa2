"""Much data in one direction, from the client to the server. Made by iperf3."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from benchmarks.bench import Figure
from benchmarks.children import output_of

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.proxies import Proxy

FIGURES = (
    Figure("bulk.cpu", "bulk, CPU", "s/GiB", 3),
    Figure("bulk.rate", "bulk, throughput", "Gbit/s", 1, more_is_better=True),
)


def measure(bench: Bench, proxy: Proxy) -> dict[str, float]:
    """Measure once, see `Measure`."""
    seconds = bench.size(3, 1)
    with bench.servers.iperf(), bench.running(proxy, other="iperf") as running:
        port = str(running.ports["IPERF"])
        before = running.child.cpu()
        command = ["iperf3", "--client", "127.0.0.1", "--port", port, "--time", str(seconds), "-J"]
        received = json.loads(output_of(command, bench.load_cores))["end"]["sum_received"]
        spent = running.child.cpu() - before
    return {
        "bulk.cpu": spent / received["bytes"] * 2**30,
        "bulk.rate": received["bits_per_second"] / 1e9,
    }

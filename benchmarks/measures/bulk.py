"""Much data in one direction, from the client to the server. Made by iperf3."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from benchmarks.bench import Figure
from benchmarks.children import BenchmarkError, output_of
from benchmarks.machine import congestion_controls

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench
    from benchmarks.proxies import Proxy


def _figures(before: str, what: str) -> Iterator[Figure]:
    for key, streams in (("", "bulk"), ("4", "bulk, four streams")):
        yield Figure(f"{before}.cpu{key}", f"{streams}{what}, CPU", "s/GiB", 3)
        title = f"{streams}{what}, throughput"
        yield Figure(f"{before}.rate{key}", title, "Gbit/s", 1, more_is_better=True)


FIGURES = tuple(_figures("bulk", ""))
OTHER = tuple(_figures("other", ", other congestion control"))
STREAM = (Figure("stream.cpu", "stream of 1 Gbit/s, CPU", "s/GiB", 3),)

_NESTED = """
ip link set lo up && echo "$0" > /proc/sys/net/ipv4/tcp_congestion_control && exec "$@"
"""


def measure(bench: Bench, proxy: Proxy) -> dict[str, float]:
    """Measure once, see `Measure`."""
    found = {}
    for key, streams, seconds in (("", 1, 3), ("4", 4, 2)):
        cpu, rate = _sent(bench, proxy, bench.size(seconds, 1), "--parallel", str(streams))
        found.update({f"bulk.cpu{key}": cpu, f"bulk.rate{key}": rate})
    return found


def stream(bench: Bench, proxy: Proxy) -> dict[str, float]:
    """Measure once, see `Measure`."""
    if not _is_compared(proxy):
        return {}
    return {"stream.cpu": _sent(bench, proxy, bench.size(3, 1), "--bitrate", "1G")[0]}


def other(bench: Bench, proxy: Proxy) -> dict[str, float]:
    """Measure once, see `Measure`: all in a network namespace of its own, where the system's default may be another one."""
    name = congestion_controls()[1]
    if not name or not _is_compared(proxy):
        return {}
    folder = bench.folder / "other"
    command = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--net"]
    command += ["sh", "-c", _NESTED, name, sys.executable, "-m", "benchmarks", "--rounds", "1"]
    command += ["--only", "bulk", "--peers", proxy.key, "--output", str(folder)]
    output_of(command + ["--quick"] * bench.quick, [*bench.proxy_cores, *bench.load_cores])
    (figures,) = folder.glob("figures-*.json")
    samples = json.loads(figures.read_text())["samples"]
    if not samples:
        raise BenchmarkError(f"nothing was measured with {name}")
    return {
        key.replace("bulk", "other"): by_proxy[proxy.key][0] for key, by_proxy in samples.items()
    }


def _is_compared(proxy: Proxy) -> bool:
    return proxy.family == "haproxy" or proxy.key == "txmux"  # a round has to end some time


def _sent(bench: Bench, proxy: Proxy, seconds: int, *options: str) -> tuple[float, float]:
    """Give the proxy's CPU time in seconds a GiB, and Gbit/s."""
    with bench.servers.iperf(), bench.running(proxy, other="iperf") as running:
        port = str(running.ports["IPERF"])
        before = running.child.cpu()
        command = ["iperf3", "--client", "127.0.0.1", "--port", port, "--time", str(seconds), "-J"]
        output = output_of([*command, *options], bench.load_cores)
        received = json.loads(output)["end"]["sum_received"]
        spent = running.child.cpu() - before
    return spent / received["bytes"] * 2**30, received["bits_per_second"] / 1e9

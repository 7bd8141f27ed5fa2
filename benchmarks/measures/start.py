"""What a program takes until it serves, with rules for a few routes, and the memory of one with two workers."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from benchmarks.bench import Figure

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.proxies import Proxy

FIGURES = (
    Figure("start.cpu", "start, CPU", "ms", 0),
    Figure("start.memory", "memory after the start", "MiB"),
    Figure("start.debian", "start on Debian's optimised Python, CPU", "ms", 0),
)
_DEBIAN = "/usr/bin/python3"
WORKERS = (Figure("workers.memory", "with two workers, memory", "MiB"),)


def measure(bench: Bench, proxy: Proxy) -> dict[str, float]:
    """Measure once, see `Measure`."""
    with bench.running(proxy, asks=False) as running:
        spent = running.child.settled()
        found = {"start.cpu": spent * 1e3, "start.memory": running.child.memory() / 2**20}
    if proxy.key == "txmux" and _has_debian():
        with bench.running(_on_debian(proxy), asks=False) as running:
            found["start.debian"] = running.child.settled() * 1e3
    return found


def _has_debian() -> bool:
    """Tell whether the system has the Python of this version, which can use the packages of this one."""
    ask = [_DEBIAN, "-c", "import platform; print(*platform.python_version_tuple()[:2])"]
    try:
        version = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        return False
    return version == [*platform.python_version_tuple()[:2]]


def _on_debian(proxy: Proxy) -> Proxy:
    packages = [path for path in sys.path if path.endswith("site-packages")]
    folders = ":".join([str(Path(__file__).parents[2]), *packages])
    arguments = (f"PYTHONPATH={folders}", _DEBIAN, "-m", "txmux", *proxy.arguments)
    return attrs.evolve(proxy, program="env", arguments=arguments)


def workers(bench: Bench, proxy: Proxy) -> dict[str, float]:
    """Measure once, see `Measure`."""
    if not proxy.has_workers:
        return {}
    with bench.running(proxy, workers=2) as running:
        running.child.settled()
        return {"workers.memory": running.child.memory() / 2**20}

"""How many connections one process holds, of 9,000, when it may have 20,000 descriptors."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from benchmarks.bench import Figure
from benchmarks.clients import PING, answering, connected

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.proxies import Proxy

FIGURES = (Figure("held", "connections held, of 9,000", "", 0, more_is_better=True),)

_TRIED = 9000


def measure(bench: Bench, proxy: Proxy) -> dict[str, float]:
    """Measure once, see `Measure`."""
    with bench.running(proxy) as running, contextlib.ExitStack() as clients:
        opened = connected(running.ports["REDIS"], _TRIED, PING, clients)
        held = len(opened) if len(opened) < _TRIED else answering(opened)
        if running.child.has_ended():
            bench.notes.append(f"it ended at {held} connections")
    return {"held": held}

from collections.abc import Iterable
from typing import Any

from txmux.telemetry.counting.counter_groups import SERVER, BackendTotals

_NAMES = ("asked", "answered", "unanswered", "closed", "failed reset", "failed connect-refused")


def counted(*listeners: Any, names: Iterable[str] = _NAMES) -> dict[str, int]:
    """Add up the counters of the servers of these listeners; those that are 0 are left out."""
    blocks = [
        member.counts.cells
        for listener in listeners
        for upstream in listener.upstreams.all()
        for member in upstream.pool.members
    ]
    sums = {name: sum(cells[SERVER.names.index(name)] for cells in blocks) for name in names}
    return {name: count for name, count in sums.items() if count}


def waited(listener: Any) -> tuple[float, int]:
    (upstream,) = listener.upstreams.all()
    observed = BackendTotals.first_byte.read(upstream.counts.cells)
    return observed.sum, observed.count

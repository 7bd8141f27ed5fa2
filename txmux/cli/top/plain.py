"""`txmux top --once`: the answers of the service as plain text, and the lines above the panes. Pure."""

from collections.abc import Iterator

from txmux.cli.top.panes import TABLES, lines_of
from txmux.cli.top.state import PANES, Pane, Snapshot, TopState
from txmux.errors import printable
from txmux.telemetry.formatting import (
    aligned,
    connection_counts,
    counted,
    duration,
    rates,
    troubles,
)

_MOST = 20  # rows of each pane; `txmux connections` lists all


def text_of(snapshot: Snapshot) -> Iterator[str]:
    yield title_of(snapshot)
    yield from attention_of(snapshot)
    yield counts_of(snapshot)
    yield f"rates: {rates(snapshot.status) or '-'}"
    for pane in PANES:
        yield ""
        yield from _pane(pane, snapshot)


def _pane(pane: Pane, snapshot: Snapshot) -> Iterator[str]:
    lines, columns = lines_of(pane, TopState(), snapshot), TABLES[pane].columns
    yield f"{TABLES[pane].title}: {len(lines)}"
    if lines:
        rows = [[column.title for column in columns], *(line.cells for line in lines[:_MOST])]
        yield from aligned(rows, [at for at, column in enumerate(columns) if column.is_number])
    if len(lines) > _MOST:
        yield f"and {len(lines) - _MOST} more"


def title_of(snapshot: Snapshot) -> str:
    status = snapshot.status
    if not status:
        return "txmux"
    parts = [f"txmux {status.get('version', '?')}", f"process {status.get('pid', '?')}"]
    since = (
        f" for {duration(int(snapshot.at - status['started']))}" if status.get("started") else ""
    )
    parts.append(f"{'stops' if status.get('draining') else 'serves'}{since}")
    workers = len(status.get("workers", ()))
    if workers:
        parts.append(counted(workers, "worker"))
    parts.append(f"{status.get('rules_path', '?')}, generation {status.get('generation', '?')}")
    return printable(" · ".join(parts))


def counts_of(snapshot: Snapshot) -> str:
    return f"connections: {connection_counts(snapshot.status) or '-'}"


def attention_of(snapshot: Snapshot) -> Iterator[str]:
    if snapshot.problem:
        yield printable(snapshot.problem)
    yield from map(printable, troubles(snapshot.status))
    for warning in snapshot.warnings:
        yield printable(f"the answer is not complete: {warning}")

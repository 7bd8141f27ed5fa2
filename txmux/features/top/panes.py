"""The answers of the service as text: the rows of the panes, sorted as the user chose, and the lines above them. Pure."""

from collections.abc import Iterator, Sequence

from txmux.classes import frozen
from txmux.errors import printable
from txmux.features.top.state import TABLE_OF, Pane, Snapshot, TopState
from txmux.telemetry import presentation
from txmux.telemetry.formatting import duration, plural


@frozen
class PaneLine:
    """A row; its `key` names it as long as it is there, and its `style` is in the terms of `rich`."""

    key: str
    row: presentation.Row
    cells: Sequence[str]
    style: str


def rows_of(pane: Pane, snapshot: Snapshot) -> Sequence[presentation.Row]:
    if pane == "routes":
        return presentation.busy_routes(snapshot.routes)
    if pane == "servers":
        return presentation.server_rows(snapshot.backends)
    return snapshot.connections if pane == "connections" else snapshot.recent


def lines_of(pane: Pane, state: TopState, snapshot: Snapshot) -> list[PaneLine]:
    """Return the rows of a pane in their order."""
    table = TABLE_OF[pane]
    rows = rows_of(pane, snapshot)
    if pane in state.sorts:
        column, is_descending = state.sorts[pane]
        rows = presentation.ordered(rows, table.columns[column], is_descending=is_descending)
    return [
        PaneLine(
            table.key(row),
            row,
            [*map(printable, table.cells(row, presentation.SCREEN, snapshot.at))],
            table.style(row),
        )
        for row in rows
    ]


def position(pane: Pane, state: TopState, lines: Sequence[PaneLine]) -> int:
    """Return the place of the chosen row; -1 if there is no row."""
    key, index = state.chosen.get(pane, ("", 0))
    for number, line in enumerate(lines):
        if line.key == key:
            return number
    return min(index, len(lines) - 1)


def text_of(snapshot: Snapshot) -> Iterator[str]:
    """Yield the first lines of `txmux top --once`."""
    parts, path, end = title_of(snapshot)
    yield " · ".join([*parts, *filter(None, [f"{path}{end}"])])
    yield from (text for _, text in attention_of(snapshot))
    yield counts_of(snapshot)
    yield f"rates: {presentation.rates(snapshot.status) or '-'}"


def title_of(snapshot: Snapshot) -> tuple[list[str], str, str]:
    """Return parts of the title, the least important first behind the name, then the path of the rules and what follows it."""
    status = snapshot.status
    if not status:
        return ["txmux"], "", ""
    for_ = f" for {duration(int(snapshot.at - status['started']))}" if status.get("started") else ""
    workers = len(status.get("workers", ()))
    parts = [
        f"txmux {status.get('version', '?')}",
        f"process {status.get('pid', '?')}",
        *([plural(workers, "worker")] if workers else []),
        f"{'stops' if status.get('draining') else 'serves'}{for_}",
    ]
    path = str(status.get("rules_path", "?"))
    return (
        [*map(printable, parts)],
        printable(path),
        f", generation {status.get('generation', '?')}",
    )


def counts_of(snapshot: Snapshot) -> str:
    return f"connections: {presentation.connection_counts(snapshot.status) or '-'}"


def attention_of(snapshot: Snapshot) -> Iterator[tuple[presentation.Health, str]]:
    """Yield a sentence for each thing that needs attention, and how bad it is."""
    if snapshot.problem:
        yield "down", printable(snapshot.problem)
    for item in presentation.folded_attention(snapshot.status):
        line = f"{item['level']}: {presentation.attention_line(item, snapshot.at)}"
        yield presentation.HEALTH_OF_LEVEL.get(item["level"], "down"), printable(line)
    for warning in snapshot.warnings:
        yield "partly", printable(f"the answer is not complete: {warning}")

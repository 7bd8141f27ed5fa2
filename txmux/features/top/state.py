"""The data of `txmux top`: the answers of the service, as text in the rows of the panes, and the state of the screen. Pure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import attrs

from txmux.classes import frozen
from txmux.errors import printable
from txmux.telemetry import presentation
from txmux.telemetry.documents import CONNECTIONS, ENDS, ROUTES, SERVERS
from txmux.telemetry.formatting import duration, plural
from txmux.telemetry.presentation import Table

Pane = Literal["connections", "routes", "servers", "ends"]
TABLE_OF: Mapping[Pane, Table] = {
    "connections": CONNECTIONS, "routes": ROUTES, "servers": SERVERS, "ends": ENDS,
}  # fmt: skip
PANES: tuple[Pane, ...] = (*TABLE_OF,)

Mode = Literal["browse", "filter", "question", "value", "help", "explanation"]


@frozen
class Snapshot:
    """The last answers of the service.

    Attributes:
        at: When, in seconds since 1970; 0 before the first answer.
        status: The answer to ``/api/status``; the others likewise.
        problem: Why it does not answer now; empty if it does.
        history: The rates, the newest last.
    """

    at: float = 0.0
    status: Mapping[str, Any] = attrs.Factory(dict)
    routes: Sequence[Mapping[str, Any]] = ()
    backends: Sequence[Mapping[str, Any]] = ()
    connections: Sequence[Mapping[str, Any]] = ()
    recent: Sequence[Mapping[str, Any]] = ()
    problem: str = ""
    warnings: Sequence[str] = ()
    history: Sequence[Mapping[str, float]] = ()
    filters: Mapping[str, str] = attrs.Factory(dict)

    def as_json(self) -> dict[str, Any]:
        names = ("status", "routes", "backends", "connections", "recent")
        return {name: getattr(self, name) for name in names}


@frozen
class ChangeRequest:
    """A request to change something; `what` says in words what it does."""

    path: str
    body: Mapping[str, Any]
    what: str


@frozen
class ValueRequest:
    """A value that is typed before a change; `request` returns the change, or raises `UsageError`."""

    prompt: str
    request: Callable[[str], ChangeRequest]


@frozen
class ExplainRequest:
    """A request to explain how a connection was decided."""

    identity: str


@frozen
class RequestResult:
    """The result of a request: a line; or a connection with its explanation."""

    message: str = ""
    is_bad: bool = False
    connection: Mapping[str, Any] | None = None


TopRequest = ChangeRequest | ExplainRequest


@frozen
class TopState:
    """The state of the screen.

    Attributes:
        chosen: In each pane the key of the chosen row, and where that was.
        sorts: In each pane the column, and whether its largest values come first.
        scrolled: Lines that are hidden above, of an explanation or of the help.
    """

    pane: Pane = "connections"
    chosen: Mapping[str, tuple[str, int]] = attrs.Factory(dict)
    sorts: Mapping[str, tuple[int, bool]] = attrs.Factory(dict)
    filters: Mapping[str, str] = attrs.Factory(dict)
    mode: Mode = "browse"
    typed: str = ""
    pending_confirmation: ChangeRequest | None = None
    pending_value: ValueRequest | None = None
    result: RequestResult = RequestResult()
    is_paused: bool = False
    should_exit: bool = False
    scrolled: int = 0


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

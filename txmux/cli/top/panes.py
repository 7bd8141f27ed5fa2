"""The answers of the service as text: the rows of the panes, sorted as the user chose, and the lines above them. Pure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from txmux.cli.top.state import PANES, Pane, Snapshot, TopState
from txmux.errors import printable
from txmux.telemetry.attention import attention_items, attention_text
from txmux.telemetry.formatting import (
    aligned,
    compact_duration,
    connection_counts,
    counted,
    duration,
    rates,
    server_state,
    si_number,
    worst_first,
)

_MOST_ROWS = 20  # of a pane in `txmux top --once`; `txmux connections` lists all

_STATES = {
    "up": "green", "not checked": "", "checking": "", "down": "bold red", "ejected": "red",
    "probing": "yellow", "unresolved": "red", "drain": "yellow", "drained, and down": "yellow",
    "failing": "bold red", "silent": "red",
    "maintenance": "yellow", "disabled": "dim", "peeking": "yellow", "connecting": "yellow",
}  # fmt: skip


@attrs.frozen
class PaneColumn:
    """A column.

    Attributes:
        order: Returns the sort key of a row; ``None`` comes last.
        is_number: Whether it is aligned right.
        least: The width that it has even where there is little room.
        may_go: Whether it is left out where others have too little.
    """

    title: str
    text: Callable[[Mapping[str, Any]], str]
    order: Callable[[Mapping[str, Any]], Any]
    is_number: bool = False
    least: int = 6
    may_go: bool = False


@attrs.frozen
class Table:
    """What a pane shows."""

    title: str
    columns: Sequence[PaneColumn]
    key: Callable[[Mapping[str, Any]], str]
    style: Callable[[Mapping[str, Any]], str] = lambda _: ""


@attrs.frozen
class PaneLine:
    """A row; its `key` names it as long as it is there, and its `style` is in the terms of `rich`."""

    key: str
    row: Mapping[str, Any]
    cells: Sequence[str]
    style: str


def _word(title: str, name: str, least: int = 6, *, may_go: bool = False) -> PaneColumn:
    def text(row: Mapping[str, Any]) -> str:
        return str(row.get(name) or "-")

    return PaneColumn(title, text, lambda row: row.get(name), least=least, may_go=may_go)


def _amount(name: str) -> Callable[[Mapping[str, Any]], Any]:
    return lambda row: row.get(name) or 0


def _number(title: str, name: str, *, may_go: bool = False) -> PaneColumn:
    amount = _amount(name)
    return PaneColumn(
        title, lambda row: si_number(amount(row)), amount, is_number=True, may_go=may_go
    )


def _weight(row: Mapping[str, Any]) -> str:
    return f"{row.get('effective_weight', row.get('weight', 1)):g}"


def _age(title: str, name: str) -> PaneColumn:
    amount = _amount(name)
    return PaneColumn(
        title, lambda row: compact_duration(amount(row) / 1000), amount, is_number=True
    )


def _ago(title: str, name: str, *, may_go: bool = False) -> PaneColumn:
    """Make a column of how long ago something was; ``now`` in the row is the time."""

    def text(row: Mapping[str, Any]) -> str:
        return "-" if row.get(name) is None else compact_duration(row["now"] - row[name])

    return PaneColumn(title, text, lambda row: row.get(name), is_number=True, may_go=may_go)


def _check(row: Mapping[str, Any]) -> str:
    check = row.get("check")
    if not check:
        return "-"
    return f"{'ok' if check['ok'] else check['result']}, {compact_duration(row['now'] - check['last'])}"


def _facts(row: Mapping[str, Any]) -> str:
    facts = row.get("facts") or {}
    return " ".join(f"{name}={value}" for name, value in facts.items()) or "-"


_FROM_TO = (
    _word("client", "client", 12),
    _word("listener", "listener", 8, may_go=True),
    _word("route", "route"),
    _word("server", "server", 9),
)
_BYTES_AND_FACTS = (
    _number("in", "bytes_in"),
    _number("out", "bytes_out"),
    _word("id", "id", 12, may_go=True),
    PaneColumn("facts", _facts, _facts, least=12, may_go=True),
)

TABLES: Mapping[Pane, Table] = {
    "connections": Table(
        "connections",
        (
            *_FROM_TO,
            _word("state", "state", 8),
            _age("age", "age_ms"),
            _age("idle", "idle_ms"),
            *_BYTES_AND_FACTS,
        ),
        lambda row: str(row["id"]),
        lambda row: _STATES.get(row.get("state", ""), ""),
    ),
    "routes": Table(
        "routes",
        (
            _word("route", "name", 8),
            _word("to", "backend", 8),
            _number("matches", "matches"),
            _number("dry", "dry_run_matches", may_go=True),
            _number("active", "active"),
            _number("in", "bytes_in"),
            _number("out", "bytes_out"),
            _ago("last", "last_match"),
        ),
        lambda row: str(row["name"]),
        lambda row: "" if row.get("matches") or row.get("dry_run_matches") else "dim",
    ),
    "servers": Table(
        "servers",
        (
            _word("backend", "backend", 7),
            _word("server", "server", 9),
            PaneColumn("state", server_state, server_state, least=5),
            _number("active", "active"),
            _number("total", "total", may_go=True),
            _number("failed", "failed"),
            PaneColumn("weight", _weight, _amount("weight"), is_number=True, may_go=True),
            PaneColumn("check", _check, _check, least=8),
            _ago("since", "since", may_go=True),
            _word("why", "why", 10, may_go=True),
        ),
        lambda row: f"{row['backend']}/{row['server']}",
        lambda row: _STATES.get(server_state(row), "bold red"),
    ),
    "ends": Table(
        "recent ends",
        (
            _ago("ago", "ended"),
            *_FROM_TO,
            _word("reason", "reason", 10),
            _age("lasted", "duration_ms"),
            *_BYTES_AND_FACTS,
        ),
        lambda row: str(row["id"]),
    ),
}


def _rows(pane: Pane, snapshot: Snapshot) -> Iterator[Mapping[str, Any]]:
    if pane == "connections":
        yield from snapshot.connections
    elif pane == "routes":
        yield from ({**row, "now": snapshot.at} for row in snapshot.routes)
    elif pane == "servers":
        for backend, server in worst_first(snapshot.backends):
            yield {**server, "backend": backend, "now": snapshot.at}
    else:
        yield from ({**row, "now": snapshot.at} for row in snapshot.recent)


def lines_of(pane: Pane, state: TopState, snapshot: Snapshot) -> list[PaneLine]:
    """Return the rows of a pane in their order."""
    table = TABLES[pane]
    rows = [*_rows(pane, snapshot)]
    if pane in state.sorts:
        column, is_descending = state.sorts[pane]
        order = table.columns[column].order
        sortable = [row for row in rows if order(row) is not None]
        sortable.sort(key=order, reverse=is_descending)
        rows = sortable + [row for row in rows if order(row) is None]
    return [
        PaneLine(
            table.key(row),
            row,
            [printable(column.text(row)) for column in table.columns],
            table.style(row),
        )
        for row in rows
    ]


def troubled(servers: Sequence[PaneLine]) -> int:
    """Count the servers that may need attention; those that are down by the rules do not."""
    return sum(line.row.get("state") not in {"up", "disabled"} for line in servers)


def position(pane: Pane, state: TopState, lines: Sequence[PaneLine]) -> int:
    """Return the place of the chosen row; -1 if there is no row."""
    key, index = state.chosen.get(pane, ("", 0))
    for number, line in enumerate(lines):
        if line.key == key:
            return number
    return min(index, len(lines) - 1)


def text_of(snapshot: Snapshot) -> Iterator[str]:
    """Yield the lines of `txmux top --once`."""
    yield title_of(snapshot)
    yield from attention_of(snapshot)
    yield counts_of(snapshot)
    yield f"rates: {rates(snapshot.status) or '-'}"
    for pane in PANES:
        yield ""
        yield from _text_of_pane(pane, snapshot)


def _text_of_pane(pane: Pane, snapshot: Snapshot) -> Iterator[str]:
    lines, columns = lines_of(pane, TopState(), snapshot), TABLES[pane].columns
    yield f"{TABLES[pane].title}: {len(lines)}"
    if lines:
        rows = [[column.title for column in columns], *(line.cells for line in lines[:_MOST_ROWS])]
        yield from aligned(rows, [at for at, column in enumerate(columns) if column.is_number])
    if len(lines) > _MOST_ROWS:
        yield f"and {len(lines) - _MOST_ROWS} more"


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
    for item in attention_items(snapshot.status):
        yield printable(attention_text(item))
    for warning in snapshot.warnings:
        yield printable(f"the answer is not complete: {warning}")

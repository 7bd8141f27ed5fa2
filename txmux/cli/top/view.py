"""The screen: lines of a given size, made of the answers of the service and the state of the screen. Pure."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from txmux.cli._output import explained_style
from txmux.cli.top.keys import HELP
from txmux.cli.top.panes import TABLES, PaneColumn, lines_of, position
from txmux.cli.top.plain import attention_of, counts_of, title_of
from txmux.cli.top.state import PANES, Pane, Snapshot, TopState
from txmux.errors import printable
from txmux.telemetry.formatting import EXPLANATION_COLUMNS, explanation_of, si_number

_BARS = "▁▂▃▄▅▆▇█"
_GAP = 2
_SHORT = 4  # lines of a pane that is not looked at
_LEAST = 7  # lines of the one that is
_LABEL = 10
_MATCH = 2  # the column that is cut if there is little room, and the least that it has
_LEAST_MATCH = 10
_WIDE = 170  # columns that are enough for two panes side by side
_RATES = (("connections", "conn"), ("bytes_in", "in"), ("bytes_out", "out"))


def screen(state: TopState, snapshot: Snapshot, width: int, height: int) -> list[Text]:
    """Draw the screen in exactly `height` lines, none wider than `width`."""
    head = [*head_of(snapshot, width)]
    foot = _foot(state, width)
    room = max(0, height - len(head) - len(foot))
    if state.mode == "help":
        body = _scrolled([*_help()], state.scrolled, room)
    elif state.mode == "explanation" and state.result.connection is not None:
        body = _scrolled([*_explanation(state.result.connection, width)], state.scrolled, room)
    else:
        body = _panes(state, snapshot, width, room)
    lines = [*head, *body[:room], *[Text()] * (room - len(body)), *foot]
    # In a terminal that is too small for all of it, the typed text is visible.
    lines = lines[-height:] if height <= len(foot) else [*lines[: height - len(foot)], *foot]
    return [_fit(line, width) for line in lines]


def _fit(line: Text, width: int) -> Text:
    line = line.copy()
    line.truncate(width, overflow="ellipsis")
    line.no_wrap = True
    return line


def head_of(snapshot: Snapshot, width: int) -> Iterator[Text]:
    """Yield the lines above the panes: the service, its numbers and rates, and what needs a person."""
    now = time.strftime("%H:%M:%S", time.localtime(snapshot.at)) if snapshot.at else ""
    room = max(0, width - len(now) - 1)
    yield Text(f"{set_cell_size(title_of(snapshot), room)} {now}", "bold reverse")
    yield Text(counts_of(snapshot))
    yield _rates(snapshot, width)
    yield from (Text(problem, "bold red") for problem in attention_of(snapshot))


def _rates(snapshot: Snapshot, width: int) -> Text:
    third = max(10, width // 3)
    line = Text()
    for name, title in _RATES:
        values = [rates.get(name, 0.0) for rates in snapshot.history]
        said = f"{title} {si_number(values[-1]) if values else '-'}/s "
        said = f"{said:<15}"
        bars = max(0, third - len(said) - 1)
        line.append(said)
        line.append(f"{sparkline(values, bars):<{bars}} ", "cyan")
    return line


def sparkline(values: Sequence[float], width: int) -> str:
    """Draw the last of some values as bars, the highest at full height."""
    shown = values[-width:] if width else []
    most = max(shown, default=0) or 1
    return "".join(_BARS[min(7, int(value / most * 7.999))] for value in shown)


def _foot(state: TopState, width: int) -> list[Text]:
    result = Text(state.result.message, "bold red" if state.result.is_bad else "bold")
    if state.mode == "filter":
        asks = f"filter (Enter, Esc): {printable(state.typed)}"
        room = width - 2
        shown = asks if cell_len(asks) <= room else f"…{asks[-max(0, room - 1) :]}"
        line = Text(f"{shown}_", "bold")
        return [result, line] if state.result.message else [line]
    if state.mode == "question" and state.pending_confirmation:
        return [Text(f"{state.pending_confirmation.what}? y/n", "bold yellow")]
    if state.mode in {"help", "explanation"}:
        return [Text("Up, Down: scroll   any other key: back", "reverse")]
    keys = "Tab pane  s sort  / filter  e explain  x end  d drain  u ready  h help  q quit"
    line = Text(keys, "reverse")
    if state.is_paused:
        line = Text("paused, p continues  ", "bold yellow reverse") + line
    return [result, line]


def _panes(state: TopState, snapshot: Snapshot, width: int, room: int) -> list[Text]:
    """Stack the panes; the one that is looked at has most of the room."""
    if width >= _WIDE and room >= 2 * _LEAST:
        return _side_by_side(state, snapshot, width, room)
    others = len(PANES) - 1
    each = max(0, min(_SHORT, (room - _LEAST) // others))
    body: list[Text] = []
    for pane in PANES:
        height = max(0, room - each * others) if pane == state.pane else each
        body += _pane(pane, state, snapshot, width, height)
    return body


def _side_by_side(state: TopState, snapshot: Snapshot, width: int, room: int) -> list[Text]:
    """Put routes and servers beside each other, between connections and ends."""
    low = max(_LEAST, room // 4)
    above = low if state.pane == "ends" else room // 2
    below = room - above - low if state.pane == "ends" else low
    middle = room - above - below
    left = width // 2
    routes = _pane("routes", state, snapshot, left - 1, middle)
    servers = _pane("servers", state, snapshot, width - left, middle)
    both = []
    for one, other in zip(routes, servers, strict=True):
        line = _fit(one, left - 1)
        line.append(" " * (left - cell_len(line.plain)))
        both.append(line + other)
    top = _pane("connections", state, snapshot, width, above)
    return [*top, *both, *_pane("ends", state, snapshot, width, below)]


def _pane(pane: Pane, state: TopState, snapshot: Snapshot, width: int, height: int) -> list[Text]:
    """Draw a pane of exactly this height."""
    if height <= 0:
        return []
    lines = lines_of(pane, state, snapshot)
    place = position(pane, state, lines)
    title = _title(pane, state, snapshot, len(lines))
    is_looked_at = pane == state.pane
    drawn = [
        Text(
            set_cell_size(title, width), "bold black on cyan" if is_looked_at else "bold on grey30"
        )
    ]
    room = height - 2
    if room > 0:
        first = min(max(0, place - room // 2), max(0, len(lines) - room))
        shown = lines[first : first + room]
        titles = _titles(pane, state)
        columns, widths = widths_of(
            TABLES[pane].columns, [titles, *(line.cells for line in shown)], width
        )
        head = _cells(TABLES[pane].columns, columns, widths, titles)
        drawn.append(Text(head, "bold underline"))
        for number, line in enumerate(shown, first):
            style = f"{line.style} reverse" if is_looked_at and number == place else line.style
            text = _cells(TABLES[pane].columns, columns, widths, line.cells)
            drawn.append(Text(set_cell_size(text, width), style))
        if not lines:
            drawn.append(Text("nothing here" if snapshot.at else "waiting for the service", "dim"))
    return [*drawn, *[Text()] * (height - len(drawn))][:height]


def _title(pane: Pane, state: TopState, snapshot: Snapshot, count: int) -> str:
    parts = [f"{PANES.index(pane) + 1} {TABLES[pane].title}: {count}"]
    if pane == "connections":
        active = snapshot.status.get("connections", {}).get("active", 0)
        if not snapshot.filters and active > count:
            parts.append(f"the first of {active}")
        words = [f"{name}={value}" for name, value in snapshot.filters.items()]
        parts += [f"only {' '.join(words)}"] if words else []
    if pane in state.sorts:
        column, is_descending = state.sorts[pane]
        way = "largest first" if is_descending else "smallest first"
        parts.append(f"by {TABLES[pane].columns[column].title}, {way}")
    return printable(", ".join(parts))


def _titles(pane: Pane, state: TopState) -> list[str]:
    by, is_descending = state.sorts.get(pane, (-1, False))
    return [
        column.title + ("↓" if is_descending else "↑") * (number == by)
        for number, column in enumerate(TABLES[pane].columns)
    ]


def _cells(
    columns: Sequence[PaneColumn], shown: Sequence[int], widths: Sequence[int], cells: Sequence[str]
) -> str:
    drawn = []
    for number, width in zip(shown, widths, strict=True):
        cell = _cut(cells[number], width)
        if columns[number].is_number:
            cell = cell.strip()
            cell = " " * (width - cell_len(cell)) + cell
        drawn.append(cell)
    return (" " * _GAP).join(drawn)


def _cut(cell: str, width: int) -> str:
    """Make a cell exactly as wide, and show if something is missing."""
    if cell_len(cell) > width > 0:
        return set_cell_size(cell, width - 1) + "…"
    return set_cell_size(cell, width)


def widths_of(
    columns: Sequence[PaneColumn], rows: Sequence[Sequence[str]], width: int
) -> tuple[list[int], list[int]]:
    """Share a width among columns: those that may go do so first, the last ones before others; then the widest are cut.

    Return the numbers of the columns that are shown, and their widths. The titles are the first of the rows.
    """
    full_widths = [max(map(cell_len, cells)) for cells in zip(*rows, strict=True)]
    # Optional columns stay only if all columns get their full widths.
    shown = [*range(len(columns))]
    for number in reversed(shown.copy()):
        sizes = [
            min(full_widths[one], columns[one].least) if columns[one].may_go else full_widths[one]
            for one in shown
        ]
        if sum(sizes) + _GAP * (len(sizes) - 1) > width and columns[number].may_go:
            shown.remove(number)
    widths = [full_widths[number] for number in shown]
    over = sum(widths) + _GAP * (len(widths) - 1) - width
    while over > 0 and max(widths, default=0) > 1:
        widest = max(
            range(len(shown)),
            key=lambda at: (
                widths[at] > columns[shown[at]].least,
                columns[shown[at]].may_go,
                widths[at],
            ),
        )
        widths[widest] -= 1
        over -= 1
    return shown, widths


def _scrolled(lines: Sequence[Text], scrolled: int, room: int) -> list[Text]:
    first = min(scrolled, max(0, len(lines) - room))
    return [*lines[first : first + room]]


def _help() -> Iterator[Text]:
    yield Text()
    for keys, what in HELP:
        yield Text(f"  {keys:<16}", "bold") + Text(what, "not bold")
    yield Text()
    yield Text(
        "  Filters are those of 'txmux connections': route=ssh, client=192.0.2.0/24, older=5m …"
    )


def _explanation(one: Mapping[str, Any], width: int) -> Iterator[Text]:
    why = explanation_of(one)
    yield Text()
    yield Text(printable(why.title), "bold")
    yield Text()
    rows: list[tuple[Sequence[str], str]] = [(EXPLANATION_COLUMNS, "bold")] if why.routes else []
    for route in why.routes:
        cells = [printable(cell) for cell in route.cells]
        rows.append((cells, explained_style(route)))
    widths = [
        max(map(cell_len, column)) for column in zip(*(cells for cells, _ in rows), strict=True)
    ]
    if widths:  # the verdict gets more room than the match
        others = sum(widths) - widths[_MATCH] + _GAP * (len(widths) - 1)
        widths[_MATCH] = min(widths[_MATCH], max(_LEAST_MATCH, width - others))
    for row, style in rows:
        padded = [_cut(cell, size) for cell, size in zip(row, widths, strict=True)]
        yield Text((" " * _GAP).join(padded), style)
    yield Text()
    for label, text in why.conclusion:
        folded = textwrap.wrap(printable(text), max(1, width - _LABEL)) or [""]
        for number, part in enumerate(folded):
            yield Text(f"{'' if number else label:{_LABEL}}", "bold") + Text(part, "not bold")

"""The screen: lines of a given size, made of the answers of the service and the state of the screen. Pure."""

import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from txmux.errors import printable
from txmux.features.top.keys import HELP
from txmux.features.top.state import (
    PANES,
    TABLE_OF,
    Pane,
    PaneLine,
    Snapshot,
    TopState,
    attention_of,
    counts_of,
    lines_of,
    position,
    title_of,
)
from txmux.telemetry.explanation import EXPLANATION_COLUMNS, explained_connection
from txmux.telemetry.formatting import byte_rate, rate
from txmux.telemetry.presentation import STYLES, Column, Health, fitted, needs_attention

_BARS = "▁▂▃▄▅▆▇█"
_GAP = 2
_SHORT = 4  # lines that a pane has before others have more than they need most
_HEAD = 2  # lines of a pane that are no rows
_ATTENTION = 5  # the part of the screen that sentences about trouble may take from the panes
_LABEL = 10
_PATH = 24  # columns for the path of the rules, before less important parts of the title
_KEYS = 18  # columns of the help before what they do
_MATCH = 2  # the column that is cut if there is little room, and the least that it has
_LEAST_MATCH = 10
_WIDE = 170  # columns that are enough for two panes side by side
_RATES = (("connections", "conn"), ("bytes_in", "in"), ("bytes_out", "out"))


def screen(state: TopState, snapshot: Snapshot, width: int, height: int) -> list[Text]:
    """Draw the screen in exactly `height` lines, none wider than `width`."""
    title, *totals = head_of(snapshot, width)
    foot = _foot(state, width)
    room = max(0, height - 1 - len(totals) - len(foot))
    troubles = [*_troubles(snapshot, width)]
    whole = sum(len(lines) for _, lines in troubles)
    first = min(whole, max(2, room // _ATTENTION), room)
    if state.mode == "help":
        body = _scrolled([*_help(width)], state.scrolled, room - first)
    elif state.mode == "explanation" and state.result.connection is not None:
        explained = [*_explanation(state.result.connection, width)]
        body = _scrolled(explained, state.scrolled, room - first)
    else:
        first, body = _panes(state, snapshot, width, room, (first, whole))
    body = [*_first(troubles, first), *totals, *body][: room + len(totals)]
    lines = [title, *body, *[Text()] * (room + len(totals) - len(body)), *foot]
    # In a terminal that is too small for all of it, the typed text is visible.
    lines = lines[-height:] if height <= len(foot) else [*lines[: height - len(foot)], *foot]
    return [_fit(line, width) for line in lines]


def _fit(line: Text, width: int) -> Text:
    line = line.copy()
    line.truncate(width, overflow="ellipsis")
    line.no_wrap = True
    return line


def head_of(snapshot: Snapshot, width: int) -> Iterator[Text]:
    """Yield the lines above the panes: the service, its numbers and rates."""
    now = time.strftime("%H:%M:%S", time.localtime(snapshot.at)) if snapshot.at else ""
    room = max(0, width - len(now) - 1)
    yield Text(f"{set_cell_size(_head(snapshot, room), room)} {now}", "bold reverse")
    yield Text(counts_of(snapshot))
    yield _rates(snapshot, width)


_Trouble = tuple[Health, Sequence[str]]
"""How bad it is, and its lines."""


def _head(snapshot: Snapshot, width: int) -> str:
    """Write the title; of a long path of the rules, the right end is shown."""
    parts, path, end = title_of(snapshot)
    if not path:
        return parts[0]
    while True:
        before = " · ".join([*parts, ""])
        room = width - cell_len(before) - cell_len(end)
        if room >= min(cell_len(path), _PATH) or len(parts) == 1:
            return f"{before}{_end_of(path, max(room, 1))}{end}"
        del parts[1]


def _troubles(snapshot: Snapshot, width: int) -> Iterator[_Trouble]:
    for health, sentence in attention_of(snapshot):
        yield health, textwrap.wrap(sentence, max(3, width), subsequent_indent="  ") or [""]


def _first(troubles: Sequence[_Trouble], height: int) -> Iterator[Text]:
    """Yield a line of each that there is room for; what is left is for the further lines of the first ones."""
    is_whole = len(troubles) <= height
    shown = troubles if is_whole else troubles[: max(0, height - 1)]
    room = height if is_whole else len(shown)
    for number, (health, lines) in enumerate(shown, 1):
        some = lines[: room - (len(shown) - number)]
        room -= len(some)
        end = "…" if len(some) < len(lines) else ""
        yield from (Text(line, STYLES[health]) for line in [*some[:-1], f"{some[-1]}{end}"])
    if height > 0 and not is_whole:
        yield Text(f"{len(troubles) - len(shown)} more: txmux status", "bold red")


def _rates(snapshot: Snapshot, width: int) -> Text:
    third = max(10, width // 3)
    line = Text()
    for name, title in _RATES:
        values = [rates.get(name, 0.0) for rates in snapshot.history]
        write = byte_rate if name.startswith("bytes") else rate
        text = f"{title} {write(values[-1]) if values else '-'} "
        text = f"{text:<15}"
        bars = max(0, third - len(text) - 1)
        line.append(text)
        line.append(f"{sparkline(values, bars):<{bars}} ", "cyan")
    return line


def sparkline(values: Sequence[float], width: int) -> str:
    """Draw the last of some values as bars, the highest at full height."""
    shown = values[-width:] if width else []
    most = max(shown, default=0) or 1
    return "".join(_BARS[min(7, int(value / most * 7.999))] for value in shown)


def _foot(state: TopState, width: int) -> list[Text]:
    style = "bold red" if state.result.is_bad else "bold"
    result = [Text(state.result.message, style)] if state.result.message else []
    if state.mode in {"filter", "value"}:
        what = "filter" if state.pending_value is None else state.pending_value.prompt
        asks = f"{what} (Enter, Esc): {printable(state.typed)}"
        return [*result, Text(f"{_end_of(asks, width - 1)}_", "bold")]
    if state.mode == "question" and state.pending_confirmation:
        question = f"{state.pending_confirmation.what}? y/n"
        return [Text(line, "bold yellow") for line in textwrap.wrap(question, max(1, width))]
    if state.mode in {"help", "explanation"}:
        return [Text("Up, Down: scroll   any other key: back", "reverse")]
    keys = "s sort  / filter  e explain  x end  b ban  d drain  u ready  h help  q quit"
    line = Text(keys, "reverse")
    if state.is_paused:
        line = Text("paused, p continues  ", "bold yellow reverse") + line
    return [*result, line]


def _panes(
    state: TopState, snapshot: Snapshot, width: int, room: int, troubles: tuple[int, int]
) -> tuple[int, list[Text]]:
    """Share the lines among the troubles, given their least and full number, and the panes.

    Return how many the troubles get, and the lines of the panes.
    """
    wide: list[tuple[Pane, ...]] = [("connections",), ("routes", "servers"), ("ends",)]
    bands = wide if width >= _WIDE else [(pane,) for pane in PANES]
    rows = {pane: lines_of(pane, state, snapshot) for pane in PANES}
    down = _troubled(rows["servers"])
    needs = [
        max(_need(rows[pane], is_chosen=pane == state.pane) for pane in band) for band in bands
    ]
    chosen = [state.pane in band for band in bands]
    least, whole = troubles
    # Each stage is filled before the next one.
    stages = (
        (least, [_SHORT if is_chosen else 1 for is_chosen in chosen]),
        (least, [_HEAD + down if down and "servers" in band else 0 for band in bands]),
        (least, [room // 3 * is_chosen for is_chosen in chosen]),
        (least, [_SHORT] * len(bands)),
        (whole, needs),
    )
    heights = [0] * (1 + len(bands))
    for lines, limits in stages:
        room = _share(room, heights, [lines, *map(min, limits, needs)])
    heights[1 + chosen.index(True)] += room
    body: list[Text] = []
    for band, height in zip(bands, heights[1:], strict=True):
        if len(band) == 1:
            body += _pane(band[0], rows[band[0]], state, snapshot, width, height)
            continue
        half = width // 2
        left = _pane(band[0], rows[band[0]], state, snapshot, half - 1, height)
        right = _pane(band[1], rows[band[1]], state, snapshot, width - half, height)
        for left_line, right_line in zip(left, right, strict=True):
            line = _fit(left_line, half - 1)
            line.append(" " * (half - cell_len(line.plain)))
            body.append(line + right_line)
    return heights[0], body


def _need(lines: Sequence[PaneLine], *, is_chosen: bool) -> int:
    # An empty pane needs its title only.
    return _HEAD + max(1, len(lines)) if lines or is_chosen else 1


def _share(room: int, heights: list[int], limits: Sequence[int]) -> int:
    """Hand out lines in turn, up to the limits, and return what is left."""
    while short := [at for at, most in enumerate(limits) if heights[at] < most][:room]:
        for at in short:
            heights[at] += 1
        room -= len(short)
    return room


def _pane(
    pane: Pane,
    lines: Sequence[PaneLine],
    state: TopState,
    snapshot: Snapshot,
    width: int,
    height: int,
) -> list[Text]:
    """Draw a pane of exactly this height."""
    if height <= 0:
        return []
    is_current = pane == state.pane
    # The others show what is first in them, such as servers that are down.
    current = position(pane, state, lines) if is_current else 0
    title = set_cell_size(_title(pane, state, snapshot, lines), width)
    drawn = [Text(title, "bold black on cyan" if is_current else "bold on grey30")]
    room = height - (_HEAD if height > _HEAD else 1)
    if room > 0:
        first = min(max(0, current - room // 2), max(0, len(lines) - room))
        shown = lines[first : first + room]
        titles = _titles(pane, state)
        columns, widths = fitted(
            TABLE_OF[pane].columns, [titles, *(line.cells for line in shown)], width, _GAP, cell_len
        )
        if height > _HEAD:
            head = _cells(TABLE_OF[pane].columns, columns, widths, titles)
            drawn.append(Text(head, "bold underline"))
        for number, line in enumerate(shown, first):
            style = f"{line.style} reverse" if is_current and number == current else line.style
            text = _cells(TABLE_OF[pane].columns, columns, widths, line.cells)
            drawn.append(Text(set_cell_size(text, width), style))
        if not lines:
            drawn.append(Text("nothing here" if snapshot.at else "waiting for the service", "dim"))
    return [*drawn, *[Text()] * (height - len(drawn))]


def _title(pane: Pane, state: TopState, snapshot: Snapshot, lines: Sequence[PaneLine]) -> str:
    count = len(lines)
    parts = [f"[{PANES.index(pane) + 1}] {TABLE_OF[pane].title}  {count}"]
    if pane == "servers" and _troubled(lines):
        parts.append(f"{_troubled(lines)} down or drained")
    if pane == "connections":
        active = snapshot.status.get("connections", {}).get("active", 0)
        if not snapshot.filters and active > count:
            parts.append(f"the first of {active}")
        words = [f"{name}={value}" for name, value in snapshot.filters.items()]
        parts += [f"only {' '.join(words)}"] if words else []
    if pane in state.sorts:
        column, is_descending = state.sorts[pane]
        order = "largest first" if is_descending else "smallest first"
        parts.append(f"by {TABLE_OF[pane].columns[column].title}, {order}")
    elif pane == "routes" and lines:
        parts.append("busiest first")
    return printable(", ".join(parts))


def _troubled(servers: Sequence[PaneLine]) -> int:
    return sum(needs_attention(line.row) for line in servers)


def _titles(pane: Pane, state: TopState) -> list[str]:
    by, is_descending = state.sorts.get(pane, (-1, False))
    return [
        column.title + ("↓" if is_descending else "↑") * (number == by)
        for number, column in enumerate(TABLE_OF[pane].columns)
    ]


def _cells(
    columns: Sequence[Column], shown: Sequence[int], widths: Sequence[int], cells: Sequence[str]
) -> str:
    drawn = []
    for number, width in zip(shown, widths, strict=True):
        cell = _cut(cells[number], width, keeps_end=columns[number].keeps_end)
        if columns[number].is_number:
            cell = cell.strip()
            cell = " " * (width - cell_len(cell)) + cell
        drawn.append(cell)
    return (" " * _GAP).join(drawn)


def _cut(cell: str, width: int, *, keeps_end: bool = False) -> str:
    """Make a cell exactly as wide, and show if something is missing."""
    if keeps_end:
        return set_cell_size(_end_of(cell, width), width)
    if not cell_len(cell) > width > 0:
        return set_cell_size(cell, width)
    return set_cell_size(cell, width - 1) + "…"


def _end_of(text: str, width: int) -> str:
    """Return a text, or its right end after an ellipsis if it is wider."""
    if cell_len(text) <= width:
        return text
    while text and cell_len(text) >= width:
        text = text[1:]
    return f"…{text}"


def _scrolled(lines: Sequence[Text], scrolled: int, room: int) -> list[Text]:
    first = min(scrolled, max(0, len(lines) - room))
    return [*lines[first : first + room]]


def _help(width: int) -> Iterator[Text]:
    yield Text()
    for keys, what in HELP:
        for number, part in enumerate(textwrap.wrap(what, max(20, width - _KEYS))):
            yield Text(f"  {'' if number else keys:<{_KEYS - 2}}", "bold") + Text(part, "not bold")
    yield Text()
    filters = "Filters are those of 'txmux connections': route=ssh, client=192.0.2.0/24, older=5m …"
    yield from (Text(f"  {part}") for part in textwrap.wrap(filters, max(20, width - 2)))


def _explanation(connection: Mapping[str, Any], width: int) -> Iterator[Text]:
    why = explained_connection(connection)
    yield Text()
    yield Text(printable(why.title), "bold")
    yield Text()
    rows: list[tuple[Sequence[str], str]] = [(EXPLANATION_COLUMNS, "bold")] if why.routes else []
    for route in why.routes:
        cells = [printable(cell) for cell in route.cells]
        rows.append((cells, route.style))
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

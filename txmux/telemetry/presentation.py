"""How the API's documents are shown: columns and tables, the words, units and colours of their rows. Pure.

`txmux.telemetry.documents` says what there is; a `Medium` says how numbers are written there: `COMMAND` for commands, `SCREEN` for `txmux top`, `PAGE` for
the page. A service of another version may report less or more; what is missing is left out.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any, Literal, NamedTuple

from txmux.telemetry import formatting
from txmux.telemetry.formatting import AND_DOWN, duration

_MOST_ADDRESSES = 8  # of one server
_PATH = 24  # columns of its end
_SPARE = 5  # see `Column.goes`

Row = Mapping[str, Any]
"""An object of a document."""

Health = Literal["up", "unchecked", "checking", "partly", "down", "drain", "idle"]
"""How well something is, which gives it its colour; these are classes of the page's stylesheet."""

STYLES: Mapping[Health | None, str] = {
    "up": "green", "unchecked": "", "checking": "", "partly": "yellow", "down": "bold red",
    "drain": "yellow", "idle": "dim", None: "",
}  # fmt: skip
"""The colour of each in a terminal, in the terms of `rich`."""

HEALTH_OF_LEVEL: Mapping[str, Health] = {"critical": "down", "warning": "partly", "note": "idle"}
"""By the level of what needs attention, the worst first."""

_LEVELS = {level: at for at, level in enumerate(HEALTH_OF_LEVEL)}

Kind = Literal[
    "text", "count", "number", "bytes", "rate", "byte rate", "ms", "ago", "for", "left", "time", "event",
]  # fmt: skip
"""What the value of a cell is.

``count``: how many; ``number``: written as it is; ``ms``: a length of time; ``ago``, ``for``, ``left``, ``time``: a moment in seconds since
1970, written as how long ago it was, how long it has been so, how long it is until then, or as a date; ``event``: a word, and the moment.
"""


class Medium(NamedTuple):
    """How one medium writes counts and lengths of time, in seconds, and what follows the latter if it is past."""

    number: Callable[[float], str]
    length: Callable[[float], str]
    ago: str = ""


def _length(seconds: float) -> str:
    return formatting.milliseconds(seconds * 1000)


def _compact(seconds: float) -> str:
    if 0 < seconds < 1:
        return f"{max(1, round(seconds * 1000))}ms"
    return formatting.compact_duration(seconds)


COMMAND = Medium(formatting.si_number, _length, " ago")
SCREEN = Medium(formatting.si_number, _compact)
PAGE = Medium(formatting.count, _length, " ago")


_FIRST, _LAST = -62_135_424_000, 253_402_128_000
"""The years 1 and 9999, when certificates may begin and end, less two days: zones may be behind, or ahead."""


def date(seconds: float) -> str:
    moment = datetime.fromtimestamp(max(_FIRST, min(seconds, _LAST))).astimezone()
    return f"{moment:%Y-%m-%d %H:%M:%S %Z}"


_WRITERS: Mapping[Kind, Callable[[Any, Medium, float], str]] = {
    "text": lambda value, *_: ", ".join(value) if isinstance(value, list) else str(value),
    "number": lambda value, *_: f"{value:g}",
    "count": lambda value, medium, _: medium.number(value),
    "bytes": lambda value, *_: formatting.byte_count(value),
    "rate": lambda value, *_: formatting.rate(value),
    "byte rate": lambda value, *_: formatting.byte_rate(value),
    "ms": lambda value, medium, _: medium.length(value / 1000),
    "ago": lambda value, medium, now: f"{medium.length(int(max(now - value, 0)))}{medium.ago}",
    "for": lambda value, medium, now: medium.length(int(max(now - value, 0))),
    "left": lambda value, medium, now: medium.length(int(value - now)),
    "time": lambda value, *_: date(value),
    "event": lambda value, medium, now: f"{value[0]}, {_WRITERS['ago'](value[1], medium, now)}",
}
_LEFT: frozenset[Kind] = frozenset({"text", "time", "event"})  # aligned so


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        title: By default the field.
        field: Of the row; a document's field has its own name. With `value`, a name for the column only.
        value: Returns the value by the row; ``None`` or an empty one is shown as ``-``.
        least: The width that it has even where there is little room.
        goes: 0 if it is always there. Others are left out where all of their cells are empty, and where there is too little room: those
            with the lowest number get it first, and from 5 on it must not be taken from others.
        keeps_end: Whether the left end is cut where it is too long, as of a path.
    """

    title: str = ""
    field: str = ""
    kind: Kind = "text"
    value: Callable[[Row], Any] | None = None
    least: int = 6
    goes: int = 0
    keeps_end: bool = False

    def named(self, field: str) -> "Column":
        return self._replace(title=self.title or field, field=field)

    def of(self, row: Row) -> Any:
        return row.get(self.field) if self.value is None else self.value(row)

    def order(self, row: Row) -> Any:
        """Return the sort key of a row; ``None`` comes last."""
        value = self.of(row)
        if self.kind == "event" and value:
            return value[1]
        return None if value == "" else value

    def cell(self, row: Row, medium: Medium, now: float) -> str:
        value = self.of(row)
        return "-" if value in (None, "", []) else _WRITERS[self.kind](value, medium, now)

    @property
    def is_number(self) -> bool:
        return self.kind not in _LEFT


class Table(NamedTuple):
    """A list of the API as a table.

    Attributes:
        names: The fields that name a row as long as it is there.
        health: Returns how well a row is; ``None`` if that is not said of it.
    """

    title: str
    columns: Sequence[Column]
    names: Sequence[str]
    health: Callable[[Row], Health | None] = lambda _: None

    def key(self, row: Row) -> str:
        return "/".join(str(row.get(name)) for name in self.names)

    def style(self, row: Row) -> str:
        return STYLES[self.health(row)]

    def cells(self, row: Row, medium: Medium, now: float | None = None) -> list[str]:
        now = time.time() if now is None else now
        return [column.cell(row, medium, now) for column in self.columns]

    def only(self, *titles: str) -> "Table":
        """Return the table with these columns, in this order."""
        by_title = {column.title: column for column in self.columns}
        return self._replace(columns=[by_title[title] for title in titles])

    def first(self, title: str) -> "Table":
        """Return the table with this column at the left, and always there."""
        (chosen,) = self.only(title).columns
        others = [column for column in self.columns if column != chosen]
        return self._replace(columns=[chosen._replace(goes=0), *others])


def ordered(rows: Iterable[Row], column: Column, *, is_descending: bool) -> list[Row]:
    """Sort rows; those without a value are last either way."""
    listed = [(column.order(row), row) for row in rows]
    known = sorted(
        (pair for pair in listed if pair[0] is not None),
        key=lambda pair: pair[0],
        reverse=is_descending,
    )
    return [row for _, row in [*known, *(pair for pair in listed if pair[0] is None)]]


def fitted(
    columns: Sequence[Column],
    lines: Sequence[Sequence[str]],
    width: float,
    gap: int = 2,
    measure: Callable[[str], int] = len,
) -> tuple[list[int], list[int]]:
    """Choose the columns to show, and share a width among them: first some are left out, then the widest are cut.

    Returns:
        The numbers of the columns that are shown, and their widths.

    Args:
        columns: All columns.
        lines: The cells of each line; the first are the titles.
        width: The columns of the terminal.
        gap: Those between two columns of the table.
        measure: Returns the width of a cell.
    """
    full = [max(map(measure, cells)) for cells in zip(*lines, strict=True)]
    needed = [
        _needed(column, [line[at] for line in lines], full[at], measure)
        for at, column in enumerate(columns)
    ]
    shown: list[int] = []
    room = whole = width + gap
    for at in sorted(range(len(columns)), key=lambda at: columns[at].goes):
        goes = columns[at].goes
        is_empty = all(line[at] in {"", "-"} for line in lines[1:])
        has_room = needed[at] + gap <= (room if goes < _SPARE else min(room, whole))
        if not goes or (has_room and not is_empty):
            shown.append(at)
            room -= needed[at] + gap
            whole -= full[at] + gap
    shown.sort()
    widths = {at: full[at] for at in shown}
    over = sum(widths.values()) + gap * (len(shown) - 1) - width

    def excess(at: int) -> tuple[bool, bool, bool, bool, int]:
        column, width = columns[at], widths[at]
        may_be_cut = bool(column.goes or column.keeps_end)
        return width > 1, width > needed[at], width > column.least, may_be_cut, width

    while over > 0 and max(widths.values(), default=0) > 1:
        widths[max(shown, key=excess)] -= 1
        over -= 1
    return shown, [*widths.values()]


def _needed(column: Column, cells: Sequence[str], full: int, measure: Callable[[str], int]) -> int:
    """Return the width below which a column is cut only if there is nothing else to leave out or to cut."""
    if column.goes and not column.is_number:
        return min(full, column.least)
    if column.keeps_end:  # addresses are whole; of a path, the end is enough
        return max(min(measure(cell), _PATH) if "/" in cell else measure(cell) for cell in cells)
    return full


# States and their health.

_SERVER_HEALTH: Mapping[str, Health] = {
    "failing": "down", "down": "down", "silent": "down", "unresolved": "down", "ejected": "down",
    "probing": "partly", f"drained{AND_DOWN}": "drain", "maintenance": "drain", "drained": "drain",
    "disabled": "idle", "not checked": "unchecked", "checking": "checking", "up": "up",
}  # fmt: skip
"""The health of a server by its state, in words; the worst first."""

_WELL = 10  # the first of the states above in which a server gets clients and nothing is wrong
_RANKS = {state: min(at, _WELL) for at, state in enumerate(_SERVER_HEALTH)}


def server_state(server: Row) -> str:
    """Write the state of a server; one without a check, or before its first, is not known to be up."""
    state = str(server.get("state", "?"))
    if state == "up" and not server.get("check"):
        return "checking" if server.get("checked") else "not checked"
    if state == "drain":
        return f"drained{AND_DOWN}" if AND_DOWN in str(server.get("why")) else "drained"
    return state


def server_health(server: Row) -> Health:
    return _SERVER_HEALTH.get(server_state(server), "down")


def server_rows(backends: Iterable[Row]) -> list[Row]:
    """Return the servers of backends as rows of one table: the worst first; of these, first the backends without a server."""
    ranked = []
    for backend in backends:
        ranks = [_RANKS.get(server_state(server), 0) for server in backend["servers"]]
        serves = _WELL in ranks
        for rank, server in zip(ranks, backend["servers"], strict=True):
            row = {**server, "backend": backend["name"], "hold": backend.get("hold")}
            ranked.append((rank, serves, row))
    ranked.sort(key=lambda one: one[:2])
    return [row for _, _, row in ranked]


def needs_attention(server: Row) -> bool:
    return server_health(server) in {"down", "partly", "drain"}


def slow_start(server: Row) -> str:
    """Describe the weight of a server that starts slowly; empty if none does."""
    weight = server.get("weight", 1)
    now = server.get("effective_weight", weight)
    return f"starting slowly: weight {now:g} of {weight}" if now < weight else ""


def worker_state(worker: Row) -> str:
    """By a worker's part of ``/api/status``."""
    if not worker.get("ready", True):
        return "starts"
    if "active" not in worker:
        return "does not answer"
    return "retires" if worker.get("retiring") else "serves"


CERTIFICATE_HEALTH: Mapping[Any, Health] = {
    "ended": "down", "not valid yet": "down", "ends soon": "partly", "valid": "up",
}  # fmt: skip


def certificate_rank(certificate: Row) -> int:
    """Return the sort key of a certificate by its state, the worst first."""
    states = [*CERTIFICATE_HEALTH]
    state = certificate.get("state")
    return states.index(state) if state in states else len(states)


WORKER_HEALTH: Mapping[str, Health] = {
    "starts": "partly", "does not answer": "down", "retires": "idle",
}  # fmt: skip


def listener_state(listener: Row) -> str:
    accepts, why = listener.get("accepting"), listener.get("why")
    states: Mapping[object, str] = {
        True: "accepts",
        False: f"does not accept: {why}" if why else "does not accept",
    }
    return states.get(accepts, "")


def listener_health(listener: Row) -> Health | None:
    if listener.get("accepting") is not False:
        return None
    why = str(listener.get("why") or "paused")
    return "drain" if why.startswith("paused") else "down"


def found_addresses(server: Row) -> str:
    """Name the addresses of a server's name or service, those first that are not up; nothing if it is an address itself."""
    listed = sorted(server.get("addresses", ()), key=lambda address: address["state"] == "up")
    if all(address["address"] == server.get("server") for address in listed):
        return ""
    named = [
        address["address"] + (f" ({address['state']})" if address["state"] != "up" else "")
        for address in listed[:_MOST_ADDRESSES]
    ]
    more = len(listed) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def busy_routes(routes: Iterable[Row]) -> list[Row]:
    return sorted(routes, key=lambda row: (-(row.get("active") or 0), -(row.get("matches") or 0)))


def unrouted(status: Row, routes: Iterable[Row]) -> Iterator[Row]:
    """Yield a row of the table of routes for the clients that no route took, if there are any."""
    connections = status.get("connections", {})
    ended = connections.get("unrouted")
    if ended is None:
        return
    routed = sum(route.get("active", 0) for route in routes)
    active = max(0, connections["active"] - connections["undecided"] - routed)
    if ended["ended"] or active:
        matches = ended["ended"] + active
        yield {**ended, "name": "-", "backend": "no route", "matches": matches, "active": active}


# The status.

_MOST_ALIKE = 5
"""Items of one topic and one owner that are shown: what another one does must not hide all else."""


def attention_items(status: Row) -> list[Row]:
    """Return what needs attention, the worst first; items of older versions have a text, and perhaps a topic."""
    bare: Row = {
        "level": "warning", "what": "service", "cause": "", "since": None, "do": "", "link": "", "owner": "",
    }  # fmt: skip
    items = [
        {**bare, **(item if isinstance(item, Mapping) else {"text": item})}
        for item in status.get("attention", ())
    ]
    return sorted(items, key=lambda item: _LEVELS.get(item["level"], 0))


def folded_attention(status: Row) -> list[Row]:
    """Return the same, but of each topic only the first few items of another owner, and how many more there are."""
    items, alike = attention_items(status), itemgetter("level", "what", "owner")
    count, seen, shown = Counter(map(alike, items)), Counter[Any](), list[Row]()
    for item in items:
        seen[alike(item)] += 1
        if not item["owner"] or seen[alike(item)] <= _MOST_ALIKE:
            shown.append(item)
        elif seen[alike(item)] == _MOST_ALIKE + 1:
            text = f"{item['owner']}: {count[alike(item)] - _MOST_ALIKE} more of these"
            do = "txmux status --json names all; txmux check says what is wrong in the files"
            shown.append({**item, "text": text, "cause": "", "do": do})
    return shown


def attention_text(item: Row) -> str:
    return f"{item['text']} ({item['cause']})" if item.get("cause") else str(item["text"])


def attention_line(item: Row, now: float) -> str:
    """Write what is wrong, the cause, and for how long it has been.

    >>> item = {"text": "access log: 3 lines lost", "cause": "no space", "since": 60.0}
    >>> attention_line(item, 150.0)
    'access log: 3 lines lost (no space), for 1 min 30 s'
    """
    since = item.get("since")
    age = "" if since is None else f", for {duration(int(max(now - since, 0)))}"
    return attention_text(item) + age


_VERDICTS = {"critical": (2, "CRITICAL"), "warning": (1, "WARNING")}


def attention_verdict(status: Row) -> tuple[int, list[str]]:
    """Return the exit code that monitoring expects, and the lines: the worst item with the performance data, then the other items.

    >>> attention_verdict({"attention": [], "connections": {"active": 2, "limit": 9}})
    (0, ['OK: nothing needs attention | active=2;;;0;9 critical=0;;;0 warning=0;;;0 note=0;;;0'])
    """
    items, shown = attention_items(status), folded_attention(status)
    code = _VERDICTS.get(items[0]["level"], (0, ""))[0] if items else 0
    lines = [
        # What follows the first bar is performance data.
        f"{_VERDICTS.get(item['level'], (0, 'NOTE'))[1]}: {attention_text(item).replace('|', '/')}"
        for item in shown
    ] or ["OK: nothing needs attention"]
    more = f"; {len(items) - 1} more" if len(items) > 1 else ""
    lines[0] += f"{more} | {' '.join(_performance(status, items))}"
    return code, lines


def _performance(status: Row, items: Sequence[Row]) -> Iterator[str]:
    """Yield values in the format of the plugins of Nagios; ``c`` stands for a counter."""
    counts = status.get("connections", {})
    for name, unit, most in (
        ("active", "", counts.get("limit") or ""),
        ("undecided", "", ""),
        ("total", "c", ""),
    ):
        if name in counts:
            yield f"{name}={counts[name]}{unit};;;0;{most}".rstrip(";")
    for level in ("critical", "warning", "note"):
        yield f"{level}={sum(item['level'] == level for item in items)};;;0"


def connection_counts(status: Row) -> str:
    counts = status.get("connections", {})
    words = {"active": "{} active", "undecided": "{} undecided", "total": "{} so far"}
    parts = [text.format(counts[name]) for name, text in words.items() if name in counts]
    if counts.get("limit"):
        parts.append(f"at most {counts['limit']}")
    return ", ".join(parts)


def rates(status: Row) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {formatting.byte_rate(value) if name.startswith('bytes') else formatting.rate(value)}"
        for name, value in (status.get("rates") or {}).items()
    )

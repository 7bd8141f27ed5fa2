"""Handles keys: returns the next state, and maybe a request to the service. Pure."""

from collections.abc import Callable, Sequence
from functools import partial
from urllib.parse import quote

import attrs

from txmux.cli.remote.changes import ban_body, path_of, read_weight
from txmux.cli.remote.command import read_filters
from txmux.cli.remote.errors import UsageError
from txmux.errors import printable
from txmux.features.top.state import (
    PANES,
    TABLE_OF,
    ChangeRequest,
    ExplainRequest,
    Pane,
    PaneLine,
    RequestResult,
    Snapshot,
    TopRequest,
    TopState,
    ValueRequest,
    lines_of,
    position,
)

HELP = (
    ("Tab, 1 to 4", "go to another pane"),
    ("Up, Down, k, j", "choose another row; Page Up, Page Down, Home, End"),
    ("s, S", "sort by the next column, or the one before; after the last one as at first"),
    ("r", "sort the other way round"),
    ("/", "list only some connections: NAME=VALUE, with blanks between several; nothing lists all"),
    ("e, Enter", "explain the decision on the chosen connection"),
    ("x", "end the chosen connection, after a question"),
    ("b", "ban its address: type for how long, and why"),
    ("d", "drain the chosen server, after a question: no new connections"),
    ("m", "the same, and it is not checked either: maintenance"),
    ("u", "send connections to the chosen server again"),
    ("W", "set its weight: a number; 0 or nothing is that of the rules"),
    ("w", "let clients of its backend wait, after a question; or go on"),
    ("p, Space", "pause, and continue"),
    ("h, ?", "this help"),
    ("q, Control-C", "quit"),
)
"""The keys, and what they do."""

_CHOOSE = {
    "connections": "choose a connection first: 1, then Up and Down",
    "servers": "choose a server first: 3, then Up and Down",
}
_PAGE = 10  # rows
_LONGEST_FILTER = 400


def pressed(state: TopState, snapshot: Snapshot, key: str) -> tuple[TopState, TopRequest | None]:
    """Handle a key as `read_keys` names it: return the next state, and the request to the service, if any."""
    if state.mode in {"filter", "value"}:
        return _typed(state, key)
    if state.mode == "question":
        sent = state.pending_confirmation if key in {"y", "Y"} else None
        result = RequestResult("" if sent else "nothing was changed")
        return attrs.evolve(state, mode="browse", pending_confirmation=None, result=result), sent
    if state.mode in {"help", "explanation"}:
        return _reading(state, key), None
    if key in _ACTIONS:
        panes, act = _ACTIONS[key]
        lines = lines_of(state.pane, state, snapshot)
        if state.pane not in panes or not lines:
            result = RequestResult(_CHOOSE[panes[0]], is_bad=True)
            return attrs.evolve(state, result=result), None
        return act(state, snapshot, lines[position(state.pane, state, lines)])
    return _browsed(attrs.evolve(state, result=RequestResult()), snapshot, key), None


def _typed(state: TopState, key: str) -> tuple[TopState, TopRequest | None]:
    if key == "enter":
        return _entered(state)
    typed = state.typed
    if key == "escape":
        return attrs.evolve(state, mode="browse", typed="", pending_value=None), None
    if key == "clear":
        typed = ""
    elif key == "backspace":
        typed = typed[:-1]
    elif len(key) == 1 and len(typed) < _LONGEST_FILTER:
        typed += key
    return attrs.evolve(state, typed=typed), None


def _entered(state: TopState) -> tuple[TopState, TopRequest | None]:
    """Use what was typed, or say what is wrong with it."""
    request: ChangeRequest | None = None
    filters = state.filters
    try:
        if state.pending_value is None:
            filters = read_filters(state.typed.split())
        else:
            request = state.pending_value.request(state.typed.strip())
    except UsageError as problem:
        result = RequestResult(printable(str(problem)), is_bad=True)
        return attrs.evolve(state, result=result), None
    result = RequestResult() if request is None else RequestResult(f"{request.what} …")
    entered = attrs.evolve(
        state, mode="browse", typed="", pending_value=None, filters=filters, result=result
    )
    return entered, request


def _reading(state: TopState, key: str) -> TopState:
    steps = {"up": -1, "k": -1, "down": 1, "j": 1, "page-up": -_PAGE, "page-down": _PAGE}
    if key in steps:
        return attrs.evolve(state, scrolled=max(0, state.scrolled + steps[key]))
    return attrs.evolve(state, mode="browse", result=RequestResult(), scrolled=0)


def _browsed(  # noqa: PLR0911 - one for each key
    state: TopState, snapshot: Snapshot, key: str
) -> TopState:
    """Handle a key that only changes the view."""
    number = PANES.index(state.pane)
    if key in {"tab", "right", "backtab", "left"}:
        step = 1 if key in {"tab", "right"} else -1
        return attrs.evolve(state, pane=PANES[(number + step) % len(PANES)])
    if key in {"1", "2", "3", "4"}:
        return attrs.evolve(state, pane=PANES[int(key) - 1])
    if key in _MOVES:
        return _moved(state, snapshot, _MOVES[key])
    if key in {"s", "S"}:
        return _sorted(state, 1 if key == "s" else -1)
    if key == "r" and state.pane in state.sorts:
        column, is_descending = state.sorts[state.pane]
        return _sorted_by(state, column, is_descending=not is_descending)
    if key == "/":
        typed = " ".join(f"{name}={value}" for name, value in state.filters.items())
        return attrs.evolve(state, mode="filter", typed=typed, pane="connections")
    if key in {"p", " "}:
        return attrs.evolve(state, is_paused=not state.is_paused)
    if key in {"h", "?"}:
        return attrs.evolve(state, mode="help", scrolled=0)
    if key == "q":
        return attrs.evolve(state, should_exit=True)
    return state


_FAR = 1_000_000
_MOVES = {
    "up": -1, "k": -1, "down": 1, "j": 1, "page-up": -_PAGE, "page-down": _PAGE, "home": -_FAR,
    "end": _FAR,
}  # fmt: skip


def _moved(state: TopState, snapshot: Snapshot, step: int) -> TopState:
    lines = lines_of(state.pane, state, snapshot)
    if not lines:
        return state
    index = min(max(0, position(state.pane, state, lines) + step), len(lines) - 1)
    return attrs.evolve(state, chosen={**state.chosen, state.pane: (lines[index].key, index)})


def _sorted(state: TopState, step: int) -> TopState:
    """Sort by the next column; behind the last one the rows are as the service lists them."""
    columns = TABLE_OF[state.pane].columns
    unsorted = len(columns)
    column = (state.sorts.get(state.pane, (unsorted, False))[0] + step) % (unsorted + 1)
    if column == unsorted:
        remaining = {pane: sort for pane, sort in state.sorts.items() if pane != state.pane}
        return attrs.evolve(state, sorts=remaining)
    return _sorted_by(state, column, is_descending=columns[column].is_number)


def _sorted_by(state: TopState, column: int, *, is_descending: bool) -> TopState:
    return attrs.evolve(state, sorts={**state.sorts, state.pane: (column, is_descending)})


def _explain(state: TopState, _: Snapshot, line: PaneLine) -> tuple[TopState, TopRequest]:
    result = RequestResult(f"asking for {printable(line.key)} …")
    return _held(state, line, result), ExplainRequest(line.key)


def _end(state: TopState, _: Snapshot, line: PaneLine) -> tuple[TopState, TopRequest | None]:
    what = printable(f"end connection {line.key} from {line.row.get('client')}")
    path = f"/api/connections/{quote(line.key, safe='')}/close"
    return _request(state, line, ChangeRequest(path, {}, what))


def _ban(state: TopState, _: Snapshot, line: PaneLine) -> tuple[TopState, TopRequest | None]:
    host, colon, _port = str(line.row.get("client")).rpartition(":")
    if not colon:
        return _held(state, line, RequestResult("it has no address", is_bad=True)), None
    address = host.strip("[]")

    def request(text: str) -> ChangeRequest:
        body = ban_body(address, text.split())
        return ChangeRequest("/api/bans", body, printable(f"ban {address}"))

    return _ask_value(state, line, f"ban {address} for, as '1h scans'; nothing: for good", request)


def _weight(state: TopState, _: Snapshot, line: PaneLine) -> tuple[TopState, TopRequest | None]:
    backend, server = str(line.row["backend"]), str(line.row["server"])

    def request(text: str) -> ChangeRequest:
        weight = read_weight(text or "default")
        what = printable(f"weight {weight or 'of the rules'}: backend {backend}, {server}")
        return ChangeRequest(path_of(backend, server), {"weight": weight}, what)

    return _ask_value(state, line, f"weight of {server}, now {line.row.get('weight')}", request)


def _ask_value(
    state: TopState, line: PaneLine, prompt: str, request: Callable[[str], ChangeRequest]
) -> tuple[TopState, None]:
    held = _held(state, line, RequestResult())
    value = ValueRequest(printable(prompt), request)
    return attrs.evolve(held, mode="value", typed="", pending_value=value), None


def _set_server(
    server_state: str, state: TopState, snapshot: Snapshot, line: PaneLine
) -> tuple[TopState, TopRequest | None]:
    backend, server = str(line.row["backend"]), str(line.row["server"])
    what = f"{server_state}: backend {backend}, {server}"
    if server_state != "ready" and _is_last(line, lines_of("servers", state, snapshot)):
        what += ", its last server that gets new connections"
    request = ChangeRequest(path_of(backend, server), {"state": server_state}, printable(what))
    return _request(state, line, request, is_sure=server_state == "ready")


def _hold(
    state: TopState, snapshot: Snapshot, line: PaneLine
) -> tuple[TopState, TopRequest | None]:
    """Let the clients of the chosen server's backend wait, or release them."""
    backend = str(line.row["backend"])
    is_held = any(row.get("hold") for row in snapshot.backends if row["name"] == backend)
    how = "release" if is_held else "hold"
    path = f"/api/backends/{quote(backend, safe='')}/{how}"
    request = ChangeRequest(path, {}, printable(f"{how} clients of backend {backend}"))
    return _request(state, line, request, is_sure=is_held)


def _is_last(line: PaneLine, servers: Sequence[PaneLine]) -> bool:
    up = [
        other.key
        for other in servers
        if other.row["backend"] == line.row["backend"] and other.row["state"] == "up"
    ]
    return up == [line.key]


def _request(
    state: TopState, line: PaneLine, request: ChangeRequest, *, is_sure: bool = False
) -> tuple[TopState, TopRequest | None]:
    """Send a request, after a question unless it is sure."""
    if is_sure:
        return _held(state, line, RequestResult(f"{request.what} …")), request
    held = _held(state, line, RequestResult())
    return attrs.evolve(held, mode="question", pending_confirmation=request), None


def _held(state: TopState, line: PaneLine, result: RequestResult) -> TopState:
    """Keep the row chosen, wherever it moves to."""
    index = state.chosen.get(state.pane, ("", 0))[1]
    return attrs.evolve(
        state, result=result, chosen={**state.chosen, state.pane: (line.key, index)}
    )


_Action = Callable[[TopState, Snapshot, PaneLine], tuple[TopState, TopRequest | None]]

_ACTIONS: dict[str, tuple[tuple[Pane, ...], _Action]] = {
    "e": (("connections",), _explain),
    "enter": (("connections",), _explain),
    "x": (("connections",), _end),
    "b": (("connections", "ends"), _ban),
    "d": (("servers",), partial(_set_server, "drain")),
    "m": (("servers",), partial(_set_server, "maintenance")),
    "u": (("servers",), partial(_set_server, "ready")),
    "W": (("servers",), _weight),
    "w": (("servers",), _hold),
}
"""By key: the panes whose chosen row it is about, and what it does."""

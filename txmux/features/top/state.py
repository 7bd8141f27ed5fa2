"""The data of `txmux top`: the answers of the service, and the state of the screen."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import attrs

from txmux.classes import frozen
from txmux.telemetry.documents import CONNECTIONS, ENDS, ROUTES, SERVERS
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

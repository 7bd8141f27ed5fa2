"""What is shown, and what somebody wants to see of it. Values alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["PANES", "Ask", "Explain", "Mode", "Pane", "Sent", "Snapshot", "TopState", "WishResult"]

Pane = Literal["connections", "routes", "servers", "ends"]
PANES: tuple[Pane, ...] = ("connections", "routes", "servers", "ends")

Mode = Literal["browse", "filter", "question", "help", "explanation"]


@attrs.frozen
class Snapshot:
    """What the service has answered last.

    Attributes:
        at: When, in seconds since 1970; 0 before the first answer.
        status: The answer to ``/api/status``; of the others likewise.
        problem: Why it does not answer now; empty if it does.
        warnings: What is missing in the answers.
        history: The rates, the newest last.
        filters: Those that the connections were asked for with.
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
        """Return the answers, as one document."""
        names = ("status", "routes", "backends", "connections", "recent")
        return {name: getattr(self, name) for name in names}


@attrs.frozen
class Ask:
    """A change that the service is asked for.

    Attributes:
        path: Of the API.
        body: Goes along.
        what: What it does, for people.
    """

    path: str
    body: Mapping[str, Any]
    what: str


@attrs.frozen
class Explain:
    """A wish to know how a connection was decided."""

    identity: str


@attrs.frozen
class WishResult:
    """What came of a wish: a line; or a connection with its explanation."""

    message: str = ""
    is_bad: bool = False
    connection: Mapping[str, Any] | None = None


Sent = Ask | Explain


@attrs.frozen
class TopState:
    """What somebody wants to see.

    Attributes:
        pane: The one that keys are for.
        chosen: In each pane the key of the chosen row, and where that was.
        sorts: In each pane the column, and whether its largest values come first.
        filters: Which connections are listed.
        mode: What keys mean.
        typed: The filter that is being written.
        question: What is done if the answer is yes.
        told: What came of the last wish.
        is_paused: Whether the screen stays as it is.
        is_over: Whether the program ends.
        scrolled: Lines that are hidden above, of an explanation or of the help.
    """

    pane: Pane = "connections"
    chosen: Mapping[str, tuple[str, int]] = attrs.Factory(dict)
    sorts: Mapping[str, tuple[int, bool]] = attrs.Factory(dict)
    filters: Mapping[str, str] = attrs.Factory(dict)
    mode: Mode = "browse"
    typed: str = ""
    question: Ask | None = None
    told: WishResult = WishResult()
    is_paused: bool = False
    is_over: bool = False
    scrolled: int = 0

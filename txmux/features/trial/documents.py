"""What `/api/reload/try` answers."""

from typing import TypedDict


class MovedDocument(TypedDict):
    """Clients that would go elsewhere, by listener and destinations, with one of them as an example."""

    listener: str
    now: str
    then: str
    count: int
    client: str
    name: str | None
    time: float


class UnknownDocument(TypedDict):
    """Clients of which it is not known, and by what it is decided."""

    listener: str
    why: str
    count: int


class TrialDocument(TypedDict):
    """Where the remembered clients would go by other rules; `since` is when the first of them came, `incomplete` has a line for each worker that does not answer."""

    ok: bool
    clients: int
    since: float | None
    moved: int
    unknown: int
    moves: list[MovedDocument]
    unknowns: list[UnknownDocument]
    incomplete: list[str]
    changes: str

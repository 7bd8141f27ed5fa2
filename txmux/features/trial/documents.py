"""What `/api/reload/try` answers."""

from typing import Literal, TypedDict

from txmux.telemetry.documents import UntakenDocument


class MovedDocument(TypedDict):
    """Clients that would go elsewhere, by listener and destinations, with one of them as an example.

    Rules may shut them out on purpose, which `excluded_by` names.
    """

    listener: str
    now: str
    then: str
    excluded_by: Literal["deny", "not_from"] | None
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
    """Where the remembered clients would go by other rules.

    `since` is when the first of them came; `excluded` counts those that are shut out on purpose, who are not among those `moved`; `share` is the
    percentage that ``watch_rules_limit`` limits, in which each source has the same weight, and those that are excluded count as moved unless they are few; `incomplete` has a line for each worker that does not
    answer; `untaken` is as in the status: units that a reload would not take.
    """

    ok: bool
    clients: int
    since: float | None
    moved: int
    unknown: int
    excluded: int
    share: float
    moves: list[MovedDocument]
    unknowns: list[UnknownDocument]
    incomplete: list[str]
    untaken: list[UntakenDocument]
    changes: str

"""What the API, the metrics and the tables have of the clients that are remembered."""

from collections.abc import Iterator
from functools import partial
from operator import add
from typing import Any, Literal

from typing_extensions import TypedDict

from txmux.control.gauge import Gauge, list_of, merged
from txmux.net.channel.message import WORD, Field
from txmux.telemetry.counting.counter_rows import Metric, Samples
from txmux.telemetry.documents import AddedField, DocumentField, ListenerDocument, UntakenDocument
from txmux.telemetry.presentation import Column


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


class RememberedDocument(TypedDict):
    """What is remembered of the clients of a listener, in all workers."""

    clients: int
    bytes: int


def _remembered(serving: Any) -> Iterator[tuple[str, int, int]]:
    memory = serving.runtime.parts.get("trial")
    return iter(()) if memory is None else memory.remembered()


def _samples(of: int, by_listener: Any, _: object) -> Samples:
    return [((listener,), numbers[of]) for listener, numbers in by_listener.items()]


def _document(gauges: Any, listener: Any) -> dict[str, int] | None:
    numbers = gauges.of_features["remembered"].get(listener.listener)
    return numbers and dict(zip(RememberedDocument.__annotations__, numbers, strict=True))


# fmt: off
ROWS = (
    Gauge(
        "By listener, how many clients are remembered, and the bytes of theirs.",
        {}, name="remembered", combine=merged(lambda one, other: tuple(map(add, one, other))), bounds=list_of(WORD, Field(int), Field(int)), collect=_remembered,
        metrics=[
            Metric("remembered_clients", "Clients that are remembered, to try other rules on them.", "listener", partial(_samples, 0),
                   "Of listeners that [`remember`](rules.md#trying-rules) some."),
            Metric("remembered_bytes", "First bytes of these clients that are kept in memory.", "listener", partial(_samples, 1)),
        ]),
    AddedField(ListenerDocument, DocumentField(
        "remembered", RememberedDocument, "with [`remember`](rules.md#trying-rules): how many `clients` all workers remember, and first `bytes` of theirs",
        Column("remembered", "remembered", "count", value=lambda row: (row.get("remembered") or {}).get("clients"), goes=1), is_optional=True), _document),
)
# fmt: on

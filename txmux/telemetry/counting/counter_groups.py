"""The cells in which a listener, route, backend, server or process is counted.

Cells only grow. What exists now, such as live connections, is the difference of cells, so none is ever decremented, and the numbers
stay right when a process is killed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, get_args

import attrs

from txmux.telemetry.reasons import CountedReason, LimitName, ServerFailure

if TYPE_CHECKING:
    Cells = Sequence[int] | memoryview[int]

CELL = 8  # bytes of a cell

_MILLISECONDS = (1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000)
_LONG = (0.1, 0.5, 1, 5, 10, 30, 60, 300, 600, 1800, 3600, 14_400, 43_200, 86_400)


@attrs.frozen
class Buckets:
    """A histogram: a cell with the sum of the observed values, then one for each bucket with their number.

    Attributes:
        bounds: The highest value of each bucket but the last, in the unit that is observed.
        base: Observed units in one reported unit: 1000 for milliseconds reported as seconds.
        parts: Parts of an observed unit in which the sum is counted.
    """

    name: str
    bounds: tuple[float, ...]
    base: int = 1
    parts: int = 1

    def cells(self) -> list[str]:
        return [
            f"{self.name} sum",
            *(f"{self.name} {bound:g}" for bound in self.bounds),
            f"{self.name} rest",
        ]


DETECT = Buckets("detect", _MILLISECONDS, base=1000, parts=1000)
"""Milliseconds from accept to the decision."""
CONNECT = attrs.evolve(DETECT, name="connect")
"""Milliseconds from the decision until a server had accepted."""
FIRST_BYTE = attrs.evolve(DETECT, name="first byte")
"""Milliseconds from the first byte to a server until its first byte."""
DURATION = Buckets("duration", tuple(1000 * seconds for seconds in _LONG), base=1000, parts=1000)
"""Milliseconds from accept to the end."""
DETECT_BYTES = Buckets("bytes", tuple(2**power for power in range(16)))
"""Bytes that the client had sent at the decision."""


@attrs.frozen
class CounterGroup:
    """The cells of a listener, of a route, and so on."""

    kind: str
    names: tuple[str, ...]
    at: Mapping[str, int] = attrs.field(init=False, repr=False)

    @at.default
    def _positions(self) -> Mapping[str, int]:
        return {name: position for position, name in enumerate(self.names)}

    def key(self, *names: str) -> str:
        return "\n".join((self.kind, *names))

    def those(self, prefix: str) -> Mapping[str, int]:
        """Return the positions of the cells whose names begin with a word, by the rest of the name."""
        return {
            name.removeprefix(f"{prefix} "): at
            for name, at in self.at.items()
            if name.startswith(f"{prefix} ")
        }

    def histogram(self, buckets: Buckets) -> int:
        return self.at[f"{buckets.name} sum"]


def _block(kind: str, *names: str | Sequence[str] | Buckets) -> CounterGroup:
    cells: list[str] = []
    for name in names:
        if isinstance(name, str):
            cells.append(name)
        else:
            cells += name.cells() if isinstance(name, Buckets) else name
    return CounterGroup(kind, tuple(cells))


def _each(prefix: str, names: Iterable[str]) -> list[str]:
    return [f"{prefix} {name}" for name in names]


LISTENER = _block(
    "listener",
    "accepted",
    "adopted",
    "gone",  # left without an end: moved to another process, or lost with its own
    "undecided gone",  # ended before a decision
    "bytes in",
    "bytes out",
    "datagrams in",
    "datagrams out",
    "datagrams lost",
    "datagrams cut",
    _each("refused", get_args(LimitName)),
    _each("ech", ("opened", "unopened")),
    DETECT,
    DETECT_BYTES,
    DURATION,
)
ROUTE = _block(
    "route",
    "matches",
    "dry run matches",
    "last match",  # when, in milliseconds since 1970
    "adopted",
    "left",  # left for another route, or another process
    "bytes in",
    "bytes out",
    _each("ended", get_args(CountedReason)),
)
BACKEND = _block("backend", "held", "released", CONNECT, FIRST_BYTE)
SERVER = _block(
    "server",
    "connected",
    "adopted",
    "released",
    "check time",  # of the last one, in microseconds
    "checks failed",
    "checks recovered",  # how often one succeeded after others that had not taken the server down
    "asked",  # connections on which it could have answered, or has spoken first
    "answered",  # connections with a byte from it
    "unanswered",  # those of "asked" that ended without one, other than by its reset
    "answer time",  # until its first bytes, of all together, in microseconds
    "last failure",  # see `last_failure_of`
    "bytes in",  # from clients
    "bytes out",
    "local faults",  # of the failed: causes on this machine
    _each("waiting", "012"),  # the last sources of clients that it owed a byte: see `sources_in`
    _each(
        "reset", "012"
    ),  # the same of those that it has reset before its first byte, or whose TLS failed
    _each("failed", get_args(ServerFailure)),
)
PROCESS = _block("process", "spliced", "restarts", "lost lines", "turns")

BLOCKS: Mapping[str, CounterGroup] = {
    block.kind: block for block in (LISTENER, ROUTE, BACKEND, SERVER, PROCESS)
}

FORMAT = hashlib.blake2b(
    repr([(block.kind, block.names) for block in BLOCKS.values()]).encode(), digest_size=8
).hexdigest()
"""The same in all versions with the same cells in the same order."""

_ACCEPTED, _ADOPTED, _GONE, _UNDECIDED_GONE = (
    LISTENER.at[name] for name in ("accepted", "adopted", "gone", "undecided gone")
)
_DECIDED = slice(LISTENER.histogram(DETECT) + 1, LISTENER.histogram(DETECT) + len(DETECT.cells()))
_OVER = slice(
    LISTENER.histogram(DURATION) + 1, LISTENER.histogram(DURATION) + len(DURATION.cells())
)

_MATCHES, _ROUTE_ADOPTED, _LEFT = (ROUTE.at[name] for name in ("matches", "adopted", "left"))
_ENDED = slice(min(ROUTE.those("ended").values()), len(ROUTE.names))

_CONNECTED, _SERVER_ADOPTED, _RELEASED = (
    SERVER.at[name] for name in ("connected", "adopted", "released")
)

_HELD, _NO_LONGER_HELD = BACKEND.at["held"], BACKEND.at["released"]


def decided(listener: Cells) -> int:
    return sum(listener[_DECIDED])


def ended(listener: Cells) -> int:
    return sum(listener[_OVER])


def live(listener: Cells) -> int:
    # Ended connections are read first: other processes count meanwhile, and the result must not be negative.
    gone = ended(listener) + listener[_GONE]
    return max(0, listener[_ACCEPTED] + listener[_ADOPTED] - gone)


def undecided(listener: Cells) -> int:
    finished = decided(listener) + listener[_UNDECIDED_GONE]
    return max(0, listener[_ACCEPTED] - finished)


def live_on_route(route: Cells) -> int:
    """Return a route's live connections; one that went on to an inner route is that one's."""
    gone = sum(route[_ENDED]) + route[_LEFT]
    return max(0, route[_MATCHES] + route[_ROUTE_ADOPTED] - gone)


def held(backend: Cells) -> int:
    """Return how many clients of a backend wait for a server."""
    released = backend[_NO_LONGER_HELD]
    return max(0, backend[_HELD] - released)


def live_on_server(server: Cells) -> int:
    return max(0, server[_CONNECTED] + server[_SERVER_ADOPTED] - server[_RELEASED])


_CAUSES: tuple[ServerFailure, ...] = get_args(ServerFailure)


def failure_cell(when: float, cause: ServerFailure) -> int:
    """Return one number for time and cause, so that the highest one of several processes is the last failure."""
    return int(when * 1000) * len(_CAUSES) + _CAUSES.index(cause)


WAITING, RESET = (
    slice(SERVER.at[f"{kind} 0"], SERVER.at[f"{kind} 2"] + 1) for kind in ("waiting", "reset")
)
SOURCES = slice(WAITING.start, RESET.stop)
_NUMBER = 16  # bits of a cell that tell when a source came: each time they are one more


def with_source(cells: Cells, source: int) -> list[int]:
    """Return the cells of the last sources after one more, by `source_number`."""
    number = (cells[0] + 1) % (1 << _NUMBER)
    others = (cell for cell in cells if cell >> _NUMBER != source)
    return [source << _NUMBER | number, *others][: len(cells)]


def sources_in(before: Cells, now: Cells) -> set[int]:
    """Return the sources that have come since these cells were read before."""
    return {cell >> _NUMBER for cell in {*now} - {*before}}


def last_failure_of(cell: int) -> tuple[float, ServerFailure] | None:
    """Return when a server failed last, in seconds since 1970, and how."""
    when, cause = divmod(cell, len(_CAUSES))
    return (when / 1000, _CAUSES[cause]) if cell else None

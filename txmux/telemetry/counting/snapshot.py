"""The numbers of all processes at one moment, under the names that the rules have now."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from txmux.classes import frozen
from txmux.rules.model import SHORT_FORM, Backend, Rules
from txmux.telemetry.counting import counter_groups as groups
from txmux.telemetry.counting.counters import Counters, CountersReading
from txmux.telemetry.counting.process_counters import routes_of
from txmux.telemetry.documents import Unrouted

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")

ServerSample = tuple[int, int, int]
"""Connections to a server, those that it has answered, and how long these waited for that, in microseconds."""


@frozen
class Counts:
    """All numbers.

    Attributes:
        listeners: In the order of the rules.
        routes: In the order of the rules, listener by listener; after the routes of each, those that none has taken.
    """

    listeners: Sequence[groups.ListenerTotals]
    routes: RoutesCounted
    backends: Sequence[groups.BackendTotals]
    servers: Sequence[groups.ServerTotals]
    process: groups.ProcessTotals


@frozen(eq=False)
class RoutesCounted:
    """The numbers of routes, in the order of the rules, listener by listener; after the routes of each, those that none has taken.

    They are read as they are asked for, since there may be very many.
    """

    _reading: CountersReading
    _rules: Rules

    def __iter__(self) -> Iterator[groups.RouteTotals]:
        for listener in self._rules.listeners:
            for route in routes_of(self._rules, listener):
                yield self.of(listener.name, route.name)
            if listener.silent:
                yield self.of(listener.name, SHORT_FORM)
            yield self.of(listener.name, groups.NO_ROUTE)

    def of(self, listener: str, name: str) -> groups.RouteTotals:
        return groups.RouteTotals.of(self._reading.cells, listener, name)

    def used(self) -> Iterator[groups.RouteTotals]:
        """Yield those that have had a client, in no order, of all rules that are counted."""
        counted = self._reading.counted(groups.ROUTE)
        return (groups.RouteTotals(tuple(names), cells) for names, cells in counted)


def counts_in_steps(
    counters: Counters, rules: Rules, backends: Mapping[str, Backend]
) -> Generator[None, None, Counts]:
    """Read the counters; `backends` are those that clients may be forwarded to."""
    reading = counters.read()
    servers = {
        (name, server.text): None
        for name, backend in backends.items()
        for server in backend.servers
    }
    cells = reading.cells
    return Counts(
        (yield from _each(lambda one: groups.ListenerTotals.of(cells, one.name), rules.listeners)),
        RoutesCounted(reading, rules),
        (yield from _each(lambda name: groups.BackendTotals.of(cells, name), backends)),
        (yield from _each(lambda names: groups.ServerTotals.of(cells, *names), servers)),
        groups.ProcessTotals.of(cells),
    )


def _each(
    make: Callable[[_Item], _Made], items: Iterable[_Item]
) -> Generator[None, None, list[_Made]]:
    made = []
    for item in items:
        made.append(make(item))
        yield
    return made


def server_samples(counters: Counters) -> dict[tuple[str, str], ServerSample]:
    """Read what the rates of servers need; those that have had no connection are left out."""
    counted = counters.read().counted(groups.SERVER)
    samples = (groups.ServerTotals(tuple(names), cells) for names, cells in counted)
    return {
        (its.backend, its.server): (its.total, its.answered, its.answer_time)
        for its in samples
        if its.total
    }


def totals(counters: Counters, listeners: Iterable[str]) -> tuple[int, int, int, int]:
    """Add up listeners: clients so far, live connections, bytes from clients and to them."""
    rows = [groups.ListenerTotals.of(counters.cells, name) for name in listeners]
    sums = zip(*((its.total, its.active, its.bytes_in, its.bytes_out) for its in rows), strict=True)
    total, active, bytes_in, bytes_out = map(sum, sums) if rows else (0, 0, 0, 0)
    return total, active, bytes_in, bytes_out


def unrouted(counters: Counters, listeners: Iterable[str]) -> Unrouted:
    """Add up, over listeners, the ended connections that no route took, and the bytes of all such."""
    rows = [groups.RouteTotals.of(counters.cells, name, groups.NO_ROUTE) for name in listeners]
    return {
        "ended": sum(sum(row.ended.values()) for row in rows),
        "bytes_in": sum(row.bytes_in for row in rows),
        "bytes_out": sum(row.bytes_out for row in rows),
    }

"""Leaves out of rules what a lint has found nothing wrong with before, and cannot now.

Most routes of a large file are *plain*: a ``match`` that names values, such as ``tls sni=a.example``, and a backend of
addresses. The only ones that can take clients from such a route name one of its values, or are not plain. So if listeners are
the same objects as before, and so are all other routes and in the same order, a lint of the rules without the plain routes
that name no value of a changed one, or of one that had a problem, finds all that a lint of the whole finds.

Any other change, as of a listener, a pattern with ``*``, a route with ``from``, or of the order, is looked at with all routes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from itertools import compress, pairwise

import attrs

from txmux.classes import frozen
from txmux.rules.lint.coverage import ParsedLine, read_line
from txmux.rules.lint.reach import ANY_MAKES, shares_clients_with
from txmux.rules.model import Backend, Outcome, Refusal, Route, Rules
from txmux.rules.problems import Problem

_VALUES = re.compile(r"[\s,=]+")
_WILD = frozenset("*?~")
_ROUTE_KEYS = frozenset({"match", "backend", "under", "log"})
_BACKEND_KEYS = frozenset({"server", "check", "balance", "retries", "connect_timeout", "idle_timeout"})  # fmt: skip
_CLOSING = frozenset({"host", "sni", "user", "database", "application"})
"""Options by which a route that refuses its clients has others looked at, which may lead to the same servers."""
_MOST = 4
"""The part of all routes that is at most looked at without the others: a fourth."""


@frozen
class _Linted:
    """The rules of the last lint, which of its routes are plain, and the problems."""

    rules: Rules
    plain: bytes
    problems: Sequence[Problem]


_last: _Linted | None = None


class Narrowing:
    """What a lint of rules has to look at.

    Args:
        rules: The rules, of a file.

    Attributes:
        rules: The same, perhaps without most of their routes, and the backends of these.
    """

    def __init__(self, rules: Rules) -> None:
        last = _last
        listeners = rules.listeners
        if last is not None and not _are_same(last.rules.listeners, listeners):
            last = None
        if any(one.first == "server" for one in listeners):  # a problem of one lists routes
            last = None
        self._all = self.rules = rules
        self._listeners = {listener.name for listener in listeners}
        self._default = servers_of(outcome for one in listeners for outcome in one.outcomes)
        before = {} if last is None else {id(one): n for n, one in enumerate(last.rules.routes)}
        positions = [before.get(id(route)) for route in rules.routes]
        self._plain = b""
        if last is not None:
            self._plain = bytes(
                self._is_plain(route) if position is None else last.plain[position]
                for route, position in zip(rules.routes, positions, strict=True)
            )
            self._narrow(last, positions)

    def remember(self, problems: Sequence[Problem]) -> None:
        """Remember what the lint has found, for the next one."""
        global _last  # noqa: PLW0603 - it is about the process
        plain = self._plain or bytes(map(self._is_plain, self._all.routes))
        _last = _Linted(self._all, plain, problems)

    def _narrow(self, last: _Linted, positions: Sequence[int | None]) -> None:
        routes, plain = self._all.routes, self._plain
        same = [position for position in positions if position is not None]
        if any(one > two for one, two in pairwise(same)):
            return
        left = set(same)
        changed = [one for one, position in zip(routes, positions, strict=True) if position is None]
        changed += [one for n, one in enumerate(last.rules.routes) if n not in left]
        values = self._values_of_change(changed)
        if values is None or any(one.message.startswith(ANY_MAKES) for one in last.problems):
            return
        concerned = {problem.section for problem in last.problems}
        chosen = bytearray(
            position is None or not is_plain or _is_about(concerned, route)
            for route, position, is_plain in zip(routes, positions, plain, strict=True)
        )
        looked_for = values.union(*map(_values_of, compress(routes, chosen)))
        found = _with_values(routes, chosen, looked_for)
        # Of those that a change concerns, all have to be there that take clients from them.
        more = [routes[n] for n in found if not values.isdisjoint(_words_of(routes[n]))]
        for number in found:
            chosen[number] = True
        nearby = set().union(*map(_values_of, more)) - looked_for
        for number in _with_values(routes, chosen, nearby) if nearby else ():
            chosen[number] = True
        if chosen.count(1) * _MOST <= len(routes):
            self.rules = _part(self._all, chosen)

    def _is_plain(self, route: Route) -> bool:
        return (
            isinstance(route.outcome, Backend)
            and self._is_ordinary(route)
            and all(_are_words(read_line(one)) for one in route.alternatives)
        )

    def _is_ordinary(self, route: Route) -> bool:
        outcome, section = route.outcome, route.section
        if not section.entries or section.unread or not _ROUTE_KEYS.issuperset(section.entries):
            return False
        if not self._listeners.issuperset(route.under):
            return False
        if isinstance(outcome, Refusal):
            return True
        return (
            isinstance(outcome, Backend)
            and _is_of_addresses(outcome)
            and self._default.isdisjoint(servers_of([outcome]))
        )

    def _values_of_change(self, changed: Iterable[Route]) -> set[str] | None:
        """Return what a plain route names with which changed ones may have to do; ``None`` if that may be any."""
        found = set[str]()
        for route in changed:
            if not self._is_ordinary(route):
                return None
            closes = isinstance(route.outcome, Refusal)
            for alternative in route.alternatives:
                line = read_line(alternative)
                if line.negated or line.name == "any":
                    return None
                if closes and not _CLOSING.isdisjoint(line.options):
                    return None
                if _are_words(line):
                    found.update(_patterns(line))
                else:
                    found.update([line.name], shares_clients_with(line.name))
        return found


def _are_same(one: Sequence[object], two: Sequence[object]) -> bool:
    return len(one) == len(two) and all(a is b for a, b in zip(one, two, strict=True))


def _is_about(headers: Collection[str], route: Route) -> bool:
    if route.section.header in headers:
        return True
    return isinstance(route.outcome, Backend) and route.outcome.section.header in headers


def _is_of_addresses(backend: Backend) -> bool:
    section = backend.section
    return (
        _BACKEND_KEYS.union(_ROUTE_KEYS).issuperset(section.entries)
        and not section.unread
        and backend.fallback is Refusal.CLOSE
        and backend.proxy_protocol == "off"
        and all(one.kind in {"tcp", "udp", "unix"} and "{" not in one.host for one in backend.servers)
    )  # fmt: skip


def _patterns(line: ParsedLine) -> set[str]:
    return {pattern for case in line.cases for _, pattern in case.options}


def _words_of(route: Route) -> set[str]:
    return {word for one in route.alternatives for word in _VALUES.split(one.text)}


def _are_words(line: ParsedLine) -> bool:
    """Return whether a line names values, each as it is compared, and nothing else."""
    if line.negated or not line.options or not all(case.compared for case in line.cases):
        return False
    patterns = _patterns(line)
    return _WILD.isdisjoint("".join(patterns)) and patterns.issubset(_VALUES.split(line.text))


def _values_of(route: Route) -> set[str]:
    return set().union(*(_patterns(read_line(one)) for one in route.alternatives))


def _with_values(routes: Sequence[Route], chosen: Sequence[int], values: set[str]) -> list[int]:
    """Return the numbers of the routes that are not kept, and name one of some values."""
    split, others = _VALUES.split, values.isdisjoint
    return [
        number
        for number, (route, is_chosen) in enumerate(zip(routes, chosen, strict=True))
        if not is_chosen and not all(others(split(one.text)) for one in route.alternatives)
    ]


def _part(rules: Rules, chosen: Sequence[int]) -> Rules:
    """Return rules with some of their routes, and without the backends that only the others have."""
    part = attrs.evolve(rules, routes=tuple(compress(rules.routes, chosen)))
    named = {outcome.name for outcome in part.outcomes() if isinstance(outcome, Backend)}
    dropped = {
        route.outcome.name
        for route, is_chosen in zip(rules.routes, chosen, strict=True)
        if not is_chosen and isinstance(route.outcome, Backend)
    }
    backends = {
        name: one for name, one in rules.backends.items() if name in named or name not in dropped
    }
    return attrs.evolve(part, backends=backends)


def servers_of(outcomes: Iterable[Outcome | None]) -> set[object]:
    """Return the places of the servers of backends, such as are the same however they are written."""
    return {
        server.text
        if server.query or server.kind == "endpoint"
        else (server.host, server.port, server.path)
        for outcome in outcomes
        if isinstance(outcome, Backend)
        for server in outcome.servers
    }

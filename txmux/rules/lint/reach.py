"""Warnings about routes and lines without clients, because earlier ones take them all."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, cached_property

from txmux.classes import frozen
from txmux.detection.ambiguities import ambiguities_over
from txmux.errors import joined
from txmux.interfaces import Transport
from txmux.rules.lint.coverage import CoverageIndex, ParsedLine, PatternCase, read_line
from txmux.rules.lint.scopes import ClientSet, RouteScope, scopes, set_of, sure
from txmux.rules.model import Listener, Route, Rules
from txmux.rules.problems import Problem

_MOST_NAMED = 5
# Shared by the many lines that lose their clients to no other route.
_NO_TAKERS: dict[str, Route] = {}


@frozen(weakref_slot=False)
class _DecidingLine:
    route: Route
    number: int
    line: ParsedLine
    clients: ClientSet  # of the route, wherever it is
    taken: ClientSet  # those of them that later routes get in no case


def unreachable_routes(rules: Rules) -> Iterator[Problem]:
    """Find routes and lines that can never decide, and pairs of matchers in an order that hides one of them.

    A route is reported only if it is of no use in any of its scopes. Dry-run routes take nothing from others, and those
    that serve only at some times nothing from those that serve at others.
    """
    yield from _ReachabilityCheck(rules).problems()


class _ReachabilityCheck:
    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        # Of the routes that have clients, for each line the routes that take all of these; `None` if it is in no scope.
        self._takers: dict[str, tuple[dict[str, Route] | None, ...]] = {}
        self._misplaced: dict[tuple[str, int], str] = {}
        self._scopes = scopes(rules)
        for scope in self._scopes:
            self._check_scope(scope)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {route.name: number for number, route in enumerate(self._rules.routes)}

    def problems(self) -> Iterator[Problem]:
        behind_any: dict[str, list[Route]] = {}
        for route in self._rules.routes:
            takers = self._takers.get(route.name)
            if takers is None:
                yield from self._check_clients(route)
            elif all(takers):
                routes = {name: r for found in takers if found for name, r in found.items()}
                first = next(iter(routes.values()))
                if len(routes) == 1 and self._number_of_any(first) is not None:
                    behind_any.setdefault(first.name, []).append(route)
                else:
                    yield self._unreachable(route, 0, "is never reached", routes)
            else:
                redundant = dict(_redundant(_lines(route)))
                for number, found in enumerate(takers):
                    yield from self._of_line(route, number, found, redundant.get(number))
        for route in self._rules.routes:
            if route.name in behind_any:
                later = _listed([f"[route {other.name}]" for other in behind_any[route.name]])
                message = f"'any' makes the later {later} unreachable; put this route last"
                yield route.section.problem(message, "match", self._number_of_any(route) or 0)

    def _of_line(
        self, route: Route, number: int, takers: dict[str, Route] | None, redundant: str | None
    ) -> Iterator[Problem]:
        text = repr(route.alternatives[number].text)
        misplaced = self._misplaced.get((route.name, number))
        if takers:
            yield self._unreachable(route, number, f"{text} never decides", takers)
        elif redundant or misplaced:
            yield route.section.problem(redundant or misplaced or "", "match", number)

    def _unreachable(
        self, route: Route, number: int, what: str, takers: dict[str, Route]
    ) -> Problem:
        names = sorted(takers, key=self._positions.__getitem__)
        earlier = [_at(self._rules, takers[name], 0) for name in names]
        message = (
            f"{what}: all its clients go to the earlier {_listed(earlier)}; "
            "put this route first, or remove this"
        )
        return route.section.problem(message, "match", number)

    def _check_scope(self, scope: RouteScope) -> None:
        index: CoverageIndex[_DecidingLine] = CoverageIndex()
        plain: dict[str, list[_DecidingLine]] = defaultdict(list)
        # Inside TLS and tunnels there are streams.
        over = scope.owner.transport if isinstance(scope.owner, Listener) else Transport.TCP
        clients = scope.clients
        for route in self._rules.routes_of(scope.owner):
            served = set_of(route.clients)
            if not served & clients:
                continue
            owners = [
                _DecidingLine(route, number, read_line(alternative), served, sure(route.clients))
                for number, alternative in enumerate(route.alternatives)
                if alternative.for_transport(over)
            ]
            takers: list[dict[str, Route] | None] = [None] * len(route.alternatives)
            for owner in owners:
                takers[owner.number] = _takers(index, owner, clients)
                self._find_misplaced(plain, owner, over, clients)
            before = self._takers.get(route.name, takers)
            self._takers[route.name] = tuple(map(_in_both, before, takers))
            for owner in owners if not route.dry_run else ():
                index.add(owner.line, owner)
                if not owner.line.options and not owner.line.negated:
                    plain[owner.line.name].append(owner)

    def _find_misplaced(
        self,
        plain: dict[str, list[_DecidingLine]],
        later: _DecidingLine,
        over: Transport,
        clients: ClientSet,
    ) -> None:
        pairs = () if later.line.negated else _pairs(over).get(later.line.name, ())
        for other, before, why in pairs:
            for owner in plain[other]:
                same = _effect_of(owner.route) == _effect_of(later.route)
                one, two = owner.route.client_cert, later.route.client_cert
                if one is not None and two is not None and one.excludes(two):
                    continue
                if not same and owner.clients & later.clients & clients:
                    message = f"'{later.line.name}' {before} the '{other}' of {_at(self._rules, owner.route, owner.number)}: {why}"
                    self._misplaced.setdefault((later.route.name, later.number), message)

    def _number_of_any(self, route: Route) -> int | None:
        return next(
            (n for n, line in enumerate(_lines(route)) if line.name == "any" and not line.negated),
            None,
        )

    def _check_clients(self, route: Route) -> Iterator[Problem]:
        section = route.section
        key = "from" if "from" in section.entries else "not_from"
        mine = [scope for scope in self._scopes if route.stands_under(scope.owner)]
        dry = [scope.owner.name for scope in mine if getattr(scope.owner, "dry_run", False)]
        clients = set_of(route.clients)
        if not clients and "not_from" in section.entries:
            key, message = "not_from", "excludes everything in 'from'; correct one of the two"
        elif not clients:
            message = "names no network, so no client is served; add one, or remove this route"
        elif any(scope.clients for scope in mine):
            over = [scope.owner for scope in mine if scope.clients]
            whose = "'allow' and 'deny' of a listener let in"
            if not any(isinstance(owner, Listener) for owner in over):
                whose = f"{_listed([f'[route {owner.name}]' for owner in over])} may have"
            message = f"leaves no client that {whose}; correct one of them, or remove this route"
        elif mine and len(dry) == len(mine):
            key = "under"
            message = f"no client gets here while [route {dry[0]}] has 'dry_run = yes'; remove that"
        elif not route.under and not mine:
            key, message = "under", "no client gets here, since its unit has no [listen]; add one"
        else:
            return  # Scopes without clients have a warning of their own.
        yield section.problem(message, key)


@cache
def _pairs(over: Transport) -> dict[str, list[tuple[str, str, str]]]:
    """Return, by the name of the later matcher, earlier ones that share clients with it, their order, and why."""
    pairs: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for pair in ambiguities_over(over):
        pairs[pair.first].append((pair.second, "should come before", pair.why))
        if pair.always:
            pairs[pair.second].append((pair.first, "shares clients with", pair.always))
    return pairs


def _effect_of(route: Route) -> tuple[object, ...]:
    return route.outcome, route.terminate_tls, route.opens


def _at(rules: Rules, route: Route, number: int) -> str:
    problem = rules.placed(route.section.problem("", "match", number))
    return f"[route {route.name}] ({problem.path}:{problem.line})"


def _takers(
    index: CoverageIndex[_DecidingLine], owner: _DecidingLine, clients: ClientSet
) -> dict[str, Route]:
    """Find the earlier routes that take all of these clients that a line is for; none if some reach it."""
    takers: dict[str, Route] = {}
    for case in owner.line.cases:
        left = owner.clients
        covering = index.covering(case, owner.line.predicate)
        for other in (other for _, others in covering for other in others):
            during, own = other.route.during, owner.route.during
            if during and not (own and set(own) <= set(during)):
                continue
            certificates = other.route.client_cert
            if certificates and not certificates.covers(owner.route.client_cert):
                continue
            if left & other.taken & clients:
                takers[other.route.name] = other.route
                left -= other.taken
                if not left & clients:
                    break
        else:
            return _NO_TAKERS
    return takers


def _in_both(one: dict[str, Route] | None, two: dict[str, Route] | None) -> dict[str, Route] | None:
    """Return the routes that take all clients of a line in two scopes; none if some reach it in one."""
    if one is None or two is None:
        return two if one is None else one
    return {**one, **two} if one and two else _NO_TAKERS


def _lines(route: Route) -> list[ParsedLine]:
    return [*map(read_line, route.alternatives)]


def _redundant(lines: Sequence[ParsedLine]) -> Iterator[tuple[int, str]]:
    """Yield the numbers of lines that do not do what they seem to, because one line of several is enough, and why."""
    if len(lines) == 1 and not lines[0].negated:
        return
    index: CoverageIndex[int] = CoverageIndex()
    for number, line in enumerate(lines):
        index.add(line, number)
    for number, line in enumerate(lines):
        covered = [_covered_within(index, case, line, number) for case in line.cases]
        # What all lines but a `not X` match, if that has all of X in it.
        excluded = [
            {other for other in found if other < number or not lines[other].negated}
            for found in (_covered_within(index, case, line, number) for case in line.positive())
        ]
        if line.negated and line.name == "any":
            yield number, "'not any' never matches; remove this line"
        elif all(covered):
            others = _texts(lines, covered)
            yield number, f"{line.text!r} adds nothing to {others}; remove this line"
        elif line.negated and all(excluded):
            others = _texts(lines, excluded)
            message = (
                f"{line.text!r} and {others} match every client together, since one matching line suffices; "
                "exclude clients with an earlier route"
            )
            yield number, message


def _texts(lines: Sequence[ParsedLine], numbers: Iterable[set[int]]) -> str:
    return _listed([repr(lines[number].text) for number in sorted(set().union(*numbers))])


def _covered_within(
    index: CoverageIndex[int], case: PatternCase, line: ParsedLine, number: int
) -> set[int]:
    """Return the lines that cover a case of another; of two that are the same, the first stays."""
    return {
        other
        for wider, others in index.covering(case, line.predicate)
        for other in others
        if other != number and (wider != case or other < number)
    }


def _listed(words: Sequence[str]) -> str:
    more = len(words) - _MOST_NAMED
    return joined([*words[:_MOST_NAMED], f"{more} more"] if more > 1 else words, "and")

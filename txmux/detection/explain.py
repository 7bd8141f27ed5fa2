"""Explains a decision: what each route answers to some bytes, and at which byte. Pure.

The decision itself is made by `Detector`, so it cannot differ from what the service does. Of a flow of datagrams all
that counts bytes here counts datagrams.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import cache
from typing import TYPE_CHECKING, Generic, Literal

import attrs

from txmux.detection.detector import (
    Decision,
    Detector,
    is_keepalive_only,
    is_limit_reached,
    serves_at,
)
from txmux.detection.plan import R
from txmux.interfaces import MOST_DATAGRAMS, Datagrams, Peeked, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence
    from ipaddress import IPv4Address, IPv6Address

    from txmux.detection.plan import AlternativeLike, RouteLike


@attrs.frozen
class PredicateAnswer:
    """The verdict of a ``match`` line, or of a whole route, on the bytes so far.

    Attributes:
        verdict: ``NEED_MORE`` is undecided.
        at: How many bytes it had to see to know; ``None`` while it is undecided.
        needs: The number of bytes after which it knows at the latest, or is cut off by the peek limit.
        error: The exception, if its matcher raised one: that counts as a ``NO``.
    """

    verdict: Verdict
    at: int | None
    needs: int
    error: str = ""


@attrs.frozen
class RouteAnswer(Generic[R]):
    """The verdict of a route and its lines.

    Attributes:
        excluded_by: The key by which the client, or the time, is none of its; such a route is not tried.
        answer: The verdict of all lines; ``None`` if it is not tried.
        lines: The verdict of each alternative, in their order; empty if it is not tried.
    """

    route: R
    excluded_by: Literal["from", "not_from", "during"] | None = None
    answer: PredicateAnswer | None = None
    lines: tuple[PredicateAnswer, ...] = ()


@attrs.frozen
class Explanation(Generic[R]):
    """How the routes of a listener decide on some bytes.

    Attributes:
        routes: Every route's answer, in their order.
        decided_at: After how many bytes it was decided; ``None`` when more bytes are needed.
        decision: The decision on all of these bytes; while they decide nothing, the decision if no more
            bytes come: at the deadline, or at the end of the stream. The route is ``None`` when no byte came.
    """

    routes: tuple[RouteAnswer[R], ...]
    decided_at: int | None
    decision: Decision[R]


def explain(
    routes: Iterable[R],
    data: bytes,
    client: IPv4Address | IPv6Address | None = None,
    peek_limit: int = 32 * 1024,
    now: float | None = None,
) -> Explanation[R]:
    """Explain what becomes of a client that has sent some bytes.

    Args:
        routes: In the order of their priority.
        data: All bytes so far, maybe none.
        client: Its address; ``None`` for a client that is outside of every network.
        peek_limit: The most bytes that matchers see.
        now: The time, in seconds since 1970; ``None`` is outside of all times.
    """
    return _all(explain_in_steps(routes, data, client, peek_limit, now))


def explain_flow(
    routes: Iterable[R],
    datagrams: Sequence[bytes],
    client: IPv4Address | IPv6Address | None = None,
    peek_limit: int = 16 * 1024,
    now: float | None = None,
) -> Explanation[R]:
    """Explain what becomes of a client that has sent some datagrams.

    Args:
        routes: As `Route.for_transport` gives them for UDP, in the order of their priority.
        datagrams: All of them so far, maybe none; those that come too late for the decision are not looked at.
        client: As for `explain`.
        peek_limit: The most bytes that are held for matchers.
        now: As for `explain`.
    """
    return _all(explain_flow_in_steps(routes, datagrams, client, peek_limit, now))


def explain_in_steps(
    routes: Iterable[R],
    data: bytes,
    client: IPv4Address | IPv6Address | None = None,
    peek_limit: int = 32 * 1024,
    now: float | None = None,
) -> Generator[None, None, Explanation[R]]:
    """Explain with a rest after each route, since thousands of them take a while. Otherwise as `explain`."""
    data = data[:peek_limit]
    detector = Detector(routes, peek_limit)

    def known(length: int) -> bool:
        return detector.start_detection(client, now).feed(data[:length]) is not None

    detection = detector.start_detection(client, now)
    decision = (detection.feed(data) if data else None) or detection.finish()
    seen = _Seen(cache(lambda length: Peeked(data[:length])), len(data), peek_limit)
    return (
        yield from _answers(detector.routes, _first(known, len(data)), decision, seen, client, now)
    )


def explain_flow_in_steps(
    routes: Iterable[R],
    datagrams: Sequence[bytes],
    client: IPv4Address | IPv6Address | None = None,
    peek_limit: int = 16 * 1024,
    now: float | None = None,
) -> Generator[None, None, Explanation[R]]:
    """Explain with a rest after each route. Otherwise as `explain_flow`."""
    held: tuple[bytes, ...] = ()
    for datagram in datagrams:
        held = (*held, datagram)
        if is_limit_reached(held, peek_limit):
            break
    detector = Detector(routes, peek_limit)

    def known(count: int) -> bool:
        return detector.start_flow_detection(client, now).feed(held[:count]) is not None

    while len(held) > 1 and is_keepalive_only(held[:1]) and not known(1):
        held = held[1:]
    detection = detector.start_flow_detection(client, now)
    decision = (detection.feed(held) if held else None) or detection.finish()
    seen = _Seen(cache(lambda count: Datagrams(held[:count])), len(held), MOST_DATAGRAMS)
    return (
        yield from _answers(detector.routes, _first(known, len(held)), decision, seen, client, now)
    )


def _all(steps: Generator[None, None, Explanation[R]]) -> Explanation[R]:
    try:
        while True:
            next(steps)
    except StopIteration as end:
        found: Explanation[R] = end.value
        return found


def _answers(
    routes: Iterable[R],
    decided_at: int | None,
    decision: Decision[R],
    seen: _Seen,
    client: IPv4Address | IPv6Address | None,
    now: float | None,
) -> Generator[None, None, Explanation[R]]:
    answers = []
    for route in routes:
        yield
        answers.append(_route_answer(route, client, now, seen))
    return Explanation(tuple(answers), decided_at, decision)


@attrs.frozen
class _Seen:
    """The bytes, or datagrams, that all lines are tried on.

    Attributes:
        prefix: Returns the first of them, by their number: the same object each time, since many lines use the same parsers.
        length: How many there are.
        limit: The most that matchers see.
    """

    prefix: Callable[[int], Peeked]
    length: int
    limit: int


def _first(known: Callable[[int], bool], length: int) -> int | None:
    """Find the shortest prefix of which something is known; it stays known for all longer ones."""
    if not length or not known(length):
        return None
    return bisect_left(range(1, length), x=True, key=known) + 1


def _route_answer(
    route: R, client: IPv4Address | IPv6Address | None, now: float | None, seen: _Seen
) -> RouteAnswer[R]:
    excluded = excluded_by(route, client, now)
    if excluded is not None:
        return RouteAnswer(route, excluded)
    lines = tuple(_answer(alternative, seen) for alternative in route.alternatives)
    return RouteAnswer(route, answer=_any(lines), lines=lines)


def excluded_by(
    route: RouteLike, client: IPv4Address | IPv6Address | None, now: float | None
) -> Literal["from", "not_from", "during"] | None:
    """Name the key by which a route is not for a client at a time; ``None`` if it is."""
    if not route.clients.serves(client):
        return "not_from" if route.clients.excludes(client) else "from"
    return None if serves_at(route, now) else "during"


def _answer(alternative: AlternativeLike, seen: _Seen) -> PredicateAnswer:
    needs = min(alternative.predicate.longest, seen.limit)
    at = _first(
        lambda length: _ask(alternative, seen.prefix(length))[0] is not Verdict.NEED_MORE,
        seen.length,
    )
    if at is None:
        return PredicateAnswer(Verdict.NEED_MORE, None, needs)
    verdict, error = _ask(alternative, seen.prefix(at))
    return PredicateAnswer(verdict, at, needs, error)


def _ask(alternative: AlternativeLike, peeked: Peeked) -> tuple[Verdict, str]:
    try:
        verdict = Verdict(alternative.predicate(peeked))
    except Exception as error:  # noqa: BLE001 - it is a no in the service, too
        return Verdict.NO, f"{type(error).__name__}: {error}"
    if alternative.negated and verdict is not Verdict.NEED_MORE:
        verdict = Verdict.NO if verdict is Verdict.MATCH else Verdict.MATCH
    return verdict, ""


def _any(lines: tuple[PredicateAnswer, ...]) -> PredicateAnswer:
    """Return the answer of the line that settles what the route says; any match is enough."""
    by_verdict: dict[Verdict, list[PredicateAnswer]] = {}
    for line in lines:
        by_verdict.setdefault(line.verdict, []).append(line)
    if Verdict.MATCH in by_verdict:
        return min(by_verdict[Verdict.MATCH], key=lambda line: line.at or 0)
    if Verdict.NEED_MORE in by_verdict:
        return max(by_verdict[Verdict.NEED_MORE], key=lambda line: line.needs)
    return max(lines, key=lambda line: line.at or 0)

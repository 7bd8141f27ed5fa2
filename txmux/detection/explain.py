"""Telling how a decision comes about: what each route says of some bytes, and at which byte it knew. Pure.

The decision itself is asked of `Detector`, so it cannot differ from what the service does.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import cache
from typing import TYPE_CHECKING, Generic, Literal

import attrs

from txmux.detection.detector import Decision, Detector, serves_at
from txmux.detection.plan import R
from txmux.interfaces import Peeked, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from ipaddress import IPv4Address, IPv6Address

    from txmux.detection.plan import AlternativeLike, RouteLike


@attrs.frozen
class Answer:
    """What a ``match`` line, or a whole route, says of the bytes so far.

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
    """What a route says.

    Attributes:
        excluded_by: The key by which the client, or the time, is none of its; such a route is not asked.
        answer: What its lines come to; ``None`` when it is not asked.
        lines: What each of its alternatives says, in their order; empty when it is not asked.
    """

    route: R
    excluded_by: Literal["from", "not_from", "during"] | None = None
    answer: Answer | None = None
    lines: tuple[Answer, ...] = ()


@attrs.frozen
class Explanation(Generic[R]):
    """How the routes of a listener decide on some bytes.

    Attributes:
        routes: Every route's answer, in their order.
        decided_at: After how many bytes it was decided; ``None`` when more bytes are needed.
        decision: What was decided with all of the bytes there; while it is not, what comes of it if no more
            bytes do: at the deadline, or at the end of the stream. The route is ``None`` when no byte came.
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
    routes = tuple(routes)
    data = data[:peek_limit]
    detector = Detector(routes, peek_limit)
    decided_at = _first(lambda n: detector.begin(client, now).feed(data[:n]) is not None, len(data))
    detection = detector.begin(client, now)
    decision = detection.feed(data) if data else None
    seen = _Seen(cache(lambda length: Peeked(data[:length])), len(data), peek_limit)
    return Explanation(
        tuple(_route_answer(route, client, now, seen) for route in routes),
        decided_at,
        decision or detection.finish(),
    )


@attrs.frozen
class _Seen:
    """The bytes that all lines are asked about.

    Attributes:
        prefix: Gives the first of them, by their number. The same object each time, since many lines ask the same parsers.
        length: How many there are.
    """

    prefix: Callable[[int], Peeked]
    length: int
    peek_limit: int


def _first(known: Callable[[int], bool], length: int) -> int | None:
    """Find the shortest prefix of which something is known; it stays known for all longer ones."""
    if not length or not known(length):
        return None
    return bisect_left(range(1, length), x=True, key=known) + 1


def _route_answer(
    route: R, client: IPv4Address | IPv6Address | None, now: float | None, seen: _Seen
) -> RouteAnswer[R]:
    excluded_by = _excluded_by(route, client, now)
    if excluded_by is not None:
        return RouteAnswer(route, excluded_by)
    lines = tuple(_answer(alternative, seen) for alternative in route.alternatives)
    return RouteAnswer(route, answer=_any(lines), lines=lines)


def _excluded_by(
    route: RouteLike, client: IPv4Address | IPv6Address | None, now: float | None
) -> Literal["from", "not_from", "during"] | None:
    if not route.clients.serves(client):
        return "not_from" if route.clients.excludes(client) else "from"
    return None if serves_at(route, now) else "during"


def _answer(alternative: AlternativeLike, seen: _Seen) -> Answer:
    needs = min(alternative.predicate.longest, seen.peek_limit)
    at = _first(
        lambda length: _ask(alternative, seen.prefix(length))[0] is not Verdict.NEED_MORE,
        seen.length,
    )
    if at is None:
        return Answer(Verdict.NEED_MORE, None, needs)
    verdict, error = _ask(alternative, seen.prefix(at))
    return Answer(verdict, at, needs, error)


def _ask(alternative: AlternativeLike, peeked: Peeked) -> tuple[Verdict, str]:
    try:
        verdict = Verdict(alternative.predicate(peeked))
    except Exception as error:  # noqa: BLE001 - it is a no in the service, too
        return Verdict.NO, f"{type(error).__name__}: {error}"
    if alternative.negated and verdict is not Verdict.NEED_MORE:
        verdict = Verdict.NO if verdict is Verdict.MATCH else Verdict.MATCH
    return verdict, ""


def _any(lines: tuple[Answer, ...]) -> Answer:
    """Give the answer of the line that settles what the route says; any match is enough."""
    by_verdict: dict[Verdict, list[Answer]] = {}
    for line in lines:
        by_verdict.setdefault(line.verdict, []).append(line)
    if Verdict.MATCH in by_verdict:
        return min(by_verdict[Verdict.MATCH], key=lambda line: line.at or 0)
    if Verdict.NEED_MORE in by_verdict:
        return max(by_verdict[Verdict.NEED_MORE], key=lambda line: line.needs)
    return max(lines, key=lambda line: line.at or 0)

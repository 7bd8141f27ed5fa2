"""Explains a decision: what each route answers to some bytes, and at which byte. Pure.

The decision itself is made by `Detector`, so it cannot differ from what the service does. Of a flow of datagrams all
that counts bytes here counts datagrams.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from ipaddress import IPv4Address, IPv6Address
from typing import Generic, Literal

from txmux.classes import frozen
from txmux.detection.detector import Decision, Detector, serves_at
from txmux.detection.flows import FlowDetection
from txmux.detection.plan import AlternativeLike, R, RouteLike
from txmux.errors import PLUGIN_ERRORS
from txmux.interfaces import MOST_DATAGRAMS, Datagrams, Peeked, Verdict


@frozen
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


ExcludingKey = Literal["from", "not_from", "client_cert", "during"]
"""A key by which a client is none of a route's."""


@frozen
class RouteAnswer(Generic[R]):
    """The verdict of a route and its lines.

    Attributes:
        excluded_by: The key by which the client, or the time, is none of its; such a route is not tried.
    """

    route: R
    excluded_by: ExcludingKey | None = None
    answer: PredicateAnswer | None = None
    lines: tuple[PredicateAnswer, ...] = ()


@frozen
class Explanation(Generic[R]):
    """How the routes of a listener decide on some bytes.

    Attributes:
        decided_at: After how many bytes it was decided; ``None`` when more bytes are needed.
        decision: On all of these bytes; while they decide nothing, what it will be at the deadline, or at the end of
            the stream. The route is ``None`` when no byte came.
        is_dropped: Whether there are only keepalives and datagrams that servers drop, so that it is as if none had come.
    """

    routes: tuple[RouteAnswer[R], ...]
    decided_at: int | None
    decision: Decision[R]
    is_dropped: bool = False


def explain(
    routes: Iterable[R] | Detector[R],
    received: bytes | Sequence[bytes],
    client: IPv4Address | IPv6Address | None = None,
    peek_limit: int = 32 * 1024,
    now: float | None = None,
    certificate: object = None,
    *,
    has_answers: bool = True,
) -> Explanation[R]:
    """Explain the decision on a client that has sent some bytes, or some datagrams.

    Args:
        routes: In the order of their priority; for datagrams, as `Route.for_transport` gives them. Or what has been made of them.
        received: All bytes or datagrams so far, maybe none; those too late for the decision are not looked at.
        client: Its address; ``None`` for a client that is outside of every network.
        peek_limit: The most bytes that matchers see.
        now: The time, in seconds since 1970; ``None`` is outside of all times.
        certificate: What its TLS has shown of its certificate; ``None`` if it was not asked for one.
        has_answers: Without, routes have no answers and end with the first that is asked and in force, and what was decided counts as decided by all bytes.
    """
    detector = routes if isinstance(routes, Detector) else Detector(routes, peek_limit)
    if isinstance(received, bytes):
        start = partial(detector.start_detection, client, now, certificate)
        stream, data = start(), received[:peek_limit]
        decided = stream.feed(data) if data else None
        decision, held = decided or stream.finish(), len(data)
        decided_at = None if decided is None else held
        if has_answers:
            decided_at = _first(lambda count: start().feed(data[:count]) is not None, held)
        seen = _Seen(cache(lambda count: Peeked(data[:count])), held, peek_limit)
    else:
        flow = FlowDetection(detector, client, now)
        decided, left = flow.feed(received), flow.left
        decision, held = decided or flow.finish(), len(left)
        decided_at = None if decided is None else held
        seen = _Seen(cache(lambda count: Datagrams(left[:count])), held, MOST_DATAGRAMS)
    answers: list[RouteAnswer[R]] = []
    for route in detector.routes:
        excluded = excluded_by(route, client, now, certificate)
        answers.append(
            _route_answer(route, excluded, seen) if has_answers else RouteAnswer(route, excluded)
        )
        if not has_answers and held and excluded is None and not route.dry_run:
            break
    return Explanation(tuple(answers), decided_at, decision, bool(received and not held))


@frozen
class _Seen:
    """The bytes, or datagrams, that all lines are tried on."""

    # The same object each time, since many lines use the same parsers.
    prefix: Callable[[int], Peeked]
    length: int
    limit: int


def _first(holds: Callable[[int], bool], length: int) -> int | None:
    # A verdict on a prefix holds for all longer ones.
    if not length or not holds(length):
        return None
    return bisect_left(range(1, length), x=True, key=holds) + 1


def _route_answer(route: R, excluded: ExcludingKey | None, seen: _Seen) -> RouteAnswer[R]:
    if excluded is not None:
        return RouteAnswer(route, excluded)
    lines = tuple(_answer(alternative, seen) for alternative in route.alternatives)
    return RouteAnswer(route, answer=_any(lines), lines=lines)


def excluded_by(
    route: RouteLike,
    client: IPv4Address | IPv6Address | None,
    now: float | None,
    certificate: object = None,
) -> ExcludingKey | None:
    if not route.clients.serves(client):
        return "not_from" if route.clients.excludes(client) else "from"
    if route.client_cert is not None and not route.client_cert.holds(certificate):
        return "client_cert"
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
        verdict = alternative.predicate(peeked)
        if not isinstance(verdict, Verdict):
            raise TypeError(f"{verdict!r} is no Verdict")
    except PLUGIN_ERRORS as error:  # it is a no in the service, too
        return Verdict.NO, f"{type(error).__name__}: {error}"
    if alternative.negated and verdict is not Verdict.NEED_MORE:
        verdict = Verdict.NO if verdict is Verdict.MATCH else Verdict.MATCH
    return verdict, ""


def _any(lines: tuple[PredicateAnswer, ...]) -> PredicateAnswer:
    """Return the answer of the line that decides the route's; any match is enough."""
    by_verdict: dict[Verdict, list[PredicateAnswer]] = {}
    for line in lines:
        by_verdict.setdefault(line.verdict, []).append(line)
    if Verdict.MATCH in by_verdict:
        return min(by_verdict[Verdict.MATCH], key=lambda line: line.at or 0)
    if Verdict.NEED_MORE in by_verdict:
        return max(by_verdict[Verdict.NEED_MORE], key=lambda line: line.needs)
    return max(lines, key=lambda line: line.at or 0)

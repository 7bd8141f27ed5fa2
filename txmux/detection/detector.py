"""Deciding which route a client belongs to, from its first bytes; sans I/O.

The promise (see the rules reference): the first route in file order that is not ``NO`` decides, and while it is
undecided the client waits. So the same bytes lead to the same route however the network cut them.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import attrs
from twisted.logger import Logger

from txmux.interfaces import Peeked, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from ipaddress import IPv4Address, IPv6Address

    from txmux.interfaces import Predicate

__all__ = ["Decision", "Detection", "Detector"]


class _Alternative(Protocol):
    @property
    def text(self) -> str: ...
    @property
    def predicate(self) -> Predicate: ...
    @property
    def negated(self) -> bool: ...


class _Networks(Protocol):
    def __contains__(self, address: IPv4Address | IPv6Address, /) -> bool: ...


class _Route(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def alternatives(self) -> Sequence[_Alternative]: ...
    @property
    def allowed(self) -> _Networks | None: ...
    @property
    def excluded(self) -> _Networks | None: ...


R = TypeVar("R", bound=_Route)


@attrs.frozen
class Decision(Generic[R]):
    """What detection came to.

    Attributes:
        route: The route that won; ``None`` when every route said no.
        facts: What was learnt on the way, for the access log.
    """

    route: R | None
    facts: dict[str, str]


class Detector(Generic[R]):
    """The routes of one listener, ready to be asked. One serves all connections.

    Args:
        routes: In the order of their priority.
        peek_limit: Matchers see at most so many bytes.
    """

    _log = Logger()

    def __init__(self, routes: Iterable[R], peek_limit: int = 32 * 1024) -> None:
        self.routes = tuple(routes)
        self.peek_limit = peek_limit
        self._open_to_all = all(r.allowed is None and r.excluded is None for r in self.routes)
        self._reported: set[str] = set()

    def begin(self, client: IPv4Address | IPv6Address | None = None) -> Detection[R]:
        """Start with a new client.

        Args:
            client: The client's real address; ``None`` for one that has no IP address, which is outside
                every network.
        """
        if self._open_to_all:
            return Detection(self, self.routes)
        return Detection(self, tuple(r for r in self.routes if _serves(r, client)))

    def report(self, route: R, alternative: _Alternative) -> None:
        """Log that a matcher raised: with its traceback, and once for each ``match`` line."""
        if alternative.text in self._reported:
            return
        self._reported.add(alternative.text)
        self._log.failure(
            "route {route}: the matcher of {match!r} raised, which counts as a no; report this to its author",
            route=route.name,
            match=alternative.text,
        )


class Detection(Generic[R]):
    """One client's way to a decision.

    Args:
        detector: Where the routes come from.
        routes: Those that serve this client.
    """

    __slots__ = ("_broken", "_detector", "_peeked", "_position", "_routes")

    def __init__(self, detector: Detector[R], routes: tuple[R, ...]) -> None:
        self._detector = detector
        self._routes = routes
        self._position = 0  # all routes before this one have said no
        self._peeked: Peeked | None = None
        self._broken: set[int] = set()  # alternatives, by id, whose matcher raised

    def feed(self, data: bytes) -> Decision[R] | None:
        """Look at what the client has sent.

        Args:
            data: All bytes so far, at least one.

        Returns:
            The decision, or ``None`` when more bytes are needed for it.
        """
        limit = self._detector.peek_limit
        self._peeked = Peeked(data[:limit], self._peeked)
        return self._resolve(self._peeked, last=len(data) >= limit)

    def finish(self) -> Decision[R]:
        """Decide with the bytes there are: what is undecided now counts as a no."""
        peeked = self._peeked
        decision = self._resolve(peeked, last=True) if peeked else None
        return decision or Decision(None, {})

    def _resolve(self, peeked: Peeked, *, last: bool) -> Decision[R] | None:
        # A later route is not even asked while an earlier one is undecided: it could not win yet, and its
        # answer to more bytes includes its answer to these.
        routes = self._routes
        while self._position < len(routes):
            route = routes[self._position]
            verdict = self._ask(route, peeked)
            if verdict is Verdict.MATCH:
                return Decision(route, _learnt((route,), peeked))
            if verdict is Verdict.NEED_MORE and not last:
                return None
            self._position += 1
        return Decision(None, _learnt(routes, peeked))

    def _ask(self, route: R, peeked: Peeked) -> Verdict:
        result = Verdict.NO
        for alternative in route.alternatives:
            if id(alternative) in self._broken:
                continue
            try:
                verdict = alternative.predicate(peeked)
            except Exception:  # noqa: BLE001 - a plugin's bug must not become this client's
                self._broken.add(id(alternative))
                self._detector.report(route, alternative)
                continue
            if alternative.negated:
                verdict = _NEGATED[verdict]
            if verdict is Verdict.MATCH:
                return verdict
            if verdict is Verdict.NEED_MORE:
                result = verdict
        return result


_NEGATED = {
    Verdict.MATCH: Verdict.NO,
    Verdict.NO: Verdict.MATCH,
    Verdict.NEED_MORE: Verdict.NEED_MORE,
}


def _serves(route: _Route, client: IPv4Address | IPv6Address | None) -> bool:
    if client is None:
        return route.allowed is None
    if route.excluded is not None and client in route.excluded:
        return False
    return route.allowed is None or client in route.allowed


def _learnt(routes: Iterable[_Route], peeked: Peeked) -> dict[str, str]:
    """Collect the facts that the routes' predicates see, asking one of each kind."""
    facts: dict[str, str] = {}
    kinds: set[type] = set()
    for route in routes:
        for alternative in route.alternatives:
            predicate = alternative.predicate
            learnt = getattr(predicate, "learnt", None)
            if learnt is None or type(predicate) in kinds:
                continue
            kinds.add(type(predicate))
            with contextlib.suppress(Exception):  # facts are worth no connection
                facts.update(learnt(peeked))
    return facts

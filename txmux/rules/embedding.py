"""Makes routes in Python, for programs that embed `MuxFactory`; rules files need none of this."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from twisted.internet.interfaces import IProtocolFactory

from txmux.detection.registry import installed_matchers
from txmux.errors import MuxError
from txmux.rules.model import (
    Backend,
    Clients,
    InProcess,
    Logged,
    NetworkSet,
    Outcome,
    Refusal,
    Route,
)
from txmux.rules.reading.endpoints import server
from txmux.rules.reading.endpointstrings import handover, is_handover
from txmux.rules.reading.matching import read_alternative
from txmux.rules.reading.values import network


def route(
    match: str | Iterable[str],
    backend: IProtocolFactory | Outcome | str,
    *,
    name: str | None = None,
    from_: Iterable[str] = (),
    not_from: Iterable[str] = (),
    log: Logged = True,
) -> Route:
    """Make a route, as a ``[route]`` section does.

    Args:
        match: One ``match =`` line, or several of which any is enough: ``"tls sni=*.example.com"``.
        backend: The outcome for its clients; see `outcome`.
        name: For the access log; the first ``match`` line if not given.
        from_: The only networks it serves, ``"10.0.0.0/8"``; none is every network.
        not_from: Networks that it does not serve.
        log: Whether its connections get a line in the access log; ``"errors"`` is only those that ended with an error.

    Raises:
        MuxError: Something cannot be used; the message says what would be right.
    """
    lines = [match] if isinstance(match, str) else list(match)
    if not lines:
        raise MuxError("a route needs a match line, such as 'any'")
    matchers = _matchers()
    return Route(
        name or lines[0],
        tuple(read_alternative(line, matchers) for line in lines),
        outcome(backend),
        clients=Clients(_networks(from_), _networks(not_from)),
        log=log,
    )


def outcome(backend: IProtocolFactory | Outcome | str) -> Outcome:
    """Make the outcome of a decision, for `route` and for the ``silent`` and ``default`` of a `Listener`.

    Args:
        backend: A Twisted protocol factory of this process, which gets the client's connection itself; a server in
            the short form of rules files, such as ``"127.0.0.1:22"``, or ``"handover:/path"``; ``"close"``, ``"reset"`` or ``"reject"``; or a ready outcome.

    Raises:
        MuxError: It is none of these.
    """
    if isinstance(backend, Outcome):
        return backend
    if isinstance(backend, str):
        if backend in {refusal.value for refusal in Refusal}:
            return Refusal(backend)
        if is_handover(backend):
            return handover(backend)
        return Backend(backend, (server(backend),))
    if IProtocolFactory.providedBy(backend):
        return InProcess(type(backend).__name__, backend)
    raise MuxError(
        f"{backend!r} is not a protocol factory, a server such as '127.0.0.1:22', 'close', 'reset' or 'reject'"
    )


# A program may make thousands of routes, and to look for plugins reads the disk.
_matchers = cache(installed_matchers)


def _networks(texts: Iterable[str]) -> NetworkSet | None:
    networks = [network(text) for text in texts]
    return NetworkSet(networks) if networks else None

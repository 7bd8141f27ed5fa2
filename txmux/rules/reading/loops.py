"""Servers that are the very listener whose clients are led to them."""

from __future__ import annotations

import ipaddress
import posixpath
from typing import TYPE_CHECKING

from txmux.rules.model import Backend
from txmux.rules.model.networks import is_address, unmapped
from txmux.rules.reading.conflicts import Claims, claims, of_datagrams, of_port

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from txmux.rules.model import Listener, Outcome, Route, Server
    from txmux.rules.problems import Problem

_THIS_MACHINE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not opened


def loops(listeners: Iterable[Listener], routes: Sequence[Route]) -> Iterator[Problem]:
    """Find what leads the clients of a listener to the same listener, where they would go round and round.

    Only what can be seen in the file: a server with the listener's address, or one of this machine by whatever name
    where it listens on every address. Where TLS begins or ends on the way, other routes decide the second time.

    Yields:
        A problem for each key that leads there.
    """
    told: set[tuple[str, str]] = set()
    for listener in listeners:
        own: Claims = set()
        for text in listener.endpoints:
            own |= claims(text)[0]
        led: list[tuple[str, Outcome | None, Listener | Route]] = [
            *(("silent", line.outcome, listener) for line in listener.silent),
            ("default", listener.default, listener),
        ]
        led += [
            ("backend", route.outcome, route)
            for route in routes
            if route.stands_under(listener) and not (route.terminate_tls or route.dry_run)
        ]
        for key, outcome, owner in led:
            message = next(
                filter(None, (_why(one, own, listener) for one in _servers(outcome))), ""
            )
            if message and (owner.section.header, key) not in told:
                told.add((owner.section.header, key))
                yield owner.section.problem(message, key)


def _why(server: Server, own: Claims, listener: Listener) -> str:
    """Return why the clients of a listener cannot be led to a server, or nothing."""
    if server.depends_on_client:
        # What they have asked for may be anywhere; else hops are counted, but only those of TCP.
        if listener.accept_proxy_from is not None and server.kind == "tcp":
            return ""
        if any(claim[0] == "unix" for claim in own):
            return f"{server.text!r} is the address that a client asked for, and those of a UNIX socket ask for none; write the server itself"
    if not _is_among(server, own):
        return ""
    return (
        f"leads back to [listen {listener.name}], which listens at {server.text!r}; "
        "write the address and port of the server itself"
    )


def _servers(outcome: Outcome | None) -> Iterator[Server]:
    """Yield the servers that bytes are led to as they are."""
    while isinstance(outcome, Backend):
        if outcome.tls is None:
            yield from [server for server in outcome.servers if not server.down]
        outcome = outcome.fallback


def _is_among(server: Server, own: Claims) -> bool:
    """Return whether all connections to a server come to a listener that takes this."""
    if server.kind == "unix":
        return ("unix", posixpath.normpath(server.path)) in own
    if server.kind not in {"tcp", "udp"}:
        return False
    if server.depends_on_client:
        ports = {("udp", server.port) if server.kind == "udp" else (server.port,)}
        return any(claim[:-2] in ports for claim in own)
    host = server.host.lower().rstrip(".")
    if host == "localhost":
        return all(own & _places(one, server) for one in ("127.0.0.1", "::1"))
    return bool(own & _places(_THIS_MACHINE.get(host, host), server))


def _places(host: str, server: Server) -> Claims:
    """Return what a listener takes one of, if what is sent to an address comes to it."""
    _, places = of_port(host, server.port)
    is_loopback = is_address(host) and unmapped(ipaddress.ip_address(host)).is_loopback
    # Of other addresses it cannot be seen whether they are this machine's.
    found = {place for place in places if place[2] != "every" or is_loopback}
    return of_datagrams(found) if server.kind == "udp" else found

"""Listeners that take the same address, and servers that are a listener of the same rules."""

from __future__ import annotations

import ipaddress
import itertools
import posixpath
from typing import TYPE_CHECKING

from txmux.rules.model import Backend
from txmux.rules.model.networks import is_address, unmapped
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading.datagrams import is_for_datagrams, listening_place
from txmux.rules.reading.endpoints import listening, short_form
from txmux.rules.reading.endpointstrings import SERVER, split_arguments

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from txmux.rules.model import Listener, Outcome, Route, Section, Server, Settings
    from txmux.rules.problems import Problem


_KEYS = ("endpoint", "admin", "metrics")
_SHAREABLE = frozenset({"tcp", "tcp6", "udp", "unix", "systemd"})
Claims = set[tuple[object, ...]]
"""Ports of addresses, as ``(port, family, address)`` with ``"every"`` for every address, and paths of sockets."""

_EVERY_ADDRESS = {"": (4, 6), "0.0.0.0": (4,), "::": (6,)}  # noqa: S104 - compared, not opened
_DEFAULT_INTERFACE = {"tcp": "0.0.0.0", "ssl": "0.0.0.0", "tls": "0.0.0.0", "tcp6": "::"}  # noqa: S104


def conflicts(sections: Iterable[Section]) -> Iterator[Problem]:
    """Find endpoints that want what an earlier one has.

    Args:
        sections: The ``[listen]`` sections, in the order of reading, and ``[txmux]``.

    Yields:
        A problem for each later endpoint, which names the earlier one.
    """
    first: dict[tuple[object, ...], str] = {}
    for section, key in itertools.product(sections, _KEYS):
        for number, item in enumerate(section.items(key)):
            claimed, refused = claims(item.text)
            if key != "endpoint" and item.text.startswith("unix:") and "/" not in item.text[:6]:
                continue  # relative paths of these start elsewhere
            other = next((first[claim] for claim in refused if claim in first), None)
            if other:
                message = (
                    f"{item.text!r} is taken by {other}; "
                    "remove one of the two, or change its port or path"
                )
                yield section.problem(message, key, number)
            for claim in claimed:
                first.setdefault(claim, f"{item.text!r} at {section.path}:{item.line}")


def unshareable(sections: Iterable[Section], settings: Settings) -> Iterator[Problem]:
    """Find endpoints that several workers cannot share, or that a confined one cannot open.

    Args:
        sections: The ``[listen]`` sections.
        settings: They say whether there are such workers.
    """
    which, instead = "several workers cannot share", ["workers = 1"] * (settings.workers > 1)
    if settings.sandbox == "yes":
        which = which if instead else "a confined worker cannot open"
        instead.insert(0, "sandbox = auto")
    for section in sections if instead else ():
        for number, item in enumerate(section.items("endpoint")):
            try:
                short = short_form(listening(item.text))
            except InvalidValueError:
                continue
            kind = item.text.partition(":")[0].lower()
            if short is None and kind not in _SHAREABLE:
                message = (
                    f"{which} an endpoint of type {kind!r}; write ADDRESS:PORT, :PORT, unix: or "
                    f"systemd:, or {' and '.join(instead)}"
                )
                yield section.problem(message, "endpoint", number)


def claims(text: str) -> tuple[Claims, Claims]:
    """Return what an endpoint takes, and what nothing before it may have taken: nothing if it cannot be read."""
    try:
        listening(text)
        if is_for_datagrams(text):
            claimed, refused = of_port(*listening_place(text))
            return of_datagrams(claimed), of_datagrams(refused)
        short = short_form(text)
        return of_port(*short) if short else _of_string(text)
    except InvalidValueError:
        return set(), set()


def of_datagrams(claims: Claims) -> Claims:
    return {("udp", *claim) for claim in claims}


def _of_string(text: str) -> tuple[Claims, Claims]:
    arguments = split_arguments(text)
    kind = arguments.kind.lower()
    if kind == "haproxy":
        return _of_string(text.partition(":")[2])
    if kind not in SERVER:
        return set(), set()
    given = SERVER[kind].check(arguments)
    if kind == "unix":
        return _one(kind, posixpath.normpath(given["address"]))
    if kind == "systemd":
        return _one(kind, given.get("index"), given.get("name"))
    host = given.get("interface") or _DEFAULT_INTERFACE[kind]
    return of_port(host, int(given["port"])) if "port" in given else (set(), set())


def _one(*claim: object) -> tuple[Claims, Claims]:
    return {claim}, {claim}


def of_port(host: str, port: int) -> tuple[Claims, Claims]:
    """Return what a port of an address, or of every address, takes, and what nothing before it may have taken."""
    if not port:
        return set(), set()
    every = _EVERY_ADDRESS.get(host)
    if every:
        some: Claims = {(port, family, "some") for family in every}
        return some | {(port, family, "every") for family in every}, some
    family, address = _address(host)
    this: tuple[object, ...] = (port, family, address)
    return {this, (port, family, "some")}, {this, (port, family, "every")}


def _address(host: str) -> tuple[int, str]:
    try:
        address = unmapped(ipaddress.ip_address(host))
    except ValueError:  # a name, which Twisted takes for an interface
        return 4, host
    return address.version, str(address)


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

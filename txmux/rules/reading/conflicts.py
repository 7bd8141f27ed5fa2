"""Contradictions between sections: addresses taken twice, loops, transports, and sockets that cannot be handed over."""

import ipaddress
import itertools
import os.path
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import attrs

from txmux.errors import joined
from txmux.files import on_disk, within_patience, without_links
from txmux.interfaces import Transport
from txmux.rules.installed import stages_in_use
from txmux.rules.model import (
    LOCAL,
    Backend,
    Handover,
    Listener,
    Outcome,
    Route,
    Section,
    Server,
    Settings,
)
from txmux.rules.model.backend import blamed
from txmux.rules.model.rules import each_once
from txmux.rules.problems import InvalidValueError, Problem
from txmux.rules.reading.endpoints import listening, parse_endpoint
from txmux.rules.reading.endpointstrings import PREFIX, ports_text, split_ports
from txmux.rules.reading.route import is_outer
from txmux.transport import is_address, unmapped

_KEYS = ("endpoint", "admin", "metrics")
_SHAREABLE = frozenset({"tcp", "tcp6", "udp", "unix", "systemd"})
T = TypeVar("T", Listener, Route)
Claims = set[tuple[Any, ...]]
"""Ports of addresses, as ``(port, family, address)`` with ``"every"`` for every address, and paths of sockets."""

_Named = Mapping[str, Mapping[str, list[Section]]]  # by kind and name

_EVERY_ADDRESS = {"": (4, 6), "0.0.0.0": (4,), "::": (6,)}  # noqa: S104 - compared, not opened


def put_holders_first(sections: _Named, precedence: Callable[[Section], int]) -> None:
    """Sort sections of one kind and name, so that the first is the one whose name it is."""
    for same in [its for kind in sections.values() for its in kind.values() if len(its) > 1]:
        same.sort(key=precedence)


def same_names(sections: _Named) -> Iterator[Problem]:
    """Find sections of one kind and name; all but the first are wrong."""
    several = [named for kind in sections.values() for named in kind.items() if len(named[1]) > 1]
    for name, (first, *others) in several:
        advice = "give one another name" if name else "put all its keys there"
        message = f"is already at {first.path}:{first.line}; {advice}"
        for section in others:
            yield section.problem(message).lost_to(first.path, first.line)


def holders(made: Sequence[T], contested: Iterable[Problem]) -> Sequence[T]:
    """Return those whose names are their own: what has only lost one to them cannot make them wrong."""
    lost = {(problem.path, problem.line) for problem in contested}
    if not lost:
        return made
    return [its for its in made if (its.section.path, its.section.line) not in lost]


def conflicts(
    sections: Iterable[Section], precedence: Callable[[Section, Claims], int] = lambda *_: 0
) -> Iterator[Problem]:
    """Find endpoints that an earlier one has taken; the problem names that."""
    first: dict[tuple[object, ...], tuple[str, Section]] = {}
    endpoints = [
        (section, key, number, item, claims(item.text))
        for section, key in itertools.product(sections, _KEYS)
        for number, item in enumerate(section.items(key))
    ]
    endpoints.sort(key=lambda its: precedence(its[0], its[4][0]))
    for section, key, number, item, (claimed, refused) in endpoints:
        if key != "endpoint" and item.text.startswith("unix:") and "/" not in item.text[:6]:
            continue  # relative paths of these start elsewhere
        taken: dict[str, tuple[Section, set[int]]] = {}
        for claim in filter(first.__contains__, refused):
            other, holder = first[claim]
            taken.setdefault(other, (holder, set()))[1].update(claim[-3:-2])
        for other, (holder, ports) in sorted(taken.items(), key=itemgetter(0)):
            advice = "remove one of the two, or change its port or path"
            which = f" ({ports_text(ports)})" if split_ports(item.text) else ""
            message = f"{item.text!r} is taken by {other}{which}; {advice}"
            yield section.problem(message, key, number).lost_to(holder.path, holder.line)
        place = f"{item.text!r} at {section.path}:{section.line_of(item)}"
        for claim in claimed:
            first.setdefault(claim, (place, section))


def unshareable(
    sections: Iterable[Section], settings: Settings, units: Collection[str]
) -> Iterator[Problem]:
    """Find endpoints that several workers cannot share, that a confined one cannot open, or that are not for units.

    `units` are the files of units.
    """
    which, instead = "several workers cannot share", ["workers = 1"] * (settings.workers > 1)
    if settings.sandbox == "yes":
        which = which if instead else "a confined worker cannot open"
        instead.insert(0, "sandbox = auto")
    for section in sections:
        is_of_unit = section.path in units
        if not (instead or is_of_unit):
            continue
        for number, item in enumerate(section.items("endpoint")):
            try:
                kind = parse_endpoint(listening(item.text)).kind
            except InvalidValueError:
                continue
            # Which sockets systemd passes is the operator's to say.
            if kind not in _SHAREABLE or (is_of_unit and kind == "systemd"):
                advice = "write ADDRESS:PORT, :PORT, unix:/path, "
                if is_of_unit:
                    which, advice = (
                        "an included file cannot have",
                        f"{advice}or move it to the main file",
                    )
                else:
                    advice += f"or {' and '.join(map(repr, instead))} in [txmux]"
                message = f"{which} an endpoint of type {kind!r}; {advice}"
                yield section.problem(message, "endpoint", number)


def claims(text: str) -> tuple[Claims, Claims]:
    """Return what an endpoint takes, and what nothing before it may have taken: nothing if it cannot be read."""
    try:
        text = listening(text)
        if (several := split_ports(text)) is not None:
            before, ports = several
            claimed, refused = claims(f"{before}{ports.start}")
            return _at_each(claimed, ports), _at_each(refused, ports)
        parsed = parse_endpoint(text)
    except InvalidValueError:
        return set(), set()
    if parsed.kind == "haproxy":
        return claims(text.partition(":")[2])
    if parsed.kind == "unix":
        return _one("unix", real_path(parsed.named["address"]))
    if parsed.kind == "systemd":
        return _one("systemd", parsed.named.get("index"), parsed.named.get("name"))
    claimed, refused = of_port(parsed.host, parsed.port)
    is_udp = parsed.kind == "udp"
    return (of_datagrams(claimed), of_datagrams(refused)) if is_udp else (claimed, refused)


def real_path(path: str) -> str:
    """Return the same for all paths of a socket: the second of two that are bound at a start would replace the first's file."""
    folder, name = os.path.split(path)
    try:
        folder = within_patience(_real_folder, path)
    except TimeoutError:  # of one owner, which others do not wait for
        folder = os.path.abspath(folder)  # noqa: PTH100 - without a look at the disk
    return f"{folder}/{name}"


def leads_to(path: str, real_paths: Collection[str]) -> bool:
    """Return whether a path is one of these, from `real_path`; most are seen to be none by their names."""
    name = f"/{os.path.basename(path)}"  # noqa: PTH119
    return any(one.endswith(name) for one in real_paths) and real_path(path) in real_paths


def _real_folder(path: str) -> str:
    with on_disk(Path(path)):
        return without_links(os.path.dirname(path))  # noqa: PTH120 - that of a bare name is empty


def _at_each(claims: Claims, ports: range) -> Claims:
    return {(*claim[:-3], port, *claim[-2:]) for claim in claims for port in ports}


def of_datagrams(claims: Claims) -> Claims:
    return {("udp", *claim) for claim in claims}


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
    family = 4  # of a name, which Twisted takes for an interface
    if is_address(host):
        address = unmapped(ipaddress.ip_address(host))
        family, host = address.version, str(address)
    this: tuple[object, ...] = (port, family, host)
    return {this, (port, family, "some")}, {this, (port, family, "every")}


_THIS_MACHINE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not opened


def loops(
    listeners: Iterable[Listener], routes: Sequence[Route], owners: Mapping[int, str]
) -> Iterator[Problem]:
    """Find servers that are the listener of their own clients: their connections would loop.

    Only what can be seen in the file: a server with the listener's address, or one of this machine by whatever name
    where it listens on every address. Where TLS begins or ends on the way, other routes decide the second time.
    """
    reported: set[tuple[str, str]] = set()
    for listener in listeners:
        own: Claims = set()
        for text in listener.endpoints:
            own |= claims(text)[0]
        # Thousands of routes may have the same few backends.
        whys: dict[int, tuple[str, Backend | None]] = {}
        destinations: list[tuple[str, Outcome | None, Listener | Route]] = [
            *(("silent", line.outcome, listener) for line in listener.silent),
            ("default", listener.default, listener),
        ]
        destinations += [
            ("backend", route.outcome, route)
            for route in routes
            if route.stands_under(listener) and not (route.is_outer or route.dry_run)
        ]
        for key, outcome, leading in destinations:
            if id(outcome) not in whys:
                reasons = ((_why(server, own, listener), its) for its, server in _servers(outcome))
                whys[id(outcome)] = next(filter(itemgetter(0), reasons), ("", None))
            message, its = whys[id(outcome)]
            if message and (leading.section.header, key) not in reported:
                reported.add((leading.section.header, key))
                yield from blamed(leading.section, key, message, [outcome], its, owners)


def _why(server: Server, own: Claims, listener: Listener) -> str:
    if server.placeholder:
        return ""
    if server.host == LOCAL:
        # The address that they connected to may be anywhere; else hops are counted, but only those of TCP.
        if listener.accept_proxy_from is not None and server.kind == "tcp":
            return ""
        if any(claim[0] == "unix" for claim in own):
            return f"{server.text!r} is the address that a client connected to, and clients of a UNIX socket have none; write the server itself"
    if not _is_among(server, own):
        return ""
    return (
        f"leads back to [listen {listener.name}], which listens at {server.text!r}; "
        "write the address and port of the server itself"
    )


def _servers(outcome: Outcome | None) -> Iterator[tuple[Backend, Server]]:
    """Yield the servers that get the bytes unchanged, each with its backend."""
    while isinstance(outcome, Backend):
        if outcome.proxy is not None:
            yield outcome, outcome.proxy.server  # the servers are where that is
        elif outcome.tls is None:
            yield from [(outcome, server) for server in outcome.servers if not server.down]
        outcome = outcome.fallback


def _is_among(server: Server, own: Claims) -> bool:
    """Return whether all connections to a server come to a listener that takes this."""
    if server.kind == "unix":
        return leads_to(server.path, {str(claim[1]) for claim in own if claim[0] == "unix"})
    if server.kind not in {"tcp", "udp"}:
        return False
    if server.host == LOCAL or not server.port:
        of = ("udp",) * (server.kind == "udp")
        # One port of each address, where the client's own counts: it is the same at the others.
        ports = {
            (server.port and claim[-3], *claim[-2:]): claim[-3]
            for claim in own
            if claim[:-3] == of and isinstance(claim[-3:][0], int)
        }.values()
        if server.host == LOCAL:
            return any(server.port in {0, port} for port in ports)
        return any(_is_among(attrs.evolve(server, port=port), own) for port in ports)
    host = server.host.lower().rstrip(".")
    if host == "localhost":
        return all(own & _addresses_of(one, server) for one in ("127.0.0.1", "::1"))
    return bool(own & _addresses_of(_THIS_MACHINE.get(host, host), server))


def _addresses_of(host: str, server: Server) -> Claims:
    """Return what a listener takes one of, if what is sent to an address comes to it."""
    _, claims_there = of_port(host, server.port)
    is_loopback = is_address(host) and unmapped(ipaddress.ip_address(host)).is_loopback
    # Of other addresses it cannot be seen whether they are this machine's.
    addresses = {claim for claim in claims_there if claim[2] != "every" or is_loopback}
    return of_datagrams(addresses) if server.kind == "udp" else addresses


def wrong_transports(
    listeners: Iterable[Listener],
    routes: Iterable[Route],
    backends: Iterable[Backend],
    owners: Mapping[int, str],
) -> Iterator[Problem]:
    """Find outcomes that forward clients of one transport to servers of the other."""
    for backend in [its for its in backends if its.fallback is not None and its.servers]:
        other = _server_of_another(backend.fallback, backend.transport)
        if other:
            message = f"{other}, but this backend uses {_word(backend.transport)}; {_other_server(backend.fallback)}"
            led = backend.fallback
            yield from blamed(backend.section, "fallback", message, [led], led, owners)
    of = {listener.name: listener for listener in listeners}
    for listener in of.values():
        destinations = [("default", listener.default)]
        destinations += [("silent", line.outcome) for line in listener.silent]
        for key, outcome in destinations:
            other = _server_of_another(outcome, listener.transport)
            if other:
                message = f"{other}, but [listen {listener.name}] uses {listener.transport.value.upper()}; {_other_server(outcome)}"
                yield from blamed(listener.section, key, message, [outcome], outcome, owners)
    # A route of a unit names its listeners.
    transports = {listener.transport for listener in of.values() if not listener.is_of_unit}
    ends = {route.name for route in routes if route.is_outer}
    # Thousands of routes may have the same few backends, and matchers of the same transports.
    right = set[object]()
    for route in routes:
        over = tuple((line.streams, line.datagrams is None) for line in route.alternatives)
        kind = id(route.outcome), route.under, route.opens, over
        if kind in right:
            continue
        over_it = {f"[listen {name}]": of[name].transport for name in route.under if name in of}
        over_it |= {f"[route {name}]": Transport.TCP for name in route.under if name in ends}
        found = [*_of_route(route, over_it, transports)]
        if not found:
            right.add(kind)
        for key, message in found:
            yield from blamed(route.section, key, message, [route.outcome], route.outcome, owners)


def _of_route(
    route: Route, owners: Mapping[str, Transport], transports: Collection[Transport]
) -> Iterator[tuple[str, str]]:
    """Find what does not go together; the owners are those that the route is under."""
    opens = route.opens
    if opens and _server_of_another(route.outcome, Transport.TCP):
        message = f"its servers use UDP, but {opens.is_over} over TCP only; use another backend"
        yield "backend", message
        return
    own = route.transport
    other = next((owner for owner, over in owners.items() if own not in {None, over}), "")
    is_nowhere = not owners and own is not None and bool(transports) and own not in transports
    if opens and (other or is_nowhere):
        where = f"{other} uses UDP" if other else "no [listen] uses TCP"
        yield opens.key, f"{opens.comes_over} over TCP only, and {where}; {opens.otherwise}"
        return
    if other:
        message = f"its servers use {_word(own)}, but {other} uses {_word(owners[other])}; {_other_server(route.outcome)}"
        yield "backend", message
        return
    if is_nowhere and not route.under:
        advice = "add a listener"
        if any(map(route.for_transport, transports)):
            advice = f"{_other_server(route.outcome)}, or {advice}"
        message = f"its servers use {_word(own)}, but no [listen] does; {advice}"
        yield "backend", message
        return
    expected = set(owners.values()) or ({own} if own else set(transports))
    missing = [
        transport
        for transport in expected
        if route.alternatives and not route.for_transport(transport)
    ]
    if missing and (owners or len(missing) == len(expected)):
        word = _word(missing[0])
        where = next(
            (f"{owner} uses {word}" for owner, over in owners.items() if over in missing),
            f"its backend uses {word}" if own else f"every [listen] uses {word}",
        )
        theirs = Transport.UDP if missing[0] is Transport.TCP else Transport.TCP
        lines = joined([repr(line.text) for line in route.alternatives], "and")
        endpoint = "udp:PORT" if theirs is Transport.UDP else ":PORT"
        message = (
            f"{lines} {'works' if len(route.alternatives) == 1 else 'work'} only over {_word(theirs)}, but {where}; "
            f"put the route under a listener with 'endpoint = {endpoint}' and name a server of {_word(theirs)}"
        )
        yield "match", message


def _word(transport: Transport | None) -> str:
    return "" if transport is None else transport.value.upper()


def _server_of_another(outcome: Outcome | None, transport: Transport) -> str:
    if isinstance(outcome, Backend) and outcome.servers and outcome.transport != transport:
        return f"the servers of {outcome.name!r} use {outcome.transport.value.upper()}"
    return ""


def _other_server(outcome: Outcome | None) -> str:
    """Return what to write in place of an outcome: a server without a [backend] may be one of the other transport."""
    named = outcome.name if isinstance(outcome, Backend) else ""
    server = outcome.servers[0] if isinstance(outcome, Backend) and outcome.servers else None
    if server is None or server.text != named or server.kind not in {"tcp", "udp"}:
        return "use another backend"
    other = server.text.removeprefix(PREFIX) if server.kind == "udp" else f"{PREFIX}{server.text}"
    return f"write {other}, or use another backend"


def unknown_certificates(
    routes: Sequence[Route], unit_of: Callable[[Section], str]
) -> Iterator[Problem]:
    """Find routes whose ``client_cert`` never holds: no client is asked for a certificate, or the conditions exclude each other."""
    if all(route.client_cert is None for route in routes):
        return
    # By what is written, since files that cannot be read leave nothing else.
    ends = {one.name: one for one in routes if is_outer(one.section) or one.opens}
    for route in routes:
        condition = route.client_cert
        if condition is None:
            continue
        over = [*filter(None, (_asks_nobody(name, ends) for name in route.under))]
        if condition.is_contradictory:
            message = "'none' and 'revoked' are for clients without a valid certificate, so the rest never holds; write a route for each"
            yield route.section.problem(message, "client_cert")
        elif over:
            yield route.section.problem(f"never holds: {over[0]}", "client_cert")
        elif not route.under:
            asking = [
                one.name
                for one in ends.values()
                if "tls_client_ca" in one.section.entries
                and unit_of(one.section) == unit_of(route.section)
            ]
            name = f"'under = {asking[0]}'" if asking else "'under' with the name of such a route"
            message = f"a client's certificate is known only in routes under one with 'terminate_tls' and 'tls_client_ca'; add {name}"
            yield route.section.problem(message, "client_cert")


def _asks_nobody(name: str, ends: Mapping[str, Route]) -> str:
    """Return what is wrong if clients of a listener or route come without being asked for a certificate."""
    end = ends.get(name)
    if end is None:
        return f"[listen {name}] knows no certificates, which are shown inside TLS; name a route with 'tls_client_ca' instead"
    reached = each_once([end], _over(ends), lambda one: "tls_client_ca" in one.section.entries)
    if all(one.under and ends.keys() >= {*one.under} for one in reached):
        return ""
    return f"[route {name}] asks clients for no certificate; add 'tls_client_ca' there"


def _over(ends: Mapping[str, Route]) -> Callable[[Route], Iterable[Route]]:
    return lambda route: (ends[name] for name in route.under if name in ends)


_PLAIN = frozenset({"tcp", "tcp6", "systemd"})
"""The endpoint strings whose clients have a plain TCP socket."""

_HandoverPlace = tuple["Section", str, "int | None"]


def misplaced(
    listeners: Iterable[Listener],
    routes: Iterable[Route],
    owners: Mapping[int, str] = MappingProxyType({}),
) -> Iterator[Problem]:
    """Find keys that hand over sockets which may have lost bytes by then, or are not plain ones."""
    names = tuple(routes)
    ends = {route.name: route for route in names if route.is_outer}
    reported: set[tuple[str, str, int | None]] = set()
    for route in names:
        if isinstance(route.outcome, Handover) and (message := _why_not_inside_tls(route, ends)):
            yield route.section.problem(message, "backend")
            reported.add((route.section.header, "backend", None))
    for listener in listeners:
        own = [route for route in names if route.stands_under(listener) and not route.dry_run]
        destinations = [*_handovers(listener, own)]
        message, answering = _why_not(listener, own) if destinations else ("", None)
        for section, key, number in destinations if message else ():
            if answering and id(section) not in owners and id(answering.section) in owners:
                why = f"{key!r} of [{section.header}] hands over sockets: {message}"
                yield answering.section.problem(why, "match")
            elif (section.header, key, number) not in reported:
                reported.add((section.header, key, number))
                yield section.problem(message, key, number)
        if any(key != "backend" for _, key, _ in destinations):
            yield from _left_inside(listener, ends)


def _why_not_inside_tls(route: Route, ends: Mapping[str, Route]) -> str:
    outer = [route, *(ends[name] for name in route.under if name in ends)]
    answered = [opens.answered for one in outer if (opens := one.opens) and opens.answered]
    if answered:
        return f"{answered[0]} have been answered here, and their requests cannot be taken back; name a server"
    if route.terminate_tls is not None:
        return "this route terminates TLS, so no other program could use the socket; name a server"
    over = next((name for name in route.under if name in ends), "")
    if over:
        return (
            f"[route {over}] terminates TLS, so no other program could use the socket; name a server, "
            "or put it under a listener"
        )
    return ""


def _handovers(listener: Listener, routes: Iterable[Route]) -> Iterator[_HandoverPlace]:
    for number, line in enumerate(listener.silent):
        if isinstance(line.outcome, Handover):
            yield listener.section, "silent", number
    if isinstance(listener.default, Handover):
        yield listener.section, "default", None
    for route in routes:
        if isinstance(route.outcome, Handover):
            yield route.section, "backend", None


def _why_not(listener: Listener, routes: Iterable[Route]) -> tuple[str, Route | None]:
    """Return why no socket of a listener can be handed over, and the route to which that is due."""
    where = f"[listen {listener.name}]"
    if listener.transport is Transport.UDP:
        return f"sockets are handed over for TCP only, but {where} uses UDP; name a server", None
    if begun := stages_in_use("listen", listener):
        why = f"{where} has begun with each client by {begun[0].key!r}, which no other program knows; name a server"
        return why, None
    for text in listener.endpoints:
        kind = text.partition(":")[0].lower()
        is_string = kind[:1].isalpha()
        if (is_string and kind not in _PLAIN) or "domain=unix" in text.lower():
            why = f"{text!r} of {where} has no plain TCP sockets to hand over; write ADDRESS:PORT there, or name a server"
            return why, None
    lines = ((route, line) for route in routes for line in route.alternatives)
    for route, line in lines:
        if getattr(line.predicate, "exchanges", None) is not None:
            why = (
                f"[route {route.name}] of {where} may have answered the client first, and its request cannot be taken back; "
                "put one of the two under another listener, or name a server"
            )
            return why, route
    return "", None


def _left_inside(listener: Listener, ends: Mapping[str, Route]) -> Iterator[Problem]:
    """Find routes that end TLS or open something and leave clients to a listener that hands over their sockets."""
    for route in ends.values():
        opens = route.opens
        if opens and route.outcome is None and comes_to(route, listener, ends):
            yield route.section.problem(
                f"clients that no route takes inside {opens.inside} go to 'silent' or 'default' of [listen {listener.name}], which hands "
                "over sockets: no other program could use these; add 'backend'",
                opens.key,
            )


def comes_to(route: Route, listener: Listener, ends: Mapping[str, Route]) -> bool:
    return any(one.stands_under(listener) for one in each_once([route], _over(ends)))


def has_handover(outcomes: Iterable[object]) -> bool:
    return any(isinstance(outcome, Handover) for outcome in outcomes)

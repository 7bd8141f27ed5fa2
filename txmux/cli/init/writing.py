"""Writes a rules file for the servers of a machine."""

import shlex
from collections.abc import Iterable, Iterator, Sequence

from txmux.cli.init.services import HTTP, SSH, TLS, FoundService, Listening, ServiceKind
from txmux.transport import bracketed

OWN_PROGRAM = "txmux"
"""The name of the program that serves: its own sockets are not servers for clients."""

_USUAL = (443, 8443, 4443, 10443, 20443)
_HERE = "127.0.0.0/8, ::1"
_NEAR = f"{_HERE}, 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, fc00::/7, fe80::/10"


def endpoint(servers: Sequence[Listening], *, first_unprivileged: int) -> tuple[str, list[str]]:
    """Choose where txmux is to listen; return the endpoint, and comments on it, a line each."""
    taken = {server.port: server for server in servers}
    free = [port for port in _USUAL if port not in taken]
    usable = [port for port in free if port >= first_unprivileged]
    port = (usable or free or [0])[0]
    first = _USUAL[0]
    if first in taken and taken[first].program == OWN_PROGRAM:
        why = [
            f"Port {first} is taken by a txmux that runs already: it may be better to add these routes to its rules."
        ]
    elif first in taken:
        program = taken[first].program or "another program"
        why = [
            f"Port {first} is taken by {program}. To put txmux there, have that listen on 127.0.0.1:8443, say,",
            f"change the server of the route here, and write endpoint = :{first}.",
        ]
    elif port != first:
        why = [
            f"Port {first} needs root, or CAP_NET_BIND_SERVICE; for that write endpoint = :{first}."
        ]
    else:
        why = []
    return f":{port}", why


def rules_text(
    services: Sequence[FoundService],
    where: str,
    why: Sequence[str],
    *,
    probed: bool,
    name: str | None = None,
) -> str:
    routes, silent, rest = _sorted(services)
    lines = [
        "# Rules for txmux, begun by `txmux init` with what listens on this machine.",
        "# It connected to the servers, and asked what they speak."
        if probed
        else "# It connected to no server.",
        "#",
        "# What to do next:",
        "#   - read this file: is each route right, and may everybody who reaches txmux reach that server?",
        f"#   - txmux check {shlex.quote(name or 'FILE')}",
        f"#   - txmux run {shlex.quote(name or 'FILE')}",
        "#   - let it run as a service: see 'Run as a service' in the documentation",
        "",
        "[listen public]",
        *(f"# {line}" for line in why),
        f"endpoint = {where}",
        "# Clients that say nothing, since they wait for the server to speak:",
        *_silent(silent),
        "# Clients that no route takes:",
        "default  = close",
    ]
    for service, kind in routes:
        lines += ["", f"# {_described(service)}", *_route(service, kind)]
    for service in (*silent[:1], *(service for service, _ in routes)):
        lines += _backend(service)
    lines += _suggested([*silent[1:], *rest])
    if rest and not probed:
        lines += ["", "# Of those above, txmux init --probe asks what they speak."]
    return "".join(f"{line}\n" for line in lines)


def _sorted(
    services: Sequence[FoundService],
) -> tuple[list[tuple[FoundService, ServiceKind]], list[FoundService], list[FoundService]]:
    """Split services into those that get a route, one for each protocol, those whose clients wait for the server, and the rest.

    What is guessed has no route.
    """
    order = [SSH, TLS, HTTP]
    known = [service for service in services if not service.is_guess]
    recognised = [(service, service.kind) for service in known if service.kind]
    recognised.sort(key=lambda pair: order.index(pair[1]) if pair[1] in order else len(order))
    routes: dict[str, tuple[FoundService, ServiceKind]] = {}
    silent: list[FoundService] = []
    rest = [service for service in services if service.kind is None or service.is_guess]
    for service, kind in recognised:
        if not kind.matcher:
            silent.append(service)
        elif kind.matcher in routes:
            rest.append(service)
        else:
            routes[kind.matcher] = service, kind
    return [*routes.values()], silent, rest


def _silent(services: Iterable[FoundService]) -> Iterator[str]:
    for service in services:
        networks = _HERE if service.listening.is_local else _NEAR
        yield f"# {_described(service)}"
        yield f"silent   = {_target(service)} from={networks.replace(' ', '')}"
        return
    yield "silent   = close"


def _route(service: FoundService, kind: ServiceKind) -> Iterator[str]:
    yield f"[route {kind.matcher}]"
    yield f"match   = {kind.matcher}"
    if not kind.is_public:
        if service.listening.is_local:
            yield "# So far only this machine reaches it."
            yield f"from    = {_HERE}"
        else:
            yield "# Private networks alone; take this away if everybody may reach it."
            yield f"from    = {_NEAR}"
    yield f"backend = {_target(service)}"


def _backend(service: FoundService) -> Iterator[str]:
    """Yield the section that a server needs which cannot be written as a backend in short."""
    if service.has_header:
        yield ""
        yield "# It answers only behind a PROXY header."
        yield f"[backend {_target(service)}]"
        yield f"server         = {_address(service)}"
        yield "proxy_protocol = v2"


def _suggested(services: Iterable[FoundService]) -> Iterator[str]:
    """Yield what a person has to decide, as comments."""
    for service in services:
        port = service.listening.port
        yield ""
        yield f"# {_described(service)}"
        if service.kind is None:
            match = "payload text='what its clients say first'"
        elif not service.kind.matcher:
            yield "# Its clients say nothing, so no route recognises them; they need a listener of their own, or `silent` of one:"
            yield f"# silent = {_target(service)} from=192.0.2.0/24"
            yield from (f"# {line}" for line in _backend(service) if line)
            continue
        elif service.is_guess:
            match = service.kind.matcher
            yield "# That is a guess, and whether it expects TLS or a PROXY header is not known:"
        else:
            option = {"tls": " sni=other.example.com", "http": " host=other.example.com"}
            match = service.kind.matcher + option.get(service.kind.matcher, "")
            yield "# A second server of that protocol; put its route above the other one, with what distinguishes its clients:"
        yield f"# [route {service.kind.matcher if service.kind else 'service'}-{port}]"
        yield f"# match   = {match}"
        yield f"# backend = {_target(service)}"
        yield from (f"# {line}" for line in _backend(service) if line)


def _described(service: FoundService) -> str:
    listening = service.listening
    where = f"{listening.program or 'a program'} at {bracketed(listening.address)}:{listening.port}"
    if service.kind is None:
        return f"{where}: not recognised."
    how = _HOW[service.by] + (", behind a PROXY header" if service.has_header else "")
    return f"{where}: {'perhaps ' * service.is_guess}{service.kind.name}{how}."


_HOW = {"program": "", "greeting": ", as it says itself", "answer": ", as it answers", "port": ", by its port"}  # fmt: skip


def _target(service: FoundService) -> str:
    """Return how routes name a server: by its address, or by its backend."""
    if not service.has_header:
        return _address(service)
    name = (service.kind and service.kind.matcher) or "server"
    return f"{name}-{service.listening.port}"


def _address(service: FoundService) -> str:
    host, port = service.listening.reached_at
    return f"{bracketed(host)}:{port}"

"""The sections of a rules file that Gateways and their routes make. Pure."""

from collections.abc import Iterator, Sequence

import attrs

from txmux.classes import define
from txmux.cli.labels import section
from txmux.features.gateway.listeners import GatewayListener, GatewaySettings, specificity
from txmux.features.gateway.routes import GatewayRoute, covers
from txmux.interfaces import ProvidedObject

LISTEN_KEYS = frozenset({"endpoint", "default", "first", "silent"})
"""What the provider writes of listeners."""


@define(eq=False)
class _GatewayPort:
    """A port of Gateways, with its listeners, and the host names or all clients that routes have there."""

    listeners: list[GatewayListener] = attrs.field(factory=list)
    routes: list[tuple[GatewayListener, str, GatewayRoute]] = attrs.field(factory=list)


def make_sections(
    listeners: Sequence[GatewayListener], routes: Sequence[GatewayRoute], settings: GatewaySettings
) -> Iterator[ProvidedObject]:
    """Yield the objects of a rules file in the order of their routes.

    Each port is a unit. Of a route with several sections, each is an object with its title; the first that leads to
    a backend has it.

    Args:
        listeners: In the order of their precedence.
        routes: The oldest first.
        settings: Where ports are.
    """
    ports: dict[str, _GatewayPort] = {}
    for listener in listeners:
        if listener.holds_place:
            ports.setdefault(listener.section, _GatewayPort()).listeners.append(listener)
    for its in routes:
        if its.problem:
            yield ProvidedObject(its.title, problem=its.problem)
        for attached in its.parents:
            for listener, names in attached.listeners:
                if listener.holds_place:
                    ports[listener.section].routes += [(listener, name, its) for name in names]
    for name, port in ports.items():
        for title, text, refusing in _of_port(name, port, settings):
            yield ProvidedObject(title, text, unit=name, refusing=refusing)


def _of_port(
    name: str, port: _GatewayPort, settings: GatewaySettings
) -> Iterator[tuple[str, str, str]]:
    """Yield titles, each with its sections, and with those that refuse the same clients."""
    first = port.listeners[0]
    udp = "udp" * (first.protocol == "UDP")
    endpoint = f"{udp}:{settings.ports.get(first.port, first.port)}"
    plain = [(listener, its) for listener, _, its in port.routes if listener.protocol != "TLS"]
    rest_of, rest = next(
        ((listener, its) for listener, its in plain if not its.keys_at(listener)), (first, None)
    )
    outcome = rest.backend_for(rest_of) if rest else "close"
    listen = {"endpoint": [endpoint], "default": [outcome]}
    refusing = "\n" + section("listen", name, {**listen, "default": ["close"]})
    if rest and not udp:  # its server may speak first
        is_alone = len(plain) == len(port.listeners) == 1
        listen |= {"first": ["server"]} if is_alone else {"silent": [outcome]}
    yield first.port_title, "\n" + section("listen", name, listen), refusing
    begun: set[str] = set()
    if rest is not None:
        yield rest.title, _backend(rest, rest_of, begun), ""
    before: list[GatewayListener] = []
    for listener in sorted(port.listeners, key=_precedence):
        is_tls = listener.protocol == "TLS"
        mine = [
            (host, its)
            for parent, host, its in port.routes
            if parent is listener
            and its is not rest
            # Clients of that name have come to a listener before it.
            and not (is_tls and any(covers(narrow.hostname, host) for narrow in before))
        ]
        mine.sort(key=lambda one: (specificity(one[0]), not one[1].takes_some(listener)))
        for host, its in mine:
            refusing = _route(listener, host, its, is_refused=True)
            yield its.title, _route(listener, host, its) + _backend(its, listener, begun), refusing
        before.append(listener)
        is_full = any(host == listener.hostname and not its.keys_at(listener) for host, its in mine)
        # Its clients are of no listener with a wider name.
        if is_tls and not is_full:
            keys = {"match": [_sni(listener.hostname)], "under": [name], "backend": ["reject"]}
            refusing = "\n" + section("route", f"{listener.word}_rest", keys)
            yield first.port_title, refusing, refusing


def _precedence(listener: GatewayListener) -> tuple[bool, tuple[bool, bool, int]]:
    return listener.protocol != "TLS", specificity(listener.hostname)


def _sni(hostname: str) -> str:
    return f"tls sni={hostname}" if hostname else "tls"


def _backend(its: GatewayRoute, listener: GatewayListener, begun: set[str]) -> str:
    name = its.backend_for(listener)
    if name in begun or name not in its.backends:
        return ""
    begun.add(name)
    return "\n" + section("backend", name, its.backends[name])


def _route(
    listener: GatewayListener, host: str, its: GatewayRoute, *, is_refused: bool = False
) -> str:
    is_tls = listener.protocol == "TLS"
    keys = {"match": [_sni(host)] if is_tls else ["any"], **its.keys_at(listener)}
    outcome = listener.refusal if is_refused else its.backend_for(listener)
    keys |= {"under": [listener.section], "backend": [outcome]}
    if listener.terminates and keys["backend"] != ["reject"]:
        keys["terminate_tls"] = listener.certificates
        if listener.authorities:
            keys["tls_client_ca"] = [listener.authorities]
    # No host name begins with a dot, so a wildcard has a name of its own.
    words = [its.section, listener.word, *[host.removeprefix("*")] * bool(host)]
    return "\n" + section("route", "_".join(words), keys)

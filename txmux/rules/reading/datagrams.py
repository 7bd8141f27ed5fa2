"""Where datagrams come in and go to, ``udp:…``, and what the two transports have in common and what not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from txmux.interfaces import Transport
from txmux.rules.model import Backend, Server
from txmux.rules.model.networks import is_address
from txmux.rules.problems import InvalidValueError, joined
from txmux.rules.reading.endpointstrings import link_scope, server_host
from txmux.rules.reading.values import whole_number

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from txmux.rules.model import Listener, Outcome, Route, Section
    from txmux.rules.problems import Problem

PREFIX = "udp:"
"""With this begins whatever is for datagrams."""

_PLACE = re.compile(r"(?:\[(?P<v6>[^\[\]]*)\]:|(?P<host>[^:\[\]]*):)?(?P<port>[^:]*)")
_listening_port = whole_number(0, 65535, "a port")
_server_port = whole_number(1, 65535, "a port")

_STREAMS_ALONE: Mapping[str, Mapping[str, str]] = {
    "listen": {
        "silent": "a datagram is a whole message, so no client is silent; remove it",
        "first": "is for TCP: with datagrams the client always speaks first; remove it",
        "race": "is for TCP; remove it",
        "proxy_timeout": "is for TCP: a PROXY header is in the datagram itself; remove it",
        "backlog": "is for TCP; remove it",
        "keepalive": "is for TCP; remove it",
        "tls_strict": "is for TCP; remove it",
        "max_connections": "is for TCP; write max_flows",
        "max_connections_per_source": "is for TCP; write max_flows_per_source",
        "max_undecided_per_source": "is for TCP; write max_flows_per_source",
    },
    "backend": {
        "connect_timeout": "is for TCP; write unanswered_timeout",
        "half_close_timeout": "is for TCP: datagrams have no end; remove it",
        "upload_idle_timeout": "is for TCP; write idle_timeout",
        "download_idle_timeout": "is for TCP; write idle_timeout",
        "max_duration": "is for TCP; remove it",
        "tls": "is for TCP; remove it",
        "alpn": "is for TCP; remove it",
        "queue": "is for TCP: datagrams do not wait; remove it",
        "queue_timeout": "is for TCP: datagrams do not wait; remove it",
        "upload_rate": "is for TCP; remove it",
        "download_rate": "is for TCP; remove it",
        "proxy_tlvs": "is for TCP; remove it",
    },
}
DATAGRAMS_ALONE: Mapping[str, Sequence[str]] = {
    "listen": ("max_flows", "max_flows_per_source"),
    "backend": ("unanswered_timeout", "answers", "proxy_every"),
}
"""The keys that mean something for UDP only, by the kind of their section."""


def is_for_datagrams(text: str) -> bool:
    return text.lower().startswith(PREFIX)


def listening_place(text: str) -> tuple[str, int]:
    """Read where datagrams come in.

    Args:
        text: ``udp:PORT``, ``udp:ADDRESS:PORT`` or ``udp:[V6]:PORT``.

    Returns:
        The IP address, empty for every address, and the port.

    Raises:
        InvalidValueError: What is wrong with it.
    """
    host, port = _split(text, "udp:PORT, udp:ADDRESS:PORT or udp:[V6]:PORT")
    if host.isdecimal():
        raise InvalidValueError(f"{text!r}: write the address first, as udp:127.0.0.1:{host}")
    if host and not is_address(host):
        raise InvalidValueError(
            f"{host!r} is not an IP address; write udp:ADDRESS:{port}, or udp:{port} for every address"
        )
    return host, _listening_port(port)


def datagram_server(text: str) -> Server:
    """Read ``udp:HOST:PORT``.

    Raises:
        InvalidValueError: What is wrong with it.
    """
    host, port = _split(text, "udp:HOST:PORT or udp:[V6]:PORT")
    if not host and port and not port.isdecimal():
        raise InvalidValueError(f"{text!r} has no port; write {text}:PORT")
    if not host:
        raise InvalidValueError(f"{text!r} has no host; write udp:127.0.0.1:{port or 'PORT'}")
    return Server(text, "udp", host=server_host(host), port=_server_port(port))


def _split(text: str, forms: str) -> tuple[str, str]:
    place = _PLACE.fullmatch(text[len(PREFIX) :])
    if place is None or not text.startswith(PREFIX):
        raise InvalidValueError(f"{text!r} is not a place for datagrams; write {forms}")
    if place["v6"] is not None:
        if ":" not in place["v6"] or not is_address(place["v6"]):
            raise InvalidValueError(f"{place['v6']!r} is not an IPv6 address; write {forms}")
        scope = link_scope(place["v6"])
        if scope:
            raise InvalidValueError(
                f"{place['v6']!r} is an address of one link; write its interface, too: "
                f"udp:[{place['v6']}{scope}]:{place['port']}"
            )
    return place["v6"] or place["host"] or "", place["port"]


def contradictions(kind: str, section: Section) -> Iterator[Problem]:
    """Find what does not go with datagrams, or only with them.

    Args:
        kind: ``listen`` or ``backend``.
        section: Its text in the file.
    """
    key = "endpoint" if kind == "listen" else "server"
    words = [item.text.split()[0] for item in section.items(key)]
    of_datagrams = [is_for_datagrams(word) for word in words]
    if any(of_datagrams) and not all(of_datagrams):
        number = of_datagrams.index(not of_datagrams[0])
        message = (
            f"{words[number]!r} and {words[0]!r} are of two transports, UDP and TCP; "
            f"write another [{kind}] for one of them"
        )
        yield section.problem(message, key, number)
    elif any(of_datagrams):
        for name, message in _STREAMS_ALONE[kind].items():
            if name in section.entries:
                yield section.problem(message, name)
        for number, item in enumerate(section.items("proxy_protocol")):
            if item.text == "v1":
                yield section.problem("v1 is for TCP; write v2, or off", "proxy_protocol", number)
    elif words:
        for name in DATAGRAMS_ALONE[kind]:
            if name in section.entries:
                yield section.problem("is for UDP; remove it", name)


def strangers(listeners: Iterable[Listener], routes: Iterable[Route]) -> Iterator[Problem]:
    """Find what leads clients of one transport to servers of the other."""
    of = {listener.name: listener for listener in listeners}
    for listener in of.values():
        led = [("default", listener.default)]
        led += [("silent", line.outcome) for line in listener.silent]
        for key, outcome in led:
            other = _server_of_another(outcome, listener.transport)
            if other:
                message = f"{other}, but [listen {listener.name}] is for {listener.transport.value.upper()}; lead it to another backend"
                yield listener.section.problem(message, key)
    transports = {listener.transport for listener in of.values()}
    ends = {route.name for route in routes if route.terminate_tls}
    for route in routes:
        places = {f"[listen {name}]": of[name].transport for name in route.under if name in of}
        places |= {f"[route {name}]": Transport.TCP for name in route.under if name in ends}
        for key, message in _of_route(route, places, transports):
            yield route.section.problem(message, key)


def _of_route(
    route: Route, places: Mapping[str, Transport], transports: Collection[Transport]
) -> Iterator[tuple[str, str]]:
    """Find what does not go together; the places are those that the route is under."""
    if route.terminate_tls and _server_of_another(route.outcome, Transport.TCP):
        yield "backend", "its servers are for UDP, but TLS ends over TCP only; lead it elsewhere"
        return
    own = route.transport
    other = next((place for place, over in places.items() if own not in {None, over}), "")
    is_nowhere = not places and own is not None and bool(transports) and own not in transports
    if route.terminate_tls and (other or is_nowhere):
        where = f"{other} is for UDP" if other else "no [listen] is for TCP"
        yield (
            "terminate_tls",
            f"TLS ends over TCP only, and {where}; lead the route to a server that ends DTLS or QUIC itself",
        )
        return
    if other:
        yield (
            "backend",
            f"its servers are for {_word(own)}, but {other} is for {_word(places[other])}; lead it elsewhere",
        )
        return
    if is_nowhere and not route.under:
        yield (
            "backend",
            f"its servers are for {_word(own)}, but no [listen] is; lead it elsewhere, or add a listener",
        )
        return
    asked = set(places.values()) or ({own} if own else set(transports))
    missing = [transport for transport in asked if route.alternatives and not route.over(transport)]
    if missing and (places or len(missing) == len(asked)):
        word = _word(missing[0])
        where = next(
            (f"{place} is" for place, over in places.items() if over in missing),
            f"its backend is for {word}" if own else f"every [listen] is for {word}",
        )
        where = f"{where} for {word}" if where.endswith(" is") else where
        theirs = Transport.UDP if missing[0] is Transport.TCP else Transport.TCP
        lines = joined([repr(line.text) for line in route.alternatives], "and")
        endpoint = "udp:PORT" if theirs is Transport.UDP else ":PORT"
        yield (
            "match",
            (
                f"{lines} {'is' if len(route.alternatives) == 1 else 'are'} for {_word(theirs)}, but {where}; "
                f"put the route under a listener with 'endpoint = {endpoint}' and lead it to a server of {_word(theirs)}"
            ),
        )


def _word(transport: Transport | None) -> str:
    return "" if transport is None else transport.value.upper()


def mixed_fallback(
    section: Section, transport: Transport, fallback: Outcome | None
) -> Iterator[Problem]:
    """Find a fallback of another transport than its backend."""
    other = _server_of_another(fallback, transport)
    if other:
        message = f"{other}, but this backend is for {transport.value.upper()}; lead it elsewhere"
        yield section.problem(message, "fallback")


def _server_of_another(outcome: Outcome | None, transport: Transport) -> str:
    if isinstance(outcome, Backend) and outcome.servers and outcome.transport != transport:
        return f"the servers of {outcome.name!r} are for {outcome.transport.value.upper()}"
    return ""

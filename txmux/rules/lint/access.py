"""Warnings about forged client addresses, TLS termination, and the admin endpoint."""

import importlib.util
import ipaddress
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from txmux.errors import how_to_install, joined
from txmux.interfaces import Transport
from txmux.rules.installed import conditions
from txmux.rules.lint.coverage import ParsedLine, lines_of
from txmux.rules.lint.scopes import scopes, set_of
from txmux.rules.model import (
    Backend,
    Clients,
    Listener,
    NetworkSet,
    Outcome,
    Route,
    Rules,
    TlsSettings,
)
from txmux.rules.model.backend import backends_of
from txmux.rules.model.rules import each_once
from txmux.rules.problems import Problem
from txmux.rules.reading.endpoints import parse_endpoint
from txmux.rules.reading.route import dns_patterns
from txmux.rules.reading.service import control_endpoints, is_by_tcp
from txmux.rules.reading.values import network
from txmux.transport import is_address

_HANDSHAKE = 0x16  # how every record of a TLS client begins that is not spoken to yet (RFC 8446, section 5.1)
_NAMING = {"sni": ("tls", "quic", "dtls", "postgres"), "host": ("http",)}
_ANY_NAMES = ("a.invalid", "www.example.net")
_HTTP2 = frozenset({"http2", "grpc"})
_EVERY_ADDRESS = {
    family: set_of(Clients(NetworkSet([network(text)])))
    for family, text in (("IPv4", "0.0.0.0/0"), ("IPv6", "::/0"))
}


def proxy_listeners(rules: Rules) -> Iterator[Problem]:
    """Find listeners that believe every client's PROXY header, and a time-out without such a header."""
    for listener in rules.listeners:
        section, senders = listener.section, listener.accept_proxy_from
        some = set_of(Clients(senders)) if senders else None
        everyone = [family for family, every in _EVERY_ADDRESS.items() if some and not every - some]
        if everyone:
            message = (
                f"every {' and '.join(everyone)} client can claim any address, and so pass every check of addresses; "
                "name only the proxies in front of txmux"
            )
            yield section.problem(message, "accept_proxy_from")
        only_networks = senders is not None and not getattr(senders, "by_unix", False)
        if only_networks and all(text.lower().startswith("unix:") for text in listener.endpoints):
            message = (
                "clients of a UNIX socket are in no network, so none has to begin with a header; write unix, "
                "or remove this"
            )
            yield section.problem(message, "accept_proxy_from")
        if "proxy_timeout" in section.entries and senders is None:
            message = "no header is waited for without 'accept_proxy_from'; add that"
            yield section.problem(message, "proxy_timeout")


def ineffective_tls_termination(rules: Rules) -> Iterator[Problem]:
    """Find routes that terminate TLS without effect, or whose inner routes cannot be reached."""
    for route in rules.routes:
        if route.terminate_tls is None:
            continue
        inner = rules.routes_of(route)
        if not inner and route.outcome is None:
            message = (
                "no route is under this one, so all clients go to 'default' or 'silent'; "
                f"add routes with 'under = {route.name}', or a backend"
            )
            yield route.section.problem(message, "terminate_tls")
        yield from _without_such_clients(route, inner)
        for _, number, line in lines_of([route]):
            if message := _never_terminates(line, route.terminate_tls):
                yield route.section.problem(message, "match", number)
        # Clients only begin HTTP/2 in TLS if it is offered (RFC 9113, section 3.2).
        for other, number, line in lines_of(inner) if "h2" not in route.terminate_tls.alpn else ():
            if line.name in _HTTP2 and not line.negated:
                message = (
                    f"{line.text!r} is HTTP/2, which no client begins in TLS that does not offer it; "
                    f"add 'alpn = h2, http/1.1' to [route {route.name}]"
                )
                yield other.section.problem(message, "match", number)


def _without_such_clients(route: Route, inner: Iterable[Route]) -> Iterator[Problem]:
    tls = route.terminate_tls
    if tls is None or tls.client_ca is None:
        return
    for other in inner:
        if other.client_cert is None or other.under != (route.name,):
            continue
        if tls.client == "required" and "none" in other.client_cert.words:
            message = f"no such client gets here, since [route {route.name}] wants a valid certificate; add 'tls_client = optional' there"
            yield other.section.problem(message, "client_cert")
        elif tls.client_crl is None and "revoked" in other.client_cert.words:
            message = f"no certificate is known to be revoked; add 'tls_client_crl' to [route {route.name}]"
            yield other.section.problem(message, "client_cert")


def is_never_tls(line: ParsedLine) -> bool:
    first: Any = getattr(line.predicate, "first_bytes", None)
    # What answers a client's request for TLS sees the handshake after that.
    converses = getattr(line.predicate, "exchanges", None) is not None
    return not (line.negated or converses or first is None or _HANDSHAKE in first)


def _never_terminates(line: ParsedLine, tls: TlsSettings) -> str:
    if line.negated:
        return ""
    if is_never_tls(line):
        return f"{line.text!r} is never TLS, but this route terminates TLS; match tls, or remove this line"
    patterns = line.options.get("alpn", "")
    wanted = [pattern.strip() for pattern in patterns.split(",")]
    if line.name != "tls" or not patterns or tls.alpn or "none" in wanted:
        return ""
    protocol = wanted[0]
    return f"{line.text!r} is for clients that want a protocol, but none is offered; add 'alpn = {protocol}'"


def non_dns_patterns(rules: Rules) -> Iterator[Problem]:
    """Find patterns of DNS names in certificates that fit none, but names of another kind."""
    for route in rules.routes:
        for key in ("allow_client", "client_cert"):
            for number, item in enumerate(route.section.items(key)):
                for pattern in dns_patterns(item.text):
                    kind = "uri" if "://" in pattern else "email" if "@" in pattern else ""
                    if is_address(pattern):
                        kind = "ip"
                    if kind:
                        message = f"{pattern!r} fits no DNS name; write san={kind}:{pattern}"
                        yield route.section.problem(message, key, number)


def open_proxies(rules: Rules) -> Iterator[Problem]:
    """Find backends by which anyone can be connected to anything, or by which one client can keep others from their names."""
    reported = set()
    open_ends = open_to_anyone(rules)
    for scope in scopes(rules):
        owner = scope.owner
        is_open = not isinstance(owner, Route) or owner.name in open_ends
        ways: list[tuple[Outcome | None, Route | None]]
        ways = [(route.outcome, route) for route in rules.routes_of(owner)]
        if isinstance(owner, Listener):
            ways.append((owner.default, None))
        for outcome, route in ways:
            for backend in backends_of([outcome]):
                names = backend.allow_names
                if names is None or not all(map(names.allow, _ANY_NAMES)):
                    continue
                is_for_all = route is None or (
                    is_open and not (route.clients.allowed or any(conditions(route)))
                )
                transport = Transport.UDP if backend.servers[0].kind == "udp" else Transport.TCP
                for listener in [it for it in scope.listeners if it.transport is transport]:
                    for message in _dangers(listener, is_for_all=is_for_all):
                        if (backend.name, message) not in reported:
                            reported.add((backend.name, message))
                            yield backend.section.problem(message, "allow_names")


def open_to_anyone(rules: Rules) -> set[str]:
    """Return the names of the routes to which clients come without any on the way that asks who they are."""
    outer = {route.name for route in rules.routes if route.is_outer}
    first = [route for route in rules.routes if not route.under or {*route.under} - outer]
    return {route.name for route in each_once(first, rules.routes_of, _asks)}


def _asks(route: Route) -> bool:
    asks = required_ca(route) is not None or needs_certificate(route) or any(conditions(route))
    return asks or route.clients.allowed is not None


def required_ca(route: Route) -> Path | None:
    """Return the authorities without whose certificate no client comes into a route's TLS."""
    tls = route.terminate_tls
    return tls.client_ca if tls is not None and tls.client == "required" else None


def needs_certificate(route: Route) -> bool:
    return route.client_cert is not None and "any" in route.client_cert.words


def _dangers(listener: Listener, *, is_for_all: bool) -> Iterator[str]:
    """Yield what clients of a listener can do that may ask for any name."""
    if is_for_all and listener.clients.allowed is None:
        yield (
            f"this is an open proxy: everyone may come to [listen {listener.name}], and go to any name; "
            "write 'allow' there, or the names that are meant"
        )
    is_tcp = listener.transport is Transport.TCP
    if not (listener.max_connections_per_source if is_tcp else listener.max_flows_per_source):
        key = "max_connections_per_source" if is_tcp else "max_flows_per_source"
        yield (
            f"one client of [listen {listener.name}] can have any number of names looked up; "
            f"add for example '{key} = 100' there"
        )


def matches_without_client_name(rules: Rules) -> Iterator[Problem]:
    """Find routes to a server that clients name, whose clients name none."""
    in_the_clear = {route.name for route in rules.routes if route.terminate_tls}
    named = {route.name: opens.names for route in rules.routes if (opens := route.opens)}
    for route in rules.routes:
        is_inside = not in_the_clear.isdisjoint(route.under)
        known = {name for one in (route.name, *route.under) for name in named.get(one, ())}
        for fact in route.outcome.names if isinstance(route.outcome, Backend) else ():
            if (fact == "sni" and is_inside) or fact in known:
                continue
            for _, number, line in lines_of([route]):
                is_known = type(line.predicate).__module__.startswith("txmux.")
                if is_known and (line.negated or line.name not in _NAMING[fact]):
                    message = (
                        f"clients of {line.text!r} say no name for {{{fact}}}, and get the reason no-name; "
                        f"match {joined(_NAMING[fact])}"
                    )
                    yield route.section.problem(message, "match", number)


def admin_reachable(rules: Rules) -> Iterator[Problem]:
    """Find an endpoint of ``admin`` that other machines can reach, and a token without use."""
    settings = rules.settings
    by_tcp = [one for one in settings.admin if is_by_tcp(one)]
    for key, number, text in control_endpoints(settings):
        is_admin = key == "admin" and is_by_tcp(text)
        if is_admin and not _is_loopback(parse_endpoint(text).host):
            message = (
                "other machines can reach this, and the token and all answers go there unencrypted; write "
                "127.0.0.1:PORT or unix:/path, and connect through a tunnel or a proxy with TLS"
            )
            yield settings.section.problem(message, "admin", number)
    for key in ("admin_token", "admin_tokens"):
        if getattr(settings, key) is not None and not by_tcp:
            message = "it is not used without 'admin = ADDRESS:PORT'; add that, or remove this"
            yield settings.section.problem(message, key)
    if settings.admin_users and len(by_tcp) == len(settings.admin):
        message = "it is not used without a UNIX socket in 'admin'; add one, or remove this"
        yield settings.section.problem(message, "admin_users")


def metrics_without_extra(rules: Rules) -> Iterator[Problem]:
    """Find an endpoint that answers 501 for want of the package that writes metrics."""
    settings = rules.settings
    if settings.metrics is not None and importlib.util.find_spec("prometheus_client") is None:
        message = f"needs the package prometheus_client, which is not installed, so '/metrics' answers 501; run: {how_to_install('admin')}"
        yield settings.section.problem(message, "metrics")


def token_as_path(rules: Rules) -> Iterator[Problem]:
    """Find what looks like a token in the place of its file."""
    section, path = rules.settings.section, rules.settings.admin_token
    for item in section.items("admin_token"):
        if path is not None and "/" not in item.text and not os.path.exists(path):  # noqa: PTH110 - never raises
            message = f"it is the path of a file, not the token itself: '{path}' is created at the start; write for example /var/lib/txmux/token"
            yield section.problem(message, "admin_token")


def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host).is_loopback if is_address(host) else host == "localhost"


FINDERS = (
    admin_reachable, metrics_without_extra, open_proxies,
    matches_without_client_name, non_dns_patterns,
    proxy_listeners, ineffective_tls_termination,
)  # fmt: skip

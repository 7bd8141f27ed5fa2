"""Warnings about forged client addresses, TLS termination, and the admin endpoint."""

from __future__ import annotations

import ipaddress
import stat
from typing import TYPE_CHECKING, Any

from txmux.rules.lint.coverage import read_line
from txmux.rules.lint.scopes import set_of
from txmux.rules.model import Clients, NetworkSet, Senders
from txmux.rules.reading.service import address_of, is_by_tcp
from txmux.rules.reading.values import network

if TYPE_CHECKING:
    from collections.abc import Iterator

    from txmux.rules.lint.coverage import ParsedLine
    from txmux.rules.model import Listener, Route, Rules, TlsEnd
    from txmux.rules.problems import Problem


_HANDSHAKE = 0x16  # how every record of a TLS client begins that is not spoken to yet (RFC 8446, section 5.1)
_HTTP2 = frozenset({"http2", "grpc"})
_EVERY_ADDRESS = {"IPv4": "0.0.0.0/0", "IPv6": "::/0"}


def proxy_listeners(rules: Rules) -> Iterator[Problem]:
    """Find listeners that believe every client's PROXY header, and a time-out without such a header."""
    for listener in rules.listeners:
        section, senders = listener.section, listener.accept_proxy_from
        some = set_of(Clients(senders)) if senders else None
        everyone = [
            family
            for family, every in _EVERY_ADDRESS.items()
            if some and not set_of(Clients(NetworkSet([network(every)]))) - some
        ]
        if everyone:
            message = (
                f"every {' and '.join(everyone)} client may say which address it has, and so pass all that goes by "
                "addresses; name the proxies in front of txmux only"
            )
            yield section.problem(message, "accept_proxy_from")
        if _is_of_no_use(listener):
            message = (
                "clients of a UNIX socket are in no network, so none has to begin with a header; write unix, "
                "or remove this"
            )
            yield section.problem(message, "accept_proxy_from")
        if "proxy_timeout" in section.entries and senders is None:
            message = "no header is waited for without 'accept_proxy_from'; add that"
            yield section.problem(message, "proxy_timeout")


def _is_of_no_use(listener: Listener) -> bool:
    """Return whether senders are named by networks alone, but all clients come by UNIX sockets."""
    senders = listener.accept_proxy_from
    if senders is None or (isinstance(senders, Senders) and senders.by_unix):
        return False
    return all(text.lower().startswith("unix:") for text in listener.endpoints)


def tls_ends(rules: Rules) -> Iterator[Problem]:
    """Find routes that terminate TLS without effect, or whose inner routes cannot be reached."""
    for route in rules.routes:
        if route.terminate_tls is None:
            continue
        inner = rules.routes_of(route)
        if not inner and route.outcome is None:
            message = (
                "nothing is inside of this TLS, so all clients go to 'default' or 'silent'; "
                f"add routes with 'under = {route.name}', or a backend"
            )
            yield route.section.problem(message, "terminate_tls")
        for number, alternative in enumerate(route.alternatives):
            message = _never_ends(read_line(alternative), route.terminate_tls)
            if message:
                yield route.section.problem(message, "match", number)
        yield from _without_http2(route, inner)


def _never_ends(line: ParsedLine, tls: TlsEnd) -> str:
    """Return why the clients of a line cannot agree on the TLS of its route; empty if they can."""
    if line.negated:
        return ""
    first: Any = getattr(line.predicate, "first_bytes", None)
    # What answers a client's request for TLS sees the handshake after that.
    converses = getattr(line.predicate, "exchanges", None) is not None
    if first is not None and _HANDSHAKE not in first and not converses:
        return (
            f"{line.text!r} is never TLS, which is to be ended here; match tls, or remove this line"
        )
    patterns = line.options.get("alpn", "")
    if line.name != "tls" or not patterns or tls.alpn:
        return ""
    protocol = patterns.partition(",")[0].strip()
    return f"{line.text!r} is for clients that want a protocol, but none is offered; add 'alpn = {protocol}'"


def _without_http2(over: Route, inner: tuple[Route, ...]) -> Iterator[Problem]:
    """Find routes for HTTP/2, which clients only begin in TLS if it is offered (RFC 9113, section 3.2)."""
    if over.terminate_tls is None or "h2" in over.terminate_tls.alpn:
        return
    for route in inner:
        for number, alternative in enumerate(route.alternatives):
            line = read_line(alternative)
            if line.name in _HTTP2 and not line.negated:
                message = (
                    f"{line.text!r} is HTTP/2, which no client begins in TLS that does not offer it; "
                    f"add 'alpn = h2, http/1.1' to [route {over.name}]"
                )
                yield route.section.problem(message, "match", number)


def admin_reachable(rules: Rules) -> Iterator[Problem]:
    """Find an endpoint of ``admin`` that other machines can reach, and a token without use."""
    settings = rules.settings
    admin = settings.admin
    if admin is not None and is_by_tcp(admin) and not _is_loopback(address_of(admin)):
        message = (
            "other machines can reach this, and the token and all answers go there unencrypted; write 127.0.0.1:PORT or "
            "unix:/path, and connect through a tunnel or a proxy with TLS"
        )
        yield settings.section.problem(message, "admin")
    if settings.admin_token is not None and not is_by_tcp(admin):
        message = "it is not used without 'admin = ADDRESS:PORT'; add that, or remove this"
        yield settings.section.problem(message, "admin_token")


def readable_token(rules: Rules) -> Iterator[Problem]:
    """Find a token that every user of this machine can read."""
    settings = rules.settings
    if settings.admin_token is None or not is_by_tcp(settings.admin):
        return
    try:
        mode = settings.admin_token.stat().st_mode
    except OSError:  # it is made at the start, or another user may see it
        return
    if mode & stat.S_IROTH:
        path = settings.admin_token
        message = f"every user of this machine can read '{path}', and control the service by it; 'chmod o= {path}'"
        yield settings.section.problem(message, "admin_token")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

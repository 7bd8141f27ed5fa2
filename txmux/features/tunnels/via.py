"""``via``: a proxy that connects to the servers of a backend, and servers that no proxy can be asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs

from txmux.classes import frozen
from txmux.rules.model import ForwardProxy, Section, Server
from txmux.rules.problems import InvalidValueError, Problem
from txmux.rules.reading import endpoints
from txmux.rules.reading.values import ValueKind, file_path

if TYPE_CHECKING:
    from txmux.rules.reading.context import RulesReading

_PROXY = re.compile(r"(?P<kind>[A-Za-z0-9]+)://(?:(?P<login>.*)@)?(?P<place>[^@/\s]+)/?")
_KINDS: Mapping[str, Any] = {kind: kind for kind in ("socks5", "socks4", "http")}
_MEANT = {"socks": "socks5", "socks5h": "socks5", "socks4a": "socks4", "https": "http"}
_LONGEST_USER = 255  # bytes (RFC 1929, section 2)


@frozen
class Via(ForwardProxy):
    """A proxy through which connections to the servers of a backend are made.

    Attributes:
        user: Empty is no login.
    """

    key = "via"
    kind: Literal["socks5", "socks4", "http"]
    server: Server
    user: str = ""
    password: Path | None = None
    may_lack: bool = False


def proxy(text: str, read: Callable[[str], Server] = endpoints.server) -> Via:
    """Read ``socks5://[USER:PASSWORD-FILE@]HOST:PORT``, or the same with ``socks4`` or ``http``; `read` reads a server."""
    match = _PROXY.fullmatch(text)
    kind = _KINDS.get(match["kind"]) if match else None
    if match is None or kind is None:
        near = _MEANT.get(match["kind"].lower()) if match and ":" in match["place"] else None
        hint = f"; did you mean '{near}://{match['place']}'?" if match and near else ""
        form = "is not a proxy; write it as socks5://HOST:PORT or http://HOST:PORT"
        raise InvalidValueError(f"{form}{hint}")
    place = match["place"]
    try:
        its_server = read(place)
    except InvalidValueError as error:
        raise InvalidValueError(*(f"the proxy: {message}" for message in error.messages)) from None
    if its_server.kind != "tcp" or its_server.depends_on_client:
        raise InvalidValueError(f"{place!r} is no proxy to connect to; write its HOST:PORT")
    via = Via(kind, attrs.evolve(its_server, text=f"{kind}://{place}"))
    if match["login"] is None:
        return via
    user, _, file = match["login"].partition(":")
    if kind == "socks4":
        raise InvalidValueError("SOCKS 4 has no passwords; remove what precedes '@'")
    if not user.isascii() or not user.isprintable() or len(user) > _LONGEST_USER or not file:
        raise InvalidValueError("a login before '@' is USER:PASSWORD-FILE; write it so")
    return attrs.evolve(via, user=user, password=file_path(file))


def _via(reading: RulesReading, text: str) -> Via:
    """Read a proxy and, beside the main file, the path of its password."""
    via = proxy(text, reading.server)
    if via.password is None:
        return via
    file = str(via.password)
    try:
        return attrs.evolve(via, password=reading.secret(file))
    except InvalidValueError:
        if "/" in file:
            raise
        # It may be the password itself, which belongs into no log.
        raise InvalidValueError(
            "what follows 'USER:' is the path of a file with the password as its only line, and "
            "there is no such file; write for example /etc/txmux/proxy.password"
        ) from None


VIA = ValueKind(
    _via,
    "`socks5://`, `socks4://` or `http://` and `[USER:FILE@]HOST:PORT`",
    in_context=True,
    paths=lambda via: (via.password,),
)


def beside_a_proxy(section: Section, found: Mapping[str, Any]) -> Iterator[Problem]:
    """Find servers that a proxy cannot be asked to connect to, and what has no effect with one."""
    via = found.get("more", {}).get("via")
    if via is None:
        return
    if "client" in found.get("source", ()):
        message = "client has no effect with 'via': servers see the proxy's address; write 'proxy_protocol = v2' instead"
        yield section.problem(message, "source")
    servers = found.get("servers", ())
    is_named = any(server.placeholder for server in servers)
    for key in ("allow_networks", "deny_networks"):
        if is_named and key in section.entries:
            message = "with 'via', the proxy looks names up, and their addresses are not known here; remove this, and restrict the proxy"
            yield section.problem(message, key)
    for server in servers:
        why = {
            "unix": "is a UNIX socket of this machine; write HOST:PORT",
            "endpoint": "is opened by Twisted, which does not support this; write it as HOST:PORT",
            "srv": "is looked up here, but its proxy looks names up; write it as HOST:PORT",
        }.get("srv" if server.query else server.kind, "")
        if "%" in server.host:
            why = "has a zone of this machine; write it without"
        if via.kind == "socks4" and ":" in server.host:
            why = "is IPv6, which SOCKS 4 does not know; write socks5"
        if why:
            message = f"{server.text!r} {why}, or put that server into a [backend] of its own"
            yield section.problem(message, "via")

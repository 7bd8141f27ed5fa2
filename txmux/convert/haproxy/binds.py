"""The ``bind`` lines of an ``haproxy.cfg``, as endpoints."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from txmux.convert.haproxy.lines import Line
    from txmux.convert.writer import Draft, Section

_ADDRESS = re.compile(r"(?:(?:ipv[46]|tcp[46]?)@)?(?P<host>.*):(?P<port>[^:]*)")
_VALUES = frozenset(
    {
        *("alpn", "backlog", "ca-file", "ciphers", "ciphersuites", "crl-file", "crt", "crt-list"),
        *("ecdhe", "gid", "group", "id", "interface", "level", "maxconn", "mode", "mss", "name"),
        *("namespace", "nbconn", "nice", "npn", "process", "proto", "ssl-max-ver", "ssl-min-ver"),
        *("tcp-ut", "thread", "uid", "user", "verify"),
    }
)
_UNDERSTOOD = frozenset(
    {"accept-proxy", "v4v6", "v6only", "name", "id", "backlog", "maxconn", "defer-accept", "mode"}
)
_NARROWING = {
    "accept-netscaler-cip": "its clients begin with a header that txmux does not know",
    "gid": "who may connect to the socket",
    "group": "who may connect to the socket",
    "interface": "it would listen on every interface",
    "namespace": "it is in another network namespace",
    "ssl": "TLS ends there; a route with terminate_tls does that, see 'End TLS'",
    "transparent": "it listens on addresses of others",
    "uid": "who may connect to the socket",
    "user": "who may connect to the socket",
}


def address(text: str) -> tuple[str, str] | None:
    """Take an address apart.

    Returns:
        The host, without brackets and empty for every address, and the port; ``None`` for anything else.
    """
    found = _ADDRESS.fullmatch(text)
    if found is None or "@" in found["host"]:
        return None
    host = found["host"].removeprefix("[").removesuffix("]")
    return ("::" if text.startswith("ipv6@") and host in {"", "*"} else host), found["port"]


def unix_path(text: str) -> str:
    """Give the path of a UNIX socket, or nothing."""
    path = text.removeprefix("unix@")
    return path if path.startswith("/") else ""


def ports(line: Line) -> list[str]:
    """Give the ports of a ``bind`` line; one that has none is empty."""
    texts = line.words[1].split(",") if len(line.words) > 1 else ()
    return [found[1] if (found := address(text)) else "" for text in texts]


def bind(line: Line, name: str, listeners: list[Section], draft: Draft) -> None:
    """Write where a line of the frontend of that name listens, into its sections so far or a new one."""
    flags: dict[str, str] = {}
    rest = list(line.words[2:])
    while rest:
        flag = rest.pop(0)
        flags[flag] = rest.pop(0) if flag in _VALUES and rest else ""
    lost = [f"{flag}: {why}" for flag, why in _NARROWING.items() if flag in flags]
    if lost:
        draft.look(line.number, f"{line}: is left out; {'; '.join(lost)}")
        return
    section: Section | None = None
    for text in line.words[1].split(",") if len(line.words) > 1 else ():
        section = _listener(line, name, listeners, draft, proxied="accept-proxy" in flags)
        section.add("endpoint", _endpoint(text, flags), line.number)
        if "accept-proxy" in flags and unix_path(text):
            section.add("accept_proxy_from", "unix", line.number)
    unknown = [flag for flag in flags if flag not in _UNDERSTOOD]
    if unknown:
        draft.warn(line.number, f"{line}: no counterpart of {', '.join(unknown)}", section)
    for flag, key in (("backlog", "backlog"), ("maxconn", "max_connections")):
        if flag in flags and section:
            section.entries.pop(key, None)
            section.add(key, flags[flag], line.number)


def _listener(
    line: Line, name: str, listeners: list[Section], draft: Draft, *, proxied: bool
) -> Section:
    for listener in listeners:
        if ("accept_proxy_from" in listener.entries) == proxied:
            return listener
    listener = draft.section("listen", name, line.number)
    if proxied:
        listener.add("accept_proxy_from", "0.0.0.0/0, ::/0", line.number)
    listeners.append(listener)
    return listener


def _endpoint(text: str, flags: Mapping[str, str]) -> str:
    path, found = unix_path(text), address(text)
    if path:
        return f"unix:{path}:mode={flags['mode']}" if "mode" in flags else f"unix:{path}"
    if found is None:
        return text
    host, port = found
    if host == "::" and "v4v6" in flags and "v6only" not in flags:
        return f":{port}"
    if ":" in host:
        return f"[{host}]:{port}"
    # An address that is left out is that of IPv4 only.
    return f"{'0.0.0.0' if host in {'', '*'} else host}:{port}"  # noqa: S104 - it is written, not opened

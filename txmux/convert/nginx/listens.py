"""The directives ``listen``, as endpoints."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from txmux.convert.nginx.reader import Directive
    from txmux.convert.writer import Draft

_PORTS = re.compile(r"(?:(?P<host>\[[^\]]*\]|[^:]*):)?(?P<first>[0-9]+)(?:-(?P<last>[0-9]+))?")
_MOST_PORTS = 256
_QUIET = frozenset(
    {"bind", "default_server", "deferred", "ipv6only", "multipath", "reuseport", "tcp"}
)
_TUNING = frozenset({"accept_filter", "fastopen", "rcvbuf", "sndbuf"})
_EVERY = frozenset({"", "*", "0.0.0.0"})  # noqa: S104 - it is read


@attrs.frozen
class Endpoint:
    """One address and port, or one path.

    Attributes:
        host: Empty for every address of IPv4 and IPv6.
        port: Empty for a UNIX socket.
        path: Of a UNIX socket.
        line: Where it is said.
        ended: Whether TLS ends there.
        proxied: Whether clients begin with a PROXY protocol header.
        keepalive: What the key of that name says, if anything.
        backlog: The same.
        datagrams: Whether it is for UDP.
    """

    host: str
    port: str
    path: str = ""
    line: int = attrs.field(default=0, eq=False)
    ended: bool = False
    proxied: bool = False
    keepalive: str = ""
    backlog: str = ""
    datagrams: bool = False

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        if self.datagrams:
            host = f"[{self.host}]" if ":" in self.host else self.host
            return f"udp:{host}:{self.port}" if host else f"udp:{self.port}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def endpoints_of(directives: Iterable[Directive], draft: Draft) -> list[Endpoint]:
    """Read all ``listen`` of a server."""
    found: list[Endpoint] = []
    for directive in directives:
        found += _endpoints(directive, draft)
    # IPv4 and IPv6, each with a socket of its own, are one in txmux.
    for one in [e for e in found if e.host == "::"]:
        other = attrs.evolve(one, host="0.0.0.0")  # noqa: S104 - it is compared
        if other in found:
            found[found.index(other)] = attrs.evolve(other, host="")
            found.remove(one)
    return list(dict.fromkeys(found))


def _endpoints(directive: Directive, draft: Draft) -> Iterable[Endpoint]:
    flags = dict(word.partition("=")[::2] for word in directive.parameters[1:])
    known = {*_QUIET, *_TUNING, "ssl", "proxy_protocol", "backlog", "so_keepalive", "udp"}
    unknown = [name for name in flags if name not in known]
    if unknown:
        draft.look(directive.line, f"{directive}: no counterpart of {', '.join(unknown)}")
    tuning = [name for name in flags if name in _TUNING]
    if tuning:
        draft.warn(directive.line, f"{directive}: no counterpart of {', '.join(tuning)}")
    common = Endpoint(
        "",
        "",
        "",
        directive.line,
        "ssl" in flags,
        "proxy_protocol" in flags,
        _keepalive(flags, directive, draft),
        flags.get("backlog", "").removeprefix("-1"),
        "udp" in flags,
    )
    if directive.value.startswith("unix:"):
        yield attrs.evolve(common, path=directive.value.removeprefix("unix:"))
        return
    match = _PORTS.fullmatch(directive.value)
    if match is None:
        draft.look(
            directive.line,
            f"{directive}: is left out: {directive.value} is not an address and port",
        )
        return
    first, last = int(match["first"]), int(match["last"] or match["first"])
    if last - first >= _MOST_PORTS:
        message = f"{directive}: is left out: it has more than {_MOST_PORTS} ports"
        draft.look(directive.line, message)
        return
    host = (match["host"] or "").strip("[]")
    if host in _EVERY:
        host = "0.0.0.0"  # noqa: S104 - it is written, not opened
    elif host == "::" and flags.get("ipv6only") == "off":
        host = ""
    for port in range(first, last + 1):
        yield attrs.evolve(common, host=host, port=str(port))


def _keepalive(flags: Mapping[str, str], directive: Directive, draft: Draft) -> str:
    text = flags.get("so_keepalive", "")
    if text in {"", "on", "off"}:
        return {"": "", "on": "yes", "off": "no"}[text]
    parts = [*text.split(":"), "", ""][:3]
    words: list[str] = []
    for name, part in zip(("idle", "interval", "count"), parts, strict=True):
        unit = "s" if name != "count" and part.isdecimal() else ""
        words += [f"{name}={part}{unit}"] * bool(part)
    if ":" not in text:
        draft.look(directive.line, f"{directive}: {text} is left out")
        return ""
    return " ".join(words)

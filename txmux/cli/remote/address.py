"""Where a service can be asked: the endpoint strings of the rules, as a client needs them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from txmux.cli.remote.errors import UsageError


class Unix(NamedTuple):
    """The file of a UNIX socket."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


class Tcp(NamedTuple):
    """A TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


Address = Unix | Tcp

_ARGUMENT = re.compile(r"((?:\\.|[^\\:=])*)(=?)((?:\\.|[^\\:])*)(?::|$)", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_EXAMPLES = "write for example unix:/run/txmux/rules.sock or tcp:9000:interface=127.0.0.1"
_LOOPBACK = {"tcp": "127.0.0.1", "tcp6": "::1"}
_EVERY = {"": "", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing listens here
"""Where a service that listens on all addresses can be reached from here."""


def address_of(text: str, folder: Path | None = None) -> Address:
    r"""Read an endpoint.

    Args:
        text: A path; ``HOST:PORT``; ``http://HOST:PORT``; or an endpoint string of Twisted's for a server or a client,
            ``unix:PATH``, ``tcp:PORT:interface=ADDRESS``, ``tcp:HOST:PORT``. In these ``\:`` is a colon.
        folder: Where relative paths start; by default the working directory.

    Raises:
        UsageError: It is none of these.
    """
    base = folder or Path()
    if text.startswith("http://"):
        return _from_url(text)
    plain, named = _words(text)
    kind = plain.pop(0).lower() if plain else ""
    if kind == "unix":
        path = named.get("address") or named.get("path") or next(iter(plain), "")
        if path:
            return Unix(base / path)
    elif kind in _LOOPBACK:
        tcp = _tcp(plain, named, _LOOPBACK[kind])
        if tcp is not None:
            return tcp
    elif "/" in text and "://" not in text:
        return Unix(base / text)
    elif found := re.fullmatch(r"(?:\[(?P<ipv6>[^\]]+)\]|(?P<host>[^:]*)):(?P<port>\d+)", text):
        return _checked(found["ipv6"] or found["host"] or "127.0.0.1", found["port"], text)
    raise UsageError(f"{text!r} is not an endpoint where txmux can be asked; {_EXAMPLES}")


def _words(text: str) -> tuple[list[str], dict[str, str]]:
    """Take an endpoint string apart: what has no name, and what has one."""
    found = [
        (_ESCAPED.sub(r"\1", first), _ESCAPED.sub(r"\1", value), bool(equals))
        for first, equals, value in _ARGUMENT.findall(text)
    ]
    plain = [first for first, _, is_named in found if first and not is_named]
    return plain, {first: value for first, value, is_named in found if is_named}


def _from_url(text: str) -> Tcp:
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port or 80
    except ValueError:
        host, port = None, 0
    if not host:
        raise UsageError(f"{text!r} has no host; {_EXAMPLES}")
    return Tcp(host, port)


def _tcp(plain: list[str], named: dict[str, str], loopback: str) -> Tcp | None:
    """Read ``tcp:PORT``, with an interface, or ``tcp:HOST:PORT``."""
    numbers = [word for word in plain if word.isdecimal()]
    hosts = [word for word in plain if not word.isdecimal()]
    port = named.get("port") or next(iter(numbers), "")
    host = named.get("interface") or named.get("host") or next(iter(hosts), "")
    if not port:
        return None
    return _checked(_EVERY.get(host, host) or loopback, port, ":".join(["tcp", *plain]))


def _checked(host: str, port: str, text: str) -> Tcp:
    if not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise UsageError(f"{text!r} has no port from 1 to 65535; {_EXAMPLES}")
    return Tcp(_EVERY.get(host, host), int(port))

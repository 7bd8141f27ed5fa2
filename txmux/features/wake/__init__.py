"""Starts servers for clients that wait: ``wake``, by Wake-on-LAN, as a unit of systemd or by an HTTP request."""

import ipaddress
import re
from collections.abc import Iterator
from functools import partial
from typing import Literal
from urllib.parse import urlsplit

from txmux.classes import frozen
from txmux.rules.advice.words import near
from txmux.rules.feature import Feature, ServerStart
from txmux.rules.model import Backend, Rules
from txmux.rules.optional import imported_late
from txmux.rules.problems import InvalidValueError, Problem
from txmux.rules.reading.context import RulesReading
from txmux.rules.reading.values import SectionKey, ValueKind, split_words, whole_number

_MOST_PORT = 65535
_MAC = re.compile("[0-9A-Fa-f]{2}([:-]?[0-9A-Fa-f]{2}){5}|[0-9A-Fa-f]{4}([.][0-9A-Fa-f]{4}){2}")
_UNIX_URL = re.compile("unix:/[!-9;-~]+:/[!-~]*")
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,247}\.service")  # systemd.unit(5)
_WAKES = "write for example 'wol 00:11:22:33:44:55 192.168.1.255', 'systemd app.service' or 'http POST https://10.0.0.2/start'"


@frozen
class Wake:
    """What is sent to start the servers of a backend for a client that waits.

    Attributes:
        method: ``wol`` is a magic packet, ``systemd`` the start of a unit, any other word the method of an HTTP request.
        target: The MAC address, as 12 hexadecimal digits, the unit, or the URL; ``unix:/SOCKET:/PATH`` is over a UNIX socket.
        broadcast: Where the magic packet goes: an IP address, and a port of UDP.
        owner: As that of a `Server`, for a UNIX socket.
    """

    method: Literal["wol", "systemd", "GET", "POST"]
    target: str
    broadcast: tuple[str, int] = ("", 9)
    owner: int | None = None

    def __str__(self) -> str:
        """Describe it for a log: a URL may have a secret behind its host."""
        if self.method == "wol":
            return f"a magic packet for {self.target} to {self.broadcast[0]}"
        if self.method == "systemd":
            return f"systemctl start {self.target}"
        if self.target.startswith("unix:"):
            return f"{self.method} {self.target.rpartition(':')[0]}"
        scheme, _, rest = self.target.partition("://")
        return f"{self.method} {scheme}://{rest.partition('/')[0].partition('?')[0]}"


def read_wake(reading: RulesReading, text: str) -> Wake:
    """Read what starts a server: ``wol MAC BROADCAST``, ``systemd UNIT`` or ``http GET|POST URL``; the URL may be ``unix:/SOCKET:/PATH``."""
    kind, *rest = split_words(text) or [""]
    if kind == "wol" and len(rest) == 2:
        return _magic_packet(*rest)
    if kind == "http" and len(rest) == 2 and rest[0] in {"GET", "POST"}:
        method: Literal["GET", "POST"] = "POST" if rest[0] == "POST" else "GET"
        return Wake(method, _wake_url(rest[1]), owner=reading.other_author)
    if kind == "systemd" and len(rest) == 1:
        if not _UNIT.fullmatch(rest[0]):
            message = f"{rest[0]!r} is not the name of a service; write for example app.service"
            raise InvalidValueError(message)
        reading.refuse_others(repr(text))
        return Wake("systemd", rest[0])
    error = InvalidValueError(f"{text!r} wakes nothing; {_WAKES}")
    raise error.ask(near, kind, ("wol", "http", "systemd") if rest else ())


def _magic_packet(mac: str, target: str) -> Wake:
    digits = re.sub("[:.-]", "", mac).lower()
    if not _MAC.fullmatch(mac) or len(digits) != 12:
        message = f"{mac!r} is not a MAC address; write it as 00:11:22:33:44:55 ('ip neighbour' shows those of a network)"
        raise InvalidValueError(message)
    host, _, port = target.partition(":")
    try:
        address = ipaddress.IPv4Address(host)
    except ValueError:
        message = f"{target!r} is not an IPv4 address; write the broadcast address of the server's network, such as 192.168.1.255"
        raise InvalidValueError(message) from None
    number = whole_number(1, _MOST_PORT, "the port")(port) if ":" in target else 9
    return Wake("wol", ":".join(re.findall("..", digits)), (str(address), number))


def _wake_url(text: str) -> str:
    if text.startswith("unix:"):
        if not _UNIX_URL.fullmatch(text):
            message = f"{text!r} names no socket and path; write for example unix:/run/txmux/wake.sock:/web"
            raise InvalidValueError(message)
        return text
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        port = 0
    host = "" if port == 0 else parts.hostname
    if not host or parts.scheme not in {"http", "https"} or not text.isascii():
        raise InvalidValueError(f"{text!r} is not a URL; {_WAKES}")
    if parts.username is not None:
        raise InvalidValueError("takes no user and password in the URL; remove them")
    return text.partition("#")[0]


_SEND = imported_late("txmux.features.wake.sending:send")
_WAKE = ValueKind(
    read_wake,
    "`wol MAC BROADCAST`, `systemd NAME.service`, or `http POST URL` or `http GET URL`, also with `unix:/SOCKET:/PATH`",
    in_context=True,
)


def _start_of(backend: Backend) -> ServerStart | None:
    wake = backend.more.get("wake")
    return None if wake is None else ServerStart(str(wake), partial(_SEND, wake))


def _lint(rules: Rules) -> Iterator[Problem]:
    for backend in rules.backends.values():
        if "wake" in backend.more and not backend.hold:
            message = "no client ever waits without 'hold', so nothing is sent; add for example hold = 60s"
            yield backend.section.problem(message, "wake")


# fmt: off
FEATURE = Feature(
    "wake",
    keys={"backend": {
        "wake": SectionKey(_WAKE, example="wol 00:11:22:33:44:55 192.168.1.255", meaning=
            "this is sent [to start the server](../how-to/scale-to-zero.md) while clients wait"),
    }},
    finds={"lint": (_lint,)},
    start_of=_start_of,
)
# fmt: on

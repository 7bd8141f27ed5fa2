"""Answers a client that asks for a tunnel, as a proxy does: CONNECT of HTTP/1, SOCKS 5, 4 and 4a."""

import base64
import binascii
import re
from collections.abc import Generator
from ipaddress import IPv4Address, IPv6Address
from typing import Literal, NamedTuple, TypeAlias

TunnelKind = Literal["connect", "socks5", "socks4"]
Failure = Literal["denied", "refused", "timeout", "network", "host", "busy", "general"]
"""Why there is no tunnel, as far as clients are told."""

MOST_LOGINS = 3  # in one connection


class Reply(NamedTuple):
    """An answer that is sent at once; the client goes on after it."""

    data: bytes


class Login(NamedTuple):
    """A user and a password, which are to be checked; `TunnelDialog.proceed` gets whether they are right."""

    user: str
    password: bytes


class Asked(NamedTuple):
    """The client's request is complete: the host, a name or an address as it is written, and the port."""

    host: str
    port: int


class Refused(NamedTuple):
    """The last answer to a client that gets no tunnel."""

    data: bytes


_Event: TypeAlias = "Reply | Login | Asked | Refused | None"
_Steps: TypeAlias = Generator[_Event, "bool | None", None]

_AUTHORITY = re.compile(rb"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9._-]{1,254})):([0-9]{1,5})")
_HEAD = re.compile(rb"([A-Z]+) ([^ \r\n]+) HTTP/1\.([0-9])\r?\n")
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_BASIC = re.compile(rb"(?im)^proxy-authorization:[ \t]*basic[ \t]+([A-Za-z0-9+/=]+)[ \t]*\r?$")
_NAME = re.compile(rb"[A-Za-z0-9._-]{1,254}")
_STATUS = {
    400: "Bad Request",
    403: "Forbidden",
    407: "Proxy Authentication Required",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
_OF_HTTP = {"denied": 403, "timeout": 504, "busy": 503}
_OF_SOCKS5 = {"denied": 2, "network": 3, "host": 4, "refused": 5, "timeout": 6}
_NO_ADDRESS = b"\0\1" + bytes(6)


class TunnelDialog:
    """One client's dialog up to its request; it has neither a connection nor a clock.

    `proceed` is called whenever there are more bytes, until it returns ``None``, `Asked` or `Refused`.

    Args:
        kind: What the client begins with.
        wants_login: Whether a user and a password are asked for.

    Attributes:
        received: The client's bytes that are not read yet; behind the request, those for the server.
        user: The user who has logged in.
    """

    def __init__(self, kind: TunnelKind, *, wants_login: bool) -> None:
        self.kind, self._wants_login = kind, wants_login
        self.received, self.user = b"", ""
        self._steps: _Steps = getattr(self, f"_{kind}")()
        self._is_begun = False

    def proceed(self, answer: bool | None = None) -> _Event:  # noqa: FBT001 - as `Generator.send`
        """Read on; `answer` is for `Login`. ``None`` means that more bytes are needed."""
        if not self._is_begun:
            self._is_begun = True
            return next(self._steps)
        return self._steps.send(answer)

    @property
    def granted(self) -> bytes:
        """The answer for a tunnel that is open (RFC 9110, section 9.3.6; RFC 1928, section 6)."""
        if self.kind == "connect":
            return b"HTTP/1.1 200 Connection established\r\n\r\n"
        return b"\5\0" + _NO_ADDRESS if self.kind == "socks5" else b"\0\x5a" + bytes(6)

    def refusal(self, failure: Failure) -> bytes:
        """Return the answer to a request whose server cannot be reached, or must not be."""
        if self.kind == "connect":
            return _status(_OF_HTTP.get(failure, 502))
        if self.kind == "socks4":
            return b"\0\x5b" + bytes(6)
        return bytes([5, _OF_SOCKS5.get(failure, 1)]) + _NO_ADDRESS

    def complaint(self, status: int) -> bytes:
        """Return the answer to what is no request; SOCKS has none."""
        return _status(status) if self.kind == "connect" else b""

    def _take(self, count: int) -> Generator[None, "bool | None", bytes]:
        while len(self.received) < count:
            yield None
        taken, self.received = self.received[:count], self.received[count:]
        return taken

    def _take_text(self) -> Generator[None, "bool | None", bytes]:
        while (end := self.received.find(b"\0")) < 0:
            yield None
        return (yield from self._take(end + 1))[:-1]

    def _socks4(self) -> _Steps:
        head = yield from self._take(8)
        yield from self._take_text()  # the name of a user, which nothing proves
        port, host = int.from_bytes(head[2:4], "big"), str(IPv4Address(head[4:]))
        if not any(head[4:7]) and head[7]:
            name = yield from self._take_text()
            host = name.decode() if _NAME.fullmatch(name) else ""
        if head[1] != 1 or not host or not port or self._wants_login:
            yield Refused(self.refusal("general"))
        yield Asked(host, port)

    def _socks5(self) -> _Steps:
        """Agree on a method, log in (RFC 1929), and read the request (RFC 1928, sections 3 to 6)."""
        _, count = yield from self._take(2)
        methods = yield from self._take(count)
        method = 2 if self._wants_login else 0
        if method not in methods:
            yield Refused(b"\5\xff")
        yield Reply(bytes([5, method]))
        if method:
            version, length = yield from self._take(2)
            user = (yield from self._take(length)).decode("utf-8", "replace")
            password = yield from self._take((yield from self._take(1))[0])
            is_right = yield Login(user, password)
            if version != 1 or not is_right:
                yield Refused(b"\1\1")
            self.user = user
            yield Reply(b"\1\0")
        version, command, _, kind = yield from self._take(4)
        host = yield from self._take_host(kind)
        port = 0 if host is None else int.from_bytes((yield from self._take(2)), "big")
        code = 1
        if command != 1:
            code = 7
        elif host is None:
            code = 8
        elif version == 5 and host and port:
            yield Asked(host, port)
        yield Refused(bytes([5, code]) + _NO_ADDRESS)

    def _take_host(self, kind: int) -> Generator[None, "bool | None", str | None]:
        if kind == 1:
            return str(IPv4Address((yield from self._take(4))))
        if kind == 4:
            return str(IPv6Address((yield from self._take(16))))
        if kind != 3:
            return None
        name = yield from self._take((yield from self._take(1))[0])
        return name.decode() if _NAME.fullmatch(name) else _address(name)

    def _connect(self) -> _Steps:
        """Read requests until one is logged in; each has only a head (RFC 9110, section 9.3.6)."""
        logins = 0
        while True:
            at = 0
            while True:
                self.received = self.received.lstrip(b"\r\n")  # RFC 9112, section 2.2
                end = _BLANK_LINE.search(self.received, max(0, at - 3))
                if end is not None:
                    break
                at = len(self.received)
                yield None
            head, self.received = self.received[: end.end()], self.received[end.end() :]
            line = _HEAD.match(head)
            authority = _AUTHORITY.fullmatch(line[2]) if line and line[1] == b"CONNECT" else None
            port = int(authority[3]) if authority else 0
            host = (
                ""
                if authority is None
                else (authority[2] or b"").decode() or _address(authority[1])
            )
            if line is None or not host or not 0 < port < 65536:
                yield Refused(_status(400))
            if self._wants_login:
                found = _BASIC.findall(head)
                login = _login(found[0]) if len(found) == 1 else None
                if login is None or not (yield login):
                    logins += login is not None
                    # Others than HTTP/1.1 may take the end of the connection for that of the answer.
                    is_last = logins == MOST_LOGINS or (line is not None and line[3] == b"0")
                    answer = _status(407, is_last=is_last)
                    yield Refused(answer) if is_last else Reply(answer)
                    continue
                self.user = login.user
            yield Asked(host, port)


def kind_of(data: bytes) -> TunnelKind:
    """Return what a client asks by that begins so, if it asks for a tunnel."""
    return "socks5" if data[:1] == b"\5" else "socks4" if data[:1] == b"\4" else "connect"


def asked_for(data: bytes) -> tuple[dict[str, str], bytes] | None:
    """Return the facts of a request, and the bytes behind it; ``None`` if these bytes have no whole one. Logins count as right."""
    dialog = TunnelDialog(kind_of(data), wants_login=False)
    dialog.received = data
    while isinstance(event := dialog.proceed(), Reply):
        pass
    if not isinstance(event, Asked):
        return None
    return {"tunnel": dialog.kind, "host": event.host, "port": str(event.port)}, dialog.received


def _login(text: bytes) -> Login | None:
    try:
        user, _, password = base64.b64decode(text, validate=True).partition(b":")
    except binascii.Error:
        return None
    return Login(user.decode("utf-8", "replace"), password)


def _address(text: bytes) -> str:
    """Return an IPv6 address, in its usual form; nothing if the text is none."""
    try:
        return str(IPv6Address(text.decode("ascii")))
    except ValueError:
        return ""


def _status(status: int, *, is_last: bool = True) -> bytes:
    """Return an answer; one that is not the last leaves the connection open for another request."""
    body = f"{status} {_STATUS[status]}\n"
    more = 'Proxy-Authenticate: Basic realm="txmux", charset="UTF-8"\r\n' if status == 407 else ""
    if is_last:
        more += "Connection: close\r\n"
    return (
        f"HTTP/1.1 {status} {_STATUS[status]}\r\nContent-Type: text/plain\r\n"
        f"Content-Length: {len(body)}\r\n{more}\r\n{body}"
    ).encode()

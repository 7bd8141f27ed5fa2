"""Answers a client that asks for a tunnel, as a proxy does: CONNECT of HTTP/1, SOCKS 5, 4 and 4a."""

import base64
import errno
import re
from collections.abc import Callable, Generator, Mapping
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple, TypeAlias

from typing_extensions import override

from txmux.features.tunnels.request import ADDRESS_SIZES
from txmux.transport import normal_host
from txmux.wire.preamble import Preamble


class Login(NamedTuple):
    """A user and a password, which are to be checked."""

    user: str
    password: bytes


class FurtherRequest(NamedTuple):
    """The head of a request behind one that was refused, for which a route has to be decided again."""

    head: bytes


_Event: TypeAlias = "bytes | Login | FurtherRequest | bool | None"
_Steps: TypeAlias = Generator[_Event, "bool | None", bool]
_Taken: TypeAlias = Generator[None, "bool | None", bytes]

_MOST_REQUESTS = 3  # without a right login, in one connection
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_REQUEST = re.compile(
    rb"CONNECT (?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]{1,254})):([0-9]{1,5}) HTTP/1\.([0-9])\r?\n"
)
_BASIC = re.compile(rb"(?im)^proxy-authorization:[ \t]*basic[ \t]+([A-Za-z0-9+/=]+)[ \t]*\r?$")
_NAME = re.compile(rb"[A-Za-z0-9._-]{1,254}")

_CODES: Mapping[str, tuple[int, int]] = {
    **dict.fromkeys(("denied", "no-route", "silent", "name-denied", "address-denied"), (403, 2)),
    "no-server": (502, 4),
    "no-name": (502, 4),
    "connect-refused": (502, 5),
    "connect-timeout": (504, 6),
    "limit": (503, 1),
}
"""By the reason, the status of HTTP and the reply of SOCKS 5; others are (502, 1)."""
_BY_NUMBER = {errno.ENETUNREACH: 3, errno.EHOSTUNREACH: 4}
_MALFORMED = "it is malformed"
_NO_CONNECT = "it asks for something else than a connection"
_NO_ADDRESS = b"\0\1" + bytes(6)
_REFUSED_BY_SOCKS4 = b"\0\x5b" + bytes(6)


class TunnelDialogue(Preamble):
    """One client's request for a tunnel, and the answer to it; it has neither a connection nor a clock.

    Args:
        data: The first bytes of a client that asks for a tunnel.
        wants_login: Whether a user and a password are asked for.

    Attributes:
        kind: ``connect``, ``socks5`` or ``socks4``.
        received: The bytes that are not read yet; behind the request, those for the server.
        user: Who has logged in.
        host: A name, or an address in its usual form.
        last: The answer, if the request itself is refused.
        problem: Why it is refused, or a login is asked for, for the log, with the request as its subject.
        is_answered: Whether the client has been told that its tunnel is open.
    """

    def __init__(self, data: bytes, *, wants_login: bool) -> None:
        self.kind = {b"\4": "socks4", b"\5": "socks5"}.get(data[:1], "connect")
        self._wants_login = wants_login
        self.received, self.user, self.host, self.port = b"", "", "", 0
        self.last: bytes | None = None
        self.problem = _MALFORMED
        self._number = 0
        self.is_answered = False
        self._steps: _Steps = getattr(self, f"_{self.kind}")()

    def proceed(self, answer: bool | None = None) -> _Event:  # noqa: FBT001 - as `Generator.send`
        """Read on.

        Args:
            answer: Whether the last `Login` was right, or the route of the last `FurtherRequest` is that of the first one.

        Returns:
            Bytes to send, after which it is called again; a `Login`; a `FurtherRequest`; whether the request is granted, as far as it goes;
            or ``None`` if more bytes are needed.
        """
        try:
            return self._steps.send(answer)
        except StopIteration as end:
            return bool(end.value)

    @property
    @override
    def granted(self) -> dict[str, str]:
        found = {"tunnel": self.kind, "host": self.host, "port": str(self.port), "user": self.user}
        return {name: fact for name, fact in found.items() if fact not in {"", "0"}}

    @override
    def grant(self) -> bytes:
        if self.is_answered:
            return b""
        self.is_answered = True
        if self.kind == "connect":
            return b"HTTP/1.1 200 Connection established\r\n\r\n"
        return b"\5\0" + _NO_ADDRESS if self.kind == "socks5" else b"\0\x5a" + bytes(6)

    @override
    def refusal(self, reason: str) -> bytes:
        """Return the answer for a tunnel that ends so (RFC 9110, section 9.3.6; RFC 1928, section 6)."""
        status, code = _CODES.get(reason, (502, 1))
        if self.last is not None:
            return self.last
        if self.kind == "connect":
            return _status(status)
        if self.kind == "socks4":
            return _REFUSED_BY_SOCKS4
        return bytes([5, _BY_NUMBER.get(self._number, code)]) + _NO_ADDRESS

    @override
    def connect_failed(self, number: int) -> None:
        self._number = number

    def fail(self, status: int) -> None:
        # SOCKS has no answer to half a request, but to a login.
        self.last = _status(status) if self.kind == "connect" else self.last or b""

    def _refuse(self, last: bytes, problem: str = _MALFORMED) -> bool:
        self.last, self.problem = last, problem
        return False

    def _take(self, count: int) -> _Taken:
        while len(self.received) < count:
            yield None
        taken, self.received = self.received[:count], self.received[count:]
        return taken

    def _take_text(self) -> _Taken:
        while (end := self.received.find(b"\0")) < 0:
            yield None
        return (yield from self._take(end + 1))[:-1]

    def _take_head(self) -> _Taken:
        at = 0
        while True:
            self.received = self.received.lstrip(b"\r\n")  # RFC 9112, section 2.2
            if end := _BLANK_LINE.search(self.received, max(0, at - 3)):
                return (yield from self._take(end.end()))
            at = len(self.received)
            yield None

    def _socks4(self) -> _Steps:
        head = yield from self._take(8)
        yield from self._take_text()  # the name of a user, which nothing proves
        self.port, self.host = int.from_bytes(head[2:4], "big"), str(IPv4Address(head[4:]))
        if not any(head[4:7]) and head[7]:
            self.host = _host((yield from self._take_text()))
        if head[1] != 1:
            return self._refuse(_REFUSED_BY_SOCKS4, _NO_CONNECT)
        if self._wants_login:
            return self._refuse(_REFUSED_BY_SOCKS4, "it has no login")
        return bool(self.host and self.port) or self._refuse(_REFUSED_BY_SOCKS4)

    def _socks5(self) -> _Steps:
        """Agree on a method, log in (RFC 1929), and read the request (RFC 1928, sections 3 to 6)."""
        methods = yield from self._take((yield from self._take(2))[1])
        method = 2 if self._wants_login else 0
        if method not in methods:
            problem = "it offers no login" if method else "it offers nothing but a login"
            return self._refuse(b"\5\xff", problem)
        yield bytes([5, method])
        if method:
            version, length = yield from self._take(2)
            user = (yield from self._take(length)).decode("utf-8", "replace")
            password = yield from self._take((yield from self._take(1))[0])
            self.last = b"\1\1"
            if version != 1:
                return False
            if not (yield Login(user, password)):
                return self._refuse(self.last, _wrong(user))
            self.user, self.last = user, None
            yield b"\1\0"
        version, command, _, kind = yield from self._take(4)
        if kind in ADDRESS_SIZES:
            size = ADDRESS_SIZES[kind] or (yield from self._take(1))[0]
            host = yield from self._take(size)
            self.host = normal_host(str(ip_address(host))) if ADDRESS_SIZES[kind] else _host(host)
            self.port = int.from_bytes((yield from self._take(2)), "big")
        if command != 1:
            return self._refuse(b"\5\7" + _NO_ADDRESS, _NO_CONNECT)
        code = b"\1" if kind in ADDRESS_SIZES else b"\x08"
        is_right = bool(version == 5 and self.host and self.port)
        return is_right or self._refuse(b"\5" + code + _NO_ADDRESS)

    def _connect(self) -> _Steps:
        """Read requests until one is logged in; each has only a head (RFC 9110, section 9.3.6)."""
        for left in reversed(range(_MOST_REQUESTS)):
            head = yield from self._take_head()
            request = _REQUEST.match(head)
            if request is None:
                break
            if left < _MOST_REQUESTS - 1 and not (yield FurtherRequest(head)):
                return self._refuse(_status(400), "another route is for what it asks for then")
            address, name, port, version = request.groups()
            self.host = _address(address) if address else normal_host(name.decode())
            self.port = int(port)
            if not self.host or not 0 < self.port < 65536:
                break
            login = _login(_BASIC.findall(head)) if self._wants_login else None
            if not self._wants_login or (login is not None and (yield login)):
                self.user = login.user if login else ""
                return True
            self.problem = "it has no login" if login is None else _wrong(login.user)
            # A client of HTTP/1.0 takes the end of the connection for that of the answer.
            if not left or version == b"0":
                return self._refuse(_status(407), self.problem)
            yield _status(407, is_last=False)
        return self._refuse(_status(400))


def _wrong(user: str) -> str:
    return f"its login as '{user}' is wrong"  # the log escapes it


def _login(found: list[bytes]) -> Login | None:
    try:
        user, _, password = base64.b64decode(found[0], validate=True).partition(b":")
    except (ValueError, IndexError):
        return None
    return Login(user.decode("utf-8", "replace"), password) if len(found) == 1 else None


def _host(text: bytes) -> str:
    return normal_host(text.decode()) if _NAME.fullmatch(text) else _address(text)


def _address(text: bytes) -> str:
    try:
        address = IPv6Address(text.decode("ascii"))
    except ValueError:
        return ""
    return "" if address.scope_id else normal_host(str(address))  # a scope may have any characters


def _status(status: int, *, is_last: bool = True) -> bytes:
    """Return an answer; one that is not the last leaves the connection open for another request."""
    body = f"{status} {HTTPStatus(status).phrase}\n"
    more = "Connection: close\r\n" * is_last
    if status == 407:
        more += 'Proxy-Authenticate: Basic realm="txmux", charset="UTF-8"\r\n'
    return (
        f"HTTP/1.1 {body[:-1]}\r\nContent-Type: text/plain\r\n"
        f"Content-Length: {len(body)}\r\n{more}\r\n{body}"
    ).encode()


def asked_for(
    data: bytes, is_for_route: Callable[[bytes], bool], *, wants_login: bool = False
) -> tuple[TunnelDialogue, str | None]:
    """Return what a client has asked for by these bytes, by a login that is taken to be right.

    With it is why that is refused: nothing if it is not, and ``None`` while the request is not whole. `is_for_route` decides on the
    head of a further request.
    """
    dialogue = TunnelDialogue(data, wants_login=wants_login)
    dialogue.received = data
    event = dialogue.proceed()
    while isinstance(event, bytes | Login | FurtherRequest):
        event = dialogue.proceed(
            is_for_route(event.head) if isinstance(event, FurtherRequest) else True
        )
    if event is None and dialogue.problem == _MALFORMED:
        return dialogue, None
    return dialogue, "" if event else dialogue.problem

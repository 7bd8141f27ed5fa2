"""Asks a proxy for a connection to a server: SOCKS 5 and 4a, and CONNECT of HTTP."""

import base64
import re
from collections.abc import Callable, Generator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal, TypeAlias

import attrs

from txmux.classes import frozen
from txmux.errors import MuxError, printable
from txmux.transport import bracketed

LONGEST_HEAD = 8 * 1024  # bytes of one answer of HTTP
_MOST_INTERIM = 20
_LONGEST_REASON = 100
_LONGEST_BEGIN = 20

ProxyKind = Literal["socks5", "socks4", "http"]

_Step: TypeAlias = "tuple[bytes, Callable[[bytes], int]]"
"""What is sent, and a function that returns the length of the answer to it: 0 as long as that is not complete."""

_Steps: TypeAlias = Generator[_Step, bytes, None]


class ProxyRefusedError(MuxError):
    """The proxy has not connected to the server; the message says why, with the proxy as its subject."""


@frozen
class TunnelTarget:
    """The server to connect to, and the login of the client.

    Attributes:
        host: An IP address, or a name, which the proxy looks up.
        user: Empty is no login.
    """

    host: str
    port: int
    user: str = ""
    password: str = attrs.field(default="", repr=False)

    @property
    def text(self) -> str:
        return f"{bracketed(self.host)}:{self.port}"


class TunnelRequest:
    """One request to a proxy; it has neither a connection nor a clock.

    Attributes:
        first: What is sent first.
        is_granted: Whether the connection is to the server from now on.
    """

    def __init__(self, kind: ProxyKind, target: TunnelTarget) -> None:
        self._steps = _STEPS[kind](target)
        self._received = b""
        self._length: Callable[[bytes], int]
        self.first, self._length = next(self._steps)
        self.is_granted = False

    @property
    def rest(self) -> bytes:
        # These came with the end of the proxy's answer.
        return self._received if self.is_granted else b""

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the proxy, until it `is_granted`; returns what is to be sent.

        Raises:
            ProxyRefusedError: The proxy has refused, or its answer is none.
        """
        self._received += data
        sent = b""
        while length := self._length(self._received):
            answer, self._received = self._received[:length], self._received[length:]
            try:
                more, self._length = self._steps.send(answer)
            except StopIteration:
                self.is_granted = True
                break
            sent += more
        return sent


def _exactly(count: int) -> Callable[[bytes], int]:
    return lambda received: count if len(received) >= count else 0


_REPLIES = {
    1: "general failure",
    2: "its rules do not allow it",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "TTL expired",
    7: "it does not know CONNECT",
    8: "address type not supported",
}
ADDRESS_SIZES = {1: 4, 3: 0, 4: 16}
"""The lengths of addresses of SOCKS 5 by their types; that of a name is before it."""


def _socks5(target: TunnelTarget) -> _Steps:
    """Log in, and ask for a connection (RFC 1928, sections 3 to 6; RFC 1929)."""
    user, password = target.user.encode(), target.password.encode()
    methods = b"\0\2" if user else b"\0"
    answer = yield bytes([5, len(methods)]) + methods, _exactly(2)
    _check_version(answer, 5)
    method = answer[1]
    if method == 0xFF:
        how = "no user and password" if user else "only clients with a user and a password"
        raise ProxyRefusedError(f"accepts {how}")
    if method not in methods:
        raise ProxyRefusedError(f"wants the login method {method}, which was not offered")
    if method == 2:
        login = bytes([1, len(user)]) + user + bytes([len(password)]) + password
        if (yield login, _exactly(2))[1]:
            raise ProxyRefusedError(f"does not accept user {target.user!r} with this password")
    answer = yield b"\5\1\0" + _address(target.host) + target.port.to_bytes(2, "big"), _exactly(2)
    _check_version(answer, 5)
    if answer[1]:
        why = _REPLIES.get(answer[1], "unknown reason")
        raise ProxyRefusedError(f"cannot connect: {why} ({answer[1]})")
    kind = (yield b"", _exactly(2))[1]
    if kind not in ADDRESS_SIZES:
        raise ProxyRefusedError(f"answers with an address of the unknown type {kind}")
    length = ADDRESS_SIZES[kind] or (yield b"", _exactly(1))[0]
    yield b"", _exactly(length + 2)


def _address(host: str) -> bytes:
    try:
        address = ip_address(host)
    except ValueError:
        name = host.encode("ascii")
        return bytes([3, len(name)]) + name
    return (b"\4" if isinstance(address, IPv6Address) else b"\1") + address.packed


def _socks4(target: TunnelTarget) -> _Steps:
    """Ask for a connection (SOCKS 4, and 4A for a name, whose address is 0.0.0.1)."""
    asked = b"\4\1" + target.port.to_bytes(2, "big")
    try:
        asked += IPv4Address(target.host).packed + b"\0"
    except ValueError:  # also IPv6, for which SOCKS 4 has no other form
        asked += b"\0\0\0\1\0" + target.host.encode("ascii") + b"\0"
    answer = yield asked, _exactly(8)
    _check_version(answer, 0)
    if answer[1] != 90:
        raise ProxyRefusedError(f"cannot connect: request rejected ({answer[1]})")


def _check_version(answer: bytes, version: int) -> None:
    if answer[0] != version:
        what = "HTTP; write 'http://'" if answer[:1] == b"H" else "no SOCKS of this version"
        raise ProxyRefusedError(f"answers {_shown(answer)}, which is {what}")


_STATUS_LINE = re.compile(rb"HTTP/1\.[0-9] ([1-5][0-9]{2})(?: ([^\r\n]*))?\r?\n")
_BEGIN = b"HTTP/1."


def _http(target: TunnelTarget) -> _Steps:
    """Ask for a tunnel (RFC 9110, section 9.3.6), with a login of Basic (RFC 7617); the content of an answer 2xx is the server's."""
    lines = [f"CONNECT {target.text} HTTP/1.1", f"Host: {target.text}"]
    if target.user:
        login = base64.b64encode(f"{target.user}:{target.password}".encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {login}")
    sent = "".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii")
    for _ in range(_MOST_INTERIM):
        head = yield sent, _head_length
        match = _STATUS_LINE.match(head)
        if match is None:
            raise ProxyRefusedError(f"answers {_shown(head)}, which is not HTTP")
        status = int(match[1])
        if 200 <= status < 300:
            return
        if status >= 200 or status == 101:
            reason = printable((match[2] or b"").decode("latin-1").strip(), _LONGEST_REASON)
            hint = ""
            if status == 407:
                with_login = f"does not accept user {target.user!r} with this password"
                hint = f"; it {with_login if target.user else 'wants a user and a password'}"
            raise ProxyRefusedError(f"answers {f'{status} {reason}'.strip()}{hint}")
        sent = b""  # an interim answer comes before the true one (section 15.2)
    raise ProxyRefusedError(f"gives more than {_MOST_INTERIM} interim answers")


def _head_length(received: bytes) -> int:
    if not received.startswith(_BEGIN[: len(received)]):
        raise ProxyRefusedError(f"answers {_shown(received)}, which is not HTTP")
    # Two searches for fixed bytes are fast: a slow proxy's head is searched at each byte.
    ends = received.find(b"\n\r\n") + 3, received.find(b"\n\n") + 2
    length = min((end for end in ends if end > 2), default=0)
    if max(length, 0 if length else len(received)) > LONGEST_HEAD:
        raise ProxyRefusedError(f"answers with a head of more than {LONGEST_HEAD} bytes")
    return length


def _shown(answer: bytes) -> str:
    return repr(answer[:_LONGEST_BEGIN])[1:] + ("…" if len(answer) > _LONGEST_BEGIN else "")


_STEPS: dict[ProxyKind, Callable[[TunnelTarget], _Steps]] = {
    "socks5": _socks5,
    "socks4": _socks4,
    "http": _http,
}

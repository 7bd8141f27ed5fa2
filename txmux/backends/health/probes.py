"""The requests of checks, and the judgement of their answers; without a connection, and without a clock."""

import re
from collections.abc import Callable

from txmux.backends.names.dns_codes import code_name
from txmux.classes import frozen
from txmux.rules.model import Backend, Check
from txmux.transport import bracketed

_DNS_ID, _DNS_HEADER = b"tx", 12
_DNS_FINE = frozenset({0, 3})  # the name exists or not; either way the server answers


class UnhealthyError(Exception):
    """The answer shows that the server is not healthy; the message says why, for logs."""


@frozen
class Probe:
    """One request to a server.

    Attributes:
        request: The bytes that are sent first; may be empty.
        is_healthy: Called with all of the answer so far, first without any bytes: returns whether the server is healthy,
            false as long as that is open. Raises `UnhealthyError` as soon as it is not. It may keep its position.
        expected: What is missing while `is_healthy` returns false, for logs.
        quiet: Seconds after which a connection without an answer shows a healthy server; 0 if only an answer does.
        reply: Called with all of the answer while it is open: returns what is sent next, in step with the server.
        farewell: Sent at the end, to servers that log or count clients which just leave.
    """

    request: bytes
    is_healthy: Callable[[bytes], bool]
    expected: str
    quiet: float = 0.0
    reply: Callable[[bytes], bytes] = lambda _: b""
    farewell: bytes = b""


def opening(*, with_header: bool) -> Probe:
    """Connect as for a client that says nothing: a server that closes, resets or refuses at once is not healthy.

    One that does not know the PROXY header before that may say so, and close.
    """
    return Probe(b"", (lambda _: False) if with_header else bool, "open connection", quiet=1.0)


_SIGNS = "reset", "closed", "not TLS", "closing", "no byte"
_REFUSED_HEADER = *_SIGNS, "HTTP 400", "no HTTP answer", "no open connection"


def with_hint(why: str, backend: Backend) -> str:
    """Add to the cause of a failure that only one side may use the PROXY protocol, if it looks like that."""
    version = backend.proxy_protocol
    if not any(sign in why for sign in (_SIGNS if version == "off" else _REFUSED_HEADER)):
        return why
    if version == "off":
        return f"{why}; it may expect a PROXY header: see proxy_protocol"
    return f"{why}; it may not expect the header of proxy_protocol = {version}"


def probe(check: Check, name: str, port: int, *, tls: bool) -> Probe:
    if check.kind == "http":
        host = check.host or _host(name, port, 443 if tls else 80)
        request = check.send or _http_request(check.method, check.path, host)
        return Probe(request, _HttpJudge(check.statuses), "HTTP answer")
    if check.kind == "expect=":
        expected = f"{shown(check.expect)!r} in the answer"
        return Probe(check.send, lambda answer: check.expect in answer, expected)
    if check.kind == "dns":
        return Probe(_dns_query(check.name), _is_dns_answer, "answer of DNS")
    if check.kind == "ssh":
        # With a client's banner, the server logs a client that left, and not a scan.
        return Probe(b"SSH-2.0-txmux-check\r\n", _SshJudge(), "SSH banner")
    if check.kind == "mysql":
        login = MysqlLogin(check.user)
        quit_command = b"\x01\0\0\0\x01"
        return Probe(
            b"", login.is_healthy, "answer of MySQL", reply=login.reply, farewell=quit_command
        )
    return _FIXED[check.kind]


def _dns_query(name: str) -> bytes:
    """Write a query for the address of a name (RFC 1035, section 4.1)."""
    labels = [label.encode("ascii") for label in name.rstrip(".").split(".") if label]
    encoded = b"".join(bytes([len(label)]) + label for label in labels)
    return _DNS_ID + bytes.fromhex("01000001000000000000") + encoded + bytes.fromhex("0000010001")


def _is_dns_answer(answer: bytes) -> bool:
    if len(answer) < _DNS_HEADER or answer[:2] != _DNS_ID or not answer[2] & 0x80:
        return False
    code = answer[3] & 0x0F
    if code not in _DNS_FINE:
        raise UnhealthyError(f"DNS {code_name(code)}")
    return True


def shown(answer: bytes) -> str:
    line = answer.strip().partition(b"\n")[0].rstrip()
    return repr(line[:_SHOWN])[2:-1] + ("…" if len(line) > _SHOWN else "")


_SHOWN = 80


def _host(name: str, port: int, usual: int) -> str:
    host = bracketed(name) or "localhost"
    return f"{host}:{port}" if port not in {0, usual} else host


def _http_request(method: str, path: str, host: str) -> bytes:
    lines = (
        f"{method} {path} HTTP/1.1",
        f"Host: {host}",
        "User-Agent: txmux-check",
        "Accept: */*",
        "Connection: close",
        *(["Content-Length: 0"] if method in _WITH_CONTENT else ()),
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii")


# Servers may refuse these without a length, although there is no content (RFC 9110, section 8.6).
_WITH_CONTENT = frozenset({"PATCH", "POST", "PUT"})
_STATUS_LINE = re.compile(rb"HTTP/1\.[0-9] ([1-5][0-9]{2})(?: [^\n]*)?\r?\n")
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_MOST_INTERIM = 50


class _HttpJudge:
    """Reads each byte of an answer once, even if it comes in pieces or after interim responses."""

    def __init__(self, statuses: tuple[range, ...]) -> None:
        self._statuses = statuses
        self._start = self._looked = self._interim = 0

    def __call__(self, answer: bytes) -> bool:
        while answer.find(b"\n", self._start) >= 0:
            status_line = _STATUS_LINE.match(answer, self._start)
            if status_line is None:
                raise UnhealthyError(f"no HTTP answer: {shown(answer[self._start :])}")
            status = int(status_line[1])
            if any(status in some for some in self._statuses):
                return True
            if status >= 200 or status == 101:
                raise UnhealthyError(f"HTTP {status}")
            # An interim answer, after which the true one comes (RFC 9110, section 15.2).
            blank = _BLANK_LINE.search(answer, max(self._start, self._looked - 3))
            if blank is None:
                self._looked = len(answer)
                return False
            self._start = blank.end()
            self._interim += 1
            if self._interim > _MOST_INTERIM:
                raise UnhealthyError(f"more than {_MOST_INTERIM} interim answers of HTTP")
        return False


def _redis(answer: bytes) -> bool:
    """Look for what ``PING`` is answered with (Redis serialization protocol).

    A server that asks for a password first serves those who have it. All other errors mean that clients would not be
    served either.
    """
    line, end, _ = answer.partition(b"\n")
    if not end:
        return False
    if line.rstrip() == b"+PONG" or line.startswith((b"-NOAUTH ", b"-NOPERM ")):
        return True
    raise UnhealthyError(f"no PONG: {shown(line)}")


_CANNOT_CONNECT = b"57P"  # the SQLSTATEs of a server that starts, recovers or shuts down
_MESSAGE_HEADER = 1 + 4
_LONGEST_MESSAGE = 32 * 1024


def _postgres(answer: bytes) -> bool:
    """Look for the answer to a StartupMessage (PostgreSQL documentation, Frontend/Backend Protocol, 53.2.1).

    As for ``pg_isready``, a server that asks for more or refuses the client is healthy, unless it takes no connections now.
    """
    kind = answer[:1]
    length = int.from_bytes(answer[1:_MESSAGE_HEADER], "big")
    if len(answer) < _MESSAGE_HEADER:
        if kind not in {b"", b"R", b"E"}:
            raise UnhealthyError(f"not an answer from PostgreSQL: {shown(answer)}")
        return False
    if kind not in {b"R", b"E"} or not 8 <= length <= _LONGEST_MESSAGE:
        raise UnhealthyError(f"not an answer from PostgreSQL: {shown(answer)}")
    if len(answer) < 1 + length:
        return False
    if kind == b"E":
        fields = answer[_MESSAGE_HEADER : 1 + length].split(b"\0")
        values = {field[:1]: field[1:] for field in fields}
        if values.get(b"C", b"").startswith(_CANNOT_CONNECT):
            raise UnhealthyError(shown(values.get(b"M", b"") or values[b"C"]))
    return True


_STARTUP = (3 << 16).to_bytes(4, "big") + b"user\0txmux\0\0"
_SSH_BANNER = re.compile(rb"^SSH-", re.MULTILINE)


class _SshJudge:
    """Looks for the banner, before which other lines may come (RFC 4253, section 4.2)."""

    def __init__(self) -> None:
        self._start = 0

    def __call__(self, answer: bytes) -> bool:
        start, self._start = self._start, max(0, len(answer) - len(b"SSH-"))
        return _SSH_BANNER.search(answer, start) is not None


_SMTP_GREETING = re.compile(rb"(?:[0-9]{3}-[^\n]*\n)*([0-9]{3})(?: [^\n]*|\r)?\n")


def _smtp(answer: bytes) -> bool:
    """Look for the whole greeting (RFC 5321, section 3.1): servers refuse clients that speak before its end."""
    greeting = _SMTP_GREETING.match(answer)
    if greeting is not None and greeting[1] != b"220":
        raise UnhealthyError(f"SMTP {shown(answer)}")
    if greeting is None and b"\n" in answer and not re.match(rb"[0-9]{3}-", answer):
        raise UnhealthyError(f"no greeting of SMTP: {shown(answer)}")
    return greeting is not None


_MYSQL_CANNOT_CONNECT = frozenset({1040, 1041, 1053, 1129, 1130, 1203, 1226})
"""The errors of a server that has no room, shuts down, or refuses this host."""
_MYSQL_CAPABILITIES = 0x00088201  # LONG_PASSWORD, PROTOCOL_41, SECURE_CONNECTION, PLUGIN_AUTH


class MysqlLogin:
    """Logs in without a password (MySQL's Client/Server Protocol, connection phase).

    Servers count clients that leave before it for ``max_connect_errors``. As for ``mysqladmin ping``, one that
    refuses the user is healthy.
    """

    def __init__(self, user: str) -> None:
        self._user = user.encode()
        self._replied = 0  # to this many packets

    def is_healthy(self, answer: bytes) -> bool:
        if len(answer) > 4 and answer[3:5] not in {b"\0\x0a", b"\0\xff"}:
            raise UnhealthyError(f"not an answer from MySQL: {shown(answer)}")
        packets = _mysql_packets(answer)
        for number, packet in enumerate(packets):
            code = int.from_bytes(packet[1:3], "little")
            if packet[:1] == b"\xff" and (not number or code in _MYSQL_CANNOT_CONNECT):
                raise UnhealthyError(f"MySQL error {code}: {shown(packet[3:])}")
        return len(packets) > 1 and packets[-1][:1] in {b"\0", b"\xff"}

    def reply(self, answer: bytes) -> bytes:
        packets = _mysql_packets(answer)
        if len(packets) == self._replied:
            return b""
        self._replied = len(packets)
        body = b""  # no password, by another method that the server asks for
        if self._replied == 1:
            plugin = packets[0].rstrip(b"\0").rpartition(b"\0")[2]
            numbers = _MYSQL_CAPABILITIES.to_bytes(4, "little") + (1 << 24).to_bytes(4, "little")
            body = numbers + b"\x21" + bytes(23) + self._user + b"\0\0" + plugin + b"\0"
        number = (2 * self._replied - 1) % 256
        return len(body).to_bytes(3, "little") + bytes([number]) + body


def _mysql_packets(answer: bytes) -> list[bytes]:
    packets = []
    while len(answer) >= 4 + (length := int.from_bytes(answer[:3], "little")):
        packets.append(answer[4 : 4 + length])
        answer = answer[4 + length :]
    return packets


_FIXED = {
    "smtp": Probe(b"", _smtp, "greeting of SMTP", farewell=b"QUIT\r\n"),
    "tcp": Probe(b"", lambda _: True, "connection"),
    "redis": Probe(b"*1\r\n$4\r\nPING\r\n", _redis, "PONG"),
    "postgres": Probe(
        (4 + len(_STARTUP)).to_bytes(4, "big") + _STARTUP, _postgres, "answer of PostgreSQL"
    ),
}

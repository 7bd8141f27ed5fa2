"""The blocks ``upstream`` and ``split_clients``: servers, their balance, and their checks.

Checks are those of nginx_tcp_proxy_module, nginx_upstream_check_module and ngx_healthcheck_module.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction

import attrs

from txmux.rules.problems import InvalidValueError
from txmux.rules.reading import endpoints
from txmux.transport import is_address
from txmux_convert.matching import escaped, option
from txmux_convert.nginx.reader import Directive
from txmux_convert.nginx.values import Variable, duration, value_of
from txmux_convert.terms import InexpressibleError
from txmux_convert.values import milliseconds, whole_weights
from txmux_convert.writer import DraftSection, Origin

_ADDRESS = re.compile(r"(?P<host>\[[^\]]*\]|[^:/\s]+):(?P<port>[0-9]+|\{port\})")
_BALANCE = {
    "busyness": "least-connections",  # of the module for ``tcp``, as the next one
    "ip_hash": "source-hash",
    "least_conn": "least-connections",
    "random": "random",
}
_BY_ADDRESS = frozenset({"$remote_addr", "$binary_remote_addr", "$proxy_protocol_addr"})
TAKEN = frozenset({"server", "hash", "resolver", "resolver_timeout", *_BALANCE})
WITHOUT_EFFECT = {
    "check_keepalive_requests": "each check of txmux has a connection of its own",
    "check_shm_size": "the memory of checks",
    "zone": "memory that nginx's processes share; those of txmux share counters anyway",
}
"""Directives that have no counterpart and no report, and why they need none."""

_FLAGS = frozenset({"backup", "down", "resolve"})
_PARAMETERS = frozenset({"weight", "max_conns", "max_fails", "fail_timeout", "slow_start"})


@attrs.frozen
class UpstreamServer:
    """A server of a group.

    Attributes:
        most: As many connections as it may have; 0 is no limit.
        fails: How many failures take it out for a while; 0 is none.
        away: How long, as a duration.
        resolves: Whether its name is looked up while nginx runs, too.
    """

    place: str
    line: int = attrs.field(eq=False)
    weight: int = 1
    most: int = 0
    backup: bool = False
    down: bool = False
    fails: int = 1
    away: str = "10s"
    slow_start: str = "0s"
    resolves: bool = False

    @property
    def has_name(self) -> bool:
        host = self.place.rpartition(":")[0].strip("[]")
        return not self.place.startswith("unix:") and not is_address(host)

    def __str__(self) -> str:
        words = [self.place, *[f"weight={self.weight}"] * (self.weight != 1)]
        words += [f"max_connections={self.most}"] * (self.most > 0)
        return " ".join([*words, *["backup"] * self.backup, *["down"] * self.down])


@attrs.frozen
class UpstreamGroup:
    """Servers of which each client gets one, and the problems that have no counterpart.

    Attributes:
        hashed: The directive ``hash``, if it is by address.
        block: All directives.
    """

    name: str
    members: tuple[UpstreamServer, ...]
    balance: str = "round-robin"
    line: int = attrs.field(default=0, eq=False)
    problems: tuple[tuple[Origin, str], ...] = ()
    check: ServerCheck | None = None
    hashed: Directive | None = None
    block: tuple[Directive, ...] = ()


def endpoint_of(text: str) -> str:
    """Write the address of a server as txmux does."""
    match = _ADDRESS.fullmatch(text)
    place = f"{match['host']}:{match['port']}" if match else text
    if not match and not text.startswith("unix:"):
        raise InexpressibleError(f"{text or 'nothing'} is not an address and a port")
    try:
        endpoints.server(place)
    except InvalidValueError as error:
        raise InexpressibleError(error.messages[-1]) from None
    return place


def single(text: str, line: int) -> UpstreamGroup:
    place = endpoint_of(text)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", place.removeprefix("unix:")).strip("-")
    return UpstreamGroup(name, (UpstreamServer(place, line),), line=line)


def read_group(directive: Directive) -> UpstreamGroup:
    problems: list[tuple[Origin, str]] = []
    members: list[UpstreamServer] = []
    balance, hashed = "round-robin", None
    for line in directive.block or ():
        if line.name == "server":
            try:
                members.append(_member(line, problems))
            except InexpressibleError as error:
                problems.append((line, f"is left out: {error}"))
        elif line.name in _BALANCE:
            balance = _BALANCE[line.name]
        elif line.name == "hash" and line.value in _BY_ADDRESS:
            balance, hashed = "source-hash", line
        elif line.name == "hash":
            problems.append((line, f"has no counterpart; {balance} is used"))
        elif line.name not in {*TAKEN, *WITHOUT_EFFECT, *CHECKS}:
            problems.append((line, "has no counterpart"))
    block = directive.block or ()
    servers = tuple(_merged(members))
    number, check = directive.number, read_check(block)
    return UpstreamGroup(
        directive.value, servers, balance, number, tuple(problems), check, hashed, block
    )


def _merged(members: Iterable[UpstreamServer]) -> Iterable[UpstreamServer]:
    """Make one server of lines with the same address, of which each counts its own connections in nginx."""
    servers: dict[tuple[str, bool], UpstreamServer] = {}
    for member in members:
        key = member.place, member.backup
        other = servers.get(key, member)
        if member.down or other.down or other is member:
            servers[key] = member if other.down else other
        else:
            most = other.most + member.most if other.most and member.most else 0
            weight = other.weight + member.weight
            servers[key] = attrs.evolve(other, weight=weight, most=most)
    return servers.values()


def _member(directive: Directive, problems: list[tuple[Origin, str]]) -> UpstreamServer:
    given: dict[str, str] = {}
    for word in directive.parameters[1:]:
        name, equals, value = word.partition("=")
        if name in (_PARAMETERS if equals else _FLAGS):
            given[name] = value
        elif name == "service":
            raise InexpressibleError("write its SRV record as srv:_service._tcp.NAME")
        else:
            problems.append((directive, f"{word} has no counterpart"))
    numbers = {
        name: _number(given.get(name, str(default)))
        for name, default in (("weight", 1), ("max_conns", 0), ("max_fails", 1))
    }
    return UpstreamServer(
        endpoint_of(directive.value),
        directive.number,
        numbers["weight"],
        numbers["max_conns"],
        "backup" in given,
        "down" in given,
        numbers["max_fails"],
        duration(given.get("fail_timeout", "10s")),
        duration(given.get("slow_start", "0")),
        "resolve" in given,
    )


def _number(text: str) -> int:
    if not text.isdecimal():
        raise InexpressibleError(f"{text!r} is not a number")
    return int(text)


def add_members(
    group: UpstreamGroup, section: DraftSection, *, is_udp: bool, answers: bool = False
) -> None:
    """Write the servers, and how one of them is chosen; of those by UDP, some have to give answers."""
    for origin, message in group.problems:
        section.flag(origin, message)
    udp = "udp:" if is_udp else ""
    for member in group.members:
        section.add("server", f"{udp}{member}", member.line)
    if len(group.members) < 2:
        return
    if group.balance != "round-robin":
        section.add("balance", group.balance, group.line)
    first = group.members[0]
    failure_limits = {(member.fails, member.away, member.slow_start) for member in group.members}
    if len(failure_limits) > 1:
        message = "max_fails, fail_timeout, slow_start: servers of a [backend] have the same; what the first has is used for all"
        section.warn(group.line, message)
    eject = f"failures={first.fails} within={first.away} for={first.away}"
    eject += f" unanswered={first.fails}" if answers else ""
    section.add("eject", eject if first.fails else "off", first.line)
    if first.slow_start != "0s":
        section.add("slow_start", first.slow_start, first.line)


CHECKS = frozenset(
    {
        *("check", "check_http_expect_alive", "check_http_send"),
        *("check_smtp_expect_alive", "check_smtp_send"),
    }
)
"""The directives that are read here."""

_USUAL = {"interval": "30000", "timeout": "1000", "rise": "2", "fall": "5"}
_REQUEST = "GET / HTTP/1.0\r\n\r\n"
_ALIVE = ("http_2xx", "http_3xx")
_KINDS: Mapping[str, list[str]] = {
    "imap": [option("expect", "* OK")],
    # The number of the first packet, and the version of the protocol (MySQL internals, HandshakeV10).
    "mysql": [option("expect", r"\0\n")],
    "pop3": [option("expect", "+OK")],
    "smtp": [option("expect", "220")],
    "ssl_hello": ["tcp", "tls=yes"],
    "tcp": ["tcp"],
}


@attrs.frozen
class ServerCheck:
    """A health check of servers, as words of ``check``; none if there is no such check in txmux."""

    directive: Directive
    words: tuple[str, ...]
    unknown: tuple[str, ...] = ()

    def write(self, section: DraftSection, *, is_udp: bool = False) -> None:
        """Write it, or report that it has none: for UDP, only another port can be connected to."""
        if not self.words or (is_udp and not any(word.startswith("port=") for word in self.words)):
            section.flag(self.directive, "is left out: it has no counterpart")
            return
        section.add("check", " ".join(self.words), self.directive)
        if self.unknown:
            section.warn(self.directive, f"no counterpart of {', '.join(self.unknown)}")


def read_check(directives: Iterable[Directive]) -> ServerCheck | None:
    """Read what is in an ``upstream`` about checks; ``None`` if there are none."""
    latest = {d.name: d for d in directives if d.name in CHECKS}
    check = latest.get("check")
    if check is None:
        return None
    given = dict(word.partition("=")[::2] for word in check.parameters)
    kind, port = given.pop("type", "tcp"), given.pop("port", "0")
    times = {name: given.pop(name, usual) for name, usual in _USUAL.items()}
    given.pop("default_down", "")
    if kind == "smtp":
        given["check_smtp_send"] = ""  # only the greeting is waited for
    words = _http(latest) if kind == "http" else _KINDS.get(kind, [])
    if words:
        words = [*words, *([f"port={port}"] * (port != "0"))]
        words += [f"{name}={_time(times[name])}" for name in ("interval", "timeout")]
        words += [f"{name}={times[name]}" for name in ("rise", "fall")]
    return ServerCheck(check, tuple(words), tuple(given))


def _http(latest: Mapping[str, Directive]) -> list[str]:
    send, alive = latest.get("check_http_send"), latest.get("check_http_expect_alive")
    words = ["http", option("send", escaped(send.value if send else _REQUEST))]
    statuses = alive.parameters if alive else _ALIVE
    expect = ",".join(status.removeprefix("http_") for status in statuses)
    return words if statuses == _ALIVE else [*words, f"expect={expect}"]


def _time(text: str) -> str:
    """Write milliseconds; what cannot be read stays as it is, so that the parser refuses it."""
    return milliseconds(int(text)) if text.isdecimal() else text


_SHARE = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,2})?%")
_ALL = 100
_ADDRESSES = frozenset({"remote_addr", "binary_remote_addr"})


def split_group(
    directive: Directive, group_of: Callable[[str, int], UpstreamGroup]
) -> UpstreamGroup:
    """Make one group of those that clients are split among."""
    shares: list[tuple[Fraction, UpstreamGroup]] = []
    left = Fraction(_ALL)
    for line in directive.block or ():
        if len(line.words) != 2 or not (line.name == "*" or _SHARE.fullmatch(line.name)):
            raise InexpressibleError(f"{line} is not a share")
        share = left if line.name == "*" else Fraction(line.name.removesuffix("%"))
        left -= share
        if share > 0:
            shares.append((share, group_of(line.value, line.number)))
    if left > 0 or not shares:
        raise InexpressibleError("not all clients have a share, and those without are closed")
    members = [member for _, group in shares for member in group.members]
    if len(shares) > 1 and any(_is_particular(group) for _, group in shares):
        raise InexpressibleError(
            "one of its groups chooses among its servers in its own way, and a [backend] has one way"
        )
    weights = whole_weights(
        [
            share * member.weight / sum(other.weight for other in group.members)
            for share, group in shares
            for member in group.members
        ]
    )
    weighted = [attrs.evolve(m, weight=w) for m, w in zip(members, weights, strict=True)]
    name = directive.parameters[-1].removeprefix("$")
    # The same address always falls into the same share.
    names = {piece.name for piece in value_of(directive.value) if isinstance(piece, Variable)}
    balance = "source-hash" if names and names <= _ADDRESSES else "round-robin"
    return UpstreamGroup(name, tuple(weighted), balance, directive.number)


def _is_particular(group: UpstreamGroup) -> bool:
    return (len(group.members) > 1 and group.balance != "round-robin") or any(
        member.backup or member.down for member in group.members
    )

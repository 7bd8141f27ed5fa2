"""The blocks ``upstream``: which servers there are, and how one of them is chosen."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs

from txmux.convert.nginx.checks import CHECKS, Asked, read_check
from txmux.convert.nginx.values import duration
from txmux.convert.terms import InexpressibleError
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading import endpoints

if TYPE_CHECKING:
    from txmux.convert.nginx.reader import Directive
    from txmux.convert.writer import Draft, Section

_ADDRESS = re.compile(r"(?P<host>\[[^\]]*\]|[^:/\s]+):(?P<port>[0-9]+)")
_BALANCE = {
    "busyness": "least-connections",  # of the module for ``tcp``, as the next one
    "ip_hash": "source-hash",
    "least_conn": "least-connections",
    "random": "random",
}
_BY_ADDRESS = frozenset({"$remote_addr", "$binary_remote_addr"})
_QUIET = frozenset({"zone", "server", "resolver", "resolver_timeout"})
_FLAGS = frozenset({"backup", "down", "resolve"})
_PARAMETERS = frozenset({"weight", "max_conns", "max_fails", "fail_timeout"})


@attrs.frozen
class Member:
    """A server of a group.

    Attributes:
        place: Where it is, as txmux writes it.
        line: Where that is said.
        weight: Its share.
        options: What follows in its line of txmux.
        fails: How many failures take it out for a while; 0 is none.
        away: How long, as a duration.
    """

    place: str
    line: int = attrs.field(eq=False)
    weight: int = 1
    options: tuple[str, ...] = ()
    fails: int = 1
    away: str = "10s"


@attrs.frozen
class Group:
    """Servers of which each client gets one.

    Attributes:
        name: What the backend is called.
        members: The servers.
        balance: How they are chosen, where there are several.
        line: Where the group is.
        problems: What has no counterpart, with its line.
        check: How its servers are checked.
    """

    name: str
    members: tuple[Member, ...]
    balance: str = "round-robin"
    line: int = attrs.field(default=0, eq=False)
    problems: tuple[tuple[int, str], ...] = ()
    check: Asked | None = None

    def tell(self, draft: Draft, section: Section) -> None:
        """Report what has no counterpart."""
        for line, message in self.problems:
            draft.look(line, message, section)


def place_of(text: str) -> str:
    """Write the address of a server as txmux does.

    Raises:
        InexpressibleError: It is not one.
    """
    found = _ADDRESS.fullmatch(text)
    place = f"{found['host']}:{found['port']}" if found else text
    if not found and not text.startswith("unix:"):
        raise InexpressibleError(f"{text or 'nothing'} is not an address and a port")
    try:
        endpoints.server(place)
    except InvalidValueError as error:
        raise InexpressibleError(error.messages[-1]) from None
    return place


def single(text: str, line: int) -> Group:
    """Make a group of one server.

    Raises:
        InexpressibleError: The text is not the address of a server.
    """
    place = place_of(text)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", place.removeprefix("unix:")).strip("-")
    return Group(name, (Member(place, line),), line=line)


def read_group(directive: Directive) -> Group:
    """Read a block."""
    problems: list[tuple[int, str]] = []
    members: list[Member] = []
    balance = "round-robin"
    for line in directive.block or ():
        if line.name == "server":
            try:
                members.append(_member(line, problems))
            except InexpressibleError as error:
                problems.append((line.line, f"{line}: is left out: {error}"))
        elif line.name in _BALANCE:
            balance = _BALANCE[line.name]
        elif line.name == "hash" and line.value in _BY_ADDRESS:
            balance = "source-hash"
        elif line.name == "hash":
            problems.append((line.line, f"{line}: has no counterpart; {balance} is used"))
        elif line.name not in {*_QUIET, *CHECKS}:
            problems.append((line.line, f"{line}: has no counterpart"))
    check = read_check(directive.block or ())
    name = directive.value
    return Group(name, tuple(members), balance, directive.line, tuple(problems), check)


def _member(directive: Directive, problems: list[tuple[int, str]]) -> Member:
    given: dict[str, str] = {}
    for word in directive.parameters[1:]:
        name, equals, value = word.partition("=")
        if name in (_PARAMETERS if equals else _FLAGS):
            given[name] = value
        elif name == "service":
            raise InexpressibleError("write its SRV record as srv:_service._tcp.NAME")
        else:
            problems.append((directive.line, f"{directive}: {word} has no counterpart"))
    numbers = {
        name: _number(given.get(name, str(default)))
        for name, default in (("weight", 1), ("max_conns", 0), ("max_fails", 1))
    }
    options = [f"max_connections={numbers['max_conns']}"] * bool(numbers["max_conns"])
    options += [flag for flag in ("backup", "down") if flag in given]
    return Member(
        place_of(directive.value),
        directive.line,
        numbers["weight"],
        tuple(options),
        numbers["max_fails"],
        duration(given.get("fail_timeout", "10s")),
    )


def _number(text: str) -> int:
    if not text.isdecimal():
        raise InexpressibleError(f"{text!r} is not a number")
    return int(text)


def add_members(group: Group, section: Section, draft: Draft, *, is_udp: bool) -> None:
    """Write the servers, and how one of them is chosen."""
    udp = "udp:" if is_udp else ""
    for member in group.members:
        weight = f"weight={member.weight}" if member.weight != 1 else ""
        text = " ".join(filter(None, (udp + member.place, weight, *member.options)))
        section.add("server", text, member.line)
    if len(group.members) < 2:
        return
    if group.balance != "round-robin":
        section.add("balance", group.balance, group.line)
    first = group.members[0]
    wanted = {(member.fails, member.away) for member in group.members}
    if len(wanted) > 1:
        message = "max_fails, fail_timeout: servers of a [backend] have the same; what the first has is used for all"
        draft.warn(group.line, message, section)
    eject = f"failures={first.fails} within={first.away} for={first.away}"
    section.add("eject", eject if first.fails else "off", first.line)

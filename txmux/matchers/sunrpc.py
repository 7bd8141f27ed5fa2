"""The matcher for ONC RPC, which NFS and the port mapper speak."""

from collections.abc import Mapping

from zope.interface import implementer

from txmux.classes import frozen
from txmux.errors import OptionError
from txmux.interfaces import IProtocolMatcher, Option, Peeked, Predicate, Transport, Verdict
from txmux.wire import Cursor, MalformedError, verdict_of
from txmux.wire.globs import names
from txmux.wire.messages import Message

_LAST_FRAGMENT = 1 << 31
_SHORTEST_CALL = 6 * 4 + 2 * 8
_LONGEST_CALL = (1 << 24) - 1
_CALL, _VERSION = 0, 2
_PROGRAM_AT = 4 + 3 * 4
_HEADER = _PROGRAM_AT + 4
_LAST_PROGRAM = (1 << 32) - 1
_PROGRAMS = {
    "portmapper": 100000,
    "nfs": 100003,
    "mountd": 100005,
    "nlockmgr": 100021,
    "status": 100024,
}
_CREDENTIALS, _VERIFIERS = frozenset({0, 1, 2, 3, 6, 7}), frozenset({0, 2, 3, 6})
"""Flavors: none, of the system, of a session, by DES and by GSS, and TLS (RFC 9289) in the place of credentials."""
_GSS = 6
_LONGEST_OF_FLAVOR = 400
_LARGEST_NUMBER = 0xFFFF
"""Of versions and procedures in use; to learn which versions there are, others are called with procedure 0."""
_NAMES = {number: name for name, number in _PROGRAMS.items()}


@frozen
class _SunrpcPredicate:
    programs: frozenset[int] | None
    longest: int = _HEADER
    first_bytes: frozenset[int] = frozenset({0x80})

    def __call__(self, peeked: Peeked, /) -> Verdict:
        return verdict_of(peeked.data, self._read)

    def _read(self, cursor: Cursor) -> None:
        _read_beginning(cursor)
        program = cursor.number(4, min(self.programs or {1}), max(self.programs or {_LAST_PROGRAM}))
        if self.programs and program not in self.programs:
            raise MalformedError

    def learnt(self, peeked: Peeked, /) -> dict[str, str]:
        cursor = Cursor(peeked.data)
        if verdict_of(peeked.data, self._read) is not Verdict.MATCH:
            return {}
        cursor.take(_PROGRAM_AT)
        return {"program": _named(cursor.number(4, 1, _LAST_PROGRAM))}


def _read_datagram(cursor: Cursor) -> dict[str, str]:
    cursor.take(4)
    cursor.number(4, _CALL, _CALL)
    cursor.number(4, _VERSION, _VERSION)
    program = cursor.number(4, 1, _LAST_PROGRAM)
    version = cursor.number(4, 0, _LAST_PROGRAM)
    procedure = cursor.number(4, 0, _LARGEST_NUMBER if 0 < version <= _LARGEST_NUMBER else 0)
    credentials = _read_proof(cursor, _CREDENTIALS)
    _read_proof(cursor, _VERIFIERS)
    if cursor.left % 4 or (cursor.left and not procedure and credentials != _GSS):
        raise MalformedError
    return {"program": _named(program)}


def _read_proof(cursor: Cursor, flavors: frozenset[int]) -> int:
    flavor = cursor.number(4, 0, max(flavors))
    if flavor not in flavors:
        raise MalformedError
    size = cursor.number(4, 0, _LONGEST_OF_FLAVOR)
    cursor.take(size + -size % 4)
    return flavor


@implementer(IProtocolMatcher)
class SunrpcMatcher:
    """Matches the first call of a client of ONC RPC (RFC 5531, sections 8.2, 9 and 11).

    Over TCP the mark of a record in one fragment, the number of the call, that it is a call, version 2, and the program.
    Over UDP the same without the mark, and what proves who calls: kinds that are in use, with lengths that fit. Procedure 0
    has no arguments (section 12), but for those with which a context of GSS begins (RFC 2203, section 5.2.2).
    """

    name = "sunrpc"
    summary = "ONC RPC, as NFS and the port mapper, by the first call"
    transports = tuple(Transport)
    options = (
        Option(
            "program",
            "programs: numbers, or nfs mountd portmapper nlockmgr status",
            "nfs,mountd,100011",
        ),
    )

    def predicate(self, options: Mapping[str, str]) -> Predicate:
        if "program" not in options:
            return _SunrpcPredicate(None)
        return _SunrpcPredicate(frozenset(_programs(options)))

    def datagram_predicate(self, options: Mapping[str, str]) -> Predicate:
        wanted = {}
        if "program" in options:
            wanted["program"] = names(",".join(map(_named, _programs(options))))
        return Message(_read_datagram, wanted, ("program",))


sunrpc = SunrpcMatcher()


def _read_beginning(cursor: Cursor) -> None:
    cursor.number(4, _LAST_FRAGMENT + _SHORTEST_CALL, _LAST_FRAGMENT + _LONGEST_CALL)
    cursor.take(4)
    cursor.number(4, _CALL, _CALL)
    cursor.number(4, _VERSION, _VERSION)


def _programs(options: Mapping[str, str]) -> list[int]:
    return [_program(text) for text in options["program"].split(",")]


def _named(program: int) -> str:
    return _NAMES.get(program, str(program))


def _program(text: str) -> int:
    text = text.strip()
    if text in _PROGRAMS:
        return _PROGRAMS[text]
    if text.isascii() and text.isdecimal() and 1 <= int(text[:11]) <= _LAST_PROGRAM:
        return int(text)
    programs = " ".join(_PROGRAMS)
    raise OptionError("program", f"{text!r} is not a program; write one of {programs}, or a number")

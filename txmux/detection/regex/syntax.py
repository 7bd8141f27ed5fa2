"""A pattern's text as a small tree, read by the parser that Python's `re` itself uses."""

from __future__ import annotations

import enum
import importlib
import re
import warnings
from collections.abc import Iterable
from typing import Any

from txmux.classes import frozen
from txmux.errors import MuxError

_parser: Any = importlib.import_module("re._parser")


class PatternError(MuxError):
    """A pattern cannot be used for a stream; the message is what is wrong and what would be right."""


class Assertion(enum.Enum):
    """A condition on the bytes around a place that takes none of them."""

    START = "^"
    LINE_START = "(?m:^)"
    BOUNDARY = r"\b"
    NO_BOUNDARY = r"\B"


@frozen
class OneByte:
    """Any one byte of a set, which is a number whose bit `b` stands for the byte `b`."""

    allowed: int


@frozen
class Sequence:
    """One node after the other; none at all is the empty string."""

    items: tuple[Node, ...]


@frozen
class Alternation:
    """Any one of the nodes."""

    items: tuple[Node, ...]


@frozen
class Repeat:
    """A node again and again; `maximum` is ``None`` where there is none."""

    item: Node
    minimum: int
    maximum: int | None


Node = OneByte | Sequence | Alternation | Repeat | Assertion


def _byte_set(members: Iterable[int]) -> int:
    return sum(1 << byte for byte in set(members))


def _matched_by(pattern: bytes) -> int:
    return _byte_set(byte for byte in range(256) if re.match(pattern, bytes([byte])))


EVERY_BYTE = _byte_set(range(256))
NEWLINE = _byte_set(b"\n")
WORD = _matched_by(rb"\w")

_UPPER = _matched_by(b"[A-Z]")
_LOWER = _matched_by(b"[a-z]")
_CASE_DISTANCE = ord("a") - ord("A")
_CATEGORIES = {
    "CATEGORY_DIGIT": _matched_by(rb"\d"),
    "CATEGORY_NOT_DIGIT": _matched_by(rb"\D"),
    "CATEGORY_SPACE": _matched_by(rb"\s"),
    "CATEGORY_NOT_SPACE": _matched_by(rb"\S"),
    "CATEGORY_WORD": WORD,
    "CATEGORY_NOT_WORD": EVERY_BYTE ^ WORD,
}
_ASSERTIONS = {
    "AT_BEGINNING": Assertion.START,
    "AT_BEGINNING_STRING": Assertion.START,
    "AT_BOUNDARY": Assertion.BOUNDARY,
    "AT_NON_BOUNDARY": Assertion.NO_BOUNDARY,
}

_WRITE_WHAT_FOLLOWS = "write the bytes that have to come next as part of the pattern"
_LOOKS_AHEAD = f"looks past the end of its own match with (?=...) or (?!...): {_WRITE_WHAT_FOLLOWS}"
_REFUSED = {
    "AT_END": "looks past the end of its own match with $, and a stream shows no end: "
    f"leave $ out, or {_WRITE_WHAT_FOLLOWS}",
    "AT_END_STRING": r"looks past the end of its own match with \Z, and a stream shows no end: "
    rf"leave \Z out, or {_WRITE_WHAT_FOLLOWS}",
    "ASSERT": _LOOKS_AHEAD,
    "ASSERT_NOT": _LOOKS_AHEAD,
    "FAILURE": _LOOKS_AHEAD,
    "GROUPREF": r"repeats a group with a back-reference such as \1, which has no bound in time: "
    "write out what may come there",
    "GROUPREF_EXISTS": "asks whether a group took part with (?(1)...): "
    "write both cases as alternatives with |",
    "ATOMIC_GROUP": "has an atomic group (?>...): write (?:...), which takes no longer here",
    "POSSESSIVE_REPEAT": "has a possessive repeat such as a++: write a+, which takes no longer here",
}
_LOOKS_BACK = "looks back with (?<=...) or (?<!...): write what comes before as part of the pattern"


def parse(pattern: bytes) -> Node:
    """Read a bytes pattern; whether a repeat is greedy is forgotten, as it does not change which strings match in full.

    Raises:
        PatternError: It is not a regular expression, or uses what a stream has no answer for.
        RecursionError: Its groups are nested too deeply.
    """
    with warnings.catch_warnings():
        # What `re` only warns of now gets another meaning, or none, in later versions.
        warnings.simplefilter("error")
        try:
            tree = _parser.parse(pattern)
        except (re.error, ValueError, OverflowError) as error:
            shown, why = repr(pattern)[1:], _on_one_line(str(error))
            raise PatternError(f"{shown} is not a regular expression: {why}") from None
        except Warning as warning:
            raise PatternError(
                f"would not mean the same to every version of Python: {_on_one_line(str(warning))}; "
                "put a backslash before that character if it is literal"
            ) from None
    return _sequence(tree, _without_locale(tree.state.flags))


def _on_one_line(message: str) -> str:
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in message)


def _without_locale(flags: int) -> int:
    if flags & re.LOCALE:
        raise PatternError("depends on the locale of the machine with (?L): leave the L out")
    return flags


def _sequence(tree: Any, flags: int) -> Node:
    items = tuple(_node(op.name, argument, flags) for op, argument in tree)
    return items[0] if len(items) == 1 else Sequence(items)


def _node(op: str, argument: Any, flags: int) -> Node:
    match op:
        case "LITERAL" | "NOT_LITERAL" | "ANY" | "IN":
            return OneByte(_allowed(op, argument, flags))
        case "BRANCH":
            return Alternation(tuple(_sequence(branch, flags) for branch in argument[1]))
        case "SUBPATTERN":
            _, added, removed, body = argument
            return _sequence(body, (flags | _without_locale(added)) & ~removed)
        case "MAX_REPEAT" | "MIN_REPEAT":
            minimum, maximum, body = argument
            bounded = maximum < _parser.MAXREPEAT
            return Repeat(_sequence(body, flags), minimum, int(maximum) if bounded else None)
        case "AT":
            return _assertion(argument.name, flags)
        case "ASSERT" | "ASSERT_NOT" if argument[0] < 0:
            raise PatternError(_LOOKS_BACK)
        case _:
            raise _refusal(op)


def _assertion(sign: str, flags: int) -> Assertion:
    if sign not in _ASSERTIONS:
        raise _refusal(sign)
    if sign == "AT_BEGINNING" and flags & re.MULTILINE:
        return Assertion.LINE_START
    return _ASSERTIONS[sign]


def _refusal(op: str) -> PatternError:
    return PatternError(
        _REFUSED.get(op, f"uses what streams have no answer for ({op}): leave it out")
    )


def _allowed(op: str, argument: Any, flags: int) -> int:
    match op:
        case "ANY":
            return EVERY_BYTE if flags & re.DOTALL else EVERY_BYTE ^ NEWLINE
        case "LITERAL" | "NOT_LITERAL":
            members = 1 << int(argument)
            negated = op == "NOT_LITERAL"
        case _:
            negated = argument[0][0].name == "NEGATE"
            members = 0
            for kind, value in argument[negated:]:
                members |= _class_member(kind.name, value)
    if flags & re.IGNORECASE:
        members |= (members & _UPPER) << _CASE_DISTANCE | (members & _LOWER) >> _CASE_DISTANCE
    return EVERY_BYTE ^ members if negated else members


def _class_member(kind: str, value: Any) -> int:
    match kind:
        case "LITERAL":
            return 1 << int(value)
        case "RANGE":
            return _byte_set(range(value[0], value[1] + 1))
        case _:
            return _CATEGORIES[value.name]

"""What follows ``if`` and ``unless`` in an ``haproxy.cfg`` (its configuration manual, section 7.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from txmux.convert.haproxy.acls import PREDEFINED, read_acl
from txmux.convert.terms import (
    ALWAYS,
    NEVER,
    Condition,
    InexpressibleError,
    conjunction,
    negated,
    of_networks_only,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from txmux.convert.haproxy.context import BindContext
    from txmux.convert.writer import ConfigLine


@attrs.frozen
class Tests:
    """Tests of which all must be passed."""

    passed: Condition
    failed: Condition = NEVER


@attrs.frozen
class RuleCondition:
    """A whole condition: one of several groups of tests is enough; with ``unless``, none of them may be passed."""

    groups: tuple[Tests, ...]
    unless: bool = False

    def is_of_networks(self) -> bool:
        return all(of_networks_only(t.passed) and of_networks_only(t.failed) for t in self.groups)

    def networks(self) -> Condition:
        """Return the networks that it asks for.

        Raises:
            InexpressibleError: It asks for what the client says, too.
        """
        if not self.is_of_networks():
            raise InexpressibleError("no byte of the client is there yet")
        found = tuple(
            term for t in self.groups for term in conjunction(t.passed, negated(t.failed))
        )
        return negated(found) if self.unless else found


def read_acls(
    lines: Iterable[ConfigLine], bind: BindContext
) -> dict[str, Condition | InexpressibleError]:
    """Read the ``acl`` lines of a section; several of one name are alternatives."""
    acls: dict[str, Condition | InexpressibleError] = {}
    for line in lines:
        name = line.words[1] if len(line.words) > 1 else ""
        before = acls.get(name, NEVER)
        try:
            found = read_acl(line.words[2:], bind)
            bind.files.report_at(line.number)
        except InexpressibleError as error:
            if not isinstance(before, InexpressibleError):
                acls[name] = InexpressibleError(f"acl {name}: {error}")
        else:
            acls[name] = before if isinstance(before, Exception) else (*before, *found)
    return acls


def read_question(
    words: Sequence[str], acls: Mapping[str, Condition | InexpressibleError], bind: BindContext
) -> RuleCondition:
    """Read a condition with its ``if`` or ``unless``; without one it is always true."""
    if not words:
        return RuleCondition((Tests(ALWAYS),))
    if words[0] not in {"if", "unless"}:
        raise InexpressibleError(f"'{words[0]}' is not a condition")
    groups = tuple(_tests(group, acls, bind) for group in _split(words[1:]))
    return RuleCondition(groups, unless=words[0] == "unless")


def _tests(
    group: Sequence[tuple[bool, Sequence[str]]],
    acls: Mapping[str, Condition | InexpressibleError],
    bind: BindContext,
) -> Tests:
    passed, failed = ALWAYS, NEVER
    for negative, test in group:
        one = _one(test, acls, bind)
        if negative and of_networks_only(one):
            passed = conjunction(passed, negated(one))
        elif negative:
            failed += one
        else:
            passed = conjunction(passed, one)
    return Tests(passed, tuple(dict.fromkeys(failed)))


def _split(words: Sequence[str]) -> list[list[tuple[bool, Sequence[str]]]]:
    found: list[list[tuple[bool, Sequence[str]]]] = [[]]
    rest, negative = list(words), False
    while rest:
        word = rest.pop(0)
        while word.startswith("!"):
            negative, word = not negative, word[1:]
        if word in {"or", "||"}:
            found.append([])
        elif word == "{":
            end = rest.index("}") if "}" in rest else len(rest)
            found[-1].append((negative, rest[:end]))
            del rest[: end + 1]
            negative = False
        elif word:
            found[-1].append((negative, (word,)))
            negative = False
    if [] in found:
        raise InexpressibleError("a condition lacks its tests")
    return found


def _one(
    test: Sequence[str], acls: Mapping[str, Condition | InexpressibleError], bind: BindContext
) -> Condition:
    known = acls.get(test[0], PREDEFINED.get(test[0])) if len(test) == 1 else None
    if isinstance(known, InexpressibleError):
        raise known
    return read_acl(test, bind) if known is None else known

"""Conditions and decisions of HAProxy as routes in their order, and an outcome for all others.

Negated tests are not written as ``match = not ...``: on a timeout HAProxy takes an incomplete client as not matching,
txmux does not. Clients that pass the test therefore get routes first, to their later destination.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby

import attrs

from txmux_convert.haproxy.acls import PREDEFINED, read_acl
from txmux_convert.haproxy.binds import BindContext
from txmux_convert.terms import (
    ALWAYS,
    NEVER,
    SILENT,
    Condition,
    Hello,
    InexpressibleError,
    Networks,
    Term,
    both_hellos,
    common,
    conjunction,
    negated,
    of_networks_only,
)
from txmux_convert.writer import ConfigLine

Lost = Callable[[ConfigLine, str], None]

Acls = Mapping[str, Condition | InexpressibleError]


@attrs.frozen
class Tests:
    """Tests that must pass, and tests that must fail."""

    passed: Condition
    failed: Condition = NEVER


@attrs.frozen
class RuleCondition:
    """A whole condition: one of several groups of tests must pass; with ``unless``, none of them may."""

    groups: tuple[Tests, ...]
    unless: bool = False

    def is_of_networks(self) -> bool:
        return all(of_networks_only(t.passed) and of_networks_only(t.failed) for t in self.groups)

    def networks(self) -> Condition:
        """Return the networks that meet it.

        Raises:
            InexpressibleError: It also depends on the client's bytes.
        """
        if not self.is_of_networks():
            raise InexpressibleError("no byte of the client is there yet")
        condition = tuple(
            term for t in self.groups for term in conjunction(t.passed, negated(t.failed))
        )
        return negated(condition) if self.unless else condition


def read_acls(
    lines: Iterable[ConfigLine], bind: BindContext
) -> dict[str, Condition | InexpressibleError]:
    """Read the ``acl`` lines of a section; several of one name are alternatives."""
    acls: dict[str, Condition | InexpressibleError] = {}
    for line in lines:
        name = line.value
        before = acls.get(name, NEVER)
        try:
            condition = read_acl(line.words[2:], bind)
            bind.files.report_at(line.number)
        except InexpressibleError as error:
            if not isinstance(before, InexpressibleError):
                acls[name] = InexpressibleError(f"acl {name}: {error}")
        else:
            acls[name] = before if isinstance(before, Exception) else (*before, *condition)
    return acls


def read_question(words: Sequence[str], acls: Acls, bind: BindContext) -> RuleCondition:
    """Read a condition with its ``if`` or ``unless``; without one it is always true."""
    if not words:
        return RuleCondition((Tests(ALWAYS),))
    if words[0] not in {"if", "unless"}:
        raise InexpressibleError(f"'{words[0]}' is not a condition")
    groups = tuple(_tests(group, acls, bind) for group in _split(words[1:]))
    return RuleCondition(groups, unless=words[0] == "unless")


def _tests(group: Sequence[tuple[bool, Sequence[str]]], acls: Acls, bind: BindContext) -> Tests:
    passed, failed = ALWAYS, NEVER
    for negative, test in group:
        condition = _test(test, acls, bind)
        if negative and of_networks_only(condition):
            passed = conjunction(passed, negated(condition))
        elif negative:
            failed += condition
        else:
            passed = conjunction(passed, condition)
    return Tests(passed, tuple(dict.fromkeys(failed)))


def _split(words: Sequence[str]) -> list[list[tuple[bool, Sequence[str]]]]:
    groups: list[list[tuple[bool, Sequence[str]]]] = [[]]
    rest, negative = list(words), False
    while rest:
        word = rest.pop(0)
        while word.startswith("!"):
            negative, word = not negative, word[1:]
        if word in {"or", "||"}:
            groups.append([])
        elif word == "{":
            end = rest.index("}") if "}" in rest else len(rest)
            groups[-1].append((negative, rest[:end]))
            del rest[: end + 1]
            negative = False
        elif word:
            groups[-1].append((negative, (word,)))
            negative = False
    if [] in groups:
        raise InexpressibleError("a condition lacks its tests")
    return groups


def _test(test: Sequence[str], acls: Acls, bind: BindContext) -> Condition:
    condition = acls.get(test[0], PREDEFINED.get(test[0])) if len(test) == 1 else None
    if isinstance(condition, InexpressibleError):
        raise condition
    return read_acl(test, bind) if condition is None else condition


CLOSE = "close"
_MOST_CHOICES = 2500


@attrs.frozen
class RouteChoice:
    """A condition on clients, their outcome, and its line."""

    condition: Condition
    outcome: str
    line: ConfigLine = attrs.field(eq=False)


@attrs.frozen
class ClientDecisions:
    """The outcome of the first choice that fits; `otherwise` is for all others, silent ones too."""

    choices: tuple[RouteChoice, ...] = ()
    otherwise: str = CLOSE

    def distinct(self) -> ClientDecisions:
        """Drop terms that an earlier choice has decided, and merge neighbours with the same outcome."""
        seen: set[Term] = set()
        choices: list[RouteChoice] = []
        for choice in self.choices:
            new = tuple(term for term in choice.condition if term not in seen)
            seen.update(new)
            before = choices[-1] if choices else None
            if new and before and (before.outcome, before.line) == (choice.outcome, choice.line):
                choices[-1] = attrs.evolve(before, condition=(*before.condition, *new))
            elif new:
                choices.append(attrs.evolve(choice, condition=new))
        return ClientDecisions(tuple(choices), self.otherwise)

    def shortened(self) -> ClientDecisions:
        """Drop the choices after one that is for all clients."""
        for number, choice in enumerate(self.choices):
            if ALWAYS[0] in choice.condition:
                return ClientDecisions(self.choices[:number], choice.outcome)
        return self

    def are_of_networks(self) -> bool:
        return all(of_networks_only(choice.condition) for choice in self.choices)

    def silence(self) -> list[tuple[frozenset[Networks] | None, str]]:
        """Return the outcomes of silent clients: the first matching network wins; ``None`` is all."""
        outcomes: list[tuple[frozenset[Networks] | None, str]] = [(None, self.otherwise)]
        for choice in reversed(self.choices):
            silent = [term for term in choice.condition if term.matcher in {"", SILENT}]
            for term in reversed(silent):
                # Excluded clients keep their outcome.
                holes = [
                    (common(common(networks, term.excluded), term.allowed), outcome)
                    for networks, outcome in outcomes
                    if term.excluded
                ]
                rest = outcomes if term.allowed is not None else []
                outcomes = [*holes, (term.allowed, choice.outcome), *rest]
        return outcomes

    def turned_away(self) -> tuple[tuple[RouteChoice, ...], ClientDecisions]:
        """Split off the choices that close by networks alone, if no earlier choice serves these clients."""
        first: list[RouteChoice] = []
        remaining: list[RouteChoice] = []
        for choice in self.choices:
            if (
                choice.outcome == CLOSE
                and of_networks_only(choice.condition)
                and all(c.outcome == CLOSE or not _share(c, choice) for c in remaining)
            ):
                first.append(choice)
            else:
                remaining.append(choice)
        return tuple(first), attrs.evolve(self, choices=tuple(remaining))


def _share(choice: RouteChoice, other: RouteChoice) -> bool:
    try:
        return bool(conjunction(choice.condition, other.condition))
    except InexpressibleError:
        return True


def decide(
    question: RuleCondition, line: ConfigLine, yes: ClientDecisions, no: ClientDecisions, lost: Lost
) -> ClientDecisions:
    """Decide by a condition; `lost` reports choices that cannot be combined with it."""
    if question.is_of_networks():
        return _decide_by(question.networks(), line, yes, no, lost)
    if question.unless:
        yes, no = no, yes
    decisions = no
    for may_fail, groups in groupby(reversed(question.groups), lambda tests: bool(tests.failed)):
        if may_fail:
            for tests in groups:
                met = _decide_by(tests.passed, line, yes, decisions, lost)
                decisions = _decide_by(tests.failed, line, decisions, met, lost)
        else:  # at once, since there may be thousands
            either = dict.fromkeys(term for tests in [*groups][::-1] for term in tests.passed)
            decisions = _decide_by(tuple(either), line, yes, decisions, lost)
    if len(decisions.choices) > _MOST_CHOICES:
        raise InexpressibleError("has too many combinations")
    return decisions


def _decide_by(
    condition: Condition, line: ConfigLine, yes: ClientDecisions, no: ClientDecisions, lost: Lost
) -> ClientDecisions:
    if not condition or yes == no:
        return no
    if ALWAYS[0] in condition:
        return yes
    if of_networks_only(condition) and no == ClientDecisions():
        # So it can become a rule of admission.
        others = RouteChoice(negated(condition), no.otherwise, line)
        return ClientDecisions((others, *yes.choices), yes.otherwise)
    choices: list[RouteChoice] = []
    otherwise = yes.otherwise
    for number, choice in enumerate(yes.choices, 1):
        if set(condition) <= set(choice.condition):
            otherwise = choice.outcome  # no client is left for later rules
            break
        try:
            narrowed = conjunction(condition, choice.condition)
        except InexpressibleError as error:
            later = [c.outcome for c in yes.choices[number:] if _share(c, choice)]
            ends = dict.fromkeys((*later, yes.otherwise))
            destinations = ("are closed" if end == CLOSE else f"go to {end}" for end in ends)
            lost(choice.line, f"{error}; clients that are both {' or '.join(destinations)}")
            continue
        if narrowed:
            choices.append(attrs.evolve(choice, condition=narrowed))
    choices.append(RouteChoice(condition, otherwise, line))
    return ClientDecisions(tuple(dict.fromkeys((*choices, *no.choices))), no.otherwise)


_MOST = 64


def regions(
    decisions: ClientDecisions, alpn: tuple[str, ...]
) -> list[tuple[Hello, ClientDecisions]]:
    """Return the kinds of ClientHello with their decisions; the first that fits wins."""
    hellos: set[Hello] = {term.hello for choice in decisions.choices for term in choice.condition}
    named = {value for hello in hellos for name, value in hello if name == "alpn"}
    if named - set(alpn):
        raise InexpressibleError("asks for a protocol that bind does not speak")
    # A protocol is chosen only for clients that do not offer a preferred one.
    last = max((alpn.index(value) for value in named), default=-1)
    hellos |= {(("alpn", value),) for value in alpn[: last + 1]}
    hellos = _closed(hellos | {()})
    # Sorted, so that the order of unrelated hellos is always the same.
    order = sorted(hellos, key=lambda hello: (_rank(hello, hellos, alpn), hello))
    return [(hello, _within(hello, decisions)) for hello in order]


def _rank(hello: Hello, hellos: Iterable[Hello], alpn: tuple[str, ...]) -> tuple[int, int]:
    wider = sum(both_hellos(hello, other) == hello for other in hellos)
    preferred = dict(hello).get("alpn")
    return alpn.index(preferred) if preferred in alpn else len(alpn), -wider


def _closed(hellos: set[Hello]) -> set[Hello]:
    """Add the intersections of any two."""
    while True:
        # Sorted, so that a message about two of them always names the same one first.
        ordered = sorted(hellos)
        more = {both for a in ordered for b in ordered if (both := both_hellos(a, b)) is not None}
        if more <= hellos:
            return hellos
        hellos |= more
        if len(hellos) > _MOST:
            raise InexpressibleError("has too many combinations of names")


def _within(hello: Hello, decisions: ClientDecisions) -> ClientDecisions:
    choices = []
    for choice in decisions.choices:
        terms = tuple(
            attrs.evolve(term, hello=())
            for term in choice.condition
            if both_hellos(hello, term.hello) == hello
        )
        if terms:
            choices.append(attrs.evolve(choice, condition=terms))
    return ClientDecisions(tuple(choices), decisions.otherwise).distinct().shortened()

"""The rules of TCP routers: ``HostSNI(`a.example`) && ClientIP(`10.0.0.0/8`)``."""

from __future__ import annotations

import ipaddress
import re
from collections import deque
from functools import reduce

import attrs

from txmux.rules.model.networks import IPNetwork
from txmux_convert.patterns import name_pattern, python_regex, takes_everything, written
from txmux_convert.terms import (
    ALWAYS,
    NEVER,
    Condition,
    InexpressibleError,
    Term,
    conjunction,
    negated,
)

_TOKEN = re.compile(r'\s*(\|\||&&|[!(),]|[A-Za-z]+|`[^`]*`|"(?:\\.|[^"\\])*")')
_MOST_DEPTH = 50
_MATCHERS = {name.lower(): name for name in ("ALPN", "ClientIP", "HostSNI", "HostSNIRegexp")}


@attrs.frozen
class _Rule:
    """A parsed rule: ``&&``, ``||`` and ``!`` have parts, a matcher has values."""

    word: str
    parts: tuple[_Rule, ...] = ()
    values: tuple[str, ...] = ()


def read_rule(text: str, *, tls: bool) -> Condition:
    return _condition(_RuleReader(text).read(), tls=tls, opposite=False)


class _RuleReader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: deque[str] = deque()
        at, end = 0, len(text.rstrip())
        while at < end:
            match = _TOKEN.match(text, at)
            if match is None:
                raise InexpressibleError(f"{text[at:].strip()!r} is not a part of a rule")
            self._tokens.append(match[1])
            at = match.end()

    def read(self) -> _Rule:
        rule = self._several("||", 0)
        if self._tokens:
            raise InexpressibleError(f"{self._tokens[0]!r} is not expected there")
        return rule

    def _take(self, expected: str = "") -> str:
        word = self._tokens.popleft() if self._tokens else ""
        if not word or (expected and word != expected):
            raise InexpressibleError(f"{self._text} is not a rule")
        return word

    def _several(self, sign: str, depth: int) -> _Rule:
        parts = [self._part(sign, depth)]
        while self._tokens and self._tokens[0] == sign:
            self._take()
            parts.append(self._part(sign, depth))
        return parts[0] if len(parts) == 1 else _Rule(sign, tuple(parts))

    def _part(self, sign: str, depth: int) -> _Rule:
        return self._operand(depth) if sign == "&&" else self._several("&&", depth)

    def _operand(self, depth: int) -> _Rule:
        if depth > _MOST_DEPTH:
            raise InexpressibleError("the rule is nested too deeply")
        word = self._take()
        if word == "!":
            return _Rule("!", (self._operand(depth + 1),))
        if word == "(":
            rule = self._several("||", depth + 1)
            self._take(")")
            return rule
        if word.lower() not in _MATCHERS:
            raise InexpressibleError(f"{word} is not a matcher of TCP routers")
        self._take("(")
        values = [self._take()[1:-1]]
        while self._tokens and self._tokens[0] == ",":
            self._take()
            values.append(self._take()[1:-1])
        self._take(")")
        return _Rule(_MATCHERS[word.lower()], values=tuple(values))


def _condition(rule: _Rule, *, tls: bool, opposite: bool) -> Condition:
    if rule.word == "!":
        return _condition(rule.parts[0], tls=tls, opposite=not opposite)
    if rule.parts:
        inside = [_condition(part, tls=tls, opposite=opposite) for part in rule.parts]
        if (rule.word == "||") != opposite:
            return tuple(dict.fromkeys(term for condition in inside for term in condition))
        return reduce(conjunction, inside)
    condition = tuple(term for value in rule.values for term in _terms(rule.word, value, tls=tls))
    if not opposite:
        return condition
    if rule.word != "ClientIP":
        raise InexpressibleError(f"there is no route for all but {rule.word}({rule.values[0]})")
    left = negated(tuple(attrs.evolve(term, matcher="") for term in condition))
    return conjunction(left, (Term("tls"),)) if tls else left


def _terms(word: str, value: str, *, tls: bool) -> Condition:
    kind = "tls" if tls else ""
    everything: Condition = (Term(kind),) if tls else ALWAYS
    if word == "ClientIP":
        return (Term(kind, allowed=frozenset([network(value)])),)
    if word == "HostSNIRegexp":
        return _expression(value, everything, tls=tls)
    if word == "HostSNI" and value == "*":
        return everything
    if not tls:
        return NEVER
    return (Term("tls", (("alpn" if word == "ALPN" else "sni", written(value)),)),)


def network(text: str) -> IPNetwork:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise InexpressibleError(f"{text!r} is not a network") from None


def _expression(value: str, everything: Condition, *, tls: bool) -> Condition:
    if re.search(r"\{[A-Za-z]", value):
        raise InexpressibleError(
            f"{value} is in the syntax of Traefik 2; write a regular expression"
        )
    matches_nothing = python_regex(value).search("") is not None
    if takes_everything(value) and matches_nothing:
        return everything
    if not tls:
        return everything if matches_nothing else NEVER
    names = [name_pattern(value), *["none"] * matches_nothing]
    return tuple(Term("tls", (("sni", name),)) for name in names)

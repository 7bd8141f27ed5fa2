"""Decisions of a ``map`` by the ClientHello or by the client's address."""

from __future__ import annotations

import ipaddress
import operator
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

import attrs

from txmux.rules.model.networks import IPNetwork
from txmux_convert.decision_list import (
    DecidedCase,
    DecisionList,
    always,
    group_by_result,
    most_common,
)
from txmux_convert.nginx.maps import MapEntry, ParsedMap, is_below
from txmux_convert.nginx.values import Value, Variable, joined, plain, shown
from txmux_convert.patterns import (
    has_capitals,
    name_pattern,
    protocol_patterns,
    python_regex,
    takes_everything,
    written,
)
from txmux_convert.terms import Condition, InexpressibleError, Term, conjunction
from txmux_convert.writer import Report


def look_up(
    table: ParsedMap, value: Value, facts: Mapping[str, str], lost: Report
) -> DecisionList[MapEntry]:
    text = plain(value)
    if text is not None:
        return always(table.find(text), table.find(text).line)
    fact_kinds = [facts[piece.name] for piece in value if isinstance(piece, Variable)]
    if VERSION in fact_kinds and ADDRESS not in fact_kinds:
        return _by_version(table, value, facts, lost)
    if len(fact_kinds) == 1:
        at = next(n for n, piece in enumerate(value) if isinstance(piece, Variable))
        before, after = ("".join(map(str, side)) for side in (value[:at], value[at + 1 :]))
        by = {NAME: _by_name, PROTOCOLS: _by_protocol, ADDRESS: _by_address}[fact_kinds[0]]
        return by(Parts(table, before, after), lost)
    if sorted(fact_kinds) == [PROTOCOLS, NAME] and len(value) == 3:
        return by_two(table, str(value[1]), fact_kinds, lost)
    raise InexpressibleError(f"a map of {shown(value)} has no counterpart")


def _by_version(
    table: ParsedMap, value: Value, facts: Mapping[str, str], lost: Report
) -> DecisionList[MapEntry]:
    def put(text: str) -> Value:
        pieces = [
            text if isinstance(p, Variable) and facts[p.name] == VERSION else p for p in value
        ]
        return joined(pieces)

    # A client that does not speak TLS has none of these.
    others = table.find("".join(p for p in value if isinstance(p, str)))
    by_version = {
        version: look_up(table, put(text), facts, lost) for text, version in VERSIONS.items()
    }
    most = most_common(list(by_version.values()))
    cases: list[DecidedCase[MapEntry]] = []
    for result in sorted(dict.fromkeys(by_version.values()), key=most.__eq__):
        versions = ",".join(version for version in by_version if by_version[version] == result)
        term = tls() if result == most else tls(version=versions)
        for case in result.cases:
            cases += [
                DecidedCase(c, case.result, case.line)
                for c in [conjunction((term,), case.condition)]
                if c
            ]
        if result != most or result.otherwise != others:
            cases.append(DecidedCase((term,), result.otherwise, result.otherwise.line))
    return DecisionList(tuple(cases), others, others.line).simplified()


def _by_name(parts: Parts, lost: Report) -> DecisionList[MapEntry]:
    items: list[tuple[str, MapEntry]] = []
    for name, entry in parts.exact():
        if set(name) & set("*?,~ "):
            lost(
                entry.line,
                f"{name}: is left out: no client asks for such a name, and there is no 'hostnames'",
            )
        else:
            items.append((written(name), entry))
    items += parts.wild(lost)
    default = parts.table.default
    for pattern, entry in parts.regular(lost):
        bare = pattern.removeprefix("*")
        if takes_everything(bare):
            default = entry
            break
        if bare == pattern and has_capitals(bare):
            why = "nginx compares it with what the client wrote; here, small letters fit, too"
            lost(entry.line, f"~{bare}: {why}")
        if bare != "^$":  # those have what is empty
            items.append((name_pattern(bare), entry))
    groups = group_by_result(items, _names_overlap, _is_name)
    conditions = [(tuple(names(several)), entry) for several, entry in groups]
    return _with_rest(conditions, tls(sni="*"), default, parts.empty)


def _with_rest(
    conditions: Iterable[tuple[Condition, MapEntry]],
    given: Term,
    default: MapEntry,
    empty: MapEntry,
) -> DecisionList[MapEntry]:
    """Add the others: those that have said something, and those that have not."""
    cases = [DecidedCase(condition, entry, entry.line) for condition, entry in conditions]
    if default != empty:
        cases.append(DecidedCase((given,), default, default.line))
    return DecisionList(tuple(cases), empty, empty.line).simplified()


def _is_name(text: str) -> bool:
    return not set(text) & set("*?") and text[:1] not in {".", "~"}


def _names_overlap(a: str, b: str) -> bool:
    if a.startswith("~") or b.startswith("~"):
        return True
    if _is_name(a) and _is_name(b):
        return a == b
    for first, second in ((a, b), (b, a)):
        if _is_name(first):
            return is_below(first, second)
    if a[-1] != "*" and b[-1] != "*":
        first, second = (text.lstrip("*") for text in (a, b))
        return first.endswith(second) or second.endswith(first)
    return True


def _by_protocol(parts: Parts, lost: Report) -> DecisionList[MapEntry]:
    conditions: list[tuple[Condition, MapEntry]] = []
    # The longest list first: in txmux, one of its protocols is enough.
    for text, entry in sorted(parts.exact(), key=lambda item: -item[0].count(",")):
        conditions.append(((tls(alpn=offered(text, entry.line, lost)),), entry))
    for text, entry in parts.wild(lost):
        lost(entry.line, f"{text}: is left out: names of protocols have no wildcards")
    default = parts.table.default
    for pattern, entry in parts.regular(lost):
        if takes_everything(pattern.removeprefix("*")):
            default = entry
            break
        try:
            conditions.append(((tls(alpn=protocols(pattern, entry.line, lost)),), entry))
        except InexpressibleError as error:
            lost(entry.line, f"~{pattern}: is left out: {error}")
    return _with_rest(conditions, tls(alpn="*"), default, parts.empty)


def _by_address(parts: Parts, lost: Report) -> DecisionList[MapEntry]:
    cases: list[DecidedCase[MapEntry]] = []
    if parts.before or parts.after or parts.table.wild or parts.table.regular:
        raise InexpressibleError("addresses can be compared as a whole only; write a geo block")
    items: list[tuple[IPNetwork, MapEntry]] = []
    for text, entry in parts.exact():
        network = _address(text)
        if network is None:
            lost(entry.line, f"{text}: is left out: no client has that address")
        else:
            items.append((network, entry))
    for networks, entry in group_by_result(items, operator.eq, lambda _: True):
        cases.append(DecidedCase((Term(allowed=frozenset(networks)),), entry, entry.line))
    default = parts.table.default
    return DecisionList(tuple(cases), default, default.line).simplified()


def _address(text: str) -> IPNetwork | None:
    with suppress(ValueError):
        return ipaddress.ip_network(ipaddress.ip_address(text))
    return None


@attrs.frozen
class _Two:
    """A map of two variables while it is read."""

    _sign: str
    _fact_kinds: list[str]
    _lost: Report
    cases: list[DecidedCase[MapEntry]] = attrs.field(factory=list)

    def add_text(self, text: str, entry: MapEntry) -> None:
        first, sign, second = text.partition(self._sign)
        if sign and (first or second):
            self._add(text, (first, second), entry, regular=False)

    def add_pattern(self, pattern: str, entry: MapEntry) -> None:
        sides = split(pattern.removeprefix("*"), self._sign)
        if sides is None:
            why = "it is not clear which variable it is about"
            self._lost(entry.line, f"~{pattern}: is left out: {why}")
        else:
            self._add(f"~{pattern}", (f"{sides[0]}$", f"^{sides[1]}"), entry, regular=True)

    def _add(self, pattern: str, texts: tuple[str, str], entry: MapEntry, *, regular: bool) -> None:
        condition: Condition = (Term(),)
        try:
            for kind, text in zip(self._fact_kinds, texts, strict=True):
                condition = conjunction(condition, self._part(kind, text, entry, regular=regular))
        except InexpressibleError as error:
            self._lost(entry.line, f"{pattern}: is left out: {error}")
        else:
            self.cases.append(DecidedCase(condition, entry, entry.line))

    def _part(self, kind: str, text: str, entry: MapEntry, *, regular: bool) -> Condition:
        if regular and takes_everything(text):
            return (Term(),)
        if not text or (regular and python_regex(text).search("")):
            raise InexpressibleError(
                "clients without a name, or without protocols, have no condition of their own"
            )
        if kind == NAME:
            return (tls(sni=name_pattern(text) if regular else written(text)),)
        return (tls(alpn=(protocols if regular else offered)(text, entry.line, self._lost)),)


def by_two(
    table: ParsedMap, sign: str, fact_kinds: list[str], lost: Report
) -> DecisionList[MapEntry]:
    """Look up a server name and a list of protocols with a sign between them."""
    two = _Two(sign, fact_kinds, lost)
    for text, entry in table.exact.items():
        two.add_text(text, entry)
    for pattern, _, entry in table.regular:
        if takes_everything(pattern.removeprefix("*")):
            return DecisionList(tuple(two.cases), entry, entry.line)
        two.add_pattern(pattern, entry)
    nothing = table.find(sign)
    if nothing != table.default:
        lost(nothing.line, f"{sign}: is left out: it would take TLS without a name, too")
    return DecisionList(tuple(two.cases), table.default, table.default.line).simplified()


NAME, PROTOCOLS, VERSION, ADDRESS = "sni", "alpn", "version", "address"
"""What is known of a client."""

VERSIONS = {
    "SSLv2": "ssl2",
    "SSLv3": "ssl3",
    "TLSv1": "1.0",
    "TLSv1.1": "1.1",
    "TLSv1.2": "1.2",
    "TLSv1.3": "1.3",
}
"""How nginx and txmux call them."""

_MOST_IN_LINE = 8
_ACME = "acme-tls/1"
"""Clients of ACME offer this protocol and no other (RFC 8737, section 3)."""


def tls(**options: str) -> Term:
    return Term("tls", tuple(options.items()))


def names(patterns: list[str]) -> Iterable[Term]:
    """Yield what a client has to say that asks for one of these names; no line gets too long."""
    regular = [name for name in patterns if name.startswith("~")]
    others = [name for name in patterns if not name.startswith("~")]
    for at in range(0, len(others), _MOST_IN_LINE):
        yield tls(sni=",".join(others[at : at + _MOST_IN_LINE]))
    yield from (tls(sni=pattern) for pattern in regular)


def offered(text: str, line: int, lost: Report) -> str:
    """Write a list of protocols as a pattern of one that is offered."""
    first = text.partition(",")[0]
    if text != _ACME:
        lost(line, f"{text}: becomes alpn={first}, for clients that offer others, too")
    return first


def protocols(pattern: str, line: int, lost: Report) -> str:
    """Write a regular expression on the list of protocols as patterns of one that is offered."""
    patterns, exact = protocol_patterns(pattern)
    if not exact and patterns != _ACME:
        lost(line, f"~{pattern}: becomes alpn={patterns}, wherever in the client's list it is")
    return patterns


_IN_NAMES = re.compile(r"[\w.\\/-]")
_LITERAL = r"((?:[\w:,;|/-]|\\[^\w\\])*)"
_BEGINNING = re.compile(rf"\^{_LITERAL}(?:\.\*)?")
_END = re.compile(rf"(?:\.\*)?{_LITERAL}\$")
_ESCAPE = re.compile(r"\\(.)")


@attrs.frozen
class Parts:
    """A map as it is for the part of the text that varies."""

    table: ParsedMap
    before: str = ""
    after: str = ""

    @property
    def empty(self) -> MapEntry:
        return self.table.find(self.before + self.after)

    def exact(self) -> Iterator[tuple[str, MapEntry]]:
        """Yield the entries for one text that is not empty."""
        before, after = self.before.lower(), self.after.lower()
        for text, entry in self.table.exact.items():
            end = len(text) - len(after)
            if text.startswith(before) and text.endswith(after) and end > len(before):
                yield text[len(before) : end], entry

    def wild(self, lost: Report) -> Iterator[tuple[str, MapEntry]]:
        for pattern, entry in self.table.wild:
            if self.before or self.after:
                lost(entry.line, f"{pattern}: is left out: it is about several variables at once")
            else:
                yield pattern, entry

    def regular(self, lost: Report) -> Iterator[tuple[str, MapEntry]]:
        """Yield what follows ``~`` of the regular expressions, made to be about the part alone."""
        for pattern, _, entry in self.table.regular:
            bare = pattern.removeprefix("*")
            fold = "*" * (len(pattern) - len(bare))
            try:
                own = self._own(bare, fold)
            except InexpressibleError as error:
                lost(entry.line, f"~{pattern}: is left out: {error}")
                continue
            if own is not None:
                yield fold + own, entry

    def _own(self, pattern: str, fold: str) -> str | None:
        """Return what a regular expression says of the part, ``None`` if no part is right for it."""
        if not self.before and not self.after:
            return pattern
        match = _BEGINNING.fullmatch(pattern)
        if match and self.before and not self.after:
            text, before = _ESCAPE.sub(r"\1", match[1]), self.before
            if fold:
                text, before = text.lower(), before.lower()
            if before.startswith(text):
                return ""
            return f"^{re.escape(text[len(before) :])}" if text.startswith(before) else None
        sides = split(pattern, self.before[-1:])
        if sides:
            sign = re.escape(self.before[-1])
            fits = python_regex(f"{fold}{sides[0]}{sign}$").search(self.before)
            return attrs.evolve(self, before="")._own(f"^{sides[1]}", fold) if fits else None
        sides = split(pattern, self.after[:1])
        if sides:
            sign = re.escape(self.after[0])
            fits = python_regex(f"{fold}^{sign}{sides[1]}").search(self.after)
            return attrs.evolve(self, after="")._own(f"{sides[0]}$", fold) if fits else None
        match = _END.fullmatch(pattern)
        if (
            match
            and self.before
            and not self.after
            and self.before[-1] not in _ESCAPE.sub(r"\1", match[1])
        ):
            return pattern
        raise InexpressibleError("it is not clear which variable it is about")


def split(pattern: str, sign: str) -> tuple[str, str] | None:
    """Split a regular expression at a sign that is there once, and never in names."""
    escaped = re.escape(sign) != sign or f"\\{sign}" in pattern
    written = f"\\{sign}" if escaped else sign
    if not sign or written not in pattern:
        return None
    if _IN_NAMES.match(sign) or pattern.count(sign) != 1 or "|" in pattern.replace(written, ""):
        return None
    first, _, second = pattern.partition(written)
    if any(side.count("(") != side.count(")") for side in (first, second)):
        return None
    return first, second

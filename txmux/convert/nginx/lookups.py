"""What a ``map`` says of clients by what they say in their ClientHello, or by their address."""

from __future__ import annotations

import ipaddress
import operator
from contextlib import suppress
from typing import TYPE_CHECKING

from txmux.convert.decided import Case, Decided, always, commonest, in_groups
from txmux.convert.nginx.maps import Entry, Map, is_below
from txmux.convert.nginx.parts import Parts
from txmux.convert.nginx.saying import (
    ADDRESS,
    NAME,
    PROTOCOLS,
    VERSION,
    VERSIONS,
    names,
    offered,
    protocols,
    tls,
)
from txmux.convert.nginx.two import by_two
from txmux.convert.nginx.values import Value, Variable, joined, plain, shown
from txmux.convert.patterns import name_pattern, takes_everything, written
from txmux.convert.terms import Condition, InexpressibleError, Term, both

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from txmux.rules.model.networks import IPNetwork

    Lost = Callable[[int, str], None]


def look_up(table: Map, value: Value, facts: Mapping[str, str], lost: Lost) -> Decided[Entry]:
    """Decide which entry of a map clients get.

    Args:
        table: The map.
        value: What is looked up.
        facts: What is known of a client, by the names of the variables that are in the value.
        lost: Is told of entries that have no counterpart, or another one, with their lines.

    Raises:
        InexpressibleError: There is no counterpart of all of it.
    """
    text = plain(value)
    if text is not None:
        return always(table.find(text), table.find(text).line)
    kinds = [facts[piece.name] for piece in value if isinstance(piece, Variable)]
    if VERSION in kinds and ADDRESS not in kinds:
        return _by_version(table, value, facts, lost)
    if len(kinds) == 1:
        at = next(n for n, piece in enumerate(value) if isinstance(piece, Variable))
        before, after = ("".join(map(str, side)) for side in (value[:at], value[at + 1 :]))
        by = {NAME: _by_name, PROTOCOLS: _by_protocol, ADDRESS: _by_address}[kinds[0]]
        return by(Parts(table, before, after), lost)
    if sorted(kinds) == [PROTOCOLS, NAME] and len(value) == 3:
        return by_two(table, str(value[1]), kinds, lost)
    raise InexpressibleError(f"a map of {shown(value)} has no counterpart")


def _by_version(table: Map, value: Value, facts: Mapping[str, str], lost: Lost) -> Decided[Entry]:
    def put(text: str) -> Value:
        pieces = [
            text if isinstance(p, Variable) and facts[p.name] == VERSION else p for p in value
        ]
        return joined(pieces)

    # Whoever does not speak TLS has none of these.
    others = table.find("".join(p for p in value if isinstance(p, str)))
    found = {version: look_up(table, put(text), facts, lost) for text, version in VERSIONS.items()}
    most = commonest(list(found.values()))
    cases: list[Case[Entry]] = []
    for result in sorted(dict.fromkeys(found.values()), key=most.__eq__):
        versions = ",".join(version for version in found if found[version] == result)
        term = tls() if result == most else tls(version=versions)
        for case in result.cases:
            cases += [Case(c, case.result, case.line) for c in [both((term,), case.condition)] if c]
        if result != most or result.otherwise != others:
            cases.append(Case((term,), result.otherwise, result.otherwise.line))
    return Decided(tuple(cases), others, others.line).simplified()


def _by_name(parts: Parts, lost: Lost) -> Decided[Entry]:
    items: list[tuple[str, Entry]] = []
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
        if bare != "^$":  # those have what is empty
            items.append((name_pattern(bare), entry))
    groups = in_groups(items, _names_overlap, _is_name)
    conditions = [(tuple(names(several)), entry) for several, entry in groups]
    return _with_rest(conditions, tls(sni="*"), default, parts.empty)


def _with_rest(
    conditions: Iterable[tuple[Condition, Entry]], given: Term, default: Entry, empty: Entry
) -> Decided[Entry]:
    """Add the others: those that have said something, and those that have not."""
    cases = [Case(condition, entry, entry.line) for condition, entry in conditions]
    if default != empty:
        cases.append(Case((given,), default, default.line))
    return Decided(tuple(cases), empty, empty.line).simplified()


def _is_name(text: str) -> bool:
    return not set(text) & set("*?") and text[:1] not in {".", "~"}


def _names_overlap(a: str, b: str) -> bool:
    if a.startswith("~") or b.startswith("~"):
        return True
    if _is_name(a) and _is_name(b):
        return a == b
    for one, other in ((a, b), (b, a)):
        if _is_name(one):
            return is_below(one, other)
    if a[-1] != "*" and b[-1] != "*":
        one, other = (text.lstrip("*") for text in (a, b))
        return one.endswith(other) or other.endswith(one)
    return True


def _by_protocol(parts: Parts, lost: Lost) -> Decided[Entry]:
    conditions: list[tuple[Condition, Entry]] = []
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


def _by_address(parts: Parts, lost: Lost) -> Decided[Entry]:
    cases: list[Case[Entry]] = []
    if parts.before or parts.after or parts.table.wild or parts.table.regular:
        raise InexpressibleError("addresses can be compared as a whole only; write a geo block")
    items: list[tuple[IPNetwork, Entry]] = []
    for text, entry in parts.exact():
        network = _address(text)
        if network is None:
            lost(entry.line, f"{text}: is left out: no client has that address")
        else:
            items.append((network, entry))
    for networks, entry in in_groups(items, operator.eq, lambda _: True):
        cases.append(Case((Term(allowed=frozenset(networks)),), entry, entry.line))
    default = parts.table.default
    return Decided(tuple(cases), default, default.line).simplified()


def _address(text: str) -> IPNetwork | None:
    with suppress(ValueError):
        return ipaddress.ip_network(ipaddress.ip_address(text))
    return None

"""The blocks ``map`` and ``geo``, and the rules ``allow`` and ``deny``."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

import attrs

from txmux.rules.model.networks import IPNetwork
from txmux_convert.decision_list import DecidedCase, DecisionList, group_by_result
from txmux_convert.nginx.reader import Directive
from txmux_convert.patterns import python_regex
from txmux_convert.terms import InexpressibleError, Term
from txmux_convert.values import without
from txmux_convert.writer import Report

_MOST_NETWORKS = 1000


def networks_of(text: str) -> list[IPNetwork]:
    first, dash, last = text.partition("-")
    if dash:
        start, end = ipaddress.ip_address(first), ipaddress.ip_address(last)
        return list(ipaddress.summarize_address_range(start, end))
    return [ipaddress.ip_network(text, strict=False)]


def admission(
    rules: Sequence[Directive], lost: Callable[[Directive, str], None]
) -> tuple[list[str], list[str]]:
    """Return ``allow`` and ``deny`` of txmux, where ``deny`` wins; in nginx the first that fits does."""
    allowed: list[IPNetwork] = []
    denied: list[IPNetwork] = []
    for rule in rules:
        if rule.value == "all":
            if rule.name == "allow":
                return [], _texts(denied)
            no_client = [*map(ipaddress.ip_network, ("255.255.255.255/32",))]
            return _texts(allowed or no_client), _texts(denied)
        try:
            networks = networks_of(rule.value)
        except ValueError:
            lost(rule, "is not a network")
            continue
        if rule.name == "allow":
            allowed += networks
        else:
            # What has been allowed before stays so.
            denied += (part for network in networks for part in without(network, allowed))
        if len(denied) > _MOST_NETWORKS:
            raise InexpressibleError("it would take too many networks")
    return [], _texts(denied)


def _texts(networks: Iterable[IPNetwork]) -> list[str]:
    return list(dict.fromkeys(str(n.network_address if _is_address(n) else n) for n in networks))


def by_network(directive: Directive, lost: Report) -> DecisionList[MapEntry]:
    """Read a block ``geo``, of which the smallest network that has the client counts."""
    default = MapEntry("", directive.number)
    pairs: list[tuple[IPNetwork, MapEntry]] = []
    for network, entry in _entries(directive, lost):
        if network is None:
            default = entry
        else:
            pairs.append((network, entry))
    pairs.sort(key=lambda item: -item[0].prefixlen)
    groups = group_by_result(pairs, _overlap, _is_address)
    cases = [DecidedCase((Term(allowed=frozenset(nets)),), e, e.line) for nets, e in groups]
    return DecisionList(tuple(cases), default, default.line).simplified()


def _entries(directive: Directive, lost: Report) -> Iterator[tuple[IPNetwork | None, MapEntry]]:
    for line in directive.block or ():
        if line.words == ("ranges",):
            continue
        if line.name in {"proxy", "proxy_recursive", "delete"} or len(line.words) != 2:
            lost(line, "is left out: it has no counterpart")
        elif line.name == "default":
            yield None, MapEntry(line.value, line.number)
        else:
            try:
                networks = networks_of(line.name)
            except (ValueError, TypeError):
                lost(line, f"is left out: {line.name} is not a network")
                continue
            for network in networks:
                yield network, MapEntry(line.value, line.number)


def _is_address(network: IPNetwork) -> bool:
    return network.prefixlen == network.max_prefixlen


def _overlap(a: IPNetwork, b: IPNetwork) -> bool:
    return a.version == b.version and a.overlaps(b)


_SPECIAL = frozenset({"hostnames", "volatile"})


@attrs.frozen
class MapEntry:
    """A value of a map, which may have variables in it."""

    text: str
    line: int = attrs.field(eq=False)


@attrs.frozen
class ParsedMap:
    """A map, in the order in which nginx looks at its entries.

    Attributes:
        exact: The values of texts, which are in small letters.
        wild: The values of patterns with a wildcard at one end, the longest first.
        regular: The values of regular expressions: what follows ``~``, and what is compiled of it.
    """

    source: str
    exact: dict[str, MapEntry]
    wild: tuple[tuple[str, MapEntry], ...]
    regular: tuple[tuple[str, re.Pattern[str], MapEntry], ...]
    default: MapEntry

    def find(self, text: str) -> MapEntry:
        lower = text.lower()
        if lower in self.exact:
            return self.exact[lower]
        for pattern, entry in self.wild:
            if is_below(lower.removesuffix("."), pattern):
                return entry
        # The empty text matches no expression, not even one that would fit.
        for _, regex, entry in self.regular if text else ():
            if regex.search(text):
                return entry
        return self.default


def is_below(name: str, pattern: str) -> bool:
    """Return whether a name has a pattern with a wildcard at one end."""
    return (
        name == pattern[1:] or fnmatchcase(name, f"*{pattern}")
        if pattern[0] == "."
        else (fnmatchcase(name, pattern))
    )


def read_map(directive: Directive, lost: Report) -> ParsedMap:
    block = directive.block or ()
    hostnames = any(d.words == ("hostnames",) for d in block)
    exact: dict[str, MapEntry] = {}
    wild: list[tuple[str, MapEntry]] = []
    regular: list[tuple[str, re.Pattern[str], MapEntry]] = []
    default = MapEntry("", directive.number)
    for line in block:
        key, entry = line.name, MapEntry(line.value, line.number)
        if line.words in {(word,) for word in _SPECIAL}:
            continue
        if len(line.words) != 2:
            lost(line, "is left out: an entry has two words")
        elif key == "default":
            default = entry
        elif key.startswith("~"):
            try:
                regular.append((key[1:], python_regex(key[1:]), entry))
            except InexpressibleError as error:
                lost(line, f"is left out: {error}")
        elif hostnames and (key.startswith((".", "*.")) or key.endswith(".*")):
            wild.append((key.lower(), entry))
        else:
            exact.setdefault(key.removeprefix("\\").lower(), entry)
    # Of wildcards those in front are looked at first, and of these the longest.
    wild.sort(key=lambda item: (item[0].endswith(".*"), -item[0].count("."), -len(item[0])))
    return ParsedMap(directive.value, exact, tuple(wild), tuple(regular), default)

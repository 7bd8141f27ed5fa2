"""Networks: ``allow`` and ``deny``, and the blocks ``geo``."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from txmux.convert.decision_list import DecidedCase, DecisionList, group_by_result
from txmux.convert.nginx.maps import MapEntry
from txmux.convert.terms import InexpressibleError, Term

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from txmux.convert.nginx.reader import Directive
    from txmux.convert.writer import Report
    from txmux.rules.model.networks import IPNetwork

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
    """Return the networks of ``allow`` and ``deny`` of txmux, where ``deny`` wins; of nginx's the first that fits counts."""
    allowed: list[IPNetwork] = []
    denied: list[IPNetwork] = []
    for rule in rules:
        if rule.value == "all":
            if rule.name == "allow":
                return [], _texts(denied)
            no_client = [*map(ipaddress.ip_network, ("255.255.255.255/32",))]
            return _texts(allowed or no_client), _texts(denied)
        try:
            found = networks_of(rule.value)
        except ValueError:
            lost(rule, "is not a network")
            continue
        if rule.name == "allow":
            allowed += found
        else:
            # What has been allowed before stays so.
            denied += (part for network in found for part in _without(network, allowed))
        if len(denied) > _MOST_NETWORKS:
            raise InexpressibleError("it would take too many networks")
    return [], _texts(denied)


def _without(network: IPNetwork, holes: Iterable[IPNetwork]) -> list[IPNetwork]:
    left = [network]
    for hole in holes:
        left = [part for one in left for part in _cut(one, hole)]
    return left


def _cut(network: IPNetwork, hole: IPNetwork) -> Iterable[IPNetwork]:
    if network.version != hole.version or not network.overlaps(hole):
        return [network]
    if network.prefixlen >= hole.prefixlen:
        return []
    return network.address_exclude(hole)  # type: ignore[arg-type] # of one version


def _texts(networks: Iterable[IPNetwork]) -> list[str]:
    return list(dict.fromkeys(_text(network) for network in networks))


def _text(network: IPNetwork) -> str:
    single = network.prefixlen == network.max_prefixlen
    return str(network.network_address if single else network)


def by_network(directive: Directive, lost: Report) -> DecisionList[MapEntry]:
    """Read a block ``geo``, of which the smallest network that has the client counts."""
    default = MapEntry("", directive.number)
    found: list[tuple[IPNetwork, MapEntry]] = []
    for network, entry in _entries(directive, lost):
        if network is None:
            default = entry
        else:
            found.append((network, entry))
    found.sort(key=lambda item: -item[0].prefixlen)
    groups = group_by_result(found, _overlap, _is_address)
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

"""Who is let in by an ``haproxy.cfg`` for its address alone, as ``allow`` and ``deny``."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from txmux.convert.terms import (
    ALWAYS,
    NEVER,
    Condition,
    InexpressibleError,
    Term,
    both,
    negated,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from txmux.convert.terms import Networks
    from txmux.rules.model.networks import IPNetwork

_MOST_NETWORKS = 256
_NOBODY = "255.255.255.255/32"
"""No client has this address; and who comes by a UNIX socket is outside of every network."""

_ALL = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))


def admitted(rules: Sequence[tuple[bool, Condition]]) -> Condition:
    """Return the clients that rules let in: the first rule that fits decides, and clients that none fits are let in.

    Args:
        rules: Of each, whether it accepts, and which networks.

    Raises:
        InexpressibleError: There are too many combinations.
    """
    found = ALWAYS
    for accepts, condition in reversed(rules):
        if accepts:
            found = ALWAYS if ALWAYS[0] in (*condition, *found) else (*condition, *found)
        else:
            found = both(negated(condition), found)
    return found


def as_lists(condition: Condition) -> tuple[list[str], list[str]]:
    """Write networks as those of ``allow`` and ``deny``.

    Raises:
        InexpressibleError: It would be too many.
    """
    if condition == NEVER:
        return [_NOBODY], []
    if ALWAYS[0] in condition:
        return [], []
    if len(condition) == 1:
        return _texts(condition[0].allowed or ()), _texts(condition[0].excluded)
    networks = [network for term in condition for network in _networks_of(term)]
    if len(networks) > _MOST_NETWORKS:
        raise InexpressibleError("would take too many networks")
    return _texts(networks), []


def _networks_of(term: Term) -> list[IPNetwork]:
    """Return all networks of a term, after those that it excludes have been cut out of them."""
    left = [_plain(network) for network in (_ALL if term.allowed is None else term.allowed)]
    for hole in map(_plain, term.excluded):
        left = [part for network in left for part in _without(network, hole)]
        if len(left) > _MOST_NETWORKS:
            raise InexpressibleError("would take too many networks")
    return left


def _plain(network: Networks) -> IPNetwork:
    if isinstance(network, str):
        raise InexpressibleError(f"takes a part of the networks of {network}")
    return network


def _without(network: IPNetwork, hole: IPNetwork) -> Iterable[IPNetwork]:
    if not network.overlaps(hole):
        return [network]
    if network.prefixlen >= hole.prefixlen:
        return []
    return network.address_exclude(hole)  # type: ignore[arg-type] # of one version, since they overlap


def _texts(networks: Iterable[Networks]) -> list[str]:
    return sorted({str(network) for network in networks})

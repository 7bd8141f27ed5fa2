"""The blocks ``split_clients``, as servers with weights."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING

import attrs

from txmux.convert.nginx.upstreams import Group
from txmux.convert.nginx.values import Variable, value_of
from txmux.convert.terms import InexpressibleError
from txmux.convert.weights import whole_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from txmux.convert.nginx.reader import Directive

_SHARE = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,2})?%")
_ALL = 100
_ADDRESSES = frozenset({"remote_addr", "binary_remote_addr"})


def split_group(directive: Directive, group_of: Callable[[str, int], Group]) -> Group:
    """Make one group of those that clients are split among.

    Args:
        directive: The ``split_clients``.
        group_of: Gives the group that a text and its line name.

    Raises:
        InexpressibleError: It has no counterpart.
    """
    shares: list[tuple[Fraction, Group]] = []
    left = Fraction(_ALL)
    for line in directive.block or ():
        if len(line.words) != 2 or not (line.name == "*" or _SHARE.fullmatch(line.name)):
            raise InexpressibleError(f"{line} is not a share")
        share = left if line.name == "*" else Fraction(line.name.removesuffix("%"))
        left -= share
        if share > 0:
            shares.append((share, group_of(line.value, line.line)))
    if left > 0 or not shares:
        raise InexpressibleError("not all clients have a share, and those without are closed")
    members = [member for _, group in shares for member in group.members]
    if len(shares) > 1 and any(_is_particular(group) for _, group in shares):
        raise InexpressibleError(
            "one of its groups chooses among its servers in its own way, and a [backend] has one way"
        )
    weights = whole_weights(
        [
            share * member.weight / sum(other.weight for other in group.members)
            for share, group in shares
            for member in group.members
        ]
    )
    weighted = [attrs.evolve(m, weight=w) for m, w in zip(members, weights, strict=True)]
    name = directive.parameters[-1].removeprefix("$")
    # Whoever comes again from the same address has the same share.
    names = {piece.name for piece in value_of(directive.value) if isinstance(piece, Variable)}
    balance = "source-hash" if names and names <= _ADDRESSES else "round-robin"
    return Group(name, tuple(weighted), balance, directive.line)


def _is_particular(group: Group) -> bool:
    return (len(group.members) > 1 and group.balance != "round-robin") or any(
        {"backup", "down"} & set(member.options) for member in group.members
    )

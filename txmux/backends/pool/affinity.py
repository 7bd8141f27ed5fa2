"""What keeps clients together: the text that they are led by where a backend chooses by a hash. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from ipaddress import IPv4Address, IPv6Address

    from txmux.rules.model import Balance

_FACTS: Mapping[Balance, Sequence[str]] = {
    "source-hash": (),
    # A proxy in front that has ended TLS tells the name in its header.
    "sni-hash": ("sni", "authority"),
    "host-hash": ("host",),
}


def affinity_of(
    balance: Balance,
) -> Callable[[IPv4Address | IPv6Address | None, Mapping[str, str]], str] | None:
    """Return what tells the text that a client is led by.

    Args:
        balance: How the backend chooses.

    Returns:
        A function of the client's address, if it has one, and of what is known of it (the facts of the access log). It gives the
        name that the client asked for, in lower case and without a final dot; without a name the address; and without
        either an empty text. ``None`` if the choice depends on neither.
    """
    names = _FACTS.get(balance)
    if names is None:
        return None

    def affinity(address: IPv4Address | IPv6Address | None, facts: Mapping[str, str]) -> str:
        for name in names:
            asked = facts.get(name, "").lower().removesuffix(".")
            if asked:
                return asked
        return "" if address is None else str(address)

    return affinity

"""Who has to begin with a PROXY protocol header."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.rules.model.senders import Unix

if TYPE_CHECKING:
    from collections.abc import Callable

    from txmux.rules.model import IPNetwork, NetworkSet

__all__ = ["read_sender"]


def read_sender(
    networks: Callable[[str], IPNetwork | NetworkSet],
) -> Callable[[str], IPNetwork | NetworkSet | Unix]:
    """Make what reads one item of ``accept_proxy_from``.

    Args:
        networks: Reads a network, or the file of some.
    """

    def read(text: str) -> IPNetwork | NetworkSet | Unix:
        return Unix.UNIX if text == Unix.UNIX.value else networks(text)

    return read

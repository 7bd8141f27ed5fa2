"""Who has to begin with a PROXY protocol header."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from txmux.rules.model.networks import NetworkSet

if TYPE_CHECKING:
    from collections.abc import Iterable

    from txmux.rules.model.networks import IPNetwork
    from txmux.rules.model.varying import Varying

__all__ = ["Senders", "Unix"]


class Unix(Enum):
    """Who comes by a UNIX socket, and so from no network."""

    UNIX = "unix"


class Senders(NetworkSet):
    """Networks, with those who come by a UNIX socket or without.

    Args:
        senders: In any order.

    Attributes:
        by_unix: Whether UNIX sockets are meant, too.
    """

    __slots__ = ("by_unix",)

    def __init__(self, senders: Iterable[IPNetwork | NetworkSet | Varying | Unix]) -> None:
        found = list(senders)
        super().__init__(sender for sender in found if not isinstance(sender, Unix))
        self.by_unix = Unix.UNIX in found

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, Senders) and self.by_unix == other.by_unix
        return same and super().__eq__(other)

    def __hash__(self) -> int:
        return hash((super().__hash__(), self.by_unix))

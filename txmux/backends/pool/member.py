"""One address of a backend, and how it is."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import attrs

from txmux.backends.pool.standing import Standing, State

if TYPE_CHECKING:
    from txmux.rules.model import Server


@attrs.frozen
class ResolvedAddress:
    """One address that a name has.

    Attributes:
        host: An IP address.
        weight: Its share among the addresses of the name, as in an SRV record (RFC 2782).
        priority: Only when none with a lower number is up, it is used.
        name: The host that has the address, which TLS verifies; empty is the server's own.
    """

    host: str
    port: int
    weight: int = 1
    priority: int = 0
    name: str = ""


@attrs.define(eq=False)
class Member:
    """One address that a backend's connections can be led to. `Pool` makes it and alone changes it.

    Attributes:
        server: What the rules say.
        target: The same with an IP address for a name: what is connected to. Its ``text`` is for logs.
        name: The host name of it, which TLS verifies; empty if there is none.
        rank: Only when none of a lower one is up, it is used.
        seed: Its part in the choice by the client's address; the same in every process.
    """

    server: Server
    target: Server
    name: str
    weight: int = 1
    rank: tuple[bool, int] = (False, 0)
    standing: Standing = attrs.field(factory=Standing)
    seed: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        digest = blake2b(self.target.text.encode(), digest_size=8).digest()
        self.seed = int.from_bytes(digest, "big")

    @property
    def state(self) -> State:
        """Whether connections are led to it."""
        return State.DISABLED if self.server.down else self.standing.state

    @property
    def connections(self) -> int:
        """How many are established or being made."""
        return self.standing.connections

    @property
    def why(self) -> str:
        """What led to the state."""
        return self.standing.why

    def has_room(self) -> bool:
        """Tell whether its own limit leaves room for a connection."""
        most = self.server.max_connections
        return not most or self.standing.connections < most

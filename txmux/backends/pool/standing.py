"""How the servers of a backend are, whichever rules that was found out under."""

from __future__ import annotations

import enum
import weakref
from collections import deque
from typing import TYPE_CHECKING, Protocol

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable


class State(enum.Enum):
    """Whether connections are led to a member."""

    UP = "up"
    DOWN = "down"
    """Its checks fail."""
    EJECTED = "ejected"
    """Connections to it failed, so it is left alone for a while."""
    PROBING = "probing"
    """After that while: one connection tries it."""
    DISABLED = "disabled"
    """The rules say ``down``."""


@attrs.define(eq=False)
class Standing:
    """What is known of one address of a server. Pools alone change it.

    Attributes:
        state: Whether connections are led to it, as far as the rules allow that.
        connections: Those that are established or being made.
        why: What led to the state.
        credit: What it is owed by the balancer.
        failed_at: When the last connections failed; no more of them than ejection counts.
        out_until: When an ejection is over.
        contrary: Checks in a row that say otherwise than the state.
    """

    state: State = State.UP
    connections: int = 0
    why: str = ""
    credit: int = 0
    failed_at: deque[float] = attrs.field(factory=deque)
    out_until: float = 0.0
    contrary: int = 0


class _Pool(Protocol):
    """What pools have to know of one another."""

    on_room: Callable[[], None] | None

    def rearrange(self) -> None:
        """Note that a server has changed its state."""


class Standings:
    """What the pools of one backend have in common: the one of the rules that hold, and those of older rules.

    Connections keep the pool of the rules under which they were accepted. So a server is counted, ejected and let in
    again by all pools together.

    Attributes:
        connections: Those of all servers that are established or being made.
    """

    def __init__(self) -> None:
        self.connections = 0
        self._known: weakref.WeakValueDictionary[Hashable, Standing] = weakref.WeakValueDictionary()
        self._pools: list[weakref.ref[_Pool]] = []

    def of(self, key: Hashable) -> Standing:
        """Give what is known of a server; that is kept as long as somebody has it.

        Args:
            key: The same for the same address.
        """
        standing = self._known.get(key)
        if standing is None:
            standing = self._known[key] = Standing()
        return standing

    def join(self, pool: _Pool) -> None:
        """Have a pool told of changes, until nobody uses it any more."""
        self._pools.append(weakref.ref(pool, self._pools.remove))

    @property
    def is_shared(self) -> bool:
        """Whether there is more than one pool."""
        return len(self._pools) > 1

    def others(self, pool: _Pool) -> list[_Pool]:
        """Give all pools but one."""
        found = (known() for known in self._pools)
        return [other for other in found if other is not None and other is not pool]

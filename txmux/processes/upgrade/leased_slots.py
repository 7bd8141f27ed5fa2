"""Places in pools that connections keep when they go on in another process.

A server's limit is known to each process alone. What has moved away still counts in the process that it has left, until it ends: otherwise
whoever waits there for the server would be let in although it is as busy as before. And where it has come to, its place is free only when nobody
who waited longer, in the process before, has taken it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

if TYPE_CHECKING:
    from collections.abc import Callable

    from txmux.net.channel.channel import Channel
    from txmux.tcp.moving import GiveBack

__all__ = ["LeasedSlots"]


class LeasedSlots:
    """The places of connections that have gone over one channel.

    Attributes:
        channel: As above; closed when there are none left, after `close_when_done`.
    """

    channel: Channel

    def __init__(self) -> None:
        self._leased: dict[str, GiveBack] = {}
        self._answering = 0
        self._is_closing = False

    @property
    def handlers(self) -> dict[str, Callable[..., object]]:
        return {"ended": self._ended, "alive": _nothing}

    def keep(self, identity: str, give_back: GiveBack) -> None:
        """Keep the place of a connection until it has ended, or the other process has.

        Args:
            identity: Of the connection.
            give_back: Called then.
        """
        self._leased[identity] = give_back

    def _ended(self, id: str) -> Deferred[None] | None:  # noqa: A002 - the name in the message
        """Return a place back; answer when nobody here has it."""
        give_back = self._leased.pop(id, None)
        if give_back is None:
            return None
        free: Deferred[None] = Deferred()
        self._answering += 1
        free.addBoth(self._answered)
        give_back(lambda: free.callback(None))
        return free

    def _answered(self, _: object) -> None:
        self._answering -= 1
        # The answer is sent first.
        self.channel.clock.callLater(0, self._close_if_done)

    def close_when_done(self) -> None:
        """Close the channel as soon as no place is kept."""
        self._is_closing = True
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._is_closing and not self._leased and not self._answering:
            self.channel.close()

    def lost(self) -> None:
        """Release all slots: the process that leased them has ended."""
        kept, self._leased = self._leased, {}
        for give_back in kept.values():
            give_back(_nothing)


def _nothing() -> None:
    pass

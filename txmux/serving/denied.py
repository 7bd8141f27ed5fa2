"""Ending the connections of clients that may not come in any more."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from txmux.net.addresses import address_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from twisted.internet.interfaces import IDelayedCall

    from txmux.tcp.listener import MuxFactory

__all__ = ["Denied"]

_AT_ONCE = 200
"""Connections that are looked at before others have their turn: about a millisecond."""

_PAUSE = 0.2
"""Seconds between two looks at all: under attack, somebody is banned all the time."""


class Denied:
    """Looks through the connections of the listeners that want that, a few at a time.

    Args:
        reactor: Gives the others their turn.
        factories: Gives what serves the listeners.
    """

    def __init__(self, reactor: Any, factories: Callable[[], Iterable[MuxFactory]]) -> None:
        self._reactor = reactor
        self._factories = factories
        self._call: IDelayedCall | None = None
        self._is_due = False

    def look(self) -> None:
        """Look at all, since it may have changed who is let in: at once, or again after what is looked at just now."""
        self._is_due = True
        if self._call is None:
            self._begin()

    def _begin(self) -> None:
        self._call = None
        if self._is_due and any(one.configuration.settings.end_denied for one in self._factories()):
            self._call = self._reactor.callLater(0, self._go_on, self._each())
        self._is_due = False

    def _each(self) -> Iterator[None]:
        for factory in self._factories():
            configuration = factory.configuration
            if not configuration.settings.end_denied:
                continue
            for one in list(factory.connections):
                record = one.record
                if one.admitted and record.reason is None:
                    # One that has moved here from another process knows its client from there.
                    address = address_in(record.facts.get("moved_to") or record.client)
                    if address is not None and not configuration.admission.serves(address):
                        one.end("denied")
                yield

    def _go_on(self, each: Iterator[None]) -> None:
        done = sum(1 for _ in islice(each, _AT_ONCE))
        if done == _AT_ONCE:
            self._call = self._reactor.callLater(0, self._go_on, each)
        else:
            self._call = self._reactor.callLater(_PAUSE, self._begin)

    def stop(self) -> None:
        """Look no further."""
        self._is_due = False
        if self._call is not None:
            self._call.cancel()
            self._call = None

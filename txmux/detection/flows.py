"""Chooses the route of a UDP flow by its first datagrams, as `txmux.detection.detector` does for a stream; sans I/O."""

from collections.abc import Iterable, Sequence

import attrs

from txmux.classes import define
from txmux.detection.detector import Decision, RouteScan
from txmux.detection.plan import R
from txmux.interfaces import MOST_DATAGRAMS, Datagrams


@define(eq=False)
class FlowDetection(RouteScan[R]):
    """Scans the routes for one UDP flow, whose first datagrams are buffered until the decision."""

    left: tuple[bytes, ...] = attrs.field(default=(), init=False)
    """The datagrams so far that count: neither keepalives before them, nor what servers drop."""

    def feed(self, datagrams: Sequence[bytes]) -> Decision[R] | None:
        """Decide by those that are `left` and new ones, evaluated one by one, however many have arrived at once; ``None`` if more are needed.

        An empty first datagram can match a route for any datagram (RFC 867 and 868 require it). Keepalives for a NAT that match
        no route are ignored, and the next datagram counts as the first. After `MOST_DATAGRAMS` datagrams or `peek_limit` bytes
        there is always a decision.
        """
        for datagram in datagrams[len(self.left) :]:
            before, earlier = self.left, self._peeked
            received = self.left = (*before, datagram)
            self._peeked = peeked = Datagrams(received, self.peeked)
            is_dropped = self._detector.drops_last(peeked)
            # A route before those of that protocol may take a first datagram.
            decision = (
                None if is_dropped and before else self._decide(peeked, is_last=not is_dropped)
            )
            if decision is None:
                if is_dropped:
                    self.left, self._peeked = before, earlier
            elif (
                decision.route is not None
                or not is_keepalive_only(received)
                or not self.has_routes_for_client()
            ):
                return decision
            else:
                self.left = ()
            if not self.left:
                self._plan, self._peeked, self._position = None, None, 0
        return None

    @property
    def peeked(self) -> Datagrams | None:
        """The datagrams that are `left`, with what parsers have read; ``None`` if there are none."""
        assert self._peeked is None or isinstance(self._peeked, Datagrams)  # noqa: S101
        return self._peeked

    def decide_on(self, peeked: Datagrams) -> Decision[R]:
        """Decide at once by what parsers have read."""
        self._peeked = peeked
        self._plan = self._detector.plan(peeked.data[0] if peeked.data else None)
        return self.finish()

    def _decide(self, peeked: Datagrams, *, is_last: bool) -> Decision[R] | None:
        if self._plan is None:
            self._plan = self._detector.plan(peeked.data[0] if peeked.data else None)
        last = is_last and is_limit_reached(peeked.datagrams, self._detector.peek_limit)
        return self._resolve(self._plan, peeked, last=last)


def is_limit_reached(datagrams: Sequence[bytes], peek_limit: int) -> bool:
    return len(datagrams) >= MOST_DATAGRAMS or sum(map(len, datagrams)) >= peek_limit


def is_keepalive_only(datagrams: Iterable[bytes]) -> bool:
    # SIP phones keep a NAT's mapping open by CR and LF (RFC 5626), other programs by NUL or empty datagrams.
    return not any(datagram.strip(b"\r\n\0") for datagram in datagrams)

"""What there is at present: what has come, less what has gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.telemetry.counting.counter_groups import DETECT, DURATION, LISTENER, ROUTE, SERVER

if TYPE_CHECKING:
    from collections.abc import Sequence

    Cells = Sequence[int] | memoryview[int]

__all__ = ["decided", "ended", "live", "live_on_route", "live_on_server", "undecided"]

_ACCEPTED, _ADOPTED, _GONE, _UNDECIDED_GONE = (
    LISTENER.at[name] for name in ("accepted", "adopted", "gone", "undecided gone")
)
_DECIDED = slice(LISTENER.histogram(DETECT) + 1, LISTENER.histogram(DETECT) + len(DETECT.cells()))
_OVER = slice(
    LISTENER.histogram(DURATION) + 1, LISTENER.histogram(DURATION) + len(DURATION.cells())
)

_MATCHES, _ROUTE_ADOPTED, _LEFT = (ROUTE.at[name] for name in ("matches", "adopted", "left"))
_ENDED = slice(min(ROUTE.those("ended").values()), len(ROUTE.names))

_CONNECTED, _SERVER_ADOPTED, _RELEASED = (
    SERVER.at[name] for name in ("connected", "adopted", "released")
)


def decided(listener: Cells) -> int:
    return sum(listener[_DECIDED])


def ended(listener: Cells) -> int:
    return sum(listener[_OVER])


def live(listener: Cells) -> int:
    """Count those that there are.

    Args:
        listener: The cells of a listener, as in the following ones, too.
    """
    # What has gone is read first: others count meanwhile, and there is nothing less than none.
    gone = ended(listener) + listener[_GONE]
    return max(0, listener[_ACCEPTED] + listener[_ADOPTED] - gone)


def undecided(listener: Cells) -> int:
    """Count those of them of which it is not known where they are led."""
    known = decided(listener) + listener[_UNDECIDED_GONE]
    return max(0, listener[_ACCEPTED] - known)


def live_on_route(route: Cells) -> int:
    """Count those that a route has taken, and no other one after it.

    Args:
        route: The cells of a route.
    """
    gone = sum(route[_ENDED]) + route[_LEFT]
    return max(0, route[_MATCHES] + route[_ROUTE_ADOPTED] - gone)


def live_on_server(server: Cells) -> int:
    """Count the connections to a server.

    Args:
        server: The cells of a server.
    """
    return max(0, server[_CONNECTED] + server[_SERVER_ADOPTED] - server[_RELEASED])

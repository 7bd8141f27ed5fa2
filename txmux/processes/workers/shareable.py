"""What several processes can serve together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import DeferredList

from txmux.errors import ListenError, MuxError
from txmux.net.channel.channel import GoneError
from txmux.rules.reading.parser import is_as_read
from txmux.serving.listen_addresses import listen_addresses

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.defer import Deferred

    from txmux.rules.model import Listener, Rules

__all__ = ["WorkersError", "check_as_read", "check_shareable", "failures"]


class WorkersError(MuxError):
    """Workers cannot be started, or one could not start."""


def check_as_read(rules: Rules) -> None:
    """See whether rules can be handed to workers.

    Raises:
        WorkersError: They cannot.
    """
    if not is_as_read(rules):
        raise WorkersError(
            "rules that are not all read from a file cannot be handed to workers; serve them by txmux.EmbeddedService"
        )


def check_shareable(listeners: Iterable[Listener]) -> None:
    """See whether several processes can accept from all endpoints.

    Raises:
        ListenError: One is for Twisted to open.
    """
    for listener in listeners:
        for place in listen_addresses(listener):
            if not place.is_plain:
                raise ListenError(
                    f"[listen {listener.name}] endpoint {place.text}: several workers cannot share an endpoint of type "
                    f"{place.kind!r}; write ADDRESS:PORT, :PORT, unix: or systemd:, or workers = 1"
                )


async def failures(asked: list[Deferred[Any]]) -> list[str]:
    """Return what workers say that cannot do it; who is gone says nothing, since its successor will begin as it has to."""
    answers = await DeferredList(asked, consumeErrors=True)
    failed: list[Any] = [answer for answered, answer in answers if not answered]
    return [one.getErrorMessage() for one in failed if not one.check(GoneError)]

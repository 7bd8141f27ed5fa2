"""Where a client is led that says nothing, and after how long."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from txmux.rules.model.backend import Backend
from txmux.rules.model.clients import EVERY_CLIENT, Clients
from txmux.rules.model.handover import Handover
from txmux.rules.model.refusal import InProcess, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from txmux.rules.model.backend import Outcome

__all__ = ["Silence", "silences"]


@attrs.frozen
class Silence:
    """One line of ``silent =``.

    Attributes:
        outcome: Where the client is led.
        clients: Which clients it is for.
        after: Seconds without a byte; ``None`` is the listener's ``detect_timeout``.
    """

    outcome: Outcome
    clients: Clients = EVERY_CLIENT
    after: float | None = None


def silences(silent: Outcome | Iterable[Silence]) -> tuple[Silence, ...]:
    """Make the lines of ``silent =``; one outcome is that of every client."""
    if isinstance(silent, (Backend, Handover, InProcess, Refusal)):
        return (Silence(silent),)
    return tuple(silent)

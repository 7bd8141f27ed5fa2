"""The outcomes other than backends: refusals, sockets handed over, and protocols of this process."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProtocolFactory


class Refusal(enum.Enum):
    """How a client without a backend is turned away."""

    CLOSE = "close"
    RESET = "reset"
    REJECT = "reject"


@attrs.frozen
class InProcess:
    """A Twisted protocol factory of this process, which gets the connection itself. Only from Python.

    Attributes:
        name: For logs.
        factory: Builds the protocol that serves the client.
    """

    name: str
    factory: IProtocolFactory = attrs.field(hash=False)  # it may have no hash


@attrs.frozen
class Handover:
    """Where clients' sockets are handed over; the bytes that decided are still in them.

    Attributes:
        path: Of the UNIX socket where the server takes them.
        users: The numbers of the users whose servers may take them, beside root and the user of this process.
    """

    path: str
    users: frozenset[int] = frozenset()

    @property
    def name(self) -> str:
        return f"handover:{self.path}"

"""Clients that are led to no backend, or to one that is a part of this process."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProtocolFactory

__all__ = ["InProcess", "Refusal"]


class Refusal(enum.Enum):
    """What is done with a client that is led to no backend."""

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

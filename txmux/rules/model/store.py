"""Where machines share what they know."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Store"]


@attrs.frozen
class Store:
    """A Redis, or what speaks its protocol.

    Attributes:
        text: As it is written; it has no secret.
        host: Its name or address; empty if it listens at a path.
        port: By TCP.
        path: Of its UNIX socket.
        tls: Whether it is spoken to by TLS.
        user: By which it knows this service; empty is its default user.
        database: The number of the database.
    """

    text: str
    host: str = ""
    port: int = 6379
    path: Path | None = None
    tls: bool = False
    user: str = ""
    database: int = 0

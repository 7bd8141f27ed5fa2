"""A server that is given the client's socket itself, by way of a UNIX socket."""

from __future__ import annotations

import attrs

__all__ = ["Handover"]


@attrs.frozen
class Handover:
    """Where clients' sockets are handed over; the bytes that decided are still in them.

    Attributes:
        path: Of the UNIX socket where the server takes them.
    """

    path: str

    @property
    def name(self) -> str:
        """As the rules have it, for logs."""
        return f"handover:{self.path}"

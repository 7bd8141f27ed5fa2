"""TLS that is ended here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import attrs

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["TLSMinimum", "TlsEnd"]

TLSMinimum = Literal["1.2", "1.3"]
"""The oldest version of TLS that is spoken."""


@attrs.frozen
class TlsEnd:
    """TLS that is ended here.

    Attributes:
        files: PEM files with certificate chains and their keys, of which SNI chooses; the first is for clients
            that name no other one's host. At least one.
        alpn: The protocols that are offered, in the order of preference; empty is no ALPN.
        client_ca: A PEM file with the certificates that those of clients are verified by; ``None`` asks clients
            for none, otherwise they need one.
        minimum: The oldest version that is spoken.
    """

    files: tuple[Path, ...]
    alpn: tuple[str, ...] = ()
    client_ca: Path | None = None
    minimum: TLSMinimum = "1.2"

"""What a rules file says of clients: how many may come, when, and the TLS that is ended for them, as frozen values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import attrs

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Rate", "TLSMinimum", "TlsEnd"]

TLSMinimum = Literal["1.2", "1.3"]
"""The oldest version of TLS that is spoken."""


@attrs.frozen
class Rate:
    """How often something may happen, as a bucket of tokens: it holds `burst` of them, and is full at the beginning.

    Attributes:
        per_second: So many tokens come back each second.
        burst: So many times it may happen at once; at least 1.
    """

    per_second: float
    burst: int


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

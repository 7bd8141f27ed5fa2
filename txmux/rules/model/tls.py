"""TLS that is ended here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from txmux.wire.globs import Globs

__all__ = ["AllowedClient", "TLSMinimum", "TlsEnd"]

TLSMinimum = Literal["1.2", "1.3"]
"""The oldest version of TLS that is spoken."""


@attrs.frozen
class AllowedClient:
    """Which certificates of clients are let in; made by `txmux.rules.reading.certificates.allowed_client`.

    Attributes:
        text: As it is written; those with the same text are the same.
        wanted: Patterns by the kind of name, ``cn``, ``ou``, ``san`` or ``spiffe``: of each kind, a certificate needs a name that fits.
    """

    text: str
    wanted: Mapping[str, Globs] = attrs.field(eq=False)


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
        allow_client: Of those with a certificate of `client_ca`, who is let in; one that fits is enough. Empty lets in all.
        client_crl: A PEM file with the lists of certificates that the authorities have revoked (RFC 5280, section 5).
    """

    files: tuple[Path, ...]
    alpn: tuple[str, ...] = ()
    client_ca: Path | None = None
    minimum: TLSMinimum = "1.2"
    allow_client: tuple[AllowedClient, ...] = ()
    client_crl: Path | None = None

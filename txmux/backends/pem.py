"""What PEM files hold (RFC 7468): certificates, and the key of one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import crypto

from txmux.errors import MuxError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

__all__ = ["TLSFileError", "read_authorities", "read_identity"]

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----", re.DOTALL)


class TLSFileError(MuxError):
    """A file that a backend's TLS needs cannot be used.

    Args:
        key: The key that names it in the rules.
        message: What is wrong and what would be right, without the key.

    Attributes:
        key: The same.
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def read_authorities(path: Path) -> list[crypto.X509]:
    """Read the certificates that are to be trusted, for the key ``tls_ca``.

    Raises:
        TLSFileError: They cannot be read.
    """
    key = "tls_ca"
    found = _certificates(key, [path], _blocks(key, path))
    if not found:
        raise TLSFileError(key, f"'{path}' has no certificate in it; {_wanted(key)}")
    return found


def read_identity(paths: Iterable[Path]) -> dict[str, Any]:
    """Read a client's certificate, those that lead from it to its authority, and its key.

    Args:
        paths: Of the key ``tls_client_certificate``; together they hold all that.

    Returns:
        Arguments of Twisted's `CertificateOptions`.

    Raises:
        TLSFileError: They cannot be read, or something is not in them.
    """
    key, paths = "tls_client_certificate", list(paths)
    shown = " and ".join(f"'{path}'" for path in paths)
    blocks = [block for path in paths for block in _blocks(key, path)]
    keys = [block for kind, block in blocks if kind.endswith(b"PRIVATE KEY")]
    chain = _certificates(key, paths, blocks)
    for found, what in ((chain, "certificate"), (keys, "private key")):
        if not found:
            raise TLSFileError(key, f"{shown}: no {what} in it; {_wanted(key)}")
    try:
        private = load_pem_private_key(keys[0], None)
    except TypeError:
        raise TLSFileError(
            key, f"{shown}: the private key is encrypted; write it without a passphrase"
        ) from None
    except Exception:  # noqa: BLE001 - what a damaged key raises hangs on its kind
        raise TLSFileError(key, f"{shown}: the private key is damaged; {_wanted(key)}") from None
    public = private.public_key()
    own = [found for found in chain if found.to_cryptography().public_key() == public]
    if not own:
        raise TLSFileError(
            key, f"{shown}: the private key does not belong to the certificate; {_wanted(key)}"
        )
    others = [found for found in chain if found is not own[0]]
    return {
        "certificate": own[0],
        "privateKey": crypto.PKey.from_cryptography_key(private),  # type: ignore[arg-type]
        "extraCertChain": others,
    }


def _blocks(key: str, path: Path) -> list[tuple[bytes, bytes]]:
    """Give the kinds and the texts of what is in a PEM file (RFC 7468)."""
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise TLSFileError(
            key, f"cannot read '{path}': {problem.strerror}; {_wanted(key)}"
        ) from None
    return [(found[1], found[0]) for found in _BLOCK.finditer(data)]


def _certificates(
    key: str, paths: Sequence[Path], blocks: Iterable[tuple[bytes, bytes]]
) -> list[crypto.X509]:
    try:
        found = [
            x509.load_pem_x509_certificate(block)
            for kind, block in blocks
            if kind == b"CERTIFICATE"
        ]
    except ValueError:
        shown = " and ".join(f"'{path}'" for path in paths)
        raise TLSFileError(key, f"{shown}: a certificate is damaged; {_wanted(key)}") from None
    return [crypto.X509.from_cryptography(certificate) for certificate in found]


def _wanted(key: str) -> str:
    what = "certificates" if key == "tls_ca" else "a certificate and its key"
    return f"name a PEM file with {what}"

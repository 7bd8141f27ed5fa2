"""Whether a client's certificate is one of those that are let in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryptography import x509

if TYPE_CHECKING:
    from collections.abc import Iterable

    from txmux.rules.model.tls import AllowedClient

__all__ = ["alternative_names", "is_allowed"]

_KINDS: tuple[tuple[type[Any], str], ...] = (
    (x509.DNSName, "DNS"),
    (x509.UniformResourceIdentifier, "URI"),
    (x509.RFC822Name, "email"),
    (x509.IPAddress, "IP"),
)
_SPIFFE = "spiffe://"


def is_allowed(certificate: x509.Certificate, allowed: Iterable[AllowedClient]) -> bool:
    """Return whether a certificate, which has been verified, has names of all kinds that any of some lines wants.

    Args:
        certificate: The client's.
        allowed: Who is let in.
    """
    names = _names(certificate)
    return any(
        all(any(map(globs.matches, names[kind])) for kind, globs in one.wanted.items())
        for one in allowed
    )


def alternative_names(certificate: x509.Certificate) -> list[tuple[str, str]]:
    """Return the names of the extension subjectAltName (RFC 5280, section 4.2.1.6) that are text, with what they are.

    Returns:
        ``DNS``, ``URI``, ``email`` or ``IP``, and the name; nothing if the extension is missing, or cannot be read.
    """
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return []
    return [
        (kind, str(name.value)) for name in found for one, kind in _KINDS if isinstance(name, one)
    ]


def _names(certificate: x509.Certificate) -> dict[str, list[str]]:
    found = alternative_names(certificate)
    uris = [name for kind, name in found if kind == "URI"]
    return {
        "cn": _in_subject(certificate, x509.NameOID.COMMON_NAME),
        "ou": _in_subject(certificate, x509.NameOID.ORGANIZATIONAL_UNIT_NAME),
        "san": [name.lower() for _, name in found],
        # A certificate with several URIs has no SPIFFE ID (X.509-SVID, section 2).
        "spiffe": uris if len(uris) == 1 and uris[0].startswith(_SPIFFE) else [],
    }


def _in_subject(certificate: x509.Certificate, kind: x509.ObjectIdentifier) -> list[str]:
    return [str(one.value) for one in certificate.subject.get_attributes_for_oid(kind)]

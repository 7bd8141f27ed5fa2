"""Why a client's handshake failed, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from OpenSSL import SSL

from txmux.net.tls.contexts import NOT_ALLOWED, NoCommonProtocolError

if TYPE_CHECKING:
    from cryptography import x509

Distrusted = tuple[int, "x509.Certificate"]
"""The number of OpenSSL's that tells why (``X509_V_ERR_*``), and the certificate that it is about."""

_NO_TLS = "what the client sent is not TLS"
_WORDS = {
    "http request": _NO_TLS,
    "https proxy request": _NO_TLS,
    "wrong version number": _NO_TLS,
    "packet length too long": _NO_TLS,
    "no shared cipher": "the client and txmux have no cipher in common",
    "no suitable signature algorithm": "the client takes no certificate with such a key",
    "unsupported protocol": "the client speaks only older versions of TLS than tls_minimum",
    "peer did not return a certificate": "the client has sent no certificate, but tls_client_ca wants one",
}
_DISTRUST = {
    NOT_ALLOWED: "is not one of those in allow_client",
    3: "is of an authority of which tls_client_crl has no list, {issuer!r}",
    11: "cannot be checked: the list of {issuer!r} in tls_client_crl is not valid yet",
    12: "cannot be checked: the list of {issuer!r} in tls_client_crl has expired",
    9: "is valid only from {begin} UTC on",
    10: "expired on {end} UTC",
    23: "was revoked by {issuer!r}",
    18: "is self-signed, and not in tls_client_ca",
    26: "is not meant for clients",
}
_UNKNOWN_AUTHORITY = {2, 19, 20, 21}


def cause_of(problem: object, distrusted: Distrusted | None = None) -> str:
    """Say why a handshake failed.

    Args:
        problem: The exception.
        distrusted: What OpenSSL had against the client's certificate.
    """
    if not isinstance(problem, SSL.Error):
        return "the client left in the middle of the TLS handshake"
    reasons = [str(reason) for _, _, reason in problem.args[0]] if problem.args else []
    reason = reasons[-1] if reasons else str(problem)
    if distrusted is not None and "certificate verify failed" in reasons:
        return _distrust(*distrusted)
    if isinstance(problem, NoCommonProtocolError):
        return reason
    if " alert " in reason:
        return (
            f"the client ended the TLS handshake with the alert {reason.partition(' alert ')[2]!r}"
        )
    return _WORDS.get(reason, f"the TLS handshake failed: {reason}")


def _distrust(number: int, certificate: x509.Certificate) -> str:
    whose = f"the certificate of {certificate.subject.rfc4514_string()!r}"
    issuer = certificate.issuer.rfc4514_string()
    if number in _UNKNOWN_AUTHORITY:
        return f"{whose} is of an authority that is not in tls_client_ca, {issuer!r}"
    text = _DISTRUST.get(number, "is not accepted (X509_V_ERR {number} of OpenSSL)")
    times = {"begin": certificate.not_valid_before_utc, "end": certificate.not_valid_after_utc}
    shown = {name: f"{time:%Y-%m-%d %H:%M}" for name, time in times.items()}
    return f"{whose} {text.format(number=number, issuer=issuer, **shown)}"

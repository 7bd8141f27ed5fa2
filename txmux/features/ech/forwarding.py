"""Where an inner hello can go."""

from txmux.rules.model import Handover, InProcess, Outcome, Route

_CONFIRMS = 0x4000_0000
"""The first version of OpenSSL that confirms an inner hello to its client (RFC 9849, section 7.2)."""


def can_forward(route: Route | None, default: Outcome) -> bool:
    """Return whether an inner hello can be forwarded by a route, or to the default: not with the socket, nor to an older OpenSSL here."""
    if route is not None and route.terminate_tls is not None:
        from OpenSSL import SSL  # noqa: PLC0415 - it takes a while

        return SSL.OPENSSL_VERSION_NUMBER >= _CONFIRMS
    return not isinstance(default if route is None else route.outcome, (Handover, InProcess))

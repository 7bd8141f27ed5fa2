"""Puts routes before those of a listener, for authorities that check a name by TLS-ALPN-01 (RFC 8737)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL, crypto

from txmux.classes import frozen
from txmux.client.configuration import CompiledRoute, Configuration, RuleLayer
from txmux.client.parts import ServingContext, ServingPart
from txmux.client.tls.terminator import TlsTerminator
from txmux.detection.detector import Detector
from txmux.detection.ranked import GAP, ListChange, finish
from txmux.features.acme.reading import address_of
from txmux.interfaces import Transport
from txmux.matchers.tls import tls
from txmux.net.tls.self_signed import self_signed
from txmux.rules.model import Alternative, Listener, Refusal, Route, Rules

PROTOCOL = b"acme-tls/1"

_IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")  # id-pe-acmeIdentifier, section 3
_OCTETS = b"\x04\x20"  # before a digest: an OCTET STRING of 32 bytes
_DAY = timedelta(days=1)


@frozen
class ChallengeStore:
    """The certificate of one challenge, as a `CertificateStore` has those of a route."""

    _context: SSL.Context
    may_lack = False

    @classmethod
    def make(cls, name: str, digest: str) -> ChallengeStore:
        """Make the certificate for a name; `digest` is that of the key authorization, in hex."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.fromtimestamp(time.time(), UTC)
        shown = x509.UnrecognizedExtension(_IDENTIFIER, _OCTETS + bytes.fromhex(digest))
        certificate = self_signed(
            key, name, now - _DAY, now + _DAY, shown, common_name=PROTOCOL.decode()
        )
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.use_certificate(crypto.X509.from_cryptography(certificate))
        context.use_privatekey(crypto.PKey.from_cryptography_key(key))
        context.set_alpn_select_callback(lambda _, __: PROTOCOL)
        return cls(context)

    def is_lacking(self) -> bool:
        return False

    def connection(self, name: str | None = None, version: str | None = None) -> SSL.Connection:  # noqa: ARG002 - as for all
        return SSL.Connection(self._context, None)


NAME = "acme-tls/1"
"""Of these routes, in the access log. No route of a rules file can be called so."""


class Challenges(ServingPart):
    """Answers exactly the challenges of the service, before any route."""

    def __init__(self, context: ServingContext) -> None:
        self._context = context
        self._terminators: dict[str, TlsTerminator[ChallengeStore]] = {}
        self._rules: Rules | None = None

    def commit(self, rules: Rules) -> None:
        self._rules = rules
        if self._terminators:
            self._answer()

    def receive(self, values: Mapping[str, Any]) -> None:
        """Take ``challenges``: for each name, the digest for the certificate."""
        if values["challenges"] or self._terminators:
            self._terminators = {
                name: TlsTerminator(ChallengeStore.make(name, digest))
                for name, digest in values["challenges"].items()
            }
            self._answer()

    def _answer(self) -> None:
        for listener in self._context.serving.listeners:
            own = (listener.configuration.plain or listener.configuration).settings
            kept = names_kept_from(self._rules or self._context.serving.rules, own)
            its = {name: one for name, one in self._terminators.items() if name not in kept}
            changed = with_challenges(listener.configuration, its)
            if changed is not listener.configuration:
                listener.change(changed)


def names_kept_from(rules: Rules, listener: Listener) -> set[str]:
    """Return the names that only other authors' routes ask for, none of which may be under a listener: such an author may not have what it is asked for."""
    ours, theirs = set[str](), set[str]()
    for route in rules.routes:
        if (tls := route.terminate_tls) is not None and tls.managed:
            (ours if tls.author is None else theirs).update(tls.managed)
    left: list[Listener | Route] = [listener] if theirs else []
    while left:
        for route in rules.routes_of(left.pop()):
            ours.update(() if route.terminate_tls is None else route.terminate_tls.managed)
            left += [route] * route.is_outer
    return theirs - ours


def with_challenges(configuration: Configuration, challenges: Mapping[str, Any]) -> Configuration:
    """Return a configuration that answers challenges: by the name that is checked, the TLS of each.

    A listener that decides without a byte of the client answers none.
    """
    plain = configuration.plain or configuration
    top = plain.top
    routes = top.detector.routes
    if (
        not challenges
        or not routes
        or top.server_first
        or plain.settings.transport is not Transport.TCP
    ):
        return plain
    first = [
        CompiledRoute(
            NAME, (_alternative(name),), None, terminator=terminator, counts=plain.counts.unrouted
        )
        for name, terminator in challenges.items()
    ]
    start = top.detector.ranks[0] - GAP * len(first)
    new = [(start + GAP * number, route) for number, route in enumerate(first)]
    before = top.detector
    detector = finish(before.changed(ListChange((), new), before.peek_limit, before.on_would_take))
    detector.would_have_taken = top.detector.would_have_taken
    detector.takes_any_client = top.detector.takes_any_client
    nothing = RuleLayer(Detector([]), (), Refusal.CLOSE)
    top, inside = attrs.evolve(top, detector=detector), {**plain.inside, NAME: nothing}
    return attrs.evolve(plain, top=top, inside=inside, plain=plain)


def _alternative(name: str) -> Alternative:
    address = address_of(name)  # its name is the one of DNS (RFC 8738, section 6)
    asked = name if address is None else address.reverse_pointer
    return Alternative(f"tls sni={asked} alpn={NAME}", tls.predicate({"sni": asked, "alpn": NAME}))

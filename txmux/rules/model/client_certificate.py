"""What is known of a client's certificate, and which certificates a rule is about."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Protocol

import attrs

from txmux.classes import frozen
from txmux.rules.model.networks import NetworkSet
from txmux.transport import unmapped


class NamePatterns(Protocol):
    """`Globs`, or what takes their place for one kind of name."""

    def matches(self, name: str, /) -> bool: ...


@frozen
class AddressPatterns:
    """Networks that an IP address has to be in."""

    networks: NetworkSet

    def matches(self, name: str) -> bool:
        try:
            return unmapped(ipaddress.ip_address(name)) in self.networks
        except ValueError:  # a certificate may have a network in its place
            return False


@frozen
class AllowedClient:
    """Client certificates that are accepted; made by `txmux.rules.reading.route.allowed_client`.

    Attributes:
        text: As it is written; those with the same text are the same.
        patterns: Patterns by the kind of name, ``cn``, ``ou``, ``spiffe`` or one of `ALTERNATIVE_NAMES`: of each kind, a certificate
            needs a name that fits.
    """

    text: str
    patterns: Mapping[str, NamePatterns] = attrs.field(eq=False)


ALTERNATIVE_NAMES = ("dns", "email", "uri", "ip")
"""The kinds of names in a certificate beside its subject."""


@frozen
class FoundCertificate:
    """What a client's TLS showed of its certificate.

    Attributes:
        kinds: ``any`` for one that was verified, otherwise ``none``, with ``revoked`` if it is.
        names: Of one that was verified: its ``subject``, ``issuer``, ``fingerprint``, and each of `ALTERNATIVE_NAMES`.
    """

    kinds: frozenset[str]
    names: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)

    def __str__(self) -> str:
        if "any" not in self.kinds:
            return "revoked" if "revoked" in self.kinds else "none"
        # A certificate may have an empty subject, if it has other names (RFC 5280, section 4.2.1.6).
        kinds = ("subject", *ALTERNATIVE_NAMES, "fingerprint")
        named = (name for kind in kinds for name in self.names[kind])
        return next(filter(None, named))


NO_CERTIFICATE = FoundCertificate(frozenset({"none"}))
REVOKED = FoundCertificate(frozenset({"none", "revoked"}))


@frozen
class CertificateCondition:
    """The value of ``client_cert``: conditions that all have to hold.

    Attributes:
        words: As they are written, and what follows from them: ``any`` from a name, ``none`` from ``revoked``. A condition
            with fewer of them holds wherever this one does.
        patterns: The kinds of names, and what they have to match.
    """

    words: frozenset[str]
    patterns: tuple[tuple[str, NamePatterns], ...] = attrs.field(default=(), eq=False)

    @classmethod
    def of(cls, conditions: Iterable[CertificateCondition]) -> CertificateCondition:
        """Join several."""
        made = tuple(conditions)
        words = frozenset[str]().union(*(one.words for one in made))
        return cls(words, tuple(pattern for one in made for pattern in one.patterns))

    @property
    def is_contradictory(self) -> bool:
        return self.excludes(self)

    def excludes(self, other: CertificateCondition) -> bool:
        return {"any", "none"} <= self.words | other.words

    def covers(self, other: CertificateCondition | None) -> bool:
        return other is not None and self.words <= other.words

    def holds(self, found: FoundCertificate | None) -> bool:
        """Return whether a client fits; ``None`` is one that was not asked for a certificate."""
        return (
            found is not None
            and found.kinds.issuperset(self.words & {"any", "none", "revoked"})
            and all(any(map(these.matches, found.names[kind])) for kind, these in self.patterns)
        )

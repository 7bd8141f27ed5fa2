"""Verifies the certificates of clients, in their handshakes and again when they resume a session."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL, crypto

from txmux.files import Reader, read_bytes
from txmux.net.tls.end import Distrusted
from txmux.net.tls.pem import read_authorities, read_revocations, validity_of
from txmux.net.tls.validity import Validity
from txmux.rules.model import NO_CERTIFICATE, REVOKED, AllowedClient, FoundCertificate, TlsSettings
from txmux.rules.model.client_certificate import ALTERNATIVE_NAMES

_OPENSSL: Any = SSL
_lib = _OPENSSL._lib
_REFUSED = 47
"""X509_V_ERR_PERMITTED_VIOLATION: OpenSSL has no special alert for it, and sends ``certificate_unknown`` (RFC 8446, section 6.2)."""

NOT_ALLOWED = -1
"""In place of OpenSSL's number of a reason: the certificate is valid, but no line of ``allow_client`` matches it."""
UNREADABLE = -2
"""The same: OpenSSL accepts the certificate, but its names cannot be read."""

_IS_REVOKED = 23  # X509_V_ERR_CERT_REVOKED
_TIMED = frozenset({9, 10, 11, 12})  # a certificate or a list is not valid yet, or has expired
_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME
_MOST_INTERMEDIATES = 256
_MOST_LISTS = 8  # of one name: an authority may have several keys


class ClientVerification:
    """Verifies the clients of a route by the files as they are now.

    Attributes:
        authorities: The certificates in ``tls_client_ca``.
        revoked: The lists in ``tls_client_crl``.
    """

    def __init__(self, tls: TlsSettings, read: Reader = read_bytes) -> None:
        assert tls.client_ca is not None  # noqa: S101 - only then it is made
        self._tls = tls
        self.authorities = read_authorities(tls.client_ca, "tls_client_ca", read)
        self.revoked = [] if tls.client_crl is None else read_revocations(tls.client_crl, read)
        self._intermediates: dict[bytes, crypto.X509] = {}
        self._store, self._lasting = crypto.X509Store(), crypto.X509Store()
        for store in (self._store, self._lasting):
            _lib.X509_STORE_set_purpose(store._store, _lib.X509_PURPOSE_SSL_CLIENT)
        self._fill(self._store)
        self._fill(self._lasting, _NO_CHECK_TIME)

    def _fill(self, store: Any, flags: int = 0) -> None:
        # Every authority in the file is trusted, also one below another.
        flags |= crypto.X509StoreFlags.PARTIAL_CHAIN
        if self._tls.client_crl is not None and not flags & _NO_CHECK_TIME:
            flags |= crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL
        store.set_flags(flags)
        for revocations in self.revoked:
            store.add_crl(revocations)
        for authority in self.authorities:
            store.add_cert(authority)

    def validity(self) -> Iterator[Validity]:
        tls, authorities = self._tls, [one.to_cryptography() for one in self.authorities]
        for key, path, found in (
            ("tls_client_ca", tls.client_ca, authorities),
            ("tls_client_crl", tls.client_crl, self.revoked),
        ):
            if path is not None:
                yield from validity_of(key, path, found)
        if tls.client_crl is not None:
            lists = defaultdict[str, list[x509.CertificateRevocationList]](list)
            for revocations in self.revoked:
                lists[_plain(revocations.issuer)].append(revocations)
            lacking = [one for one in authorities if not _has_one(one, lists[_plain(one.subject)])]
            for one in validity_of("tls_client_crl", tls.client_crl, lacking):
                yield one._replace(begins=0, ends=0)

    def ask_in(self, context: SSL.Context) -> None:
        """Request certificates from the clients of a context."""
        is_required = self._tls.client == "required"
        mode = SSL.VERIFY_PEER | (SSL.VERIFY_FAIL_IF_NO_PEER_CERT if is_required else 0)
        context.set_verify(mode, self._accepts if is_required else self._notes)
        _wrap_callback(context, mode)
        if is_required:
            # A session would admit its client after the certificate, or the revocation list, has expired.
            context.set_options(SSL.OP_NO_TICKET)
        context.set_app_data(self)
        self._fill(context.get_cert_store())
        for authority in self.authorities:
            context.add_client_ca(authority)

    def _accepts(
        self, connection: SSL.Connection, certificate: crypto.X509, number: int, depth: int, ok: int
    ) -> bool:
        """Return whether a client's certificate is accepted; if it is not, the transport gets the reason."""
        if ok and (depth or not self._tls.allow_client):
            return True
        shown = readable(certificate)
        if ok and self._allows(shown):
            return True
        connection.get_app_data().distrusted = (NOT_ALLOWED if ok else number, shown)
        return False

    def _notes(
        self, connection: SSL.Connection, certificate: crypto.X509, number: int, depth: int, ok: int
    ) -> bool:
        """Accept any certificate; the transport gets the worst of what is wrong with it."""
        transport = connection.get_app_data()
        if ok and not depth and not self._allows(shown := readable(certificate)):
            number = UNREADABLE if shown is None else NOT_ALLOWED
        elif ok:
            return True
        before = transport.distrusted
        if before is None or order_rank(number) > order_rank(before[0]):
            transport.distrusted = (number, readable(certificate))
        return True

    def _allows(self, certificate: x509.Certificate | None) -> bool:
        allowed = self._tls.allow_client
        return certificate is not None and (not allowed or is_allowed(certificate, allowed))

    def client_certificate(
        self, connection: SSL.Connection, distrusted: Distrusted | None
    ) -> tuple[FoundCertificate, Distrusted | None]:
        """Return the certificate of a client, also of a resumed session, and why it is not trusted, if it is not.

        A session keeps the result of its first handshake. The certificate may have expired since then, so it is verified
        again; other authorities or revocation lists come with other ticket keys, so no session outlives these.
        """
        shown: Any = connection.get_peer_certificate()
        if shown is None:
            return NO_CERTIFICATE, None
        certificate = readable(shown)
        ssl = connection._ssl
        if _lib.SSL_session_reused(ssl):
            number = _lib.SSL_get_verify_result(ssl) or self.verify(shown, ())
            if not number and not self._allows(certificate):
                number = NOT_ALLOWED
            distrusted = (number, certificate) if number else None
        elif distrusted is None:
            self._remember(connection)
        if certificate is None:
            return NO_CERTIFICATE, (UNREADABLE, None)
        if distrusted is not None:
            return _found_of(distrusted[0]), distrusted
        return of_verified(certificate), None

    def _remember(self, connection: SSL.Connection) -> None:
        """Keep the authorities of a verified chain, since a session has only the client's own certificate."""
        for authority in (connection.get_verified_chain() or ())[1:]:
            if len(self._intermediates) < _MOST_INTERMEDIATES:
                encoded = crypto.dump_certificate(crypto.FILETYPE_ASN1, authority)
                self._intermediates.setdefault(encoded, authority)

    def verify(self, certificate: crypto.X509, chain: Iterable[crypto.X509]) -> int:
        """Return OpenSSL's number of what is wrong with a certificate now, or 0."""
        several = [*chain, *self._intermediates.values()]
        number = _verified_by(self._store, certificate, several)
        # OpenSSL looks for the certificate in the list before it looks at signatures.
        return (
            number == _IS_REVOKED and _verified_by(self._lasting, certificate, several)
        ) or number

    def judge(self, certificate: crypto.X509, chain: Iterable[crypto.X509]) -> FoundCertificate:
        """Return what the rules would see of a client that presents this certificate now."""
        read, number = readable(certificate), self.verify(certificate, chain)
        if number or read is None or not self._allows(read):
            return _found_of(number)
        return of_verified(read)


def _verified_by(
    store: crypto.X509Store, certificate: crypto.X509, chain: Sequence[crypto.X509]
) -> int:
    try:
        crypto.X509StoreContext(store, certificate, chain).verify_certificate()
    except crypto.X509StoreContextError as problem:
        _lib.ERR_clear_error()
        number: int = problem.errors[0]
        return number
    return 0


def _has_one(authority: x509.Certificate, lists: Sequence[x509.CertificateRevocationList]) -> bool:
    """Return whether an authority has signed one of the lists with its name; of very many, it is taken to have."""
    try:
        key: Any = authority.public_key()
        return len(lists) > _MOST_LISTS or any(one.is_signature_valid(key) for one in lists)
    except (TypeError, ValueError, UnsupportedAlgorithm):  # OpenSSL may know it
        return True


def _plain(name: x509.Name) -> str:
    """Return a name as OpenSSL compares it (RFC 5280, section 7.1): without regard to case and repeated blanks."""
    return " ".join(name.rfc4514_string().lower().split())


def _found_of(number: int) -> FoundCertificate:
    return REVOKED if number == _IS_REVOKED else NO_CERTIFICATE


def order_rank(number: int) -> int:
    """Order reasons: a certificate with a forged signature is not revoked, and an expired one that was revoked is."""
    if number < 0:
        return 0
    return 1 if number in _TIMED else 2 if number == _IS_REVOKED else 3


def _wrap_callback(context: SSL.Context, mode: int) -> None:
    """Leave OpenSSL a fitting reason, which pyOpenSSL's callback cannot return.

    For a refused certificate it sends an alert by that, instead of ``internal_error``. For one that is only noted, the
    session keeps the reason.
    """
    inner: Any = context._verify_callback

    def verify(ok: int, store: Any) -> int:
        accepted: int = inner(ok, store)
        if not accepted:
            if _lib.X509_STORE_CTX_get_error(store) == _lib.X509_V_OK:
                _lib.X509_STORE_CTX_set_error(store, _REFUSED)
            return accepted
        index = _lib.SSL_get_ex_data_X509_STORE_CTX_idx()
        ssl = _lib.X509_STORE_CTX_get_ex_data(store, index)
        distrusted = _OPENSSL.Connection._reverse_mapping[ssl].get_app_data().distrusted
        if distrusted is not None:
            _lib.ERR_clear_error()  # what is left there becomes an error of what is called next
            _lib.X509_STORE_CTX_set_error(store, max(distrusted[0], 0))
        return accepted

    outer = _OPENSSL._ffi.callback("int (*)(int, X509_STORE_CTX *)", verify)
    context._verify_callback = outer
    _lib.SSL_CTX_set_verify(context._context, mode, outer)


def readable(certificate: crypto.X509) -> x509.Certificate | None:
    """Return the parsed certificate; ``None`` if OpenSSL accepts it, but a field that is logged cannot be read."""
    try:
        parsed = certificate.to_cryptography()
        for name in (parsed.subject, parsed.issuer):
            name.rfc4514_string()
        _ = parsed.not_valid_before_utc, parsed.not_valid_after_utc
    except Exception:  # noqa: BLE001 - what is raised depends on what is odd
        return None
    return parsed


def of_verified(certificate: x509.Certificate) -> FoundCertificate:
    names = {
        "subject": (certificate.subject.rfc4514_string(),),
        "issuer": (certificate.issuer.rfc4514_string(),),
        **_by_kind(alternative_names(certificate)),
        "fingerprint": (certificate.fingerprint(hashes.SHA256()).hex(),),
    }
    return FoundCertificate(frozenset({"any"}), names)


_KINDS: tuple[tuple[type[Any], str], ...] = (
    (x509.DNSName, "DNS"),
    (x509.UniformResourceIdentifier, "URI"),
    (x509.RFC822Name, "email"),
    (x509.IPAddress, "IP"),
)
_SPIFFE = "spiffe://"


def is_allowed(certificate: x509.Certificate, allowed: Iterable[AllowedClient]) -> bool:
    names = _names(certificate)
    return any(
        all(any(map(these.matches, names[kind])) for kind, these in line.patterns.items())
        for line in allowed
    )


def subject_alt_name(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    """Return the extension (RFC 5280, section 4.2.1.6); ``None`` also if it is unreadable."""
    missing = x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (*missing, ValueError):
        return None


def alternative_names(certificate: x509.Certificate) -> list[tuple[str, str]]:
    """Return kind and text of each subjectAltName; empty if unreadable."""
    names = subject_alt_name(certificate) or ()
    return [
        (kind, str(name.value)) for name in names for form, kind in _KINDS if isinstance(name, form)
    ]


def _by_kind(names: Sequence[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    return {
        key: tuple(name for kind, name in names if kind.lower() == key) for key in ALTERNATIVE_NAMES
    }


def _names(certificate: x509.Certificate) -> dict[str, Sequence[str]]:
    by_kind = _by_kind(alternative_names(certificate))
    uris = by_kind["uri"]
    return {
        **by_kind,
        "cn": _in_subject(certificate, x509.NameOID.COMMON_NAME),
        "ou": _in_subject(certificate, x509.NameOID.ORGANIZATIONAL_UNIT_NAME),
        # A certificate with several URIs has no SPIFFE ID (X.509-SVID, section 2).
        "spiffe": uris if len(uris) == 1 and uris[0].startswith(_SPIFFE) else (),
    }


def _in_subject(certificate: x509.Certificate, kind: x509.ObjectIdentifier) -> list[str]:
    return [str(name.value) for name in certificate.subject.get_attributes_for_oid(kind)]

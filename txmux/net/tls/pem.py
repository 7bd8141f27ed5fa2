"""Reads PEM files (RFC 7468): certificates, and the keys of some."""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from OpenSSL import SSL, crypto

from txmux.classes import frozen
from txmux.files import Reader, other_path, read_bytes
from txmux.net.tls.errors import CLIENT_CERTIFICATE, TLSFileError
from txmux.net.tls.validity import Validity

_PAIR = "a certificate and its key"
_STRANGERS = "the private key does not belong to the certificate"
_UNSUITABLE = "the private key is of a kind with which TLS cannot sign here; get a certificate for an ECDSA key on P-256, or for an RSA key"
_NO_SIGNATURE = {"no shared cipher", "no suitable signature algorithm"}  # as OpenSSL says it
_LONGEST_HELLO = 65536
_NEVER = datetime(9999, 12, 31, tzinfo=UTC)  # as RFC 5280, section 4.1.2.5, writes it
_LONGEST_NAME = 250  # characters of a subject
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----", re.DOTALL)


@frozen
class KeyPair:
    """A certificate with its key, and the chain to its authority."""

    path: Path
    certificate: crypto.X509
    chain: tuple[crypto.X509, ...]
    key: crypto.PKey

    def validity(self, key: str) -> list[Validity]:
        """Return when the certificate is valid, and each of its chain but a root, which its peers have themselves."""
        first, *chain = [one.to_cryptography() for one in (self.certificate, *self.chain)]
        return [
            _validity(key, self.path, "", first),
            *validity_of(key, self.path, (one for one in chain if one.issuer != one.subject)),
        ]

    def use_in(self, context: SSL.Context) -> None:
        """Have a context present it."""
        context.use_certificate(self.certificate)
        context.use_privatekey(self.key)
        for certificate in self.chain:
            context.add_extra_chain_cert(certificate)

    def check(self, key: str) -> None:
        """Raise a `TLSFileError` for a key of the rules if OpenSSL cannot present it."""
        try:
            context = SSL.Context(SSL.TLS_METHOD)
            self.use_in(context)
            _shake_hands(context)
        except SSL.Error as problem:
            why = str(problem.args[0][-1][-1] if problem.args and problem.args[0] else problem)
            message = (
                f"OpenSSL rejects the certificate: {why}; get one with a stronger key or signature"
            )
            if why in _NO_SIGNATURE:
                message = _UNSUITABLE
            raise TLSFileError(key, f"'{self.path}': {message}") from None


def _shake_hands(context: SSL.Context) -> None:
    """Have a server answer a client: only then OpenSSL looks for a signature algorithm of its key, and at its chain."""
    client, server = (SSL.Connection(context, None) for _ in range(2))
    client.set_connect_state()
    server.set_accept_state()
    with suppress(SSL.WantReadError):
        client.do_handshake()
    server.bio_write(client.bio_read(_LONGEST_HELLO))
    with suppress(SSL.WantReadError):
        server.do_handshake()


def validity_of(
    key: str, path: Path, found: Iterable[x509.Certificate | x509.CertificateRevocationList]
) -> Iterator[Validity]:
    """Yield when certificates or revocation lists are valid, with their names."""
    for one in found:
        name = one.subject if isinstance(one, x509.Certificate) else one.issuer
        text = name.rfc4514_string()
        text = text[:_LONGEST_NAME] + "…" * (len(text) > _LONGEST_NAME)
        yield _validity(key, path, text, one)


def _validity(
    key: str, path: Path, name: str, found: x509.Certificate | x509.CertificateRevocationList
) -> Validity:
    if isinstance(found, x509.Certificate):
        begins, ends = found.not_valid_before_utc, found.not_valid_after_utc
    else:
        begins, ends = found.last_update_utc, found.next_update_utc or _NEVER
    return Validity(key, str(path), name, begins.timestamp(), ends.timestamp())


@frozen
class _File:
    """The certificates and keys of one file, by the public key (SubjectPublicKeyInfo, RFC 5280)."""

    path: Path
    certificates: list[tuple[bytes, x509.Certificate]]
    keys: dict[bytes, crypto.PKey]


def read_authorities(
    path: Path, key: str = "tls_ca", read: Reader = read_bytes
) -> list[crypto.X509]:
    content = "certificates"
    certificates = _read(key, path, content, read, keys=False).certificates
    if not certificates:
        raise TLSFileError(key, f"'{path}' has no certificate in it; {_name(content)}")
    return [crypto.X509.from_cryptography(certificate) for _, certificate in certificates]


def read_revocations(path: Path, read: Reader = read_bytes) -> list[x509.CertificateRevocationList]:
    key, content = "tls_client_crl", "certificate revocation lists"
    try:
        lists = [
            x509.load_pem_x509_crl(block)
            for kind, block in _blocks(key, path, content, read)
            if kind == b"X509 CRL"
        ]
    except ValueError:
        raise TLSFileError(key, f"'{path}': a list is damaged; {_name(content)}") from None
    if not lists:
        raise TLSFileError(key, f"'{path}' has no list in it; {_name(content)}")
    return lists


def read_identity(
    paths: Iterable[Path], key: str = CLIENT_CERTIFICATE, read: Reader = read_bytes
) -> KeyPair:
    """Read a client's certificate, chain and key from several files."""
    files = [_read(key, path, _PAIR, read) for path in paths]
    shown = " and ".join(f"'{file.path}'" for file in files)
    certificates = [entry for file in files for entry in file.certificates]
    keys = {public: private for file in files for public, private in file.keys.items()}
    for content, what in ((certificates, "certificate"), (keys, "private key")):
        if not content:
            raise TLSFileError(key, f"{shown}: no {what} in it; {_name(_PAIR)}")
    path = next(file.path for file in files if file.certificates)
    pairs = _pairs(key, _File(path, certificates, keys), keys)
    if not pairs:
        raise TLSFileError(key, f"{shown}: {_STRANGERS}; {_name(_PAIR)}")
    return pairs[0]


def read_key_pairs(key: str, paths: Iterable[Path], read: Reader = read_bytes) -> list[KeyPair]:
    """Read certificates with their keys, each of which is in the same file or in one without certificates.

    Each file with certificates holds a chain of its own.
    """
    files = [_read(key, path, _PAIR, read) for path in paths]
    keys = {public: private for file in files for public, private in file.keys.items()}
    with_certificate = {public for file in files for public, _ in file.certificates}
    all_pairs = []
    for file in files:
        pairs = _pairs(key, file, keys)
        all_pairs += pairs
        if not file.certificates and not file.keys:
            what = "no certificate in it"
        elif file.certificates and not pairs:
            what = _STRANGERS if file.keys else "no private key for its certificate"
        elif not with_certificate.issuperset(file.keys):
            what = _STRANGERS if file.certificates else "no certificate for its private key"
        else:
            continue
        raise TLSFileError(key, f"'{file.path}': {what}; {_name(_PAIR)}")
    return all_pairs


def _pairs(key: str, file: _File, keys: dict[bytes, crypto.PKey]) -> list[KeyPair]:
    chain = tuple(
        crypto.X509.from_cryptography(certificate)
        for public, certificate in file.certificates
        if public not in keys
    )
    pairs = [
        KeyPair(file.path, crypto.X509.from_cryptography(certificate), chain, keys[public])
        for public, certificate in file.certificates
        if public in keys
    ]
    for pair in pairs:
        pair.check(key)
    return pairs


def _blocks(key: str, path: Path, content: str, read: Reader) -> list[tuple[bytes, bytes]]:
    try:
        data = read(path)
    except OSError as problem:
        advice = _name(content)
        if isinstance(problem, FileNotFoundError):
            advice = other_path(path)
        if isinstance(problem, PermissionError):
            advice = "let the user that txmux runs as read it"
        message = f"cannot read '{path}': {problem.strerror}; {advice}"
        raise TLSFileError(key, message, problem) from None
    return [(block[1], block[0]) for block in _BLOCK.finditer(data)]


def _read(key: str, path: Path, content: str, read: Reader, *, keys: bool = True) -> _File:
    blocks = _blocks(key, path, content, read)
    try:
        certificates = [
            (_public(certificate), certificate)
            for kind, block in blocks
            if kind == b"CERTIFICATE"
            for certificate in [_certificate(block)]
        ]
    except Exception:  # noqa: BLE001 - what is raised depends on what is damaged
        message = f"'{path}': a certificate is damaged; {_name(content)}"
        raise TLSFileError(key, message) from None
    loaded = dict(
        _private(key, path, block, content)
        for kind, block in blocks
        if keys and kind.endswith(b"PRIVATE KEY")
    )
    return _File(path, certificates, loaded)


def _certificate(block: bytes) -> x509.Certificate:
    """Load a certificate whole: its names are parsed at their first use, and OpenSSL may refuse what `cryptography` takes."""
    certificate = x509.load_pem_x509_certificate(block)
    crypto.X509.from_cryptography(certificate)
    for name in (certificate.subject, certificate.issuer):
        name.rfc4514_string()
    return certificate


def _private(key: str, path: Path, block: bytes, content: str) -> tuple[bytes, crypto.PKey]:
    try:
        private = load_pem_private_key(block, None)
    except TypeError:
        message = f"'{path}': the private key is encrypted; write it without a passphrase"
    except Exception:  # noqa: BLE001 - what a damaged key raises depends on its kind
        message = f"'{path}': the private key is damaged; {_name(content)}"
    else:
        with suppress(TypeError):  # pyOpenSSL does not take a key of each kind
            return _public(private), crypto.PKey.from_cryptography_key(private)  # type: ignore[arg-type]
        message = f"'{path}': {_UNSUITABLE}"
    raise TLSFileError(key, message)


def _public(holder: Any) -> bytes:
    encoded: bytes = holder.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    return encoded


def _name(content: str) -> str:
    return f"name a PEM file with {content}"

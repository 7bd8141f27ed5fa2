"""Attacks by TLS: what a server of it can be made to work for, and to remember."""

from __future__ import annotations

import contextlib
import select
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto

from benchmarks.flood import garbage
from campaign.hostile.attack import Attack, Target, come, flood, paced, reset
from campaign.hostile.plain import hello, records
from tests.support.updating import UpdatingClient

_DAY = timedelta(days=1)
_AT_ONCE = 20
_PATIENCE = 5.0


def _tls_garbage(target: Target) -> bytes:
    # A whole hello, and then what is not what should come.
    if target.chance.random() < 0.3:
        return records(hello(), 2**14) + target.chance.randbytes(2000)
    return garbage()


def _shaken(client: SSL.Connection, patience: float = _PATIENCE) -> None:
    """Go on until the handshake is complete, or fails."""
    end = time.monotonic() + patience
    while not _advanced(client):
        left = end - time.monotonic()
        if left < 0 or not select.select([client], (), (), left)[0]:
            raise TimeoutError


def _advanced(client: SSL.Connection) -> bool:
    try:
        client.do_handshake()
    except SSL.WantReadError:
        return False
    return True


def _renegotiate(target: Target) -> None:
    """Shake hands by TLS 1.2, and then want to do it again."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)

    def once() -> None:
        plain = come(target.port)
        client = SSL.Connection(context, plain)
        client.set_connect_state()
        with contextlib.suppress(SSL.Error, TimeoutError):
            _shaken(client)
            for _ in range(100):  # as often as it is let
                client.renegotiate()
                _shaken(client, 0.05)
                target.done()
        reset(plain)

    paced(target, 100, once)


def _update(target: Target) -> None:
    """Have connections send nothing but wishes for other keys, and read nothing."""
    clients: list[UpdatingClient] = []
    number = 0

    def once() -> None:
        nonlocal number
        if len(clients) < _AT_ONCE:
            clients.append(UpdatingClient(target.port))
        number = (number + 1) % len(clients)
        if not clients[number].update() and not clients[number].is_open():
            clients.pop(number).close()

    paced(target, 20_000, once)


def huge(authority: Any, *, names: int = 2000, size: int = 50_000) -> tuple[bytes, bytes]:
    """Make a certificate with thousands of names and a subject of so many bytes, and its key; both in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    units = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "u" * 64)] * (size // 80)
    subject = x509.Name([*units, x509.NameAttribute(NameOID.COMMON_NAME, "<huge>")])
    now = datetime.now(UTC)
    alternative = [x509.DNSName(f"{number}.example") for number in range(names)]
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.certificate.subject if authority else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
        .add_extension(x509.SubjectAlternativeName(alternative), critical=False)
        .sign(authority.key if authority else key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _certificates(target: Target) -> None:
    """Show huge certificates, by turns one of the authority that is trusted and one of nobody's."""
    contexts = []
    for authority in (target.authority, None):
        certificate, key = huge(authority)
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.use_certificate(crypto.load_certificate(crypto.FILETYPE_PEM, certificate))
        context.use_privatekey(crypto.load_privatekey(crypto.FILETYPE_PEM, key))
        contexts.append(context)

    def once() -> None:
        plain = come(target.port)
        client = SSL.Connection(target.chance.choice(contexts), plain)
        client.set_connect_state()
        with contextlib.suppress(SSL.Error, TimeoutError):
            _shaken(client)
            # In TLS 1.3 the certificate is judged after that.
            with contextlib.suppress(SSL.WantReadError):
                client.recv(1)
            select.select([plain], (), (), 0.2)
        reset(plain)

    paced(target, 50, once)


ATTACKS = (
    Attack("garbage for TLS", "tls", flood(_tls_garbage), 5, share=0.2),
    Attack("renegotiation", "tls", _renegotiate),
    Attack("KeyUpdate, answers not read", "tls", _update, 2, "updates"),
    Attack("huge certificates of clients", "mutual", _certificates),
)

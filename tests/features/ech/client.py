import base64
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.wire import hello_builder
from tests.wire.hello_builder import KEY_SHARE, client_hello, extension, server_name, sized
from txmux.features.ech.hello import EchKey, make_config, read_configs
from txmux.features.ech.hpke import AES_128_GCM, CHACHA20_POLY1305, HKDF_SHA256, Context, kem_secret

ECH, OUTER_EXTENSIONS = 0xFE0D, 0xFD00
INNER = extension(ECH, b"\1")
SESSION = bytes(range(32))
HIDDEN, PUBLIC = "hidden.example", "public.example"


def _private(secret: bytes | None) -> X25519PrivateKey:
    if secret is None:
        return X25519PrivateKey.generate()
    return X25519PrivateKey.from_private_bytes(secret)


class MadeKey:
    def __init__(
        self, number: int = 7, public_name: str = PUBLIC, secret: bytes | None = None
    ) -> None:
        self.private = _private(secret)
        public = self.private.public_key().public_bytes_raw()
        self.configs = make_config(number, public, (AES_128_GCM, CHACHA20_POLY1305), public_name)
        (config,) = read_configs(self.configs)
        self.key = EchKey(config, self.private)

    @property
    def pem(self) -> str:
        private = self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        encoded = base64.b64encode(self.configs).decode()
        return f"{private.decode()}-----BEGIN ECHCONFIG-----\n{encoded}\n-----END ECHCONFIG-----\n"

    def write(self, path: Path) -> Path:
        path.write_text(self.pem)
        return path


def outer_extensions(*kinds: int) -> bytes:
    listed = b"".join(kind.to_bytes(2, "big") for kind in kinds)
    return extension(OUTER_EXTENSIONS, sized(1, listed))


def inner(
    *extensions: bytes, name: str = HIDDEN, padding: bytes = bytes(9), session: bytes = b""
) -> bytes:
    """Make an EncodedClientHelloInner; without extensions it has those of a usual one."""
    parts = extensions or (server_name(name), INNER, outer_extensions(43, KEY_SHARE))
    return client_hello(*parts, session_id=session)[4:] + padding


class Sealer:
    def __init__(
        self, made: MadeKey, aead: int = AES_128_GCM, *, secret: bytes | None = None
    ) -> None:
        self.aead, self.config = aead, made.key.config
        private = _private(secret)
        agreed = private.exchange(X25519PublicKey.from_public_bytes(self.config.public_key))
        self.encapsulated = private.public_key().public_bytes_raw()
        secret = kem_secret(agreed, self.encapsulated, self.config.public_key)
        self._context = Context(secret, b"tls ech\0" + self.config.raw, aead)

    def hello(
        self,
        encoded: bytes,
        *,
        encapsulated: bytes | None = None,
        aead: int | None = None,
        more: tuple[bytes, ...] = (),
        public: str = PUBLIC,
    ) -> bytes:
        enc = self.encapsulated if encapsulated is None else encapsulated
        suite = b"".join(n.to_bytes(2, "big") for n in (HKDF_SHA256, aead or self.aead))
        head = b"\0" + suite + bytes([self.config.id]) + sized(2, enc)

        def with_payload(payload: bytes) -> bytes:
            share = extension(KEY_SHARE, sized(2, b"share"))
            sealed = extension(ECH, head + sized(2, payload))
            parts = server_name(public), hello_builder.versions(0x0304), share, *more, sealed
            return client_hello(*parts, session_id=SESSION)

        context, empty = self._context, bytes(len(encoded) + 16)
        nonce = context._next_nonce()
        context._sequence += 1
        sealed = context._aead.encrypt(nonce, encoded, with_payload(empty)[4:])
        return with_payload(sealed)

    def second(self, encoded: bytes, aead: int | None = None, public: str = PUBLIC) -> bytes:
        return self.hello(encoded, encapsulated=b"", aead=aead, public=public)

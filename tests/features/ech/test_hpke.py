"""Hybrid public key encryption, by the vectors of RFC 9180, appendices A.1.1 and A.2.1."""

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from twisted.trial.unittest import SynchronousTestCase

from txmux.features.ech.hpke import AES_128_GCM, CHACHA20_POLY1305, Context, shared_secret
from txmux.wire.cursor import MalformedError

_INFO, _TEXT = b"Ode on a Grecian Urn", b"Beauty is truth, truth beauty"
_VECTORS = {
    AES_128_GCM: (
        "4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8",
        "37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431",
        "fe0e18c9f024ce43799ae393c7e8fe8fce9d218875e8227b0187c04e7d2ea1fc",
        (
            "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a",
            "af2d7e9ac9ae7e270f46ba1f975be53c09f8d875bdc8535458c2494e8a6eab251c03d0c22a56b8ca42c2063b84",
        ),
    ),
    CHACHA20_POLY1305: (
        "8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb",
        "1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a",
        "0bbe78490412b4bbea4812666f7916932b828bba79942424abb65244930d69a7",
        (
            "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28",
            "6b53c051e4199c518de79594e1c4ab18b96f081549d45ce015be002090bb119e85285337cc95ba5f59992dc98c",
        ),
    ),
}
"""The recipient's key, what the sender encapsulates, the secret of both, and the messages of one context."""


class HPKETest(SynchronousTestCase):
    def test_vectors(self) -> None:
        """A changed message does not count: the next one is opened all the same."""
        for aead, (key, encapsulated, secret, messages) in _VECTORS.items():
            private = X25519PrivateKey.from_private_bytes(bytes.fromhex(key))
            shared = shared_secret(private, bytes.fromhex(encapsulated))
            self.assertEqual(shared.hex(), secret)
            context = Context(shared, _INFO, aead)
            for number, sealed in enumerate(map(bytes.fromhex, messages)):
                self.assertEqual(context.open(sealed, b"Count-%d" % number), _TEXT)
        key, encapsulated, _, (first, _) = _VECTORS[AES_128_GCM]
        private = X25519PrivateKey.from_private_bytes(bytes.fromhex(key))
        context = Context(shared_secret(private, bytes.fromhex(encapsulated)), _INFO, AES_128_GCM)
        for wrong, associated in ((first[2:], b"Count-0"), (first, b"Count-1"), ("", b"")):
            with self.assertRaises(MalformedError):
                context.open(bytes.fromhex(wrong), associated)
        self.assertEqual(context.open(bytes.fromhex(first), b"Count-0"), _TEXT)
        for nonsense in (b"", bytes(31), bytes(32), bytes(33)):
            self.assertRaises(MalformedError, shared_secret, private, nonsense)

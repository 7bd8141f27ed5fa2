import ssl
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa, x25519
from twisted.trial.unittest import SynchronousTestCase

from tests.support.kit import authority, make_authority, make_folder
from tests.support.privileges import as_nobody
from txmux.files import other_path
from txmux.net.tls.errors import TLSFileError
from txmux.net.tls.pem import read_identity, read_key_pairs, read_revocations, validity_of

_WANTED = "name a PEM file with a certificate and its key"


class KeyPairTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.own = authority().issue("a.example")
        self.other = authority().issue("b.example")

    def file(self, name: str, *contents: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(b"\n".join(contents))
        return path

    def read(self, *paths: Path) -> list[tuple[str, list[str], list[str]]]:
        found = []
        for pair in read_key_pairs("terminate_tls", paths):
            self.assertEqual(
                pair.certificate.to_cryptography().public_key(),
                pair.key.to_cryptography_key().public_key(),  # type: ignore[union-attr]
            )
            chain = [one.to_cryptography() for one in (pair.certificate, *pair.chain)]
            names = [str(name.value) for certificate in chain for name in certificate.subject]
            found.append((pair.path.name, names[:1], names[1:]))
        return found

    def test_one_file(self) -> None:
        path = self.file("all.pem", self.own.key_pem(), authority().pem, self.own.pem)
        self.assertEqual(self.read(path), [("all.pem", ["a.example"], ["Test Authority"])])
        both = (self.own.pem, self.own.key_pem(), self.other.pem, self.other.key_pem())
        self.assertEqual(
            self.read(self.file("all.pem", *both)),
            [("all.pem", ["a.example"], []), ("all.pem", ["b.example"], [])],
        )

    def test_two_files(self) -> None:
        chain = self.file("chain.pem", self.own.pem, authority().pem)
        key = self.file("key.pem", self.own.key_pem())
        other = self.file("other.pem", self.other.pem, self.other.key_pem())
        expected = [("chain.pem", ["a.example"], ["Test Authority"])]
        expected.append(("other.pem", ["b.example"], []))
        self.assertEqual(self.read(chain, other, key), expected)
        self.assertEqual(self.read(key, chain, other), expected)

    def test_refused(self) -> None:
        own, key = self.own.pem, self.own.key_pem()
        stranger = authority().issue("c.example").key_pem()
        good = self.file("good.pem", self.other.pem, self.other.key_pem())
        named = authority().issue("b.example")
        der = named.certificate.public_bytes(serialization.Encoding.DER)
        der = der.replace(b"\x0c\x09b.example", b"\3\x09\0.example")
        odd = ssl.DER_cert_to_PEM_cert(der).encode()
        for message, *contents in (
            (f"a certificate is damaged; {_WANTED}", odd, named.key_pem()),
            (f"no private key for its certificate; {_WANTED}", own),
            (f"no certificate for its private key; {_WANTED}", key),
            (f"the private key does not belong to the certificate; {_WANTED}", own, stranger),
            (f"the private key does not belong to the certificate; {_WANTED}", own, key, stranger),
            (f"no certificate in it; {_WANTED}", b"-----BEGIN nothing"),
            (f"the private key is damaged; {_WANTED}", own, key.replace(b"MIG", b"MIX", 1)),
            ("the private key is encrypted; write it without a passphrase", own, self.own.key_pem(b"secret")),
            (f"a certificate is damaged; {_WANTED}", own.replace(b"MII", b"MIX", 1), key),
        ):  # fmt: skip
            bad = self.file("bad.pem", *contents)
            for paths in ((bad,), (good, bad)):
                error = self.assertRaises(TLSFileError, read_key_pairs, "terminate_tls", paths)
                self.assertEqual(str(error), f"'{bad}': {message}")
                self.assertEqual((error.key, error.forbidden), ("terminate_tls", False))
        missing = self.folder / "none.pem"
        error = self.assertRaises(TLSFileError, read_key_pairs, "terminate_tls", [missing])
        what = f"correct the path, or put the file into '{self.folder}'"
        self.assertEqual(str(error), f"cannot read '{missing}': No such file or directory; {what}")
        self.assertEqual((error.key, error.forbidden), ("terminate_tls", False))

    def test_keys_that_tls_cannot_sign_with(self) -> None:
        """They are refused when they are read, and not only by each handshake."""
        for is_refused, key in (
            (True, dsa.generate_private_key(2048)), (True, x25519.X25519PrivateKey.generate()),
            (True, ec.generate_private_key(ec.SECP256K1())), (True, ec.generate_private_key(ec.SECP224R1())),
            (False, ed25519.Ed25519PrivateKey.generate()), (False, ec.generate_private_key(ec.SECP521R1())),
        ):  # fmt: skip
            made = authority().issue("a.example", key=key)
            path = self.file("k.pem", made.pem, made.key_pem())
            for read in (read_key_pairs, lambda key, paths: read_identity(paths, key)):
                if is_refused:
                    error = self.assertRaises(TLSFileError, read, "terminate_tls", [path])
                    expected = "the private key is of a kind with which TLS cannot sign here"
                    self.assertIn(f"'{path}': {expected}; get a certificate for", str(error))
                else:
                    self.assertTrue(read("terminate_tls", [path]))

    def test_weak_chain(self) -> None:
        """OpenSSL sends none of which a certificate's key is too short, so each client would fail."""
        weak = authority().issue("b.example", key=rsa.generate_private_key(65537, 1024))
        path = self.file("k.pem", self.own.pem, weak.pem, self.own.key_pem())
        error = self.assertRaises(TLSFileError, read_key_pairs, "terminate_tls", [path])
        why = "OpenSSL rejects the certificate: ca key too small; get one with a stronger key or signature"
        self.assertEqual(str(error), f"'{path}': {why}")

    def test_files_of_one_identity(self) -> None:
        own, key = self.file("own.pem", self.own.pem), self.file("key.pem", self.own.key_pem())
        other = self.file("other.pem", self.other.key_pem())
        self.assertEqual(read_identity([key, own]).path, own)
        for paths, what in (
            ((key,), "'key.pem': no certificate in it"), ((own,), "'own.pem': no private key in it"),
            ((own, other), "'own.pem' and 'other.pem': the private key does not belong to the certificate"),
        ):  # fmt: skip
            error = self.assertRaises(TLSFileError, read_identity, paths)
            self.assertEqual(str(error).replace(f"{self.folder}/", ""), f"{what}; {_WANTED}")

    def test_long_names(self) -> None:
        """What tells of an authority stays one line, whatever that is called."""
        for size in (60, 61):
            issued = authority().issue("a", units=["u" * 60] * 3 + ["u" * (size - 10)])
            name = issued.certificate.subject.rfc4514_string()
            self.assertEqual(len(name), 250 + size - 60)
            (found,) = validity_of("tls_ca", Path("a.pem"), [issued.certificate])
            self.assertEqual(found.name, name if size == 60 else f"{name[:250]}…")

    def test_forbidden(self) -> None:
        path = self.file("key.pem")
        path.chmod(0)
        read = partial(read_key_pairs, "terminate_tls", [path])
        error = as_nobody(lambda: self.assertRaises(TLSFileError, read))
        self.assertTrue(error.forbidden)
        why = f"cannot read '{path}': Permission denied; let the user that txmux runs as read it"
        self.assertEqual(str(error), why)

    def test_revocations(self) -> None:
        path = make_folder(self) / "crl.pem"
        own, other = authority().revoke(), make_authority("Other").revoke()
        path.write_bytes(own + other)
        issuers = [one.issuer.rfc4514_string() for one in read_revocations(path)]
        self.assertEqual(issuers, ["CN=Test Authority", "CN=Other"])
        expected = "name a PEM file with certificate revocation lists"
        for data, reported in (
            (b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
             f"'{path}': a list is damaged; {expected}"),
            (authority().pem, f"'{path}' has no list in it; {expected}"),
        ):  # fmt: skip
            path.write_bytes(data)
            self.assertEqual(str(self.assertRaises(TLSFileError, read_revocations, path)), reported)
        path.unlink()
        error = self.assertRaises(TLSFileError, read_revocations, path)
        why = f"cannot read '{path}': No such file or directory; {other_path(path)}"
        self.assertEqual((error.key, str(error)), ("tls_client_crl", why))

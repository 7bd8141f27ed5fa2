"""Files for TLS to servers, and what is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.backends.connect.tls_case import TLSCase, authority
from txmux.backends.connect.tls import BackendTLS
from txmux.net.tls.errors import TLSFileError
from txmux.rules.model import ServerTLS

if TYPE_CHECKING:
    from pathlib import Path


class FileTests(TLSCase):
    """What is wrong with a file is told when it is read."""

    def assert_refused(self, key: str, message: str, **settings: Any) -> None:
        error = self.assertRaises(TLSFileError, BackendTLS, ServerTLS(**settings))
        self.assertEqual((error.key, str(error).replace(f"{self.folder}/", "")), (key, message))

    def file(self, name: str, *contents: bytes) -> Path:
        """Write a file."""
        path = self.folder / name
        path.write_bytes(b"\n".join(contents))
        return path

    def test_authorities(self) -> None:
        """A file of authorities has to be there, and to have certificates that can be read."""
        wanted = "name a PEM file with certificates"
        self.assert_refused(
            "tls_ca",
            f"cannot read 'none.pem': No such file or directory; {wanted}",
            ca=self.folder / "none.pem",
        )
        self.assert_refused(
            "tls_ca",
            f"'empty.pem' has no certificate in it; {wanted}",
            ca=self.file("empty.pem", b"hello"),
        )
        damaged = authority().pem.replace(b"MII", b"MIX", 1)
        self.assert_refused(
            "tls_ca",
            f"'bad.pem': a certificate is damaged; {wanted}",
            ca=self.file("bad.pem", damaged),
        )

    def test_identity(self) -> None:
        """So have a client's certificate and its key, which have to belong together."""
        own, other = authority().issue("x.example"), authority().issue("x.example")
        wanted = "name a PEM file with a certificate and its key"
        damaged = own.key_pem().replace(b"MIG", b"MIX", 1)
        for contents, message in (
            ((own.pem,), f"no private key in it; {wanted}"),
            ((own.key_pem(),), f"no certificate in it; {wanted}"),
            ((own.pem, damaged), f"the private key is damaged; {wanted}"),
            (
                (own.pem, own.key_pem(b"secret")),
                "the private key is encrypted; write it without a passphrase",
            ),
            (
                (own.pem, other.key_pem()),
                f"the private key does not belong to the certificate; {wanted}",
            ),
        ):
            path = self.file("client.pem", *contents)
            self.assert_refused(
                "tls_client_certificate", f"'client.pem': {message}", certificate=(path,)
            )

    def test_two_files(self) -> None:
        """Certificate and key may stand in files of their own, with more certificates in any order."""
        own = authority().issue("x.example")
        chain = self.file("chain.pem", authority().pem, own.pem)
        key = self.file("key.pem", own.key_pem())
        BackendTLS(ServerTLS(certificate=(chain, key)))
        self.assert_refused(
            "tls_client_certificate",
            "'chain.pem' and 'ca.pem': no private key in it; name a PEM file with a certificate and its key",
            certificate=(chain, self.ca),
        )

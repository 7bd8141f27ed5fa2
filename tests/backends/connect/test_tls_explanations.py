"""What is said of failed handshakes with servers."""

from __future__ import annotations

from OpenSSL import SSL, crypto

from tests.backends.connect.tls_case import TLSCase, authority


class ExplanationTests(TLSCase):
    """What servers of these tests cannot be brought to do."""

    def explained(self, *problems: tuple[str, str, str]) -> str:
        """Explain an error of OpenSSL's."""
        tls = self.tls()
        connection = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
        return tls._explain(
            "a.example", SSL.Error(*([[*problems]] if problems else ())), connection
        )

    def test_weak_certificate(self) -> None:
        """What OpenSSL says of a certificate is told in its own words if there are no better ones."""
        mallory = authority().issue("mallory")
        signed_by_no_authority = mallory.issue("a.example")
        chain = [
            crypto.X509.from_cryptography(identity.certificate)
            for identity in (signed_by_no_authority, mallory)
        ]
        self.assertEqual(
            self.tls()._distrust(chain),
            "the certificate of 'CN=mallory' is not accepted: invalid CA certificate",
        )

    def test_others(self) -> None:
        """Whatever else OpenSSL says is passed on."""
        self.assertEqual(self.explained(("a", "b", "c d")), "the TLS handshake failed: c d")
        self.assertEqual(self.explained(), "the TLS handshake failed: ")

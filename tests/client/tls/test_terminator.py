"""Why handshakes failed, where clients of tests cannot be brought to do so."""

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from tests.support.certificates import authority
from txmux.client.tls.terminator import cause_of


class CauseTests(SynchronousTestCase):
    def test_others(self) -> None:
        self.assertEqual(cause_of(SSL.Error([("a", "b", "c d")])), "the TLS handshake failed: c d")
        self.assertEqual(cause_of(SSL.Error([])), "the TLS handshake failed: []")
        self.assertEqual(
            cause_of(SSL.Error([("", "", "record layer failure")])),
            "the TLS handshake failed: record layer failure",
        )

    def test_plain(self) -> None:
        for reason in ("http request", "wrong version number"):
            self.assertEqual(
                cause_of(SSL.Error([("a", "b", reason)])), "what the client sent is not TLS"
            )

    def test_certificate(self) -> None:
        problem = SSL.Error([("a", "b", "certificate verify failed")])
        self.assertEqual(
            cause_of(problem, (34, authority().certificate)),
            "the certificate of 'CN=Test Authority' is not accepted (X509_V_ERR 34 of OpenSSL)",
        )
        self.assertEqual(cause_of(problem), "the TLS handshake failed: certificate verify failed")

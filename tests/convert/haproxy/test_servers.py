from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import looks, rules_of
from tests.convert.haproxy.pieces import backend

_VERIFIED = "ssl verify required ca-file /ca-bundle.crt"


class SpokenToTests(SynchronousTestCase):
    def test_tls_keys(self) -> None:
        for server, keys in (
            (f"{_VERIFIED} verifyhost a.example",
             "tls_name = a.example\ntls_ca = /ca-bundle.crt\n"),
            (f"{_VERIFIED} sni str(a.example)", "tls_name = a.example\n"),
            (f"{_VERIFIED} verifyhost a crt /own.pem alpn h2",
             "tls_client_certificate = /own.pem\nalpn = h2\n"),
            ("ssl verify required ca-file @system-ca verifyhost a", "tls = yes\ntls_name = a\n"),
        ):  # fmt: skip
            output = backend(server=f"server s 127.0.0.1:1 {server}")
            self.assertIn(keys, output.text)
            self.assertEqual(output.warnings, ())
        output = backend(server=f"server s a.example:1 {_VERIFIED} check")
        self.assertEqual((output.warnings, rules_of(output).backends["x"].tls is None), ((), False))

    def test_weaker_tls_is_a_look(self) -> None:
        for server, why in (
            ("127.0.0.1:1 ssl verify none", "txmux always verifies"),
            (f"127.0.0.1:1 {_VERIFIED}", "HAProxy verifies no name"),
            ("a.example:1 ssl ca-file /ca.pem", "without subjectAltName"),
            (f"a.example:1 {_VERIFIED} sni ssl_fc_sni", "does not depend on the client"),
            (f"a.example:1 {_VERIFIED} sni str(b) verifyhost c", "these are b and c"),
        ):
            output = backend(server=f"server s {server}")
            self.assertIn(why, looks(output)[0])
            self.assertIn("\ntls = yes\n", output.text)

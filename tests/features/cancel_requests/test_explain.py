"""What `txmux explain` says of cancel requests."""

from tests.cli.support import ExplainTestCase


class CancelRequestTests(ExplainTestCase):
    text = (
        "[listen a]\nendpoint = :1\ndefault = reject\n"
        "[route shop]\nmatch = postgres sni=shop.test\nbackend = 10.0.0.1:5432\n"
        "[route inside]\nmatch = postgres sni=inside.test\nterminate_tls = x.pem\n"
        "[route wiki]\nunder = inside\nmatch = postgres user=*\nbackend = 10.0.0.2:5432\n"
        "[route any]\nmatch = postgres sni=*.x.test\nbackend = b\n"
        "[backend b]\nserver = {sni}:5432\nallow_names = *.x.test\n"
        "[route near]\nmatch = postgres database=x\nfrom = 10.0.0.0/8\nbackend = 10.0.0.3:5432\n"
    )

    def test_goes_to_each_server_that_may_have_the_query(self) -> None:
        (self.folder / "x.pem").touch()
        request = r"\x00\x00\x00\x10\x04\xd2\x16\x2e12345678"
        told = self.explain("--text", request, "--from", "192.0.2.1")
        self.assertIn("at byte 8: cancel, to 10.0.0.1:5432, 10.0.0.2:5432\n", told)
        told = self.explain(
            "--text", r"\x00\x00\x00\x08\x04\xd2\x16\x30" + request, "--from", "10.9.9.9"
        )
        self.assertIn("10.0.0.2:5432, 10.0.0.3:5432\n", told)

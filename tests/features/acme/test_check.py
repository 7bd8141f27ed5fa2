from tests.cli.support import CommandTestCase
from tests.features.acme.test_folder import damages
from tests.support.certificates import make_authority
from txmux.cli import check
from txmux.rules.lint.privileges import Privileges


class CheckTests(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(check, "own_privileges", lambda: Privileges(1000))
        self.good = self.folder / "good.ini"
        self.good.write_text(
            "[txmux]\nacme = https://a.example/dir\nacme_folder = acme\n[listen a]\nendpoint = 127.0.0.1:1\n"
            "[route site]\nmatch = tls sni=a.example\nterminate_tls = acme\nbackend = close\n"
        )

    def test_damaged_certificate_of_acme(self) -> None:
        """A start replaces the file, so this is a warning, with what is wrong."""
        file = self.good.parent / "acme/a.example.pem"
        file.parent.mkdir(mode=0o700)
        good = make_authority().issue("a.example").write(file, key=True).read_bytes()
        self.assertNotIn("certificate", self.run_main("check", self.good)[1])
        for damaged in damages(good):
            file.write_bytes(damaged)
            status, output, _ = self.run_main("check", self.good)
            self.assertEqual(status, 0)
            self.assertIn(f":8: warning: [route site] terminate_tls: '{file}': ", output)
            self.assertIn("; clients see a certificate that txmux signs itself, until", output)

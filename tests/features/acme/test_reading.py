"""The keys ``acme`` and its like, and ``terminate_tls = acme``."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txmux.rules.model import Settings, TlsSettings
from txmux.rules.problems import RulesError
from txmux.rules.reading.parser import parse

LISTEN = "[listen public]\nendpoint = :443\n"


def read(lines: str) -> Settings:
    return parse(f"[txmux]\n{lines}\n[listen a]\nendpoint = :1\n", "/etc/txmux/rules.ini").settings


class AcmeTest(SynchronousTestCase):
    def test_authorities(self) -> None:
        self.assertIsNone(read("acme = off").more["acme"])
        staging = read("acme = letsencrypt-staging\nacme_terms = yes").more["acme"]
        self.assertEqual(staging, "https://acme-staging-v02.api.letsencrypt.org/directory")
        self.assertEqual(
            read("acme = https://ca.example:14000/dir").more["acme"], "https://ca.example:14000/dir"
        )

    def test_wrong(self) -> None:
        for lines, why in (
            ("acme_terms = yes\nacme = letsencript", "did you mean 'letsencrypt'?"),
            ("acme_terms = yes\nacme = http://ca.example/dir", "which begins with https://"),
            ("acme = https://", "is not an ACME directory"),
            (
                "acme = letsencrypt",
                "terms of service: https://letsencrypt.org/repository/; read them, and add 'acme_terms = yes'",
            ),
            ("acme_terms = yes", "does nothing without 'acme'"),
            ("acme_email = a@b.example", "does nothing without 'acme'"),
            ("acme = off\nacme_email = nobody", "is not an address"),
            ("acme = off\nacme_email = mailto:a@b.example", "is not an address"),
        ):
            self.assertIn(why, str(self.assertRaises(RulesError, read, lines)), lines)


class NamesTests(SynchronousTestCase):
    def read(
        self, match: str, value: str = "acme", settings: str = "acme_folder = certs\n"
    ) -> TlsSettings:
        authority = "acme = https://ca.example/dir\n"
        text = f"[txmux]\n{authority}{settings}{LISTEN}[route a]\nmatch = {match}\nterminate_tls = {value}\nbackend = close\n"
        found = parse(text, "/etc/rules.ini").routes[0].terminate_tls
        assert found is not None
        return found

    def refused(self, match: str, value: str = "acme") -> str:
        return str(self.assertRaises(RulesError, self.read, match, value))

    def test_names(self) -> None:
        """They are those of the match lines, or those that are written; each once, and in its own file."""
        found = self.read("tls sni=www.Example.com,example.com.\n  tls sni=example.com alpn=h2")
        self.assertEqual(found.managed, ("www.example.com", "example.com"))
        files = [Path("/etc/certs") / f"{name}.pem" for name in found.managed]
        self.assertEqual([*found.files], files)
        for value in ("acme a.example, b.example", "acme a.example\n  b.example"):
            self.assertEqual(self.read("tls", value).managed, ("a.example", "b.example"))
        self.assertEqual(self.read("tls sni=*.example", "acme a.example").managed, ("a.example",))

    def test_patterns(self) -> None:
        for pattern in ("*.example.com", ".example.com", "www?.example.com", "~www[0-9]"):
            told = f"{pattern!r} is a pattern: no authority checks a pattern by TLS-ALPN-01: name its names"
            self.assertIn(told, self.refused(f"tls sni=a.example,{pattern}"))
            self.assertIn(told, self.refused("tls", f"acme a.example, {pattern}"))

    def test_no_names(self) -> None:
        self.assertIn("takes its names of 'sni=' in 'match', which has none", self.refused("tls"))
        for name in ("192.0.2.1", "none/../x", "a..b", "-a.example", "x" * 254):
            self.assertIn("is not the name of a host", self.refused("tls", f"acme {name}"))
        self.assertIn("[route a] match: a quote is not closed", self.refused("tls sni='"))

    def test_no_authority(self) -> None:
        text = (
            f"{LISTEN}[route a]\nmatch = tls sni=a.example\nterminate_tls = acme\nbackend = close\n"
        )
        error = self.assertRaises(RulesError, parse, text, "x.ini")
        self.assertEqual(
            str(error),
            "x.ini:5: [route a] terminate_tls: needs 'acme' in [txmux]; add for example 'acme = letsencrypt' in [txmux] with 'acme_terms = yes' if you agree to its terms",
        )

"""The keys ``acme`` and its like, and ``terminate_tls = acme``."""

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txmux.features.acme.reading import accounts, asked_for
from txmux.rules.model import Rules, Settings, TlsSettings
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


class RouteTests(SynchronousTestCase):
    """Routes with an authority of their own."""

    def read(self, settings: str, *routes: str) -> Rules:
        sections = (
            f"[route r{number}]\nmatch = tls\n{lines}\nbackend = close\n"
            for number, lines in enumerate(routes)
        )
        return parse(f"[txmux]\n{settings}\n{LISTEN}{''.join(sections)}", "/etc/rules.ini")

    def test_own(self) -> None:
        """What [txmux] says of its authority is not for another one; what one route says of it is for all with the same."""
        zerossl = "terminate_tls = acme c.example\nacme = zerossl"
        rules = self.read(
            "acme = https://a.example/\nacme_ca = a.pem\nacme_profile = short\nacme_email = o@a.example\nacme_terms = yes",
            "terminate_tls = acme a.example",
            "terminate_tls = acme b.example\nacme = https://a.example/\nacme_profile = long",
            f"{zerossl}\nacme_eab = z.eab",
            zerossl.replace("c.", "d."),
        )
        asked = asked_for(rules.settings, rules.routes)
        orders = [(its.authority, its.profile, its.ca) for its in asked.values()]
        ca = Path("/etc/a.pem")
        self.assertEqual(
            orders,
            [("https://a.example/", "short", ca), ("https://a.example/", "long", ca)]
            + [("zerossl", "", None)] * 2,
        )
        of_all = accounts(asked.values())
        self.assertEqual(
            [(its.ca, its.eab, its.email) for its in of_all.values()],
            [(ca, None, "o@a.example"), (None, Path("/etc/z.eab"), "o@a.example")],
        )

    def test_wrong(self) -> None:
        """Each error is at its line, with what to do."""
        own = "acme = https://a.example/"
        names, other = "terminate_tls = acme a.example", "acme = https://b.example/"
        address = "terminate_tls = acme 10.0.0.1"
        for settings, routes, where, why in (
            (own, ("acme = zerossl",), "7: [route r0] acme", "does nothing without 'terminate_tls = acme'"),
            (own, ("terminate_tls = x.pem\nacme_profile = a",), "8: [route r0] acme_profile", "does nothing without"),
            (own, (names, f"{names}\n{other}"), "11: [route r1] terminate_tls", "[route r0] asks for a.example by another 'acme'"),
            ("", (f"{names}\nacme = zerossl\nacme_eab = x",), "8: [route r0] acme", "ZeroSSL has terms of service: https://zerossl.com/terms/; read them, and add 'acme_terms = yes'"),
            ("acme_terms = yes", (f"{names}\nacme = google",), "8: [route r0] acme", "Google Trust Services gives certificates only to customers; write the key ID"),
            (f"{own}\nacme_eab = x", (f"{names}\nacme_eab = y",), "9: [route r0] acme_eab", "another section has '/etc/x'"),
            ("", (f"{names}\nacme = off",), "8: [route r0] acme", "is not an ACME directory"),
            ("", (f"{names}\n{own}\nacme_profile = a b",), "9: [route r0] acme_profile", "is not the name of a profile"),
            ("acme = letsencrypt\nacme_terms = yes", (address,), "8: [route r0] terminate_tls", "10.0.0.1 is no public address, so letsencrypt cannot connect to it; name an authority of your own as 'acme', or PEM files"),
            ("acme = letsencrypt\nacme_terms = yes", ("terminate_tls = acme 1.1.1.1",), "8: [route r0] terminate_tls", "add 'acme_profile = shortlived'"),
        ):  # fmt: skip
            error = self.assertRaises(RulesError, self.read, settings, *routes)
            self.assertRegex(
                str(error), rf"(?m)^/etc/rules.ini:{re.escape(where)}: .*{re.escape(why)}"
            )
        self.read(own, address)
        self.read(
            "acme = letsencrypt\nacme_terms = yes\nacme_profile = shortlived",
            "terminate_tls = acme 1.1.1.1",
        )


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

    def test_addresses(self) -> None:
        """Each has one form; none can be asked for by SNI."""
        found = self.read("tls", "acme 192.0.2.1, 2001:DB8:0::1")
        self.assertEqual(found.managed, ("192.0.2.1", "2001:db8::1"))
        self.assertEqual(found.files[1], Path("/etc/certs/2001:db8::1.pem"))
        (line,) = self.refused("tls sni=192.0.2.1").splitlines()
        self.assertIn("write 'match = tls' and 'terminate_tls = acme 192.0.2.1'", line)
        both = "acme a.example, 192.0.2.1"
        for match in ("tls sni=a.example", "tls sni=a.example\n  tls sni=b.example alpn=h2"):
            self.assertIn(
                "none of this route's sees the certificate of 192.0.2.1; write it in another route",
                self.refused(match, both),
            )
        for match in ("tls", "tls sni=a.example\n  tls", "not tls sni=b.example"):
            self.assertEqual(self.read(match, both).managed, ("a.example", "192.0.2.1"))

    def test_patterns(self) -> None:
        for pattern in ("*.example.com", ".example.com", "www?.example.com", "~www[0-9]"):
            told = f"{pattern!r} is a pattern: no authority checks a pattern by TLS-ALPN-01: name its names"
            self.assertIn(told, self.refused(f"tls sni=a.example,{pattern}"))
            self.assertIn(told, self.refused("tls", f"acme a.example, {pattern}"))

    def test_no_names(self) -> None:
        self.assertIn("takes its names of 'sni=' in 'match', which has none", self.refused("tls"))
        for name in ("192.0.2.256", "fe80::1%a", "none/../x", "a..b", "-a.example", "x" * 254):
            why = self.refused("tls", f"acme {name}")
            self.assertIn("is neither the name of a host nor an address", why)
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

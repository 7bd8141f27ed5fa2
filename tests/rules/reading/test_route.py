"""Tests of the section ``[route NAME]``: times, TLS that ends here, and routes under each other."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.trial.unittest import SynchronousTestCase

from tests.rules.fakes import MATCHERS
from tests.rules.reading.cases import ReadingTestCase
from txmux.rules.lint.scopes import scopes
from txmux.rules.model import Period, Refusal, Rules, TlsEnd
from txmux.rules.problems import RulesError
from txmux.rules.reading.files import check_file
from txmux.rules.reading.parser import load, parse

LISTEN = "[listen public]\nendpoint = :443\n"
TLS = "match = tls\nterminate_tls = a.pem\n"
PLAIN = "match = any\nbackend = close\n"


def read(text: str) -> Rules:
    return parse(LISTEN + text, "etc/rules.ini", MATCHERS)


def complaints(text: str) -> list[str]:
    """Give what is said of them; what is given begins with line 3."""
    error = RulesError([])
    try:
        read(text)
    except RulesError as found:
        error = found
    return [f"{p.line} [{p.section}] {p.key}: {p.message}" for p in error.problems]


class DuringTests(ReadingTestCase):
    def test_during(self) -> None:
        (route,) = self.read(
            f"{self.listen}[route r]\nmatch = any\nbackend = close\nduring = mon,tue 08:00-12:00\n  22:00-06:00\n"
        ).routes
        self.assertEqual(
            route.during, (Period(frozenset({0, 1}), 480, 720), Period(start=1320, end=360))
        )


class KeyTests(SynchronousTestCase):
    def test_clients_need_authorities(self) -> None:
        (route,) = read(
            "[route a]\nmatch = tls\nterminate_tls = a.pem\ntls_client_ca = ca.pem\n"
            "tls_client_crl = crl.pem\nallow_client = cn=a ou=b\n  san=c\n"
        ).routes
        assert route.terminate_tls is not None
        self.assertEqual(route.terminate_tls.client_crl, Path("etc/crl.pem"))
        self.assertEqual(
            [one.text for one in route.terminate_tls.allow_client], ["cn=a ou=b", "san=c"]
        )
        told = "does nothing without 'tls_client_ca', since clients are not asked for a certificate; add that, or remove this"
        self.assertEqual(
            complaints(f"[route a]\n{TLS}tls_client_crl = crl.pem\nallow_client = cn=a\n"),
            [f"6 [route a] tls_client_crl: {told}", f"7 [route a] allow_client: {told}"],
        )

    def test_all_keys(self) -> None:
        (route,) = read(
            "[route a]\nmatch = tls\nterminate_tls = a.pem, /b.pem\n  sub/c.pem\nalpn = h2, http/1.1\n"
            "tls_client_ca = ca.pem\ntls_minimum = 1.3\n"
        ).routes
        files = (Path("etc/a.pem"), Path("/b.pem"), Path("etc/sub/c.pem"))
        self.assertEqual(
            route.terminate_tls, TlsEnd(files, ("h2", "http/1.1"), Path("etc/ca.pem"), "1.3")
        )
        self.assertIsNone(route.outcome)

    def test_defaults(self) -> None:
        one, two, three = read(
            f"[route a]\n{TLS}[route b]\n{TLS}backend = reject\n[route c]\n{PLAIN}"
        ).routes
        self.assertEqual(one.terminate_tls, TlsEnd((Path("etc/a.pem"),)))
        self.assertEqual((one.outcome, two.outcome), (None, Refusal.REJECT))
        self.assertIsNone(three.terminate_tls)

    def test_useless_without_tls(self) -> None:
        self.assertEqual(
            complaints(f"[route a]\n{PLAIN}alpn = h2\ntls_client_ca = x\ntls_minimum = 1.2"),
            [
                f"{line} [route a] {key}: does nothing without 'terminate_tls'; add that, or remove this"
                for line, key in ((6, "alpn"), (7, "tls_client_ca"), (8, "tls_minimum"))
            ],
        )

    def test_bad_values(self) -> None:
        self.assertEqual(
            complaints(f"[route a]\n{TLS}alpn = h 2\ntls_minimum = 1"),
            [
                "6 [route a] alpn: 'h 2' is not a protocol of ALPN; write for example h2 or http/1.1",
                "7 [route a] tls_minimum: must be 1.2 or 1.3, not '1'",
            ],
        )

    def test_files_have_to_be_there_on_disk(self) -> None:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "rules.ini"
            (path.parent / "b.pem").touch()
            path.write_text(
                f"{LISTEN}[route a]\nmatch = tls\nterminate_tls = a.pem, b.pem, .\ntls_client_ca = b.pem/x\n"
                "[backend b]\nserver = a:1\ntls = yes\ntls_ca = a.pem\n"
            )
            error = self.assertRaises(RulesError, load, path, MATCHERS)
            advice = f"No such file or directory; correct the path, or put the file into '{folder}'"
            self.assertEqual(
                [f"{p.line} {p.key}: {p.message}" for p in error.problems],
                [
                    f"5 terminate_tls: cannot read '{folder}/a.pem': {advice}",
                    f"5 terminate_tls: '{folder}' is a folder; write the path of a PEM file",
                    (
                        f"6 tls_client_ca: cannot read '{folder}/b.pem/x': Not a directory; correct the path, "
                        f"or put the file into '{folder}/b.pem'"
                    ),
                    f"10 tls_ca: cannot read '{folder}/a.pem': {advice}",
                ],
            )
            self.assertEqual(len(parse(path.read_text(), path, MATCHERS).routes), 1)

    def test_forbidden_files_may_be_there(self) -> None:
        self.patch(Path, "stat", _forbidden)
        check_file(Path("/etc/x.pem"))


def _forbidden(*_: object, **__: object) -> None:
    raise PermissionError


class UnderTests(SynchronousTestCase):
    def test_scopes(self) -> None:
        rules = read(
            f"[route deep]\n{PLAIN}under = inner\n[route inner]\n{TLS}under = outer\n[route outer]\n{TLS}"
            f"[route both]\n{PLAIN}under = public, outer\n[route every]\n{PLAIN}"
            "[listen other]\nendpoint = :444\n"
        )
        found = {
            scope.owner.name: (
                [route.name for route in rules.routes_of(scope.owner)],
                [listener.name for listener in scope.listeners],
            )
            for scope in scopes(rules)
        }
        self.assertEqual(
            found,
            {
                "public": (["outer", "both", "every"], ["public"]),
                "other": (["outer", "every"], ["other"]),
                "outer": (["inner", "both"], ["public", "other"]),
                "inner": (["deep"], ["public", "other"]),
            },
        )

    def test_circles(self) -> None:
        self.assertEqual(
            complaints(
                f"[route a]\n{TLS}under = a, public\n[route b]\n{TLS}under = c\n[route c]\n{TLS}under = public, d\n"
                f"[route d]\n{TLS}under = b\n[route e]\n{TLS}under = c\n[route f]\n{PLAIN}under = e\n"
            ),
            [
                "6 [route a] under: is under itself; put it under a listener, or leave 'under' out",
                (
                    "10 [route b] under: is under itself: b -> c -> d -> b; "
                    "put it under a listener, or leave 'under' out"
                ),
            ],
        )

    def test_names(self) -> None:
        self.assertEqual(
            complaints(
                f"[route a]\n{PLAIN}under = b\n  outr\n  public\n[route b]\n{PLAIN}[route outer]\n{TLS}"
                f"[route public]\n{TLS}"
            ),
            [
                (
                    "6 [route a] under: [route b] ends no TLS, so nothing is inside of it; add 'terminate_tls' there, "
                    "or name a listener"
                ),
                "7 [route a] under: there is no [listen outr] and no [route outr]; did you mean 'outer'?",
                (
                    "8 [route a] under: 'public' is a listener, and a route that ends TLS, too; "
                    "give one of the two another name"
                ),
            ],
        )

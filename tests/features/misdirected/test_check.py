from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.certificates import authority
from tests.support.folders import make_folder
from txmux.features.misdirected import FEATURE
from txmux.rules.reading.parser import parse

_LISTEN = "[listen public]\nendpoint = :443\n"
_ENDS = "terminate_tls = {pem}\nalpn = h2, http/1.1\n"


def _route(name: str, match: str, *lines: str) -> str:
    return "".join(f"{line}\n" for line in (f"[route {name}]", f"match = {match}", *lines))


_A = _route("a", "tls sni=a.site.example", "backend = 127.0.0.1:1", _ENDS)
_UNDER_A = _route("under-a", "http host=a.site.example", "under = all", "backend = 127.0.0.1:1")
_UNDER_B = _route("under-b", "http host=b.site.example", "under = all", "backend = 127.0.0.1:2")
_ALL = _route("all", "tls sni=*.site.example", _ENDS)

FOUND = {
    _A + _route("b", "tls sni=b.site.example", "backend = 127.0.0.1:2"): (
        ("a", "'b.site.example', which belongs to [route b]"),
    ),
    _A + _route("b", "tls sni=b.site.example", "backend = 127.0.0.1:2", _ENDS): (
        ("a", "'b.site.example', which belongs to [route b]"),
        ("b", "'a.site.example', which belongs to [route a]"),
    ),
    _A + _route("b", "tls sni=*.site.example", "from = 10.0.0.0/8", "backend = close"): (
        ("a", "'*.site.example', which belongs to [route b]"),
    ),
    _ALL + _UNDER_A + _UNDER_B: (("all", "'b.site.example', which belongs to [route under-b]"),),
}
NOT_FOUND = (
    _A,
    _A + _route("b", "tls sni=b.site.example", "backend = 127.0.0.1:1", _ENDS),  # the same server
    _A + _route("b", "tls sni=b.other.example", "backend = 127.0.0.1:2"),  # not in the certificate
    _A + _route("b", "tls sni=b.c.site.example", "backend = 127.0.0.1:2"),
    _route("b", "ssh", "backend = 127.0.0.1:2") + _A,
    _A.replace("h2, ", "") + _route("b", "tls sni=b.site.example", "backend = 127.0.0.1:2"),
    _A + _route("b", "tls sni=b.site.example", "backend = 127.0.0.1:2", "dry_run = yes"),
    _A + _route("b", "not tls sni=b.site.example", "backend = 127.0.0.1:2"),
    _ALL + _UNDER_A,
    _ALL + _UNDER_A + _UNDER_B.replace("127.0.0.1:2", "127.0.0.1:1"),  # the same server
)


class CertificatesTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.wide = authority().issue("*.site.example").write(self.folder / "wide.pem", key=True)

    def found(self, text: str, pem: str = "") -> list[tuple[str, str]]:
        rules = parse((_LISTEN + text).replace("{pem}", pem or str(self.wide)), Path("x.ini"))
        problems = [one for find in FEATURE.finds["check"] for one in find(rules)]
        self.assertEqual([one for one in problems if one.severity != "warning"], [])
        return [(one.section.split()[1].strip("]"), one.message) for one in problems]

    def test_names_of_several_places(self) -> None:
        for text, wanted in FOUND.items():
            found = self.found(text)
            self.assertEqual([name for name, _ in found], [name for name, _ in wanted], text)
            for (_, message), (_, what) in zip(found, wanted, strict=True):
                self.assertIn(f"'{self.wide}' is also for {what}, so browsers ", message)
        for text in NOT_FOUND:
            self.assertEqual(self.found(text), [], text)

    def test_a_certificate_for_each(self) -> None:
        """Also where the wide one is for others, or no file can be read."""
        issued = {name: authority().issue(f"{name}.site.example") for name in "ab"}
        own = [str(its.write(self.folder / name, key=True)) for name, its in issued.items()]
        both = _A + _route("b", "tls sni=b.site.example", "backend = 127.0.0.1:2")
        for pem in (own[0], f"{self.wide}, {own[0]}", str(self.folder / "none.pem")):
            self.assertEqual(self.found(both, pem), [], pem)
        self.assertEqual(len(self.found(both, f"{self.wide}, {own[1]}")), 1)

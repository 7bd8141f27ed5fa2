import os
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.support.folders import make_folder
from txmux.features.acme.reading import accounts, asked_for
from txmux.rules.model import Rules, Settings, TlsSettings
from txmux.rules.named_files import forbidden
from txmux.rules.problems import RulesError
from txmux.rules.reading.parser import load, parse

LISTEN = "[listen public]\nendpoint = :443\n"


def read(lines: str) -> Settings:
    return parse(f"[txmux]\n{lines}\n[listen a]\nendpoint = :1\n", "/etc/txmux/rules.ini").settings


class RouteTests(SynchronousTestCase):
    def test_authorities(self) -> None:
        self.assertIsNone(read("acme = off").more["acme"])
        staging = read("acme = letsencrypt-staging\nacme_terms = yes").more["acme"]
        self.assertEqual(staging, "https://acme-staging-v02.api.letsencrypt.org/directory")
        url = "https://ca.example:14000/dir"
        self.assertEqual(read(f"acme = {url}").more["acme"], url)
        # What [txmux] says of its authority is not for another one; what one route says of it is for all with the same.
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
        own = [("https://a.example/", profile, ca) for profile in ("short", "long")]
        self.assertEqual(orders, own + [("zerossl", "", None)] * 2)
        of_all = accounts(asked.values())
        mail = "o@a.example"
        found = [(its.ca, its.eab, its.email) for its in of_all.values()]
        self.assertEqual(found, [(ca, None, mail), (None, Path("/etc/z.eab"), mail)])

    def read(self, settings: str, *routes: str) -> Rules:
        sections = (
            f"[route r{number}]\nmatch = tls\n{lines}\nbackend = close\n"
            for number, lines in enumerate(routes)
        )
        return parse(f"[txmux]\n{settings}\n{LISTEN}{''.join(sections)}", "/etc/rules.ini")

    def test_files_of_other_users(self) -> None:
        """They are for an account of that user alone; a URL with a blank is none, so no other account is called like it."""
        if os.geteuid():
            raise SkipTest("only root can write files of other users")
        folder = make_folder(self)
        (folder / "d").mkdir()
        (folder / "o.eab").touch()
        route = "[route {0}]\nmatch = tls\nterminate_tls = acme {0}.example\nbackend = close\n{1}".format
        main = f"[txmux]\ninclude = d/*.ini\nacme = https://ca.example/\nacme_eab = o.eab\n{LISTEN}routes_from = *\n"
        path = folder / "rules.ini"
        path.write_text(main + route("o", ""))
        for owner, name in enumerate("abc", start=12345):
            unit = folder / f"d/{name}.ini"
            unit.write_text(route(name, f"acme_ca = {name}.pem\n" * (name != "c")))
            os.chown(unit, owner, -1)
        rules = load(path)
        self.assertEqual(rules.files.untaken, {})
        asked = asked_for(rules.settings, rules.routes)
        of_all = accounts(asked.values())
        found = [(of_all[asked[f"{name}.example"].account], name) for name in "oabc"]
        eab = folder / "o.eab"
        files = [(None, eab), *((folder / f"{name}.pem", None) for name in "ab"), (None, eab)]
        self.assertEqual([(its.ca, its.eab) for its, _ in found], files)
        self.assertEqual(len(of_all), 3)
        with self.assertRaises(RulesError) as caught:
            read("acme = https://ca.example/ acme_ca='x'")
        self.assertIn("is not an ACME directory", str(caught.exception))
        # One route of the user with the authority is enough, also for a name of both.
        both = "terminate_tls = acme a.example\nacme = zerossl\nbackend = close\n"
        (folder / "d/b.ini").unlink()
        unit = folder / "d/a.ini"
        (folder / "z.eab").touch()
        more = "[route {0}]\nmatch = tls\n{1}acme_eab = z.eab\n[route {0}2]\nmatch = tls\n{1}"
        unit.write_text(more.format("a", both))
        path.write_text(main.replace("include", "acme_terms = yes\ninclude") + route("o", ""))
        rules = load(path)
        self.assertEqual(rules.files.untaken, {})
        of_all = accounts(asked_for(rules.settings, rules.routes).values())
        self.assertEqual([its.eab for its in of_all.values()], [eab, folder / "z.eab"])

    def test_account_whose_file_cannot_be_read(self) -> None:
        """It is named, so nothing is said of a missing 'acme_eab'."""
        path = make_folder(self) / "rules.ini"
        account = "acme = zerossl\nacme_terms = yes\n"
        route = "[route a]\nmatch = tls\nterminate_tls = acme a.example\nbackend = close\n"
        for eab, count in (("acme_eab = none.eab\n", 0), ("", 1)):
            for text in (
                f"[txmux]\n{account}{eab}{LISTEN}{route}",
                f"[txmux]\nacme_terms = yes\n{LISTEN}{route}acme = zerossl\n{eab}",
            ):
                path.write_text(text)
                said = str(self.assertRaises(RulesError, load, path))
                self.assertEqual(said.count("only to customers"), count, said)


class NamesTests(SynchronousTestCase):
    def read(self, match: str, value: str = "acme") -> TlsSettings:
        settings = "[txmux]\nacme = https://ca.example/dir\nacme_folder = certs\n"
        text = f"{settings}{LISTEN}[route a]\nmatch = {match}\nterminate_tls = {value}\nbackend = close\n"
        found = parse(text, "/etc/rules.ini").routes[0].terminate_tls
        assert found is not None
        return found

    def refused(self, match: str, value: str = "acme") -> str:
        return str(self.assertRaises(RulesError, self.read, match, value))

    def test_each_name_has_its_own_file(self) -> None:
        """They are those of the match lines, or those that are written; each once, and in its own file."""
        found = self.read("tls sni=www.Example.com,example.com.\n  tls sni=example.com alpn=h2")
        self.assertEqual(found.managed, ("www.example.com", "example.com"))
        files = [Path("/etc/certs") / f"{name}.pem" for name in found.managed]
        self.assertEqual([*found.files], files)
        for value in ("acme a.example, b.example", "acme a.example\n  b.example"):
            self.assertEqual(self.read("tls", value).managed, ("a.example", "b.example"))
        self.assertEqual(self.read("tls sni=*.example", "acme a.example").managed, ("a.example",))
        # What a long one is cut to is no other name.
        (file,) = self.read("tls", f"acme {'.'.join(['a' * 61] * 4)}").files
        self.assertRaises(RulesError, self.read, "tls", f"acme {file.stem}")
        # Each has one form; none can be asked for by SNI.
        found = self.read("tls", "acme 192.0.2.1, 2001:DB8:0::1")
        self.assertEqual(found.managed, ("192.0.2.1", "2001:db8::1"))
        self.assertEqual(found.files[1], Path("/etc/certs/2001:db8::1.pem"))
        (line,) = self.refused("tls sni=192.0.2.1").splitlines()
        self.assertIn("write 'match = tls' and 'terminate_tls = acme 192.0.2.1'", line)
        both = "acme a.example, 192.0.2.1"
        for match in ("tls sni=a.example", "tls sni=a.example\n  tls sni=b.example alpn=h2"):
            why = "none of this route's sees the certificate of 192.0.2.1; write it in another"
            self.assertIn(f"{why} route", self.refused(match, both))
        for match in ("tls", "tls sni=a.example\n  tls", "not tls sni=b.example"):
            self.assertEqual(self.read(match, both).managed, ("a.example", "192.0.2.1"))

    def test_names_of_other_owners(self) -> None:
        """The author of a unit who may not read their certificates cannot show them by their names either, nor take a name from who has it."""
        if os.geteuid():
            raise SkipTest("only root can write files of other users")
        folder = make_folder(self)
        path, unit, other = folder / "rules.ini", folder / "d/a.ini", folder / "d/z.ini"
        unit.parent.mkdir()
        route = "[route {0}]\nunder = {1}\nmatch = tls\nterminate_tls = acme {2}.example\nbackend = close\n".format
        main = f"[txmux]\ninclude = d/*.ini\nacme = https://ca.example/\nacme_terms = yes\n{LISTEN}"
        other.write_text("[listen lz]\nendpoint = :8\n" + route("z", "lz", "shop"))
        os.chown(other, 12346, -1)
        path.write_text(main + route("r", "public", "www"))
        before = load(path).files
        listen = "[listen a]\nendpoint = :9\n" + route("x", "a", "own")
        for name, holder in (("www", "r"), ("shop", "z")):
            for more in ("", "acme = https://else.example/\n"):
                unit.write_text(listen + route("y", "a", name) + more)
                for owner, is_wrong in ((0, bool(more)), (12345, True)):
                    os.chown(unit, owner, -1)
                    rules = load(path, in_force=before)
                    problems = {str(one) for its in rules.files.untaken.values() for one in its}
                    why = f"'{name}.example' is a name of [route {holder}], which has another owner; remove it"
                    if not owner:
                        why = f"[route {holder}] asks for {name}.example by another 'acme' or 'acme_profile'; write the same in both"
                    expected = {f"{unit}:11: [route y] terminate_tls: {why}"} if is_wrong else set()
                    self.assertEqual(problems, expected)
        # Those of the unit's own names are the service's, which alone reads them.
        other.unlink()
        (folder / "own.example.pem").touch(mode=0o600)
        path.write_text(
            path.read_text().replace("acme_terms", f"acme_folder = {folder}\nacme_terms")
        )
        unit.write_text(listen)
        os.chown(unit, 12345, -1)
        self.assertEqual([*forbidden(load(path))], [])
        unit.write_text(unit.read_text().replace("acme own.example", f"{folder}/own.example.pem"))
        (problem,) = map(str, forbidden(load(path)))
        self.assertIn(f"may not read '{folder}", problem)

"""Files that cannot be used, told with their lines."""

import os
import pwd
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.kit import authority, make_authority, make_folder
from tests.support.privileges import as_nobody
from txmux.client.tls.terminators import TlsTerminators
from txmux.errors import MuxError
from txmux.processes.usable import closed_files, too_many_sockets, unusable
from txmux.rules.model import NOWHERE, Rules
from txmux.rules.problems import Problem, RulesError
from txmux.rules.reading.parser import load, parse
from txmux.serving.listen_addresses import listen_addresses

_RULES = """\
[listen public]
endpoint = 127.0.0.1:0
[route good]
match = tls sni=a.example
terminate_tls = good.pem
[route bare]
match = tls sni=b.example
terminate_tls = good.pem,
    bare.pem
[route members]
match = tls
terminate_tls = good.pem
tls_client_ca = empty.pem
[route plain]
match = any
backend = close
"""
_CERTIFICATES = "name a PEM file with certificates"
_PAIR = "name a PEM file with a certificate and its key"


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)
        identity = authority().issue("a.example")
        identity.write(self.folder / "good.pem", key=True)
        authority().issue("b.example").write(self.folder / "bare.pem")
        (self.folder / "empty.pem").touch()
        self.rules = parse(_RULES, self.folder / "rules.ini")

    def reported(self, problems: Any) -> list[str]:
        return [str(problem).replace(f"{self.folder}/", "") for problem in problems]

    def found(self, rules: Rules | str) -> tuple[list[Problem], list[Problem]]:
        """Return errors and warnings."""
        if isinstance(rules, str):
            rules = parse(rules, self.folder / "rules.ini")
        problems = unusable(rules)
        wrong = [problem for problem in problems if not problem.warning]
        return wrong, [problem for problem in problems if problem.warning]

    def test_endpoints(self) -> None:
        wrong, _ = self.found(
            f"[listen a]\nendpoint = ssl:1:{self.folder}/good.pem\n"
            f"  ssl:2:privateKey={self.folder}/bare.pem\n"
            f"  ssl:3:privateKey={self.folder}/empty.pem:certKey={self.folder}/bare.pem\n"
        )
        self.assertEqual(
            self.reported(wrong),
            [
                f"rules.ini:3: [listen a] endpoint: 'bare.pem': no private key in it; {_PAIR}",
                f"rules.ini:4: [listen a] endpoint: 'bare.pem' and 'empty.pem': no private key in it; {_PAIR}",
            ],
        )

    def test_strings_for_twisted(self) -> None:
        """What Twisted reads by endpoint strings is read, of listeners and of servers wherever one is named."""
        (self.folder / "damaged.pem").write_text("x")
        (self.folder / "whole.pem").write_bytes((self.folder / "good.pem").read_bytes())
        chain = f"ssl:1:privateKey={self.folder}/whole.pem:extraCertChain={self.folder}/damaged.pem"
        server = f"ssl:a.example:443:certKey={self.folder}/damaged.pem"
        wrong, _ = self.found(
            f"[listen a]\nendpoint = {chain}\ndefault = {server}\n"
            f"[route a]\nmatch = ssh\nbackend = {server}\n"
            f"[route b]\nmatch = tls\nbackend = b\n[backend b]\nserver = 127.0.0.1:2\n  {server}\n"
        )
        told = [line.split(": ")[1:3] for line in self.reported(wrong)]
        self.assertEqual(
            [place[0].partition(":")[0] for place in told],
            [
                "[listen a] endpoint",
                "[backend b] server",
                "[route a] backend",
                "[listen a] default",
            ],
        )
        # What needs a capability that the user of the rules does not have is wrong on every machine.
        other = next(one.pw_name for one in pwd.getpwall() if one.pw_uid not in {0, os.geteuid()})
        text = f"[txmux]\nuser = {other}\n[listen a]\nendpoint = 127.0.0.1:1\ndefault = b\n[backend b]\nserver = 127.0.0.1:2\nsource = client\n"
        wrong, _ = self.found(text)
        self.assertIn("[backend b] source: client needs the capability", self.reported(wrong)[0])

    def test_certificates_that_end(self) -> None:
        for name, days in (("old", -1.5), ("soon", 3.5), ("late", 14.5), ("client", 0.5)):
            identity = authority().issue(f"{name}.example", ends=days)
            identity.write(self.folder / f"{name}.pem", key=name != "client")
            (self.folder / f"{name}.key").write_bytes(identity.key_pem())
        wrong, warned = self.found(
            f"[listen a]\nendpoint = 127.0.0.1:1\n  ssl:2:{self.folder}/late.pem\n"
            f"  ssl:3:privateKey={self.folder}/old.pem\n"
            "[route a]\nmatch = tls\nterminate_tls = soon.pem, late.pem,\n  old.pem\nbackend = web\n"
            "[backend web]\nserver = a.example:443\ntls = yes\n"
            "tls_client_certificate = client.key, client.pem\n"
        )
        self.assertEqual(wrong, [])
        now = datetime.now(UTC)
        old, soon, client = (f"{now + timedelta(days=days):%Y-%m-%d}" for days in (-1.5, 3.5, 0.5))
        self.assertEqual(
            [re.sub(r" [0-9:]{5} UTC$", "", line) for line in self.reported(warned)],
            [
                f"rules.ini:7: warning: [route a] terminate_tls: the certificate 'soon.pem' ends in 3 days, on {soon}",
                f"rules.ini:7: warning: [route a] terminate_tls: the certificate 'old.pem' ended on {old}",
                f"rules.ini:13: warning: [backend web] tls_client_certificate: the certificate 'client.pem' ends in 11 h 59 min, on {client}",
                f"rules.ini:4: warning: [listen a] endpoint: the certificate 'old.pem' ended on {old}",
            ],
        )

    def test_each_file_that_is_not_valid_yet_or_ends(self) -> None:
        """All that a file has counts: chains, authorities, revocation lists. A list of a short life, and the old ones of a bundle, are no trouble."""
        root, text = make_authority("root"), ""
        for begins, ends in ((3.5, 60), (-9, -1.5), (-9, 3.5)):
            between = root.authorise("between", ends, begins)
            parts = {
                "leaf.pem": (leaf := root.issue("a.example", begins=begins, ends=ends)).pem + leaf.key_pem(),
                "chain.pem": (leaf := between.issue("a.example")).pem + leaf.key_pem() + between.pem + root.pem,
                "ca.pem": root.pem + between.pem,
                "list.pem": between.revoke(begins=begins, ends=ends),
                "alone.pem": between.pem,
                "client.pem": leaf.pem + leaf.key_pem() + between.pem,
            }  # fmt: skip
            for name, content in parts.items():
                (self.folder / name).write_bytes(content)
            wrong, warned = self.found(
                f"[listen a]\nendpoint = ssl:3:privateKey={self.folder}/chain.pem\n"
                "[route a]\nmatch = tls\nterminate_tls = leaf.pem, chain.pem\ntls_client_ca = ca.pem\n"
                "tls_client_crl = list.pem\nbackend = web\n[backend web]\nserver = a.example:443\ntls = yes\n"
                "tls_ca = alone.pem\ntls_client_certificate = client.pem\n"
                "[route b]\nmatch = ssh\nbackend = old\n[backend old]\nserver = a.example:443\ntls = yes\ntls_ca = ca.pem\n"
            )
            self.assertEqual(wrong, [])
            text += "\n".join(re.sub(r", on .*| on .*", "", line) for line in self.reported(warned))
            text += "\n"
        told = ["becomes valid only in 3 days", "ended", "ends in 3 days"]
        chain = "the certificate of 'CN=between' in the chain of"
        lines = [
            "5: warning: [route a] terminate_tls: the certificate 'leaf.pem'",
            f"5: warning: [route a] terminate_tls: {chain} 'chain.pem'",
            "6: warning: [route a] tls_client_ca: the authority 'CN=between' in 'ca.pem'",
            "7: warning: [route a] tls_client_crl: the revocation list of 'CN=between' in 'list.pem'",
            f"13: warning: [backend web] tls_client_certificate: {chain} 'client.pem'",
            "12: warning: [backend web] tls_ca: the authority 'CN=between' in 'alone.pem'",
            f"2: warning: [listen a] endpoint: {chain} 'chain.pem'",
        ]
        expected = [f"{line} {when}" for when in told for line in lines]
        lists = "7: warning: [route a] tls_client_crl: the revocation list of"
        expected += [
            f"{lists} 'CN=root' in 'list.pem' is missing, or signed with another key"
        ] * len(told)
        found = [re.sub(r"^rules.ini:", "", line) for line in text.splitlines()]
        self.assertEqual(sorted(found), sorted(expected))

    def test_too_many_sockets(self) -> None:
        """The problem is that of the unit that adds most, not of one that has most, nor of the operator."""
        main = self.folder / "rules.ini"
        main.write_text("[txmux]\ninclude = d/*.ini\n[listen own]\nendpoint = :1000-1099\n")
        (self.folder / "d").mkdir()
        for name, ports in ("a", "2000-2099"), ("b", "3000-3009"), ("c", "4000-4003"):
            text = f"[listen {name}]\nendpoint = :{ports}\n"
            (self.folder / "d" / f"{name}.ini").write_text(text)
        rules = load(main)
        keys = [one.key for its in rules.listeners for one in listen_addresses(its)]

        def told(before: int) -> list[str]:
            return [one.section for one in too_many_sockets(rules, 240, keys[:before])]

        self.assertEqual(told(0), ["listen a"])
        self.assertEqual(told(100), ["listen a"])
        self.assertEqual(told(200), ["listen b"])
        self.assertEqual(told(209), ["listen c"])
        self.assertEqual(told(214), [])

    def change_modes(self, mode: int) -> None:
        for path in self.folder.iterdir():
            path.chmod(mode)

    def test_all_wrong_files(self) -> None:
        # None is wrong that may not be read.
        (self.folder / "rules.ini").touch()
        self.change_modes(0)
        self.assertEqual(as_nobody(lambda: self.found(self.rules)), ([], []))
        closed = as_nobody(lambda: {path.name for file, path in closed_files(self.rules)})
        self.assertEqual(closed, {"rules.ini", "good.pem", "bare.pem", "empty.pem"})
        self.change_modes(0o600)
        wrong, forbidden = self.found(self.rules)
        lines = [
            "rules.ini:8: [route bare] terminate_tls: 'bare.pem': no private key for its certificate; "
            + _PAIR,
            "rules.ini:13: [route members] tls_client_ca: 'empty.pem' has no certificate in it; "
            + _CERTIFICATES,
        ]
        self.assertEqual((self.reported(wrong), forbidden), (lines, []))
        terminators = TlsTerminators(Clock())
        error = self.assertRaises(RulesError, terminators.prepare, self.rules)
        self.assertEqual(self.reported(error.problems), lines)
        # Routes that have no file.
        routes = tuple(attrs.evolve(route, section=NOWHERE) for route in self.rules.routes)
        rules = attrs.evolve(self.rules, routes=routes)
        wrong = self.assertRaises(RulesError, TlsTerminators(Clock()).prepare, rules)
        self.assertIn("rules.ini: [route bare] terminate_tls: ", self.reported(wrong.problems)[0])
        bare = self.rules.routes[1]
        error = self.assertRaises(MuxError, TlsTerminators(Clock()).terminator_of, bare)
        self.assertIn("[route bare] terminate_tls: '", str(error))

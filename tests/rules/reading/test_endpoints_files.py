"""Files that endpoint strings of Twisted name."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.support.folders import make_folder
from txmux.rules.problems import RulesError
from txmux.rules.reading.parser import load, parse


class MissingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.there = self.folder / "there.pem"
        self.there.write_text("")
        self.rules = self.folder / "x.ini"

    def found(self, text: str) -> list[str]:
        self.rules.write_text(text)
        try:
            load(self.rules)
        except RulesError as error:
            return [
                f"{p.line} {p.key}: {p.message}".replace(f"{self.folder}/", "")
                for p in error.problems
            ]
        return []

    def test_missing_in_every_key(self) -> None:
        no, there = self.folder / "no.pem", self.there
        told = f"cannot read 'no.pem': No such file or directory; correct the path, or put the file into '{self.folder}'"
        text = (
            f"[listen a]\nendpoint = ssl:1:privateKey={no}:certKey={there}\n  ssl:2:{there}:{no}\n"
            f"silent = ssl:h:1:privateKey={no} after=1s\ndefault = tls:h:1:certificate={no}\n"
            f"[route r]\nmatch = any\nbackend = ssl:h:1:certKey={no}:privateKey={there}\n"
            f"[backend b]\nserver = h:1\n  ssl:h:1:certKey={no}:privateKey={there} weight=2\nfallback = ssl:h:1:certKey={no}\n"
        )
        self.assertEqual(
            self.found(text),
            [
                f"2 endpoint: privateKey: {told}",
                f"3 endpoint: certKey: {told}",
                f"4 silent: privateKey: {told}",
                f"5 default: certificate: {told}",
                f"8 backend: certKey: {told}",
                f"11 server: certKey: {told}",
                f"12 fallback: certKey: {told}",
            ],
        )

    def test_server_pem_is_the_default(self) -> None:
        (told,) = self.found("[listen a]\nendpoint = ssl:1\n")
        self.assertTrue(
            told.startswith("2 endpoint: privateKey: cannot read 'server.pem': No "), told
        )

    def test_fine(self) -> None:
        text = f"[listen a]\nendpoint = ssl:1:privateKey={self.there}\n  :2\ndefault = tls:h:22\nsilent = close\n"
        self.assertEqual(self.found(text), [])
        parse("[listen a]\nendpoint = ssl:1:privateKey=no.pem\n", "x.ini")

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.rules.reading import cases
from tests.support.folders import make_folder
from txmux.features.tunnels.via import Via, proxy
from txmux.rules.model import Server
from txmux.rules.problems import InvalidValueError, RulesError
from txmux.rules.reading.parser import load


class ViaTests(SynchronousTestCase):
    def test_meaning(self) -> None:
        rows: tuple[Any, ...] = (
            ("socks5://127.0.0.1:1080", "socks5://127.0.0.1:1080", "127.0.0.1", 1080),
            ("socks4://[::1]:9/", "socks4://[::1]:9", "::1", 9),
            ("http://ops:/etc/p@w@proxy.test:3128", "http://proxy.test:3128", "proxy.test", 3128,
             "ops", Path("/etc/p@w")),
        )  # fmt: skip
        for text, url, host, port, *login in rows:
            expected = Via(url.partition(":")[0], Server(url, "tcp", host, port), *login)
            self.assertEqual(proxy(text), expected)
            self.assertEqual(cases.backend(f"via = {text}").proxy, expected)
        own = cases.backend("via = socks5://ops:password@proxy:1").proxy
        assert own is not None
        self.assertEqual(own.password, Path("etc/password"))

    @given(st.text("socks5htp:/@[]{}.1 ", max_size=25))
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        self.assertIn("is not a proxy", cases.complaint(proxy, ""))
        try:
            self.assertEqual(proxy(text).server.kind, "tcp")
        except InvalidValueError as error:
            self.assertTrue(error.messages)

    def test_what_may_be_the_password_itself_is_not_repeated(self) -> None:
        path = make_folder(self) / "rules.ini"
        text = "[listen l]\nendpoint = :1\nsilent = b\n[backend b]\nserver = 10.0.0.1:1\nvia = http://ops:{}@x:1\n"
        path.write_text(text.format("geheim"))
        error = self.assertRaises(RulesError, load, path)
        wanted = "is the path of a file with the password as its only line, and there is no"
        self.assertIn(wanted, str(error))
        self.assertNotIn("geheim", str(error))
        path.write_text(text.format("/nowhere/x"))
        self.assertIn("cannot read '/nowhere/x'", str(self.assertRaises(RulesError, load, path)))

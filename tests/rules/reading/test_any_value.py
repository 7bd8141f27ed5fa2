"""Whatever a value is, it is read, or refused with messages."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.rules.lint.privileges import Privileges, missing_privileges
from txmux.rules.lint.warnings import closed_listeners, lint
from txmux.rules.model import Rules
from txmux.rules.problems import RulesError
from txmux.rules.reading.layout import laid_out, meaning
from txmux.rules.reading.parser import parse
from txmux.rules.reading.sections import TABLES

REQUIRED = {
    "listen": {"endpoint": ":1"},
    "route": {"match": "ssh", "backend": "b"},
    "backend": {"server": "h:1"},
    "txmux": {},
}
_TEXT = (
    "ssh tls sni=a.org sni= = not and || !ssh :443 127.0.0.1:22 h:1 [::1]:1 [fe80::1%x]:1 unix:/x udp:1 http://a/ "
    'https://h:1/x a.org,b.org , 10.0.0.0/8 10.* 10.0.0.1-10.0.0.9 all yes 5s 5sec 10k \' "x" ; #c ${X:-1} $PORT $$ web b '
    "close drop tcp6:1:interface=1.2.3.4 ssl:1:privateKey=k check inter weight=2 weight path=^/a path=~x http host=a|b "
    "tls( tls(x=y) \u2028 é mon-fri 08:00-09:00 20/s *:80 /x \\ {} listen a 0 1.3 h2 client reset"
)
PIECES = _TEXT.split(" ")
KEYS = [(kind, key) for kind, keys in TABLES.items() for key in keys]


class AnyValueTests(SynchronousTestCase):
    @given(
        st.sampled_from(KEYS),
        st.lists(st.sampled_from(PIECES), max_size=4),
        st.sampled_from(["", " ", ", ", "\n  "]),
    )
    def test_rules_or_problems_and_the_same_laid_out(
        self, place: tuple[str, str], pieces: list[str], joint: str
    ) -> None:
        text = ""
        for kind, given_keys in REQUIRED.items():
            keys = {**given_keys, place[1]: joint.join(pieces)} if kind == place[0] else given_keys
            header = kind if kind == "txmux" else f"{kind} {kind[0]}"
            text += f"[{header}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
        try:
            rules = parse(text, "x.ini")
        except RulesError as error:
            self.assertTrue(all(problem.message for problem in error.problems))
        else:
            self.assertIsInstance(rules, Rules)
            nothing = Privileges(1000, 1024, lambda _path, _mode: False)
            for found in (lint(rules), closed_listeners(rules), missing_privileges(rules, nothing)):
                self.assertTrue(all(problem.message for problem in found))
            after = laid_out(text)
            self.assertEqual(meaning(after), meaning(text))
            self.assertEqual(laid_out(after), after)

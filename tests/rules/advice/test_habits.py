import ast
import sys
from pathlib import Path
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

import txmux
from tests.rules.fakes import MATCHERS
from tests.rules.reading import cases
from tests.support.folders import make_folder
from txmux.detection.registry import installed_matchers
from txmux.rules.advice.habits import HINTS, SECTION_ALIASES
from txmux.rules.advice.keys import foreign_format
from txmux.rules.advice.matching import MEANT
from txmux.rules.advice.words import did_you_mean, near
from txmux.rules.problems import InvalidValueError, RulesError
from txmux.rules.reading.matching import read_alternative
from txmux.rules.reading.parser import load, parse
from txmux.rules.reading.sections import HEADERS, TABLES

NGINX = "stream {\n  server {\n    listen 443;\n    proxy_pass 127.0.0.1:8443;\n  }\n}\n"


class HabitTests(SynchronousTestCase):
    def test_empty_lines(self) -> None:
        """They take no time that grows with their square, as what is left of a unit that is not taken."""
        text = "\n" * 200_000
        self.assertEqual(foreign_format(text), "")
        self.assertIn("nginx", foreign_format(f"{text}  {NGINX}"))

    def test_headers_and_keys_stand_for_what_is_meant(self) -> None:
        there_are = f"(there are {', '.join(HEADERS.values())})"
        for word, kind in SECTION_ALIASES.items():
            told = cases.complaints(f"{cases.LISTEN}[{word} x]\n")[0]
            meant = "[txmux]" if kind == "txmux" else f"[{kind} x]"
            self.assertEqual(told, f"3 : unknown section; did you mean {meant}? {there_are}")
        for kind, header in (
            ("listen", "listen b"), ("route", "route r"), ("backend", "backend b"),
        ):  # fmt: skip
            for key, meant in HINTS[kind].items():
                every = cases.complaints(f"{cases.LISTEN}[{header}]\n{key} = 443\n")
                self.assertIn(f"4 {key}: unknown key; {meant}", every)
        for key in HINTS["txmux"]:
            every = cases.complaints(f"{cases.LISTEN}[txmux]\n{key} = 2\n")
            self.assertEqual(len(every), 1, every)
        for kind, keys in HINTS.items():
            self.assertEqual(keys.keys() & TABLES[kind].keys(), set())
        self.assertEqual(SECTION_ALIASES.keys() & HEADERS.keys(), set())

    def test_what_is_almost_right_is_named(self) -> None:
        folder = make_folder(self)
        rules = folder / "x.ini"
        for name in ("a.pem", "b.pem"):
            (folder / name).touch()
        text = "[listen a]\nendpoint = :1\n[route r]\nmatch = tls\nterminate_tls = a.pem b.pem\nbackend = close\n"
        rules.write_text(text)
        told = "has blanks and no commas; write a.pem, b.pem"
        self.assertRaisesRegex(RulesError, told, load, rules, MATCHERS)
        # Two letters in each other's place mean the matcher that has them, and no other.
        names = [*installed_matchers()]
        for name in names:
            for at in range(len(name) - 1):
                word = name[:at] + name[at + 1] + name[at] + name[at + 2 :]
                if word not in {*names, *MEANT}:
                    self.assertEqual(did_you_mean(word, names), f"; did you mean {name!r}?")
        self.assertEqual(did_you_mean("wol", ["wol", "http"]), "")

    def test_words_of_others_that_are_right_here(self) -> None:
        rules = parse(
            "[listen a]\nendpoint = :1\nendpoint = :2\n[route r]\nmatch = ssh\nmatch = tls\nbackend = b\n"
            "[backend b]\nserver = 127.0.0.1:3\nbalance = first\nserver = 127.0.0.1:4\n",
            "x",
        )
        self.assertEqual(rules.listeners[0].endpoints, (":1", ":2"))
        self.assertEqual([str(one.text) for one in rules.routes[0].alternatives], ["ssh", "tls"])
        found = [one.text for one in rules.backends["b"].servers]
        self.assertEqual(found, ["127.0.0.1:3", "127.0.0.1:4"])
        read_alternative("http path=/a.gif host=a.example", installed_matchers())

    def test_right_rules_are_read_without_advice(self) -> None:
        with patch.dict(sys.modules):
            for name in _loaded() - _SMALL:
                del sys.modules[name]
            self.assertEqual(len(parse(RIGHT, "x.ini", MATCHERS).listeners), 1)
            self.assertLessEqual(_loaded(), _SMALL)
            wrong = RIGHT.replace("1.5s", "1.5")
            error = self.assertRaises(RulesError, parse, wrong, "x.ini", MATCHERS)
            self.assertIn("did you mean '1.5s'?", str(error))
            self.assertIn(f"{_ADVICE}.values", _loaded())
        error = InvalidValueError("unknown 'shs' (there are ssh, tls)")
        error.ask(near, "shs", ("ssh", "tls")).ask(near, "tsl", ("tls",))
        expected = "unknown 'shs'; did you mean 'ssh'?; did you mean 'tls'? (there are ssh, tls)"
        self.assertEqual(error.messages, (expected,))

    def test_nothing_that_a_service_imports_imports_it(self) -> None:
        """But in functions, where an error is at hand, or the words that are near another one."""
        for path in _PACKAGE.rglob("*.py"):
            name = str(path.relative_to(_PACKAGE))
            text = path.read_text()
            for node in ast.parse(text).body if _ADVICE in text else ():
                if isinstance(node, ast.ImportFrom) and str(node.module).startswith(_ADVICE):
                    self.assertTrue(name.startswith("rules/advice/") or node.module in _SMALL, name)


_PACKAGE = Path(txmux.__file__).parent
_ADVICE = "txmux.rules.advice"
_SMALL = {_ADVICE, f"{_ADVICE}.words"}
"""What readers name their advisers by."""

RIGHT = """
[txmux]
admin = off
workers = auto
[listen public]
endpoint = :443
endpoint = [::1]:8443
allow = 10.0.0.0/8, 192.0.2.1
detect_timeout = 1.5s
silent = 127.0.0.1:25 after=500ms
[route web]
match = tls sni=*.example
    not ssh
backend = web
[backend web]
server = 127.0.0.1:80 weight=3
    example.com:80 backup
check = http path=/health expect=2xx interval=5s
balance = source-hash
"""


def _loaded() -> set[str]:
    return {name for name in sys.modules if name.startswith(_ADVICE)}

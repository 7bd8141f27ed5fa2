"""Advice is asked where there is an error, and nowhere else."""

import ast
import sys
from pathlib import Path
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

import txmux
from tests.rules.fakes import MATCHERS
from txmux.rules.advice.words import near
from txmux.rules.problems import InvalidValueError, RulesError
from txmux.rules.reading.parser import parse

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


class AdviceTests(SynchronousTestCase):
    def test_right_rules_are_read_without_it_and_each_gets_the_messages_of_the_one_before(
        self,
    ) -> None:
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

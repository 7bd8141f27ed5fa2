"""Variables of the environment in values."""

from __future__ import annotations

import json
import os

import attrs

from tests.rules.reading.cases import ReadingTestCase
from tests.support.folders import make_folder
from txmux.cli.remote.find import read_keys
from txmux.rules.model import Files
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading.files import expand
from txmux.rules.reading.parser import is_as_read, load, read_again


class ExpandTests(ReadingTestCase):
    def expanded(self, text: str) -> str:
        return expand(text, {"A": "1", "EMPTY": "", "D": "${A}$$"}.get)

    def test_values(self) -> None:
        for text, value in {
            "a${A}b${A}": "a1b1",
            "${EMPTY}.": ".",
            "${A:-2}": "1",
            "${EMPTY:-2}": "2",
            "${B:-}": "",
            "${B:-:443}": ":443",
            "${B:-a$$b}": "a$b",
            "${D}": "${A}$$",
            "$${A}": "${A}",
            "$$$$": "$$",
            "^a$": "^a$",
            "$A $1": "$A $1",
        }.items():
            self.assertEqual(self.expanded(text), value, text)

    def test_wrong(self) -> None:
        for text, message in {
            "x${B}": "the environment has no variable 'B'; set it, or write ${B:-default}",
            "x${A": "'${A' does not name a variable; write ${NAME}, ${NAME:-default}, or $$ for a dollar sign",
            "${1}": "'${1}' does not name a variable; write ${NAME}, ${NAME:-default}, or $$ for a dollar sign",
        }.items():
            error = self.assertRaises(InvalidValueError, self.expanded, text)
            self.assertEqual(str(error), message)


class FileTests(ReadingTestCase):
    def setUp(self) -> None:
        self.patch(os, "environ", {"PORT": "8443", "NETS": "10.0.0.0/8, 192.0.2.1\n::1\n"})

    def test_items_and_lines_of_a_variable(self) -> None:
        rules = self.read(
            "[listen a]\nendpoint = 127.0.0.1:${PORT}\nallow = ${NETS}, 192.0.2.${LAST:-7}\n"
        )
        (listener,) = rules.listeners
        self.assertEqual(listener.endpoints, ("127.0.0.1:8443",))
        same = self.read(
            "[listen a]\nendpoint = 127.0.0.1:8443\nallow = 10.0.0.0/8, 192.0.2.1\n ::1\n 192.0.2.7"
        )
        self.assertEqual(listener.clients, same.listeners[0].clients)

    def test_errors(self) -> None:
        self.refuses(
            "[listen a]\nendpoint = :1\n  :${NO}\n[route r]\nmatch = ssh\nbackend = ${NO}\n",
            "3 endpoint: the environment has no variable 'NO'; set it, or write ${NO:-default}",
            "6 backend: the environment has no variable 'NO'; set it, or write ${NO:-default}",
        )

    def test_other_processes_use_the_first_values(self) -> None:
        folder = make_folder(self)
        path = folder / "rules.ini"
        path.write_text(
            "[txmux]\ninclude = ${MORE:-more}.ini\n[listen a]\nendpoint = 127.0.0.1:${PORT}\n"
        )
        (folder / "more.ini").write_text("[listen b]\nendpoint = 127.0.0.2:${PORT}\n")
        rules = load(path)
        self.assertTrue(is_as_read(rules))
        told = json.loads(json.dumps(attrs.asdict(rules.files)))
        self.patch(os, "environ", {"PORT": "1", "MORE": "x"})
        again = read_again(Files(**told))
        self.assertEqual(again.listeners, rules.listeners)
        self.assertEqual(next(one.endpoints[0] for one in again.listeners), "127.0.0.1:8443")

    def test_remote_commands(self) -> None:
        path = make_folder(self) / "rules.ini"
        path.write_text("[txmux]\nadmin = 127.0.0.1:${PORT}\nadmin_token = ${TOKEN:-token}\n")
        found = read_keys(path)
        self.assertEqual((found.admin, found.token), ("127.0.0.1:8443", path.parent / "token"))

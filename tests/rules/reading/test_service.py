"""Tests of the section ``[txmux]``."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from tests.rules.reading.cases import ReadingTestCase
from txmux.rules.problems import RulesError
from txmux.rules.reading.parser import parse


def workers(value: str) -> int:
    text = f"[txmux]\nworkers = {value}\n[listen x]\nendpoint = :0\n"
    return parse(text, "x").settings.workers


class WorkersTest(SynchronousTestCase):
    def test_number(self) -> None:
        self.assertEqual((workers("1"), workers("1000")), (1, 1000))

    def test_auto_counts_processors(self) -> None:
        self.patch(os, "sched_getaffinity", lambda _: {0, 2, 5})
        self.assertEqual(workers("auto"), 3)
        self.patch(os, "sched_getaffinity", lambda _: range(5000))
        self.assertEqual(workers("auto"), 1000)

    def test_wrong(self) -> None:
        for value, hint in (
            ("0", ""),
            ("1001", ""),
            ("two", ""),
            ("atuo", "; did you mean 'auto'?"),
        ):
            with self.assertRaises(RulesError) as caught:
                workers(value)
            message = f"must be auto or a whole number from 1 to 1000, not '{value}'{hint}"
            self.assertIn(message, str(caught.exception))


class AccountTests(ReadingTestCase):
    def test_accounts(self) -> None:
        for name in ("txmux", "www-data", "_x", "host$", "1000"):
            settings = self.read(f"[txmux]\nuser = {name}\ngroup = {name}\n{self.listen}").settings
            self.assertEqual((settings.user, settings.group), (name, name))
        settings = self.read(self.listen).settings
        self.assertEqual((settings.user, settings.group), (None, None))

    def test_bad_accounts(self) -> None:
        self.refuses(
            f"[txmux]\nuser = a b\ngroup = -x\n{self.listen}",
            "2 user: 'a b' is not a name or number of one; write for example txmux",
            "3 group: '-x' is not a name or number of one; write for example txmux",
        )
        self.refuses(
            f"[txmux]\ngroup = x\n{self.listen}",
            "2 group: needs 'user' beside it; add that, or remove this",
        )

import re
import runpy
from pathlib import Path
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from tests.support.changes import change_constants
from txmux.telemetry import attention_rows
from txmux.telemetry.attention import AttentionItem, AttentionRow
from txmux.telemetry.attention_rows import COMMON, ROWS, attention_counts, every_row

_ALERTS = Path(__file__).parent.parent.parent / "docs/alerts.py"
_ROW: dict[str, Any] = {
    "what": "moon", "level": "warning", "text": "the moon is {phase}", "do": "wait", "when": "it is full",
    "runbook": "a-server-is-down", "sources": "none", "alerts": COMMON,
}  # fmt: skip


class RowsTest(SynchronousTestCase):
    def test_what_a_row_must_have(self) -> None:
        """What is left out or empty is named."""
        self.assertEqual(AttentionRow(**_ROW).item(phase="full").text, "the moon is full")
        for name in ("do", "when", "runbook", "sources", "alerts"):
            left = {key: value for key, value in _ROW.items() if key != name}
            error = self.assertRaises(TypeError, AttentionRow, **left)
            self.assertIn(repr(name), str(error))
            error = self.assertRaises(ValueError, AttentionRow, **left, **{name: ""})
            self.assertIn(repr(name), str(error))
        row = AttentionRow(**_ROW, link="/backends/{backend}")  # name that no address can have
        self.assertEqual(row.item(phase="full", backend="\ud800").link, "/backends/%3F")

    def test_texts_of_others(self) -> None:
        """They neither begin a line nor command a terminal; what tells items and owners apart stays as it is."""
        row = AttentionRow(**_ROW, cause="{phase}", subject="{phase}", section="unit {phase}")
        item, shown = row.item(phase="a\n\x1bb\u202e"), r"a\n\x1bb\u202e"
        self.assertEqual((item.text, item.cause), (f"the moon is {shown}", shown))
        self.assertEqual((item.subject, item.section), ("a\n\x1bb\u202e", "unit a\n\x1bb\u202e"))

    def test_subjects(self) -> None:
        """No listener, backend or host can be called as what another item of its topic is about."""
        for what in {row.what for row in every_row()}:
            subjects = {row.subject for row in every_row() if row.what == what}
            if any(re.fullmatch(r"\{\w+\}", subject) for subject in subjects):
                words = [its for its in subjects if its and not {"{", " "}.intersection(its)]
                self.assertEqual(words, [], what)

    def test_alerts(self) -> None:
        """Who writes them is told of rows that have none, or others than those of their topic and level."""
        row = AttentionRow(**_ROW)
        for more, said in (
            ([attrs.evolve(row, level="note")], "moon, note: say in `alerts` why none fires"),
            ([row, attrs.evolve(row, alerts="no reason")], "moon, warning: two kinds of alerts"),
        ):
            change_constants(self, attention_rows, ROWS=(*ROWS, *more))
            self.assertIn(said, str(self.assertRaises(ValueError, runpy.run_path, str(_ALERTS))))

    def test_all_that_may_occur(self) -> None:
        item = AttentionItem("critical", "ports", "no port", do="add some")
        counts = attention_counts([item, item])
        self.assertEqual({*counts}, {(row.what, row.level) for row in every_row()})
        self.assertEqual(counts.pop(("ports", "critical")), 2)
        self.assertEqual({*counts.values()}, {0})

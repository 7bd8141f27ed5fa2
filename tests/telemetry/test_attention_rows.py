"""The rows of what needs attention, and what a new one may not lack."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txmux.telemetry.attention import LEVELS, AttentionItem, AttentionRow
from txmux.telemetry.attention_rows import COMMON, attention_counts

_ROW: dict[str, Any] = {
    "what": "moon", "level": "warning", "text": "the moon is {phase}", "do": "wait", "when": "it is full",
    "runbook": "a-server-is-down", "sources": "none", "alerts": COMMON,
}  # fmt: skip


class ForgottenTest(SynchronousTestCase):
    def test_what_a_row_must_have(self) -> None:
        """What is left out or empty is named."""
        self.assertEqual(AttentionRow(**_ROW).item(phase="full").text, "the moon is full")
        for name in ("do", "when", "runbook", "sources", "alerts"):
            left = {key: value for key, value in _ROW.items() if key != name}
            error = self.assertRaises(TypeError, AttentionRow, **left)
            self.assertIn(repr(name), str(error))
            error = self.assertRaises(ValueError, AttentionRow, **left, **{name: ""})
            self.assertIn(repr(name), str(error))


class CountsTest(SynchronousTestCase):
    def test_all_that_may_occur(self) -> None:
        item = AttentionItem("critical", "ports", "no port", do="add some")
        counts = attention_counts([item, item])
        self.assertEqual(counts.pop(("ports", "critical")), 2)
        self.assertEqual({*counts.values()}, {0})
        self.assertEqual({level for _, level in counts}, {*LEVELS})
        self.assertNotIn(("ports", "warning"), counts)

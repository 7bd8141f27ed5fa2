import time
from collections.abc import Mapping
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txmux.control.gauges import COUNT, Gauges
from txmux.telemetry import documents
from txmux.telemetry.presentation import COMMAND


class RowsTest(SynchronousTestCase):
    def test_published_key_and_opened_hellos(self) -> None:
        key = {"id": 7, "public_name": "a.example", "written": time.time() - 3600}
        cases: list[tuple[Mapping[str, Any], str]] = [
            ({}, "-"),
            ({"ech": {"keys": [], "opened": 1, "unopened": 0}}, "-"),
            ({"ech": {"keys": [key], "opened": 2, "unopened": 1}}, "a.example (7), 1 h old; 2 of 3 opened"),
            ({"ech": {"keys": [key, key], "opened": 0, "unopened": 0}}, "a.example (7), 1 h old, 1 older; 0 of 0 opened"),
        ]  # fmt: skip
        for row, cell in cases:
            table = documents.listeners([{"ech": {}}, {}]).only("hidden names")
            self.assertEqual(table.cells(row, COMMAND, 100.0), [cell])
        # One of the newest worker counts; and none may be anything but keys.
        older, newer = [[7, "a.example", 1.0]], [[8, "b.example", 2.0]]
        gauges = Gauges.of([{"ech": {"x": older}}, {"ech": {"x": newer, "y": older}}, {}])
        self.assertEqual(gauges.of_features["ech"], {"x": newer, "y": older})
        self.assertEqual(Gauges.of([]).of_features["ech"], {})
        assert COUNT.answer is not None
        bounds = COUNT.answer.fields["ech"]
        self.assertEqual(bounds.read({"x": older}), {"x": older})
        for bad in ([["7", "a", 1.0]], [[7, 1, 1.0]], [[7, "a"]], [[-1, "a", 1.0]], 7):
            self.assertRaises(ValueError, bounds.read, {"x": bad})

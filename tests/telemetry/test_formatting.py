import json
import re
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

import txmux
from txmux.errors import printable_lines
from txmux.telemetry import formatting

_PLAIN = st.none() | st.booleans() | st.integers() | st.text()
_VALUES = st.recursive(_PLAIN, lambda one: st.lists(one) | st.dictionaries(st.text(), one))


def shown(data: Any) -> Any:
    if isinstance(data, str):
        return printable_lines(data)
    if isinstance(data, dict):
        return {printable_lines(name): shown(value) for name, value in data.items()}
    return [*map(shown, data)] if isinstance(data, list) else data


_NUMBER = r"(?:(?:len|sum|count)\([^{}]*\)(?: - \d+)?|(?:\w+\.)?(?:count|number|needed|most|hops|times|total))"
_PLURAL = r"(?:more |such |listening )?(?!(?:is|was|has|does|takes|accepts|begins|less|addresses)\b)[a-z]+[a-rt-z]s\b"
_PURE = {"adopt", "detection", "matchers", "rules", "wire", "testing", "interfaces.py"}
"""Packages that may not use `counted`: their numbers are never 1."""


class FormattingTests(SynchronousTestCase):
    def test_sizes(self) -> None:
        for write, texts in (
            (formatting.byte_count, {0: "0 B", 999: "999 B", 1536: "1.54 kB", 2e10: "20 GB"}),
            (formatting.duration, {0.25: "0.2 s", 4.97: "5 s", 59: "59 s", 5400: "1 h 30 min", 90000: "1 d 1 h",
                        86400 * 40: "40 d"}),
            (formatting.count, {1234567: "1\u202f234\u202f567"}),
            (formatting.rate, {0.25: "0.25/s", 1500: "1.5 k/s", 3e-7: "0/s", 9.97: "10/s"}),
            (formatting.compact_duration, {59.9: "59s", 3720: "1h2m"}),
            (formatting.si_number, {0: "0", 1234: "1.23 k", 5.68e6: "5.68 M", 999.7: "1 k", 7e12: "7000 G"}),
            (formatting.milliseconds, {0: "0 s", 3.21: "3.21 ms", 61_000: "1 min 1 s", 999.4: "999 ms",
                            999.7: "1 s", 3e-7: "0 ms"}),
            (formatting.byte_rate, {0: "0 B/s", 333: "333 B/s", 8010: "8.01 kB/s", 5.68e6: "5.68 MB/s"}),
        ):  # fmt: skip
            for number, text in texts.items():
                self.assertEqual(write(number), text)
        self.assertEqual(formatting.utc_time(1796083200), "2026-12-01 00:00 UTC")
        lines = [*formatting.aligned([("name", "n", ""), ("a", "10", "")], numbers=[1])]
        self.assertEqual(lines, ["name   n", "a     10"])

    @given(st.floats(0, 1e20))
    def test_no_number_has_an_exponent(self, number: float) -> None:
        how = formatting.si_number, formatting.rate, formatting.milliseconds, formatting.byte_count
        for write in how:
            self.assertRegex(write(number), r"^[0-9.]+ ?[a-zA-Z/]*( [0-9]+ [a-z]+)?$")

    @given(_VALUES)
    def test_json(self, data: Any) -> None:
        """What is printable stays, wherever it is; of all else, only ends of lines, tabs and blanks."""
        found = json.dumps(json.loads(formatting.printable_json(data)))
        self.assertEqual(found, json.dumps(shown(data)))

    def test_lines(self) -> None:
        found = printable_lines("a\r\n\tb\n1\u202f000 \xa0\u20ac")
        self.assertEqual(found, "a\r\n\tb\n1\u202f000 \xa0\u20ac")
        hidden = "\x1b\a\r\x7f\x9b\u202e\u2028\x00"
        self.assertEqual(printable_lines(hidden), r"\x1b\x07\r\x7f\x9b\u202e\u2028\x00")

    def test_number_before_a_noun_is_written_by_counted(self) -> None:
        """There is one of anything at some time: no message has ``1 tokens``."""
        package = Path(txmux.__file__).parent
        found = [
            f"{path.relative_to(package)}: {one[0]}"
            for path in package.rglob("*.py")
            if path.relative_to(package).parts[0] not in _PURE
            for one in re.finditer(rf"\{{{_NUMBER}\}} {_PLURAL}", path.read_text())
        ]
        self.assertEqual(found, [])

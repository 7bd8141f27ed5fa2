"""JSON that others have written."""

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.wire.jsontext import parse_json

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


class ParseTests(SynchronousTestCase):
    @given(_VALUES)
    def test_values(self, value: object) -> None:
        """What was written is read, as text and as bytes."""
        text = json.dumps(value)
        self.assertEqual(parse_json(text), value)
        self.assertEqual(parse_json(text.encode()), value)

    def test_not_json(self) -> None:
        """Anything else is an error of one kind, however deep it is nested."""
        for text in ("", "{", "nonsense", b"\xff", "[" * 100_000, '{"a":' * 100_000):
            self.assertRaises(ValueError, parse_json, text)

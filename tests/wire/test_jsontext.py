import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.wire.jsontext import JsonLists, parse_json

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


class ListsTests(SynchronousTestCase):
    def read(self, data: bytes, size: int) -> tuple[list[tuple[str, object]], set[str]]:
        items: list[tuple[str, object]] = []
        lists = JsonLists(lambda *item: items.append(item))
        for start in range(0, len(data), size):
            lists.feed(data[start : start + size])
        lists.end()
        return items, lists.names

    @given(
        st.lists(_VALUES)
        | st.dictionaries(st.text(), st.none() | st.lists(_VALUES, max_size=3), max_size=3),
        st.integers(1, 20),
        st.sampled_from([None, 1]),
    )
    @example([0.0, 1e300], 3, None)
    @example([1e300, -1e-9], 4, None)
    def test_as_a_whole(self, value: Any, size: int, indent: int | None) -> None:
        """The items are those of the text, however it is cut."""
        named = value if isinstance(value, dict) else {"": value}
        items = [(name, item) for name, found in named.items() for item in found or ()]
        data = json.dumps(value, indent=indent, ensure_ascii=False).encode("utf-8", "surrogatepass")
        if b"\xed" not in data:  # a surrogate, which is no text
            self.assertEqual(self.read(data, size), (items, set(named)))

    def test_what_is_wrong_or_too_much_is_refused(self) -> None:
        for text in (
            *("", "[", "[1", "[1,", "[1,]", "[1 2]", "[1]x", "1", '"x"', "null", "<html>"),
            *("{", '{"a":1}', '{"a" []}', '{"a":[]', '{"a":[],}', "[\xff", "[" * 100_000),
        ):
            for size in (1, 1000):
                self.assertRaises(ValueError, self.read, text.encode("latin-1"), size)
        for bad in ("", "{", "nonsense", b"\xff", "[" * 100_000, '{"a":' * 100_000):
            self.assertRaises(ValueError, parse_json, bad)
        few, many = (json.dumps(dict.fromkeys(map(str, range(n)))).encode() for n in (20, 21))
        self.assertEqual(len(self.read(few, 1000)[1]), 20)
        self.assertRaises(ValueError, self.read, many, 1000)
        for start in ('["', "[["):
            lists = JsonLists(lambda *_: None)
            with self.assertRaises(ValueError):
                for _ in range(10):
                    lists.feed(start.encode() + b" " * 60_000)
            self.assertRaises(ValueError, lists.end)

    @given(_VALUES)
    def test_what_was_written_is_read_as_text_and_as_bytes(self, value: object) -> None:
        text = json.dumps(value)
        self.assertEqual((parse_json(text), parse_json(text.encode())), (value, value))

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.access.across_processes import LayoutError, LimitsLayout, SharedLimits
from txmux.rules.reading.parser import parse

NAMES = st.lists(st.sampled_from("abcdef"), unique=True)


def text_of(names: list[str], limit: int) -> str:
    text = "".join(
        f"[listen {name}]\nendpoint = 127.0.0.1:{1000 + ord(name)}\n"
        f"max_connections_per_source = {limit}\n"
        for name in ("z", *names)
    )
    return f"{text}[route r]\nunder = *\nmatch = any\nbackend = close\n"


class LimitsLayoutTest(SynchronousTestCase):
    @given(before=NAMES, after=NAMES, limit=st.integers(0, 1))
    def test_changes_make_it(self, before: list[str], after: list[str], limit: int) -> None:
        old, new = LimitsLayout(5), LimitsLayout(5)
        old.extend(parse(text_of(before, 1), "x"))
        new.extend(parse(text_of(after, limit), "x"))
        self.assertEqual(old.changed(**new.changes(old)), new)
        self.assertEqual(
            old.changes(old),
            {"rows": {}, "tables": {}, "gone_rows": [], "gone_tables": [], "size": old.size},
        )

    def test_worker_follows(self) -> None:
        rules = parse(text_of(["a"], 1), "x")
        limits = SharedLimits.make(parse(text_of([], 1), "x"), 2)
        self.addCleanup(limits.close)
        before = limits.layout
        limits.extend(rules)
        changes = limits.layout.changes(before)
        limits.layout = before
        limits.remap_changed(**changes)
        self.assertIsNotNone(limits.admissions(1, float, 0)(rules.listeners[1]).per_source)
        for wrong in ({"size": 8}, {"rows": {"a": -8}}, {"tables": {"a": changes["size"]}}):
            self.assertRaises(LayoutError, limits.remap_changed, **{**changes, **wrong})

from collections.abc import Sequence
from operator import eq
from pathlib import Path
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.examples import scaled
from txmux.detection.ranked import GAP
from txmux.rules.difference import Splice, difference, rank, splices
from txmux.rules.model import Rules
from txmux.rules.reading.parser import parse

NAMES = "abcdefgh"
MATCHES = ["any", "ssh", "tls sni=a.test", "http host=a.test\n    ssh"]
BACKENDS = ["close", "127.0.0.1:22", "127.0.0.1:23", "one", "two"]

SECTIONS = st.tuples(
    st.lists(
        st.tuples(st.sampled_from(NAMES), st.sampled_from(MATCHES), st.sampled_from(BACKENDS)),
        unique_by=lambda one: one[0],
        min_size=1,
    ),
    st.lists(st.sampled_from(("one", "two", "three")), unique=True),
    st.lists(st.sampled_from(("p", "q", "r")), min_size=1, unique=True),
    st.integers(1, 3),
)
Named = Sequence[tuple[str, str, str]]


def text_of(routes: Named, backends: Sequence[str], listeners: Sequence[str], number: int) -> str:
    text = f"[txmux]\naccess_log = off\ndrain_timeout = {number}s\n"
    for at, name in enumerate(("one", "two", *backends)):
        if name not in ("one", "two", *backends)[:at]:
            port = number if name in backends else 9
            text += f"[backend {name}]\nserver = 127.0.0.1:{port}\n"
    for at, name in enumerate(listeners):
        text += f"[listen {name}]\nendpoint = 127.0.0.1:{1000 + ord(name)}\n" + (
            f"detect_timeout = {number}s\n" if at == 0 else ""
        )
    for name, match, backend in routes:
        text += f"[route {name}]\nunder = *\nmatch = {match}\nbackend = {backend}\n"
    return text


def read(sections: tuple[Named, Sequence[str], Sequence[str], int]) -> Rules:
    return parse(text_of(*sections), "x.ini")


def values(rules: Rules) -> object:
    return (
        rules.path, rules.settings, rules.listeners, rules.backends,
        [
            attrs.evolve(route, alternatives=tuple(line.text for line in route.alternatives))  # type: ignore[misc]
            for route in rules.routes
        ],
    )  # fmt: skip


class DifferenceTests(SynchronousTestCase):
    @settings(max_examples=scaled(200), deadline=None)
    @given(before=SECTIONS, after=SECTIONS)
    def test_applied(self, before: Any, after: Any) -> None:
        old, new = read(before), read(after)
        self.assertEqual(values(difference(old, new).apply(old)), values(new))
        self.assertEqual(difference(new, read(after)).size, 0)

    def test_one_line_is_one_splice(self) -> None:
        """One section comes and one goes, wherever it stands, and whatever line others are on now; or one moves."""
        routes = [(name, "ssh", "close") for name in NAMES]
        old = parse(text_of(routes, (), "p", 1), "x.ini")
        for at in range(len(routes)):
            changed = [*routes]
            changed[at] = (NAMES[at], "any", "close")
            new = parse("# a comment\n" + text_of(changed, (), "p", 1), "x.ini")
            [splice] = difference(old, new).routes
            self.assertEqual((splice.start, splice.stop, len(splice.items)), (at, at + 1, 1))
        new = parse(text_of([routes[-1], *routes[:-1]], (), "p", 1), "x.ini")
        self.assertEqual(difference(old, new).size, 2)
        # Where something has come very often at the same place, there is no room in the end.
        items, ranks = [0, 1], [0, GAP]
        for count in range(100):
            found = rank(items, ranks, [Splice(1, 1, (2 + count,))])
            if found is None:
                break
            ranks = found[0]
            items.insert(1, 2 + count)
        self.assertEqual(count, 32)
        replaced = rank(items, ranks, [Splice(1, 2, (-1,))])  # which needs no more
        self.assertEqual(replaced and replaced[0], ranks)

    def test_identity_comes_first(self) -> None:
        """Parts that are the same object are not compared, since thousands of them take a while."""

        class Incomparable(str):
            __slots__ = ()
            __hash__ = str.__hash__

            def __eq__(self, other: object) -> bool:
                raise AssertionError

        old = parse(text_of([("a", "ssh", "one")], (), "p", 1), "x.ini")
        [route], [listener] = old.routes, old.listeners
        old = Rules(
            Path("x.ini"),
            old.settings,
            (attrs.evolve(listener, name=Incomparable("p")),),
            (attrs.evolve(route, more={"key": Incomparable("u")}),),
            old.backends,
        )
        again = Rules(old.path, old.settings, old.listeners, old.routes, {**old.backends})
        self.assertEqual(difference(old, again).size, 0)

    @settings(max_examples=scaled(200), deadline=None)
    @given(versions=st.lists(st.lists(st.integers(0, 9), unique=True), min_size=1, max_size=6))
    def test_what_stays_keeps_its_rank(self, versions: list[list[int]]) -> None:
        items: list[int] = []
        ranks: list[int] = []
        for version in versions:
            found = rank(items, ranks, [*splices(items, version, int, eq)])
            assert found is not None
            made, change, gone = found
            self.assertEqual((made, len(made)), (sorted({*made}), len(version)))
            known = dict(zip(ranks, items, strict=True))
            self.assertEqual([known.pop(one) for one in change.gone], gone)
            told = sorted({**known, **dict(change.new)}.items())
            self.assertEqual(told, [*zip(made, version, strict=True)])
            items, ranks = version, made

import os
from collections.abc import Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from unittest import SkipTest

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.examples import scaled
from tests.support.folders import make_folder
from tests.support.privileges import as_nobody
from txmux.rules.model import Rules
from txmux.rules.problems import RulesError
from txmux.rules.reading import parser
from txmux.rules.reading.parser import load, parse
from txmux.rules.reading.scope import open_to

_CURE = "add a [listen NAME] here, or let the owner of a listener add 'routes_from = a' there"


def _listen(name: str, port: int, more: str = "") -> str:
    return f"[listen {name}]\nendpoint = :{port}\n{more}"


def _route(name: str, more: str = "", backend: str = "close") -> str:
    return f"[route {name}]\nmatch = ssh\n{more}backend = {backend}\n"


def _under(rules: Rules) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for listener in rules.listeners:
        for route in rules.routes_of(listener):
            found.setdefault(route.name, []).append(listener.name)
    return found


_SECTIONS = (
    *(_listen("z", 9), _listen("own", 8), _route("x"), _route("y", "under = *\n")),
    *(_route("v", "under = p0\n"), _route("w", "under = own\n")),
)


class UnitTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)
        (self.folder / "d").mkdir()
        parser.last_read = None

    def write(self, main: str, **units: str) -> None:
        (self.folder / "rules.ini").write_text(f"[txmux]\ninclude = d/*.ini, own.part\n{main}")
        (self.folder / "own.part").write_text("")
        for old in (self.folder / "d").glob("*.ini"):
            old.unlink()
        for name, text in units.items():
            (self.folder / f"d/{name}.ini").write_text(text)

    def load(self) -> Rules:
        return load(self.folder / "rules.ini")

    def untaken(self) -> Mapping[str, list[str]]:
        return {
            Path(name).name.replace(".ini", ""): [
                f"{one.line} {one.key}: {one.message}" for one in problems
            ]
            for name, problems in self.load().files.untaken.items()
        }

    # Routes of units.

    def assert_refused(self, main: str, unit: str, *told: str) -> None:
        self.write(main, a=unit)
        self.assertEqual(self.untaken(), {"a": [*told]})

    def test_routes_of_a_unit_are_under_its_own_listener_and_others_are_not(self) -> None:
        units = {"a": _route("ra"), "b": _route("rb", "under = *\n")}
        its = {name: _listen(name, at) + units[name] for at, name in enumerate("ab", 2)}
        self.write(_listen("p", 1) + _route("r"), **its)
        rules = self.load()
        self.assertEqual(rules.files.untaken, {})
        self.assertEqual(_under(rules), {"r": ["p"], "ra": ["a"], "rb": ["b"]})

    def test_listeners_that_allow_the_unit(self) -> None:
        for pattern in ("a", "a.ini", "*", "d/a.ini", "d/*", "b, a", f"{self.folder}/d/a.ini"):
            self.write(_listen("p", 1, f"routes_from = {pattern}\n"), a=_route("r"))
            rules = self.load()
            self.assertEqual(_under(rules), {"r": ["p"]}, pattern)
            # Providers ask so for a file that they are about to write.
            for unit, names in (("a", ["p"]), ("else", ["p"] * (pattern in {"*", "d/*"}))):
                found = open_to(rules, f"{self.folder}/d/{unit}.ini")
                self.assertEqual([one.name for one in found], names, pattern)
        parts = "[unit one]\n" + _route("r") + "[unit two]\n" + _route("s")
        main = _listen("p", 1, "routes_from = one\n") + _listen("q", 2, "routes_from = tw*\n")
        self.write(main, a=parts)
        self.assertEqual(_under(self.load()), {"r": ["p"], "s": ["q"]})
        main = _listen("p", 1, "routes_from = a\n") + _listen("q", 2, "routes_from = *\n")
        why = "write 'under = p, q' with those that it is for, or 'under = *'"
        why = f"1 under: is missing, and the route may be under 2 listeners; {why}"
        self.assert_refused(main, _route("r"), why)
        self.write(main + _listen("x", 3), a=_route("r", "under = *\n"), b=_route("s"))
        self.assertEqual(_under(self.load()), {"r": ["p", "q"], "s": ["q"]})

    def test_parts_that_others_have_named(self) -> None:
        """Of another user's file, what its parts are called allows nothing; where and what the file is called still does."""
        if os.geteuid():
            raise SkipTest("only root can write files of other users")
        for pattern, is_allowed in (("one", False), ("a", True)):
            main = _listen("p", 1, f"routes_from = {pattern}\n")
            self.write(main, a="[unit one]\n" + _route("r"))
            for owner, expected in ((0, True), (65534, is_allowed), (0, True)):
                os.chown(self.folder / "d/a.ini", owner, -1)
                self.assertEqual("r" in _under(self.load()), expected, (pattern, owner))
                ask = partial(open_to, self.load(), f"{self.folder}/d/a.ini [unit one]")
                self.assertEqual(bool(as_nobody(ask) if owner else ask()), expected)

    def test_listeners_that_do_not_allow_the_unit(self) -> None:
        """The operator's route is under none of a unit either."""
        why = "[listen p] takes no routes of this file; let its owner add 'routes_from = a' there"
        self.assert_refused(_listen("p", 1), _route("r", "under = p\n"), f"3 under: {why}")
        self.write(_listen("p", 1) + _route("r", "under = a\n"), a=_listen("a", 2))
        (its,) = self.assertRaises(RulesError, self.load).problems
        why = "[listen a] has another owner; name one of yours"
        self.assertEqual((its.line, its.key, its.message), (7, "under", why))
        why = f"under: names no listener, and none allows routes of this file; {_CURE}"
        for pattern in ("", "routes_from = b\n"):
            for line, more in ((1, ""), (3, "under = *\n")):
                self.assert_refused(_listen("p", 1, pattern), _route("r", more), f"{line} {why}")
        # Where a route may be under the listener of its own name, that is no fault of an ``under`` that nobody has written.
        why = "[listen a] has this name, too; give one of the two another name"
        unit = _listen("a", 2) + _route("a", "terminate_tls = x.pem\n")
        self.assert_refused(_listen("p", 1), unit, f"3 : {why}")

    def test_name_that_is_a_pattern(self) -> None:
        """Nobody is told to write it into 'routes_from', where it would allow files of others."""
        self.write(_listen("p", 1))
        for name in ("*", "x, *", "[a-z]"):
            unit = self.folder / f"d/{name}.ini"
            unit.write_text(_route("r", "under = p\n"))
            (problem,) = self.load().files.untaken[str(unit)]
            why = "call the file by letters, digits, '.', '_' and '-', so that 'routes_from' can name it"
            self.assertEqual(problem.message, f"[listen p] takes no routes of this file; {why}")
            unit.unlink()

    # Scope after a change is what it is when all is read anew.

    def read(self) -> object:
        try:
            rules = self.load()
        except RulesError as error:
            return [*map(str, error.problems)]
        return _under(rules), [*map(str, chain(*rules.files.untaken.values()))]

    def test_comes_and_goes(self) -> None:
        """A second listener, what a pattern names, or a listener of the unit's own."""
        p, q, r = _listen("p", 1), _listen("q", 2), _route("r")
        every, from_a = _route("r", "under = *\n"), _listen("p", 1, "routes_from = a\n")
        for here, there, unit, of_here, of_there in (
            (p + r, p + r + q, ("", ""), ["p"], None),
            (p + every, p + every + q, ("", ""), ["p"], ["p", "q"]),
            (from_a, from_a.replace("= a", "= b"), (r, r), ["p"], None),
            (from_a.replace("= a", "= a*"), from_a.replace("= a", "= b"), (r, r), ["p"], None),
            (from_a, from_a, (r, r + q), ["p"], ["q"]),
        ):
            before, after = (here, unit[0], of_here), (there, unit[1], of_there)
            for main, its, names in (before, after, before):
                self.write(main, a=its)
                found, kept = self.read(), parser.last_read
                parser.last_read = None
                self.assertEqual(self.read(), found)
                parser.last_read = kept
                served, told = found if isinstance(found, tuple) else ({}, found)
                self.assertEqual(served, {"r": names} if names else {}, main)
                self.assertEqual(bool(told), not names, main)

    @settings(max_examples=scaled(60), deadline=None)
    @given(
        patterns=st.lists(st.sampled_from(("", "a", "b", "*", "a, b")), min_size=1, max_size=3),
        own=st.booleans(),
        unit=st.lists(st.sampled_from(_SECTIONS), unique=True),
    )
    def test_what_one_unit_brings_changes_nothing_of_others(
        self, patterns: list[str], *, own: bool, unit: list[str]
    ) -> None:
        """The routes of the operator and of another unit are under the same listeners, whatever a younger unit has."""
        main = _route("r", "under = *\n") + "".join(
            _listen(f"p{at}", at + 1, f"routes_from = {pattern}\n" if pattern else "")
            for at, pattern in enumerate(patterns)
        )
        first = _route("s", "under = *\n") + (_listen("own", 7) if own else "")
        self.write(main, a=first)
        before = _under(self.load())
        self.write(main, a=first, b="".join(unit))
        after = _under(self.load())
        for name in ("r", "s"):
            self.assertEqual(after.get(name), before.get(name))

    def test_one_listener_or_several(self) -> None:
        """One has all routes; of several, each route says which it is for; what was for all by saying nothing is an error."""
        self.assertEqual(_under(parse(_listen("p", 1) + _route("r"), "x.ini")), {"r": ["p"]})
        text = _listen("p", 1) + _route("r", "under = *\n")
        self.assertEqual(_under(parse(text, "x.ini")), {"r": ["p"]})
        both = _listen("p", 1) + _listen("q", 2)
        text = both + _route("some", "under = q\n") + _route("all", "under = *\n")
        self.assertEqual(_under(parse(text, "x.ini")), {"some": ["q"], "all": ["p", "q"]})

"""Tests of units: the parts of rules with owners of their own."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.folders import make_folder
from txmux.rules.problems import RulesError
from txmux.rules.reading.parser import load

LISTEN = "[listen public]\nendpoint = :443\n"


class UnitsTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def test_units_of_sections(self) -> None:
        """A file that a pattern finds is a unit, and is divided by its [unit] sections; what is included by name is the operator's."""
        path = self.write("rules.ini", f"[txmux]\ninclude = d/*.ini, own.ini\n{LISTEN}")
        self.write("own.ini", "[backend own]\nserver = 127.0.0.1:1\n")
        texts = (f"[backend {name}]\nserver = 127.0.0.1:1\n" for name in "abcd")
        a, b, c, d = texts
        self.write("d/x.ini", f"{a}[unit team-1]\n{b}[unit team-2]\n\n{c}")
        self.write("d/y.ini", d)
        for text in (a, f"# moved\n{a}"):  # the second time, sections are taken over
            self.write("d/x.ini", f"{text}[unit team-1]\n{b}[unit team-2]\n\n{c}")
            rules = load(path)
            x, y = f"{self.folder}/d/x.ini", f"{self.folder}/d/y.ini"
            self.assertEqual(
                {name: rules.unit_of(its.section) for name, its in rules.backends.items()},
                {"own": "", "a": x, "b": f"{x} [unit team-1]", "c": f"{x} [unit team-2]", "d": y},
            )
            self.assertEqual(rules.unit_of(rules.listeners[0].section), "")

    def test_wrong(self) -> None:
        path = self.write("rules.ini", f"[txmux]\ninclude = own.ini\n{LISTEN}")
        self.write("own.ini", "[unit a]\n")
        [problem] = self.problems(path)
        self.assertIn("is only for files that a pattern of 'include' finds", problem)

    def problems(self, path: Path) -> list[str]:
        with self.assertRaises(RulesError) as caught:
            load(path)
        return [*map(str, caught.exception.problems)]

import re

from twisted.trial.unittest import SynchronousTestCase

from tests.support.examples import SHARE, has_turn
from tests.support.folders import make_folder
from tests.support.marks import are_all_whole, has_whole
from tests.support.nested import run_tests

_CONFTEST = "from tests.support.marks import pytest_collection_modifyitems, pytest_ignore_collect\n"
_TESTS = """
import pytest, unittest

@pytest.mark.by_turns(each=True)
class EachTests(unittest.TestCase):
    def test_a(self): pass
    def test_b(self): pass
    def test_c(self): pass
    def test_d(self): pass
    def test_e(self): pass

@pytest.mark.whole
@pytest.mark.by_turns
class TogetherTests(unittest.TestCase):
    def test_a(self): pass
    def test_b(self): pass

class Tests(unittest.TestCase):
    def test_a(self): pass
"""
_ALWAYS = "Tests::test_a"


class MarksTests(SynchronousTestCase):
    def chosen(self, turn: str, *words: str, tests: str = _TESTS) -> list[str]:
        registered = [f"--override-ini=markers={'whole: x'}\nby_turns: y\nlong: z"]
        _, said = run_tests(
            self, _CONFTEST, tests, f"TXMUX_TURN={turn}", words=[*registered, "-vv", *words]
        )
        return re.findall(r"test_some\.py::(\S+) PASSED", said)

    def test_turns(self) -> None:
        """Each test, or each class, has its turn in one of as many commits as its share says, and those without a share in all."""
        runs = [self.chosen(f"{turn}") for turn in range(SHARE)]
        in_turns = [name for run in runs for name in run if name != _ALWAYS]
        self.assertEqual((len(in_turns), len({*in_turns})), (7, 7))
        for run in runs:
            self.assertIn(_ALWAYS, run)
            self.assertIn(len([name for name in run if "Together" in name]), (0, 2))
        self.assertGreater(len([run for run in runs if "EachTests" in str(run)]), 1)
        self.assertTrue(has_turn("any", ""))

    def test_a_file_of_which_nothing_runs_is_not_even_imported(self) -> None:
        together = [f"TogetherTests::test_{one}" for one in "ab"]
        self.assertEqual(self.chosen("", "-m", "whole"), together)
        self.assertEqual(len(self.chosen("", "-m", "not whole")), 6)
        other = "import pytest\npytestmark = pytest.mark.whole\nraise SystemExit(3)\n"
        self.assertEqual(self.chosen("", "-m", "not whole", tests=other), [])

    def test_all_that_is_below_a_folder_with_the_mark_has_it(self) -> None:
        folder = make_folder(self)
        within = folder / "some/inner"
        within.mkdir(parents=True)
        for place, text in (
            ("some", "pytestmark = [pytest.mark.long, pytest.mark.whole]\n"),
            ("some/inner", ""),
        ):
            (folder / place / "__init__.py").write_text(text)
        file, other = within / "test_x.py", folder / "test_y.py"
        for one in (file, other):
            one.write_text("x = 1\n")
        self.assertTrue(are_all_whole(file) and are_all_whole(within) and has_whole(file))
        self.assertFalse(are_all_whole(other) or are_all_whole(folder) or has_whole(other))

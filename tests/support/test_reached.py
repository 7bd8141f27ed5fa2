"""Tests that assert next to nothing fail: a run of some, with the plugin that finds them."""

import re

from twisted.trial.unittest import SynchronousTestCase

from tests.support.nested import run_tests

_CONFTEST = """
from tests.support.reached import Reached
def pytest_configure(config): config.pluginmanager.register(Reached())
"""
_TESTS = """
from hypothesis import given, settings, strategies as st
from twisted.trial.unittest import TestCase

class Base:
    def check(self, *numbers):
        for number in numbers:
            self.assertTrue(number)

class Tests(Base, TestCase):
    @given(st.integers(0, 99))
    def test_few(self, number):
        if number == 50:
            self.assertTrue(number)

    @settings(max_examples=15)
    @given(st.integers())
    def test_none_of_few(self, number):
        for _ in ():
            self.assertTrue(number)

    @settings(max_examples=14)
    @given(st.integers())
    def test_very_few(self, number):
        for _ in ():
            self.assertTrue(number)

    @given(st.integers(0, 99))
    def test_enough(self, number):
        if number % 4:
            self.check(number)
            self.assertTrue(number)

    @given(st.integers())
    def test_raises_nothing(self, number):
        str(number)

    def test_idle_loop(self):
        self.assertTrue(1)
        for number in ():
            self.assertTrue(number)

    def test_all_of_nothing(self):
        found = []
        self.assertTrue(all(one < 0 for one in found))

    async def test_loops(self):
        super().check()
        for number in 1, 2:
            for _ in "ab":
                self.assertTrue(number)
        for number in ():
            str(number)
        self.assertTrue(all(one > 0 for one in (1, 2)))
        self.assertEqual([one for one in () if one > 0], [])

    def test_failed(self):
        for _ in ():
            self.assertTrue(1)
        self.fail("first")
"""


class ReachedTests(SynchronousTestCase):
    def test_what_fails(self) -> None:
        _, said = run_tests(self, _CONFTEST, _TESTS)
        found = re.findall(r"_ Tests\.(\w+) _+\n(.*)\n", said)
        self.assertEqual(
            [(name, re.sub(r"\d+", "N", why)) for name, why in found if why],
            [
                ("test_all_of_nothing", "the loop in line N has no turn"),
                ("test_few", "N of N examples reach an assertion"),
                ("test_idle_loop", "the loop in line N has no turn"),
                ("test_none_of_few", "N of N examples reach an assertion"),
            ],
        )
        self.assertIn("FailTest: first", said)
        self.assertIn("5 failed, 4 passed", said)

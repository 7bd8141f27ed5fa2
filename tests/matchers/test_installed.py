"""What holds for all matchers that are installed."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import txmux.matchers
from txmux.detection.registry import installed_matchers
from txmux.interfaces import Peeked, Verdict
from txmux.testing import with_example


class InstalledMatcherTests(SynchronousTestCase):
    """The matchers that the plugin system finds."""

    def test_built_in(self) -> None:
        """The matchers that come with txmux are among them."""
        built_in = {"any", "http", "payload", "redis", "regex", "ssh", "tls"}
        self.assertLessEqual(built_in, installed_matchers().keys())

    def test_checked(self) -> None:
        """Each one that comes with txmux has a test file that checks its contract."""
        folder = Path(__file__).parent
        for module in sorted(
            path.stem for path in Path(txmux.matchers.__path__[0]).glob("[a-z]*.py")
        ):
            file = folder / f"test_{module}.py"
            duty = f"write tests/matchers/{file.name}, which gives check_matcher SAMPLES and others"
            self.assertTrue(file.exists() and "check_matcher(" in file.read_text(), duty)

    def test_silence(self) -> None:
        """None of them decides before the first byte."""
        for name, matcher in installed_matchers().items():
            for option in matcher.options:
                options = with_example(matcher, option.name)
                assert options is not None
                predicate = matcher.predicate(options)
                self.assertIs(predicate(Peeked(b"")), Verdict.NEED_MORE, name)

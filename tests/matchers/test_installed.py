"""What holds for all matchers that are installed."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import txmux.matchers
from txmux.detection.registry import installed_matchers
from txmux.interfaces import Peeked, Verdict
from txmux.testing import with_example

_MATCHERS = Path(txmux.matchers.__path__[0])


class InstalledMatcherTests(SynchronousTestCase):
    """The matchers that the plugin system finds."""

    def test_built_in(self) -> None:
        """The matchers that come with txmux are among them, and each has a test file that checks its contract."""
        for name in sorted(path.stem for path in _MATCHERS.glob("[a-z]*.py")):
            duty = f"import the matcher `{name}` in twisted/plugins/txmux_matchers.py"
            self.assertIn(name, installed_matchers(), duty)
            file = Path(__file__).with_name(f"test_{name}.py")
            duty = f"write tests/matchers/{file.name}: SAMPLES, and a call of check_matcher"
            self.assertTrue(file.exists() and "check_matcher(" in file.read_text(), duty)

    def test_silence(self) -> None:
        """None of them decides before the first byte."""
        for name, matcher in installed_matchers().items():
            for option in matcher.options:
                options = with_example(matcher, option.name)
                assert options is not None
                predicate = matcher.predicate(options)
                self.assertIs(predicate(Peeked(b"")), Verdict.NEED_MORE, name)

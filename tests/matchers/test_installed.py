"""What holds for all matchers that are installed."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import txmux.matchers
from txmux.detection.registry import installed_matchers, transports_of
from txmux.interfaces import Peeked, Transport, Verdict
from txmux.testing import with_example

_MATCHERS = Path(txmux.matchers.__path__[0])


class InstalledMatcherTests(SynchronousTestCase):
    """The matchers that the plugin system finds."""

    def test_built_in(self) -> None:
        """Each matcher of txmux is called as its module is, and has a test file that checks its contract."""
        for path in sorted(_MATCHERS.glob("[a-z]*.py")):
            name = path.stem.replace("_", "-")
            self.assertEqual(installed_matchers()[name].name, name)
            file = Path(__file__).with_name(f"test_{path.stem}.py")
            duty = f"write tests/matchers/{file.name}: SAMPLES, and a call of check_matcher; for UDP DATAGRAMS and check_datagrams"
            text = file.read_text() if file.exists() else ""
            self.assertTrue("check_matcher(" in text or "check_datagrams(" in text, duty)

    def test_silence(self) -> None:
        """None of them decides before the first byte."""
        for name, matcher in installed_matchers().items():
            if Transport.TCP not in transports_of(matcher):
                continue
            for option in matcher.options:
                options = with_example(matcher, option.name)
                assert options is not None
                predicate = matcher.predicate(options)
                self.assertIs(predicate(Peeked(b"")), Verdict.NEED_MORE, name)

"""The soak on a small scale: connections of every kind, again and again, leave nothing behind."""

import sys
from pathlib import Path

import pytest

from tests.interop.children import InteropTestCase, succeed

pytestmark = pytest.mark.whole

_CHECKOUT = Path(__file__).parent.parent
_CONNECTIONS = 3000


@pytest.mark.by_turns(each=True)
class SoakTests(InteropTestCase):
    def soak(self, relay: str) -> None:
        # Its forked processes, when they are ended, would wait for each other in what coverage does then.
        unmeasured = ("env", "-u", "COVERAGE_PROCESS_CONFIG", "-u", "COVERAGE_PROCESS_START")
        command = (*unmeasured, f"PYTHONPATH={_CHECKOUT}", sys.executable, "-m", "benchmarks.soak")
        options = ("--connections", str(_CONNECTIONS), "--rounds", "5", "--relay", relay)
        done = succeed(*command, *options, timeout=900)
        self.assertIn(f"| {_CONNECTIONS} |".encode(), done.stdout)
        self.assertIn(b"verdict: all is well", done.stdout)

    def test_kernel_relay(self) -> None:
        self.soak("kernel")

    def test_portable_relay(self) -> None:
        self.soak("portable")

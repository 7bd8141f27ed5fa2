"""What clients notice of changes, beside peers: a run on a small scale, and what is published of a whole one."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from twisted.trial.unittest import SynchronousTestCase

from benchmarks.changes.services import SERVICES
from tests.support.kit import leave_unmeasured, require_program, run_text

pytestmark = [pytest.mark.whole, pytest.mark.by_turns]

_CHECKOUT = Path(__file__).parent.parent


class ChangesTests(SynchronousTestCase):
    def setUp(self) -> None:
        # As in the tests of the other benchmarks.
        leave_unmeasured(self)

    def run_it(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run_text(
            sys.executable, "-m", "benchmarks.changes", *arguments, cwd=_CHECKOUT, seconds=900
        )

    def measured(
        self, key: str, kinds: str = "reload,upgrade,limited"
    ) -> dict[str, dict[str, float]]:
        with tempfile.TemporaryDirectory() as made:
            done = self.run_it("--quick", "--only", key, "--kinds", kinds, "--output", made)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(Path(made, "changes.md").read_text(), done.stdout)
            outcomes = json.loads(Path(made, "changes.json").read_text())["outcomes"]
        return {kind: by[key] for kind, by in outcomes.items()}

    def test_txmux(self) -> None:
        """Clients of txmux notice nothing, whatever changes, and nothing remains of old processes."""
        require_program("taskset")
        for kind, figures in self.measured("txmux-1").items():
            self.assertGreater(figures["served"], 100, kind)
            for name in ("refused", "reset", "timed_out", "wrong", "cut", "lingering"):
                self.assertEqual(figures[name], 0, (kind, name))
            self.assertEqual(figures["lived"], figures["done"], kind)

    def test_peer(self) -> None:
        """It does count what is cut: nginx ends its old processes with their connections if their time is limited, or keeps them."""
        for program in ("taskset", "nginx"):
            require_program(program)
        figures = self.measured("nginx-1", "reload,limited")
        self.assertEqual(figures["reload"]["cut"], 0)
        self.assertGreater(figures["reload"]["lingering"], 0)
        self.assertGreater(figures["limited"]["cut"], 0)
        self.assertEqual(figures["limited"]["lingering"], 0)

    def test_names(self) -> None:
        # An unknown one lists known ones.
        for option, known in (("--only", "txmux-1"), ("--kinds", "reload")):
            done = self.run_it(option, "envoy")
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stderr, rf"\Achanges: .*there are {known}, ")
        # Each program is measured alone and with three workers, and the page has a column for each.
        wanted = {(name, count) for name in ("txmux", "haproxy", "nginx") for count in (1, 3)}
        self.assertEqual({(service.family, service.workers) for service in SERVICES}, wanted)

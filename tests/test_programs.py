"""A missing program skips a test, or fails it where all must be there."""

import os
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.programs import require_program


class RequireProgramTests(SynchronousTestCase):
    def test_program_in_path(self) -> None:
        self.assertTrue(os.access(require_program("sh"), os.X_OK))

    def test_missing_program_skips(self) -> None:
        self.patch(os, "environ", {"PATH": os.defpath})
        self.assertRaises(SkipTest, require_program, "no-such-program")

    def test_missing_but_required_fails(self) -> None:
        self.patch(os, "environ", {"PATH": os.defpath, "TXMUX_REQUIRE_SERVERS": "1"})
        error = self.assertRaises(AssertionError, require_program, "no-such-program")
        self.assertIn("no-such-program is not installed", str(error))

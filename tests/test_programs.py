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

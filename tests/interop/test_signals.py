"""Signals to stop that come again and again."""

import contextlib
import subprocess

import pytest

from tests.interop.children import InteropTestCase
from tests.support.services import Service

pytestmark = pytest.mark.by_turns


class ManySignalsTest(InteropTestCase):
    def test_many_are_no_error(self) -> None:
        mux = Service(self.folder, "")
        self.addCleanup(mux.child.end)
        mux.terminate()
        ended = False
        while not ended:
            # Without a pause it would do nothing but handle signals.
            with contextlib.suppress(subprocess.TimeoutExpired):
                mux.child.process.wait(0.01)
                ended = True
            mux.terminate()
        mux.assert_stopped()

"""A time of day that tests set, for the programs of Python that they start."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from twisted.trial.unittest import SynchronousTestCase

_SHIM = """
import os
import time

real = time.time


def stepped():
    with open(os.environ["CLOCK_STEP"]) as step:
        return real() + float(step.read())


time.time = stepped
"""
"""What every Python runs first: the time of day is as far off as a file says."""


class SteppedClock:
    """The clock of all programs of Python that a test starts from now on.

    Args:
        test: Until it ends.
        folder: For its files.
    """

    def __init__(self, test: SynchronousTestCase, folder: Path) -> None:
        shims = folder / "shims"
        shims.mkdir(exist_ok=True)
        (shims / "sitecustomize.py").write_text(_SHIM)
        self._file = folder / "step"
        self.step(0)
        path = os.pathsep.join([str(shims), os.environ.get("PYTHONPATH", "")])
        test.patch(os, "environ", {**os.environ, "PYTHONPATH": path, "CLOCK_STEP": str(self._file)})

    def step(self, seconds: float) -> None:
        """Set it, this far from the true time."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(str(seconds))
        fresh.replace(self._file)

"""A time of day that tests set, for the programs of Python that they start."""

import os
import struct
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

_SHIM = """
import mmap
import os
import struct
import time

real = time.time
with open(os.environ["CLOCK_STEP"], "rb") as file:
    step = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)


def stepped():
    return real() + struct.unpack("d", step)[0]


time.time = stepped
"""
"""What every Python runs first: the time of day is as far off as a file says.

It is in memory that forked processes share: workers may open no file.
"""


class SteppedClock:
    """The clock of all programs of Python that a test starts from now on, with its files in a folder."""

    def __init__(self, test: SynchronousTestCase, folder: Path) -> None:
        shims = folder / "shims"
        shims.mkdir(exist_ok=True)
        (shims / "sitecustomize.py").write_text(_SHIM)
        self._file = folder / "step"
        self.step(0)
        path = os.pathsep.join([str(shims), os.environ.get("PYTHONPATH", "")])
        test.patch(os, "environ", {**os.environ, "PYTHONPATH": path, "CLOCK_STEP": str(self._file)})

    def step(self, seconds: float) -> None:
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("d", seconds))

"""``python dead_disk.py TWIST …``: runs ``twist`` where the disk of a file does not answer while there is a file of its name with ``.dead`` behind it."""

import runpy
import sys
import time
from pathlib import Path
from typing import BinaryIO

from txmux import files

PATIENCE = 1.0


def _open_when_back(path: Path) -> BinaryIO:
    while Path(f"{path}.dead").exists():
        time.sleep(0.05)
    return _open(path)


if __name__ == "__main__":
    _open, files._open_own, files.PATIENCE = files._open_own, _open_when_back, PATIENCE
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")

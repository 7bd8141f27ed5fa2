"""``python dead_disk.py TWIST …``: runs ``twist`` where the disk of a file does not answer while there is a file of its name with ``.dead`` behind it."""

import os
import runpy
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

from txmux import files

PATIENCE = 1.0


def _wait_for(path: Any) -> None:
    while Path(f"{path}.dead").exists():
        time.sleep(0.05)


def _open_when_back(path: Path) -> BinaryIO:
    _wait_for(path)
    return _open(path)


def _lstat_when_back(path: Any, **more: Any) -> os.stat_result:
    _wait_for(path)
    return _lstat(path, **more)


if __name__ == "__main__":
    _lstat, os.lstat = os.lstat, _lstat_when_back
    _open, files._open_own, files.PATIENCE = files._open_own, _open_when_back, PATIENCE
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")

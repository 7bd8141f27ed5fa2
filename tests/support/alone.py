"""Tests see no service of this machine, whatever runs on it: what they ask for one, or stop, is their own."""

import os
import runpy
from pathlib import Path

from txmux import files

RULES = files.RULES
"""The real default, where there may be rules of this machine."""

_NOWHERE = Path("/nonexistent")


def see_no_services() -> None:
    """Have this process find only services that a test names, and the programs that `forks` forks. ``python -m`` this module is ``-m txmux`` so."""
    for name in ("TXMUX_ADMIN", "TXMUX_ADMIN_TOKEN", "XDG_RUNTIME_DIR"):
        os.environ.pop(name, None)
    # Services of root would make /run/txmux, where those of all tests would meet.
    os.environ["RUNTIME_DIRECTORY"] = str(_NOWHERE)
    files.RUN = files.USERS = _NOWHERE / "run"
    files.RULES = _NOWHERE / "rules.ini"


if __name__ == "__main__":
    see_no_services()
    runpy.run_module("txmux", run_name="__main__", alter_sys=True)

"""Where Python may not keep compiled modules, all processes of the tests share some: to compile is a third of their start.

Imported before `forks`, whose process has the environment of then.
"""

import os
import shutil
import tempfile
from pathlib import Path

_folder = ""

if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    _folder = tempfile.mkdtemp(prefix="txmux-compiled-")
    # Some run as another user.
    Path(_folder).chmod(0o755)
    os.environ["PYTHONPYCACHEPREFIX"] = _folder


def remove_compiled() -> None:
    if _folder:
        shutil.rmtree(_folder, ignore_errors=True)

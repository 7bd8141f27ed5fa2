import os
import shutil
import subprocess
from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.internet.defer import Deferred
from twisted.internet.utils import getProcessOutputAndValue

_SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Where servers are; an ordinary user's PATH does not have them."""


def require_program(name: str) -> str:
    """Find a program that a test cannot do without.

    Raises:
        SkipTest: It is not installed.
    """
    folders = os.pathsep.join([os.environ.get("PATH", os.defpath), *_SYSTEM_FOLDERS])
    path = shutil.which(name, path=folders)
    if path is not None:
        return path
    raise SkipTest(f"{name} is not installed")


def run_program(
    name: str, *arguments: str, stdin: bytes = b""
) -> Deferred[tuple[bytes, bytes, int]]:
    result: Deferred[tuple[bytes, bytes, int]] = getProcessOutputAndValue(
        require_program(name), arguments, env=dict(os.environ), stdinBytes=stdin
    )
    return result


def run_text(
    *command: str | Path, stdin: str = "", check: bool = False, seconds: float = 300.0, **more: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, perhaps in another `cwd` or `env`; what it prints is text."""
    more |= {"input": stdin, "timeout": seconds}
    return subprocess.run(command, capture_output=True, text=True, check=check, **more)

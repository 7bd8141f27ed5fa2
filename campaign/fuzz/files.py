"""Keeps what is tried from the files of this machine, which chance may name: ``/dev/zero``, or all folders."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from tests.convert.converting import matchers

_READING = frozenset({"open", "os.listdir", "os.scandir"})
_CODE = (".py", ".pyc", ".so")
_state = {"hooked": False, "closed": False}


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    # A number is a file that is open already, such as one with compiled code that is being written.
    if event in _READING and _state["closed"] and not isinstance(arguments[0], int):
        path = str(arguments[0])
        of_python = (
            path.endswith(_CODE)
            or ".pyc." in path
            or path.startswith(tuple(filter(None, sys.path or ())))
        )
        # Some have others read a temporary file.
        folder = tempfile.gettempdir()
        is_new = event == "open" and (path == folder or path.startswith(f"{folder}/tmp"))
        if not of_python and not is_new:
            raise FileNotFoundError(2, "No such file or directory", path)


@contextmanager
def no_files() -> Iterator[None]:
    """Let no file be found and no folder be listed, but for Python's own code and new temporary files."""
    if not _state["hooked"]:
        _state["hooked"] = True
        sys.addaudithook(_hook)
    matchers()  # of which Twisted keeps a file
    tempfile.gettempdir()  # which looks for the folder once
    _state["closed"] = True
    try:
        yield
    finally:
        _state["closed"] = False

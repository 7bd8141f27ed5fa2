"""Running commands in this process."""

from __future__ import annotations

from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from tests.support.folders import make_folder
from txmux.cli import main

if TYPE_CHECKING:
    from pathlib import Path


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


class CommandTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)

    def write(self, name: str, data: bytes | str) -> Path:
        path = self.folder / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    def run_main(self, *arguments: str | Path, out: StringIO | None = None) -> tuple[int, str, str]:
        """Run the program; its exit code, output and error output."""
        out, err = out or StringIO(), StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                code = main([str(argument) for argument in arguments])
            except SystemExit as stop:
                code = int(stop.code or 0)
        return code, out.getvalue(), err.getvalue()

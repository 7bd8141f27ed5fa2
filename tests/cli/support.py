import errno
import json
import os
from contextlib import AbstractContextManager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

from twisted.trial.unittest import SynchronousTestCase

from tests.cli.remote.answering import DONE, Answering
from tests.support.changes import change_constants
from tests.support.folders import make_folder
from txmux import files
from txmux.cli import check, main
from txmux.rules.lint.privileges import Privileges


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def unconfined() -> AbstractContextManager[object]:
    """Run `explain` without the sandbox, in which it would leave this process."""
    return patch("txmux.processes.worker.sandbox.confine")


class CommandTestCase(SynchronousTestCase):
    """Runs commands in this process.

    Attributes:
        text: The rules that `explain` explains.
        run_folder: Where services put their sockets; nothing in `environ` names others.
    """

    text = ""

    def setUp(self) -> None:
        self.folder = make_folder(self)
        if self.text:
            self.rules = self.write("rules.ini", self.text)
        self.run_folder = make_folder(self)
        change_constants(self, files, RUN=self.run_folder)
        self.users = self.folder / "users"
        change_constants(self, files, USERS=self.users)
        self.environ = {"PATH": "/usr/bin:/bin"}

    def write(self, name: str, data: bytes | str) -> Path:
        path = self.folder / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    def run_main(self, *arguments: str | Path, out: StringIO | None = None) -> tuple[int, str, str]:
        """Run the program; its exit code, output and error output."""
        out, err = out or StringIO(), StringIO()
        with redirect_stdout(out), redirect_stderr(err), unconfined():
            try:
                code = main([str(argument) for argument in arguments])
            except SystemExit as stop:
                code = int(stop.code or 0)
        return code, out.getvalue(), err.getvalue()

    def be_user(self, number: int) -> None:
        """Have `check` take this process for a user's that has no privilege."""
        self.patch(check, "own_privileges", lambda: Privileges(number))

    def fill_disk(self) -> None:
        no_room = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.patch(os, "fsync", Mock(side_effect=no_room))

    def told(self, code: int, ended: tuple[int, str, str]) -> str:
        """Give what a command says that ends with this code: errors by the error output, and nothing by the other."""
        said, other = ended[1:] if code == 0 else ended[:0:-1]
        self.assertEqual((ended[0], other), (code, ""))
        return said

    def explain(self, *arguments: str | Path) -> str:
        return self.told(0, self.run_main("explain", self.rules, *arguments))

    def unexplained(self, *arguments: str | Path, code: int = 1) -> str:
        """Explain what cannot be; the error output."""
        return self.told(code, self.run_main("explain", self.rules, *arguments))

    def explain_json(self, *arguments: str | Path) -> Any:
        """Explain; the first listener of the first stream of the document."""
        return json.loads(self.explain("--json", *arguments))["streams"][0]["listeners"][0]

    def answering(
        self,
        address: Path | tuple[str, int] | None = None,
        document: object = DONE,
        status: int = 200,
    ) -> Answering:
        server = Answering(address or self.run_folder / "rules.sock", document, status)
        self.addCleanup(server.end)
        return server

    def ask(self, *arguments: str | Path, **environ: str | Path) -> tuple[int, str, str]:
        values = {name: str(value) for name, value in environ.items()}
        with patch.dict("os.environ", {**self.environ, **values}, clear=True):
            return self.run_main(*arguments)

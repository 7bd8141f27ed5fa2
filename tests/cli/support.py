import json
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from tests.support.folders import make_folder
from txmux.cli import main


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
        # `explain` would leave this process in the sandbox.
        confining = patch("txmux.processes.worker.sandbox.confine")
        with redirect_stdout(out), redirect_stderr(err), confining:
            try:
                code = main([str(argument) for argument in arguments])
            except SystemExit as stop:
                code = int(stop.code or 0)
        return code, out.getvalue(), err.getvalue()


class ExplainTestCase(CommandTestCase):
    text: ClassVar[str]

    def setUp(self) -> None:
        super().setUp()
        self.rules = self.write("rules.ini", self.text)

    def explain(self, *arguments: str | Path) -> str:
        code, out, err = self.run_main("explain", self.rules, *arguments)
        self.assertEqual((code, err), (0, ""))
        return out

    def explain_json(self, *arguments: str | Path) -> Any:
        """Explain; the first listener of the first stream of the document."""
        return json.loads(self.explain("--json", *arguments))["streams"][0]["listeners"][0]

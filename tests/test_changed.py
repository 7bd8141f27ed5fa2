import sys
from pathlib import Path
from runpy import run_path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.kit import make_folder, require_program, run_text

_PROGRAM = Path(__file__).parent.parent / "script/lib/changed.py"
_FILES = {
    "txmux/wire/hello.py": "", "txmux/wire/bits.py": "", "txmux/wire/old.py": "",
    "tests/conftest.py": "", "tests/support/mux.py": "from txmux.wire.bits import bit",
    "tests/tcp/test_of_mux.py": "from tests.support.mux import mux", "tests/test_structure.py": "",
    "tests/test_other.py": "", "tests/convert/sslh/test_sslh.py": "",
    "tests/wire/case.py": "from txmux.wire import (\n    bits,\n    hello,\n)",
    "tests/wire/test_by_case.py": "from tests.wire.case import x", "tests/wire/test_hello.py": "",
    "tests/wire/test_hello_records.py": "",
    "tests/wire/test_in_text.py": "patch('txmux.wire.old.name')",
}  # fmt: skip


class ChangedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)
        for path, text in _FILES.items():
            self.write(path, text)
        self.program: Any = run_path(str(_PROGRAM))

    def write(self, path: str, text: str = "x = 1") -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def git(self, *words: str) -> None:
        settings = ("-c", "user.name=x", "-c", "user.email=x@example.com")
        run_text(require_program("git"), *settings, *words, cwd=self.folder, check=True)

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message=x")

    def tests(self, *changed: str) -> list[str]:
        found: list[str] = self.program["tests_of"](self.folder, list(changed))
        found.remove("tests/test_structure.py")
        return [path.removeprefix("tests/") for path in found]

    def test_modules(self) -> None:
        self.assertEqual(self.tests(), [])
        # The tests of a module have its name or name it, or use a helper that does, unless that is one of all tests.
        by_name = ["wire/test_hello.py", "wire/test_hello_records.py"]
        self.assertEqual(self.tests("txmux/wire/hello.py"), ["wire/test_by_case.py", *by_name])
        self.assertEqual(self.tests("txmux/wire/hello.txt"), by_name)
        # A module without tests of its name has those of its folder; it may be gone.
        all_of_wire = [f"wire/test_{name}.py" for name in ("by_case", "hello", "hello_records")]
        for path in ("txmux/wire/bits.py", "txmux/wire/gone.py"):
            self.assertEqual(self.tests(path), [*all_of_wire, "wire/test_in_text.py"])
        self.assertEqual(self.tests("tests/test_other.py"), ["test_other.py"])
        self.assertEqual(self.tests("tests/support/mux.py"), ["tcp/test_of_mux.py"])
        self.assertEqual(self.tests("tests/test_gone.py"), [])
        self.assertEqual(self.tests("txmux_convert/x.py"), ["convert/sslh/test_sslh.py"])

    def test_committed_and_uncommitted_changes(self) -> None:
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit()
        self.git("checkout", "--quiet", "-b", "other")
        self.write("txmux/wire/hello.py")
        self.commit()
        self.write("txmux/wire/new.py")
        (self.folder / "txmux/wire/old.py").unlink()
        wanted = [f"txmux/wire/{name}.py" for name in ("hello", "new", "old")]
        self.assertEqual(self.program["changed_files"](self.folder), wanted)

    def test_existing_files_of_this_project(self) -> None:
        require_program("git")
        done = run_text(sys.executable, _PROGRAM, check=True)
        self.assertIn("tests/test_structure.py\n", done.stdout)
        for path in done.stdout.splitlines():
            self.assertTrue((_PROGRAM.parents[2] / path).is_file(), path)

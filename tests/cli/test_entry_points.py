import re
import sys
from pathlib import Path
from runpy import run_path
from types import ModuleType

from tests.support.kit import CommandTestCase, change_constants

_ROOT = Path(__file__).parents[2]
_PAGE = (_ROOT / "docs/reference/commands.md").read_text().partition("## Commands of other")[2]
_GREET = re.findall(r"```python\n(.*?)```", _PAGE, re.DOTALL)[0]
_BROKEN = {
    "raises": ("1 / 0", "ZeroDivisionError: division by zero"),
    "ends": ("raise SystemExit(0)", "SystemExit: 0"),
    "nameless": (_GREET.replace("SUMMARY", "OTHER"), "has no attribute 'SUMMARY'"),
    "idle": (_GREET.replace("def run", "def walk"), "has no attribute 'run'"),
    "percent": (_GREET.replace("the person", "100 %"), "ValueError: "),
    "needs": ("import no_such_package", "No module named 'no_such_package'"),
}
"""By name: the module, and what is said of it."""


class EntryPointTests(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        change_constants(self, sys, path=[str(self.folder), *sys.path])
        self.addCleanup(self.forget, "worn_", "polite_", "one_", "two_")

    @staticmethod
    def forget(*names: str) -> dict[str, ModuleType]:
        found = [name for name in sys.modules if name.startswith(names)]
        return {name: sys.modules.pop(name) for name in found}

    def bring(self, package: str, **modules: str) -> None:
        folder = self.folder / f"{package}-1.2.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
        lines = "".join(f"{name} = {package}_{name}\n" for name in modules)
        (folder / "entry_points.txt").write_text(f"[txmux.commands]\n{lines}")
        for name, text in modules.items():
            (self.folder / f"{package}_{name}.py").write_text(text)

    def test_command_of_the_documentation(self) -> None:
        table = '[project.entry-points."txmux.commands"]\ngreet = "my_package.greet"\n'
        self.assertIn(table, _PAGE)
        self.bring("polite", greet=_GREET)
        self.assertEqual(self.run_main("greet", "Ada"), (0, "Hello, Ada.\n", ""))
        code, out, err = self.run_main("greet", "")
        self.assertEqual((code, out, err[:19]), (1, "", "txmux: the name is "))
        code, out, _ = self.run_main("greet", "--help")
        self.assertEqual((code, out[:29]), (0, "usage: txmux greet [-h] NAME\n"))
        _, out, _ = self.run_main("--help")
        listed = re.findall(r"^    (\w+)", out, re.MULTILINE)
        self.assertEqual(listed[listed.index("fmt") :][:2], ["fmt", "greet"])
        self.assertRegex(out, r"\n    greet +Greet a person\.\n")
        self.assertIn("did you mean 'greet'?", self.run_main("gret")[2])
        self.assertIn("unrecognized arguments: --x\n", self.run_main("greet", "Ada", "--x")[2])
        for shell in ("bash", "zsh", "fish"):
            self.assertIn("greet", self.run_main("completion", shell)[1])
        pages = run_path(str(_ROOT / "docs/manpages.py"))["pages"]()
        self.assertIn("greet a person", pages["txmux-greet.1"])
        self.assertIn(r"txmux\-greet", pages["txmux.1"])
        self.assertIn("txmux-convert.1", pages)

    def test_broken_commands_name_their_package_and_harm_no_other(self) -> None:
        self.bring("polite", greet=_GREET)
        self.bring("worn", **{name: text for name, (text, _) in _BROKEN.items()})
        for name, (_, problem) in _BROKEN.items():
            code, out, err = self.run_main(name)
            begin = f"txmux: the command {name!r} of worn 1.2 cannot be loaded: "
            self.assertEqual((code, out, err[: len(begin)]), (1, "", begin))
            self.assertIn(problem, err)
            self.assertTrue(err.endswith("; update that package, or uninstall it\n"), err)
        (self.folder / "worn_raises.py").unlink()
        code, _, err = self.run_main("raises")
        needed = "txmux: the command 'raises' needs worn_raises, a part of worn 1.2 that is not installed; install that again: "
        self.assertEqual((code, err.startswith(needed)), (1, True), err)
        self.assertTrue(err.endswith("pip install --force-reinstall --no-deps worn\n"), err)
        self.assertEqual(self.run_main("greet", "Ada")[0], 0)
        self.assertEqual(self.run_main("fmt", "--help")[0], 0)
        one_line = " ".join(self.told(0, self.run_main("--help")).split())
        self.assertIn("idle the command 'idle' of worn 1.2 cannot be loaded", one_line)
        self.assertIn("convert Write the configuration of another program", one_line)
        code, out, _ = self.run_main("completion", "bash")
        self.assertEqual((code, " greet " in out, " idle " in out), (0, True, True))

    def test_who_brings_a_command(self) -> None:
        """Those of txmux come first; one of two other packages is a guess."""
        odd = {"-x": "", "b c": "", "É": ""}
        self.bring("one", greet=_GREET, fmt=_GREET, convert=_GREET, **odd)
        self.bring("two", greet=_GREET)
        code, out, err = self.run_main("greet", "Ada")
        both = {
            f"txmux: the command 'greet' comes from {a} 1.2 and {b} 1.2; uninstall one\n"
            for a, b in (("one", "two"), ("two", "one"))
        }
        self.assertEqual((code, out, err in both), (1, "", True), err)
        for name in ("fmt", "convert"):
            self.assertIn("FILE", self.run_main(name, "--help")[1])
        self.assertNotIn("-x", self.run_main("--help")[1])

    def test_without_txmux_convert(self) -> None:
        """It says what is missing and how to get it, be it known to be a part of the installation or not; `--help` says so, too."""
        how = "pip install --force-reinstall --no-deps txmux\n"
        needs = "txmux: the command 'convert' needs txmux_convert, a part of txmux"
        before = self.forget("txmux_convert")
        sys.modules["txmux_convert"] = None  # type: ignore[assignment]
        self.addCleanup(sys.modules.update, before)
        self.addCleanup(self.forget, "txmux_convert")
        code, out, err = self.run_main("convert", "x.cfg")
        self.assertEqual((code, out, err.startswith(needs), err.endswith(how)), (1, "", True, True))
        out = self.told(0, self.run_main("--help"))
        self.assertIn("convert the command 'convert' needs txmux_convert", " ".join(out.split()))
        rules = self.write("rules.ini", "[listen a]\nendpoint = :1\ndefault = close\n")
        self.assertEqual(self.run_main("check", rules)[0], 0)
        change_constants(self, sys, path=[str(_ROOT)])
        code, _, err = self.run_main("convert", "x.cfg")
        self.assertEqual((code, err.startswith(needs), err.endswith(how)), (1, True, True))

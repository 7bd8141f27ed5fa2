import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

from packaging.specifiers import SpecifierSet
from twisted.trial.unittest import SynchronousTestCase

from tests.support.examples import SHARE
from tests.support.kit import PATIENCE, require_program, run_text

_CHECKOUT = Path(__file__).parent.parent

_TOO_OLD = """\
#!/bin/sh
# Answers as Python 3.9 would: its version, and failure when asked whether it is new enough.
case $2 in *print*) echo 3.9 ;; *) exit 1 ;; esac
"""


class ScriptTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="txmux scripts "))
        self.addCleanup(shutil.rmtree, self.folder)
        shutil.copytree(_CHECKOUT / "script", self.folder / "script")

    def refusal(self, script: str, python: str) -> str:
        env = {**os.environ, "PYTHON": python}
        done = run_text(self.folder / "script" / script, cwd=tempfile.gettempdir(), env=env)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertFalse((self.folder / ".venv").exists())
        return done.stderr

    def test_prepared_environment_serves_a_part_of_it(self) -> None:
        project, stamp = self.folder / "pyproject.toml", ".venv/prepared-core-test-lint"
        project.write_text("[project]")
        (self.folder / ".venv").mkdir()
        shutil.copy(project, self.folder / stamp)
        for changed, groups, expected in (
            ("", "", 0), ("", "test", 0), ("", "lint test", 0), ("", "test docs", 1),
            ("", "tes", 1), ("# new", "test", 1),
        ):  # fmt: skip
            project.write_text(f"[project]{changed}")
            script = f"source script/lib/environment; is_prepared {groups}"
            told = run_text("bash", "-c", script, cwd=self.folder)
            self.assertEqual((groups, told.returncode), (groups, expected))

    def test_no_interpreter_says_what_to_set(self) -> None:
        for script in ("demo", "test", "docs"):
            told = "cannot run 'no-such-python': set PYTHON to a Python 3.11 or newer"
            self.assertEqual(self.refusal(script, "no-such-python"), f"{script}: {told}\n")
        # An old one is refused first.
        old = self.folder / "old"
        old.write_text(_TOO_OLD)
        old.chmod(0o755)
        said = self.refusal("demo", str(old))
        self.assertIn("is Python 3.9, and txmux needs 3.11 or newer: set PYTHON to one", said)
        # The help of the demo is its own.
        command = [str(self.folder / "script/demo"), "--help"]
        told = run_text(*command, check=True).stdout
        self.assertTrue(told.startswith("Usage: script/demo [--demo-port PORT]\n"), told)
        self.assertFalse((self.folder / ".venv").exists())

    def test_environment_of_another_checkout_is_left_alone(self) -> None:
        other = self.folder / "other"
        other.mkdir()
        (other / "pyvenv.cfg").touch()
        (self.folder / ".venv").symlink_to(other)
        done = run_text(self.folder / "script/test")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, "^test: .venv is a link to .*other, .*: remove the link\n$")
        self.assertEqual([*other.iterdir()], [other / "pyvenv.cfg"])

    def test_note_of_the_long_tests(self) -> None:
        """A commit has it once all of them have passed with nothing else in the folder."""
        real_git = require_program("git")
        for name in (".venv/bin", "tests/interop", "tests/packaging", "txmux", "txmux_convert"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / ".gitignore").write_text(".venv\n")
        (self.folder / "pyproject.toml").touch()
        (self.folder / ".venv/prepared-core-test-lint-completion").touch()
        programs = self.folder / ".venv/bin"
        (programs / "python").symlink_to(sys.executable)
        (programs / "pip").write_text(f"#!{programs}/python\n")
        who = ("-c", "user.name=x", "-c", "user.email=x@example.com")
        git = ("git", *who, "-C", str(self.folder))
        for words in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "--message=x")):
            subprocess.run([*git, *words], check=True)
        (programs / "git").write_text(f'#!/bin/sh\nexec {real_git} {" ".join(who)} "$@"\n')
        (programs / "git").chmod(0o755)

        def is_noted(*words: str, status: int = 0) -> bool:
            (programs / "pytest").write_text(f"#!/bin/sh\nexit $((TXMUX_LONG - 1 + {status}))\n")
            (programs / "pytest").chmod(0o755)
            done = subprocess.run([self.folder / "script/test", "--long", *words], check=False)
            self.assertEqual(done.returncode, status)
            show = [*git, "notes", "--ref=long", "show"]
            return not subprocess.run(show, capture_output=True, check=False).returncode

        self.assertFalse(is_noted(status=1))
        self.assertFalse(is_noted("-k", "some"))
        (self.folder / "new").touch()
        self.assertFalse(is_noted())
        (self.folder / "new").unlink()
        self.assertTrue(is_noted())

    def test_pythons_are_the_same_everywhere(self) -> None:
        # The classifiers name what is tested, and their first is the oldest wherever that is named.
        named = re.findall(r"Python :: (3\.\d+)", (_CHECKOUT / "pyproject.toml").read_text())
        oldest, minors = named[0], [version.removeprefix("3.") for version in named]
        for path, text in (
            ("pyproject.toml", f'requires-python = ">={oldest}"\n'),
            ("pyproject.toml", f'target-version = "py3{minors[0]}"\n'),
            ("pyproject.toml", f'python_version = "{oldest}"\n'),
            ("examples/matcher-plugin/pyproject.toml", f'requires-python = ">={oldest}"\n'),
            ("packaging/debian/control", f"python3 (>= {oldest})"),
            ("script/lib/environment", f"< (3, {minors[0]})"),
            ("script/lib/environment", f"txmux needs {oldest} or newer"),
            ("script/lib/pythons", f"for minor in {' '.join(reversed(minors))}; do"),
            (".github/workflows/ci.yml", f"python: {json.dumps(named)}\n"),
            *(("tests/packaging/test_pythons.py", f'self.serves("{one}", ') for one in named),
        ):
            self.assertIn(text, (_CHECKOUT / path).read_text(), path)
        prose = [_CHECKOUT / "script/lib/environment", *_CHECKOUT.glob("*.md")]
        prose += (_CHECKOUT / "docs").rglob("*.md")
        said = re.findall(r"Python (3\.\d+)\sor", "".join(one.read_text() for one in prose))
        self.assertEqual((said.count(oldest), len(said)), (4, 4))
        self.assertEqual(SHARE, len(named))
        # Those of the workflow, each of which adds the number of its version, try all of them for each commit.
        workflow = (_CHECKOUT / ".github/workflows/ci.yml").read_text()
        [pythons] = re.findall(r"^ +python: (\[.+\])$", workflow, re.MULTILINE)
        turns = {int(version.partition(".")[2]) % SHARE for version in json.loads(pythons)}
        self.assertEqual(turns, {*range(SHARE)})
        self.assertIn(f"TXMUX_TURN:-0}} % {SHARE}))", (_CHECKOUT / ".ci/run").read_text())

    def test_release_of_a_tag(self) -> None:
        """What it uses of others cannot change, each of its steps is a script without errors, and it has what they need."""
        text = (_CHECKOUT / ".github/workflows/release.yml").read_text()
        workflow = import_module("yaml").safe_load(text)
        # YAML 1.1 takes `on` for a truth.
        self.assertEqual(workflow[True], {"push": {"tags": ["v*"]}})
        steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
        for step in steps:
            if "uses" in step:
                self.assertRegex(step["uses"], r"@[0-9a-f]{40}\Z")
            else:
                subprocess.run(["bash", "-n", "-c", step["run"]], timeout=PATIENCE, check=True)
        self.assertIn("script/release --tagged", [step.get("run") for step in steps])
        for package in ("build-essential", "debhelper", "git", "lintian", "python3-venv"):
            self.assertRegex(text, rf" {package}[ \n]")
        self.assertIn("`release.yml`", (_CHECKOUT / "CONTRIBUTING.md").read_text())

    def test_scripts_are_executable_bash(self) -> None:
        scripts = [*(_CHECKOUT / "script").iterdir(), _CHECKOUT / ".ci" / "run"]
        for script in filter(Path.is_file, scripts):
            self.assertTrue(os.access(script, os.X_OK), script)
            subprocess.run([require_program("bash"), "-n", script], timeout=300, check=True)
        # There is the same ruff in pre-commit.
        configuration = (_CHECKOUT / ".pre-commit-config.yaml").read_text()
        ruff = re.search(r"ruff-pre-commit\n +rev: v(\S+)", configuration)
        group = re.search(r'"ruff(.+?)"', (_CHECKOUT / "pyproject.toml").read_text())
        assert ruff
        assert group
        self.assertIn(ruff[1], SpecifierSet(group[1]))

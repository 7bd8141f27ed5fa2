"""The recipes of ``CONTRIBUTING.md``, done to the letter in a copy of this project."""

import json
import os
import re
import shutil
import sys
import textwrap
from pathlib import Path

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.support.kit import make_folder, require_program, run_text

pytestmark = [pytest.mark.whole, pytest.mark.by_turns]

_ROOT = Path(__file__).parent.parent
_BLOCK = re.compile(r"^   ```(\w+)\n(.*?)^   ```$", re.MULTILINE | re.DOTALL)


class RecipeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)
        listed = run_text(require_program("git"), "ls-files", "-z", cwd=_ROOT, check=True)
        for name in listed.stdout.split("\0"):
            if (_ROOT / name).is_file():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(_ROOT / name, self.folder / name)
        # What has not changed since is not compiled again.
        for compiled in (_ROOT / "txmux").rglob("__pycache__"):
            shutil.copytree(compiled, self.folder / compiled.relative_to(_ROOT))

    def test_recipes(self) -> None:
        """In one copy, since to check it takes longest."""
        self.changed: list[str] = []
        for heading in (
            "A new matcher", "A new key", "A key for sockets to servers", "A new field of a document",
            "A new item of attention", "A new gauge or counter",
        ):  # fmt: skip
            self.follow(heading)
        self.run_python("docs/tables.py")
        reference = self.folder / "docs/reference"
        self.assertIn("`detect_ms`, `facts` | as in the", (reference / "admin-api.md").read_text())
        schemas = json.loads((reference / "openapi.json").read_text())["components"]["schemas"]
        self.assertIn("detect_ms", schemas["Connection"]["properties"])
        self.check(
            "tests/matchers/test_samples.py", "tests/tcp/test_dscp.py", "tests/backends/test_priority.py",
            "tests/serving/test_reload_listeners.py::InProcessTest",
            "tests/control/test_connections.py::ConnectionListTest::test_state_bytes_and_known_fields",
            "tests/control/test_attention.py::OthersTest::test_each_item_says_what_to_do",
            "tests/control/test_busiest.py", "tests/control/test_gauges.py",
        )  # fmt: skip
        metrics = (self.folder / "docs/reference/metrics.md").read_text()
        for name, kind in (
            ("busiest_worker_connections", "gauge"),
            ("mute_clients_total", "counter"),
        ):
            self.assertIn(f"| `txmux_{name}` | {kind} |", metrics)
        found = self.run_python("-m", "txmux", "matchers", "gearman")
        self.assertIn("the type of the first packet", found)
        for path, said in (
            ("examples/prometheus/txmux.rules.test.yml", r"level=\"warning\",what=\"generations\""),
            ("docs/reference/admin-api.md", "#it-is-slow) | warning | connections use ten"),
            ("docs/how-to/watch-and-steer.md", "`generations`"),
        ):
            self.assertIn(said, (self.folder / path).read_text())

    def follow(self, heading: str) -> None:
        """Do each step: write the new file, or add its lines to one that is there."""
        text = (_ROOT / "CONTRIBUTING.md").read_text()
        recipe = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
        steps = re.findall(r"^(\d)\. `(\S+)`:(.*?)(?=^\S)", recipe, re.MULTILINE | re.DOTALL)
        self.assertEqual([int(number) for number, *_ in steps], [*range(1, len(steps) + 1)])
        self.changed += [path for _, path, _ in steps if path.endswith(".py")]
        for _, path, step in steps:
            blocks = _BLOCK.findall(step)
            self.assertTrue(blocks, path)
            for language, block in blocks:
                self.apply(self.folder / path, language, textwrap.dedent(block))

    def apply(self, file: Path, language: str, block: str) -> None:
        if language != "diff":
            self.assertFalse(file.exists(), file)
            file.write_text(block)
            return
        there = "".join(re.findall(r"^ (.*\n)", block, re.MULTILINE)).removesuffix("\n")
        written = re.sub("^.", "", block, flags=re.MULTILINE).removesuffix("\n")
        text = file.read_text()
        # A line may be shown by its beginning.
        count = f"\n{text}".count(f"\n{there}")
        self.assertEqual(count, 1, f"{file.name} has other lines: {there}")
        before, _, after = f"\n{text}".partition(f"\n{there}")
        if not block.startswith("+"):
            rest, _, after = after.partition("\n")
            written = written.replace(there, there + rest)
            after = f"\n{after}"
        file.write_text(f"{before}\n{written}{after}".removeprefix("\n"))

    def check(self, *tests: str) -> None:
        """Run what `script/test --changed` runs of all code, and these."""
        for what in (["check"], ["format", "--check"]):
            self.run_python("-m", "ruff", *what, "--no-cache", "-q", *self.changed)
        everywhere = "tests/test_docs.py", "tests/test_structure.py"
        # No recipe is about what comes with an extra, and what is asked of each matcher alone is asked of the new one.
        each = "test_built_in or test_silence or test_streams or test_datagrams or test_options or test_tried or test_facts"
        others = f"test_convert_is_an_extra or (test_samples and ({each}) and not (gearman or of_others))"
        options = (
            *("-q", "-x", "-p", "no:cacheprovider", "--hypothesis-profile=few"),
            *("-m", "not whole", "-k", f"not ({others})"),
        )
        self.run_python("-m", "pytest", *options, *everywhere, *tests)

    def run_python(self, *arguments: str) -> str:
        env = {**os.environ, "PYTHONPATH": str(self.folder)}
        done = run_text(sys.executable, *arguments, cwd=self.folder, env=env, seconds=3600)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

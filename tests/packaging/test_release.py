"""``script/release``, in a clone of the checkout."""

import hashlib
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.packaging.building import CHECKOUT
from tests.support.kit import (
    change_environment,
    leave_unmeasured,
    make_folder,
    require_program,
    run_text,
)

_SCRIPT = "script/lib/release.py"
_MARK = "<!-- towncrier release notes start -->"
_WHO = ["GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"]
_COMMITS = dict.fromkeys(_WHO, "tests@example.com")


class VersionTests(SynchronousTestCase):
    def test_next_version(self) -> None:
        """The first release has the version of the code; before 1.0, a removal counts the second number."""
        changelog = "# Changes\n\n## 1.4.2 (2026-01-01)\n\n## 1.4.1 (2025-01-01)\n"
        none = ("# Changes\n", "## 0.1.0 (not released yet)\n\nAll.\n")
        next_version = runpy.run_path(str(CHECKOUT / _SCRIPT))["next_version"]
        for changes, code, kinds, version in (
            *((text, "0.1.0.dev0", kinds, "0.1.0") for text in none for kinds in (set(), {"feature"}, {"bugfix"}, {"removal", "doc"})),
            (changelog, "1.5.0.dev0", {"bugfix", "feature", "doc"}, "1.5.0"), (changelog, "1.5.0.dev0", {"bugfix"}, "1.4.3"),
            (changelog, "1.5.0.dev0", {"misc"}, "1.4.3"), (changelog, "1.5.0.dev0", {"removal", "feature"}, "2.0.0"),
            ("## 0.4.2 (2026-01-01)\n", "0.4.2", {"removal"}, "0.5.0"),
        ):  # fmt: skip
            self.assertEqual(next_version(changes, code, kinds), version)


class ReleaseTests(SynchronousTestCase):
    def setUp(self) -> None:
        if not (CHECKOUT / ".git").exists():
            raise SkipTest("this is not a checkout")
        leave_unmeasured(self)
        self.folder = make_folder(self)
        subprocess.run(["git", "clone", "--quiet", CHECKOUT, self.folder], timeout=300, check=True)
        shutil.copy(CHECKOUT / _SCRIPT, self.folder / _SCRIPT)
        for own in self.folder.glob("newsfragments/*.*.md"):
            own.unlink()
        self.fragment = self.folder / "newsfragments/+new.feature.md"
        self.fragment.write_text("New.\n")
        self.changelog = self.folder / "CHANGELOG.md"
        # One machine of several is enough, and what is published may be old.
        measured = {"commit": self.git("rev-parse", "HEAD")}
        (self.folder / "benchmarks/published/figures-test.json").write_text(json.dumps(measured))
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "The script as it is now")
        self.before = self.git("rev-parse", "HEAD")

    def git(self, *words: str) -> str:
        done = run_text("git", *words, cwd=self.folder, env={**os.environ, **_COMMITS}, check=True)
        return done.stdout.strip()

    def programs(self, **scripts: str) -> str:
        """Make a folder with git and these scripts, for PATH: no test builds the Debian package, which takes long."""
        folder = make_folder(self)
        (folder / "git").symlink_to(require_program("git"))
        for name, text in scripts.items():
            path = folder / name.replace("_", "-")
            path.write_text(f"#!/bin/sh\n{text}\n")
            path.chmod(0o755)
        return str(folder)

    def release(self, *words: str, path: str = "") -> subprocess.CompletedProcess[str]:
        command = (sys.executable, str(self.folder / _SCRIPT), *words)
        env = {**os.environ, **_COMMITS, "PATH": path or self.programs()}
        return run_text(*command, cwd=tempfile.gettempdir(), env=env, seconds=900)

    def assert_refused(self, message: str, *words: str) -> None:
        status = self.git("status", "--porcelain")
        done = self.release(*words)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn(message, done.stderr)
        self.assertEqual(self.git("status", "--porcelain"), status)

    def test_dry_run(self) -> None:
        """It builds and checks all packages, with the project's own fragments, shows the changelog and the tag, and changes nothing.

        It says what a release refuses. The Debian package has tests of its own, with lintian.
        """
        self.git("checkout", "--quiet", "HEAD~", "--", "newsfragments")
        (self.folder / "txmux/net/turns.py").write_text("")
        self.git("add", "--all")
        self.make_packages_quickly()
        before = self.git("rev-parse", "HEAD")
        tools = {"dpkg_buildpackage": ":", "lintian": ":"}
        done = self.release("--dry-run", "7.8.9", path=self.programs(**tools))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        for line in (
            r"## 7\.8\.9 \(\d{4}-\d\d-\d\d\)",
            "### Features",
            r"    [0-9a-f]{64}  txmux-7\.8\.9-py3-none-any\.whl",
            r"    [0-9a-f]{64}  txmux-7\.8\.9\.tar\.gz",
            r"    [0-9a-f]{64}  txmux_7\.8\.9-1_all\.deb",
            r"    [0-9a-f]{64}  txmux-7\.8\.9\.cdx\.json",
            r"a release is refused until this is done: the long tests are .+: run script/test --long, .+",
            r"a release is refused until this is done: all figures in .+: run script/bench --rounds 5 .+",
            r"tag: v7\.8\.9",
            "nothing was changed, and nothing was uploaded",
        ):
            self.assertRegex(done.stdout, rf"(?m)^{line}$")
        self.assertEqual(self.git("status", "--porcelain", "--ignored"), "")
        self.assertEqual(self.git("rev-parse", "HEAD"), before)

    def test_release(self) -> None:
        """It commits version and changelog, leaves the packages, and names the commands that are a person's. What has been tagged then is built again, with the notes of its version."""
        self.assertIn("has no tag v0.1.0.dev0", self.release("--tagged").stderr)
        project = self.folder / "pyproject.toml"
        urls = '[project.urls]\nSource = "https://example.com/x/txmux"\n\n[project.optional'
        project.write_text(project.read_text().replace("[project.optional", urls))
        self.git("commit", "--quiet", "--all", "--message", "An address")
        self.note_long_tests()
        done = self.release("7.8.9")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(self.git("log", "-1", "--format=%s"), "Release 7.8.9")
        self.assertEqual(self.git("rev-parse", "HEAD~2"), self.before)
        self.assertEqual(self.git("status", "--porcelain"), "")
        self.assertIn('"7.8.9"', (self.folder / "txmux/version.py").read_text())
        self.assertIn("\n## 7.8.9 (", self.changelog.read_text())
        self.assertNotIn("not released yet", self.changelog.read_text())
        self.assertEqual([*self.folder.glob("newsfragments/*.*.md")], [])
        made = ["txmux-7.8.9-py3-none-any.whl", "txmux-7.8.9.tar.gz"]
        bill = "txmux-7.8.9.cdx.json"
        self.assertEqual({path.name for path in self.folder.glob("dist/*")}, {*made, bill})
        self.assert_lists(self.folder / "dist" / bill, self.folder / "dist" / made[0])
        self.assertIn(f"twine upload dist/{made[0]} dist/{made[1]}\n", done.stdout)
        self.assertIn("git tag --sign --message 'txmux 7.8.9' v7.8.9\n", done.stdout)
        self.assertEqual(self.git("tag", "--list", "v7*"), "")
        self.assert_links(self.folder / "dist" / made[0])

        shutil.rmtree(self.folder / "dist")
        self.git("tag", "v7.8.9")
        done = self.release("--tagged")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        notes = self.folder / "dist/txmux-7.8.9.md"
        found = {path.name for path in self.folder.glob("dist/*")}
        self.assertEqual(found, {*made, bill, notes.name})
        told = r"\AThe first [^#]+(?s:.*)\n### Features\n\n- New\.\n\Z"
        self.assertRegex(notes.read_text(), told)
        self.assertEqual(self.git("log", "-1", "--format=%s"), "Release 7.8.9")
        self.git("tag", "--delete", "v7.8.9")

        self.assert_refused("nothing to release: there is no fragment in newsfragments/")
        self.fragment.write_text("More.\n")
        self.assert_refused("7.8.9 is not after 7.8.9, the last release", "--dry-run", "7.8.9")

    def test_faults_of_packages(self) -> None:
        """What lintian says of the Debian package, and files that the image needs and the source package lacks."""
        self.make_packages_quickly()
        (self.folder / "dist").mkdir()
        tools = {"dpkg_buildpackage": ":", "lintian": "echo E: txmux: bad; exit 2"}
        change_environment(self, PATH=self.programs(**tools))
        build = runpy.run_path(str(self.folder / _SCRIPT))["_build_deb"]
        problem = self.assertRaises(SystemExit, build, self.folder)
        self.assertIn("E: txmux: bad\n", str(problem))  # with which it ends
        check = runpy.run_path(str(CHECKOUT / _SCRIPT))["_check_image"]
        for copied, refused in (("txmux LICENSE", False), ("newsfragments", True)):
            (self.folder / "Containerfile").write_text(f"COPY {copied} /source/\n")
            with tarfile.open(self.folder / "dist/txmux-1.tar.gz", "w:gz") as archive:
                for name in ("Containerfile", "LICENSE", "txmux/__init__.py"):
                    archive.add(self.folder / name, f"txmux-1/{name}")
            if refused:
                problem = self.assertRaises(SystemExit, check, self.folder)
                self.assertIn("lacks newsfragments, which the Containerfile", str(problem))
            else:
                check(self.folder)

    def note_long_tests(self) -> None:
        self.git("notes", "--ref=long", "add", "--message", "passes")

    def make_packages_quickly(self) -> None:
        (self.folder / "script/deb").write_text("#!/bin/sh\n: >dist/txmux_7.8.9-1_all.deb\n")
        self.git("commit", "--quiet", "--all", "--message", "No real package")

    def assert_links(self, wheel: Path) -> None:
        """Check that on PyPI those of the README lead to the tag."""
        with zipfile.ZipFile(wheel) as archive:
            text = archive.read("txmux-7.8.9.dist-info/METADATA").decode()
        tree = "https://example.com/x/txmux"
        self.assertIn(f"]({tree}/blob/v7.8.9/docs/reference/matchers.md)", text)
        self.assertIn(f"]({tree}/raw/v7.8.9/docs/images/top.svg)", text)
        self.assertIn(f'src="{tree}/raw/v7.8.9/docs/images/page-light.png"', text)
        self.assertEqual(re.findall(r"\]\((?!https?:|#).*?\)", text), [])
        self.assertNotIn(tree, (self.folder / "README.md").read_text())

    def test_first(self) -> None:
        """The first release has the text that describes it in the changelog, with a date, and then what is new, if anything is. Nobody has had what was mended or removed before it."""
        first = (
            f"# Changes\n\n{_MARK}\n\n## 0.1.0 (not released yet)\n\nAll.\n\n### Part\n\n- It.\n"
        )
        self.changelog.write_text(first)
        for kind in ("bugfix", "doc", "misc", "removal"):
            (self.folder / f"newsfragments/+old.{kind}.md").write_text("It is gone.\n")
        new = runpy.run_path(str(self.folder / _SCRIPT))["_write"](self.folder, "0.1.0")
        text = r"## 0\.1\.0 \(\d{4}-\d\d-\d\d\)\n\nAll\.\n\n### Part\n\n- It\.\n\n### Features\n\n- New\."
        self.assertRegex(new, rf"\A{text}\Z")
        self.assertEqual(self.changelog.read_text(), f"# Changes\n\n{_MARK}\n\n{new}\n")
        self.assertEqual([*self.folder.glob("newsfragments/*.*.md")], [])
        self.changelog.write_text(first)
        (self.folder / "txmux/version.py").write_text('__version__ = "9.8.7.dev0"\n')
        self.git("commit", "--quiet", "--all", "--message", "A first release")
        done = self.release("--dry-run")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        told = r"\A## 9\.8\.7 \(.+\)\n\nAll\.\n\n### Part\n\n- It\.\n\nbuilt and"
        self.assertRegex(done.stdout, told)
        self.assertIn("tag: v9.8.7\n", done.stdout)

    def assert_lists(self, bill: Path, wheel: Path) -> None:
        told = json.loads(bill.read_text())
        root = told["metadata"]["component"]
        self.assertEqual((told["bomFormat"], root["purl"]), ("CycloneDX", "pkg:pypi/txmux@7.8.9"))
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        self.assertEqual(root["hashes"][0]["content"], digest)
        components = {one["bom-ref"] for one in told["components"]}
        for name in ("twisted", "cryptography", "hpack", "incremental"):
            self.assertIn(f"pkg:pypi/{name}@{metadata.version(name)}", components)
        self.assertNotIn("pytest", str(components))  # what it is only developed with
        needed = {one["ref"]: one["dependsOn"] for one in told["dependencies"]}
        self.assertEqual(needed.keys(), {root["bom-ref"], *components})
        self.assertEqual(set().union(*needed.values()), components)

    def test_refused(self) -> None:
        """It refuses what is not committed, a version of another form, one that there is, older figures, and a commit without long tests."""
        self.assert_refused("'7.8.9rc1' is not a version to release", "7.8.9rc1")
        self.assert_refused("'seven' is not a version to release", "seven")
        for path in ("detection/plan.py", "net/turns.py"):
            self.git("reset", "--quiet", "--hard", self.before)
            (self.folder / "txmux" / path).write_text("")
            self.git("commit", "--quiet", "--all", "--message", "net: be faster")
            self.assert_refused("net: be faster): run script/bench --rounds 5", "7.8.9")
        self.git("tag", "v7.8.9")
        self.assert_refused("there is a tag v7.8.9 already", "7.8.9")
        self.git("reset", "--quiet", "--hard", "HEAD~")
        self.assert_refused("the long tests are not known to pass with this commit", "7.9.0")
        self.note_long_tests()
        (self.folder / "left-over").touch()
        self.assert_refused("commit or remove this first:\n?? left-over", "7.9.0")

"""What is installed from the wheel is whole, and Twisted finds the plugins in it; whoever packs the source package for a distribution needs nothing else."""

import re
import shutil
import sysconfig
import tempfile
import venv
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import ClassVar
from unittest import SkipTest

from packaging.requirements import Requirement
from twisted.trial.unittest import SynchronousTestCase

from tests.packaging import building
from tests.packaging.building import CHECKOUT, build_wheel, checkout_files, pip, run_outside
from tests.support.folders import make_folder
from txmux import __version__


def _dependencies(packages: Path) -> dict[str, Distribution]:
    """Find all that the installed txmux declares to need, without extras, in the environment of the tests."""
    (installed,) = Distribution.discover(name="txmux", path=[str(packages)])
    found: dict[str, Distribution] = {}
    unread = [installed]
    while unread:
        for text in unread.pop().requires or ():
            wanted = Requirement(text)
            needed = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
            if needed and wanted.name not in found:
                found[wanted.name] = distribution(wanted.name)
                unread.append(found[wanted.name])
    return found


class WheelTests(SynchronousTestCase):
    folder: ClassVar[Path]
    wheel: ClassVar[Path]
    python: ClassVar[Path]

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = Path(tempfile.mkdtemp(prefix="txmux-packaging-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.wheel = build_wheel(CHECKOUT, cls.folder)
        environment = cls.folder / "venv"
        venv.create(environment, symlinks=True)
        cls.python = environment / "bin/python"
        pip("--python", cls.python, "install", *building.OFFLINE, cls.wheel, cwd=cls.folder)
        (packages,) = environment.glob("lib/python*/site-packages")
        # What pip would fetch for txmux is that of the tests.
        for dependency in _dependencies(packages).values():
            for file in dependency.files or ():
                if not {"..", "__pycache__", "test"} & {*file.parts}:
                    (packages / file).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(file.locate(), packages / file)

    def run_installed(self, *arguments: str | Path) -> str:
        return run_outside(self.python, *arguments, cwd=self.folder)

    def test_contents(self) -> None:
        """Every module, the three plugin files, the licence, and the files of the page: no caches, no tests."""
        names = zipfile.ZipFile(self.wheel).namelist()
        plugins = [f"twisted/plugins/txmux_{name}.py" for name in ("endpoint", "service")]
        self.assertEqual(sorted(name for name in names if name.startswith("twisted/")), plugins)
        metadata = f"txmux-{__version__}.dist-info"
        tops = {name.split("/")[0] for name in names}
        self.assertEqual(tops, {"txmux", "txmux_convert", "twisted", metadata})
        self.assertIn("txmux/py.typed", names)
        self.assertIn(f"{metadata}/licenses/LICENSE", names)
        self.assertEqual([name for name in names if name.endswith((".cache", ".pyc"))], [])

        modules = [*CHECKOUT.glob("txmux/**/*.py"), *CHECKOUT.glob("txmux_convert/**/*.py")]
        found = sorted(one for one in names if one.startswith("txmux") and one.endswith(".py"))
        self.assertEqual(found, sorted(str(module.relative_to(CHECKOUT)) for module in modules))
        for folder in ("templates", "static"):
            files = (CHECKOUT / "txmux/features/page" / folder).rglob("*.*")
            there = [str(file.relative_to(CHECKOUT)) for file in files]
            self.assertGreater(len(there), 1)
            self.assertEqual([name for name in there if name not in names], [])

    def test_plugin(self) -> None:
        """Where the wheel is installed, and where the checkout is, as for these tests."""
        twist = Path(sysconfig.get_path("scripts"), "twist")
        for command in ((twist,), (self.python, "-m", "twisted")):
            self.assertRegex(run_outside(*command, "--help", cwd=self.folder), r"\n    txmux +A ")
        self.assertIn("--rules", self.run_installed("-m", "twisted", "txmux", "--help"))
        for command in ((self.python, "-m", "txmux"), (self.python.with_name("txmux"),)):
            self.assertIn(__version__, run_outside(*command, "--version", cwd=self.folder))

    def test_convert(self) -> None:
        """The command is found by the wheel's entry point; without its folder, nothing else changes."""
        (self.folder / "haproxy.cfg").write_text("listen a\n  bind :1\n  server s 127.0.0.1:2\n")
        command = ("-m", "txmux", "convert", self.folder / "haproxy.cfg")
        self.assertIn("[listen a]\n", self.run_installed(*command))
        (folder,) = self.folder.glob("venv/lib/python*/site-packages/txmux_convert")
        helped = self.run_installed("-m", "txmux", "--help")
        aside = folder.rename(self.folder / "aside")
        self.addCleanup(aside.rename, folder)
        error = self.assertRaises(AssertionError, self.run_installed, *command)
        self.assertIn("gave 1:\n\ntxmux: the command 'convert' needs txmux_convert, ", str(error))
        without = self.run_installed("-m", "txmux", "--help")
        lines = [re.split(r"\n(?=    \w)", text) for text in (helped, without)]
        self.assertEqual([a[:11] for a, b in zip(*lines, strict=True) if a != b], ["    convert"])
        self.assertIn("matchers", self.run_installed("-m", "txmux", "matchers", "--help"))


_LEFT_OUT = (".ci/", "newsfragments/")
"""What is for work on the project alone; at a release, the fragments are in the changelog."""


class SdistTests(SynchronousTestCase):
    def test_whole(self) -> None:
        """The wheel from it is the checkout's. All that is under version control is in it, and nothing else: tests, docs, examples and packaging, too."""
        folder = make_folder(self)
        source, wheels = building.build_sdist(folder), []
        for name, sources in (("checkout", CHECKOUT), ("sdist", source)):
            (folder / f"wheel-of-{name}").mkdir()
            with zipfile.ZipFile(build_wheel(sources, folder / f"wheel-of-{name}")) as archive:
                wheels.append({one: archive.read(one) for one in archive.namelist()})
        self.assertEqual(*wheels)
        if not (CHECKOUT / ".git").exists():
            raise SkipTest("this is not a checkout")
        wanted = {name for name in checkout_files() if not name.startswith(_LEFT_OUT)}
        self.assertIn("docs/index.md", wanted)
        files = {str(one.relative_to(source)) for one in source.rglob("*") if one.is_file()}
        self.assertEqual(files - {"PKG-INFO"}, wanted)

"""What is installed from the wheel is whole, and Twisted finds the plugins in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import ClassVar

from packaging.requirements import Requirement
from twisted.trial.unittest import SynchronousTestCase

from txmux import __version__

_CHECKOUT = Path(__file__).parent.parent


def _run(*command: str | Path, cwd: Path) -> str:
    """Run a command far from the checkout, so that only what is installed can be found.

    Returns:
        What it wrote to its standard output.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "COV_CORE", "COVERAGE"))
    }
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        raise AssertionError(f"{command} gave {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


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


def _copy_dependencies(packages: Path) -> None:
    """Put into an environment what pip would fetch for txmux, from that of the tests."""
    for dependency in _dependencies(packages).values():
        for file in dependency.files or ():
            if not {"..", "__pycache__", "test"} & {*file.parts}:
                target = packages / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.locate(), target)


class EditableTests(SynchronousTestCase):
    """The environment that these tests run in."""

    def test_plugin(self) -> None:
        """``twist`` lists txmux from an editable install."""
        twist = Path(sysconfig.get_path("scripts"), "twist")
        self.assertRegex(_run(twist, "--help", cwd=Path(tempfile.gettempdir())), r"\n    txmux +A ")


class WheelTests(SynchronousTestCase):
    """The wheel, and a fresh environment with nothing but it and its dependencies."""

    folder: ClassVar[Path]
    wheel: ClassVar[Path]
    python: ClassVar[Path]

    @classmethod
    def setUpClass(cls) -> None:
        """Build the wheel, and install it once for all tests of this class."""
        cls.folder = Path(tempfile.mkdtemp(prefix="txmux-packaging-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
        options = ("--no-index", "--no-deps")
        _run(
            *(*pip, "wheel", *options, "--no-build-isolation", "--wheel-dir", cls.folder),
            _CHECKOUT,
            cwd=cls.folder,
        )
        (cls.wheel,) = cls.folder.glob("*.whl")
        environment = cls.folder / "venv"
        venv.create(environment, symlinks=True)
        cls.python = environment / "bin/python"
        _run(*pip, "--python", cls.python, "install", *options, cls.wheel, cwd=cls.folder)
        (packages,) = environment.glob("lib/python*/site-packages")
        _copy_dependencies(packages)

    def run_installed(self, *arguments: str | Path) -> str:
        """Run the Python of the fresh environment."""
        return _run(self.python, *arguments, cwd=self.folder)

    def test_contents(self) -> None:
        """The package, the two plugin files, the licence: no caches, no tests."""
        names = zipfile.ZipFile(self.wheel).namelist()
        self.assertEqual(
            sorted(name for name in names if name.startswith("twisted/")),
            ["twisted/plugins/txmux_matchers.py", "twisted/plugins/txmux_service.py"],
        )
        metadata = f"txmux-{__version__}.dist-info"
        self.assertEqual({name.split("/")[0] for name in names}, {"txmux", "twisted", metadata})
        self.assertIn("txmux/py.typed", names)
        self.assertIn(f"{metadata}/licenses/LICENSE", names)
        self.assertEqual([name for name in names if name.endswith((".cache", ".pyc"))], [])

    def test_modules(self) -> None:
        """Every module of the package is in it."""
        names = zipfile.ZipFile(self.wheel).namelist()
        modules = (_CHECKOUT / "txmux").rglob("*.py")
        self.assertEqual(
            sorted(name for name in names if name.startswith("txmux/") and name.endswith(".py")),
            sorted(str(module.relative_to(_CHECKOUT)) for module in modules),
        )

    def test_plugin(self) -> None:
        """``twist`` lists txmux, and shows its options."""
        self.assertRegex(self.run_installed("-m", "twisted", "--help"), r"\n    txmux +A ")
        self.assertIn("--rules", self.run_installed("-m", "twisted", "txmux", "--help"))

    def test_version(self) -> None:
        """Both ways to run the command tell the version."""
        self.assertIn(
            __version__, _run(self.python.with_name("txmux"), "--version", cwd=self.folder)
        )
        self.assertIn(__version__, self.run_installed("-m", "txmux", "--version"))

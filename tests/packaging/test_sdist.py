"""The source package is whole: whoever packs txmux for a distribution needs nothing else."""

import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import ClassVar
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.packaging.building import CHECKOUT, build_sdist, build_wheel, checkout_files

_LEFT_OUT = (".ci/", "newsfragments/")
"""What is for work on the project alone; at a release, the fragments are in the changelog."""


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def _content(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


class SdistTests(SynchronousTestCase):
    folder: ClassVar[Path]
    source: ClassVar[Path]

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = Path(tempfile.mkdtemp(prefix="txmux-sdist-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.source = build_sdist(cls.folder)

    def test_contents(self) -> None:
        """All that is under version control is in it, and nothing else: tests, docs, examples and packaging, too."""
        if not (CHECKOUT / ".git").exists():
            raise SkipTest("this is not a checkout")
        wanted = {name for name in checkout_files() if not name.startswith(_LEFT_OUT)}
        self.assertIn("docs/index.md", wanted)
        self.assertEqual(_files(self.source) - {"PKG-INFO"}, wanted)

    def test_wheel_from_it_is_the_checkouts(self) -> None:
        wheels = {}
        for name, source in (("checkout", CHECKOUT), ("sdist", self.source)):
            folder = self.folder / f"wheel-of-{name}"
            folder.mkdir()
            wheels[name] = _content(build_wheel(source, folder))
        self.assertEqual(wheels["checkout"], wheels["sdist"])

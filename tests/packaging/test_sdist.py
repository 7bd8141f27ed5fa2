"""The source package is whole: whoever packs txmux for a distribution needs nothing else."""

import zipfile
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.packaging.building import CHECKOUT, build_sdist, build_wheel, checkout_files
from tests.support.folders import make_folder

_LEFT_OUT = (".ci/", "newsfragments/")
"""What is for work on the project alone; at a release, the fragments are in the changelog."""


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def _content(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


class SdistTests(SynchronousTestCase):
    def test_whole(self) -> None:
        """The wheel from it is the checkout's. All that is under version control is in it, and nothing else: tests, docs, examples and packaging, too."""
        folder = make_folder(self)
        source, wheels = build_sdist(folder), []
        for name, sources in (("checkout", CHECKOUT), ("sdist", source)):
            (folder / f"wheel-of-{name}").mkdir()
            wheels.append(_content(build_wheel(sources, folder / f"wheel-of-{name}")))
        self.assertEqual(*wheels)
        if not (CHECKOUT / ".git").exists():
            raise SkipTest("this is not a checkout")
        wanted = {name for name in checkout_files() if not name.startswith(_LEFT_OUT)}
        self.assertIn("docs/index.md", wanted)
        self.assertEqual(_files(source) - {"PKG-INFO"}, wanted)

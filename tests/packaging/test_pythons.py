"""The wheel on each Python that it is for, in fresh systems that bring these."""

from pathlib import Path
from typing import ClassVar
from unittest import SkipTest

import pytest

from tests.interop.children import InteropTestCase
from tests.packaging.building import CHECKOUT, build_wheel
from tests.packaging.roots import Copy, check_relay, root_of

_UBUNTU = "http://archive.ubuntu.com/ubuntu"
_KEYRING = "/usr/share/keyrings/ubuntu-archive-keyring.gpg"
_INSTALL = (
    'set -e; python3 -m venv /venv; /venv/bin/pip install --quiet "$1[admin,cli,convert,pcap]"'
)


@pytest.mark.long
class PythonTests(InteropTestCase):
    """The wheel with its extras, in a virtual environment of a system that has just Python."""

    wheel: ClassVar[Path]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.wheel = build_wheel(CHECKOUT, cls.folder)

    def serves(self, version: str, root: Path) -> None:
        copy = Copy(self.folder, root)
        copy.put(self.wheel, self.wheel.name)
        copy.put(CHECKOUT / "examples/rules.ini", "rules.ini")
        copy.do("sh", "-c", _INSTALL, "sh", f"/{self.wheel.name}")
        self.assertIn(f"Python {version}.", copy.do("/venv/bin/python", "--version"))
        self.assertIn("OK, 1 listener", copy.do("/venv/bin/txmux", "check", "/rules.ini"))
        self.assertNotIn("Warning", check_relay(self, copy))

    def debian(self, suite: str) -> Path:
        return root_of(suite, "python3", "python3-venv")

    def ubuntu(self, suite: str) -> Path:
        """Give an Ubuntu with Python; newer Debians have its keys in the package ubuntu-keyring."""
        if not Path(_KEYRING).exists():
            raise SkipTest(f"there is no {_KEYRING}")
        packages = ("python3", "python3-venv")
        components = {"mirror": _UBUNTU, "keyring": _KEYRING, "components": "main,universe"}
        return root_of(suite, *packages, script="gutsy", **components)

    def test_311(self) -> None:
        self.serves("3.11", self.debian("bookworm"))

    def test_312(self) -> None:
        self.serves("3.12", self.ubuntu("noble"))

    def test_313(self) -> None:
        self.serves("3.13", self.debian("trixie"))

    def test_314(self) -> None:
        self.serves("3.14", self.debian("sid"))

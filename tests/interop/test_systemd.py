"""The units for systemd have no errors, and leave little to who breaks in."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import SkipTest

from tests.interop.children import InteropTestCase, run

if TYPE_CHECKING:
    import subprocess

_UNITS = Path(__file__).parents[2] / "examples" / "systemd"


class UnitTests(InteropTestCase):
    """``systemd-analyze`` reads them; systemd itself need not run."""

    def setUp(self) -> None:
        if shutil.which("systemd-analyze") is None:
            raise SkipTest("systemd-analyze is not installed")
        super().setUp()
        self.units = self.folder / self.id().rpartition(".")[2]
        shutil.copytree(_UNITS, self.units)
        unit = self.units / "txmux.service"
        unit.write_text(unit.read_text().replace("/opt/txmux/bin/", "/bin/true "))

    def analyze(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        return run("systemd-analyze", "--no-pager", *words, self.units / "txmux.service")

    def exposure(self) -> float:
        text = self.analyze("security", "--offline=true").stdout.decode()
        found = re.search(r"Overall exposure level for txmux.service: ([0-9.]+)", text)
        assert found is not None, text
        return float(found[1])

    def test_verify(self) -> None:
        done = run(
            "systemd-analyze",
            "verify",
            "--man=no",
            *(self.units / name for name in ("txmux.service", "txmux.socket")),
        )
        # It reads all units of the machine, and has something to say of those of others.
        told = [line for line in done.stderr.decode().splitlines() if "txmux" in line]
        self.assertEqual((done.returncode, told, done.stdout), (0, [], b""))

    def test_exposure_is_less_with_a_socket(self) -> None:
        with_socket = self.exposure()
        shutil.rmtree(self.units / "txmux.service.d")
        alone = self.exposure()
        self.assertLessEqual(alone, 2.0)
        self.assertLess(with_socket, alone)

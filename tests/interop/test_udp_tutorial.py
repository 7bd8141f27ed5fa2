"""The tutorial, *Your first UDP port*: what it says to type is typed, and what it says comes, comes."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import ClassVar

from tests.interop.children import Child, eventually, run
from tests.interop.scenario import ScenarioTestCase
from tests.programs import require_program

_PAGE = Path(__file__).parents[2] / "docs/tutorial/first-udp-port.md"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CHANGING = re.compile(r"(?<=127\.0\.0\.1:)\d{5}\b|\b\w+_ms=\S+")


def _blocks(language: str) -> list[str]:
    return [text for kind, text in _BLOCK.findall(_PAGE.read_text()) if kind == language]


def _typed(block: str) -> list[tuple[str, str]]:
    parts = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    return [(command, seen) for command, _, seen in (part.partition("\n") for part in parts)]


class UdpTutorialTests(ScenarioTestCase):
    """All of it in one folder, in a network where its ports are free."""

    txmux: ClassVar[Child]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        require_program("nc")
        [server] = _blocks("python")
        (cls.folder / "server.py").write_text(server)
        [rules] = _blocks("ini")
        (cls.folder / "udp.ini").write_text(rules)
        first, second, _, _, _ = _blocks("console")
        for block in (first, second):
            [(command, _)] = _typed(block)
            cls.begin(command)
        for port in (5301, 5302):
            eventually(lambda port=port: _is_bound(port), f"a server has port {port}")  # type: ignore[misc]
        _, (command, _) = _typed(_blocks("console")[2])
        cls.txmux = cls.begin(command)
        cls.addClassCleanup(cls.stop)
        cls.txmux.wait_for(r"listening on udp:127\.0\.0\.1:5300")

    @classmethod
    def stop(cls) -> None:
        """Have txmux wait for the flow that is still there, which the next signal ends."""
        cls.txmux.process.terminate()
        cls.txmux.wait_for("for up to 30 s")

    @classmethod
    def begin(cls, command: str) -> Child:
        return cls.share(Child("bash", "-c", f"cd {cls.folder} && exec {cls.meant(command)}"))

    @classmethod
    def meant(cls, command: str) -> str:
        name, _, rest = command.partition(" ")
        own = Path(sys.executable).parent / name
        return f"{own} {rest}" if own.exists() else command

    def type(self, command: str) -> str:
        # One second is enough for a person; the answer on a busy machine may take more.
        patient = self.meant(command).replace("nc -u -w 1 ", "nc -u -w 5 ")
        done = run("bash", "-c", f"cd {self.folder} && {patient} 2>&1")
        return done.stdout.decode()

    def test_check(self) -> None:
        (command, seen), _ = _typed(_blocks("console")[2])
        # As root there is a warning, too.
        self.assertIn(seen.strip(), self.type(command))

    def test_clients(self) -> None:
        for command, seen in _typed(_blocks("console")[3]):
            self.assertEqual(self.type(command), seen)
        line = " ".join(_blocks("text")[0].split())
        told = self.txmux.wait_for(r"route=dns .*")[0]
        self.assertEqual(_CHANGING.sub("…", told.strip()), _CHANGING.sub("…", line))

    def test_explained(self) -> None:
        [(command, seen)] = _typed(_blocks("console")[4])
        self.assertEqual(self.type(command).strip(), seen.strip())


def _is_bound(port: int) -> bool:
    return f":{port:04X} " in Path("/proc/net/udp").read_text()

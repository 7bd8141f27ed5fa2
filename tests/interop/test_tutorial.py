"""The tutorials, *Your first port* and *Your first UDP port*: what they say to type is typed, and what they say comes, comes."""

import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from tests.interop.children import Child, eventually, listens, run
from tests.interop.scenario import ScenarioTestCase
from tests.interop.servers import start_sshd
from tests.programs import require_program

pytestmark = pytest.mark.by_turns

_PAGES = Path(__file__).parents[2] / "docs/tutorial"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SECTION = re.compile(r"^## (.*)\n", re.MULTILINE)
# What is another one each time: times, names of connections and ports, how much a client of this version says, how long it took.
_CHANGING = re.compile(
    r"\d{4}-\d\d-\d\dT[\d:.+Z]+|\bid=\S+|(?<=127\.0\.0\.1:)\d{5}\b|\b(bytes_\w+|\w+_ms|facts\.\w+)=\S+|(?<=process )\d+|(?<=unix:)\S+(?=/txmux/)|OpenSSH_\S.*"
)


def _sections() -> dict[str, str]:
    _, *parts = _SECTION.split((_PAGES / "first-port.md").read_text())
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _blocks(section: str, language: str) -> list[str]:
    return [text for kind, text in _BLOCK.findall(_sections()[section]) if kind == language]


def _typed(block: str) -> Iterator[tuple[str, str]]:
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, seen = part.partition("\n")
        yield command, seen


def _lasting(text: str) -> str:
    return _CHANGING.sub("…", " ".join(text.split()))


def _begin(its: type[ScenarioTestCase], command: str, folder: str = "") -> Child:
    sockets = its.folder / "txmux"
    sockets.mkdir(exist_ok=True)
    go = f"export RUNTIME_DIRECTORY={sockets}; cd {its.folder / folder}"
    return its.share(Child("bash", "-c", f"{go} && exec {_meant(its, command)}"))


def _meant(its: type[ScenarioTestCase], command: str) -> str:
    """Return a command as it is run here: with the programs of these tests, an SSH that asks nothing, and a longer wait for a busy machine."""
    name, _, rest = command.partition(" ")
    if name == "ssh":
        return f"ssh {shlex.join(map(str, its.ssh.options))} {rest}"
    own = Path(sys.executable).parent / name
    typed = f"{own} {rest}" if own.exists() else command
    return typed.replace("nc -u -w 1 ", "nc -u -w 5 ")


def _type(its: type[ScenarioTestCase], command: str) -> str:
    return run("bash", "-c", f"cd {its.folder} && {_meant(its, command)} 2>&1").stdout.decode()


class TutorialTests(ScenarioTestCase):
    txmux: ClassVar[Child]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.ssh = cls.share(start_sshd(cls.make_folder("ssh"), 22))
        web, secret = _blocks("Three servers", "console")
        cls.begin_all(web).wait_for("Serving HTTP on")
        cls.begin_all(secret, "secret")
        eventually(lambda: listens(8443), "there is a TLS server on port 8443")
        (rules,) = _blocks("The rules", "ini")
        (cls.folder / "rules.ini").write_text(rules)
        start, _ = _blocks("Run it", "console")
        cls.txmux = cls.begin_all(start)
        cls.txmux.wait_for(r"listening on 127\.0\.0\.1:4430")

    @classmethod
    def begin_all(cls, block: str, folder: str = "") -> Child:
        *before, (last, _) = _typed(block)
        for command, _ in before:
            if not command.startswith("cd "):
                _type(cls, command)
        return _begin(cls, last, folder)

    @classmethod
    def changed_rules(cls) -> str:
        (listener,) = _blocks("Silence, and the rest", "ini")
        (rules,) = _blocks("The rules", "ini")
        return f"{listener}\n{rules[rules.index('[route ssh]') :]}"

    def test_first_lines_of_the_log(self) -> None:
        start, _ = _blocks("Run it", "console")
        ((_, seen),) = _typed(start)
        for line in seen.splitlines():
            self.txmux.wait_for(
                re.escape(_lasting(line)).replace("…", r"\S+").replace(r"\ ", r"\s+")
            )

    def test_check(self) -> None:
        for command, seen in _typed(_blocks("The rules", "console")[0]):
            if seen:
                # Who runs the tests as root is warned of that.
                of_root = r"(?m).*start it as root.*\n|, 1 warning$"
                self.assertEqual(re.sub(of_root, "", _type(type(self), command)), seen)

    def test_three_answers(self) -> None:
        _, tried = _blocks("Run it", "console")
        for command, seen in _typed(tried):
            self.assertEqual(_type(type(self), command.replace("curl", "curl --silent")), seen)
        (told,) = _blocks("Run it", "text")
        keys = re.findall(r"\b[\w.]+(?==)", told)
        line = self.txmux.wait_for(r"(time=\S+ .*route=https.*)")[1]
        self.assertEqual(re.findall(r"\b[\w.]+(?==)", line), keys)

    def test_silence(self) -> None:
        """A client that says something else, and with other rules one that says nothing."""
        (knock, _), _ = _typed(_blocks("Silence, and the rest", "console")[0])
        self.assertEqual(_type(type(self), knock), "")
        self.txmux.wait_for("reason=no-route")
        changed = self.folder / "silent.ini"
        changed.write_text(self.changed_rules().replace(":4430", ":4431"))
        mux = self.own(Child(sys.executable, "-m", "twisted", "txmux", "--rules", changed))
        mux.wait_for("listening on")
        ((_, greeting),) = _typed(_blocks("Silence, and the rest", "console")[1])
        with os.popen("timeout 180 nc 127.0.0.1 4431 < /dev/null") as client:
            self.assertEqual(_lasting(client.readline()), _lasting(greeting))

    def test_mistake(self) -> None:
        wrong = self.folder / "wrong.ini"
        wrong.write_text(self.changed_rules().replace("backend", "backed", 2))
        ((command, seen),) = _typed(_blocks("Make a mistake", "console")[0])
        said = _type(type(self), command.replace("rules.ini", "wrong.ini"))
        self.assertEqual(said, seen.replace("rules.ini", "wrong.ini"))


_UDP_CHANGING = re.compile(r"(?<=127\.0\.0\.1:)\d{5}\b|\b\w+_ms=\S+")


def _udp_blocks(language: str) -> list[str]:
    text = (_PAGES / "first-udp-port.md").read_text()
    return [block for kind, block in _BLOCK.findall(text) if kind == language]


class UdpTutorialTests(ScenarioTestCase):
    txmux: ClassVar[Child]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        require_program("nc")
        [server] = _udp_blocks("python")
        (cls.folder / "server.py").write_text(server)
        [rules] = _udp_blocks("ini")
        (cls.folder / "udp.ini").write_text(rules)
        first, second, _, _, _ = _udp_blocks("console")
        for block in (first, second):
            [(command, _)] = _typed(block)
            _begin(cls, command)
        for port in (5301, 5302):
            eventually(lambda port=port: _is_bound(port), f"a server has port {port}")  # type: ignore[misc]
        _, (command, _) = _typed(_udp_blocks("console")[2])
        cls.txmux = _begin(cls, command)
        cls.addClassCleanup(cls.stop)
        cls.txmux.wait_for(r"listening on udp:127\.0\.0\.1:5300")

    @classmethod
    def stop(cls) -> None:
        """Have txmux wait for the flow that is still there, which the next signal ends."""
        cls.txmux.process.terminate()
        cls.txmux.wait_for("for up to 30 s")

    def test_check(self) -> None:
        (command, seen), _ = _typed(_udp_blocks("console")[2])
        # As root there is a warning, too.
        self.assertIn(seen.strip(), _type(type(self), command))

    def test_clients(self) -> None:
        for command, seen in _typed(_udp_blocks("console")[3]):
            self.assertEqual(_type(type(self), command), seen)
        line = " ".join(_udp_blocks("text")[0].split())
        told = self.txmux.wait_for(r"route=dns .*")[0]
        self.assertEqual(_UDP_CHANGING.sub("…", told.strip()), _UDP_CHANGING.sub("…", line))

    def test_explained(self) -> None:
        [(command, seen)] = _typed(_udp_blocks("console")[4])
        self.assertEqual(_type(type(self), command).strip(), seen.strip())


def _is_bound(port: int) -> bool:
    return f":{port:04X} " in Path("/proc/net/udp").read_text()

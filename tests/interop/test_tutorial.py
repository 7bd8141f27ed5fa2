"""The tutorials, *Your first port* and *Your first UDP port*: what they say to type is typed, and what they say comes, comes."""

import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.interop.servers import start_sshd
from tests.programs import require_program
from tests.support.kit import Child, ScenarioTestCase, eventually, listens, run, write

_PAGES = Path(__file__).parents[2] / "docs/tutorial"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What is another one each time: times, names of connections and ports, how much a client of this version says, how long it took.
_CHANGING = re.compile(
    r"\d{4}-\d\d-\d\dT[\d:.+Z]+|\bid=\S+|(?<=127\.0\.0\.1:)\d{5}\b|\b(bytes_\w+|\w+_ms|facts\.\w+)=\S+|(?<=process )\d+|(?<=unix:)\S+(?=/txmux/)|OpenSSH_\S.*"
)


def _blocks(section: str, language: str) -> list[str]:
    """Return the blocks of a section of the first page, or those of the second page."""
    text = (_PAGES / "first-udp-port.md").read_text()
    if section:
        page = (_PAGES / "first-port.md").read_text()
        _, *parts = re.split(r"^## (.*)\n", page, flags=re.MULTILINE)
        text = dict(zip(parts[::2], parts[1::2], strict=True))[section]
    return [block for kind, block in _BLOCK.findall(text) if kind == language]


def _typed(block: str) -> Iterator[tuple[str, str]]:
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, seen = part.partition("\n")
        yield command, seen


def _lasting(text: str) -> str:
    return _CHANGING.sub("…", " ".join(text.split()))


def _begin(test: ScenarioTestCase, command: str, folder: str = "") -> Child:
    sockets = test.folder / "txmux"
    sockets.mkdir(exist_ok=True)
    go = f"export RUNTIME_DIRECTORY={sockets}; cd {test.folder / folder}"
    return test.own(Child("bash", "-c", f"{go} && exec {_meant(test, command)}"))


def _meant(test: ScenarioTestCase, command: str) -> str:
    """Return a command as it is run here: with the programs of these tests, an SSH that asks nothing, and a longer wait for a busy machine."""
    name, _, rest = command.partition(" ")
    if name == "ssh":
        return f"ssh {shlex.join(map(str, test.ssh.options))} {rest}"
    own = Path(sys.executable).parent / name
    typed = f"{own} {rest}" if own.exists() else command
    return typed.replace("nc -u -w 1 ", "nc -u -w 5 ")


def _type(test: ScenarioTestCase, command: str) -> str:
    return run("bash", "-c", f"cd {test.folder} && {_meant(test, command)} 2>&1").stdout.decode()


_UDP_CHANGING = re.compile(r"(?<=127\.0\.0\.1:)\d{5}\b|\b\w+_ms=\S+")


class TutorialTests(ScenarioTestCase):
    def begin_all(self, block: str, folder: str = "") -> Child:
        *before, (last, _) = _typed(block)
        for command, _ in before:
            if not command.startswith("cd "):
                _type(self, command)
        return _begin(self, last, folder)

    def test_all_of_it(self) -> None:
        self.ssh = self.own(start_sshd(self.make_folder("ssh"), 22))
        web, secret = _blocks("Three servers", "console")
        self.begin_all(web).wait_for("Serving HTTP on")
        self.begin_all(secret, "secret")
        eventually(lambda: listens(8443), "there is a TLS server on port 8443")
        (rules,) = _blocks("The rules", "ini")
        write(self.folder / "rules.ini", rules)
        for command, seen in _typed(_blocks("The rules", "console")[0]):
            if seen:
                # Who runs the tests as root is warned of that.
                of_root = r"(?m).*start it as root.*\n|, 1 warning$"
                self.assertEqual(re.sub(of_root, "", _type(self, command)), seen)

        start, tried = _blocks("Run it", "console")
        txmux = self.begin_all(start)
        ((_, seen),) = _typed(start)
        for line in seen.splitlines():
            txmux.wait_for(re.escape(_lasting(line)).replace("…", r"\S+").replace(r"\ ", r"\s+"))
        txmux.wait_for(r"listening on 127\.0\.0\.1:4430")
        for command, seen in _typed(tried):
            self.assertEqual(_type(self, command.replace("curl", "curl --silent")), seen)
        (log,) = _blocks("Run it", "text")
        keys = re.findall(r"\b[\w.]+(?==)", log)
        line = txmux.wait_for(r"(time=\S+ .*route=https.*)")[1]
        self.assertEqual(re.findall(r"\b[\w.]+(?==)", line), keys)

        # A client that says something else, and with other rules one that says nothing.
        knocked, silent = _blocks("Silence, and the rest", "console")
        (knock, _), _ = _typed(knocked)
        self.assertEqual(_type(self, knock), "")
        txmux.wait_for("reason=no-route")
        (listener,) = _blocks("Silence, and the rest", "ini")
        changed = f"{listener}\n{rules[rules.index('[route ssh]') :]}"
        silent_rules = write(self.folder / "silent.ini", changed.replace(":4430", ":4431"))
        options = ("-m", "twisted", "txmux", "--rules", silent_rules)
        self.own(Child(sys.executable, *options, ready="listening on"))
        ((_, greeting),) = _typed(silent)
        with os.popen("timeout 180 nc 127.0.0.1 4431 < /dev/null") as client:
            self.assertEqual(_lasting(client.readline()), _lasting(greeting))

        write(self.folder / "wrong.ini", changed.replace("backend", "backed", 2))
        ((command, seen),) = _typed(_blocks("Make a mistake", "console")[0])
        said = _type(self, command.replace("rules.ini", "wrong.ini"))
        self.assertEqual(said, seen.replace("rules.ini", "wrong.ini"))

    def test_udp(self) -> None:
        require_program("nc")
        [server], [rules] = _blocks("", "python"), _blocks("", "ini")
        write(self.folder / "server.py", server)
        write(self.folder / "udp.ini", rules)
        first, second, third, clients, explained = _blocks("", "console")
        for block in (first, second):
            [(command, _)] = _typed(block)
            _begin(self, command)
        sockets = Path("/proc/net/udp")
        for port in (5301, 5302):
            bound = f":{port:04X} "
            eventually(lambda b=bound: b in sockets.read_text(), f"a server has port {port}")  # type: ignore[misc]
        (check, checked), (command, _) = _typed(third)
        # As root there is a warning, too.
        self.assertIn(checked.strip(), _type(self, check))
        txmux = _begin(self, command)
        txmux.wait_for(r"listening on udp:127\.0\.0\.1:5300")
        for command, seen in _typed(clients):
            self.assertEqual(_type(self, command), seen)
        line = " ".join(_blocks("", "text")[0].split())
        told = txmux.wait_for(r"route=dns .*")[0]
        self.assertEqual(_UDP_CHANGING.sub("…", told.strip()), _UDP_CHANGING.sub("…", line))
        [(command, seen)] = _typed(explained)
        self.assertEqual(_type(self, command).strip(), seen.strip())
        # It waits for the flow that is still there, which the next signal ends.
        txmux.process.terminate()
        txmux.wait_for("for up to 30 s")

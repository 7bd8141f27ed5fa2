import os
import re
import signal
import socket
import sys
from pathlib import Path

from tests.interop.children import PATIENCE, Child, InteropTestCase, eventually

_ROOT = Path(__file__).parents[2]
_RULES = "[txmux]\ninclude = p/*.ini\n[listen public]\nendpoint = :443\ndefault = close\nroutes_from = *\n"
_FAILING = """
from zope.interface import implementer
from txmux.interfaces import IProvider
@implementer(IProvider)
class Failing:
    name, summary = "failing", "fails"
    def options(self, parser):
        pass
    async def run(self, reactor, arguments, writer):
        raise KeyError("its own mistake")
failing = Failing()
"""


class RunTests(InteropTestCase):
    def start(self, plugins: Path, *words: str | Path, notify: Path | str = "") -> Child:
        path = f"PYTHONPATH={plugins.parents[1]}:{_ROOT}:{os.environ.get('PYTHONPATH', '')}"
        command = sys.executable, "-m", "tests.support.alone", "provider", *words
        return self.own(Child("env", path, f"NOTIFY_SOCKET={notify}", *command))

    def test_provider_of_another_package(self) -> None:
        page = (_ROOT / "docs/reference/api.md").read_text()
        blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
        (plugin,) = [block for block in blocks if "FilesProvider" in block]
        plugins, ports = self.make_folder("lib/twisted/plugins"), self.make_folder("ports")
        (plugins / "txmux_files.py").write_text(plugin)
        (ports / "a.example").write_text("8001\n")
        (ports / "b.example").write_text("no port\n")
        rules, made = self.folder / "rules.ini", self.folder / "p/files.ini"
        rules.write_text(_RULES)
        told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(told.close)
        told.settimeout(PATIENCE)
        told.bind(f"{self.folder}/notify.sock")
        words = "files", "--folder", ports, "--write", made, "--rules", rules
        child = self.start(plugins, *words, notify=f"{self.folder}/notify.sock")
        child.wait_for("file b.example is left out: backend: ")
        self.assertEqual(told.recv(1000).decode(), f"READY=1\nSTATUS={made}: 1 object")
        self.assertIn("backend = 127.0.0.1:8001\n", made.read_text())
        self.assertIn("# left out: file b.example: backend: ", made.read_text())
        (ports / "b.example").write_text("8002\n")
        eventually(lambda: "8002" in made.read_text(), "it is written")
        child.process.send_signal(signal.SIGTERM)
        self.assertEqual(child.wait(), 0)
        self.assertNotRegex(child.output, "critical|Traceback")

    def test_provider_that_fails(self) -> None:
        plugins = self.make_folder("failing/twisted/plugins")
        (plugins / "txmux_failing.py").write_text(_FAILING)
        child = self.start(plugins, "failing", "--write", "/x")
        self.assertEqual(child.wait(), 1)
        self.assertIn("KeyError: 'its own mistake'", child.output)

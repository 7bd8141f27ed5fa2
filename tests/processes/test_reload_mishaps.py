"""Reloads when the rules file, or what it names, is not what it was."""

from __future__ import annotations

import gc
import os
import re
import shutil
import signal
import socket
import sys
from pathlib import Path

import twisted.plugins
from twisted.internet.task import deferLater
from twisted.logger import LogLevel, capturedLogs

from tests.interop.children import InteropTestCase, eventually, leave_unmeasured
from tests.interop.mux import Mux
from tests.processes.running import pids_of
from tests.service.test_privileges import require_root
from tests.support.peers import reactor
from tests.support.service import ServiceTestCase
from txmux import MuxService

_RULES = """
[listen public]
endpoint = 127.0.0.1:0
default  = close
"""
_ROUTE = "[route more]\nmatch = ssh\nbackend = close\n"


class MishapsTest(InteropTestCase):
    """A service of one process."""

    def begin(self, settings: str = "") -> None:
        """Start it."""
        self.folder.chmod(0o755)
        self.mux = Mux(self.folder, _RULES, settings)
        self.addCleanup(self.mux.stop)
        (self.rules,) = self.mux.log.parent.glob("*.ini")
        self.text = self.rules.read_text()

    def reload(self) -> str:
        """Reload, see to it that clients are served, and give what the log says."""
        pattern = r"rules (?:not )?reloaded.*"
        count = len(re.findall(pattern, self.mux.child.output))
        os.kill(self.mux.child.pid, signal.SIGHUP)
        eventually(lambda: len(re.findall(pattern, self.mux.child.output)) > count, "it is told")
        with socket.create_connection(("127.0.0.1", self.mux.port), timeout=60) as client:
            client.sendall(b"x")
            self.assertEqual(client.recv(1), b"")
        return str(re.findall(pattern, self.mux.child.output)[-1])

    def test_no_file(self) -> None:
        """A file that is gone, a folder, a pipe and a link to nowhere are refused, and the service goes on until there is a file."""
        self.begin()
        path = self.rules
        path.unlink()
        self.assertIn("No such file", self.reload())
        path.mkdir()
        self.assertIn("Is a directory", self.reload())
        path.rmdir()
        os.mkfifo(path)
        self.assertIn("not reloaded", self.reload())
        path.unlink()
        path.symlink_to("nowhere.ini")
        self.assertIn("No such file", self.reload())
        path.unlink()
        path.write_text(self.text + _ROUTE)
        self.assertEqual(self.reload(), "rules reloaded: 1 route new (more)")

    def test_swapped_link(self) -> None:
        """A link that leads to another file, as tools of deployment change it, is followed again."""
        self.begin()
        versions = []
        for number, text in enumerate((self.text, self.text + _ROUTE)):
            versions.append(self.rules.with_name(f"version-{number}"))
            versions[-1].write_text(text)
        self.rules.unlink()
        for version, told in ((versions[1], "1 route new"), (versions[0], "1 route gone")):
            link = self.rules.with_name("new")
            link.symlink_to(version.name)
            link.replace(self.rules)
            self.assertIn(told, self.reload())

    def test_included(self) -> None:
        """So it is with included files: one that leads nowhere is refused, one that is gone takes its rules along."""
        self.begin("include = more/*.inc")
        folder = self.rules.parent / "more"
        folder.mkdir()
        (folder / "one.inc").write_text(_ROUTE)
        self.assertIn("1 route new", self.reload())
        (folder / "two.inc").symlink_to("nowhere")
        self.assertIn("two.inc", self.reload())
        (folder / "two.inc").unlink()
        (folder / "one.inc").unlink()
        self.assertIn("1 route gone", self.reload())

    def test_helper_gone(self) -> None:
        """Without the helper that kept the privilege, a reload is refused with what to do."""
        require_root()
        leave_unmeasured(self)
        self.begin("user = nobody")
        self.mux.child.wait_for("is user nobody from now on")
        (helper,) = (
            pid
            for pid in pids_of(self.mux.child.pid)
            if b"opener" in Path(f"/proc/{pid}/cmdline").read_bytes()
        )
        os.kill(helper, signal.SIGKILL)
        for _ in range(2):
            self.assertIn(
                "the helper that opens files has ended: restart the service", self.reload()
            )
        self.assertNotIn("Traceback", self.mux.child.output)


class ManyTest(ServiceTestCase):
    """A service of one process, which is the test's own, that is to have several."""

    async def test_workers_that_cannot_start(self) -> None:
        """Workers that cannot start are told of in one line; the service goes on, and nothing else is said of them."""
        plugins = self.folder / "twisted/plugins"
        plugins.mkdir(parents=True)
        shutil.copy(Path(__file__).with_name("shy_matcher.py"), plugins / "shy.py")
        self.patch(twisted.plugins, "__path__", [*twisted.plugins.__path__, str(plugins)])
        self.patch(sys, "path", [str(self.folder), *sys.path])  # workers get the same
        rules = self.folder / "rules.ini"
        alone = f"[txmux]\nworkers = 1\n{_RULES}{_ROUTE.replace('ssh', 'shy')}"
        rules.write_text(alone)
        service = self.running = MuxService.from_file(rules)
        service.startService()
        self.addCleanup(self.stop)
        rules.write_text(alone.replace("workers = 1", "workers = 2"))
        gc.collect()  # what is left of other tests is no matter of this one
        with capturedLogs() as events:
            told = (await service.reload()).errors
            await deferLater(reactor, 0)  # until nothing of it is being called
            gc.collect()  # what nobody has looked at is logged with the last who knows it
        self.assertRegex("\n".join(told), "^worker . cannot start.*matcher 'shy'")
        (said,) = [
            event["log_format"].format(**event)
            for event in events
            if event["log_level"] > LogLevel.info
        ]
        self.assertIn("rules not reloaded, all goes on as before: worker", said)
        rules.write_text(alone)
        self.assertEqual((await service.reload()).changes, "nothing changed")

"""Reloads when the rules file, or what it names, is not what it was."""

import os
import re
import signal

from tests.interop.children import leave_unmeasured
from tests.interop.mux import Mux
from tests.processes.running import WorkersTestCase, named, use_plugin
from tests.service.test_privileges import require_root

_RULES = """
[listen public]
endpoint = 127.0.0.1:0
default  = close
"""
_SHY = "[route more]\nmatch = shy\nbackend = close\n"
_ROUTE = "[route more]\nmatch = ssh\nbackend = close\n"


class MishapsTest(WorkersTestCase):
    def begin(self, settings: str = "") -> None:
        self.folder.chmod(0o755)
        self.mux = Mux(self.folder, _RULES, settings)
        self.addCleanup(self.mux.stop)
        self.rules = self.mux.file
        self.text = self.rules.read_text()

    def reload(self) -> str:
        told = self.mux.reload()
        self.be_closed(self.mux)
        return told

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
        self.assertIn("reload failed", self.reload())
        path.unlink()
        path.symlink_to("nowhere.ini")
        self.assertIn("No such file", self.reload())
        path.unlink()
        path.write_text(self.text + _ROUTE)
        self.assertEqual(self.reload(), "rules reloaded: 1 route new (more)")

    def test_swapped_link_is_followed_again(self) -> None:
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

    def test_included_file_that_leads_nowhere_or_is_gone(self) -> None:
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
        """Without the helper that kept the privilege, a reload or an upgrade is refused with what to do."""
        require_root()
        leave_unmeasured(self)
        self.begin("user = nobody")
        self.mux.child.wait_for("serving with")
        (helper,) = named(self.mux.child.pid, "helper")
        os.kill(helper, signal.SIGKILL)
        for _ in range(2):
            self.assertIn(
                "the helper that opens files has ended: restart the service", self.reload()
            )
        os.kill(self.mux.child.pid, signal.SIGUSR2)
        self.mux.child.wait_for(
            "upgrade failed, the old process keeps serving: the helper that opens files has ended: restart the service"
        )
        self.assertNotIn("Traceback", self.mux.child.output)

    def test_worker_that_cannot_start(self) -> None:
        """A worker that cannot start is logged in one line; the service goes on, and nothing else is said of it."""
        use_plugin(self, "shy")
        self.begin("workers = 1\nadmin = off")
        self.rules.write_text(self.text.replace("workers = 1", "workers = 2") + _SHY)
        self.assertRegex(
            self.reload(),
            "^reload failed, keeping the previous rules: worker 2 cannot start: .*not in this worker",
        )
        self.rules.write_text(self.text)
        self.assertEqual(self.reload(), "rules reloaded: nothing changed")
        self.assertEqual(
            re.findall(r"#(?:warn|error|critical)\]", self.mux.child.output), ["#error]"]
        )

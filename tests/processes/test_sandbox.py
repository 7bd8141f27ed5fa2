"""What a process that has clients cannot do any more, whatever code runs in it; and what it can, all the same."""

from __future__ import annotations

import os
import re
import shutil
import signal
import tempfile
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.children import eventually, leave_unmeasured, run
from tests.interop.mux import Mux, twist_command
from tests.processes.running import pids_of
from tests.processes.upgrading import Upgrading
from tests.support.certificates import make_authority
from txmux.processes.privilege import landlock
from txmux.processes.privilege.sandbox import SandboxError, sandbox_of
from txmux.rules.reading.parser import parse

RULES = """
[listen public]
endpoint = 127.0.0.1:0

[route secure]
match = tls
terminate_tls = {site}

[route nosy]
match = nosy
backend = close
"""

TRIED = frozenset(
    {
        *("passwords", "read", "list", "thread", "named", "helper", "parent", "memory"),
        *("write", "append", "remove", "link", "execute"),
    }
)


class SandboxCase(SynchronousTestCase):
    """Has a plugin that tries to break out."""

    def setUp(self) -> None:
        """Make the plugin, and what it tries to read."""
        if not landlock.abi():
            raise SkipTest("this kernel has no Landlock")
        leave_unmeasured(self)
        self.folder = Path(tempfile.mkdtemp(prefix="txmux-sandbox-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.folder.chmod(0o755)
        plugins = self.folder / "python/twisted/plugins"
        plugins.mkdir(parents=True)
        shutil.copy(Path(__file__).with_name("nosy_matcher.py"), plugins / "nosy.py")
        path = os.pathsep.join([str(self.folder / "python"), os.environ.get("PYTHONPATH", "")])
        told = {"PYTHONPATH": path, "NOSY_FOLDER": str(self.folder)}
        self.patch(os, "environ", {**os.environ, **told})
        for name in ("secret", "old"):
            (self.folder / name).write_text("precious")
        self.authority = make_authority()
        self.site = self.folder / "site.pem"
        self.authority.issue("old.example").write(self.site, key=True)
        self.rules = RULES.format(site=self.site)

    def attempts(self, mux: Mux) -> dict[str, str]:
        """Have the plugin try all, and give what came of it."""
        before = len(mux.child.output)
        with mux.connect() as client:
            client.sendall(b"x")
            client.recv(1)
        eventually(lambda: "tried all" in mux.child.output[before:], "the plugin has tried all")
        return dict(re.findall(r"tried (\w+): (\w+)", mux.child.output[before:]))

    def subject(self, mux: Mux) -> str:
        """Give the name in the certificate that new clients are shown."""
        done = run("openssl", "s_client", "-connect", f"127.0.0.1:{mux.port}")
        found = re.search(rb"subject=CN ?= ?(\S+)", done.stdout)
        return found[1].decode() if found else ""


class SandboxTests(SandboxCase):
    """A real service with workers."""

    def mux(self, settings: str) -> Mux:
        """Start a service."""
        mux = Mux(self.folder, self.rules, settings)
        self.addCleanup(mux.stop)
        mux.child.wait_for("workers that serve")
        return mux

    def assert_confined(self, mux: Mux) -> None:
        """See all attempts fail, and nothing changed."""
        self.assertEqual(self.attempts(mux), dict.fromkeys(TRIED, "EACCES"))
        self.assertEqual((self.folder / "secret").read_text(), "precious")
        self.assertTrue((self.folder / "old").exists())
        self.assertFalse((self.folder / "made").exists())

    def test_breaking_out(self) -> None:
        """A plugin reads, writes and executes nothing, itself or by others, and can gain no privileges; one worker is enough."""
        mux = self.mux("sandbox = yes")
        self.assertIn("sandbox: workers can open only what the rules name", mux.child.output)
        self.assert_confined(mux)
        (worker,) = filter(_is_worker, pids_of(mux.child.pid))
        self.assertIn("NoNewPrivs:\t1", Path(f"/proc/{worker}/status").read_text())

    def test_files_that_change(self) -> None:
        """A renewed certificate is read, a reload may name new files, in other folders, too, and the log is opened again."""
        mux = self.mux("sandbox = yes")
        self.assertEqual(self.subject(mux), "old.example")
        renewed = self.authority.issue("renewed.example").write(self.folder / "new.pem", key=True)
        renewed.replace(self.site)
        eventually(lambda: self.subject(mux) == "renewed.example", "the new certificate is shown")
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir()
        other = self.authority.issue("other.example").write(elsewhere / "other.pem", key=True)
        moved = mux.log.rename(mux.log.with_name("moved.log"))
        mux.file.write_text(mux.file.read_text().replace(str(self.site), str(other)))
        mux.child.process.send_signal(signal.SIGHUP)
        mux.child.wait_for("rules reloaded")
        self.assertEqual(self.subject(mux), "other.example")
        eventually(lambda: "secure" in mux.log.read_text(), "the new file of the log has a line")
        eventually(lambda: "secure" in moved.read_text(), "the old one has those from before")
        self.assert_confined(mux)

    def test_upgrade(self) -> None:
        """An upgrade executes the program outside of the sandbox, so that it may name any file; its workers are confined again."""
        mux = Upgrading(self.folder, self.rules, "sandbox = yes")
        self.addCleanup(mux.stop)
        for number in range(2):
            site = self.folder / f"{number}.pem"
            self.authority.issue(f"site{number}.example").write(site, key=True)
            text = re.sub("terminate_tls = .*", f"terminate_tls = {site}", mux.file.read_text())
            mux.file.write_text(text)
            mux.upgrade()
            self.assertEqual(self.subject(mux), f"site{number}.example")
        self.assert_confined(mux)

    def test_crashed(self) -> None:
        """The successor of a worker that crashed is confined as well, and reads what it needs."""
        mux = self.mux("sandbox = yes\nworkers = 2")
        workers = [*filter(_is_worker, pids_of(mux.child.pid))]
        self.assertEqual(len(workers), 2)
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        eventually(
            lambda: mux.child.output.count("workers that serve") > 1, "others have their places"
        )
        self.assertEqual(self.subject(mux), "old.example")
        self.assert_confined(mux)

    def test_by_itself(self) -> None:
        """With a user and several workers there is a sandbox without being asked for, and without a user there is none."""
        if os.geteuid() != 0:
            raise SkipTest("only root can become another user")
        self.assert_confined(self.mux("workers = 2\nuser = nobody"))
        free = self.mux("workers = 2")
        self.assertNotIn("sandbox: ", free.child.output)
        self.assertEqual(self.attempts(free)["read"], "done")

    def test_off(self) -> None:
        """It can be switched off, but not while the service runs."""
        mux = self.mux("workers = 2\nsandbox = off")
        self.assertEqual(self.attempts(mux)["named"], "done")
        mux.file.write_text(mux.file.read_text().replace("sandbox = off", "sandbox = yes"))
        mux.child.process.send_signal(signal.SIGHUP)
        mux.child.wait_for("sandbox: cannot change while the service runs")

    def test_endpoint_of_another_kind(self) -> None:
        """An endpoint that only Twisted can open is refused, with what would do."""
        rules = self.folder / "rules.ini"
        endpoint = "ssl:0:privateKey=key.pem:certKey=chain.pem"
        rules.write_text(f"[txmux]\nsandbox = yes\n[listen public]\nendpoint = {endpoint}\n")
        done = run(*twist_command(), "txmux", "--rules", rules)
        self.assertIn(b"or sandbox = auto and workers = 1\n", done.stderr)
        self.assertEqual(done.returncode, os.EX_CONFIG)


class WithoutLandlockTests(SynchronousTestCase):
    """A kernel that has none, or a filter that does not let it be used."""

    def setUp(self) -> None:
        """Have the kernel say so."""
        self.patch(landlock, "abi", lambda: 0)

    def sandbox(self, settings: str) -> str:
        """Tell what workers are to do."""
        return sandbox_of(parse(f"[txmux]\n{settings}\n[listen a]\nendpoint = :0\n", "x"))

    def test_insisting(self) -> None:
        """`yes` is an error that says what to write."""
        with self.assertRaises(SandboxError) as caught:
            self.sandbox("sandbox = yes")
        self.assertIn("write sandbox = auto", str(caught.exception))

    def test_otherwise(self) -> None:
        """Otherwise there is none."""
        self.assertEqual(self.sandbox("workers = 2\nuser = nobody"), "off")
        self.assertEqual(self.sandbox("sandbox = off"), "off")


def _is_worker(pid: int) -> bool:
    return b"txmux.processes.workers.child" in Path(f"/proc/{pid}/cmdline").read_bytes()

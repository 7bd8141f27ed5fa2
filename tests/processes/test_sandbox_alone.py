"""What the only process of `txmux run` cannot do any more, whatever code runs in it; and what it can, all the same."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from pathlib import Path

from tests.interop.children import PATIENCE, Child, eventually
from tests.interop.mux import Mux
from tests.processes.running import is_gone, open_files, pids_of
from tests.processes.test_sandbox import RULES, TRIED, SandboxCase

_OLDER = """
import os, signal
for module, name in ((os, "memfd_create"), (os, "pidfd_open"), (signal, "pidfd_send_signal")):
    delattr(module, name)
"""
_MEASURED = {
    *("cpu_seconds_total", "start_time_seconds"),
    *("virtual_memory_bytes", "resident_memory_bytes"),
    *("open_fds", "max_fds"),
}
_SAYS = "sandbox: the process can open only what the rules name"


class _Running(Mux):
    """``txmux run`` with a file that names its process."""

    def __init__(self, folder: Path, rules: str, settings: str) -> None:
        self.file, self.log = folder / "rules.ini", folder / "access.log"
        self.pidfile = folder / "pid"
        self.file.write_text(f"[txmux]\naccess_log = {self.log}\n{settings}\n{rules}")
        command = ("-m", "txmux", "run", "--pidfile", self.pidfile, self.file)
        self.child = Child(sys.executable, *command)
        self.ports = {"public": int(self.child.wait_for(r"listening on \S+:(\d+) for")[1])}
        eventually(self.pidfile.exists, "it serves")

    @property
    def pid(self) -> int:
        """The process that serves."""
        return int(self.pidfile.read_text())

    def upgrade(self) -> None:
        """Have a new process serve."""
        old = self.pid
        self.send(signal.SIGUSR2)
        eventually(lambda: is_gone(old), "the old process has ended")

    def send(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def reload(self, old: str, new: str) -> None:
        """Have it read changed rules."""
        text = self.file.read_text()
        assert old in text
        self.file.write_text(text.replace(old, new))
        count = self.child.output.count("rules reloaded")
        self.send(signal.SIGHUP)
        eventually(lambda: self.child.output.count("rules reloaded") > count, "it has read them")


class AloneTests(SandboxCase):
    """A real service with a plugin that tries to break out."""

    def running(self, settings: str = "", rules: str = "") -> _Running:
        """Start a service, and wait until it is in its sandbox."""
        mux = _Running(self.folder, rules or self.rules, settings)
        self.addCleanup(self.end, mux)
        mux.child.wait_for(_SAYS)
        return mux

    def end(self, mux: _Running) -> None:
        """End it, and see that it leaves nothing behind."""
        mux.send(signal.SIGTERM)
        eventually(lambda: not mux.pidfile.exists(), "it has ended")
        mux.child.wait()
        self.assertNotRegex(mux.child.output, "Traceback|Unhandled|cannot be tidied up")

    def measured(self) -> set[str]:
        """Give the names of what the metrics tell of the process."""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(PATIENCE)
            asking.connect(str(self.folder / "metrics.sock"))
            asking.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            text = b"".join(iter(lambda: asking.recv(2**16), b"")).decode()
        return set(re.findall(r"^process_(\w+) [0-9]", text, re.MULTILINE))

    def assert_alone(self, mux: _Running) -> None:
        """See all attempts fail, and no new privileges."""
        self.assertEqual(self.attempts(mux), dict.fromkeys(TRIED, "EACCES"))
        self.assertEqual((self.folder / "secret").read_text(), "precious")
        self.assertIn("NoNewPrivs:\t1", Path(f"/proc/{mux.pid}/status").read_text())

    def test_breaking_out(self) -> None:
        """It needs no key: a plugin reads, writes and executes nothing, itself or by others; before and after an upgrade."""
        mux = self.running()
        self.assert_alone(mux)
        mux.upgrade()
        eventually(lambda: mux.child.output.count(_SAYS) == 2, "the new process is in a sandbox")
        self.assert_alone(mux)

    def test_metrics(self) -> None:
        """The metrics tell what the process takes: time and again, and after an upgrade."""
        mux = self.running(f"metrics = unix:{self.folder / 'metrics.sock'}")
        for _ in range(2):
            self.assertEqual(self.measured(), _MEASURED)
        held = {"/proc/stat", *(f"/proc/{mux.pid}/{name}" for name in ("fd", "limits", "stat"))}
        self.assertLessEqual(held, open_files(mux.pid))
        mux.upgrade()
        eventually(lambda: mux.child.output.count(_SAYS) == 2, "the new process is in a sandbox")
        self.assertEqual(self.measured(), _MEASURED)

    def test_older_library(self) -> None:
        """So it does with a Python that was built with an older C library, as that of uv or conda may be."""
        site = self.folder / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(_OLDER)
        paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.patch(os, "environ", {**os.environ, "PYTHONPATH": os.pathsep.join(paths)})
        mux = self.running()
        mux.upgrade()
        eventually(lambda: mux.child.output.count(_SAYS) == 2, "the new process is in a sandbox")

    def test_files_that_change(self) -> None:
        """A reload, and an upgrade, may name a certificate, a log and a UNIX socket in other folders; nothing is left of the socket."""
        mux = self.running()
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir()
        other = self.authority.issue("other.example").write(elsewhere / "other.pem", key=True)
        mux.reload(str(self.site), str(other))
        self.assertEqual(self.subject(mux), "other.example")
        renewed = self.authority.issue("renewed.example").write(self.folder / "new.pem", key=True)
        renewed.replace(other)
        eventually(lambda: self.subject(mux) == "renewed.example", "the new certificate is shown")
        listening = elsewhere / "public.sock"
        mux.reload("127.0.0.1:0", f"127.0.0.1:0\n    unix:{listening}")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(listening))
        log = elsewhere / "access.log"
        mux.reload(str(mux.log), str(log))
        self.assertEqual(self.subject(mux), "renewed.example")
        eventually(lambda: "secure" in log.read_text(), "the new log has a line")
        mux.upgrade()
        self.assertEqual(self.subject(mux), "renewed.example")
        mux.reload(f"\n    unix:{listening}", "")
        eventually(lambda: not listening.exists(), "the file of the socket is removed")

    def test_new_token(self) -> None:
        """A reload may name a secret that is not there yet: it is made."""
        mux = self.running("admin = 127.0.0.1:0\nadmin_token = first.token")
        mux.reload("first.token", "second.token")
        made = self.folder / "second.token"
        self.assertEqual(made.stat().st_mode & 0o777, 0o600)
        self.assertNotEqual(made.read_text(), (self.folder / "first.token").read_text())

    def test_watched(self) -> None:
        """A file that comes into a folder of ``include``, and a change of it, are noticed."""
        (self.folder / "more").mkdir()
        mux = self.running("watch_rules = 1s\ninclude = more/*.ini")
        added = self.folder / "more/route.ini"
        added.write_text("[route shell]\nmatch = ssh\nbackend = close\n")
        mux.child.wait_for(r"rules reloaded: 1 route new \(shell\)")
        added.write_text("[route shell]\nmatch = ssh\nbackend = reject\n")
        mux.child.wait_for(r"rules reloaded: 1 route changed \(shell\)")

    def test_workers(self) -> None:
        """Workers that a reload wants are started, and are as confined."""
        mux = self.running()
        mux.reload("[txmux]", "[txmux]\nworkers = 2")
        eventually(lambda: len(pids_of(mux.pid)) > 2, "there are workers")
        self.assertEqual(self.attempts(mux), dict.fromkeys(TRIED, "EACCES"))
        mux.reload("workers = 2", "workers = 1")
        self.assertEqual(self.attempts(mux), dict.fromkeys(TRIED, "EACCES"))

    def test_off(self) -> None:
        """It can be switched off."""
        mux = _Running(self.folder, self.rules, "sandbox = off")
        self.addCleanup(self.end, mux)
        self.assertEqual(self.attempts(mux)["read"], "done")

    def test_twisted_endpoints(self) -> None:
        """Where Twisted opens an endpoint there is none, since such an endpoint names files of its own."""
        pem = self.site
        endpoint = f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}"
        rules = RULES.format(site=pem).replace("127.0.0.1:0", endpoint)
        file = self.folder / "twisted.ini"
        file.write_text(rules)
        child = Child(sys.executable, "-m", "txmux", "run", file)
        self.addCleanup(child.end)
        child.wait_for("txmux .*, process")
        found = re.search(r"process (\d+)", child.output)
        assert found is not None
        self.assertEqual(pids_of(int(found[1])), [])

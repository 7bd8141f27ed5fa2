"""``txmux run``: the service with a log to read."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import SkipTest

from tests.interop.children import (
    PATIENCE,
    Child,
    InteropTestCase,
    eventually,
    leave_unmeasured,
    run,
)
from tests.processes.running import is_gone
from tests.service.test_privileges import python_for_everybody
from tests.support.echo import EchoServer

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMAND = (sys.executable, "-m", "txmux", "run")
_LINE = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (?:info |warn |error|critical) "

_RULES = """\
[txmux]
drain_timeout = 10s
{settings}
[listen public]
endpoint = 127.0.0.1:0
default = 127.0.0.1:{port}
"""


_EARLY = """
import os, sys
from txmux.cli import main
from txmux.service import MuxService
start = MuxService.startService
def start_and_be_told(self):
    os.kill(os.getpid(), int(sys.argv[1]))
    start(self)
MuxService.startService = start_and_be_told
sys.exit(main(["run", sys.argv[2]]))
"""
"""Runs the service, which is sent a signal while it starts."""


class RunTestCase(InteropTestCase):
    """Has a server, and starts services before it."""

    def setUp(self) -> None:
        super().setUp()
        self.echo = self.own(EchoServer())
        self.rules = self.folder / "rules.ini"

    def write(self, settings: str = "", more: str = "") -> None:
        self.rules.write_text(_RULES.format(settings=settings, port=self.echo.port) + more)

    def start(self, *options: str | Path, settings: str = "") -> Child:
        self.write(settings)
        return self.begin(self.rules, *options)

    def begin(self, *words: str | Path, before: Sequence[str] = ()) -> Child:
        child = self.own(Child(*before, *COMMAND, *words))
        self.port = int(child.wait_for(r"listening on 127\.0\.0\.1:(\d+)")[1])
        return child

    def client(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        self.addCleanup(client.close)
        self.assert_relayed(client)
        return client

    def assert_relayed(self, client: socket.socket) -> None:
        client.sendall(b"there and back")
        self.assertEqual(client.recv(14, socket.MSG_WAITALL), b"there and back")

    def assert_lines(self, child: Child) -> None:
        """Check that all it has said is lines of the log, none of them twice."""
        lines = child.output.splitlines()
        for line in lines:
            self.assertRegex(line, rf"^{_LINE}\S| {_LINE.strip()}   \S")
        self.assertEqual(len(lines), len(set(lines)), child.output)


class LifeTests(RunTestCase):
    """From the start to the end."""

    def test_serve(self) -> None:
        """It serves, tells what happens in lines with a time and a level, and ends with 0 when it is told to stop."""
        child = self.start(settings="workers = 2")
        child.wait_for(rf"^{_LINE}txmux \S+, process {child.pid}, rules {self.rules}$")
        client = self.client()
        client.close()
        child.wait_for(rf"^{_LINE}time=\S+ id=\S+ listener=public .* reason=done$")
        child.process.terminate()
        self.assertEqual(child.wait(), 0, child.output)
        self.assert_lines(child)
        self.assertRegex(child.output, rf"(?m)^{_LINE}stopping: SIGTERM$")
        self.assertRegex(child.output, rf"{_LINE}stopped\n\Z")

    def test_interrupted_ends_as_shells_expect(self) -> None:
        child = self.start()
        child.wait_for("rules")
        child.process.send_signal(signal.SIGINT)
        self.assertEqual(child.wait(), -signal.SIGINT)
        self.assertIn("stopped\n", child.output)

    def test_signal_while_it_starts(self) -> None:
        self.write()
        for number, status in ((signal.SIGTERM, 0), (signal.SIGINT, -signal.SIGINT)):
            child = self.own(Child(sys.executable, "-c", _EARLY, str(int(number)), self.rules))
            self.assertEqual(child.wait(), status, child.output)
            self.assert_lines(child)
            self.assertIn("stopped\n", child.output)

    def test_sighup_reloads(self) -> None:
        child = self.start()
        client = self.client()
        self.write(more="colour = red\nsize = 5\n")
        child.process.send_signal(signal.SIGHUP)
        child.wait_for(rf"^{_LINE}reload failed, keeping the previous rules: {self.rules}:7: ")
        child.wait_for(rf"^{_LINE}  {self.rules}:8: ")
        self.write(more="[route more]\nmatch = ssh\nbackend = close\n")
        child.process.send_signal(signal.SIGHUP)
        child.wait_for("rules reloaded: 1 route new")
        self.assert_relayed(client)

    def test_upgrade(self) -> None:
        """SIGUSR2 starts the same command, which goes on with the connections and the log; the pidfile names the new process."""
        pidfile = self.folder / "pid"
        child = self.start("--pidfile", pidfile, settings="workers = 2")
        client = self.client()
        child.process.send_signal(signal.SIGUSR2)
        new = int(child.wait_for(r"process (\d+) serves from now on")[1])
        self.addCleanup(_end, new)
        self.assertEqual(child.process.wait(PATIENCE), 0)
        self.assertEqual(int(pidfile.read_text()), new)
        self.assert_relayed(client)
        os.kill(new, signal.SIGHUP)
        child.wait_for("rules reloaded: nothing changed")
        client.close()
        child.wait_for(r"reason=done")
        os.kill(new, signal.SIGTERM)
        eventually(lambda: is_gone(new), "the new process has ended")
        self.assertFalse(pidfile.exists())

    def test_log_level(self) -> None:
        self.write(more="[backend unused]\nserver = 127.0.0.1:1\n")
        child = self.own(Child(*COMMAND, self.rules, "--log-level", "warn"))
        child.wait_for(r"\[backend unused\]")
        child.process.terminate()
        self.assertEqual(child.wait(), 0)
        self.assertRegex(child.output, rf"\A{_LINE}[^\n]*\[backend unused\][^\n]*\n\Z")
        child = self.start("--log-level", "debug")
        child.wait_for("Starting reactor|listening on")
        self.client().close()
        child.process.terminate()
        self.assertEqual(child.wait(), 0)
        self.assertIn("Main loop terminated", child.output)


def _end(pid: int) -> None:
    if not is_gone(pid):
        os.kill(pid, signal.SIGKILL)


class FailureTests(RunTestCase):
    """What cannot start says why, and only that."""

    def failure(self, *words: str | Path) -> tuple[int, str]:
        done = run(*COMMAND, *words)
        self.assertEqual(done.stdout, b"")
        return done.returncode, done.stderr.decode()

    def test_bad_rules_are_78(self) -> None:
        self.write(more="colour = red\nsize = 5\n")
        status, said = self.failure(self.rules)
        self.assertEqual(status, os.EX_CONFIG)
        self.assertEqual(re.findall(r"^\S+?:(\d+): \[", said, re.MULTILINE), ["7", "8"])
        self.assertEqual(len(said.splitlines()), 2)
        (self.folder / "bad.pem").write_text("nothing")
        self.write(more="[route a]\nmatch = tls\nterminate_tls = bad.pem\nbackend = close\n")
        status, said = self.failure(self.rules)
        self.assertEqual(status, os.EX_CONFIG)
        self.assertIn("[route a] terminate_tls: ", said)
        self.assertEqual(len(said.splitlines()), 1, said)

    def test_no_file_is_78(self) -> None:
        status, said = self.failure(self.folder / "missing.ini")
        self.assertEqual(status, os.EX_CONFIG)
        self.assertEqual(
            said, f"{self.folder}/missing.ini: cannot be read: No such file or directory\n"
        )

    def test_failure_after_the_start_is_1(self) -> None:
        self.write()
        status, said = self.failure(self.rules, "--pidfile", "/nonexistent/pid")
        self.assertEqual(status, 1)
        self.assertRegex(
            said,
            r"Z critical --pidfile /nonexistent/pid: No such file or directory; stopping\n.*stopping\n\Z",
        )
        self.assertNotIn("Traceback", said)

    def test_port_is_taken_is_1(self) -> None:
        self.write()
        other = self.own(EchoServer())
        text = self.rules.read_text().replace("127.0.0.1:0", f"127.0.0.1:{other.port}")
        self.rules.write_text(text)
        status, said = self.failure(self.rules)
        self.assertEqual(status, 1)
        self.assertRegex(said, r"\A\[listen public\] endpoint .*Address already in use[^\n]*\n\Z")


class OptionsTests(RunTestCase):
    """Without a rules file."""

    def begin_by_options(self, *more: str | Path, before: Sequence[str] = ()) -> Child:
        server = f"127.0.0.1:{self.echo.port}"
        return self.begin("--listen", "127.0.0.1:0", "--redis", server, *more, before=before)

    def assert_serves(self) -> socket.socket:
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as other:
            other.sendall(b"\xff")
            self.assertEqual(other.recv(1), b"")
        client = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        self.addCleanup(client.close)
        self.assert_ping(client)
        return client

    def assert_ping(self, client: socket.socket) -> None:
        client.sendall(b"PING\r\n")
        self.assertEqual(client.recv(6, socket.MSG_WAITALL), b"PING\r\n")

    def test_serve(self) -> None:
        """It serves as the options say, says that there is nothing to reload, and an upgrade goes on by the same options."""
        child = self.begin_by_options("--workers", "2")
        client = self.assert_serves()
        child.process.send_signal(signal.SIGHUP)
        child.wait_for(rf"^{_LINE}nothing to reload: the rules are the options")
        child.process.send_signal(signal.SIGUSR2)
        new = int(child.wait_for(r"process (\d+) serves from now on")[1])
        self.addCleanup(_end, new)
        self.assertEqual(child.process.wait(PATIENCE), 0)
        self.assert_ping(client)
        client.close()
        self.assert_serves().close()
        os.kill(new, signal.SIGTERM)
        eventually(lambda: is_gone(new), "the new process has ended")

    def test_asked(self) -> None:
        """Commands find it without being told where, and say that its rules are not in a file."""
        self.patch(os, "environ", {**os.environ, "RUNTIME_DIRECTORY": str(self.folder)})
        child = self.begin_by_options()

        def ask(word: str) -> str:
            done = run(sys.executable, "-m", "txmux", word)
            self.assertEqual((done.returncode, done.stderr), (0, b""))
            return done.stdout.decode()

        child.wait_for(r"/options\.sock for \[txmux\] admin")
        self.assertRegex(
            ask("status"), r"(?m)^rules +<options>, generation 1, sha256 [0-9a-f]{12}$"
        )
        self.assertRegex(ask("reload"), r"\Anothing to reload: the rules are the options")

    def test_user(self) -> None:
        """It becomes another user, and the helper writes the pidfile where only root may; an upgrade works there, too."""
        if os.geteuid():
            raise SkipTest("only root can become another user")
        leave_unmeasured(self)
        pidfile = self.folder / "pid"
        words = ("--user", "nobody", "--pidfile", pidfile)
        child = self.begin_by_options(*words, before=python_for_everybody())
        child.wait_for("is user nobody from now on")
        client = self.assert_serves()
        eventually(pidfile.exists, "the pidfile is there")
        self.assertNotEqual(Path(f"/proc/{child.pid}").stat().st_uid, 0)
        child.process.send_signal(signal.SIGUSR2)
        new = int(child.wait_for(r"process (\d+) serves from now on")[1])
        self.addCleanup(_end, new)
        self.assertEqual(child.process.wait(PATIENCE), 0)
        self.assertEqual(int(pidfile.read_text()), new)
        self.assert_ping(client)
        os.kill(new, signal.SIGHUP)
        child.wait_for("nothing to reload")
        client.close()
        os.kill(new, signal.SIGTERM)
        eventually(lambda: is_gone(new), "it has ended")
        eventually(lambda: not pidfile.exists(), "the pidfile is gone")

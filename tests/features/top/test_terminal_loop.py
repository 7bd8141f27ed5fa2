"""`txmux top` on a terminal of its own, before a service that is played."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from typing import Any

from tests.features.top.snapshot import CONNECTIONS, RECENT, ROUTES
from tests.support.everything import BACKENDS, STATUS
from tests.support.kit import PATIENCE, CommandTestCase, eventually

_LEFT = r"\x1b\[\?25h\x1b\[\?1049l"


class WatchTests(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.service = self.answering()
        self.service.others = {
            "/api/status": STATUS, "/api/routes": ROUTES, "/api/backends": BACKENDS,
            "/api/recent": RECENT, "/api/connections?limit=1000": CONNECTIONS,
            "/api/connections?route=site&limit=1000": CONNECTIONS[:1],
        }  # fmt: skip
        self.start()

    def start(self) -> None:
        self.user, terminal = pty.openpty()
        self.before = termios.tcgetattr(self.user)
        words = [sys.executable, "-m", "txmux", "top", "--admin", self.service.at]
        how: Any = dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
        # In another group than its parent, so that it can be suspended.
        how |= {"env": {**os.environ, "TERM": "xterm"}, "process_group": 0}
        self.program = subprocess.Popen(words, **how)
        os.close(terminal)
        self.addCleanup(self.program.wait, PATIENCE)
        self.addCleanup(self.program.kill)
        self.shown(r"\[1\] connections  3")

    def shown(self, pattern: str, typed: str = "") -> str:
        """Type, and read until the pattern has come."""
        os.write(self.user, typed.encode())
        text, until = b"", time.monotonic() + PATIENCE
        while not re.search(pattern, text.decode("utf-8", "replace")):
            self.assertLess(time.monotonic(), until, text)
            text += os.read(self.user, 65536) if select.select([self.user], [], [], 1)[0] else b""
        return text.decode("utf-8", "replace")

    def ended(self) -> int:
        """Its exit status, when it has left the screen and restored the terminal."""
        self.shown(_LEFT)
        status = self.program.wait(PATIENCE)
        self.assertEqual(termios.tcgetattr(self.user), self.before)
        os.close(self.user)
        return status

    def signal(self, number: int) -> None:
        os.kill(self.program.pid, number)

    def asked(self, method: str, path: str) -> int:
        return sum((one.method, one.path) == (method, path) for one in self.service.asked)

    def test_keys(self) -> None:
        self.shown("end connection 5f3a-1 .*y/n", "x")
        self.shown("nothing was changed", "\x1b")
        self.shown("nothing changed", "xy")
        self.assertEqual(self.asked("POST", "/api/connections/5f3a-1/close"), 1)
        self.shown(r"connections  1, only route=site", "/route=site\r")
        self.shown("paused, p continues", "p")
        self.service.others["/api/status"] = {**STATUS, "version": "9.8.7"}
        asked = self.asked("GET", "/api/recent")
        eventually(lambda: self.asked("GET", "/api/recent") > asked + 1, "it asks while paused")
        self.assertNotIn("9.8.7", self.shown("Up, Down: scroll", "h"))
        self.shown("9.8.7", "qp")
        os.write(self.user, b"q")
        self.assertEqual(self.ended(), 0)

    def test_signals(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self.signal(number)
            self.assertEqual(self.ended(), 0 if number == signal.SIGINT else -number)
            self.start()
        for is_halted in (False, True):
            if is_halted:
                self.start()
                self.signal(signal.SIGSTOP)
                os.waitpid(self.program.pid, os.WUNTRACED)
            os.close(self.user)
            self.signal(signal.SIGCONT)
            self.assertEqual(self.program.wait(PATIENCE), 141)

    def test_suspended_and_resized(self) -> None:
        for number in (signal.SIGTSTP, signal.SIGSTOP):
            self.signal(number)
            _, status = os.waitpid(self.program.pid, os.WUNTRACED)
            self.assertTrue(os.WIFSTOPPED(status))
            self.assertEqual(termios.tcgetattr(self.user) == self.before, number == signal.SIGTSTP)
            self.signal(signal.SIGCONT)
            self.shown(r"\x1b\[\?1049h[^\0]*\[1\] connections  3")
        termios.tcsetwinsize(self.user, (24, 100))
        self.signal(signal.SIGWINCH)
        self.shown("serves for")
        os.write(self.user, b"q")
        self.assertEqual(self.ended(), 0)

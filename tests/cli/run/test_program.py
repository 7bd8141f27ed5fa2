import io
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.support.kit import PATIENCE, make_folder
from txmux.cli.journal import LEVELS
from txmux.cli.run.program import TextLog, as_text
from txmux.telemetry.access_log import ACCESS

_TIME = 1795163804.0879
_RULES = "[listen a]\nendpoint = 127.0.0.1:0\n[route r]\nmatch = any\nbackend = 127.0.0.1:9\n"
_EARLY = """
import os, sys
from txmux.cli import main
from txmux.processes.service import MuxService
start = MuxService.startService
def start_and_be_told(self):
    for number in sys.argv[2:]:
        os.kill(os.getpid(), int(number))
    start(self)
MuxService.startService = start_and_be_told
sys.exit(main(["run", sys.argv[1]]))
"""
"""Runs the service, which is sent signals while it starts."""


def event(text: str, level: str = "info", **more: Any) -> dict[str, Any]:
    return {
        "log_time": _TIME, "log_level": LogLevel.levelWithName(level),
        "log_namespace": "txmux.processes.service", "log_format": "{text}", "text": text, **more,
    }  # fmt: skip


class LogTests(SynchronousTestCase):
    def test_time_level_and_message(self) -> None:
        self.assertEqual(as_text(event("it serves")), "2026-11-20T08:36:44.087Z info  it serves\n")
        # Each line of a message has them.
        lines = "2026-11-20T08:36:44.087Z error a: 1\n2026-11-20T08:36:44.087Z error   b: 2\n"
        self.assertEqual(as_text(event("a: 1\nb: 2", "error")), lines)
        # The message comes before the traceback.
        text = as_text(event("no", "critical", log_failure=Failure(ValueError("why"))))
        first, *others = text.splitlines()
        self.assertTrue(first.endswith("Z critical no"), first)
        self.assertIn("ValueError: why", others[-1])

    @given(st.text(), st.sampled_from(LEVELS))
    def test_no_message_can_forge_a_line(self, text: str, level: str) -> None:
        for line in as_text(event(text, level)).removesuffix("\n").split("\n"):
            self.assertRegex(line, rf"^2026-11-20T08:36:44\.087Z {level} ")

    # The journal is the socket at the standard error stream.
    def run_service(self, rules: str, *, is_named: bool = True, serves: bool = True) -> bytes:
        path = make_folder(self) / "rules.ini"
        path.write_text(rules)
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                state = os.fstat(theirs.fileno())
                stream = f"{state.st_dev}:{state.st_ino if is_named else 0}"
                command = [sys.executable, "-m", "txmux", "run", str(path)]
                environment = {**os.environ, "JOURNAL_STREAM": stream}
                end = theirs.fileno()
                process = subprocess.Popen(command, stderr=end, env=environment)
            with process:
                self.addCleanup(process.kill)
                written = b""
                while data := ours.recv(2**16):
                    written += data
                    if b"serving with" in written:
                        self.name = Path(f"/proc/{process.pid}/comm").read_text()
                        process.terminate()
        self.assertEqual(b"serving with" in written, serves)
        return written

    def test_priorities(self) -> None:
        for line in self.run_service(_RULES).splitlines():
            match = re.match(rb"<(\d)>\S+Z (info|warn) ", line)
            assert match is not None, line
            self.assertEqual(match[1], {b"info": b"6", b"warn": b"4"}[match[2]])
        self.assertRegex(self.name, "^txmux: s")
        for line in self.run_service(_RULES, is_named=False).splitlines():
            self.assertRegex(line, rb"^2\d{3}-")
        # Rules with errors.
        lines = self.run_service("[listen a]\nx = 1\ny = 1\n", serves=False).splitlines()
        self.assertEqual([line[:3] for line in lines], [b"<3>"] * 3)
        file = io.StringIO()
        TextLog(file, has_priorities=True)(event("a\nb", "critical"))
        self.assertRegex(file.getvalue(), r"^<2>\S+ critical a\n<2>\S+ critical   b\n$")
        # The journal limits the rate of each priority, and would drop the result of a reload beside many of them.
        file = io.StringIO()
        TextLog(file, has_priorities=True)(event("time=x", "info", log_namespace=ACCESS))
        self.assertRegex(file.getvalue(), r"^<7>\S+ info  time=x\n$")

    def test_while_it_starts(self) -> None:
        """It ends in order as soon as it runs, or at the second one at once."""
        rules = make_folder(self) / "rules.ini"
        rules.write_text(_RULES)
        stop, interrupt = signal.SIGTERM, signal.SIGINT
        ends = ([stop], 0), ([interrupt], -interrupt), ([stop, interrupt], -interrupt)
        for numbers, status in ends:
            words = [sys.executable, "-c", _EARLY, str(rules), *map(str, map(int, numbers))]
            ended = subprocess.run(words, capture_output=True, check=False, timeout=PATIENCE)
            self.assertEqual(ended.returncode, status, ended.stderr)
            self.assertEqual(b"stopped\n" in ended.stderr, len(numbers) == 1)

    def written(self, level: str, *events: dict[str, Any]) -> list[str]:
        file = io.StringIO()
        log = TextLog(file, level)
        for one in events:
            log(one)
        return re.findall(r"^\S+ \w+ +(.*)$", file.getvalue(), re.MULTILINE)

    def test_what_is_left_out(self) -> None:
        # Less than the level.
        events = [event(level, level) for level in LEVELS]
        for number, level in enumerate(LEVELS):
            self.assertEqual(self.written(level, *events), list(LEVELS[number:]))
        # Of Twisted, all but warnings, unless at debug; the output of plugins is logged.
        events = [event(level, level, log_namespace="twisted.internet.base") for level in LEVELS]
        self.assertEqual(self.written("info", *events), ["warn", "error", "critical"])
        self.assertEqual(self.written("debug", *events), list(LEVELS))
        self.assertEqual(self.written("info", event("hello", log_namespace="stdout")), ["hello"])
        # Loggers of txmux under any name are not left out.
        file = io.StringIO()
        Logger(namespace="txmux.access", observer=TextLog(file)).info("{line}", line="id=1")
        self.assertRegex(file.getvalue(), r"Z info  id=1\n$")

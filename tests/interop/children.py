"""Child processes of the tests: started, waited for by what they print, and ended by their own process id."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

from twisted.trial.unittest import SynchronousTestCase

from tests.programs import require_program
from tests.support import forks

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.interop.servers import Certificate, SshServer
    from tests.support.services import Service


class Started(Protocol):
    """A program, or what goes with one."""

    def end(self) -> None:
        """End it."""


T = TypeVar("T", bound=Started)
Word = str | Path

PATIENCE = 180.0
"""Time limit of a step in seconds, long enough for a busy machine."""


class Child:
    """A program that runs beside the tests, whose line that says that it is `ready` has been waited for; its standard input is empty unless ``stdin`` makes it a pipe.

    Attributes:
        lookers: Called with each line of each program.
    """

    lookers: ClassVar[list[Callable[[str], object]]] = []

    def __init__(self, program: str, *words: Word, ready: str = "", stdin: bool = False) -> None:
        self.process = _start([require_program(program), *map(str, words)], stdin=stdin)
        self.pid = self.process.pid
        self.output = ""
        self._changed = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        atexit.register(self._give_up)  # for tests that are given up themselves
        if ready:
            try:
                self.wait_for(ready)
            except AssertionError:
                self.end()
                raise

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                text = line.decode(errors="replace")
                for look in self.lookers:
                    look(text)
                with self._changed:
                    self.output += text
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_for(self, pattern: str) -> re.Match[str]:
        expression = re.compile(pattern, re.MULTILINE)
        with self._changed:
            self._changed.wait_for(lambda: self._ended or expression.search(self.output), PATIENCE)
            match = expression.search(self.output)
        if match is None:
            raise AssertionError(f"{self.process.args!r}: no {pattern!r} in\n{self.output}")
        return match

    def say(self, last_words: bytes) -> None:
        assert self.process.stdin is not None
        with self.process.stdin as stdin:
            stdin.write(last_words)

    def wait(self) -> int:
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        atexit.unregister(self._give_up)
        return status

    def end(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        self._give_up()
        self.wait()

    def _give_up(self) -> None:
        # Some programs end their own children only when they are asked to end.
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()


class InteropTestCase(SynchronousTestCase):
    """Tests with programs that are expensive to start, so that the tests of one class share them, and a folder.

    An attribute of the class that has `start_for` is started before its first test.
    """

    folder: ClassVar[Path]
    mux: Service
    ssh: SshServer
    certificate: Certificate

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.folder = Path(tempfile.mkdtemp(prefix="txmux-interop-"))
        cls.folder.chmod(0o755)  # some servers are other users
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        for attribute in [*vars(cls).values()]:
            if hasattr(attribute, "start_for"):
                attribute.start_for(cls)

    @classmethod
    def make_folder(cls, name: str = "") -> Path:
        folder = cls.folder / (name or os.urandom(4).hex())
        folder.mkdir(parents=True)
        return folder

    @classmethod
    def share(cls, started: T) -> T:
        """Register what all tests of the class share; it is ended after the last one."""
        cls.addClassCleanup(started.end)
        return started

    def own(self, started: T) -> T:
        """Register what one test has started; it is ended with the test."""
        self.addCleanup(started.end)
        return started


def leave_unmeasured(test: SynchronousTestCase) -> None:
    """Turn coverage off in a test's child processes, which may not write its files."""
    for name in ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START"):
        value = os.environ.pop(name, None)
        if value is not None:
            test.addCleanup(os.environ.__setitem__, name, value)


def _environment() -> dict[str, str]:
    return {**os.environ, "no_proxy": "*"}


def _start(words: list[str], *, stdin: bool) -> subprocess.Popen[bytes] | forks.Program:
    environ = _environment()
    if forks.can_fork(words, environ):
        return forks.start(words, environ, stdin=stdin)
    given = subprocess.PIPE if stdin else subprocess.DEVNULL
    pipe, same = subprocess.PIPE, subprocess.STDOUT
    return subprocess.Popen(words, stdin=given, stdout=pipe, stderr=same, env=environ)


def run(
    program: str, *arguments: str | Path, stdin: bytes = b"", timeout: float = 2 * PATIENCE
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end, with a time limit in seconds."""
    words, environ = [require_program(program), *map(str, arguments)], _environment()
    if forks.can_fork(words, environ):
        return forks.run(words, environ, stdin, timeout)
    return subprocess.run(
        words, env=environ, input=stdin, capture_output=True, timeout=timeout, check=False
    )


def succeed(
    program: str, *arguments: str | Path, stdin: bytes = b"", timeout: float = 2 * PATIENCE
) -> subprocess.CompletedProcess[bytes]:
    """Do as `run` with a program that has to exit with 0."""
    done = run(program, *arguments, stdin=stdin, timeout=timeout)
    if done.returncode:
        said = (done.stdout + done.stderr).decode(errors="replace")
        raise AssertionError(f"{done.args!r} ended with {done.returncode}:\n{said}")
    return done


def output_of(program: str, *arguments: str | Path, stdin: bytes = b"") -> bytes:
    return succeed(program, *arguments, stdin=stdin).stdout


def said_by(program: str, *arguments: str | Path, timeout: float = 2 * PATIENCE) -> str:
    """Run a program that has to exit with 0, and give all that it prints."""
    done = succeed(program, *arguments, timeout=timeout)
    return (done.stdout + done.stderr).decode(errors="replace")


def first_of(child: Child) -> int | None:
    """Return the first process of the namespace of ``unshare --fork``, by its ID outside; ``None`` before it exists."""
    with contextlib.suppress(OSError, ValueError):
        (number,) = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        return int(number)
    return None


def eventually(condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while True:
        began = time.monotonic()
        if condition():
            return
        now = time.monotonic()
        if now > deadline:
            raise AssertionError(f"{what}: not within {patience:g} s")
        # What is asked needs the time itself, for what is waited for.
        time.sleep(max(0.01, 2 * (now - began)))


def write(file: Path, text: str, mode: int = 0o644) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)
    return file


def answered(
    address: tuple[str, int], said: bytes = b"x", source: str = "", patience: float = PATIENCE
) -> str | None:
    """Return what a client hears first that says something: an empty text if it is broken off, ``None`` if it cannot connect or hears nothing in time."""
    connecting = partial(socket.create_connection, address, patience)
    with contextlib.suppress(OSError), connecting((source, 0) if source else None) as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(said)
            return client.recv(1000).decode().strip()
        return ""
    return None


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False

"""Lines of the access log that wait for a slow reader when their process ends: each is written, or counted."""

import contextlib
import fcntl
import os
import re
import signal
from pathlib import Path

import pytest

from tests.admin.processes import get, text_of
from tests.processes.reloading import listening_inodes
from tests.support.kit import RULES, Service, WorkersTestCase, eventually, make_folder
from tests.support.proc import is_gone, workers_of

pytestmark = pytest.mark.by_turns(each=True)
_CLIENTS = 100
_PIPE = 4096  # bytes: the lines of some ten clients


class SlowServiceLogTest(WorkersTestCase):
    """With ``access_log = -``, lines go into the service's log."""

    mux: Service

    def begin(self, drain_timeout: str) -> None:
        """Serve clients while nobody reads that log."""
        folder = make_folder(self)
        self.admin, fifo = folder / "admin.sock", folder / "log.fifo"
        os.mkfifo(fifo)
        settings = f"admin = unix:{self.admin}\ndrain_timeout = {drain_timeout}"
        reads = f'cat {fifo} & echo "read by $!."; exec "$0" "$@" 2> {fifo}'
        with os.fdopen(os.open(fifo, os.O_RDWR | os.O_NONBLOCK), "r+b", 0) as pipe:
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE)
            mux = self.mux = Service(
                self.folder, RULES, settings, before=("sh", "-c", reads), program="run"
            )
        self.own(mux)
        self.reader = int(mux.child.wait_for(r"read by (\d+)\.")[1])
        self.addCleanup(self.go_on)
        mux.reload(("access_log = .*", "access_log = -"))
        os.kill(self.reader, signal.SIGSTOP)
        for _ in range(_CLIENTS):
            with mux.connect() as client:
                client.sendall(b"x")
                client.recv(1)
        eventually(lambda: get(self.admin, "/api/status")["connections"]["active"] == 0, "all end")

    def go_on(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # it ends with the last process that writes
            os.kill(self.reader, signal.SIGCONT)

    def written(self) -> int:
        return self.mux.child.output.count('"reason"')

    def test_reader_that_goes_on(self) -> None:
        for how in ("upgraded", "stopped"):
            self.begin("10m")
            old = self.mux.pid
            if how == "upgraded":
                self.mux.replace()
            else:
                self.mux.terminate()
            eventually(lambda: not listening_inodes(old), "it is about to end")  # noqa: B023 - called at once
            self.go_on()
            eventually(lambda: self.written() == _CLIENTS, f"{how}: all lines come")
            self.assert_gone([old])
            self.mux.end()


def lost_lines(admin: Path) -> int:
    [count] = re.findall(r"(?m)^txmux_access_log_lost_total (\d+)", text_of(admin, "/metrics"))
    return int(count)


class SlowReaderTest(WorkersTestCase):
    mux: Service

    def begin(self, drain_timeout: str) -> None:
        """Serve clients, of whose lines the reader takes none yet."""
        folder = make_folder(self)
        self.admin, fifo = folder / "admin.sock", folder / "access.fifo"
        os.mkfifo(fifo)
        self.pipe = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
        self.addCleanup(os.close, self.pipe)
        fcntl.fcntl(self.pipe, fcntl.F_SETPIPE_SZ, _PIPE)
        self.received = b""
        settings = f"admin = unix:{self.admin}\ndrain_timeout = {drain_timeout}"
        before = "sh", "-c", f'exec "$0" "$@" > {fifo}'
        mux = self.mux = self.own(
            Service(self.folder, RULES, settings, before=before, program="run")
        )
        mux.reload(("access_log = .*", "access_log = stdout"))
        for _ in range(_CLIENTS):
            self.be_closed(self.mux)

    def read(self) -> int:
        """Take the lines that have come, and return how many came until now."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.pipe, _PIPE):
                self.received += data
        return self.received.count(b"\n")

    def end_by(self, how: str) -> list[int]:
        """End processes that have lines, and return their IDs."""
        old = [self.mux.pid] if how == "stopped" else workers_of(self.mux.pid)
        if how == "upgraded":
            self.mux.replace()
        elif how == "replaced":
            with self.more_serve(self.mux):
                os.kill(old[0], signal.SIGTERM)
        else:
            self.mux.terminate()
        return old

    def test_reader_that_goes_on(self) -> None:
        """Also where a reload has replaced the log: its reader takes what it has not taken by then before the worker ends."""
        ways = ("replaced", "upgraded", "stopped")
        for how, is_off in (*((way, False) for way in ways), ("replaced", True), ("stopped", True)):
            self.begin("10m")
            if is_off:
                self.mux.reload(("access_log = stdout", "access_log = off"))
            ended = self.end_by(how)
            self.assertFalse(any(map(is_gone, ended)))
            eventually(lambda: self.read() == _CLIENTS, f"{how}: all lines come")
            self.assert_gone(ended)
            self.assertEqual(self.read(), _CLIENTS)
            self.mux.end()

    def test_reader_that_does_not(self) -> None:
        """The rest is counted; a stop says how many."""
        for how in ("replaced", "upgraded", "stopped"):
            self.begin("1s")
            self.assert_gone(self.end_by(how))
            written = self.read()
            rest = _CLIENTS - written
            self.assertLess(written, _CLIENTS)
            if how == "stopped":
                said = "lines that logs could not write since the service started"
                self.mux.child.wait_for(f"{said}: {rest}\n")
            else:
                eventually(lambda: lost_lines(self.admin) == rest, f"{how}: the rest is counted")  # noqa: B023 - called at once
                self.mux.end()

"""A service that is upgraded: the processes, one after another."""

import os
import re
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.interop.children import Child, eventually
from tests.interop.mux import Mux
from tests.processes.running import RULES, WorkersTestCase, customize, is_gone, workers_of
from tests.support.folders import make_folder


class Upgrading(Mux):
    """A running service with a file that names its process.

    Args:
        folder: Where a folder for its files is made.
        rules: All sections but ``[txmux]``.
        settings: Lines of ``[txmux]`` besides those of the access log.
        before: A command that runs the rest of its arguments as a command.

    Attributes:
        pid: The process that serves.
        before: The one that it has replaced.
        pidfile: The file.
    """

    def __init__(
        self, folder: Path, rules: str, settings: str = "", *, before: Sequence[str] = ()
    ) -> None:
        self.pidfile = folder / f"{os.urandom(4).hex()}.pid"
        super().__init__(
            folder, rules, settings, before=before, options=("--pidfile", self.pidfile)
        )
        self._begin()

    def _begin(self) -> None:
        eventually(self.pidfile.exists, "it serves")
        self.pid = self._named()
        self._pids = [self.pid]

    def _named(self) -> int:
        return int(self.pidfile.read_text())

    def _follow(self) -> None:
        self.pid = self._named()
        if self.pid not in self._pids:
            self._pids.append(self.pid)

    def ask(self) -> None:
        os.kill(self.pid, signal.SIGUSR2)

    def replace(self) -> list[int]:
        """Have a new process serve, and give the old workers, which may still have connections."""
        self.ask()
        return self.switched()

    def switched(self) -> list[int]:
        workers, self.before = list[int](), self.pid
        with suppress(FileNotFoundError):  # it has been killed
            workers = workers_of(self.pid)
        eventually(lambda: self._named() != self.before, "another process serves")
        self._follow()
        return workers

    def upgrade(self) -> None:
        """Have a new process serve, and wait until the old one has handed all over and has ended."""
        self.ask()
        old = [*self.switched(), self.before]
        eventually(lambda: all(map(is_gone, old)), "the old processes have ended")

    def refuse(self, why: str) -> None:
        count = len(self._refusals(why))
        self.ask()
        eventually(lambda: len(self._refusals(why)) > count, f"the upgrade fails: {why}")
        if self._named() != self.pid:
            raise AssertionError("another process serves")

    def _refusals(self, why: str) -> list[str]:
        # What the new process has said itself may come before the log's entry, whose further lines are indented.
        entries = re.findall(
            r"upgrade failed, the old process keeps serving: .*(?:\n\t.*)*", self.child.output
        )
        return [entry for entry in entries if re.search(why, entry)]

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def signal(self, number: int) -> int:
        """Send a signal to the process that the file names now, whoever wanted it to serve, and give its number."""
        self._follow()
        os.kill(self.pid, number)
        return self.pid

    def assert_stopped(self) -> None:
        eventually(lambda: all(map(is_gone, self._pids)), "all processes have ended")
        self.child.wait()
        output = self.child.output
        if "Traceback" in output or "Unhandled" in output:
            raise AssertionError(f"it has said:\n{output}")

    def stop(self) -> None:
        """Stop it, unless it has been stopped, and see to it that all is well with it."""
        if not is_gone(self.pid):
            self.terminate()
        self.assert_stopped()

    end = stop

    def kill(self) -> None:
        for pid in self._pids:
            with suppress(ProcessLookupError):  # it ends just now
                if not is_gone(pid):
                    os.kill(pid, signal.SIGKILL)
        self.child.wait()  # its workers end by themselves

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def established(self) -> list[list[str]]:
        return self._sockets("01")

    def inodes(self) -> set[str]:
        return {row[9] for row in self._sockets("0A")}

    def _sockets(self, state: str) -> list[list[str]]:
        ports = {f"{port:04X}" for port in self.ports.values()}
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return [row for row in rows if row[3] == state and row[1].partition(":")[2] in ports]


class Running(Upgrading):
    """``txmux run`` with a file that names its process, whose workers serve."""

    def __init__(
        self, folder: Path, rules: str, settings: str = "", *, before: Sequence[str] = ()
    ) -> None:
        own = Path(tempfile.mkdtemp(prefix="txmux-", dir=folder))
        own.chmod(0o755)
        self._taken: dict[str, int] = {}
        self.log, self.file, self.pidfile = own / "access.log", own / "rules.ini", own / "pid"
        self.file.write_text(
            f"[txmux]\naccess_log = {self.log}\naccess_log_format = json\n{settings}\n{rules}"
        )
        command = (*before, sys.executable, "-m", "txmux", "run")
        self.child = Child(*command, "--pidfile", self.pidfile, self.file)
        self.child.wait_for("serving with ")
        found = re.findall(r"listening on \S+:(\d+) for \[listen (\S+)\]", self.child.output)
        self.ports = {name: int(port) for port, name in found}
        self._begin()


_LATE_MOVES = """
import os, sys
if "txmux" in sys.orig_argv:
    from txmux.processes.worker import transfer

    opened = transfer.opened

    async def late(takers, clock):
        from twisted.internet.task import deferLater

        while not os.path.exists({gate!r}):
            await deferLater(clock, 0.01)
        return await opened(takers, clock)

    transfer.opened = late
"""
_LATE = """
import os, sys
if "txmux" in sys.orig_argv:
    from txmux.processes.upgrade import worker_transfers
    from txmux.processes.upgrade.upgrade import Upgrade

    worker_transfers._STILL = 1.0
    step = Upgrade.{step}

    async def late(self, *arguments):
        from twisted.internet.task import deferLater

        if {after}:
            result = await step(self, *arguments)
        open({ready!r}, "w").close()
        while not os.path.exists({gate!r}):
            await deferLater(self.successor._reactor, 0.01)
        if not {after}:
            result = await step(self, *arguments)
        return result

    Upgrade.{step} = late
"""


class UpgradeTestCase(WorkersTestCase):
    def upgrading(
        self, rules: str = RULES, settings: str = "", before: Sequence[str] = ()
    ) -> Upgrading:
        """Start a service, which is stopped with the test, and has to end well then."""
        mux = Upgrading(self.folder, rules, settings, before=before)
        self.addCleanup(mux.kill)
        return self.own(mux)

    def late_moves(self, more: str = "") -> Path:
        """Have workers wait before they hand connections over, and do `more`; give the file for which they wait."""
        gate = make_folder(self) / "gate"
        gate.parent.chmod(0o755)  # workers may be another user's
        customize(self, _LATE_MOVES.format(gate=str(gate)) + more)
        return gate

    def late(self, step: str, *, after: bool = False) -> tuple[Path, Path]:
        """Have old processes wait before a step of upgrades, or after it; give the file that says so, and the one for which they wait."""
        ready, gate = (make_folder(self) / name for name in ("ready", "gate"))
        customize(self, _LATE.format(step=step, after=after, ready=str(ready), gate=str(gate)))
        return ready, gate

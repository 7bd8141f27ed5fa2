"""Opens files and sockets after the service has become the user of the rules."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmux.files import use_helper
from txmux.net.turns import outcome_of_look
from txmux.processes import oom
from txmux.processes.account import account_of
from txmux.processes.opener import HELPER_ENDED, Opener, OpenerError, opener_of
from txmux.processes.opening_server import OpeningServer
from txmux.processes.supervisor.pidfile import PidFile
from txmux.rules.model import Files, Rules
from txmux.rules.model.rules import OPTIONS
from txmux.rules.reading.parser import load
from txmux.rules.reading.units import lost_units

if TYPE_CHECKING:
    from txmux.serving.store import ListeningSockets

OPENER = "opener:"
"""The key of the helper's connection among the sockets for a new process."""

READS_BY = "TXMUX_HELPER"
"""The environment variable with the descriptor over which a successor reads the rules."""


def read_by_helper() -> Rules | None:
    """Read the rules through the predecessor's helper, which then may open what they name; ``None`` without one."""
    number = os.environ.pop(READS_BY, None)
    if number is None:
        return None
    with socket.socket(fileno=int(number)) as connection:
        return Opener(connection).read_rules()


_helper: Opener | None = None
"""The helper that this process has started, until the service takes it over."""


def start_helper(rules: Rules, pidfile: str | Path | None) -> None:
    """Start the helper, if the service is about to become another user, and its rules are from a file; raises `OSError`.

    Before there is a reactor it is forked, and shares the memory of this process.
    """
    global _helper  # noqa: PLW0603 - it is about the process
    account = account_of(rules)
    if account is not None and not account.is_current and rules.files.texts and not _helper:
        oom.go_last()  # for the helper, too; without root it could not be undone
        path = PidFile(pidfile).path if pidfile else None
        # It cannot read the options of a command.
        _helper = Opener.start(rules.path, path, rules.files.texts.get(OPTIONS))


class Privilege:
    """Opens through a helper what the service may no longer open; without one, the service opens everything by itself."""

    _log = Logger()

    def __init__(self, *stores: ListeningSockets, pidfile: PidFile | None) -> None:
        self._pidfile = pidfile
        self._stores = stores
        self._folder = Path.cwd()
        self._is_shared = False
        self._troubles: Sequence[str] = ()
        self.opener: Opener | None = None

    def adopt(self, connection: socket.socket) -> None:
        opener = Opener(connection)
        opener.watch_helper()
        self._use(opener)

    @contextmanager
    def handed_over(self) -> Iterator[dict[str, socket.socket]]:
        """Yield a connection to the helper for the successor, if there is a helper; an `OpenerError` if that has ended."""
        if self.opener is None:
            yield {}
            return
        try:
            connection = self.opener.another(may_all=True)
        except OSError as problem:
            raise OpenerError(problem.strerror) from problem
        self._is_shared = True
        with connection:
            yield {OPENER: connection}

    def open(self, rules: Rules) -> None:
        """Use the helper that was started early, or start one if it is needed; see `start_helper`."""
        global _helper
        if self.opener is None:
            start_helper(rules, self._pidfile.path if self._pidfile else None)
            helper, _helper = _helper, None
            if helper is not None:
                self._use(helper)

    def given_up(self, user: str) -> None:
        self._log.info("switched to user {user}", user=user)
        if not os.access(sys.executable, os.X_OK):
            self._log.warn(
                "user {user} cannot run {python}: workers cannot be restarted, and upgrades will fail; "
                "install Python and txmux where that user may run them",
                user=user,
                python=sys.executable,
            )

    def has_lost_helper(self) -> bool:
        """Return whether the helper has ended, which is logged the first time."""
        if not self._troubles and self.opener is not None and self.opener.has_ended():
            why = (
                f"{HELPER_ENDED}: restart the service; until then no reload or upgrade is possible, "
                "and the service stops when it cannot replace a worker that ends"
            )
            self._log.error("{why}", why=why)
            self._troubles = [why]
        return bool(self._troubles)

    def look(self) -> None:
        """Called each second: notice whether the helper has ended, or is halted."""
        if not self.has_lost_helper() and self.opener is not None:
            self.opener.look()

    def troubles(self) -> Sequence[str]:
        """Return what is wrong with the helper, for the operator."""
        if self._troubles or self.opener is None or not (pid := self.opener.halted()):
            return self._troubles
        return [
            f"the helper that opens files is halted: continue it (kill -CONT {pid}), or restart the service"
        ]

    def _use(self, opener: Opener) -> None:
        self.opener = opener
        use_helper(opener.open_file, opener.remove_socket)
        if self._pidfile is not None:
            self._pidfile.by_helper = opener.write_pidfile
        for store in self._stores:
            store.open_address = opener_of(store.open_address, opener)

    def read(self, path: Path, in_force: Files) -> Rules:
        """Read the rules again from their file, whose path is relative to the first working directory."""
        if Path.cwd() != self._folder:  # the folder was left after the start
            path = self._folder / path
        if self.opener is not None:
            return self.opener.read_rules()
        return load(path, are_pem_files_there=False, in_force=in_force)

    def commit(self, files: Files) -> None:
        if self.opener is not None:
            # Which have lost to others, it finds as this process does.
            self.opener.commit(files.untaken.keys() - lost_units(files))

    def give_up(self) -> None:
        if self.opener is not None:
            use_helper(None)
            self.opener.close(wait=not self._is_shared)
            self.opener = None


class _WorkerRequests(FileDescriptor):
    def __init__(self, reactor: Any, server: OpeningServer, end: socket.socket) -> None:
        super().__init__(reactor)
        self._server = server
        self._end = end
        self.fileno = end.fileno  # type: ignore[method-assign]
        self.connected = 1
        self.startReading()

    def doRead(self) -> None:
        self.stopReading()
        outcome_of_look(self._server.serve_one, self._end).addCallback(self._served)

    def _served(self, outcome: tuple[bool | None, Exception | None]) -> None:
        if outcome[0] is False:
            self.connectionLost(Failure(ConnectionDone()))
        elif self.connected:  # after a disk that does not answer, there may be other requests
            self.startReading()

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        self._end.close()


def open_for_worker(reactor: Any, server: OpeningServer) -> socket.socket:
    """Return a connection for the `Opener` of a worker, for which this process opens the files of the rules."""
    own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    own.setblocking(False)  # noqa: FBT003 - the socket module's signature
    _WorkerRequests(reactor, server, own)
    return other

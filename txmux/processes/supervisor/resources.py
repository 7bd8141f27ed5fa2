"""The resources of a service beside its workers, which an upgrade hands over to the next process."""

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from twisted.logger import Logger

from txmux.admin.endpoint import PREFIX, AdminEndpoints
from txmux.classes import frozen
from txmux.client.parts import Parts, ServicePart
from txmux.files import FileId
from txmux.processes.supervisor.notify import Notifier
from txmux.processes.supervisor.pidfile import PidFile, PidFileError
from txmux.processes.supervisor.privilege import OPENER, Privilege
from txmux.rules.model import Rules
from txmux.serving.store import ListeningSockets
from txmux.telemetry.counting.counters import Counters
from txmux.telemetry.steps import RecurringSteps

_log = Logger()


@frozen(eq=False, kw_only=True)
class Resources:
    """What the supervisor owns from the start of the service to its end; `MuxService` closes each part."""

    sockets: ListeningSockets
    endpoints: AdminEndpoints
    privilege: Privilege
    counters: Counters
    recurring: RecurringSteps
    parts: Parts[ServicePart]
    notifier: Notifier
    pidfile: PidFile | None

    def adopt(
        self, opened: Mapping[str, socket.socket], files: Mapping[str, Sequence[int]]
    ) -> None:
        """Adopt the sockets of another process, or those that systemd has stored, and which files they have, by their keys."""
        for key, listening in opened.items():
            device, inode = files.get(key, (0, 0))
            file = (device, inode) if inode else None
            if key == OPENER:
                self.privilege.adopt(listening)
            elif key.startswith(PREFIX):
                self.endpoints.adopt(key, listening, file)
            else:
                self.sockets.adopt(key, listening, file)

    def open(self, rules: Rules, *, listening: bool) -> None:
        """Open all sockets; without `listening`, new ones of listeners are only bound."""
        self.sockets.prepare(rules.listeners).commit(listening=listening)
        self.endpoints.open(rules)

    @contextmanager
    def handed_over(self) -> Iterator[dict[str, socket.socket]]:
        """Yield the sockets for the successor, with one to the helper."""
        with self.privilege.handed_over() as helper:
            yield {**self.sockets.draining(), **self._listening(), **helper}

    def store(self) -> None:
        self.notifier.store(self._listening())

    def files(self) -> dict[str, FileId]:
        return {**self.sockets.files, **self.endpoints.files()}

    def _listening(self) -> dict[str, socket.socket]:
        return {**self.sockets.sockets(), **self.endpoints.sockets()}

    def write_pidfile(self, *, must: bool = True) -> None:
        """Write the PID file. Without `must`, a `PidFileError` is only logged."""
        if self.pidfile is not None:
            try:
                self.pidfile.write()
            except PidFileError as problem:
                if must:
                    raise
                _log.error("{problem}", problem=problem)

    def look(self) -> list[str]:
        """Make again what other programs have removed or shut down; return the keys of listening sockets that were replaced."""
        if self.pidfile is not None:
            with suppress(PidFileError):  # as long as its folder is not there
                self.pidfile.write_again()
        return self.sockets.revive()

    def serve(self, is_healthy: Callable[[], bool], *, is_new_main: bool) -> None:
        """Accept clients of `admin` and `metrics`, and report to systemd that this process serves."""
        self.endpoints.accept()
        self.notifier.ready("serving", is_new_main=is_new_main)
        self.notifier.watch(is_healthy)

    def close_sockets(self, *, keep_files: bool) -> None:
        """Stop listening; `keep_files` of UNIX sockets that another process has open, too."""
        self.notifier.stop()
        self.sockets.close(keep_files=keep_files)
        self.remove_pidfile()

    def remove_pidfile(self) -> None:
        if self.pidfile is not None:
            self.pidfile.remove()

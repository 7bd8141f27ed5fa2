"""The supervisor's side of the starter, the process that forks workers."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import attrs
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmux.classes import define
from txmux.errors import MuxError
from txmux.net.channel import messages
from txmux.net.channel.channel import Channel, PeerGoneError, attach
from txmux.net.channel.message import Message
from txmux.processes.account import UserAccount, account_of
from txmux.processes.forking import Child, spawn
from txmux.processes.liveness import HangDetector, activity_of, is_halted
from txmux.processes.oom import score_of_supervisor
from txmux.processes.worker.sandbox import Sandbox
from txmux.rules.model import Rules
from txmux.rules.named_files import needed_modules
from txmux.rules.packing import rules_at_fork
from txmux.serving.listen_addresses import are_all_sockets
from txmux.telemetry.attention import CANNOT_START
from txmux.version import __version__

_PACKAGE = Path(__file__).parents[2]
_STDERR = 2
_ENDED = "the process that starts workers has ended"
STARTER = "txmux.processes.starter"


@define
class BackOff:
    """Restart delays in seconds: zero after a life of at least `settled`; otherwise they double, from `first` to `longest`."""

    first: float = 1.0
    longest: float = 30.0
    settled: float = 30.0
    _next: float = attrs.field(default=0.0, init=False)

    def delay(self, lived: float) -> float:
        delay = 0.0 if lived >= self.settled else self._next
        self._next = min(max(self.first, 2 * delay), self.longest)
        return delay


class InstalledCode:
    """The installed modules of a package when this process started, to detect that they have changed."""

    def __init__(self, package: Path = _PACKAGE) -> None:
        self._package = package
        self._digest = self._fingerprint()

    def change(self) -> str:
        """Return a sentence if they have changed, or else nothing; then nothing should be imported, since it may not fit."""
        if self._fingerprint() == self._digest:
            return ""
        installed = None
        with suppress(OSError, UnicodeDecodeError):  # the file is being replaced
            installed = re.search(
                '__version__ = "(.+)"', (self._package / "version.py").read_text()
            )
        if installed is None or installed[1] == __version__:
            return "the installed code has changed since the service started"
        return f"txmux {installed[1]} is installed, this service runs {__version__}"

    def _fingerprint(self) -> int:
        modules: set[tuple[str, int, int]] = set()
        for folder, _, files in os.walk(self._package):
            for name in files:
                if name.endswith(".py"):
                    path, size, changed = os.path.join(folder, name), 0, 0  # noqa: PTH118 - there are hundreds
                    with suppress(OSError):  # as above
                        status = os.stat(path)  # noqa: PTH116 - as above
                        size, changed = status.st_size, status.st_mtime_ns
                    modules.add((path, size, changed))
        return hash(frozenset(modules))


def spawn_starter() -> Child:
    return spawn(STARTER, score_of_supervisor())


class StarterError(MuxError):
    """No worker can be forked now."""


class Starter:
    """Forks workers through the starter process, and restarts that process when it has ended.

    Args:
        child: The process, if it has been started already.
        is_outdated: Called when the process cannot be restarted because the installed code has changed: an upgrade is needed.
    """

    _log = Logger()
    _rules: Rules  # from `start_forking` on
    _is_killed = False
    inherited: Rules | None = None
    """The rules that the workers have which are forked now."""

    def __init__(
        self, reactor: Any, child: Child | None, is_outdated: Callable[[], object]
    ) -> None:
        self._reactor = reactor
        self._child = child
        self._is_outdated = is_outdated
        self.code = InstalledCode()
        self.connection: _Connection | None = None
        self._back_off = BackOff()
        self._again: IDelayedCall | None = None
        self._becomes_later: UserAccount | None = None
        self._ended: Callable[[int, int], object] = lambda _pid, _status: None
        self._lost: Callable[[str], object] = lambda _how: None
        self._failed_starts = 0
        self._refused: Callable[[int, str], object] = lambda _number, _call: None

    @property
    def is_there(self) -> bool:
        return self.connection is not None and self.connection.channel.is_open

    @property
    def is_failing(self) -> bool:
        return self._failed_starts > 1  # another start would not help

    def start_forking(
        self,
        rules: Rules,
        ended: Callable[[int, int], object],
        lost: Callable[[str], object],
        refused: Callable[[int, str], object],
    ) -> None:
        """Prepare to fork.

        `ended` is called with the ID and the status of a worker that has ended, as from `os.waitpid`; `lost`, with the reason, when the
        starter has ended, so that the ends of its workers will not be reported; `refused` with the number of a worker, and a system
        call that its sandbox has refused.
        """
        self._rules, self._ended, self._lost, self._refused = rules, ended, lost, refused
        self._is_killed = False
        try:
            self._connect(self._child or spawn_starter())
        except OSError as problem:
            raise StarterError(f"no worker can be started: {problem.strerror}") from problem
        self._child = None

    def _connect(self, child: Child) -> None:
        self.connection = _Connection(
            self._reactor,
            child,
            {messages.EXITED: self._ended, messages.REFUSED_CALL: self._refused},
            self._has_ended,
        )
        self.inherited = rules_at_fork() if child.is_forked else None
        self._started_at = self._reactor.seconds()
        self.connection.have_it(messages.STDERR, descriptors=[_STDERR])
        account = account_of(self._rules)
        self._becomes_later = None if account is None or account.is_current else account
        # A worker that opens ports through Twisted drops root by itself afterwards.
        if are_all_sockets(self._rules):
            self.drop_privileges()
        self.prepare(self._rules)

    def drop_privileges(self) -> None:
        """Drop root, which the first workers may need to open endpoints."""
        account, self._becomes_later = self._becomes_later, None
        if account is not None and self.connection is not None:
            self.connection.have_it(messages.BECOME, **attrs.asdict(account))

    def look(self) -> None:
        """Called each second; a process that hangs is killed, and restarted."""
        if self.connection is not None:
            self.connection.look()

    def kill(self) -> None:
        """End the process for good."""
        self._is_killed = True
        if self.connection is not None:
            self.connection.kill()

    def prepare(self, rules: Rules) -> None:
        """Make the starter import the modules that these rules need."""
        self._rules = rules
        modules = [*needed_modules(rules)]
        if self.connection is not None and modules:
            self.connection.have_it(messages.IMPORT, modules=modules)

    def fork(self, number: int, channel: int, sandbox: Sandbox) -> Deferred[int]:
        """Fork a worker, whose number counts from 1, and return its process ID, or a `StarterError`. Close the channel afterwards."""
        from twisted.internet import reactor  # noqa: PLC0415 - it is there

        kind = reactor_of_workers(type(reactor).__module__)
        how = {"number": number, "reactor": kind, "sandbox": sandbox}
        if self.connection is None:
            return fail(StarterError(_ENDED))
        forking = self.connection.ask(messages.FORK, descriptors=[channel], **how)
        return forking.addErrback(_cannot_fork)

    def _has_ended(self) -> None:
        connection, self.connection = self.connection, None
        has_worked, how = connection is not None and connection.has_worked, "has ended"
        if connection is not None and connection.hung:
            how = connection.hung
        if self._is_killed:
            self._lost(how)
            return
        self._failed_starts = 0 if has_worked else self._failed_starts + 1
        delay = self._back_off.delay(self._reactor.seconds() - self._started_at)
        self._log.warn(
            "the process that starts workers has ended; another one is started {when}",
            when=f"in {delay:g} s" if delay else "at once",
        )
        self._again = self._reactor.callLater(delay, self._start_again)
        self._lost(how)

    def _start_again(self) -> None:
        self._again = None
        why = None
        if changed := self.code.change():
            why = f"{changed}; trying an upgrade"
            self._is_outdated()
        else:
            try:
                self._connect(spawn_starter())
            except (OSError, MuxError) as problem:
                why = getattr(problem, "strerror", None) or str(problem)
        if why is not None:
            self._failed_starts += 1
            delay = self._back_off.delay(0)
            self._log.error("no worker can be started for {delay:g} s: {why}", delay=delay, why=why)
            self._again = self._reactor.callLater(delay, self._start_again)
            self._lost(f"{CANNOT_START}: {why}")

    def leave(self) -> None:
        """Leave the process to itself: its workers are another supervisor's, and it ends after the last of them.

        A halted one is killed: no other process notices it, so it would stay, with those that it does not reap.
        """
        if self.connection is not None:
            if is_halted(self.connection.child.pid):
                self.connection.kill()
            else:
                self.connection.is_left = True
        self.close()

    def close(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._child is not None:  # it was never used
            self._child.connection.close()
            self._child.wait()
            self._child = None
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()


class _Connection:
    """The process, and the channel to it.

    Attributes:
        has_worked: Whether it has ever answered: it has imported what it needs.
        hung: Why it was killed; empty if it was not.
        is_left: Whether its workers outlast this process, and it with them.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        child: Child,
        handlers: dict[Message, Callable[..., object]],
        lost: Callable[[], object],
    ) -> None:
        self.child = child
        self.has_worked = self.is_left = self._has_answered = False
        self.is_idle = True  # it has answered the last ping
        self.hung = ""
        self._silence = HangDetector()
        self._tasks = 0
        self._lost: Callable[[], object] | None = lost
        self.channel = Channel(handlers, self._closed, reactor)
        attach(reactor, self.channel, child.connection)

    def ask(self, message: Message, **values: Any) -> Deferred[Any]:
        return self.channel.ask(message, **values).addCallback(self._answered)

    def _answered(self, answer: Any) -> Any:
        self._has_answered = self.has_worked = True
        return answer

    def have_it(self, message: Message, **values: Any) -> None:
        """Start what may take long; its end is reported otherwise."""
        self._tasks += 1
        self.ask(message, **values).addBoth(self._done)

    def _done(self, _: object) -> None:
        self._tasks -= 1

    def look(self) -> None:
        self._silence.observe(activity_of(self.child.pid), has_turned=self._has_answered)
        self._has_answered = False
        if why := self._silence.why(at_work=self._tasks > 0):
            if not self.hung:
                self._log.error("the process that starts workers {why}; it is killed", why=why)
            self.hung = why
            self.kill()
        elif self.is_idle:
            self.is_idle = False
            self.ask(messages.STARTER_PING).addCallbacks(self._idles, lambda _: None)

    def _idles(self, _: object) -> None:
        self.is_idle = True

    def kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(self.child.pid, signal.SIGKILL)

    def _closed(self) -> None:
        if not self.is_left:
            self.child.wait()
        if self._lost is not None:
            self._lost()

    def close(self) -> None:
        self._lost = None
        self.channel.transport.connectionLost(Failure(ConnectionDone()))


def _cannot_fork(failure: Failure) -> NoReturn:
    has_ended = failure.check(PeerGoneError)
    raise StarterError(_ENDED if has_ended else failure.getErrorMessage())


def reactor_of_workers(module: str) -> str:
    return "txmux.net.sockets.reactor" if module == "twisted.internet.epollreactor" else module

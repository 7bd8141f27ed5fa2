"""The process of `txmux run`: from the rules to its exit status."""

import gc
import os
import signal
import sys
from contextlib import suppress
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, eventAsText, globalLogBeginner
from zope.interface import implementer

from txmux.cli import COLLECTING
from txmux.cli.journal import is_journal, with_priority, write_error
from txmux.detection.registry import installed_matchers
from txmux.errors import MuxError, printable
from txmux.net.collecting import UNCOLLECTED_FOR_GOOD
from txmux.net.sockets.memory import keep_running
from txmux.net.sockets.timers import use_monotonic_time
from txmux.net.tls.deferred import import_web_without_email
from txmux.processes import oom
from txmux.processes.forking import Child, name_process
from txmux.processes.memory import give_back
from txmux.processes.supervisor.notify import name_passed_sockets
from txmux.processes.supervisor.privilege import read_by_helper, start_helper
from txmux.processes.supervisor.starter import STARTER, reactor_of_workers, spawn_starter
from txmux.processes.upgrade import ENDS
from txmux.processes.worker.sandbox import folders_of_python
from txmux.rules.lint.warnings import lint
from txmux.rules.model import Rules
from txmux.rules.named_files import needed_modules
from txmux.rules.packing import share_with_forks
from txmux.rules.problems import RulesError
from txmux.rules.reading.parser import load_within_patience
from txmux.telemetry.access_log import ACCESS
from txmux.telemetry.lines import ServiceLog
from txmux.version import __version__

_ADMIN = ("txmux.admin.http", "txmux.admin.site")

_log = Logger(namespace="txmux")

_OWN = ("txmux", "stdout", "stderr")  # what plugins print belongs to the service, too


def read_rules(path: str | Path, data: bytes | None = None) -> Rules:
    """Read the rules that a service starts with; errors of plugins are warnings on the standard error stream.

    A process that takes the place of another one may read the file with the privilege of that one.
    """
    if ENDS in os.environ:
        oom.go_first()
    name_passed_sockets(os.environ)
    matchers = installed_matchers()
    for problem in matchers.problems:
        write_error(f"warning: {problem}", "warn")
    with UNCOLLECTED_FOR_GOOD:
        return read_by_helper() or load_within_patience(path, matchers, data)


def status_of(error: MuxError) -> int:
    # Some errors of rules are found only at the start: a file of certificates that cannot be used.
    return os.EX_CONFIG if isinstance(error, RulesError) else 1


def start_early(rules: Rules, pidfile: str | Path | None) -> Child:
    """Start the process that forks workers, and the one that keeps root if the rules need one.

    This process has no reactor yet, so that all share the memory of what is imported.
    """
    reactor = reactor_of_workers(import_module("twisted.internet.default").install.__module__)
    admin = _ADMIN if rules.settings.admin else ()
    if admin:
        import_web_without_email()
    for module in (reactor, "txmux.processes.service", STARTER, *admin, *needed_modules(rules)):
        import_module(module)
    folders_of_python()  # it walks all modules
    give_back()
    gc.freeze()  # a collection that went through very many rules would keep all others waiting
    gc.set_threshold(*COLLECTING)
    share_with_forks(rules)
    starter = spawn_starter()
    with suppress(MuxError, OSError):  # the start of the service reports it
        start_helper(rules, pidfile)
    if rules.settings.metrics:
        # Of an extra; for the first request, other code may be installed.
        with suppress(ImportError):
            import_module("txmux.admin.metrics")
    return starter


def run_service(rules: Rules, *, level: str, pidfile: str | Path | None = None) -> int:
    """Serve until the process is stopped, and return the exit status.

    SIGINT, by which a person ends it, ends the process as a shell expects.
    """
    # Before processes are forked: it touches all of the rules, whose memory they share.
    with UNCOLLECTED_FOR_GOOD:
        warnings = lint(rules)
    starter = start_early(rules, pidfile)
    name_process("supervisor")
    from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it

    from txmux.processes.service import MuxService  # noqa: PLC0415 - it imports parts of the reactor

    use_monotonic_time(reactor)
    keep_running(reactor)
    any_reactor: Any = reactor
    early = _EarlySignals(any_reactor)
    service = MuxService(
        rules,
        pidfile=pidfile,
        upgrades=True,
        use_sd_notify=True,
        resolve_admin_auto=True,
        starter=starter,
        warnings=warnings,
    )
    # Events before the log is open are buffered for it. A service that cannot start prints only the reason.
    service.startService()
    log = TextLog(ServiceLog(sys.stderr, reactor), level, has_priorities=is_journal())
    globalLogBeginner.beginLoggingTo([log])
    _log.info(
        "txmux {version}, process {pid}, rules {rules}",
        version=__version__,
        pid=os.getpid(),
        rules=rules.path,
    )
    any_reactor.addSystemEventTrigger("before", "shutdown", _stopping, any_reactor)
    any_reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    any_reactor.callWhenRunning(early.begin)
    any_reactor.run()
    if service.failure is not None:
        return status_of(service.failure)
    _log.info("stopped")
    if any_reactor._exitSignal == signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    return 0


def _stopping(reactor: Any) -> None:
    number = reactor._exitSignal
    _log.info("stopping{why}", why=f": {signal.Signals(number).name}" if number else "")


class _EarlySignals:
    """Keeps a signal to stop that comes while the service starts; it stops as soon as it runs."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._is_running = False
        self._saved = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._arrived)

    def begin(self) -> None:
        self._is_running = True
        if self._saved:
            os.kill(os.getpid(), self._saved)

    def _arrived(self, number: int, frame: Any) -> None:
        if self._is_running:  # the reactor leaves a handler of SIGINT alone
            (self._reactor.sigInt if number == signal.SIGINT else self._reactor.sigTerm)(
                number, frame
            )
        elif self._saved:  # a second signal means now
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        else:
            self._saved = number


class _Writes(Protocol):
    def write(self, text: str, /) -> object: ...


_ACCESS_BEGINS = ("time=", "id=", "{", " ")
"""What only lines of the access log begin with: a message that begins with text of others, such as a name, is no line about a client."""


@implementer(ILogObserver)
class TextLog:
    """Writes events as text.

    Of a message of several lines, such as the errors of a reload, all but the first are indented. Twisted's own messages are left out,
    except for warnings and worse, and at level debug. `has_priorities` is for systemd's journal, which limits the rate of each priority:
    lines of the access log have that of debug, so that they use up no messages' rate.
    """

    def __init__(self, file: _Writes, level: str = "info", *, has_priorities: bool = False) -> None:
        self._file = file
        self._has_priorities = has_priorities
        self._least = LogLevel.levelWithName(level)

    def __call__(self, event: LogEvent) -> None:
        """Take an event."""
        least = self._least
        if least is LogLevel.info and not event.get("log_namespace", "").startswith(_OWN):
            least = LogLevel.warn
        if event["log_level"] >= least:
            text = as_text(event)
            if self._has_priorities:
                is_access = event.get("log_namespace") == ACCESS
                text = with_priority(text, "debug" if is_access else event["log_level"].name)
            self._file.write(text)


def as_text(event: LogEvent) -> str:
    before = f"{_moment(event['log_time'])} {event['log_level'].name:5} "
    text = eventAsText(event, includeTimestamp=False, includeSystem=False)
    first, *others = map(printable, text.splitlines() or [""])
    if first.startswith(_ACCESS_BEGINS) and event.get("log_namespace") != ACCESS:
        first = f"message: {first}"
    return "".join([f"{before}{first}\n", *(f"{before}  {line}\n" for line in others)])


def _moment(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"

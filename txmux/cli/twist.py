"""``twist txmux``: its options and its service."""

import atexit
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, Any, NoReturn

from twisted.application.service import IService, MultiService
from twisted.application.twist._options import TwistOptions
from twisted.internet.defer import Deferred
from twisted.logger import textFileLogObserver
from twisted.python import usage

from txmux.cli import open_closed_streams
from txmux.cli.run.program import read_rules, start_early, status_of
from txmux.errors import MuxError
from txmux.net.sockets.memory import keep_running
from txmux.net.sockets.timers import use_monotonic_time
from txmux.net.tls.deferred import import_reactor_without_tls
from txmux.processes.forking import can_fork, ignore_signals, name_process
from txmux.processes.held_signals import release_signals
from txmux.telemetry.lines import ServiceLog

_STDOUT = 1  # the descriptor
_CLOSED = "the standard error stream is closed; start with 2>/dev/null instead\n"


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 <= int(text) <= 65535:
        raise ValueError("a port is a number from 0 to 65535")
    return int(text)


class Options(usage.Options):
    """What ``twist txmux`` takes."""

    synopsis = "--rules FILE | --demo"
    longdesc = "Puts many protocols on one port, told apart by what the client says first."
    optParameters = [  # noqa: RUF012 - usage.Options reads it
        ["rules", "r", None, "The rules file."],
        ["pidfile", None, None, "A file for the process ID."],
        ["demo-port", None, None, "The demo's port, 8443 by default; 0 is a free one.", _port],
    ]
    optFlags = [  # noqa: RUF012
        ["demo", None, "Run without a rules file, with small backends to try out."]
    ]

    def parseArgs(self, *words: str) -> None:
        if not words:
            return
        message = f"{words[0]!r} is not an option; to run a rules file, write: twist txmux --rules {shlex.quote(words[-1])}"
        raise usage.UsageError(message)

    def postOptions(self) -> None:
        program: Any = self.parent
        is_twist = isinstance(program, TwistOptions)
        if is_twist:
            open_closed_streams()
            program["logFile"] = program["logFile"] or sys.stdout or sys.stderr
        if sys.stderr is None:  # the reactor is there already, and has the descriptor
            if sys.stdout is not None:
                sys.stdout.write(_CLOSED)
            sys.exit(os.EX_USAGE)
        import_reactor_without_tls()  # `twist` imports the reactor next
        if bool(self["rules"]) == bool(self["demo"]):
            raise usage.UsageError("give either --rules FILE or --demo")
        mode, unused = ("demo", "pidfile") if self["demo"] else ("rules", "demo-port")
        if self[unused] is not None:
            raise usage.UsageError(f"--{unused} has no effect with --{mode}; leave it out")
        if self["demo"]:
            release_signals()  # it reloads nothing
            return
        try:
            self.rules = read_rules(self["rules"])
        except MuxError as error:
            _stop(error, os.EX_CONFIG)
        # `twist` has no reactor yet, unless --reactor names one. `twistd` may change user, folder and more before it starts the service.
        self.starter = start_early(self.rules, self["pidfile"]) if is_twist and can_fork() else None
        name_process("supervisor")


class _StoppingService(MultiService):
    """Ends the process with one clear line when a service in it cannot start, and with a status that says so."""

    def __init__(self, advice: str = "") -> None:
        super().__init__()
        self._advice = advice

    def startService(self) -> None:
        self._start(super().startService)

    def privilegedStartService(self) -> None:
        self._start(super().privilegedStartService)

    def _start(self, start: Callable[[], object]) -> None:
        try:
            start()
        except MuxError as error:
            _stop(error, status_of(error), self._advice)

    def stopService(self) -> Deferred[Any]:
        failure = next(filter(None, (getattr(service, "failure", None) for service in self)), None)
        if failure is not None:
            # What runs the reactor would end the process as if nothing had failed.
            atexit.register(os._exit, status_of(failure))
        else:
            # The end of the interpreter gives signals their default effect again.
            atexit.register(ignore_signals, signal.SIGTERM)
        stopped: Deferred[Any] = super().stopService()
        return stopped


def _stop(error: MuxError, status: int, advice: str = "") -> NoReturn:
    # The demo's addresses differ in nothing but the family.
    text = f"{str(error).splitlines()[0]}{advice}" if advice else error
    sys.stderr.write(f"{text}\n")
    sys.exit(status)


def _wants_format(words: Sequence[str]) -> bool:
    """Return whether ``--log-format``, or what `twist` takes for it, is among its arguments.

    Outside of a terminal `twist` chooses JSON by default, which repeats each message three times and is unreadable. The parsed options
    do not show whether they were given.
    """
    return any(word.startswith("--log-fo") for word in words)


def _log_file(options: Options, file: IO[str]) -> IO[str]:
    """Choose the stream of the service's own log: not the one of the access log."""
    bare = not options["demo"] and options.rules.settings.access_log == "stdout"
    return sys.stderr if bare and file.fileno() == _STDOUT else file


def makeService(options: Options) -> IService:
    # What is imported here installs the reactor, which --reactor chooses.
    program = options.parent
    if program is not None:
        from twisted.internet import reactor  # noqa: PLC0415

        # `twist` and `twistd` run nothing else; an application that embeds a service keeps its own clock and log.
        use_monotonic_time(reactor)
        keep_running(reactor)
        if "logFile" in program:  # of `twist`
            with suppress(OSError):  # it is none that has a descriptor
                program["logFile"] = ServiceLog(_log_file(options, program["logFile"]), reactor)
            if program.get("logFormat") == "json" and not _wants_format(sys.argv):
                program["fileLogObserverFactory"] = textFileLogObserver
    top = _StoppingService("; --demo-port chooses another one" if options["demo"] else "")
    service: Any
    if options["demo"]:
        from txmux.cli.demo import demo_service  # noqa: PLC0415

        service = demo_service(8443 if options["demo-port"] is None else options["demo-port"])
    else:
        from txmux.processes.service import MuxService  # noqa: PLC0415

        service = MuxService(
            options.rules,
            pidfile=options["pidfile"],
            upgrades=True,
            use_sd_notify=True,
            resolve_admin_auto=True,
            starter=options.starter,
        )
    service.setServiceParent(top)
    made: IService = top
    return made

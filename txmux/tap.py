"""``twist txmux``: its options and its service."""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from twisted.application.service import MultiService
from twisted.python import usage

from txmux.detection.registry import installed_matchers
from txmux.errors import MuxError
from txmux.observe.servicelog import ServiceLog
from txmux.rules.reading.parser import load
from txmux.sockets.clock import use_monotonic_time

if TYPE_CHECKING:
    from twisted.application.service import IService
    from twisted.internet.defer import Deferred

__all__ = ["Options", "makeService"]


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 <= int(text) <= 65535:
        raise ValueError("a port is a number from 0 to 65535")
    return int(text)


class Options(usage.Options):
    """What ``twist txmux`` takes."""

    synopsis = "--rules FILE | --demo"
    longdesc = "Puts many protocols on one TCP port, told apart by what the client says first."
    optParameters = [  # noqa: RUF012 - usage.Options reads it
        ["rules", "r", None, "The rules file."],
        ["pidfile", None, None, "A file that has the process ID while clients are served."],
        ["demo-port", None, 8443, "The port of the demo; 0 is any that is free.", _port],
    ]
    optFlags = [  # noqa: RUF012
        ["demo", None, "Run without a rules file, with small backends to try out."],
    ]

    def postOptions(self) -> None:
        """Read the rules.

        Raises:
            UsageError: The options do not go together.
        """
        if bool(self["rules"]) == bool(self["demo"]):
            raise usage.UsageError("give either --rules FILE or --demo")
        if self["demo"]:
            return
        matchers = installed_matchers()
        for problem in matchers.problems:
            sys.stderr.write(f"warning: {problem}\n")
        try:
            self.rules = load(self["rules"], matchers)
        except MuxError as error:
            _stop(error, os.EX_CONFIG)


class _StoppingService(MultiService):
    """Ends the process with one clear line when a service in it cannot start, and with a status that says so."""

    def startService(self) -> None:
        try:
            super().startService()
        except MuxError as error:
            _stop(error, 1)

    def privilegedStartService(self) -> None:
        try:
            super().privilegedStartService()
        except MuxError as error:
            _stop(error, 1)

    def stopService(self) -> Deferred[Any]:
        if any(getattr(service, "failure", None) for service in self):
            # What runs the reactor would end the process as if nothing had failed.
            atexit.register(os._exit, 1)
        stopped: Deferred[Any] = super().stopService()
        return stopped


def _stop(error: MuxError, status: int) -> NoReturn:
    sys.stderr.write(f"{error}\n")
    sys.exit(status)


def makeService(options: Options) -> IService:
    """Make the service that Twisted's runners run."""
    # Imported late: all of them install the reactor, which --reactor chooses.
    from txmux.demo.service import demo_service  # noqa: PLC0415
    from txmux.service import MuxService  # noqa: PLC0415

    program = options.parent
    if program is not None:
        from twisted.internet import reactor  # noqa: PLC0415

        # `twist` and `twistd` run nothing else; who runs a service in a program of their own keeps their clock and log.
        use_monotonic_time(reactor)
        if "logFile" in program:  # of `twist`
            with suppress(OSError):  # it is none that has a descriptor
                program["logFile"] = ServiceLog(program["logFile"], reactor)
    top = _StoppingService()
    service: Any = (
        demo_service(options["demo-port"])
        if options["demo"]
        else MuxService(options.rules, pidfile=options["pidfile"], upgrades=True, notifies=True)
    )
    service.setServiceParent(top)
    made: IService = top
    return made

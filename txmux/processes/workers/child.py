"""A worker's process: ``python -m txmux.processes.workers.child NUMBER REACTOR``."""

from __future__ import annotations

import signal
import socket
import sys
from importlib import import_module
from typing import Any

from twisted.logger import globalLogBeginner

from txmux.tls.deferred import import_reactor_without_tls


def main() -> None:
    """Run a worker."""
    # The parent gets them, too, and says what is to be done.
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    number, kind = sys.argv[1:]
    import_reactor_without_tls()
    import_module(kind).install()
    from twisted.internet import reactor as installed  # noqa: PLC0415 - importing it installs it

    _run(int(number), installed)


def _run(number: int, reactor: Any) -> None:
    # All of this imports parts of the reactor.
    from txmux.observe.servicelog import ServiceLog  # noqa: PLC0415
    from txmux.processes.channel.channel import attach  # noqa: PLC0415
    from txmux.processes.channel.forwarding import Forwarding  # noqa: PLC0415
    from txmux.processes.supervisor.signals import SignalWatch  # noqa: PLC0415
    from txmux.processes.workers.serving_child import Child  # noqa: PLC0415
    from txmux.processes.workers.worker import CHANNEL  # noqa: PLC0415
    from txmux.sockets.clock import use_monotonic_time  # noqa: PLC0415
    from txmux.sockets.memory import keep_running  # noqa: PLC0415

    use_monotonic_time(reactor)
    keep_running(reactor)
    child = Child(number, reactor)
    alone: Any = ServiceLog(sys.stderr, reactor)
    globalLogBeginner.beginLoggingTo([Forwarding(child.channel, alone)], redirectStandardIO=False)
    attach(reactor, child.channel, socket.socket(fileno=CHANNEL))
    # systemd sends it to every process of a service.
    SignalWatch(reactor, child.be_replaced, signal.SIGTERM).start()
    reactor.run(installSignalHandlers=False)
    sys.exit(child.status)


if __name__ == "__main__":
    main()

"""The process that keeps root: ``txmux: helper``."""

import signal
import socket
from pathlib import Path

from txmux.processes.forking import ignore_signals, name_process
from txmux.processes.helper.opening_server import OpeningServer
from txmux.rules.model.rules import OPTIONS

_MOST_TEXT = 65536
"""The most bytes of rules from the options of a command."""


def main(connection: socket.socket, path: str, *pidfile: str) -> None:
    # The helper ends with its last connection, not by the signal that stops the service.
    ignore_signals(signal.SIGTERM)
    name_process("helper")
    data = connection.recv(_MOST_TEXT) if path == OPTIONS else None
    server = OpeningServer(Path(path), Path(*pidfile) if pidfile else None, data)
    server.serve(connection)

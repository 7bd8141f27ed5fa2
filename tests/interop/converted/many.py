"""Serves many rules files in one process: each line of its standard input names one, and is answered by a line.

A line that begins with ``stop`` has it stop them all.
"""

import sys
from pathlib import Path

from twisted.internet import reactor, stdio
from twisted.protocols.basic import LineOnlyReceiver

from txmux.errors import MuxError
from txmux.processes.service import MuxService


class Commands(LineOnlyReceiver):
    delimiter = b"\n"

    def __init__(self) -> None:
        self.services: list[MuxService] = []

    def lineReceived(self, line: bytes) -> None:
        if line.startswith(b"stop "):
            self.stop()
            sys.stdout.write(f"stopped {line.decode()}\n")
            sys.stdout.flush()
            return
        path = Path(line.decode())
        try:
            service = MuxService.from_file(path)
            service.startService()
        except MuxError as error:
            sys.stdout.write(f"refused {path}: {error}\n")
        else:
            self.services.append(service)
            sys.stdout.write(f"serving {path}\n")
        sys.stdout.flush()

    def stop(self) -> None:
        for service in self.services:
            service.stopService()
        self.services.clear()

    def connectionLost(self, reason: object = None) -> None:
        self.stop()
        reactor.callLater(0, reactor.stop)


if __name__ == "__main__":
    stdio.StandardIO(Commands())
    reactor.run()

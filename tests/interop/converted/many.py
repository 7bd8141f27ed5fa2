"""Serves many rules files in one process: each line of its standard input names one, and is answered by a line; one that begins with ``stop`` has it stop them all."""

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
        sys.stdout.write(f"{self.answer(line.decode())}\n")
        sys.stdout.flush()

    def answer(self, line: str) -> str:
        if line.startswith("stop "):
            self.stop()
            return f"stopped {line}"
        try:
            service = MuxService.from_file(Path(line))
            service.startService()
        except MuxError as error:
            return f"refused {line}: {error}"
        self.services.append(service)
        return f"serving {line}"

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

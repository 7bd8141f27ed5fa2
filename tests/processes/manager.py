"""A stand-in for systemd: what services tell it, and what it keeps for them."""

import os
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.interop.children import PATIENCE, eventually

_PASS_ON = """
import os, socket, sys
with socket.socket(socket.AF_UNIX) as store:
    store.connect(sys.argv[1])
    names, descriptors, _, _ = socket.recv_fds(store, 65536, 100)
names = names.decode().split("\\n") if descriptors else []
for number, one in enumerate(descriptors):
    os.dup2(one, 100 + number)
for number in range(len(descriptors)):
    os.dup2(100 + number, 3 + number)
    os.close(100 + number)
    os.set_inheritable(3 + number, True)
os.environ.update(LISTEN_FDS=str(len(names)), LISTEN_FDNAMES=":".join(names), LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""


class Manager:
    """Listens where ``$NOTIFY_SOCKET`` says."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.address = str(folder / f"{os.urandom(4).hex()}.notify")
        self.told: list[Mapping[str, str]] = []
        self.store: dict[str, int] = {}
        self.doubled: list[str] = []
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._listening.bind(self.address)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            packet, descriptors, _, _ = socket.recv_fds(self._listening, 65536, 10)
            if packet == b"end":
                return
            message = dict(line.split("=", 1) for line in packet.decode().split("\n"))
            name = message.get("FDNAME", "")
            if "FDSTORE" in message:
                (descriptor,) = descriptors
                if self._has(descriptor):  # as systemd does it
                    os.close(descriptor)
                else:
                    if name in self.store:  # systemd would keep both, and pass both on
                        self.doubled.append(name)
                    self.store[name] = descriptor
            elif "FDSTOREREMOVE" in message and name in self.store:  # another one is ignored
                os.close(self.store.pop(name))
            self.told.append(message)

    def _has(self, descriptor: int) -> bool:
        stat = os.fstat(descriptor)
        return any(os.path.samestat(stat, os.fstat(kept)) for kept in self.store.values())

    def wait_for(self, **wanted: str) -> Mapping[str, str]:
        """Wait for a message with these values, and give it; it and those before it are not looked at again."""
        found: list[int] = []

        def has_come() -> bool:
            found[:] = [
                number
                for number, message in enumerate(self.told)
                if wanted.items() <= message.items()
            ]
            return bool(found)

        eventually(has_come, f"{wanted} is told; {self.told}")
        message = self.told[found[0]]
        del self.told[: found[0] + 1]
        return message

    def environment(self, **more: str) -> Sequence[str]:
        """Give a command that runs another one as a service that may keep descriptors, and gets those that are kept.

        Args:
            more: What else is in its environment.
        """
        path = str(self._folder / f"{os.urandom(4).hex()}.store")
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path)
            listening.listen()
            handing = threading.Thread(target=self._hand_over, args=(listening.dup(),), daemon=True)
        handing.start()
        values = {"NOTIFY_SOCKET": self.address, "FDSTORE": "64", **more}
        return (
            "env",
            *(f"{name}={value}" for name, value in values.items()),
            *(sys.executable, "-c", _PASS_ON, path),
        )

    def _hand_over(self, listening: socket.socket) -> None:
        with listening, listening.accept()[0] as store:
            names = "\n".join(self.store) or "-"
            socket.send_fds(store, [names.encode()], list(self.store.values()))

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"end", self.address)
        self._reader.join(PATIENCE)
        self._listening.close()
        for descriptor in self.store.values():
            os.close(descriptor)
        self.store.clear()

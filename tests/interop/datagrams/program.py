"""A program that clients reach by datagrams: its server, the route to it, and its client."""

import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from tests.support.kit import InteropTestCase, Namespace, Record, output_of

PORT = 443
"""The one port of UDP that all clients come to."""


class Program(ABC):
    """One of those that share the port.

    Its clients in this namespace come to `host`, which is no other program's: the system may give a client the port of one that has
    just ended, whose flow is still there; those that need a network of their own are `there`, at the end of a cable. By the name of each route,
    `matches` has what it matches and the port of its server, and `least` the least datagrams of all its flows from both sides. What the
    server prints when it `serves` is waited for.
    """

    matches: ClassVar[Mapping[str, tuple[str, int]]]
    least: tuple[int, int] = (1, 1)
    serves: ClassVar[str] = ""
    more: ClassVar[str] = ""

    def __init__(self, folder: Path, there: Namespace, host: str) -> None:
        self.folder = folder
        self.there = there
        self.host = host
        folder.mkdir()

    @property
    def routes(self) -> str:
        return "".join(
            f"[route {name}]\nunder = *\nmatch = {match}\nbackend = {name}\n"
            f"[backend {name}]\nserver = udp:127.0.0.1:{port}\n{self.more}\n"
            for name, (match, port) in self.matches.items()
        )

    def server(self) -> Any:  # noqa: B027 - some are started where they are used
        """Start it: a `Started` program; ``None`` where it has one client in all its life, as whoever uses it starts it then."""

    def start(self, test: InteropTestCase) -> None:
        self.started: Any = self.server()
        if self.started is not None:
            test.own(self.started)

    def ready(self) -> None:
        if self.serves:
            self.started.wait_for(self.serves)

    @abstractmethod
    def use(self) -> None:
        """Have its client do something through the one port, and check the server's answer."""

    def check(self, lines: list[Record]) -> None:
        for name in self.matches:
            own = [line for line in lines if line["route"] == name]
            counts = [sum(line[f"datagrams_{way}"] for line in own) for way in ("in", "out")]
            enough = (count >= least for count, least in zip(counts, self.least, strict=True))
            assert all(enough), f"route {name} has {counts} datagrams: {own}"
            self.check_facts(name, own)

    def check_facts(self, name: str, lines: list[Record]) -> None:  # noqa: B027 - not all have some
        """Check the facts in the lines of one route."""


def say(program: str, *arguments: str | Path, stdin: bytes = b"") -> str:
    return output_of(program, *arguments, stdin=stdin).decode(errors="replace")


class Responder:
    """Answers datagrams at a port, in a thread; an empty answer is not sent."""

    def __init__(
        self, port: int, answer: Callable[[bytes], bytes], host: str = "127.0.0.1"
    ) -> None:
        self.heard: list[bytes] = []
        self._answer = answer
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, port))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def end(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())
        self._thread.join(30)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            data, client = self._socket.recvfrom(65536)
            if not data:
                return
            self.heard.append(data)
            if answer := self._answer(data):
                self._socket.sendto(answer, client)

"""A program that clients reach by datagrams: its server, the route to it, and its client."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from tests.interop.children import output_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.interop.children import Started
    from tests.interop.mux import Record
    from tests.interop.namespaces import Namespace

PORT = 443
"""The one port of UDP that all clients come to."""


class Program(ABC):
    """One of those that share the port.

    Args:
        folder: For its files; it is made.
        there: A namespace with a cable to this one, for clients that need a network of their own.
        host: Where its clients in this one come to. It is no other program's: the system may give a client the port of one
            that has just ended, whose flow is still there.

    Attributes:
        routes: Sections of the rules that lead to its servers.
        names: Those of the routes.
        least: The least datagrams of all flows of a route, from the client and from the server.
    """

    routes: str
    names: ClassVar[tuple[str, ...]]
    least: tuple[int, int] = (1, 1)

    def __init__(self, folder: Path, there: Namespace, host: str) -> None:
        self.folder = folder
        self.there = there
        self.host = host
        folder.mkdir()

    @abstractmethod
    def start(self) -> Iterator[Started]:
        """Start its servers."""

    def ready(self) -> None:  # noqa: B027 - many are as soon as they have started
        """Wait until they serve."""

    @abstractmethod
    def use(self) -> None:
        """Have its client do something through the one port, and see to it that the server's answer is right."""

    def check(self, lines: list[Record]) -> None:
        for name in self.names:
            own = [line for line in lines if line["route"] == name]
            counts = [sum(line[f"datagrams_{way}"] for line in own) for way in ("in", "out")]
            if any(count < least for count, least in zip(counts, self.least, strict=True)):
                raise AssertionError(f"route {name} has {counts} datagrams: {own}")
            self.check_facts(name, own)

    def check_facts(self, name: str, lines: list[Record]) -> None:  # noqa: B027 - not all have some
        """Check the facts in the lines of one route."""


def say(program: str, *arguments: str | Path, stdin: bytes = b"") -> str:
    """Run a client that must succeed, and give what it printed."""
    return output_of(program, *arguments, stdin=stdin).decode(errors="replace")


def assert_in(wanted: str, said: str) -> None:
    """See to it that a client has said something."""
    if wanted not in said:
        raise AssertionError(f"{wanted!r} is not in what the client said:\n{said}")


def assert_same(got: bytes, wanted: bytes) -> None:
    """See to it that all bytes are those that were sent."""
    if got != wanted:
        raise AssertionError(
            f"{len(got)} bytes came, which are not the {len(wanted)} that were sent"
        )

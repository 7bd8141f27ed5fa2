"""What a ``[backend]`` section says of its servers' health and of TLS to them, as frozen values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import attrs

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Balance", "Check", "CheckKind", "Ejection", "ServerTLS"]

Balance = Literal["round-robin", "least-connections", "random", "source-hash", "first"]
"""How one of several servers is chosen."""

CheckKind = Literal["tcp", "http", "redis", "postgres", "ssh", "exchange"]
"""What a server is asked; ``exchange`` is ``send=`` and ``expect=``."""


@attrs.frozen
class Check:
    """How a server is asked whether it is well. Times are seconds.

    Attributes:
        kind: What is asked.
        interval: From the begin of one check to that of the next.
        timeout: For the whole of one check.
        rise: Checks in a row that bring a server back.
        fall: Checks in a row that take it out.
        path: Of the HTTP request.
        host: The HTTP request's ``Host``; empty is the server's own name.
        statuses: The HTTP statuses that are well.
        send: The bytes that are sent first.
        expect: The bytes that the answer has to contain.
    """

    kind: CheckKind
    interval: float = 3.0
    timeout: float = 1.0
    rise: int = 2
    fall: int = 3
    path: str = "/"
    host: str = ""
    statuses: tuple[range, ...] = (range(200, 300), range(300, 400))
    send: bytes = b""
    expect: bytes = b""


@attrs.frozen
class Ejection:
    """When connections that fail take a server out, and for how long. Times are seconds.

    Attributes:
        failures: So many connections that could not be made,
        within: in so much time,
        seconds: take the server out for so long.
        lone: Whether also the only server of a backend is taken out, which nobody could replace.
    """

    failures: int = 3
    within: float = 10.0
    seconds: float = 10.0
    lone: bool = attrs.field(default=True, eq=False)


@attrs.frozen
class ServerTLS:
    """TLS to the servers of a backend.

    Attributes:
        name: What the server's certificate is verified for; empty is the server's own name or address.
        ca: A PEM file with the certificates that are trusted; ``None`` is those of the system.
        certificate: PEM files with the client's certificate chain and its key; empty is none.
        alpn: The protocols that are offered; empty is those of the client.
    """

    name: str = ""
    ca: Path | None = None
    certificate: tuple[Path, ...] = ()
    alpn: tuple[str, ...] = ()

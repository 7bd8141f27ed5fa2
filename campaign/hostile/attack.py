"""What an attack is, and the ways of making many connections."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import multiprocessing
import random
import resource
import socket
import struct
import time
from collections.abc import Callable, Iterator

import attrs

from benchmarks.flood import BIND_ADDRESS_NO_PORT, Flood

BAD = "127.0.0.2"
TICK = 0.01  # seconds
_LINGER = struct.pack("ii", 1, 0)


def _shared() -> ctypes.c_longlong:
    """Give a number in memory that is shared with processes that are forked. multiprocessing would keep a file open for its next ones."""
    return ctypes.c_longlong.from_buffer(mmap.mmap(-1, ctypes.sizeof(ctypes.c_longlong)))


@attrs.frozen
class Target:
    """Where an attack goes, and how large it is.

    Attributes:
        port: The service.
        many: The connections that it has at once, if it has many.
        part: What part of its usual rate it has, up to 1.
        chance: Of what it says.
        count: What it has done so far; shared with whoever has begun it.
    """

    port: int
    many: int
    part: float
    chance: random.Random
    count: ctypes.c_longlong = attrs.field(factory=_shared)

    def done(self, more: int = 1) -> None:
        self.count.value += more


@attrs.frozen
class Attack:
    """One kind.

    Attributes:
        name: For the table.
        service: Which one it attacks.
        run: Goes on until its process is ended.
        ramp: The seconds after which it is whole.
        unit: What it counts.
        share: What part of a crowd's connections it has.
    """

    name: str
    service: str
    run: Callable[[Target], object]
    ramp: float = 1.0
    unit: str = "connections"
    share: float = 1.0


@contextlib.contextmanager
def under(attack: Attack, target: Target) -> Iterator[None]:
    """Have an attack go on, in a process of its own, until the block ends."""
    forked = multiprocessing.get_context("fork").Process(
        target=_run, args=(attack, target), daemon=True
    )
    forked.start()
    try:
        yield
        if not forked.is_alive():
            raise AssertionError(f"the attack {attack.name!r} has ended with {forked.exitcode}")
    finally:
        forked.kill()
        forked.join()


def _run(attack: Attack, target: Target) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    attack.run(target)


def come(port: int, source: str = BAD, said: bytes = b"") -> socket.socket:
    """Begin a connection that does not block, and say something at once."""
    client = socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET)
    client.setblocking(False)  # noqa: FBT003 - the socket module's signature
    client.setsockopt(socket.IPPROTO_IP, BIND_ADDRESS_NO_PORT, 1)
    client.bind((source, 0))
    client.connect_ex(("::1" if ":" in source else "127.0.0.1", port))
    if said:
        with contextlib.suppress(OSError):
            client.send(said)
    return client


def reset(client: socket.socket) -> None:
    """Close a connection by a reset, so that nothing is left of it at this end."""
    with contextlib.suppress(OSError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
    client.close()


def paced(target: Target, rate: float, once: Callable[[], object]) -> None:
    """Do something so many times a second, or as often as it can be done, without an end."""
    began, wanted = time.monotonic(), 0
    while True:
        due = 1 + int((time.monotonic() - began) * rate * target.part)
        # What there was no time for is not caught up.
        for _ in range(min(due - wanted, max(1, int(rate * TICK * 2)))):
            with contextlib.suppress(OSError):
                once()
                target.done()
        wanted = due
        time.sleep(TICK)


def flood(says: Callable[[Target], bytes]) -> Callable[[Target], object]:
    """Make connections that each say something and come again 5 s after they were closed."""

    def run(target: Target) -> None:
        def counted() -> bytes:
            target.done()
            return says(target)

        Flood(target.port, target.many, counted).run()

    return run


def crowd(
    says: Callable[[Target], bytes], piece: int, at_once: bytes = b""
) -> Callable[[Target], object]:
    """Make connections that stay, each say something at once and then a piece every second; those that were closed come again."""

    def run(target: Target) -> None:
        ticks = round(1 / TICK)
        clients: list[tuple[socket.socket, bytes] | None] = [None] * target.many
        began = time.monotonic()
        for tick in range(10**9):
            time.sleep(max(0.0, began + tick * TICK - time.monotonic()))
            for number in range(tick % ticks, target.many, ticks):
                found = clients[number]
                client, left = found or (come(target.port, said=at_once), says(target))
                target.done(found is None)
                try:
                    client.send(left[:piece])
                    clients[number] = (client, left[piece:]) if left[piece:] else None
                    if clients[number] is None:
                        reset(client)
                except BlockingIOError:
                    clients[number] = (client, left)
                except OSError:
                    client.close()
                    clients[number] = None

    return run

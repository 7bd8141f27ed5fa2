"""Starts servers while clients wait for them: by Wake-on-LAN, or by an HTTP request."""

import socket
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmux.errors import MuxError, cause_of
from txmux.rules.model import Wake

_EVERY = 30.0  # seconds
_PATIENCE = 20.0  # seconds for an answer

_log = Logger()


class Waker:
    """Sends a backend's ``wake`` when its first client waits, and every 30 seconds while one does.

    `wake_of` returns what to send for a backend, by its name; ``None`` is nothing.
    """

    def __init__(self, reactor: Any, wake_of: Callable[[str], Wake | None]) -> None:
        self._reactor = reactor
        self._wake_of = wake_of
        self._waiting: dict[str, set[int]] = {}  # by backend, the processes with clients
        self._timers: dict[str, IDelayedCall] = {}
        self._sending: dict[str, Deferred[None]] = {}
        self._held: set[str] = set()  # by an operator, since the last that was sent

    def report(self, backend: str, waiting: bool, process: int = 0) -> None:  # noqa: FBT001 - a message's field
        """Record whether clients of a backend wait in a process; called again if no server is up after an operator's hold."""
        processes = self._waiting.setdefault(backend, set())
        (processes.add if waiting else processes.discard)(process)
        if not processes:
            del self._waiting[backend]
            timer = self._timers.pop(backend, None)
            if timer is not None:
                timer.cancel()
                _log.info("backend {backend}: no client is waiting any longer", backend=backend)
        elif backend not in self._timers:
            _log.warn("backend {backend}: clients wait for a server", backend=backend)
            self._wake(backend)
        elif waiting and backend in self._held:
            self._timers.pop(backend).cancel()
            self._wake(backend)

    def hold(self, backends: Iterable[str]) -> None:
        """Record backends that an operator holds, who may stop their servers."""
        self._held.update(backends)

    def process_ended(self, process: int) -> None:
        for backend in [*self._waiting]:
            self.report(backend, waiting=False, process=process)

    def stop(self) -> None:
        for process in set().union(*self._waiting.values()):
            self.process_ended(process)
        for sending in [*self._sending.values()]:
            sending.cancel()

    def _wake(self, backend: str) -> None:
        self._timers[backend] = self._reactor.callLater(_EVERY, self._wake, backend)
        wake = self._wake_of(backend)
        if wake is None:
            return
        self._held.discard(backend)
        if backend in self._sending:
            return
        sending = self._sending[backend] = Deferred.fromCoroutine(self._send(backend, wake))
        sending.addBoth(self._sent, backend)

    def _sent(self, failure: object, backend: str) -> None:
        del self._sending[backend]
        if isinstance(failure, Failure) and not failure.check(CancelledError):
            _log.failure("backend {backend}: cannot wake its server", failure, backend=backend)

    async def _send(self, backend: str, wake: Wake) -> None:
        try:
            if wake.method == "wol":
                _send_magic_packet(wake)
            else:
                await self._request(wake)
        except (OSError, MuxError) as problem:
            why = problem if isinstance(problem, MuxError) else cause_of(problem)
            _log.warn(
                "backend {backend}: cannot wake its server ({wake}): {why}; it is tried again in {seconds:g} s while a client waits",
                backend=backend,
                wake=str(wake),
                why=why,
                seconds=_EVERY,
            )
        else:
            _log.info(
                "backend {backend}: a client waits for a server: sent {wake}",
                backend=backend,
                wake=str(wake),
            )

    async def _request(self, wake: Wake) -> None:
        from txmux.net.http import request  # noqa: PLC0415 - few rules need it

        url, address = wake.target, None
        if url.startswith("unix:"):
            address, _, path = url.removeprefix("unix:").partition(":")
            url = f"http://localhost{path}"
        answer = await request(
            self._reactor, wake.method, url, {}, seconds=_PATIENCE, most=None, address=address
        )
        if not 200 <= answer.status < 300:
            raise MuxError(f"the answer is {answer.status}")


def _send_magic_packet(wake: Wake) -> None:
    """Send six bytes of FF and the MAC address sixteen times (AMD, Magic Packet Technology, publication 20213)."""
    packet = b"\xff" * 6 + bytes.fromhex(wake.target.replace(":", "")) * 16
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sender.sendto(packet, wake.broadcast)

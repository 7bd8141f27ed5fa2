"""The listening sockets of all workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from txmux.errors import ListenError
from txmux.frontend.addresses import text_of
from txmux.rules.reading.endpointstrings import split_arguments
from txmux.serving.endpoints import listen_error, server_endpoint, stop_listening
from txmux.serving.listening import listen_address, open_sockets

if TYPE_CHECKING:
    import socket

    from twisted.internet.interfaces import IAddress, IListeningPort
    from twisted.python.failure import Failure

    from txmux.rules.model import Listener
    from txmux.serving.listening import ListenAddress

__all__ = ["WorkerSockets"]


class _Nobody(Factory):
    noisy = False


class WorkerSockets:
    """Opens the sockets and keeps them open, so that clients which wait in one survive the worker that serves it.

    Args:
        reactor: Opens those that are not plain TCP sockets.
        workers: How many there are.
    """

    _log = Logger()

    def __init__(self, reactor: Any, workers: int) -> None:
        self._reactor = reactor
        self._sockets: list[list[socket.socket]] = []
        self._ports: list[IListeningPort] = []
        self._of_workers: list[list[int]] = [[] for _ in range(workers)]

    def open(self, listener: Listener) -> None:
        """Open the endpoints of a listener.

        Raises:
            ListenError: One cannot be opened.
        """
        for text in listener.endpoints:
            address = listen_address(text, listener.backlog)
            try:
                host = self._share(listener, text) if address is None else self._spread(address)
            except OSError as problem:
                raise listen_error(listener, text, problem) from problem
            self._log.info(
                "listening on {address} for [listen {name}]",
                address=text_of(host),
                name=listener.name,
            )

    def _spread(self, address: ListenAddress) -> IAddress:
        """Open a socket for each worker."""
        sockets = open_sockets(address, len(self._of_workers))
        self._sockets.append(sockets)
        for descriptors, opened in zip(self._of_workers, sockets, strict=True):
            descriptors.append(opened.fileno())
        make = IPv6Address if len(sockets[0].getsockname()) > 2 else IPv4Address
        return make("TCP", *sockets[0].getsockname()[:2])

    def _share(self, listener: Listener, text: str) -> IAddress:
        """Open one socket for all workers."""
        kind = split_arguments(text).kind.lower()
        if kind not in {"unix", "systemd"}:
            raise ListenError(
                f"[listen {listener.name}] endpoint {text}: several workers cannot share an endpoint of type {kind!r}; "
                "write ADDRESS:PORT, :PORT, unix: or systemd:, or workers = 1"
            )

        def listen() -> Deferred[IListeningPort]:
            return server_endpoint(self._reactor, text, listener.backlog).listen(_Nobody())

        failures: list[Failure] = []
        maybeDeferred(listen).addCallbacks(self._ports.append, failures.append)
        if failures:
            raise listen_error(listener, text, failures[0].value) from failures[0].value
        port: Any = self._ports[-1]
        port.stopReading()  # nobody is served here
        port._shouldShutdown = False  # or closing it here would end it for the workers, too
        for descriptors in self._of_workers:
            descriptors.append(port.fileno())
        host: IAddress = port.getHost()
        return host

    def descriptors(self, worker: int) -> list[int]:
        """Give the sockets of a worker, in the order of the endpoints."""
        return self._of_workers[worker]

    async def close(self) -> None:
        """Close all of them, so that further clients are refused when the workers have closed theirs."""
        for sockets in self._sockets:
            for opened in sockets:
                opened.close()
        await gatherResults(map(stop_listening, self._ports))

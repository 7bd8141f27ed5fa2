"""A stage: a protocol of this process serves the client, without a second socket."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import attrs
from twisted.internet import error
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import directlyProvides, providedBy

from txmux.classes import define
from txmux.rules.model import InProcess
from txmux.tcp.stage import Client, Stage
from txmux.tcp.transitions import Finished
from txmux.telemetry.reasons import AbortReason, EndReason
from txmux.telemetry.record import ConnectionState

_log = Logger()  # of the module: an event must not keep a connection's objects alive


@define(eq=False, slots=False)
class ServingHere(Stage):
    """A protocol of this process has the connection, and all timeouts are its own; it may put another one in its place."""

    state: ClassVar[ConnectionState] = "serving"
    may_connect: ClassVar[bool] = False

    _destination: InProcess
    _ended_by_us: EndReason | None = attrs.field(default=None, init=False)
    _has_passed_finish = False
    _paused = False
    protocol: Any = attrs.field(default=None, init=False)

    @override
    def begin(self) -> None:
        self._client.record.backend = self._destination.name
        self._run(self._make_protocol)
        self.on_data()

    @override
    def on_finished(self) -> None:
        self.on_data()

    def write_finished(self) -> None:
        """Report the completed half-close to a protocol that handles it."""
        if IHalfCloseableProtocol.providedBy(self.protocol):
            self._run(self.protocol.writeConnectionLost)

    @override
    def connection_lost(self, reason: Failure) -> None:
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            self._run(protocol.connectionLost, reason)
        self._client.advance(Finished(self._ended_by_us or _reason_for(reason)))

    @override
    def abort(self, reason: AbortReason) -> None:
        self._end(reason)

    def pause_reading(self) -> None:
        self._paused = True
        self._client.transport.pauseProducing()

    def resume_reading(self) -> None:
        self._paused = False
        if not self._owes_finish():
            self._client.transport.resumeProducing()
        self.on_data()

    def _make_protocol(self) -> None:
        client = self._client
        protocol: Any = self._destination.factory.buildProtocol(client.peer())
        if protocol is None:
            self._end("denied")
            return
        self.protocol = protocol
        protocol.makeConnection(_CountingTransport(self, client))

    @override
    def on_data(self) -> None:
        client = self._client
        if self._closing():
            client.received = b""  # TLS reads on until the other side's close-notify
            return
        if self._paused:
            return
        data, client.received = client.received, b""
        if data:
            self._run(self.protocol.dataReceived, data)
        if self._owes_finish() and not self._paused and not self._closing():
            self._has_passed_finish = True
            if IHalfCloseableProtocol.providedBy(self.protocol):
                self._run(self.protocol.readConnectionLost)
            else:
                # A producer that is still registered would keep the transport from closing.
                client.transport.unregisterProducer()
                client.transport.loseConnection()

    def _owes_finish(self) -> bool:
        return self._client.has_finished and not self._has_passed_finish

    def _closing(self) -> bool:
        return (
            self.protocol is None
            or self._ended_by_us is not None
            or bool(getattr(self._client.transport, "disconnecting", False))
        )

    def _run(self, what: Callable[..., object], *args: object) -> None:
        """Call into the protocol; its errors end its own connection and no other."""
        try:
            what(*args)
        except Exception:  # noqa: BLE001 - any error of that protocol
            _log.failure(
                "{backend} raised; its connection is ended", backend=self._destination.name
            )
            self._end("error")

    def _end(self, reason: EndReason) -> None:
        self._ended_by_us = self._ended_by_us or reason
        self._client.transport.abortConnection()


def _reason_for(reason: Failure) -> EndReason:
    if reason.check(error.ConnectionDone):
        return "done"
    # Only the protocol itself can have aborted it, if we have not.
    return "server-reset" if reason.check(error.ConnectionAborted) else "client-reset"


class _CountingTransport:
    """The client's transport as the protocol sees it: counts what is written, and holds back data while the protocol pauses."""

    def __init__(self, stage: ServingHere, client: Client) -> None:
        self._stage = stage
        self._transport = client.transport
        self._client = client
        self.getPeer = client.peer
        self.getHost = client.host
        directlyProvides(self, providedBy(self._transport))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    @property
    def protocol(self) -> Any:
        return self._stage.protocol

    @protocol.setter
    def protocol(self, protocol: Any) -> None:
        self._stage.protocol = protocol

    def write(self, data: bytes) -> None:
        client = self._client
        client.record.bytes_out += len(data)
        client.last_received_at = client.runtime.clock.seconds()
        self._transport.write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def pauseProducing(self) -> None:
        self._stage.pause_reading()

    def resumeProducing(self) -> None:
        self._stage.resume_reading()

    def startTLS(self, *args: Any, **kwargs: Any) -> Any:
        """Begin TLS; the interfaces that are provided change by that."""
        started = self._transport.startTLS(*args, **kwargs)  # type: ignore[attr-defined]
        directlyProvides(self, providedBy(self._transport))
        return started

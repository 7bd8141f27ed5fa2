"""A stage: the client's socket goes to another process, which serves the client from then on."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import attrs
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override

from txmux.classes import define
from txmux.net.sockets.handoff import Failure as HandoffFailure
from txmux.net.sockets.handoff import SocketHandoff
from txmux.rules.model import Handover, Refusal
from txmux.tcp.stage import Client, Stage
from txmux.tcp.transitions import Finished, Outcome, TurnedAway
from txmux.telemetry.reasons import AbortReason, EndReason
from txmux.telemetry.record import ConnectionState
from txmux.transport import source_of_client
from txmux.wire.facts import printable
from txmux.wire.proxyprotocol.header import Address

_VERSION = 1  # of the message
_TIMEOUT = 5.0  # seconds until the other process must have answered

_log = Logger()  # of the module: an event must not keep a connection's objects alive


@define(eq=False, slots=False)
class HandingOff(Stage):
    """Waits for the other process to take the socket. What the client sends meanwhile stays there."""

    state: ClassVar[ConnectionState] = "handing-over"

    _destination: Handover
    _handoff: SocketHandoff | None = attrs.field(default=None, init=False)
    _reason: EndReason = attrs.field(default="error", init=False)
    _seen = 0

    @override
    def begin(self) -> Outcome | None:
        client = self._client
        client.record.backend = self._destination.name
        if not client.is_previewed:
            _log.warn(
                "[{listener}]: a client without a plain TCP connection, whose socket cannot be handed over to {path}; "
                "route such clients elsewhere",
                listener=client.record.listener,
                path=self._destination.path,
            )
            return TurnedAway(Refusal.CLOSE, "error")
        transport: Any = client.transport
        transport.leave_unread()
        self._seen, client.record.bytes_in = client.record.bytes_in, 0
        client.record.server = self._destination.name
        runtime = client.runtime
        given, about = transport.getHandle(), message_about(client)
        self._handoff = handoff = SocketHandoff(
            runtime.poller,
            runtime.clock,
            self._destination.path,
            self._destination.users,
            given,
            about,
            self._taken,
            self._failed,
        )
        handoff.start(_TIMEOUT)
        return None

    @override
    def leave(self) -> None:
        super().leave()
        if self._handoff is not None:
            self._handoff.cancel()
            self._handoff = None  # it knows this stage, too

    @override
    def connection_lost(self, reason: Failure) -> None:
        self._client.advance(Finished(self._reason))

    @override
    def abort(self, reason: AbortReason) -> None:
        if self._handoff is not None and self._handoff.is_sent:
            self._close(reason)
        else:
            super().abort(reason)

    def _taken(self) -> None:
        record = self._client.record
        self._client.runtime.handovers.end(self._destination.path)
        record.connect_ms = self._client.elapsed_ms() - (record.detect_ms or 0.0)
        self._close("handed-over")

    def _failed(self, reason: HandoffFailure, why: str) -> None:
        client = self._client
        client.record.note(handover_error=printable(why))
        source = source_of_client(client.record.client)
        client.runtime.handovers.failed(self._destination.path, why, source)
        # As for a backend; in the service's own log, nothing else says that clients are refused.
        _log.warn(
            "[listen {listener}]: cannot hand over a client's socket at {path}: {why}",
            listener=client.record.listener,
            path=self._destination.path,
            why=why,
        )
        if reason == "not-taken":
            self._close(reason)
        else:
            client.record.bytes_in = self._seen
            client.advance(TurnedAway(Refusal.CLOSE, reason))

    def _close(self, reason: EndReason) -> None:
        """Close this process's descriptor, and do nothing else to a socket that another process may have."""
        client = self._client
        self._reason = reason
        client.is_previewed = False
        client.received = b""
        client.transport.loseConnection()


def message_about(client: Client) -> bytes:
    record = client.record
    message = {
        "version": _VERSION,
        "id": record.id,
        "time": record.time,
        "listener": record.listener,
        "route": record.route,
        "client": _pair(client.address),
        "local": _pair(client.local),
        "facts": record.facts,
    }
    return json.dumps(message, separators=(",", ":")).encode()


def _pair(address: Address | None) -> list[str | int] | None:
    return None if address is None else [str(address.host), address.port]

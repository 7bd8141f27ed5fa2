"""A stage: the connection of a client that is turned away is being closed."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import attrs
from twisted.internet.interfaces import ISSLTransport
from typing_extensions import override

from txmux.rules.model import Refusal
from txmux.tcp.stage import Stage

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from txmux.telemetry.reasons import AbortReason, EndReason
    from txmux.telemetry.states import ConnectionState

_CLOSE_NOTIFY = 5.0  # seconds that TLS waits for the other side's


@attrs.define(eq=False, slots=False)
class Closing(Stage):
    """Waits for the client to go.

    Args:
        how: `Refusal.RESET` to break it off.
        reason: Why, for the log.
    """

    state: ClassVar[ConnectionState] = "closing"

    _how: Refusal
    _reason: EndReason

    @override
    def begin(self) -> None:
        transport = self._client.transport
        self._client.received = b""
        if self._how is Refusal.RESET:
            transport.abortConnection()
            return
        if ISSLTransport.providedBy(transport):
            self.wait(_CLOSE_NOTIFY, transport.abortConnection)
        transport.loseConnection()

    @override
    def data(self, data: bytes) -> None:
        # It is counted, but nobody will read it.
        self._client.record.bytes_in += len(data)

    @override
    def lost(self, reason: Failure) -> None:
        self._client.over(self._reason)

    @override
    def abort(self, reason: AbortReason) -> None:
        self._client.transport.abortConnection()

"""The stages of a refused client: its connection is closed without an answer, or after one in its protocol."""

from __future__ import annotations

from typing import ClassVar

from twisted.internet.interfaces import ISSLTransport
from twisted.python.failure import Failure
from typing_extensions import override

from txmux.classes import define
from txmux.client.configuration import RuleLayer
from txmux.interfaces import Peeked
from txmux.net.sockets.transport import unsent_bytes
from txmux.rules.model import Refusal
from txmux.tcp.answers import AnswerRows, RejectionAnswer, answer_to
from txmux.tcp.stage import Client, Stage
from txmux.tcp.transitions import Finished
from txmux.telemetry.reasons import AbortReason, EndReason
from txmux.telemetry.record import ConnectionState

_TO_CLOSE = 5.0  # seconds for the close-notify of TLS, or until all is sent
_PATIENCE = 3.0  # seconds
_MOST = 256 * 1024  # bytes

_NOT_ALLOWED = frozenset(
    {"denied", "no-route", "silent", "no-name", "name-denied", "address-denied"}
)


def answers_of(client: Client, layer: RuleLayer) -> AnswerRows:
    """Return the answers of the first route that might open something for a client, had it asked for that."""
    for route in layer.outer.items:
        for make in route.stages if not route.dry_run else ():
            if make.asks_by:
                detection = client.start_detection(layer)
                detection.feed(make.asks_by)
                if detection.needs_more([route]):
                    answers: AnswerRows = make.answers
                    return answers
    return ()


@define(eq=False, slots=False)
class _Refusing(Stage):
    may_connect: ClassVar[bool] = False

    _how: Refusal
    _reason: EndReason

    @override
    def connection_lost(self, reason: Failure) -> None:
        self._client.advance(Finished(self._reason))

    @override
    def abort(self, reason: AbortReason) -> None:
        self._client.transport.abortConnection()


@define(eq=False, slots=False)
class Closing(_Refusing):
    """Waits for the client to go; `Refusal.RESET` breaks the connection off."""

    state: ClassVar[ConnectionState] = "closing"

    @override
    def begin(self) -> None:
        transport = self._client.transport
        self._client.received = b""
        if self._how is Refusal.RESET:
            transport.abortConnection()
            return
        if ISSLTransport.providedBy(transport) or unsent_bytes(transport):
            self.wait(_TO_CLOSE, transport.abortConnection)
        transport.loseConnection()

    @override
    def data_received(self, data: bytes) -> None:
        # It is counted, and dropped.
        self._client.record.bytes_in += len(data)


@define(eq=False, slots=False)
class Rejecting(_Refusing):
    """Sends the client an answer, and closes the connection once the client has had time to read it.

    To close a socket with unread bytes in it is to send a reset, which destroys what the client has not read yet. So
    what it still sends is read, until it closes its side, but neither for long nor without end: then it has to wait.
    """

    state: ClassVar[ConnectionState] = "rejecting"
    _answered = 0
    _closing = False

    @override
    def begin(self) -> None:
        client = self._client
        self._received: Peeked | None = Peeked(client.received)
        self._most = client.record.bytes_in - len(client.received) + _MOST
        self.wait(_PATIENCE, self._close)
        self._answer()

    def _answer(self) -> None:
        assert self._received is not None  # noqa: S101 - it goes only once there is an answer
        client = self._client
        unanswered = [preamble for preamble in client.preambles if not preamble.is_answered]
        if unanswered:
            answer = RejectionAnswer(unanswered[-1].refusal(self._reason), complete=True)
        else:
            answer = answer_to(
                self._received,
                unavailable=self._reason not in _NOT_ALLOWED,
                first=client.first_answers,
                rejects=self._how is Refusal.REJECT,
            )
        fresh = answer.data[self._answered :]
        if fresh:
            self._answered = len(answer.data)
            self.send(fresh)
        if client.has_finished or (answer.complete and not answer.data):
            self._close()
        elif answer.complete:
            self._received = None
            if ISSLTransport.providedBy(client.transport):
                self._close()  # TLS reads on by itself until the other side's close-notify
            else:
                client.transport.loseWriteConnection()

    def _close(self) -> None:
        if self._closing:
            return
        self._closing = True
        # The client may not even have taken the answer.
        transport = self._client.transport
        self.wait(_PATIENCE, transport.abortConnection)
        transport.loseConnection()

    @override
    def on_data(self) -> None:
        client = self._client
        if client.record.bytes_in > self._most:
            if self._received is None and not self._closing:
                client.transport.pauseProducing()
            else:
                self._close()
        elif self._received is not None and not self._closing:
            self._received = Peeked(client.received, self._received)
            self._answer()
            return
        client.received = b""  # once there is an answer, it is only taken

    @override
    def on_finished(self) -> None:
        self._close()

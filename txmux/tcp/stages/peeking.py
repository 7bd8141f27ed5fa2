"""A stage: the client's first bytes are collected until they decide where it belongs."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import attrs
from typing_extensions import override

from txmux.backends.upstream import Upstream
from txmux.net.sockets.transport import SocketTransport
from txmux.rules.model import Refusal
from txmux.tcp.configuration import Silent
from txmux.tcp.stage import Stage

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from txmux.detection.detector import Decision
    from txmux.interfaces import Exchange
    from txmux.tcp.configuration import CompiledRoute, RuleLayer
    from txmux.telemetry.states import ConnectionState

_CLOSE = Silent(Refusal.CLOSE)
"""Where silence leads if the rules do not say."""


@attrs.define(eq=False, slots=False)
class Peeking(Stage):
    """Waits for bytes.

    Args:
        level: Whose routes are asked.
        deadline: Calls `too_late`, or has run out; begins now if not given.
    """

    state: ClassVar[ConnectionState] = "peeking"
    only_looks: ClassVar[bool] = True

    _level: RuleLayer
    _deadline: IDelayedCall | None = None
    _answers = 0  # given to the client
    _since = 0.0  # in milliseconds after the client was accepted
    _has_own_time = False  # while the client is silent
    _is_left = False

    @property
    def level(self) -> RuleLayer:
        return self._level

    @override
    def begin(self) -> None:
        client, level = self._client, self._level
        address = client.address if level.asks_who else None
        host = address.host if address else None
        self._detection = detection = level.detector.begin(host, client.record.time)
        self._silent = silent = level.silent_for(host) or _CLOSE
        can_decide = detection.can_decide()
        if silent is _CLOSE and not can_decide:
            self._silent = silent = Silent(level.default)
        if level.server_first or (
            not can_decide and _is_decided(level, silent) and not detection.can_look()
        ):
            client.lead(level.default, "no-route")
            return
        if level.race and not client.received and isinstance(silent.destination, Upstream):
            client.run_ahead(silent.destination)
        self._wait_for_bytes(silent)

    def _wait_for_bytes(self, silent: Silent) -> None:
        client, deadline = self._client, self._deadline
        if silent.after is not None and not client.received:
            is_first = self._level is client.configuration.top
            self._since = 0.0 if is_first else client.elapsed_ms()
            self._has_own_time = True
            self._wait_until(silent.after)
        elif deadline is None:
            self._look_at_once()
            if not self._is_left:
                self.wait(client.configuration.settings.detect_timeout, self.too_late)
        else:
            if client.received:
                self.on_data()
            if self._deadline is deadline and not deadline.active():
                self.too_late()

    def _look_at_once(self) -> None:
        """Look at what the client has said by now: if it decides, nothing has to be waited for."""
        transport = self._client.transport
        # Whatever is wrapped around a socket, as TLS is, wants to see all bytes of it first, and passes on what it does not have itself.
        if isinstance(transport, SocketTransport) and (first := transport.take()):
            self.data(first)

    def _wait_until(self, seconds: float) -> None:
        """Decide this many seconds after the client came to this level, if nothing is decided before."""
        self.wait(max(0.0, seconds - self._passed()), self.too_late)

    def _passed(self) -> float:
        return (self._client.elapsed_ms() - self._since) / 1000

    @override
    def leave(self) -> None:
        super().leave()
        self._is_left = True
        race = self._client.race
        if race is not None:
            self._client.race = None
            race.drop()

    @override
    def on_data(self) -> None:
        if self._has_own_time:
            # It is not silent. What it says has the time that is usual; who was silent for longer has what is left.
            self._has_own_time = False
            usual = self._client.configuration.settings.detect_timeout
            if usual > self._passed():
                self._wait_until(usual)
        decision = self._detection.feed(self._client.received)
        if self._detection.answered:
            self._answer(self._detection.answered)
        if decision is not None:
            self._decided(decision)

    def _answer(self, answered: tuple[Exchange, ...]) -> None:
        """Say what the client waits for, once."""
        for exchange in answered[self._answers :]:
            self._client.record.bytes_out += len(exchange.answer)
            self._client.transport.write(exchange.answer)
        self._answers = len(answered)

    @override
    def on_finished(self) -> None:
        if self._client.received:
            self._decided(self._detection.finish())
        else:
            # It was a port scan, which opens no connection to a backend.
            self._client.turn_away(Refusal.CLOSE, "client-gone")

    def too_late(self) -> None:
        """Decide with what came until now."""
        if self._client.received:
            self._decided(self._detection.finish())
        else:
            self._client.lead(self._silent.destination, "silent")

    def _decided(self, decision: Decision[CompiledRoute]) -> None:
        client = self._client
        record, answered = client.record, decision.answered
        record.facts = {**record.facts, **decision.facts} if record.facts else decision.facts
        if answered:
            client.asked = tuple(exchange for exchange in answered if exchange.repeat)
            client.received = client.received[sum(len(exchange.request) for exchange in answered) :]
        client.decided(self._level, decision.route)


def _is_decided(level: RuleLayer, silent: Silent) -> bool:
    """Return whether a client that no route looks at is led to the same server whether it speaks or not."""
    return not isinstance(level.default, Refusal) and silent.destination == level.default

"""A stage: the client's first bytes are collected until they decide where it belongs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from typing_extensions import override

from txmux.frontend.stage import Stage
from txmux.rules.model import Refusal

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from txmux.detection.detector import Decision
    from txmux.frontend.generation import Branch, Level
    from txmux.interfaces import Exchange

__all__ = ["Peeking"]


@attrs.define(eq=False, slots=False)
class Peeking(Stage):
    """Waits for bytes.

    Args:
        level: Whose routes are asked.
        deadline: Calls `too_late`, or has run out; begins now if not given.
    """

    _level: Level
    _deadline: IDelayedCall | None = None
    _answers = 0  # given to the client

    @override
    def begin(self) -> None:
        client, detector = self._client, self._level.detector
        address = client.address if detector.asks_who else None
        self._detection = detector.begin(address.host if address else None, client.record.time)
        deadline = self._deadline
        if deadline is None:
            self.wait(client.generation.settings.detect_timeout, self.too_late)
            return
        if client.said:
            self.on_data()
        if self._deadline is deadline and not deadline.active():
            self.too_late()

    @override
    def on_data(self) -> None:
        decision = self._detection.feed(self._client.said)
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
        if self._client.said:
            self._decided(self._detection.finish())
        else:
            # It was a port scan, which opens no connection to a backend.
            self._client.turn_away(Refusal.CLOSE, "client-gone")

    def too_late(self) -> None:
        """Decide with what came until now."""
        if self._client.said:
            self._decided(self._detection.finish())
        else:
            self._client.lead(self._level.silent, "silent")

    def _decided(self, decision: Decision[Branch]) -> None:
        client = self._client
        record, answered = client.record, decision.answered
        record.facts = {**record.facts, **decision.facts} if record.facts else decision.facts
        if answered:
            client.asked = tuple(exchange for exchange in answered if exchange.repeat)
            client.said = client.said[sum(len(exchange.request) for exchange in answered) :]
        client.decided(self._level, decision.route)

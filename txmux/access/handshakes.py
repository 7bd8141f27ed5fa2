"""Limits concurrent TLS handshakes by source; further ones wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

import attrs

MOST_PER_SOURCE = 150
"""Handshakes that a worker does at once for a source: OpenSSL takes 50 KiB for each."""

PATIENCE = 2.0  # seconds after which a handshake makes room for one that waits
_STEPS = 32

_Key: TypeAlias = tuple[str, int]


class _WaitingHandshake(Protocol):
    def has_turn(self) -> None: ...
    def make_room(self) -> None: ...


@attrs.define
class _SourceHandshakes:
    """In both, the oldest is the first."""

    began: dict[_WaitingHandshake, float] = attrs.field(factory=dict)
    waiting: dict[_WaitingHandshake, None] = attrs.field(factory=dict)


class Handshakes:
    """The handshakes of this process's clients, by listener and source."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._sources: dict[_Key, _SourceHandshakes] = {}

    def enter(self, key: _Key, handshake: _WaitingHandshake, limit: int) -> float:
        """Add a handshake; return 0 if it may begin, otherwise in how many seconds to call `end_oldest`. A limit of 0 is none."""
        source = self._sources.get(key)
        if source is None:
            source = self._sources[key] = _SourceHandshakes()
        if 0 < limit <= len(source.began):
            source.waiting[handshake] = None
            # Spread out: if all that came together began at the same time, other clients would wait.
            return PATIENCE * (1 + len(source.waiting) % _STEPS / _STEPS)
        source.began[handshake] = self._seconds()
        return 0.0

    def end_oldest(self, key: _Key) -> None:
        """End the oldest handshake of a source if it has taken long: its client stalls, or is too slow to wait for."""
        oldest, since = next(iter(self._sources[key].began.items()))
        if self._seconds() - since >= PATIENCE:
            oldest.make_room()
            self.leave(key, oldest)

    def leave(self, key: _Key, handshake: _WaitingHandshake) -> None:
        source = self._sources.get(key)
        if source is None:
            return
        source.waiting.pop(handshake, None)
        if source.began.pop(handshake, None) is not None and source.waiting:
            following = next(iter(source.waiting))
            del source.waiting[following]
            source.began[following] = self._seconds()
            following.has_turn()
        elif not source.began:
            del self._sources[key]

"""The last connections that ended badly: workers report them, and the supervisor keeps them."""

import json
from collections import deque
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from txmux.telemetry.access_log import fields_of
from txmux.telemetry.documents import EndDocument
from txmux.telemetry.record import ConnectionRecord
from txmux.wire import codec
from txmux.wire.jsontext import MISSHAPEN, parse_json

_KEPT = 200  # the most that are kept
_LONGEST = 4096  # characters of a row; facts that make it longer are left out
_PAUSE = 1.0  # seconds between two reports: under attack, many end badly all the time


class BadEnds:
    """Reports bad ends of one process: the first at once, further ones together a second later.

    `report` sends texts to the process that keeps them, if any; no further ones are sent until the answer.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._new: deque[tuple[ConnectionRecord, bytes | None]] = deque(maxlen=_KEPT)
        self._is_pausing = False
        self.report: Callable[[list[str]], Deferred[Any]] | None = None

    def add(self, record: ConnectionRecord, first: bytes | None) -> None:
        """`first` is the client's first bytes, if no route took it; empty with ``capture = no``."""
        if self.report is not None:
            self._new.append((record, first))
            if not self._is_pausing:
                self.flush()

    def flush(self) -> None:
        """Report what is new."""
        if self._new and self.report is not None:
            self._is_pausing = True
            rows = [_text_of(*entry) for entry in self._new]
            self._new.clear()
            self.report(rows).addBoth(lambda _: self._clock.callLater(_PAUSE, self._pause_over))

    def _pause_over(self) -> None:
        self._is_pausing = False
        self.flush()


def _text_of(record: ConnectionRecord, first: bytes | None) -> str:
    fields = codec.write(record)
    if first is not None:
        fields["first"] = first.hex()
    text = json.dumps(fields)
    return text if len(text) <= _LONGEST else json.dumps({**fields, "facts": {}})


class Recent:
    """The last bad ends of all workers, as the texts these sent, parsed on request."""

    def __init__(self) -> None:
        self._rows: deque[tuple[int, str]] = deque(maxlen=_KEPT)

    def add(self, worker: int, rows: Iterable[str]) -> None:
        self._rows.extend((worker, row) for row in rows)

    def restore(self, rows: Iterable[tuple[int, str]]) -> None:
        """Continue with the result of `state`, of another process."""
        self._rows.clear()
        self._rows.extend((int(worker), str(row)) for worker, row in rows)

    def state(self) -> list[tuple[int, str]]:
        return [*self._rows]

    def as_json(self) -> list[EndDocument]:
        """The newest first; ``ended`` is in seconds since 1970."""
        rows = [row for worker, text in self._rows for row in _read(worker, text)]
        return sorted(rows, key=itemgetter("ended"), reverse=True)


def _read(worker: int, text: str) -> list[Any]:
    """Yield the row of a connection; nothing for an invalid text: a worker may be compromised, or of another version."""
    try:
        values = parse_json(text)
        record = codec.read(ConnectionRecord, values)
        first = {} if "first" not in values else {"first": bytes.fromhex(values["first"]).hex()}
        ended = record.time + (record.duration_ms or 0.0) / 1000
        row = {**fields_of(record), "ended": ended, **first, "worker": worker}
        json.dumps(row, allow_nan=False)  # a number may be infinite
    except (*MISSHAPEN, OSError):
        return []
    return [row]

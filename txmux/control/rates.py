"""The rates of counters, now and over the last minutes."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from txmux.classes import frozen
from txmux.telemetry.counting.counter_groups import ServerTotals
from txmux.telemetry.counting.snapshot import ServerSample
from txmux.wire import codec
from txmux.wire.codec import AGE, WHOLE, Origin, by_name, sent
from txmux.wire.jsontext import MISSHAPEN

_SAMPLES = 3
_NONE: ServerSample = (0, 0, 0)

_ANSWERS = 13  # samples in which the mean time until a server's first byte is taken: a minute
_MOMENTS = 120  # ten minutes, as `txmux.admin.endpoint` takes samples


@frozen
class Moment:
    """Rates between a sample, taken `ago` seconds before now, and the one before it; `active` is the number of open connections."""

    ago: float
    connections: float
    active: int
    bytes: float


@frozen
class _Sample:
    """The totals of counters at a time, and how many connections were open then."""

    at: float = sent(AGE, name="ago")
    totals: Mapping[str, int] = sent(by_name(WHOLE))
    active: int = sent(WHOLE)


class Rates:
    """Stores the last samples of counters."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._samples: deque[_Sample] = deque(maxlen=_MOMENTS + 1)
        self._servers: deque[tuple[float, Mapping[tuple[str, str], ServerSample]]] = deque(
            maxlen=_ANSWERS
        )

    def record(self, totals: Mapping[str, int], active: int = 0) -> None:
        self._samples.append(_Sample(self._seconds(), totals, active))

    def record_servers(self, samples: Mapping[tuple[str, str], ServerSample]) -> None:
        self._servers.append((self._seconds(), samples))

    def of_server(self, totals: ServerTotals) -> tuple[float, float | None]:
        """Return the connections per second, and the mean time until a first byte in milliseconds; ``None`` if none came of late."""
        if not self._servers:
            return 0.0, None
        key, last = (totals.backend, totals.server), len(self._servers) - 1
        (then, of_then), (_, before) = self._servers[max(0, last + 1 - _SAMPLES)], self._servers[0]
        seconds = self._seconds() - then
        # A reload may have removed what was counted.
        grown = max(0, totals.total - of_then.get(key, _NONE)[0])
        _, answered, waited = before.get(key, _NONE)
        answers, waited = totals.answered - answered, totals.answer_time - waited
        return (
            round(grown / seconds, 3) if seconds > 0 else 0.0,
            round(waited / answers / 1000, 3) if answers > 0 and waited >= 0 else None,
        )

    def as_json(self) -> list[dict[str, Any]]:
        its = Origin(self._seconds())
        return [codec.write(sample, its) for sample in self._samples]

    def restore(self, saved: Iterable[Mapping[str, Any]]) -> None:
        """Restore the samples of the predecessor; invalid ones are left out."""
        its, before = Origin(self._seconds()), []
        for row in saved:
            with suppress(*MISSHAPEN):  # it may be of another version
                before.append(codec.read(_Sample, row, its))
        samples = [*before, *self._samples]
        self._samples.clear()
        self._samples.extend(samples)  # the last ones, if there are too many

    def history(self) -> list[Moment]:
        moments, at = [], self._seconds()
        for before, sample in itertools.pairwise([*self._samples]):
            seconds = sample.at - before.at
            if seconds > 0:
                grown = _growth(before.totals, sample.totals)
                moved = grown.get("bytes_in", 0) + grown.get("bytes_out", 0)
                came = grown.get("connections", 0)
                ago = at - sample.at
                moments.append(Moment(ago, came / seconds, sample.active, moved / seconds))
        return moments

    def until_now(self, totals: Mapping[str, int]) -> dict[str, float]:
        """Return the growth per second of each counter since the oldest sample."""
        now = self._seconds()
        last = [*self._samples][-_SAMPLES:]
        seconds = now - last[0].at if last else 0.0
        if seconds <= 0:
            return {}
        grown = _growth(last[0].totals, totals)
        return {name: round(more / seconds, 3) for name, more in grown.items()}


def _growth(before: Mapping[str, int], totals: Mapping[str, int]) -> dict[str, int]:
    # A reload may have removed what was counted.
    return {name: max(0, count - before.get(name, 0)) for name, count in totals.items()}

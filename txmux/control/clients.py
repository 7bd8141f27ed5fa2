"""Who is connected, and who is refused at limits, over all workers."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_network
from typing import Any

from txmux.client.client_table import BUSY, MOST_SOURCES, Row, rate_of
from txmux.telemetry import attention_rows as rows
from txmux.telemetry.attention import AttentionItem, beside_busiest
from txmux.telemetry.counting.counter_groups import NO_ROUTE, ListenerTotals, RouteTotals
from txmux.telemetry.counting.counters import Counters
from txmux.telemetry.documents import ClientDocument
from txmux.telemetry.formatting import duration

__all__ = ["MOST_SOURCES", "RefusedClients", "clients_document"]

_SAMPLES = 7  # half a minute, as `txmux.admin.endpoint` takes samples
_MOST, _LEAST = 0.5, 0.01  # of the refusals: who is to be banned, and who is named
_HEADER = "proxy-header"  # a reason, beside the limits
_LIMITS = {
    "txmux.max_connections": "max_connections of [txmux]",
    "handshakes": "the limit of TLS handshakes",
    "descriptors": "the limit of open files",
}


def clients_document(answers: Iterable[Iterable[Row]], limit: int) -> list[ClientDocument]:
    """Build the document for ``/api/clients`` from the rows of each worker: the busiest sources first."""
    merged: dict[str, list[Any]] = {}
    for answer in answers:
        for source, *counts, since in answer:
            before = merged.setdefault(source, [*[0] * len(counts), since])
            before[:] = *map(sum, zip(before, counts, strict=False)), min(before[-1], since)
    now = time.time()
    listed = [_client(source, values, now) for source, values in merged.items()]
    listed.sort(key=lambda row: (-row["active"], -row["rate"], -row["connections"]))
    return listed[:limit]


def _client(source: str, values: Sequence[Any], now: float) -> ClientDocument:
    active, ended, recent, bytes_in, bytes_out, refused, unrecognised, since = values
    rate = round(rate_of(recent, since, now), 3)
    return {
        "source": source, "active": active, "connections": ended + active, "rate": rate,
        "bytes_in": bytes_in, "bytes_out": bytes_out, "refused": refused,
        "unrecognised": unrecognised, "since": since,
    }  # fmt: skip


class RefusedClients:
    """How many clients each limit of each listener has refused in the last half minute, or that had no valid PROXY header."""

    def __init__(self, counters: Counters, seconds: Callable[[], float]) -> None:
        self._counters = counters
        self._seconds = seconds
        self._samples: deque[tuple[float, Mapping[tuple[str, str], int]]] = deque(maxlen=_SAMPLES)

    def record(self, listeners: Iterable[str]) -> None:
        self._samples.append((self._seconds(), self._counts(listeners)))

    def _counts(self, listeners: Iterable[str]) -> dict[tuple[str, str], int]:
        cells = self._counters.cells
        counts: dict[tuple[str, str], int] = {}
        for name in listeners:
            counts.update(
                ((name, limit), count)
                for limit, count in ListenerTotals.of(cells, name).refused.items()
            )
            ended = RouteTotals.of(cells, name, NO_ROUTE).ended
            counts[name, _HEADER] = ended[_HEADER]
        return counts

    def attention(
        self, listeners: Iterable[str], refusing: Mapping[tuple[str, str, str], float]
    ) -> Iterator[AttentionItem]:
        """Yield an item for each limit that refuses clients; `refusing` is that of `Gauges`."""
        if not self._samples:
            return
        then, before = self._samples[0]
        span = duration(max(1, round(self._seconds() - then)))
        for (listener, limit), count in self._counts(listeners).items():
            refused = count - before.get((listener, limit), 0)
            if refused <= 0:
                continue
            by_source = {key[2]: n for key, n in refusing.items() if key[:2] == (listener, limit)}
            who, do = who_first(by_source, "see who they are: txmux clients")
            if limit == "descriptors":  # which others may have taken
                who, do = "", rows.MORE_ROOM
            at = _LIMITS.get(limit, limit)
            row = rows.HEADERS_WRONG if limit == _HEADER else rows.LIMIT_REFUSES
            yield row.item(
                listener=listener, limit=limit, at=at, refused=refused, span=span, who=who, do=do
            )


def flooding(by_source: Mapping[str, float]) -> Iterator[AttentionItem]:
    """Yield an item if the connections of clients keep a process busy; `by_source` is that of `Gauges`.

    It is a note if one or two sources do that.
    """
    if by_source:
        limit = "see who they are: txmux clients; limit them: connection_rate_per_source"
        who, do = who_first(dict(by_source), limit)
        is_wide = beside_busiest(by_source.values()) >= BUSY
        row = rows.BUSY_WITH_MANY if is_wide else rows.BUSY_WITH_FEW
        yield row.item(rate=by_source.get("", 0.0), who=who, do=do)


def who_first(by_source: dict[str, float], do: str) -> tuple[str, str]:
    """Describe the first source, and what to do, which is `do` unless that source has most of all."""
    of_all, who = by_source.pop("", 0.0), ""
    if by_source and of_all:
        first = max(by_source, key=by_source.__getitem__)
        share = min(1.0, by_source[first] / of_all)
        who = f", {share * 100:.0f} % from {first}" if share >= _LEAST else ""
        if share >= _MOST and is_network(first):
            do = f"see what it does: txmux clients; keep it out: txmux ban {first} 1h"
    return who, do


def is_network(source: str) -> bool:
    """Return whether a source can be banned; a compromised worker may send a command here."""
    try:
        ip_network(source)
    except ValueError:
        return False
    return True

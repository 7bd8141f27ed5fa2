"""The row of a gauge, and how the values of several processes become one."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from txmux.classes import frozen
from txmux.net.channel.message import Field
from txmux.telemetry.attention import AttentionItem
from txmux.telemetry.counting.counter_rows import Metric


@frozen
class Gauge:
    """A row: how a value comes about, and where it is shown.

    Attributes:
        meaning: What it is, beside what its metrics say.
        default: The value of a feature's row where no process has reported one.
        combine: Makes one value of what the processes report.
        bounds: Of what a worker may report.
        collect: Measures it in a worker, of its `Serving`; it may be awaited, and rows that it yields are collected in turns, since there may be very many.
        own: Returns what the supervisor knows by itself, by the `ServiceState` and the `Counters`.
        metrics: What `/metrics` has of it: `Metric.samples` gets the value, and all `ServiceCounts`.
        status: The field of `StatusGauges` with the value, and what makes that of the value.
        attention: Yields what needs an operator's attention, by the value.
        is_frequent: Whether it is asked for every few seconds.
    """

    meaning: str = ""
    default: Any = None
    combine: Callable[[list[Any]], Any] = list
    bounds: Field | None = None
    collect: Callable[[Any], Any] | None = None
    own: Callable[[Any, Any], Any] | None = None
    metrics: Sequence[Metric] = ()
    status: tuple[str, Callable[[Any], Any]] | None = None
    attention: Callable[[Any], Iterable[AttentionItem]] | None = None
    is_frequent: bool = False
    name: str = ""

    def __attrs_post_init__(self) -> None:
        if (self.collect is None) != (self.bounds is None):
            raise TypeError("what workers report has bounds")


def list_of(*row: Field) -> Field:
    return Field(list, of=Field(list, row=row))


def _one(values: Sequence[Any]) -> Any:
    return values[0] if len(values) == 1 else tuple(values)


def merged(
    how: Callable[[Any, Any], Any] = lambda _, newer: newer, keys: int = 1
) -> Callable[[list[Any]], dict[Any, Any]]:
    """Merge the objects of several processes, or their rows, of which the first values are the key; `how` makes one of two values."""

    def merge(reports: list[Any]) -> dict[Any, Any]:
        merged: dict[Any, Any] = {}
        for report in reports:
            rows = report.items() if isinstance(report, dict) else report
            for row in rows:
                key, value = _one(row[:keys]), _one(row[keys:])
                merged[key] = how(merged[key], value) if key in merged else value
        return merged

    return merge


def outer_routes(serving: Any) -> Iterator[Any]:
    """Yield the compiled routes that end TLS, or have stages, of a `Serving`; some come several times."""
    for listener in serving.listeners:
        configuration = listener.configuration
        for level in (configuration.plain or configuration).layers:
            yield from level.outer.items

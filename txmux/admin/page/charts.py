"""Small charts as SVG, for browsers that run no script."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WIDTH = 300
HEIGHT = 60


@attrs.frozen
class Chart:
    """One series over the last minutes.

    Attributes:
        name: Of the series, for the script.
        title: What it is, for people.
        now: The last value, as text.
        most: The highest value, as text.
        points: The line, for SVG's `polyline`, in a box of `WIDTH` by `HEIGHT`.
        times: When each value was taken, in seconds since 1970.
        values: The values.
    """

    name: str
    title: str
    now: str
    most: str
    points: str
    times: Sequence[float]
    values: Sequence[float]


def chart(
    name: str,
    title: str,
    times: Sequence[float],
    values: Sequence[float],
    told: Callable[[float], str],
    seconds: float = 600,
) -> Chart:
    """Draw a series.

    Args:
        name: See `Chart`.
        title: See `Chart`.
        times: When each value was taken; ascending.
        values: As many.
        told: Makes text of a value.
        seconds: The width of the chart in time; its right end is the last value.
    """
    most = max(values, default=0)
    last = times[-1] if times else 0
    points = " ".join(
        f"{WIDTH * (1 - (last - time) / seconds):.1f},{HEIGHT - 1 - (HEIGHT - 2) * value / (most or 1):.1f}"
        for time, value in zip(times, values, strict=True)
        if last - time <= seconds
    )
    return Chart(name, title, told(values[-1] if values else 0), told(most), points, times, values)

"""Formats durations, amounts and rates for the commands, the page and messages. Pure."""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from txmux.errors import printable_lines

_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
_SHORT = 10  # below it, one decimal is shown
_SECOND = 1000  # ms
_LEAST_FOUR_DIGITS = 999.5  # rounded to whole numbers

AND_DOWN = ", and down"  # in the reason of a drained server


def duration(seconds: float) -> str:
    """Write a length of time by its largest unit, and the next one unless it is zero.

    >>> duration(5400)
    '1 h 30 min'
    """
    seconds = max(seconds, 0)
    if seconds < _SHORT:
        return f"{round(seconds, 1):g} s"
    left = int(seconds)
    parts: list[tuple[int, str]] = []
    for unit, size in _UNITS:
        number, left = divmod(left, size)
        if parts or number or size == 1:
            parts.append((number, unit))
    return " ".join(f"{number} {unit}" for number, unit in parts[:2] if number or len(parts) == 1)


def utc_time(moment: float) -> str:
    """Write a time, in seconds since 1970.

    >>> utc_time(1796083200)
    '2026-12-01 00:00 UTC'
    """
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC"


def compact_duration(seconds: float) -> str:
    return duration(int(seconds)).replace("min", "m").replace(" ", "")


def _rounded(value: float, digits: int = 3) -> str:
    return f"{float(f'{value:.{digits}g}'):.3f}".rstrip("0").rstrip(".")


def si_number(value: float) -> str:
    for unit in ("", " k", " M"):
        if abs(value) < _LEAST_FOUR_DIGITS:
            return f"{_rounded(value)}{unit}"
        value /= 1000
    return f"{_rounded(value)} G"


def byte_rate(per_second: float) -> str:
    """Write bytes per second.

    >>> byte_rate(8010)
    '8.01 kB/s'
    """
    return f"{byte_count(per_second)}/s"


def byte_count(number: float) -> str:
    """Write a number of bytes.

    >>> byte_count(1536)
    '1.54 kB'
    """
    text = si_number(number)
    return f"{text}{'' if ' ' in text else ' '}B"


def count(number: float) -> str:
    """Write a number with its thousands apart.

    >>> count(1234567)
    '1 234 567'
    """
    return f"{number:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def rate(per_second: float) -> str:
    return f"{_rounded(per_second, 2)}/s" if per_second < _SHORT else f"{si_number(per_second)}/s"


def milliseconds(value: float) -> str:
    is_short = 0 < value < _LEAST_FOUR_DIGITS
    return f"{_rounded(value)} ms" if is_short else duration(value / _SECOND)


def aligned(rows: Sequence[Sequence[str]], numbers: Collection[int] = ()) -> Iterator[str]:
    """Yield the lines of a table, with these columns aligned at the right."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    for cells in rows:
        padded = (
            cell.rjust(width) if place in numbers else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        yield "  ".join(padded).rstrip()


def printable_json(data: object, encode: Callable[[object], str] = json.dumps) -> str:
    """Write JSON for others to show: texts in it are escaped as by `printable_lines`, since many programs show them as they are.

    Args:
        data: What `json` can write.
        encode: Writes it, all but ASCII escaped.
    """
    text = encode(data)
    return encode(_printable_values(data)) if _MAY_HIDE.search(text) else text


_MAY_HIDE = re.compile(r"\\[bfru]|\x7f")
"""How `json` writes what `printable_lines` escapes, and other characters than those of ASCII."""


def _printable_values(data: object) -> object:
    if isinstance(data, str):
        return printable_lines(data)
    if isinstance(data, Mapping):
        return {_printable_values(name): _printable_values(value) for name, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [*map(_printable_values, data)]
    return data

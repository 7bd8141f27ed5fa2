"""Numbers as people read them."""

from __future__ import annotations

_SIZES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_STEP = 1024
_SHORT = 10
_AGES = ((86400, "d"), (3600, "h"), (60, "min"))


def size(count: float) -> str:
    """Return a number of bytes in the unit that leaves one to four digits.

    >>> size(1536)
    '1.5 KiB'
    """
    unit = 0
    while count >= 1000 and unit < len(_SIZES) - 1:
        count /= _STEP
        unit += 1
    digits = 1 if unit and count < _SHORT else 0
    return f"{count:.{digits}f} {_SIZES[unit]}"


def age(seconds: float) -> str:
    """Return a length of time by its largest unit, and the next one if that says more.

    >>> age(5400)
    '1 h 30 min'
    """
    seconds = max(seconds, 0)
    for number, (length, unit) in enumerate(_AGES):
        if seconds < length:
            continue
        whole, rest = divmod(int(seconds), length)
        smaller = _AGES[number + 1] if number + 1 < len(_AGES) else (1, "s")
        part = rest // smaller[0]
        return (
            f"{whole} {unit} {part} {smaller[1]}" if part and whole < _SHORT else f"{whole} {unit}"
        )
    return f"{seconds:.1f} s" if seconds < _SHORT and seconds % 1 else f"{seconds:.0f} s"


def count(number: float) -> str:
    """Return a number with its thousands apart.

    >>> count(1234567)
    '1 234 567'
    """
    return f"{number:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def rate(per_second: float) -> str:
    """Return how often something happens in a second.

    >>> rate(0.25)
    '0.2/s'
    """
    digits = 1 if 0 < per_second < _SHORT else 0
    return f"{per_second:,.{digits}f}".replace(",", "\N{NARROW NO-BREAK SPACE}") + "/s"

"""Times and numbers, short enough for a table."""

from __future__ import annotations

_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def duration(seconds: float) -> str:
    """Write a time by its two largest units."""
    left = max(int(seconds), 0)
    parts = []
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        parts.append((count, unit))
    while len(parts) > 1 and not parts[0][0]:
        parts.pop(0)
    return " ".join(f"{count} {unit}" for count, unit in parts[:2])


def brief(seconds: float) -> str:
    """Write a time as `duration` does, in few columns: ``1h2m``."""
    return duration(seconds).replace("min", "m").replace(" ", "")


def short(value: float) -> str:
    """Write a number by three digits or so."""
    for unit in ("", " k", " M"):
        if abs(value) < 1000:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g} G"

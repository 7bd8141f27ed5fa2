"""JSON (RFC 8259) from untrusted peers. Pure."""

import json
import math
from typing import Any

MISSHAPEN = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""The exceptions of reading values of unexpected types: a list as an object, or an infinite number."""


def parse_json(text: str | bytes) -> Any:
    """Read a JSON text.

    Args:
        text: The text; bytes are UTF-8, or UTF-16 or UTF-32, by their first ones.

    Returns:
        Its value: a dictionary, a list, a string, a number, a truth value or ``None``.

    Raises:
        ValueError: It is not JSON, or its arrays and objects are nested more deeply than Python can read.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def time_of(value: Any) -> float:
    """Read seconds since 1970.

    Raises:
        ValueError: They are not finite. Also `TypeError` and `OverflowError`.
    """
    time = float(value)
    if not math.isfinite(time):
        raise ValueError(f"{value!r} is not a time")
    return time

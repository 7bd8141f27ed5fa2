"""JSON (RFC 8259) that others have written, who may have written anything."""

from __future__ import annotations

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """Read a JSON text.

    Args:
        text: The text; bytes are UTF-8, or UTF-16 or UTF-32 as their first ones tell.

    Returns:
        Its value: a dictionary, a list, a string, a number, a truth value or ``None``.

    Raises:
        ValueError: It is not JSON, or its arrays and objects are nested more deeply than Python can read.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None

"""What one key of a section takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Key"]


@attrs.frozen
class Key:
    """What a key takes. Its default is the model's.

    Attributes:
        field: The model's attribute.
        read: Reads one item, or raises `InvalidValueError`.
        example: A value that works, for messages.
        takes: One value, one item a line, or items separated by commas or line ends.
        collect: Makes the attribute of several items.
        required: Whether a section cannot do without it.
        unless: A key that makes it unnecessary.
    """

    field: str
    read: Callable[[str], Any]
    example: str
    takes: Literal["one", "lines", "list"] = "one"
    collect: Callable[[Iterable[Any]], Any] = tuple
    required: bool = False
    unless: str = ""

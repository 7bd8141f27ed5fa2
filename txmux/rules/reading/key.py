"""What one key of a section takes, for its reader and for the reference page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import attrs

from txmux.rules.reading import values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@attrs.frozen
class Kind:
    """A kind of values.

    Attributes:
        read: Reads one item, or raises `InvalidValueError`.
        shape: How it is written, for the reference page.
        takes: One value, one item a line, or items separated by commas or line ends.
        collect: Makes one value of several items.
        in_context: Whether `read` takes the `Reading` before the text.
    """

    read: Callable[..., Any]
    shape: str
    takes: Literal["one", "lines", "list"] = "one"
    collect: Callable[[Iterable[Any]], Any] = tuple
    in_context: bool = False


@attrs.frozen
class Key:
    """A key of a section.

    Attributes:
        default: What it is if it is not written, in the words of a rules file; ``None`` is nothing. The model has it, too.
        meaning: What it does, for the reference page, in Markdown.
        example: A value that works, for messages; by default the default.
        field: The model's attribute; by default the key's name.
        required: Whether a section cannot do without it.
        unless: A key that makes it unnecessary.
    """

    kind: Kind
    default: str | None
    meaning: str
    example: str = attrs.field()
    field: str = ""
    required: bool = False
    unless: str = ""

    @example.default
    def _by_default(self) -> str:
        return self.default or ""


def number(low: int, high: int) -> Kind:
    return Kind(values.whole_number(low, high), f"`{low}` to `{high}`")


def words(*choices: str) -> Kind:
    return Kind(values.choice(*choices), ", ".join(f"`{choice}`" for choice in choices))


BOOLEAN = Kind(values.boolean, "boolean")
LOG = Kind(values.logged, "`yes`, `no` or `errors`")
CONNECTIONS = number(0, 1_000_000_000)
DURATION = Kind(values.positive_duration, "duration")
PROTOCOLS = Kind(values.protocol_name, "list of protocols", "list")

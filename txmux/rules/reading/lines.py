"""The lines of a rules file, and what each of them is: the one place that knows where a value ends."""

from __future__ import annotations

import io
from enum import Enum
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMENT = ("#", ";")
"""What comments begin with."""


class LineKind(Enum):
    """What a line is."""

    BLANK = "blank"
    COMMENT = "comment"
    HEADER = "header"
    ENTRY = "entry"
    """It begins an entry, or at least is where one could begin."""
    ITEM = "item"
    """It continues the value of the entry above."""


@attrs.frozen
class Line:
    """A line of a rules file.

    Attributes:
        number: Counted from 1.
        text: It, without the blanks around it.
        indent: How many blanks are before it.
    """

    number: int
    kind: LineKind
    text: str
    indent: int


def lines_of(text: str) -> Iterator[Line]:
    """Take a text apart.

    Args:
        text: A byte order mark and any kind of line end are accepted.

    Yields:
        All lines, also blank ones and comments, whatever is wrong in them.
    """
    in_value, indent_of_key = False, 0
    for number, line in enumerate(io.StringIO(text.removeprefix("\ufeff"), newline=None), start=1):
        stripped = line.strip()
        indent = len(line) - len(line.lstrip())
        if not stripped:
            yield Line(number, LineKind.BLANK, "", 0)
        elif stripped.startswith(COMMENT):
            yield Line(number, LineKind.COMMENT, stripped, indent)
        elif in_value and indent > indent_of_key:
            yield Line(number, LineKind.ITEM, stripped, indent)
        else:
            in_value, indent_of_key = not stripped.startswith("["), indent
            kind = LineKind.ENTRY if in_value else LineKind.HEADER
            yield Line(number, kind, stripped, indent)

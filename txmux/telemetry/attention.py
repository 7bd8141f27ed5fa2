"""What needs an operator's attention: items with a level, a cause and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, get_args

import attrs

Level = Literal["critical", "warning", "note"]
"""``critical``: clients are turned away or lost now; ``warning``: they will be, or protection is off."""

What = Literal[
    "backend",
    "accept",
    "ports",
    "descriptors",
    "workers",
    "helper",
    "service",
    "log",
    "sources",
    "names",
    "certificates",
    "limits",
    "bans",
    "hold",
    "reload",
    "upgrade",
    "rules",
    "token",
]
"""The topics of items, which are labels of ``txmux_attention``."""

LEVELS: tuple[Level, ...] = get_args(Level)
TOPICS: tuple[What, ...] = get_args(What)


@attrs.frozen
class AttentionItem:
    """One thing that needs attention.

    Attributes:
        level: How bad it is.
        what: The topic.
        text: What is wrong, with its names; no full stop.
        cause: The newest cause, with its number, as in ``connection refused, 37 of 37 in 12 s``; empty if there is none.
        since: When it began, in seconds since 1970; ``None`` if whoever reports it does not know.
        do: A sentence or a command that helps; empty if there is none.
        link: The page that shows it, relative to that of the service, such as ``?backend=web#servers``; empty if there is none.
        subject: With `what`, the same as long as the item is the same one, such as the name of a backend; the text if empty.
    """

    level: Level
    what: What
    text: str
    cause: str = ""
    since: float | None = None
    do: str = ""
    link: str = ""
    subject: str = ""

    def as_json(self) -> dict[str, Any]:
        values = attrs.asdict(self)
        del values["subject"]
        return values


def worst_first(items: Iterable[AttentionItem]) -> list[AttentionItem]:
    """Sort by level, then by age, the oldest first."""
    return sorted(items, key=lambda item: (LEVELS.index(item.level), item.since or 0.0))

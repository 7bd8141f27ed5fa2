"""Rules for another process, as a text that holds what the files held when they were read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.rules.parser import parse
from txmux.rules.problems import RulesError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from txmux.rules.ini import Section
    from txmux.rules.model import Rules

__all__ = ["as_text"]


def as_text(rules: Rules) -> str | None:
    """Write rules as one file, those that were included with them.

    Reading the files again would be a race with whoever edits them.

    Args:
        rules: As `txmux.rules.parser.load` gives them.

    Returns:
        The text; ``None`` if the rules, or a part of them, come from no file.
    """
    text = "\n".join(line for section in rules.sections.values() for line in _lines(section))
    try:
        read = parse(text, rules.path)
    except RulesError:
        return None
    return text if _outline(read) == _outline(rules) else None


def _lines(section: Section) -> Iterator[str]:
    yield f"[{section.header}]"
    for entry in section.entries.values():
        if entry.key == "include":
            continue
        first, *further = entry.items
        if first.line == entry.line:
            yield f"{entry.key} = {first.text}"
        else:
            yield f"{entry.key} ="
            further = list(entry.items)
        yield from (f"  {item.text}" for item in further)


def _outline(rules: Rules) -> object:
    """Give what can be compared; predicates cannot."""
    routes = [(r.name, [a.text for a in r.alternatives], r.outcome, r.under) for r in rules.routes]
    return rules.settings, rules.listeners, routes, rules.backends

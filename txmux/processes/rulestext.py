"""Rules for another process, as a text that holds what the files held when they were read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs

from txmux.rules.problems import RulesError
from txmux.rules.reading.parser import parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from txmux.rules.model import NetworkSet, Rules, Section

__all__ = ["as_text"]


def as_text(rules: Rules) -> str | None:
    """Write rules as one file, with those that were included and the networks that are in files of their own.

    Reading the files again would be a race with whoever edits them.

    Args:
        rules: As `txmux.rules.reading.parser.load` gives them.

    Returns:
        The text; ``None`` if the rules, or a part of them, come from no file.
    """
    networks = _networks(rules)
    text = "\n".join(
        line for section in rules.sections.values() for line in _lines(section, networks)
    )
    try:
        read = parse(text, rules.path)
    except RulesError:
        return None
    return text if _outline(read) == _outline(rules) else None


def _networks(rules: Rules) -> dict[tuple[str, str], NetworkSet | None]:
    """Give the networks of each key, by the header of its section."""
    found = {}
    for listener in rules.listeners:
        for key in ("accept_proxy_from", "allow", "deny"):
            found[f"listen {listener.name}", key] = getattr(listener, key)
    for route in rules.routes:
        found[f"route {route.name}", "from"] = route.allowed
        found[f"route {route.name}", "not_from"] = route.excluded
    return found


def _lines(section: Section, networks: dict[tuple[str, str], NetworkSet | None]) -> Iterator[str]:
    yield f"[{section.header}]"
    for entry in section.entries.values():
        if entry.key == "include":
            continue
        items = [item.text for item in entry.items]
        some = networks.get((section.header, entry.key))
        if some is not None and any("@" in item for item in items):
            # Not one network is what an empty file has.
            items = [*map(str, some)] or [f"@{os.devnull}"]
            if getattr(some, "by_unix", False):
                items.append("unix")
        yield f"{entry.key} ="
        yield from (f"  {item}" for item in items)


def _outline(rules: Rules) -> object:
    """Give what can be compared; predicates cannot."""
    routes = [
        ([line.text for line in route.alternatives], attrs.evolve(route, alternatives=()))
        for route in rules.routes
    ]
    return rules.settings, rules.listeners, routes, rules.backends

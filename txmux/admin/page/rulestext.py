"""The rules as they were loaded, with the hits of each route beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from txmux.telemetry.present import count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


_SHORT = 200  # lines


@attrs.frozen
class Line:
    """A line of a rules file: its number, its text, the hits of the route that begins there, and an anchor for that section."""

    number: int
    text: str
    hits: str = ""
    section: str = ""


@attrs.frozen
class RulesFile:
    """A rules file, and whether it is shown before somebody asks for it."""

    path: str
    lines: Sequence[Line]
    is_open: bool = False


def files_of(
    rules: Sequence[Mapping[str, Any]], routes: Sequence[Mapping[str, Any]]
) -> list[RulesFile]:
    """Lay out the rules.

    Args:
        rules: ``/api/rules``: for each file ``file``, ``text``, and ``sections`` with ``name`` and ``line``.
        routes: ``/api/routes``.
    """
    hits = {f"route {route['name']}": route for route in routes}
    files = [_file(file, hits) for file in rules]
    is_short = sum(len(file.lines) for file in files) <= _SHORT
    return [attrs.evolve(file, is_open=is_short) for file in files]


def _file(file: Mapping[str, Any], hits: Mapping[str, Mapping[str, Any]]) -> RulesFile:
    begins = {section["line"]: section["name"] for section in file.get("sections", ())}
    lines = []
    for number, text in enumerate(file["text"].splitlines(), 1):
        name = begins.get(number, "")
        lines.append(Line(number, text, _hits(hits.get(name)), name.replace(" ", "-")))
    return RulesFile(file["file"], lines)


def _hits(route: Mapping[str, Any] | None) -> str:
    if route is None:
        return ""
    dry = route.get("dry_run_matches") or 0
    told = count(route.get("matches") or 0)
    return f"{told} (dry run: {count(dry)})" if dry else told

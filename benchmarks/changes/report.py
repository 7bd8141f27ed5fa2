"""The outcomes as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from benchmarks.changes.run import Kind, Outcome
    from benchmarks.changes.services import Service

_FIGURES: tuple[tuple[str, Callable[[Outcome], str]], ...] = (
    ("done", lambda one: f"{one.done}"),
    ("asked for again after 5 s", lambda one: f"{one.repeated}"),
    ("short connections: served", lambda one: f"{one.served:,}"),
    ("refused", lambda one: f"{one.refused}"),
    ("reset", lambda one: f"{one.reset}"),
    ("timed out", lambda one: f"{one.timed_out}"),
    ("with wrong bytes, long ones included", lambda one: f"{one.wrong}"),
    ("slowest, ms", lambda one: f"{one.slowest:.0f}"),
    ("long connections: lived", lambda one: f"{one.lived}"),
    ("**cut**", lambda one: f"**{one.cut}**"),
    ("old processes at the end", lambda one: f"{one.lingering}"),
    ("memory at first, MiB", lambda one: f"{one.memory_before:.0f}"),
    ("memory at the end, MiB", lambda one: f"{one.memory_after:.0f}"),
    ("time of each until done, ms", lambda one: f"{one.seconds * 1e3:.0f}"),
)


def markdown(
    machine: Mapping[str, str],
    kinds: Sequence[Kind],
    services: Sequence[Service],
    outcomes: Mapping[str, Mapping[str, Outcome]],
) -> str:
    """Write the machine and one table of all outcomes, without headings.

    Args:
        machine: What it ran on: what, and which.
        kinds: The changes, in their order.
        services: The columns, in their order.
        outcomes: By the keys of kinds, and then of services.
    """
    rows = []
    for kind in kinds:
        rows.append([f"**{kind.times} {kind.title}**", *("" for _ in services)])
        for title, written in _FIGURES:
            cells = (written(outcomes[kind.key][service.key]) for service in services)
            rows.append([title, *cells])
    head = ["", *(service.title for service in services)]
    return f"{_table(('what', 'which'), machine.items())}\n\n{_table(head, rows)}\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

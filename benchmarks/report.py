"""The results as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.bar import BAR, STRETCH
from benchmarks.results import FIGURES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from benchmarks.bar import Goal
    from benchmarks.bench import Figure
    from benchmarks.results import Results

_TIMES = " \N{MULTIPLICATION SIGN} "
_NONE = "\N{EN DASH}"
_NAMES = {"haproxy": "HAProxy", "sslh": "sslh-select", "envoy": "Envoy", "nginx": "nginx"}
_MET = {True: "met", False: "**missed**", None: "not measured"}


def markdown(results: Results) -> str:
    """Write the machine, the goals and all figures as Markdown, without headings.

    Args:
        results: What was measured.

    Returns:
        The text.
    """
    parts = [_table(("what", "which"), results.machine.items())]
    if results.quick:
        parts.append("**A quick run, on a small scale: it shows that all works, and no more.**")
    parts += [
        f"Medians of {results.rounds} {'round' if results.rounds == 1 else 'rounds'}.",
        _table(("measure", "kind", "goal", "txmux", ""), _goals(results)),
        "All figures. In brackets: as a multiple of the better of both configurations of HAProxy.",
        _figures(results),
    ]
    if results.notes:
        parts.append("\n".join(f"- {what}: {note}" for what, note in results.notes.items()))
    return "\n\n".join(parts) + "\n"


def _goals(results: Results) -> Iterator[Sequence[str]]:
    for kind, goals in (("bar", BAR), ("stretch", STRETCH)):
        for goal in goals:
            if goal.figure not in results.samples:
                continue
            figure = FIGURES[goal.figure]
            reached = goal.reached(results)
            value = _NONE if reached is None else _amount(goal, figure, reached)
            bound = "at least" if figure.more_is_better else "at most"
            limit = f"{bound} {_amount(goal, figure, goal.limit)}"
            yield figure.title, kind, limit, value, _MET[goal.is_met(results)]


def _amount(goal: Goal, figure: Figure, value: float) -> str:
    if goal.against:
        return f"{value:.2f}{_TIMES}{_NAMES[goal.against]}"
    return f"{value:,.{figure.digits}f} {figure.unit}".strip()


def _figures(results: Results) -> str:
    proxies = results.measured()
    rows = []
    for figure in FIGURES.values():
        if figure.key in results.samples:
            unit = f" ({figure.unit})" if figure.unit else ""
            cells = (_cell(results, figure, proxy.key) for proxy in proxies)
            rows.append([f"{figure.title}{unit}", *cells])
    return _table(["", *(proxy.title for proxy in proxies)], rows)


def _cell(results: Results, figure: Figure, proxy: str) -> str:
    value = results.median(figure.key, proxy)
    if value is None:
        return _NONE
    text = f"{value:,.{figure.digits}f}"
    base = results.best(figure.key, "haproxy")
    return f"{text} ({value / base:.2f})" if base and base > 0 else text


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

"""The results as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.bar import BAR, STRETCH
from benchmarks.results import FIGURES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from benchmarks.bar import Goal
    from benchmarks.bench import Figure
    from benchmarks.results import Results, Spread

_TIMES = " \N{MULTIPLICATION SIGN} "
_NONE = "\N{EN DASH}"
_NAMES = {"haproxy": "HAProxy", "nginx": "nginx"}
_MET = {True: "met", False: "**missed**", None: "not measured"}

_MULTIPLES = "Multiples are made within each round. What counts is the median of the rounds; beside it are the least and the most."
_ALL = (
    "All figures: the median; in brackets, as a multiple of the better of both configurations of HAProxy, or of nginx over UDP, with the least and the most "
    "of it."
)


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
        f"{results.rounds} {'round' if results.rounds == 1 else 'rounds'}. {_MULTIPLES}",
        _table(("measure", "kind", "goal", "txmux", "least to most", ""), _goals(results)),
        _ALL,
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
            value = _NONE if reached is None else _amount(goal, figure, reached.middle)
            bound = "at least" if figure.more_is_better else "at most"
            limit = f"{bound} {_amount(goal, figure, goal.limit)}"
            digits = 2 if goal.against else figure.digits
            spread = _NONE if reached is None else _range(reached, digits)
            yield figure.title, kind, limit, value, spread, _MET[goal.is_met(results)]


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
    found = results.spread(figure.key, proxy)
    if found is None:
        return _NONE
    text = f"{found.middle:,.{figure.digits}f}"
    ratio = results.ratio(figure.key, proxy, figure.base)
    if ratio is not None:
        spread = "" if ratio.least == ratio.most else f"; {_range(ratio, 2)}"
        return f"{text} ({ratio.middle:.2f}{spread})"
    return text if found.least == found.most else f"{text} ({_range(found, figure.digits)})"


def _range(found: Spread, digits: int) -> str:
    return f"{found.least:,.{digits}f}{_NONE}{found.most:,.{digits}f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

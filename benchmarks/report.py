"""The results as Markdown."""

from __future__ import annotations

import itertools
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


def markdown(*results: Results) -> str:
    """Write the machine, the goals and all figures as Markdown, without headings.

    Args:
        results: What was measured, on each machine.

    Returns:
        The text.
    """
    parts = [_machines(results)]
    if any(one.quick for one in results):
        parts.append("**A quick run, on a small scale: it shows that all works, and no more.**")
    rounds = " and ".join(dict.fromkeys(str(one.rounds) for one in results))
    parts.append(f"{rounds} {'round' if rounds == '1' else 'rounds'}. {_MULTIPLES}")
    several = len(results) > 1
    outcomes = (
        (f"txmux: {one.name()}" if several else "txmux", "least to most", "") for one in results
    )
    head = ("measure", "kind", "goal", *itertools.chain(*outcomes))
    if goals := [*_goals(results)]:
        parts.append(_table(head, goals))
    parts.append(_ALL)
    for one in results:
        if several:
            parts.append(f"**{one.name()}**")
        parts.append(_figures(one))
        if one.notes:
            parts.append("\n".join(f"- {what}: {note}" for what, note in one.notes.items()))
    return "\n\n".join(parts) + "\n"


def _machines(results: Sequence[Results]) -> str:
    rows = dict.fromkeys(what for one in results for what in one.machine)
    cells = ((what, *(one.machine.get(what, _NONE) for one in results)) for what in rows)
    return _table(("what", "which", *[""] * (len(results) - 1)), cells)


def _goals(results: Sequence[Results]) -> Iterator[Sequence[str]]:
    for kind, goals in (("bar", BAR), ("stretch", STRETCH)):
        for goal in goals:
            if any(goal.figure in one.samples for one in results):
                figure = FIGURES[goal.figure]
                bound = "at least" if figure.more_is_better else "at most"
                limit = f"{bound} {_amount(goal, figure, goal.limit)}"
                outcomes = (_outcome(goal, figure, one) for one in results)
                yield figure.title, kind, limit, *itertools.chain(*outcomes)


def _outcome(goal: Goal, figure: Figure, results: Results) -> Sequence[str]:
    reached = goal.reached(results)
    if reached is None:
        return _NONE, _NONE, _MET[None]
    spread = _range(reached, 2 if goal.against else figure.digits)
    return _amount(goal, figure, reached.middle), spread, _MET[goal.is_met(results)]


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

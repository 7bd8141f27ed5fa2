"""The results as a picture: one small bar chart for each of the figures that matter most, in SVG.

A line across a bar's end goes from the least of all rounds to the most. The picture has a background of its own, light or dark as the reader's system is, so it fits any page.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import attrs

from benchmarks.results import FIGURES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.bench import Figure
    from benchmarks.results import Results, Spread

SHOWN = (
    "bulk.cpu",
    "bulk.rate",
    "small.cpu",
    "connection.cpu",
    "tls.full",
    "tls.bulk",
    "memory.idle",
    "latency.p50",
    "udp.up",
    "udp.question",
)
"""The figures that are drawn, by their keys."""
_FAMILIES = (
    ("HAProxy", "haproxy"),
    ("nginx stream", "nginx"),
    ("Envoy", "envoy"),
    ("sslh-select", "sslh"),
)
_OURS = (("txmux", "txmux"), ("txmux, portable", "txmux-portable"))

_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2933 }
  .back { fill: #ffffff; stroke: #d5dbe1 } .title { font-weight: 600; font-size: 14px }
  .less { fill: #66727f; font-size: 12px } .value { font-variant-numeric: tabular-nums }
  .spread { stroke: #1f2933; stroke-width: 1.5; opacity: 0.65 }
  .peer { fill: #a9b4c0 } .ours { fill: #0f7b6c } .also { fill: #74b8ac }
  @media (prefers-color-scheme: dark) {
    text { fill: #e4e9ee } .back { fill: #161b22; stroke: #30363d } .less { fill: #98a4b1 }
    .spread { stroke: #e4e9ee }
    .peer { fill: #5b6775 } .ours { fill: #2fb8a3 } .also { fill: #1f7568 }
  }
"""
_COLUMNS = 2
_WIDTH, _MARGIN, _GAP = 380, 20, 24
_NAME, _VALUE = 116, 62
"""Room for the names left of the bars, and for the values right of them."""
_HEAD, _ROW, _BAR = 52, 22, 14
_MOST_SPREAD = 1.5
"""How far beyond a bar there is room for its spread; a single bad round is not to make all bars short."""


@attrs.frozen
class _Bar:
    name: str
    kind: str
    found: Spread


def chart(results: Results) -> str:
    """Draw what was measured.

    Args:
        results: What was measured; what was not is left out.

    Returns:
        The text of an SVG file.
    """
    panels = [(FIGURES[key], bars) for key in SHOWN if (bars := list(_bars(results, key)))]
    rows = [panels[at : at + _COLUMNS] for at in range(0, len(panels), _COLUMNS)]
    heights = [_HEAD + _ROW * max(len(bars) for _, bars in row) for row in rows]
    width = _COLUMNS * _WIDTH + (_COLUMNS - 1) * _GAP + 2 * _MARGIN
    total = sum(heights) + max(0, len(rows) - 1) * _GAP + 2 * _MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {total}" role="img">',
        "<title>txmux beside its peers</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="back" x="0.5" y="0.5" width="{width - 1}" height="{total - 1}" rx="8"/>',
    ]
    y = _MARGIN
    for row, height in zip(rows, heights, strict=True):
        for column, (figure, bars) in enumerate(row):
            x = _MARGIN + column * (_WIDTH + _GAP)
            lines += [f'<g transform="translate({x} {y})">', *_panel(figure, bars), "</g>"]
        y += height + _GAP
    return "\n".join([*lines, "</svg>", ""])


def _bars(results: Results, figure: str) -> Iterator[_Bar]:
    shown = [(name, "peer", results.best(figure, family)) for name, family in _FAMILIES]
    shown += [(name, kind, key) for (name, key), kind in zip(_OURS, ("ours", "also"), strict=True)]
    for name, kind, proxy in shown:
        found = results.spread(figure, proxy) if proxy else None
        if found:
            yield _Bar(name, kind, found)


def _panel(figure: Figure, bars: Sequence[_Bar]) -> Iterator[str]:
    better = "more" if figure.more_is_better else "less"
    yield f'<text class="title" y="16">{escape(figure.title)}</text>'
    yield f'<text class="less" y="34">{escape(figure.unit)}, {better} is better</text>'
    longest = max(min(bar.found.most, _MOST_SPREAD * bar.found.middle) for bar in bars)
    scale = (_WIDTH - _NAME - _VALUE) / longest if longest > 0 else 0.0
    for number, bar in enumerate(bars):
        y = _HEAD + number * _ROW
        length = max(1.0, bar.found.middle * scale)
        middle = y + _BAR / 2 + 4.5
        yield f'<text x="{_NAME - 8}" y="{middle}" text-anchor="end">{escape(bar.name)}</text>'
        yield (
            f'<rect class="{bar.kind}" x="{_NAME}" y="{y}" width="{length:.1f}" height="{_BAR}" rx="2"/>'
        )
        first, last = (
            _NAME + min(max(0.0, edge), longest) * scale
            for edge in (bar.found.least, bar.found.most)
        )
        if last - first >= 1:
            across = y + _BAR / 2
            yield f'<path class="spread" d="M{first:.1f} {across}H{last:.1f}"/>'
        value = f"{bar.found.middle:,.{figure.digits}f}"
        end = max(_NAME + length, last) + 6
        yield f'<text class="value" x="{end:.1f}" y="{middle}">{value}</text>'

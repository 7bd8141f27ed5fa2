"""The directive ``diagram``: a graph in Graphviz's language, drawn when the pages are built and put into them as SVG.

Lines and letters take the colour of the text around them, so that a diagram can be read on a light and on a dark page.
"""

from __future__ import annotations

import re
import subprocess
from html import escape
from typing import TYPE_CHECKING, ClassVar

from docutils import nodes
from docutils.parsers.rst import Directive

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_LOOK = (
    "-Gbgcolor=transparent",
    "-Grankdir=LR",
    "-Gnodesep=0.25",
    "-Granksep=0.45",
    "-Gfontname=sans-serif",
    "-Nfontname=sans-serif",
    "-Efontname=sans-serif",
    "-Nfontsize=12",
    "-Efontsize=11",
    "-Nshape=box",
    "-Nstyle=rounded",
    "-Nheight=0.4",
    "-Nmargin=0.16,0.08",
    "-Earrowsize=0.7",
)
_READABLE = 0.75


class Diagram(Directive):
    """A drawing of a graph; its argument is the alternative text."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True
    option_spec: ClassVar = {}

    def run(self) -> list[nodes.Node]:
        """Draw it."""
        try:
            svg = _draw("\n".join(self.content))
        except (OSError, subprocess.CalledProcessError) as error:
            told = getattr(error, "stderr", "") or f"{error}; on Debian: apt install graphviz"
            raise self.error(f"dot, of Graphviz, could not draw this: {told.strip()}") from None
        page = f'<figure style="margin: 1rem 0; overflow-x: auto">{with_text(svg, self.arguments[0])}</figure>'
        return [nodes.raw("", page, format="html")]


def _draw(graph: str) -> str:
    done = subprocess.run(
        ["dot", "-Tsvg", *_LOOK], input=graph, capture_output=True, text=True, check=True
    )
    return done.stdout


def with_text(svg: str, text: str) -> str:
    """Adapt the output of dot to a page.

    Args:
        svg: The output of ``dot -Tsvg``.
        text: The alternative text.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<title>.*?</title>\s*|<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'"(black|#000000)"', '"currentColor"', svg)
    svg = svg.replace("<text ", '<text fill="currentColor" ')
    width = re.search(r'<svg width="(\d+)pt"', svg)
    # Scaled to the page, but never so small that letters cannot be read.
    size = (
        f'style="width: {width[1]}pt; max-width: max(100%, {_READABLE * int(width[1]):.0f}pt); height: auto"'
        if width
        else ""
    )
    label = escape(" ".join(text.split()), quote=True)
    return re.sub(
        r'<svg width="\d+pt" height="\d+pt"',
        f'<svg role="img" aria-label="{label}" {size}',
        svg,
        count=1,
    )


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("diagram", Diagram)
    return {"parallel_read_safe": True}

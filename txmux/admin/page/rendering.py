"""From a view to HTML, by Jinja2."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import jinja2

if TYPE_CHECKING:
    from txmux.admin.page.view import View


@cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("txmux.admin.page", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(view: View) -> str:
    return _templates().get_template("page.html").render(page=view)

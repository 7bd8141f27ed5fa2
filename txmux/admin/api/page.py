"""``/``, the page, which needs the extra ``txmux[admin]``; and what it is made of."""

from __future__ import annotations

from importlib.resources import files

from txmux.admin.extra import needs
from txmux.admin.refused import RefusedError
from txmux.admin.resource import HTML, Answer, Query, Resource

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_TYPES = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "uPlot.min.css": "text/css; charset=utf-8",
    "uPlot.iife.min.js": "text/javascript; charset=utf-8",
}


async def _page(query: Query) -> Answer:
    try:
        from txmux.admin.page.rendering import render  # noqa: PLC0415 - of the extra
    except ImportError:
        raise needs("the page") from None
    from txmux.admin.page.gather import gather  # noqa: PLC0415 - only with the page
    from txmux.admin.page.query import PageQuery  # noqa: PLC0415 - as above
    from txmux.admin.page.suggesting import matcher_of  # noqa: PLC0415 - as above
    from txmux.admin.page.view import View  # noqa: PLC0415 - as above

    wanted = PageQuery.of({name: values[-1] for name, values in query.parameters.items()})
    view = View(await gather(query.control, wanted), wanted, matcher_of)
    return Answer(render(view).encode(), HTML, headers={"Content-Security-Policy": _POLICY})


async def _static(query: Query) -> Answer:
    name = query.names["name"]
    if name not in _TYPES:
        raise RefusedError(404, "the page has no such file")
    folder = files("txmux.admin.page") / "static"
    if name.startswith("uPlot"):
        folder /= "uplot"
    # It changes with an upgrade, and is small: no browser is to keep it for long.
    return Answer((folder / name).read_bytes(), _TYPES[name], headers={"Cache-Control": "no-cache"})


RESOURCES = (
    Resource("GET", "/", _page),
    Resource("GET", "/static/{name}", _static),
)

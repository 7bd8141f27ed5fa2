"""Resources for browsers: the page at ``/``, which needs the extra ``txmux[admin]``, its files, and ``/login``."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from txmux.admin.encoding import digest
from txmux.admin.guard import LedHereError, RefusedError
from txmux.admin.resource import HTML, ApiAnswer, Query, ResourceList, needs
from txmux.net.turns import Turns

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_TYPES = {
    **dict.fromkeys(("page.css", "uPlot.min.css"), "text/css; charset=utf-8"),
    **dict.fromkeys(("login.js", "page.js", "uPlot.iife.min.js"), "text/javascript; charset=utf-8"),
    "icon.svg": "image/svg+xml",
}

_BASIC = "/enter"
"""Asks a browser for the token by HTTP Basic, which the script of the form answers; what is at the root lets all paths have it (RFC 7617, 2.2)."""

_LOGIN_POLICY = _POLICY.replace("form-action 'self'", "form-action 'none'")
_STATIC = Path(__file__).parent / "static"
# The field of the form has no name, so that no browser without JavaScript puts the token into an address. The empty address of the third
# is that of this page, with its filters; who follows it comes from here.
_FORM, _ENTERED, _LED_HERE = (
    (_STATIC / f"{name}.html").read_bytes() for name in ("login", "entered", "led-here")
)

RESOURCES = ResourceList()


def _login_form(status: int) -> ApiAnswer:
    # The browser keeps the token, and sends it with each request to this host and port.
    return ApiAnswer(_FORM, HTML, status, {"Content-Security-Policy": _LOGIN_POLICY})


def _refusal(
    refused: RefusedError, method: str, path: str, headers: Mapping[str, str]
) -> ApiAnswer | None:
    is_read = "text/html" in headers.get("accept", "")
    if refused.status == 401:
        if path == _BASIC:
            refused.headers["WWW-Authenticate"] = 'Basic realm="txmux", charset="UTF-8"'
        elif (method, path) == ("GET", "/") and is_read:
            return _login_form(401)
    if isinstance(refused, LedHereError) and is_read:  # whether to go on is not that page's to say
        return ApiAnswer(_LED_HERE, HTML, 403, {"Content-Security-Policy": _LOGIN_POLICY})
    return None


@RESOURCES.get("/", refusal=_refusal)
async def _page(query: Query) -> ApiAnswer:
    try:
        from txmux.features.page.view import View, render, render_parts  # noqa: PLC0415 - of the extra
    except ImportError:
        raise needs("the page") from None
    from txmux.features.page.gather import gather  # noqa: PLC0415 - only with the page
    from txmux.features.page.query import PageQuery  # noqa: PLC0415 - as above

    page_query = PageQuery.of({name: values[-1] for name, values in query.parameters.items()})
    have = query.parameters.get("have")
    turns = Turns()
    snapshot = await gather(query.control, page_query, is_update=have is not None)
    view = View(snapshot, page_query)
    if have is not None:
        return await _update(render_parts(view), have[-1].split(), turns)
    page = await _joined(render(view), turns)
    return ApiAnswer(page.encode(), HTML, headers={"Content-Security-Policy": _POLICY})


async def _update(
    parts: Iterable[tuple[str, Iterable[str]]], have: Collection[str], turns: Turns
) -> ApiAnswer:
    """Return the parts that the page does not have yet, each with the tag that it then sends in ``have``."""
    changed = {}
    for name, pieces in parts:
        part = await _joined(pieces, turns)
        tag = f"{name}.{await digest(part.encode(), turns)}"
        if tag not in have:
            changed[name] = {"tag": tag, "html": part}
    return ApiAnswer.json(changed)


async def _joined(pieces: Iterable[str], turns: Turns) -> str:
    return "".join(await turns.collect(pieces))


# They hold no data of the service, and the login page needs them.
@RESOURCES.get("/static/{name}", is_open=True)
async def _static(query: Query) -> ApiAnswer:
    name = query.names["name"]
    if name not in _TYPES:
        raise RefusedError(404, "the page has no such file")
    folder = _STATIC / "uplot" if name.startswith("uPlot") else _STATIC
    # An upgrade may change it, so browsers have to revalidate it.
    return ApiAnswer(
        (folder / name).read_bytes(), _TYPES[name], headers={"Cache-Control": "no-cache"}
    )


@RESOURCES.get("/login", is_open=True)
async def _ask(_: Query) -> ApiAnswer:
    return _login_form(200)


@RESOURCES.get(_BASIC)
async def _entered(_: Query) -> ApiAnswer:
    return ApiAnswer(_ENTERED, HTML)

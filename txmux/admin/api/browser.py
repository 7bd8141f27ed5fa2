"""Resources for browsers: the page at ``/``, which needs the extra ``txmux[admin]``, its files, and ``/login``."""

from collections.abc import Collection, Iterable
from html import escape
from pathlib import Path

from txmux.admin.encoding import digest
from txmux.admin.guard import RefusedError
from txmux.admin.resource import HTML, ApiAnswer, Query, Resources, needs
from txmux.net.turns import Turns

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

_LOGIN_POLICY = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
_LOGIN_HEADERS = {
    "Content-Security-Policy": _LOGIN_POLICY,
    # Without it, browsers send the form with 'Origin: null', as a page from elsewhere.
    "Referrer-Policy": "same-origin",
}
_FORM = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>txmux: log in</title>
<link rel="icon" href="static/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="static/page.css">
</head>
<body>
<main class="login">
<section>
<h1>txmux</h1>
WRONG<form method="post" action="/login">
<p><label for="token">Token, from the file that <code>admin_token</code> names</label></p>
<p><input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<button>Log in</button></p>
</form>
</section>
</main>
</body>
</html>
"""

RESOURCES = Resources()


@RESOURCES.get("/")
async def _page(query: Query) -> ApiAnswer:
    try:
        from txmux.admin.page.view import View, render, render_parts  # noqa: PLC0415 - of the extra
    except ImportError:
        raise needs("the page") from None
    from txmux.admin.page.gather import gather  # noqa: PLC0415 - only with the page
    from txmux.admin.page.query import PageQuery  # noqa: PLC0415 - as above

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
    folder = Path(__file__).parents[1] / "page" / "static"
    if name.startswith("uPlot"):
        folder /= "uplot"
    # An upgrade may change it, so browsers have to revalidate it.
    return ApiAnswer(
        (folder / name).read_bytes(), _TYPES[name], headers={"Cache-Control": "no-cache"}
    )


def login_form(status: int, wrong: str = "") -> ApiAnswer:
    """Ask for the token, for which the browser then gets a cookie."""
    alert = f'<p role="alert">{escape(wrong)}</p>\n' if wrong else ""
    return ApiAnswer(_FORM.replace("WRONG", alert).encode(), HTML, status, _LOGIN_HEADERS)


@RESOURCES.get("/login", is_open=True)
async def _ask(_: Query) -> ApiAnswer:
    return login_form(200)


@RESOURCES.post("/login", is_open=True, is_form=True)
async def _log_in(query: Query) -> ApiAnswer:
    headers = {"Location": "/"}
    if not query.caller.is_by_unix:
        token = str(query.body.get("token", ""))
        headers["Set-Cookie"] = query.guard.log_in(token, query.caller)
    return ApiAnswer(b"", HTML, 303, headers)

"""``/login``: a browser that comes by TCP is asked for the token, and gets a cookie for it."""

from __future__ import annotations

from html import escape

from txmux.admin.resource import HTML, Answer, Query, Resource

_POLICY = "default-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

_HEADERS = {
    "Content-Security-Policy": _POLICY,
    # Without it, browsers send the form with 'Origin: null', as a page from elsewhere.
    "Referrer-Policy": "same-origin",
}

_FORM = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>txmux</title>
<main>
<h1>txmux</h1>
WRONG<form method="post" action="/login">
<p><label for="token">Token, from the file that <code>admin_token</code> names:</label></p>
<p><input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<button>Log in</button></p>
</form>
</main>
</html>
"""


def form(status: int, wrong: str = "") -> Answer:
    """Ask for the token.

    Args:
        status: That of HTTP.
        wrong: What was wrong with the one before.
    """
    told = f'<p role="alert">{escape(wrong)}</p>\n' if wrong else ""
    return Answer(_FORM.replace("WRONG", told).encode(), HTML, status, _HEADERS)


async def _ask(_: Query) -> Answer:
    return form(200)


async def _log_in(query: Query) -> Answer:
    headers = {"Location": "/"}
    if not query.caller.is_by_unix:
        token = str(query.body.get("token", ""))
        headers["Set-Cookie"] = query.guard.log_in(token, query.caller)
    return Answer(b"", HTML, 303, headers)


RESOURCES = (
    Resource("GET", "/login", _ask, is_open=True),
    Resource("POST", "/login", _log_in, is_open=True, is_form=True),
)

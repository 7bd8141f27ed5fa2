"""A demo backend: one web page that says what has happened."""

from __future__ import annotations

from html import escape
from string import Template
from typing import TYPE_CHECKING

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from txmux.demo.hints import examples

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime
    from twisted.web import http

__all__ = ["PageSite"]

_BODY_LIMIT = 64 * 1024

_TEXT = Template("""\
Your connection was recognised as HTTP.

txmux read its first bytes, saw $request, and handed it,
those bytes included, to this page. The same port, $port, also answers:

$examples
""")

_HTML = Template("""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>txmux demo</title>
<style>
:root { color-scheme: light dark; --line: #8884; --accent: #0a7f5a; }
@media (prefers-color-scheme: dark) { :root { --accent: #4fd1a5; } }
body { font: 17px/1.6 system-ui, sans-serif; max-width: 46rem; margin: 12vh auto; padding: 0 1.5rem; }
h1 { font-size: 1.9rem; line-height: 1.2; }
b, h1 em { color: var(--accent); font-style: normal; }
code { font: .86em ui-monospace, monospace; }
dl { border: 1px solid var(--line); border-radius: .7rem; padding: .4rem 1.2rem; }
dt { padding-top: .6rem; }
dd { margin: 0; padding-bottom: .6rem; opacity: .75; }
dd + dt { border-top: 1px solid var(--line); }
</style>
<h1>Your connection was recognised as <em>HTTP</em>.</h1>
<p>txmux read its first bytes, saw $request, and handed it, those bytes included, to this page.
The same port, <b>$port</b>, also answers:</p>
<dl>
$examples
</dl>
</html>
""")


class _Page(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        wants_html = b"text/html" in (request.getHeader(b"accept") or b"")
        request.setHeader(
            b"content-type", b"text/%b; charset=utf-8" % (b"html" if wants_html else b"plain")
        )
        request.setHeader(b"vary", b"accept")
        request.setHeader(b"cache-control", b"no-store")
        host = request.getHost()
        port = host.port if isinstance(host, IPv4Address | IPv6Address) else 0
        seen_request = f"the {request.method.decode()} of {request.clientproto.decode()}"
        if wants_html:
            rows = (f"<dt><code>{escape(c)}</code><dd>{escape(seen)}" for c, seen in examples(port))
            return _HTML.substitute(
                request=seen_request, port=port, examples="\n".join(rows)
            ).encode()
        rows = (f"  {command}\n      {seen}" for command, seen in examples(port))
        return _TEXT.substitute(request=seen_request, port=port, examples="\n".join(rows)).encode()


class _Request(Request):
    def handleContentChunk(self, data: bytes) -> None:
        # Twisted would keep a body of any size in a temporary file; the page wants none at all.
        if self.content is not None and self.content.tell() + len(data) > _BODY_LIMIT:
            self.channel.forceAbortClient()
        else:
            super().handleContentChunk(data)


class PageSite(Site):
    """A web site of one page: HTML for browsers, plain text for everyone else.

    Args:
        reactor: Its clock ends connections that are idle for a minute; the process's own if not given.
    """

    noisy = False
    displayTracebacks = False

    def __init__(self, reactor: IReactorTime | None = None) -> None:
        super().__init__(_Page(), requestFactory=_Request, reactor=reactor)

    def log(self, request: http.Request) -> None:
        """Log nothing here: the access log of txmux has a line for each connection."""

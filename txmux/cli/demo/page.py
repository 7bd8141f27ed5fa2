"""The demo's web page, which says what has happened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.web.resource import Resource
from twisted.web.server import Site

from txmux.cli.demo.hints import examples

if TYPE_CHECKING:
    from twisted.web.http import Request


class _Page(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        host: Any = request.getHost()
        rows = "\n".join(f"  {command}\n      {seen}" for command, seen in examples(host.port))
        return (
            "Your connection was recognised as HTTP.\n\n"
            f"txmux read its first bytes, saw the {request.method.decode()} of {request.clientproto.decode()}, and handed it,\n"
            f"those bytes included, to this page. The same port, {host.port}, also answers:\n\n{rows}\n"
        ).encode()


class PageSite(Site):
    """A web site of one page."""

    noisy = False
    displayTracebacks = False

    def __init__(self) -> None:
        super().__init__(_Page())

    def log(self, request: Request) -> None:
        """Log nothing here: the access log of txmux has a line for each connection."""

"""A web site of Twisted whose clients' sockets txmux hands over: it tells each its address.

``python twisted_server.py /run/handover/web.sock``
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import react
from twisted.web.resource import Resource
from twisted.web.server import Site

if TYPE_CHECKING:
    from twisted.web.server import Request

    from txmux.adopt import HandedOver


class Page(Resource):
    """Greets every client."""

    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        """Give the page."""
        transport: Any = request.transport
        told: HandedOver = transport.handed_over
        client = request.getClientAddress()
        host = told.facts["host"]
        return (
            f"Hello by Twisted, {client.host} port {client.port}, who asked for {host}.\n".encode()
        )


async def main(reactor: Any, path: str) -> None:
    """Serve until interrupted."""
    # Any server of Twisted's that takes an endpoint string can be told this one: twist web --listen=txmux:/run/handover/web.sock
    await serverFromString(reactor, f"txmux:{path}").listen(Site(Page()))
    print(f"clients are taken at {path}", flush=True)
    await Deferred()


if __name__ == "__main__":
    react(lambda reactor: Deferred.fromCoroutine(main(reactor, sys.argv[1])))

"""A TCP proxy in a few lines: each client gets the next of several servers; client or server may speak first.

Run it with ``python tcp-proxy.py tcp:3306 10.0.0.1:3306 10.0.0.2:3306``.
"""

from __future__ import annotations

import sys
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import react

from txmux import Listener, MuxFactory, outcome


async def main(reactor: Any, endpoint: str, *servers: str) -> None:
    """Serve until interrupted."""
    backends = [outcome(server) for server in servers]
    together = tuple(server for backend in backends for server in backend.servers)
    pool = attrs.evolve(backends[0], name="pool", servers=together, balance="round-robin")
    mux = MuxFactory([], Listener("proxy", default=pool))
    await serverFromString(reactor, endpoint).listen(mux)
    print(f"{endpoint} leads to {' and '.join(servers)}", flush=True)
    await Deferred()


if __name__ == "__main__":
    react(lambda reactor: Deferred.fromCoroutine(main(reactor, *sys.argv[1:])))

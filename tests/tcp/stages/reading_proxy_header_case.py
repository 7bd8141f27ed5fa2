"""A test case whose clients begin with a PROXY protocol header."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from tests.support.mux import MuxTestCase, backend_at
from txmux.rules.embedding import route
from txmux.rules.model import NetworkSet

if TYPE_CHECKING:
    from collections.abc import Iterable

SENDERS = NetworkSet([ip_network("127.0.0.1")])
LINE = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"


class IntroducedTestCase(MuxTestCase):
    """Every client of the multiplexer has to begin with a header."""

    def introduced_mux(self, routes: Iterable[Any] | None = None, **settings: Any) -> int:
        """Listen with a multiplexer that leads SSH to the test's backend, unless it is told otherwise."""
        if routes is None:
            routes = [route("ssh", backend_at(self.backend_port()), name="ssh")]
        return self.mux(routes, accept_proxy_from=SENDERS, **settings)

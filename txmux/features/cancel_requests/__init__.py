"""Cancel requests of PostgreSQL: each comes on a connection of its own and names no server, so all that may have the query get it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any

from txmux.detection.explain import excluded_by
from txmux.rules.feature import Feature, FeatureStage
from txmux.rules.model import Backend, Route
from txmux.rules.model.backend import backends_of
from txmux.rules.optional import named

MOST_SERVERS = 100
"""How many servers get a request."""


def destinations(
    routes: Iterable[Any], default: Any, of: Callable[[Any], Any], inside: Any, *client: Any
) -> Iterator[Any]:
    """Yield where these routes, or the default, may have led the session of a client.

    Args:
        routes: Those by which it may have come.
        default: For all others; ``None`` is none.
        of: Returns the destination of a route.
        inside: Returns the routes inside the TLS of a route, and the default there.
        client: Its address, the time and its certificate, as `excluded_by` takes them.
    """
    for route in routes:
        if not route.dry_run and excluded_by(route, *client) is None:
            tls = route.terminate_tls
            if tls is None:
                yield of(route)
            elif tls.client_ca is None or tls.client == "optional":  # it has shown no certificate
                yield from destinations(*inside(route), of, inside, *client)
    yield default


def _seen(
    routes: Sequence[Route], default: Any, data: bytes, inside: Any, *client: Any
) -> Backend | None:
    """Return all servers, as those of one backend; ``None`` if the request goes where its route leads."""
    from txmux.wire.postgres_startup import is_cancel_request  # noqa: PLC0415 - few need it

    if not is_cancel_request(data):
        return None
    backends = backends_of(destinations(routes, default, attrgetter("outcome"), inside, *client))
    every = [server for backend in backends for server in backend.servers if not server.placeholder]
    servers = {server.text: server for server in every}
    usual = default or routes[-1].outcome
    if not servers or (len(servers) == 1 and backends == [usual]):
        return None
    name = ", ".join(backend.name for backend in backends)
    return Backend(name, (*servers.values(),)[:MOST_SERVERS])


# fmt: off
FEATURE = Feature(
    "cancel_requests",
    stages=(FeatureStage("cancelling", "match", "txmux.features.cancel_requests.stage:CancelMaker", then=("routing",), waits_for="the servers that its [cancel request](matchers.md#postgres) goes to", seen=_seen),),
    rows=lambda: named("txmux.features.cancel_requests.rows:ROWS"),
)
# fmt: on

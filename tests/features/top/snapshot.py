"""What `top` shows, of the documents of a service."""

from tests.cli.remote.documents import BACKENDS, CONNECTIONS, NOW, RECENT, ROUTES, STATUS
from txmux.features.top.state import Snapshot

SNAPSHOT = Snapshot(
    at=NOW,
    status=STATUS,
    routes=ROUTES,
    backends=BACKENDS,
    connections=CONNECTIONS,
    recent=RECENT,
    history=[STATUS["rates"]],
)

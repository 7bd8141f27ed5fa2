from typing import Any

from tests.support.everything import BACKENDS, DOCUMENTS, NOW, SERVERS, STATUS
from txmux.features.top.state import Snapshot

CONNECTIONS: list[dict[str, Any]] = [
    {**one, "id": f"5f3a-{number}", "age_ms": age}
    for number, (one, age) in enumerate(
        zip(DOCUMENTS["connections"], (3_723_004.5, 9.0, 60_000.0), strict=True), 1
    )
]
CONNECTION = CONNECTIONS[0]
RECENT: list[dict[str, Any]] = DOCUMENTS["recent"]
ROUTES: list[dict[str, Any]] = DOCUMENTS["routes"]
SERVER: dict[str, Any] = {**SERVERS[0], "check": None, "checked": False}
"""One that nothing checks."""
SNAPSHOT = Snapshot(
    at=NOW,
    status=STATUS,
    routes=ROUTES,
    backends=BACKENDS,
    connections=CONNECTIONS,
    recent=RECENT,
    history=[STATUS["rates"]],
)

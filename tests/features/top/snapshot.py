from typing import Any

from tests.support.everything import BACKENDS, DOCUMENTS, NOW, SERVERS, STATUS
from txmux.features.top.state import Snapshot

_AGES = ("5f3a-1", 3_723_004.5), ("5f3a-2", 9.0), ("5f3a-3", 60_000.0)
CONNECTIONS: list[dict[str, Any]] = [
    {**one, "id": identity, "age_ms": age}
    for one, (identity, age) in zip(DOCUMENTS["connections"], _AGES, strict=True)
]
CONNECTION = CONNECTIONS[0]
RECENT: list[dict[str, Any]] = DOCUMENTS["recent"]
ROUTES: list[dict[str, Any]] = DOCUMENTS["routes"]
SERVER: dict[str, Any] = {**SERVERS[0], "check": None, "checked": False}
"""One that nothing checks."""
_LISTS: Any = {"connections": CONNECTIONS, "recent": RECENT, "history": [STATUS["rates"]]}
SNAPSHOT = Snapshot(at=NOW, status=STATUS, routes=ROUTES, backends=BACKENDS, **_LISTS)

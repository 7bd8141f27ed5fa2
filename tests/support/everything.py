"""The documents of a service with some of everything, as a real one has given them; see `tests/admin/everything.py`."""

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_suffix(".json")
DOCUMENTS: dict[str, Any] = json.loads(FILE.read_text())

NOW = DOCUMENTS["status"]["started"] + 3723.0
STATUS: dict[str, Any] = DOCUMENTS["status"]
CONNECTIONS: list[dict[str, Any]] = DOCUMENTS["connections"]
BACKENDS: list[dict[str, Any]] = DOCUMENTS["backends"]
SERVERS: list[dict[str, Any]] = BACKENDS[0]["servers"]
"""Of which the second is down."""


def names() -> set[str]:
    """Return what each view names."""
    return {
        *(one["name"] for kind in ("routes", "backends") for one in DOCUMENTS[kind]),
        *(one["server"] for one in SERVERS),
        *(one["client"] for kind in ("connections", "recent") for one in DOCUMENTS[kind]),
    }

"""Documents of a service, as the commands read them."""

from typing import Any

NOW = 1_795_208_468.0
STATUS: dict[str, Any] = {
    "version": "1.0", "pid": 4711, "started": NOW - 3723, "generation": 3, "workers": [],
    "connections": {"active": 3, "undecided": 1, "total": 4711, "limit": 100},
    "rates": {"connections": 12.3, "bytes_in": 1234.0, "bytes_out": 5_678_901.0},
    "last_reload": None, "draining": False, "rules_path": "/etc/txmux/rules.ini",
}  # fmt: skip
CONNECTION: dict[str, Any] = {
    "id": "5f3a-1", "listener": "public", "client": "192.0.2.1:50001", "local": "198.51.100.1:443",
    "route": "site", "backend": "web", "server": "10.0.0.5:8443", "state": "relaying",
    "age_ms": 3_723_004.5, "idle_ms": 12.0, "bytes_in": 1234, "bytes_out": 5_678_901,
    "generation": 2, "worker": 1, "facts": {"sni": "www.example.com"},
}  # fmt: skip
CONNECTIONS = [
    CONNECTION,
    {
        **CONNECTION,
        "id": "5f3a-2",
        "route": None,
        "server": None,
        "state": "peeking",
        "age_ms": 9.0,
    },
    {**CONNECTION, "id": "5f3a-3", "client": "192.0.2.3:50003", "age_ms": 60_000.0, "bytes_in": 0},
]
ROUTES: list[dict[str, Any]] = [
    {
        "name": name, "backend": "web", "matches": matches, "dry_run_matches": 0, "active": 2,
        "bytes_in": 1234, "bytes_out": 0, "last_match": last,
    }
    for name, matches, last in (("site", 12, NOW - 60), ("unused", 0, None))
]  # fmt: skip
SERVER: dict[str, Any] = {
    "server": "10.0.0.5:8443", "state": "up", "why": "", "since": None, "weight": 1, "active": 2,
    "total": 12, "failed": 0, "check": None,
}  # fmt: skip
CHECK = {"ok": False, "last": NOW - 2, "duration_ms": 1.0, "result": "refused"}
BACKENDS: list[dict[str, Any]] = [
    {
        "name": "web",
        "servers": [
            SERVER,
            {**SERVER, "server": "unix:/run/a.sock", "state": "down", "check": CHECK},
        ],
    }
]
RECENT: list[dict[str, Any]] = [
    {
        **CONNECTION,
        "id": "5f3a-0",
        "ended": NOW - 5,
        "reason": "no-route",
        "duration_ms": 5000.0,
        "first": "00",
    }
]

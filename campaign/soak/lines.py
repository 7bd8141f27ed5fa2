"""What a service may write into its logs, each line with its cause."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping

_HEAD = re.compile(
    r"^\d{4}-\d\d-\d\dT\S+ \[[^]]*\] (?:workers?(?: \d)?: )?(.*?)(?: \(repeated \d+ times? within a minute\))?$"
)
"""A line of the log, as ``--log-format=text`` has it."""

_CAUSES = {
    "it starts": r"txmux \S+, process \d+, rules \S+",
    "its reactor starts": r"Starting reactor\.\.\.",
    "it listens": r"(no longer )?listening on \S+ for (\[listen (public|quic)\]|admin\S*|\[txmux\].*)",
    "its workers serve": r"serving with 2 workers",
    "it has no socket that commands find": r"commands such as 'txmux status' need --rules .*",
    "a reload": r"rules reloaded: .*",
    "an upgrade": r"upgraded: .*",
    "a reload, for certificates": r"\[route ended\] terminate_tls: certificates reloaded",
    "an upgrade that takes too long": r"upgrade failed, the old process keeps serving: .* was not ready within 60 s.*",
    "a process that was too late": r"the supervisor process has ended; worker \d accepts no more clients, and .*",
    "connections that cannot move": r"draining connections: \d+, for up to 120 s; a second signal closes them at once",
    "a stop": r"stopping.*|stopped|Main loop terminated\.|Received SIGTERM, shutting down\.",
    "the admin endpoint moves, or stops": r"\(UNIX Port \S+/admin\.sock Closed\)",
    "a route on trial": r"\[route new\d+\] would have taken \d+ connections? of \[listen public\]",
}


def causes_of(text: str) -> tuple[Counter[str], list[str]]:
    """Count the lines of the service's log by their causes, and give those that have none."""
    counted: Counter[str] = Counter()
    unknown = []
    for line in text.splitlines():
        head = _HEAD.match(line)
        said = head[1] if head else line
        for cause, pattern in _CAUSES.items():
            if head and re.fullmatch(pattern, said):
                counted[cause] += 1
                break
        else:
            unknown.append(line)
    return counted, unknown


REASONS = {
    "ssh": {"done"},
    "https": {"done"},
    "inside": {"done"},
    "redis": {"done"},
    "postgres": {"done"},
    "h3": {"idle-timeout"},
}
"""How connections end, by their routes."""


def strange(lines: Iterable[str], made: Mapping[str, int]) -> tuple[Counter[str], list[str]]:
    """Compare the access log with what clients have done.

    Args:
        lines: Of the access log.
        made: The connections and flows of clients, by the route that ought to have taken them.

    Returns:
        Lines by route and reason, and what is wrong.
    """
    counted: Counter[str] = Counter()
    routes: Counter[str] = Counter()
    wrong = []
    ids = set()
    for line in lines:
        record = json.loads(line)
        route, reason = record["route"], record["reason"]
        counted[f"{route} {reason}"] += 1
        routes[route] += 1
        ids.add(record["id"])
        if reason not in REASONS.get(route, ()):
            wrong.append(f"no cause for this line of the access log: {line}")
    if len(ids) != routes.total():
        wrong.append(f"{routes.total()} lines of the access log have {len(ids)} IDs")
    wrong += [
        f"{made.get(route, 0)} clients of {route} have {routes[route]} lines of the access log"
        for route in sorted({*made, *routes}, key=str)
        if made.get(route, 0) != routes[route]
    ]
    return counted, wrong

"""`txmux reload --try` and `txmux check --against`: which of the last clients other rules would lead elsewhere."""

from __future__ import annotations

import json
import zlib
from argparse import Namespace
from base64 import b64encode
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from txmux.cli._output import Output
from txmux.cli.remote import command
from txmux.cli.remote.errors import UsageError

if TYPE_CHECKING:  # other commands do without it
    from txmux.rules.model import Files

INCOMPLETE, MOVED = 1, 4
"""Exit codes if not all is known, and if a client would go elsewhere."""

_RUNNING = "running"
_LARGEST = 47 << 10  # bytes: as base64, a body of 64 KiB holds them


def try_rules(ask: command.Ask, files: Files | None = None) -> Any:
    """Ask a service where its last clients would go by other rules; without `files`, by those that a reload would read."""
    if files is None:
        return ask("POST", "/api/reload/try")
    packed = zlib.compress(json.dumps(files.as_json()).encode(), 9)
    if len(packed) > _LARGEST:
        message = "these rules are too large to be sent to the service: write them to its own files, and use 'txmux reload --try'"
        raise UsageError(message)
    return ask("POST", "/api/reload/try", {"files": b64encode(packed).decode()})


def service(named: str) -> Namespace:
    """Return what selects a service: `_RUNNING`, or an endpoint of its."""
    admin = None if named == _RUNNING else named
    return Namespace(admin=admin, rules=None, token_file=None, timeout=120.0, json=False)


def write_trial(answer: Mapping[str, Any]) -> None:
    output = Output()
    since = answer["since"]
    output.line(f"{answer['changes']}{'' if since is None else f', since {_at(since)}'}")
    for why in answer["incomplete"]:
        output.line(f"the answer is not complete: {why}")
    for unit in answer.get("untaken", ()):  # an older service does not say it
        output.line(f"{unit['unit']} would not be taken: {unit['errors'][0]}")
    if moves := answer["moves"]:
        output.line()
        rows = [
            (str(row["count"]), row["listener"], row["now"], _then(row), _example(row))
            for row in moves
        ]
        head = ("clients", "listener", "now", "then", "example")
        output.table([(row, "") for row in rows], head, numbers=[0])
    if unknown := answer["unknowns"]:
        output.line()
        rest = [(str(row["count"]), row["listener"], row["why"]) for row in unknown]
        output.table([(row, "") for row in rest], ("clients", "listener", "not known"), numbers=[0])


def _then(row: Mapping[str, Any]) -> str:
    key = row.get("excluded_by")  # an older service does not say it
    return f"{row['then']} (shut out by '{key}')" if key else str(row["then"])


def _example(row: Mapping[str, Any]) -> str:
    name = f" for {row['name']}" if row["name"] else ""
    return f"{row['client']}{name} at {_at(row['time'])}"


def _at(time: float) -> str:
    return datetime.fromtimestamp(time).astimezone().isoformat(" ", "seconds")


def trial_code(answer: Mapping[str, Any]) -> int:
    is_complete = answer["clients"] and not answer["incomplete"]
    return MOVED if answer["moves"] else 0 if is_complete else INCOMPLETE

"""What there is one of, in words: the service, its numbers, and what needs a person. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.errors import printable
from txmux.telemetry.present import connection_counts, duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from txmux.cli.top.state import Snapshot

__all__ = ["attention_of", "counts_of", "title_of"]


def title_of(snapshot: Snapshot) -> str:
    """Name the service."""
    status = snapshot.status
    if not status:
        return "txmux"
    parts = [f"txmux {status.get('version', '?')}", f"process {status.get('pid', '?')}"]
    since = (
        f" for {duration(int(snapshot.at - status['started']))}" if status.get("started") else ""
    )
    parts.append(f"{'stops' if status.get('draining') else 'serves'}{since}")
    workers = len(status.get("workers", ()))
    if workers:
        parts.append(f"{workers} worker{'' if workers == 1 else 's'}")
    parts.append(f"{status.get('rules_path', '?')}, generation {status.get('generation', '?')}")
    return printable(" · ".join(parts))


def counts_of(snapshot: Snapshot) -> str:
    """Return how many connections there are."""
    return f"connections: {connection_counts(snapshot.status) or '-'}"


def attention_of(snapshot: Snapshot) -> Iterator[str]:
    """Yield what needs a person."""
    if snapshot.problem:
        yield printable(snapshot.problem)
    yield from map(printable, snapshot.status.get("attention", ()))
    for warning in snapshot.warnings:
        yield printable(f"the answer is not complete: {warning}")

"""What there is one of, in words: the service, its numbers, and what needs a person. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.cli.remote.amounts import duration
from txmux.errors import printable

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
    since = f" for {duration(snapshot.at - status['started'])}" if status.get("started") else ""
    parts.append(f"{'stops' if status.get('draining') else 'serves'}{since}")
    workers = len(status.get("workers", ()))
    if workers:
        parts.append(f"{workers} worker{'' if workers == 1 else 's'}")
    parts.append(f"{status.get('rules_path', '?')}, generation {status.get('generation', '?')}")
    return printable(" · ".join(parts))


def counts_of(snapshot: Snapshot) -> str:
    """Return how many connections there are."""
    counts = snapshot.status.get("connections", {})
    words = {"active": "{} active", "undecided": "{} undecided", "total": "{} so far"}
    told = [text.format(counts[name]) for name, text in words.items() if name in counts]
    if counts.get("limit"):
        told.append(f"at most {counts['limit']}")
    return f"connections: {', '.join(told) or '-'}"


def attention_of(snapshot: Snapshot) -> Iterator[str]:
    """Yield what needs a person."""
    if snapshot.problem:
        yield printable(snapshot.problem)
    reload = snapshot.status.get("last_reload")
    if reload and not reload["ok"]:
        yield printable(f"the last reload FAILED: {'; '.join(reload['errors'])}")
    yield from map(printable, snapshot.status.get("attention", ()))
    for backend in snapshot.backends:
        states = {server["state"] for server in backend["servers"]}
        if states and states.isdisjoint({"up", "probing"}):
            yield printable(f"backend {backend['name']}: no server is up")
    for warning in snapshot.warnings:
        yield printable(f"the answer is not complete: {warning}")

"""Whether there is room for a second service beside this one, as long as an upgrade takes."""

from collections.abc import Callable

from txmux.net.sockets.descriptors import DESCRIPTORS
from txmux.processes.memory import free_memory, megabytes, own_memory
from txmux.telemetry.formatting import plural

_PRIVATE = 0.4
"""The part of a supervisor's memory that its starter and each of its workers have for themselves, beside what they share with it."""
_DESCRIPTORS = 16
"""Descriptors for the new process itself: its channel, its output, what it lends, and for requests meanwhile."""


def lacking_room(workers: int, free: Callable[[], tuple[int, str] | None] = free_memory) -> str:
    """Return why no upgrade can be made now, and what to do; nothing if there is room for one.

    Both services are there for a while. If memory ended then, the kernel would kill processes with clients.

    Args:
        workers: How many the new process will start.
        free: Returns what is left.
    """
    found, needed = free(), _needed(workers)
    if found is None or found[0] >= needed:
        return ""
    return (
        f"there is no room for a new process beside this one: it needs some {megabytes(needed)}, {megabytes(found[0])} are free, and {found[1]}; "
        "allow more memory (MemoryMax= in a systemd unit, or the limit of the container), or restart txmux"
    )


def lacking_descriptors(
    workers: int, count_and_limit: Callable[[], tuple[int, int]] = DESCRIPTORS.count_and_limit
) -> str:
    """Return why no upgrade can be made now, and what to do; nothing if this process may open enough descriptors.

    Args:
        workers: How many the new process will start; each has a channel from one of the old ones at a time.
        count_and_limit: Returns how many descriptors are open, and how many may be.
    """
    (count, limit), needed = count_and_limit(), _DESCRIPTORS + 2 * workers
    if limit - count >= needed:
        return ""
    return (
        f"an upgrade needs {plural(needed, 'more descriptor')} in this process, which has {count} open and may have {limit}; "
        "raise the limit (LimitNOFILE=, ulimit -n), or restart txmux"
    )


def _needed(workers: int) -> int:
    return round(own_memory() * (1 + _PRIVATE * (1 + workers)))

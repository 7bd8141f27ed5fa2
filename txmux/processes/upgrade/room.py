"""Whether there is memory for a second service beside this one, as long as an upgrade takes."""

from collections.abc import Callable

from txmux.processes.memory import free_memory, megabytes, own_memory

_PRIVATE = 0.4
"""The part of a supervisor's memory that its starter and each of its workers have for themselves, beside what they share with it."""


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


def _needed(workers: int) -> int:
    return round(own_memory() * (1 + _PRIVATE * (1 + workers)))

"""Whether a container ends with this process."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

_INITS = {"catatonit", "docker-init", "dumb-init", "podman-init", "tini", "tini-static"}
"""First processes that end when the one that they have started does."""


def holds_container() -> bool:
    """Return whether all other processes end when this one does, as its process namespace does.

    So it is for the first process there (pid_namespaces(7)), and for the one that a small init is there for.
    """
    if os.getpid() == 1:
        return True
    return os.getppid() == 1 and _name_of_first() in _INITS


@cache
def _name_of_first() -> str:
    try:
        return Path("/proc/1/comm").read_text().strip()
    except OSError:
        return ""

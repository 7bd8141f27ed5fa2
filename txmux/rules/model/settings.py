"""What holds for the whole service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import attrs

from txmux.rules.model.section import NOWHERE

if TYPE_CHECKING:
    from pathlib import Path

    from txmux.rules.model.section import Section

__all__ = ["Settings"]


@attrs.frozen
class Settings:
    """The ``[txmux]`` section.

    Attributes:
        relay: Which relay carries the bytes once a connection is established.
        workers: Processes that share the listening ports.
        max_connections: For the whole service; 0 is no limit.
        drain_timeout: Seconds that old connections may go on when the service stops.
        drain_removed: Whether that holds, too, for connections of what a reload has removed.
        access_log: ``None`` is off, ``"-"`` the service's own log, else a file.
        access_log_format: How an access log line is written.
        resolvers: The name servers of backends that name none; these have them already.
        user: The user to switch to once all ports are open, by name or number; ``None`` is no change.
        group: The group to switch to; ``None`` is that of `user`.
        section: Its section of a file; `NOWHERE` if it was made in Python.
    """

    relay: Literal["auto", "portable", "kernel"] = "auto"
    workers: int = 1
    max_connections: int = 0
    drain_timeout: float = 30.0
    drain_removed: bool = False
    access_log: Path | Literal["-"] | None = "-"
    access_log_format: Literal["text", "json"] = "text"
    resolvers: tuple[tuple[str, int], ...] = ()
    user: str | None = None
    group: str | None = None
    section: Section = attrs.field(default=NOWHERE, eq=False, repr=False)

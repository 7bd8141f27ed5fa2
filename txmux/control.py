"""What can be asked of a service while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Control", "Report"]


@attrs.frozen
class Report:
    """What has come of a change.

    Attributes:
        ok: Whether it was made; otherwise everything is as it was.
        changes: What is different now, on one line; empty if it was not made.
        errors: Why it was not made, one line each.
    """

    ok: bool
    changes: str = ""
    errors: Sequence[str] = ()

    @classmethod
    def refused(cls, problem: object) -> Report:
        """Tell of a change that was not made, by the lines of what was raised."""
        return cls(ok=False, errors=str(problem).splitlines() or [repr(problem)])


class Control(Protocol):
    """A service that runs, in one process or with workers."""

    async def reload(self) -> Report:
        """Read the rules again, and go on under them."""
        ...

    async def upgrade(self) -> Report:
        """Go on in a new process, with what is installed now."""
        ...

    def stop(self) -> None:
        """Begin to stop, as a first SIGTERM does."""

    async def status(self) -> dict[str, Any]:
        """Tell how it is, for ``/api/status``."""
        ...

    async def missing(self) -> list[str]:
        """Tell what is missing for clients to be served, one line each; nothing if all is there."""
        ...

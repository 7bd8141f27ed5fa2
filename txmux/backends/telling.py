"""What is told of the servers of a backend when one changes its state: in the log, and as an event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from txmux.backends.pool.server_health import State
from txmux.telemetry.events import server_event

if TYPE_CHECKING:
    from collections.abc import Callable

    from txmux.backends.pool.member import Member

__all__ = ["Telling"]

_TOLD_FIRST = {State.DOWN, State.DRAIN, State.MAINTENANCE}
"""What the process that checks servers finds out or is told, and tells the others."""

_log = Logger()


class Telling:
    """Tells of one backend.

    Args:
        backend: Its name.
        tell: Is told of the events, but for what another process tells.
        checking: Whether its servers are checked in this process.
    """

    def __init__(
        self, backend: str, tell: Callable[[dict[str, Any]], object], *, checking: bool
    ) -> None:
        self._tell = tell
        self._backend = backend
        self._checking = checking

    def changed(self, member: Member, before: State) -> None:
        """Log a change, but not each attempt to let a server back in, nor what another process logs."""
        now = member.state
        quiet = {before, now} == {State.EJECTED, State.PROBING} or (
            not self._checking and bool({before, now} & _TOLD_FIRST)
        )
        why = member.why or "an operator asked for it"
        if not quiet:
            server, address = member.server.text, member.target.text
            event = server_event(self._backend, server, address, before.value, now.value, why)
            self._tell(event)
        (_log.debug if quiet else _log.info if now is State.UP else _log.warn)(
            "backend {backend}: {server} is {state}: {why}",
            backend=self._backend,
            server=member.target.text,
            state=now.value,
            why=why,
        )

    def short(self) -> None:
        """Log that no server is up, but some may be tried."""
        _log.warn(
            "backend {backend}: no server is up; until one is, clients also try the ejected ones",
            backend=self._backend,
        )

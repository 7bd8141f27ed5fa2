"""What can be asked of a service while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from txmux.access.banning import ServiceBans
    from txmux.control.broadcast import Listing
    from txmux.control.filters import Filters, Page
    from txmux.control.overrides import ServerState
    from txmux.control.rates import Moment
    from txmux.rules.model.networks import IPAddress
    from txmux.telemetry.counting.snapshot import Counts

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
        """Report a change that was not made, by the lines of what was raised."""
        return cls(ok=False, errors=str(problem).splitlines() or [repr(problem)])


class Control(Protocol):
    """A service that runs, in one process or with workers."""

    bans: ServiceBans

    async def reload(self) -> Report:
        """Read the rules again, and go on under them."""
        ...

    async def upgrade(self) -> Report:
        """Go on in a new process, with what is installed now."""
        ...

    def stop(self) -> None:
        """Begin to stop, as a first SIGTERM does."""

    async def status(self, counts: Counts | None = ...) -> dict[str, Any]:
        """Return how it is, for ``/api/status``; with numbers that were given just now, these are not asked for again. So here and below."""
        ...

    async def sample(self) -> None:
        """Record what has been counted; its growth in a second is in `status`."""
        ...

    def history(self) -> list[Moment]:
        """Return what was measured in the last ten minutes, the oldest first."""
        ...

    async def connections(self, filters: Filters = ..., page: Page = ...) -> Listing:
        """List live connections, as ``/api/connections`` does."""
        ...

    async def connection(self, identity: str) -> dict[str, Any] | None:
        """Report one live connection; ``None`` if there is none of that ID."""
        ...

    async def close(self, filters: Filters, identity: str = ...) -> int:
        """End connections, and count them."""
        ...

    def subscribe(self, follower: Callable[[dict[str, Any] | None], object]) -> Callable[[], None]:
        """Follow what happens; gives what ends that."""
        ...

    async def routes(self, counts: Counts | None = ...) -> list[dict[str, Any]]:
        """Report each route, in their order, with what it has taken."""
        ...

    async def backends(self, counts: Counts | None = ...) -> Listing:
        """Report each backend and its servers, in the order of the rules."""
        ...

    async def recent(self) -> Listing:
        """List the last connections that did not end as they should."""
        ...

    def rules_as_read(self) -> list[dict[str, Any]]:
        """Return the files of the rules, with where each section is."""
        ...

    async def explain(
        self, data: bytes, listener: str | None = ..., client: IPAddress | None = ...
    ) -> dict[str, Any]:
        """Return what listeners make of bytes, as ``txmux explain --json`` does."""
        ...

    async def set_server(
        self,
        backend: str,
        server: str,
        *,
        state: ServerState | None = ...,
        weight: int | None = ...,
        close_connections: bool = ...,
    ) -> Report:
        """Let a server have new connections, or not."""
        ...

    async def set_listener(self, name: str, *, accepting: bool) -> Report:
        """Accept the clients of a listener, or leave them in the queue of its socket."""
        ...

    async def counters(self) -> Counts:
        """Return the numbers of all processes, with what live connections have moved until now."""
        ...

    def stale(self) -> list[str]:
        """Report which servers the names cannot be looked up now, and how old their addresses are, a sentence each."""
        ...

    async def missing(self) -> list[str]:
        """Return what is missing for clients to be served, one line each; nothing if all is there."""
        ...

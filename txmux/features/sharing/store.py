"""The Redis that rules name, and whether all processes share by it."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from txmux.classes import frozen
from txmux.rules.model import Settings
from txmux.rules.optional import named
from txmux.telemetry.sources import SourceState

RULE = "shared_limits"


@frozen
class Store:
    """A Redis, or what speaks its protocol.

    Attributes:
        text: As it is written; it has no secret.
        host: Its name or address; empty if it listens at a path.
        port: By TCP.
        path: Of its UNIX socket.
        tls: Whether it is spoken to by TLS.
        user: By which it knows this service; empty is its default user.
        database: The number of the database.
        password: The file with the password; ``None`` is none.
    """

    text: str
    host: str = ""
    port: int = 6379
    path: Path | None = None
    tls: bool = False
    user: str = ""
    database: int = 0
    password: Path | None = None

    def connect(self, reactor: Any, up: Callable[[], object], down: Callable[[str], object]) -> Any:
        """Start a `RedisClient`, by which another feature shares what is its own."""
        client = named("txmux.features.sharing.client:RedisClient")(reactor, self, up, down)
        client.start()
        return client


def store_of(settings: Settings) -> Store | None:
    store: Store | None = settings.more.get(RULE)
    return store


def is_shared(sources: Iterable[SourceState]) -> bool | None:
    """Return whether limits and bans are shared by every process; ``None`` if they are this machine's own."""
    shared = [source for source in sources if source.name.startswith(("bans ", "limits "))]
    return all(source.up and source.age is not None for source in shared) if shared else None

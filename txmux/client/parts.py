"""What a process keeps for features: each a part, of which the core asks for what it needs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from txmux.access.bans import ServiceBans
from txmux.access.per_source import PerSource
from txmux.classes import define, frozen
from txmux.rules.feature import Feature
from txmux.rules.installed import FEATURES
from txmux.rules.model import Rules
from txmux.telemetry.attention import AttentionItem
from txmux.telemetry.sources import Source, SourceState


@frozen
class ServiceContext:
    """What the process lends that keeps something for a whole service.

    Attributes:
        bans: Those of the service; ``None`` if it has none beside the rules.
        send: Has the parts of a feature in all processes that serve clients `receive` values; fires when those have that are ready.
        workers: Returns the links to these processes, as `txmux.control.broadcast` has them; none if this is the only one.
        per_source: Returns what counts the sources of each listener in all of them; nothing while they are of another service.
    """

    reactor: Any
    bans: ServiceBans | None
    send: Callable[..., Deferred[Any]]
    workers: Callable[[], Sequence[Any]] = tuple
    per_source: Callable[[], Mapping[str, PerSource | None]] = dict


@define(eq=False)
class ServingContext:
    """What a process lends that serves clients.

    Attributes:
        serving: Its listeners and their certificates; ``None`` for a factory alone.
    """

    reactor: Any
    serving: Any = None


class Part:
    """What a process keeps for a feature, from the first rules on that need it. By default, it does nothing.

    Attributes:
        step: What `look` does, for the log; empty if it does nothing.
    """

    step = ""

    def prepare(self, rules: Rules, owner: tuple[int, int] | None) -> None:
        """Make what rules need, with files of `owner` where root makes them. After a `MuxError`, nothing has changed."""

    def abandon(self) -> None: ...

    def commit(self, rules: Rules) -> None:
        """Use rules, also after a stop."""

    def look(self) -> None:
        """Called each second while the service serves."""

    def troubles(self) -> Iterable[AttentionItem]:
        return ()

    def sources(self) -> Iterable[Source]:
        return ()

    def stop(self) -> Deferred[Any] | None:
        """Stop all, until `commit`: this process accepts no clients."""


class ServicePart(Part):
    """A part of the one process that keeps something for a whole service."""

    def stop_following(self) -> Deferred[Any] | None:
        """Stop following what others change: another process does, or the service is shutting down."""

    def certificates(self) -> Iterable[Mapping[str, Any]]:
        """Return the rows of the certificates that it gets, with ``name``."""
        return ()

    def renew(self, name: str) -> Deferred[str] | None:
        """Renew a certificate now; fires with a sentence, or fails with a `MuxError`. ``None`` if it does not get this one."""

    def state(self) -> Any:
        """Return what the parts of workers `receive` at their start; nothing if they need nothing."""

    async def check_change(self, rules: Rules) -> None:
        """Raise `MuxError` if rules may not be used that came by themselves, with ``watch_rules``."""

    def shared_bans(self, sources: Sequence[SourceState]) -> str | None:
        """Return how far bans of other machines apply here, as in `/api/status`, by the sources of all processes."""


class ServingPart(Part):
    """A part of a process that serves clients."""

    def receive(self, values: Any) -> Deferred[Any] | list[Any] | None:
        """Use what the part of the service has sent; a list is the answer to it, which that part has to check."""


_Part = TypeVar("_Part", bound=Part)


class Parts(dict[str, _Part]):
    """The parts of a process by the names of their features, each from the first rules on that need it; `make` makes one."""

    def __init__(self, make: Callable[[Feature], _Part | None]) -> None:
        super().__init__()
        self._make = make
        self._new: dict[str, _Part] = {}

    def prepare(self, rules: Rules, owner: tuple[int, int] | None = None) -> None:
        """Make those that rules need, for use from `commit` on, and prepare all; see `Part.prepare`."""
        needed = [
            feature for feature in FEATURES if feature.name not in self and feature.needed(rules)
        ]
        made = {feature.name: self._make(feature) for feature in needed}
        self._new = {name: part for name, part in made.items() if part is not None}
        for part in (*self.values(), *self._new.values()):
            part.prepare(rules, owner)

    def abandon(self) -> None:
        """Forget what was prepared."""
        self._new = {}
        for part in self.values():
            part.abandon()

    def commit(self, rules: Rules) -> None:
        self.update(self._new)
        self._new = {}
        for part in self.values():
            part.commit(rules)

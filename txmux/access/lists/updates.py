"""Whatever the networks of the rules are from is looked at in time, by one process for all."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from txmux.access.lists.current import PLACES, varying_of
from txmux.access.lists.files import NetworksFile, Watched
from txmux.access.lists.geo import GeoDatabaseError, read_places
from txmux.telemetry.counting.present import length

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from twisted.python.failure import Failure

    from txmux.rules.model import Rules

__all__ = ["ListUpdates"]

_FILES = 4.0
"""Seconds between two looks at a file: a change holds within 10 s, also in a worker that is busy."""

_CROWDSEC = 10.0

_LOST = 60.0
"""Seconds after which somebody should know that networks are not up to date."""


class ListSource(Protocol):
    """What networks are from.

    Attributes:
        problem: Why the networks that hold are not up to date; nothing if they are.
    """

    problem: str

    async def look(self) -> Any:
        """Return what is told to all processes, if it has changed; otherwise ``None``."""


@attrs.define
class _Database:
    """A file that tells where addresses are, which each process reads by itself."""

    _watched: Watched
    _number: int = 0
    _is_known: bool = False
    problem: str = attrs.field(default="", init=False)

    async def look(self) -> Any:
        path = self._watched.path
        try:
            data = self._watched.read()
        except OSError as error:  # it is being exchanged, or it is missed when it is read
            self.problem = f"cannot read '{path}': {error.strerror}"
            return None
        if data is None:
            return None
        try:
            read_places(path, data)
            self.problem = ""
        except GeoDatabaseError as error:  # each process finds that out by itself
            self.problem = str(error)
        known, self._is_known = self._is_known, True
        return hash(data) if known else None


@attrs.define
class _Looking:
    """A feed that is looked at.

    Attributes:
        what: What tells it from one that is like it.
        since: When it was first found not to be up to date, by the reactor's time; ``None`` if it is.
        why: Why it is not.
    """

    what: object
    feed: ListSource
    looking: LoopingCall
    since: float | None = None
    why: str = ""


class ListUpdates:
    """Looks at all that networks of rules are from.

    Args:
        reactor: Connects, and tells the time.
        publish: Is told of what has changed, by names.
    """

    _log = Logger()

    def __init__(self, reactor: Any, publish: Callable[[dict[str, Any]], object]) -> None:
        self._reactor = reactor
        self._publish = publish
        self._looking: dict[str, _Looking] = {}

    def use(self, rules: Rules) -> None:
        """Look at what these rules name, and at nothing else any more. Files were read just now."""
        wanted = dict(self._wanted(rules))
        for name in [*self._looking]:
            one = self._looking[name]
            if name not in wanted or wanted[name][0] != one.what:
                del self._looking[name]
                one.looking.stop()
        for name, (what, make, seconds) in wanted.items():
            if name not in self._looking:
                looking = LoopingCall(self._look, name)
                looking.clock = self._reactor
                self._looking[name] = _Looking(what, make(), looking)
                looking.start(seconds).addErrback(partial(self._log.failure, "networks"))

    def _wanted(
        self, rules: Rules
    ) -> Iterator[tuple[str, tuple[object, Callable[[], ListSource], float]]]:
        """Return by names what tells a source from one like it, what makes it, and the seconds between two looks."""
        texts = {str(Path(path).absolute()): text for path, text in rules.files.texts.items()}
        databases = rules.settings.geo_databases
        key = rules.settings.crowdsec_key
        for one in varying_of(rules):
            if one.kind == "file":
                text = texts.get(one.source)
                make: Callable[[], ListSource] = partial(NetworksFile, Path(one.source), text)
                # One whose text was read again begins with that.
                yield one.name, (text, make, _FILES)
            elif one.kind == "crowdsec" and key is not None:
                yield one.name, (key, partial(self._crowdsec, one.source, key), _CROWDSEC)
            elif one.kind == "geo":
                for path in databases:
                    make = partial(_Database, Watched(path))
                    yield f"{PLACES}:{path}", (path, make, _FILES)

    def _crowdsec(self, url: str, key: Path) -> ListSource:
        from txmux.access.lists.crowdsec import CrowdSec  # noqa: PLC0415 - few have one

        return CrowdSec(self._reactor, url, key)

    @property
    def problems(self) -> list[str]:
        """What needs a person: a sentence for each of which the networks have not been up to date for long."""
        now = self._reactor.seconds()
        return [
            f"networks of {name} have not been up to date for {length(now - one.since)}: {one.why}"
            for name, one in self._looking.items()
            if one.since is not None and now - one.since > _LOST
        ]

    def _look(self, name: str) -> Deferred[None]:
        one = self._looking[name]

        async def look() -> None:
            told = await one.feed.look()
            self._note(one, one.feed.problem)
            if told is not None and name in self._looking:
                is_place = name.startswith(f"{PLACES}:")
                self._publish({PLACES if is_place else name: told})

        looked = Deferred.fromCoroutine(look())
        return looked.addErrback(self._failed, name, one)

    def _note(self, one: _Looking, why: str) -> None:
        one.why = why
        if not why:
            one.since = None
        elif one.since is None:
            one.since = self._reactor.seconds()

    def _failed(self, failure: Failure, name: str, one: _Looking) -> None:
        self._note(one, failure.getErrorMessage() or type(failure.value).__name__)
        self._log.failure("networks of {name} cannot be brought up to date", failure, name=name)

    def stop(self) -> None:
        """Look at nothing any more."""
        for one in self._looking.values():
            one.looking.stop()
        self._looking.clear()

"""Whatever the networks of the rules are from is looked at in time, by one process for all."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from txmux.feeds.files import NetworksFile, Watched
from txmux.networks.lists import PLACES, varying_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from twisted.python.failure import Failure

    from txmux.rules.model import Rules

__all__ = ["Feeding"]

_FILES = 4.0
"""Seconds between two looks at a file: a change holds within 10 s, also in a worker that is busy."""

_CROWDSEC = 10.0


class Feed(Protocol):
    """What networks are from."""

    async def look(self) -> Any:
        """Give what is told to all processes, if it has changed; otherwise ``None``."""


@attrs.define
class _Database:
    """A file that tells where addresses are, which each process reads by itself."""

    _watched: Watched
    _number: int = 0
    _is_known: bool = False

    async def look(self) -> Any:
        try:
            data = self._watched.read()
        except OSError:  # it is being exchanged, or it is missed when it is read
            return None
        if data is None:
            return None
        known, self._is_known = self._is_known, True
        return hash(data) if known else None


class Feeding:
    """Looks at all that networks of rules are from.

    Args:
        reactor: Connects, and tells the time.
        publish: Is told of what has changed, by names.
    """

    _log = Logger()

    def __init__(self, reactor: Any, publish: Callable[[dict[str, Any]], object]) -> None:
        self._reactor = reactor
        self._publish = publish
        self._looking: dict[str, tuple[object, LoopingCall]] = {}

    def use(self, rules: Rules) -> None:
        """Look at what these rules name, and at nothing else any more. Files were read just now."""
        wanted = dict(self._wanted(rules))
        for name in [*self._looking]:
            what, looking = self._looking[name]
            if name not in wanted or wanted[name][0] != what:
                del self._looking[name]
                looking.stop()
        for name, (what, make, seconds) in wanted.items():
            if name not in self._looking:
                looking = LoopingCall(self._look, name, make())
                looking.clock = self._reactor
                self._looking[name] = (what, looking)
                looking.start(seconds).addErrback(partial(self._log.failure, "networks"))

    def _wanted(
        self, rules: Rules
    ) -> Iterator[tuple[str, tuple[object, Callable[[], Feed], float]]]:
        """Give, by names, what tells a feed from one that is like it, what makes it, and the time between two looks."""
        texts = {str(Path(path).absolute()): text for path, text in rules.files.texts.items()}
        databases = rules.settings.geo_databases
        key = rules.settings.crowdsec_key
        for one in varying_of(rules):
            if one.kind == "file":
                text = texts.get(one.source)
                make: Callable[[], Feed] = partial(NetworksFile, Path(one.source), text)
                # One whose text was read again begins with that.
                yield one.name, (text, make, _FILES)
            elif one.kind == "crowdsec" and key is not None:
                yield one.name, (key, partial(self._crowdsec, one.source, key), _CROWDSEC)
            elif one.kind == "geo":
                for path in databases:
                    make = partial(_Database, Watched(path))
                    yield f"{PLACES}:{path}", (path, make, _FILES)

    def _crowdsec(self, url: str, key: Path) -> Feed:
        from txmux.feeds.crowdsec import CrowdSec  # noqa: PLC0415 - few have one

        return CrowdSec(self._reactor, url, key)

    def _look(self, name: str, feed: Feed) -> Deferred[None]:
        async def look() -> None:
            told = await feed.look()
            if told is not None and name in self._looking:
                is_place = name.startswith(f"{PLACES}:")
                self._publish({PLACES if is_place else name: told})

        looked = Deferred.fromCoroutine(look())
        return looked.addErrback(self._failed, name)

    def _failed(self, failure: Failure, name: str) -> None:
        self._log.failure("networks of {name} cannot be brought up to date", failure, name=name)

    def stop(self) -> None:
        """Look at nothing any more."""
        for _, looking in self._looking.values():
            looking.stop()
        self._looking.clear()

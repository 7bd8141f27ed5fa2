"""Watches the sources of dynamic networks: files, databases and CrowdSec. One process does so for all."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmux.access.dynamic_networks import Packed, dynamic_networks_of, pack
from txmux.classes import define
from txmux.errors import MuxError, cause_of
from txmux.files import LARGEST_LIST, FileState, read_bytes, state_at
from txmux.net.turns import Turns, look_in_thread
from txmux.rules.feature import FILE_MEANWHILE, FILE_SECONDS, NetworkSource, WatchedSource
from txmux.rules.installed import NETWORKS, READ_BY_EACH
from txmux.rules.model import IPNetwork, NetworkSet, Rules
from txmux.rules.reading.files import text_of
from txmux.rules.reading.networks import read_lines
from txmux.telemetry.formatting import plural
from txmux.telemetry.sources import Source

T = TypeVar("T")

_UNSURE = 2_000_000_000  # nanoseconds in which a file may change twice and still look the same


class WatchedFile:
    """A file that others write; its path may be a link, whose target may change."""

    def __init__(self, path: Path, most: int = LARGEST_LIST) -> None:
        self.path = path
        self._most = most
        self._state: FileState | None = None

    async def read_in_thread(self, read: Callable[[], T]) -> T:
        """Call what reads this file, in a thread. What cannot be read counts as changed, also if it was not its turn."""
        try:
            return await look_in_thread(read)
        except OSError:
            self._state = None
            raise

    def read(self) -> bytes | None:
        """Return the contents if they may have changed since the last call."""
        # An unreadable file is read again once it is back, even if it has not changed.
        before, self._state = self._state, None
        state = state_at(self.path)
        if state == before:
            self._state = before
            return None
        data = read_bytes(self.path, self._most)
        *_, written_at = state
        self._state = state if time.time_ns() - written_at > _UNSURE else None
        return data


class BadFileError(MuxError):
    """A file contains something that is not a network."""


@define
class NetworksFile:
    """A file of networks: ``@FILE``."""

    path: Path
    text: str | None  # of the current networks
    watched: WatchedFile = attrs.field(init=False)
    trouble: str = attrs.field(default="", init=False)

    _log = Logger()

    @watched.default
    def _watch(self) -> WatchedFile:
        return WatchedFile(self.path)

    async def fetch_changes(self) -> Packed | None:
        """Return its networks if they have changed. An unreadable or wrong file changes nothing."""
        try:
            data = await self.watched.read_in_thread(self.watched.read)
            if data is None:
                return None
            text = text_of(data)
            if text == self.text:
                self.trouble = ""
                return None
            networks = await Turns().run(_networks(text))
        except OSError as error:
            self.trouble = f"cannot read it: {error.strerror}"
            return None
        except BadFileError as error:
            self.trouble = f"line {error}"
            return None
        self.text = text
        self.trouble = ""
        self._log.info(
            "{path}: {networks}", path=str(self.path), networks=plural(len(networks), "network")
        )
        return pack(networks)


def _networks(text: str) -> Generator[None, None, NetworkSet]:
    networks: list[IPNetwork] = []
    for count, (number, read) in enumerate(read_lines(text)):
        if isinstance(read, str):
            raise BadFileError(f"{number}: {read}")
        networks.append(read)
        if not count % 100:
            yield
    return NetworkSet(networks)


@define
class _WatchedList:
    """A source that is watched; one with another `what` replaces it."""

    what: object
    source: NetworkSource
    health: Source
    polling: LoopingCall
    polled: Deferred[None] = attrs.field(factory=lambda: succeed(None))

    def stop(self) -> None:
        self.polling.stop()
        self.polled.cancel()


class ListUpdates:
    """Watches the sources that rules name, and publishes changed contents by name."""

    _log = Logger()

    def __init__(self, reactor: Any, publish: Callable[[dict[str, Any]], object]) -> None:
        self._reactor = reactor
        self._publish = publish
        self.watched: dict[str, _WatchedList] = {}

    def commit(self, rules: Rules) -> None:
        """Watch the sources that these rules name, and no others. Files were read just now."""
        sources = {source.name: (source, seconds) for source, seconds in self._sources_of(rules)}
        for name in [*self.watched]:
            watched = self.watched[name]
            if name not in sources or sources[name][0].what != watched.what:
                del self.watched[name]
                watched.stop()
        for name, (source, seconds) in sources.items():
            if name not in self.watched:
                polling = LoopingCall(self._poll, name)
                polling.clock = self._reactor
                health = Source(*_described(name), self._reactor.seconds)
                self.watched[name] = _WatchedList(source.what, source.make(), health, polling)
                polling.start(seconds).addErrback(partial(self._log.failure, "networks"))

    def _sources_of(self, rules: Rules) -> Iterator[tuple[WatchedSource, float]]:
        """Yield each source, and the seconds between two reads."""
        texts = {str(Path(path).absolute()): text for path, text in rules.files.texts.items()}
        for dynamic in dynamic_networks_of(rules):
            if dynamic.kind == "file":
                text = texts.get(dynamic.source)
                make = partial(NetworksFile, Path(dynamic.source), text)
                # One whose text was read again begins with that.
                yield WatchedSource(dynamic.name, text, make), FILE_SECONDS
            else:
                kind = NETWORKS[dynamic.kind]
                for source in kind.sources(self._reactor, dynamic, rules.settings):
                    yield source, kind.seconds

    def sources(self) -> Iterator[Source]:
        yield from (watched.health for watched in self.watched.values())

    async def unusable_files(self) -> list[str]:
        """Look at the files now, and return a sentence for each that cannot be used."""
        found = []
        for name, watched in [*self.watched.items()]:
            kind, address, meanwhile = _described(name)
            is_file = kind not in NETWORKS or kind in READ_BY_EACH
            if is_file and name in self.watched:
                await self._poll(name)
                if trouble := watched.source.trouble:
                    found.append(f"{kind} {address}: {trouble}; {meanwhile}")
        return found

    def _poll(self, name: str) -> Deferred[None]:
        watched = self.watched[name]

        async def poll() -> None:
            watched.health.requested()
            contents = await watched.source.fetch_changes()
            if watched.source.trouble:
                watched.health.failed(watched.source.trouble)
            else:
                watched.health.answered()
            if contents is not None and name in self.watched:
                if isinstance(watched.source, NetworksFile):
                    # Rules that were read when the file said something else are not of this text.
                    watched.what = watched.source.text
                kind = name.partition(":")[0]
                self._publish({kind if kind in READ_BY_EACH else name: contents})

        watched.polled = Deferred.fromCoroutine(poll())
        return watched.polled.addErrback(self._failed, name, watched)

    def _failed(self, failure: Failure, name: str, watched: _WatchedList) -> None:
        if failure.check(CancelledError):
            return
        watched.health.failed(cause_of(failure.value))
        self._log.failure("cannot update the networks of {name}", failure, name=name)

    def stop(self) -> None:
        for watched in self.watched.values():
            watched.stop()
        self.watched.clear()


def _described(name: str) -> tuple[str, str, str]:
    """Return the kind of a source, its address, and what holds while it fails."""
    kind, _, address = name.partition(":")
    if kind in NETWORKS:
        return kind, address, NETWORKS[kind].meanwhile
    return "networks", address, FILE_MEANWHILE

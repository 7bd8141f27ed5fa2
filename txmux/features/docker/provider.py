"""Follows the containers of a daemon, and writes their rules."""

import re
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList, DeferredSemaphore
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from txmux.cli.labels import PREFIX
from txmux.errors import MuxError, printable
from txmux.features.docker.api import DockerApi, NoDaemonError
from txmux.features.docker.labels import SETTABLE, Container, LabelRules, read_labels, unit_of
from txmux.features.docker.sleep import Sleepers, WakeSocket
from txmux.interfaces import IProvider, ProvidedObject, RulesWriter
from txmux.rules.reading.files import read_source
from txmux.wire.jsontext import MISSHAPEN

# Seconds of a stream of events: then all is looked at again, whatever it has not told.
_PERIOD = 10.0
_OVERLAP = 1.0  # seconds whose events a stream repeats: some come between it and the one before
_PAUSE = 0.5  # seconds between two looks
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds between two tries to reach the daemon
_AT_ONCE = 16  # questions
_MOMENT = 1.0  # seconds in which a container is inspected, or others are written without it
_ID = re.compile("[0-9A-Za-z_-]{1,128}")
# 28 is SIGWINCH, by which httpd stops.
_STOPS = ("2", "3", "9", "15", "28", "SIGINT", "SIGQUIT", "SIGKILL", "SIGTERM", "SIGWINCH")
_MOST_NAMED = 5
_LONGEST_STOP = 300.0  # seconds: one that still runs has taken no notice of the signal


@implementer(IProvider)
class DockerProvider:
    """Writes the rules of containers with labels ``txmux.…``."""

    name = "docker"
    summary = "Docker's or Podman's containers, by their labels"

    def options(self, parser: ArgumentParser) -> None:
        add = parser.add_argument
        daemon, wake = "unix:/var/run/docker.sock", "unix:/run/txmux/wake.sock"
        daemon_help = "where the daemon listens; by default %(default)s"
        add("--socket", metavar="ENDPOINT", default=daemon, help=daemon_help)
        network_help = "the network of containers that txmux is on, too; without it, it uses their published ports"
        add("--network", metavar="NAME", help=network_help)
        keys = sorted(SETTABLE)
        key_help = "let labels set this key of [route] or [backend], too; may be repeated"
        add(
            "--allow-label", metavar="KEY", action="append", default=[], choices=keys, help=key_help
        )
        wake_help = "where the service asks for containers with txmux.wake; its group may, too; by default %(default)s"
        add("--wake", metavar="ENDPOINT", default=wake, help=wake_help)

    async def run(self, reactor: Any, arguments: Namespace, writer: RulesWriter) -> None:
        path = _socket_path("--socket", arguments.socket)
        wake = _socket_path("--wake", arguments.wake)
        allowed = frozenset(arguments.allow_label)
        settings = LabelRules(arguments.network, allowed, f"unix:{wake}:", str(arguments.write))
        await Follower(reactor, DockerApi(reactor, path), settings, writer, wake).run()


def _socket_path(option: str, text: str) -> str:
    path = text.removeprefix("unix:")
    if not path.startswith("/") or ":" in path:
        raise MuxError(f"{option}: {text!r} is no UNIX socket; write for example unix:/run/x.sock")
    return path


class Follower:
    """Keeps the rules of a daemon's containers written, and has them start and stop as their labels say."""

    def __init__(
        self, reactor: Any, api: DockerApi, settings: LabelRules, writer: RulesWriter, wake: str
    ) -> None:
        self._reactor = reactor
        self._api = api
        self._settings = settings
        self._writer = writer
        self._known: dict[str, tuple[object, Container]] = {}
        self._unread: dict[str, tuple[str, str]] = {}  # their backends, and why
        self._before = _units_in(settings.file)
        self._asking: dict[str, Deferred[None]] = {}
        self._slots = DeferredSemaphore(_AT_ONCE)
        self._has_looked = False
        # Of which more has come since than is known; what is known counts until then.
        self._outdated: set[str] = set()
        self._stopping: dict[str, float] = {}  # since when
        self._changed: Deferred[None] = Deferred()
        self._sleepers = Sleepers(reactor, api, writer.ask, self._signal)
        self._wake = WakeSocket(reactor, wake, self._sleepers)

    async def run(self) -> None:
        pause = _SHORTEST_PAUSE
        sleeping = Deferred.fromCoroutine(self._sleepers.run())
        try:
            while True:
                begun = self._reactor.seconds()
                try:
                    await self._session()
                    pause = _SHORTEST_PAUSE
                except NoDaemonError as problem:
                    # A stream that is cut after a while is no daemon that is away.
                    if self._reactor.seconds() - begun > _SHORTEST_PAUSE:
                        pause = _SHORTEST_PAUSE
                    self._outdated.update(self._known)
                    self._writer.lost(str(problem))
                    await deferLater(self._reactor, pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
        finally:
            for working in (sleeping, *self._asking.values()):
                working.addErrback(lambda failure: failure.trap(CancelledError))
                working.cancel()
            self._wake.stop()

    async def _session(self) -> None:
        """Look at all, and then whenever an event comes, until the stream of events ends."""
        since = time.time() - _OVERLAP
        events = Deferred.fromCoroutine(self._api.events(since, _PERIOD, self._take))
        ended: list[object] = []
        events.addBoth(ended.append).addBoth(self._signal)
        try:
            while not ended:
                self._changed = Deferred()
                await self._look()
                await deferLater(self._reactor, _PAUSE)
                await self._changed
            if isinstance(ended[0], Failure):
                ended[0].raiseException()
        finally:
            events.cancel()

    def _signal(self, _: object = None) -> None:
        if not self._changed.called:
            self._changed.callback(None)

    def _take(self, event: Any) -> None:
        try:
            action, actor = str(event["Action"]), event["Actor"]
            key, attributes = str(actor["ID"]), dict(actor.get("Attributes") or {})
        except MISSHAPEN:
            raise MuxError("what answers is not Docker's API: an event has no actor") from None
        if action.startswith("exec"):  # of each health check
            return
        if action == "kill" and str(attributes.get("signal")) in _STOPS:
            self._stopping[key] = self._reactor.seconds()
        elif action == "start":
            self._stopping.pop(key, None)
        self._outdated |= {key, str(attributes.get("container"))}  # that of a network
        self._signal()

    async def _look(self) -> None:
        outdated, self._outdated = self._outdated, self._outdated & self._asking.keys()
        rows = await self._api.get("/containers/json?all=1")
        try:
            listed = {row["Id"]: row for row in rows if _is_ours(row)}
        except MISSHAPEN:
            raise NoDaemonError("what answers is not Docker's API: no list of containers") from None
        self._known = {key: its for key, its in self._known.items() if key in listed}
        self._unread = {key: its for key, its in self._unread.items() if key in listed}
        asked = []
        for key, row in listed.items():
            is_known = key in self._known and self._known[key][0] == _seen(row)
            if key not in self._asking and (key in outdated or not is_known):
                self._asking[key] = Deferred.fromCoroutine(self._inspect(key, row))
                asked.append(self._asking[key].addBoth(self._inspected, key))
        done: Deferred[object] = Deferred()
        DeferredList(asked).addCallback(done.callback)
        if self._has_looked:
            done.addTimeout(_MOMENT, self._reactor, lambda *_: None)
        await done
        for late in [question for question in asked if not question.called]:
            late.addCallback(self._signal)
        self._has_looked = True
        self._write()

    def _inspected(self, outcome: object, key: str) -> object:
        del self._asking[key]
        return outcome

    async def _inspect(self, key: str, row: Any) -> None:
        try:
            async with self._slots:
                answer = await self._api.get(f"/containers/{key}/json")
            container = None if answer is None else Container.read(answer)
        except (NoDaemonError, *MISSHAPEN) as error:
            # The list has come, so this container alone is at fault. What was known of it stays; it is asked for again with the next stream.
            self._outdated.add(key)
            is_clear = isinstance(error, NoDaemonError)
            why = str(error) if is_clear else "what the daemon says of it is unclear"
            self._unread[key] = _backend_in(row) or key[:12], why
            return
        self._known.pop(key, None)
        self._unread.pop(key, None)
        if container is not None:  # else it has gone meanwhile
            self._known[key] = _seen(row), container

    def _write(self) -> None:
        containers = [its for _, its in self._known.values()]
        running = {its.id for its in containers if its.is_running}
        oldest = self._reactor.seconds() - _LONGEST_STOP
        self._stopping = {k: at for k, at in self._stopping.items() if k in running and at > oldest}
        self._sleepers.hold(containers)
        if any(its.wakes for its in containers):
            self._wake.start()
        failing = [f"container {name}: {why}" for name, why in self._unread.values()]
        self._writer.write(self._objects, lambda *_: None, "; ".join(failing[:_MOST_NAMED]))

    def _objects(self, rules: Any) -> Sequence[ProvidedObject]:
        containers = [its for _, its in self._known.values()]
        drained = self._stopping.keys() | self._sleepers.drained
        objects, routes = read_labels(containers, self._settings, rules, drained)
        self._sleepers.routes = routes
        unreadable = self._unreadable({made.unit for made in objects})
        return sorted([*objects, *unreadable], key=lambda made: made.unit)

    def _unreadable(self, others: Collection[str]) -> Iterator[ProvidedObject]:
        """Yield those that cannot be inspected. What the file had of them at the start stays until another of the name could be."""
        new = {unit_of(name) for key, (name, _) in self._unread.items() if key not in self._known}
        kept = set()
        for unit, text in [*self._before.items()]:
            its = new.intersection(accumulate(unit.split("."), "{}.{}".format))
            if its and unit not in others:
                kept |= its
                yield ProvidedObject(f"unit {unit}", text, unit=unit)
            else:  # its address may be another's when one of this name comes again
                del self._before[unit]
        for key, (name, why) in self._unread.items():
            title = f"container {name}"
            if key in self._known or unit_of(name) in kept:
                yield ProvidedObject(title, warning=f"stays as it was: {why}")
            else:
                yield ProvidedObject(title, problem=why)


def _units_in(file: str) -> dict[str, str]:
    """Return the sections that a file has by now, by their units."""
    with suppress(OSError):
        _, *parts = re.split(r"^\[unit (.+)\]\n", read_source(file).text, flags=re.MULTILINE)
        return {name: text.rstrip() for name, text in zip(parts[::2], parts[1::2], strict=True)}
    return {}


def _backend_in(row: Any) -> str:
    """Return the name of a container's backend by its row in the list; empty if that does not say."""
    with suppress(*MISSHAPEN):
        labels = row.get("Labels") or {}
        name = labels.get(f"{PREFIX}backend") or row["Names"][0]
        return printable(name.removeprefix("/"), 80)
    return ""


def _is_ours(row: Any) -> bool:
    if not _ID.fullmatch(row["Id"]):
        raise ValueError(printable(row["Id"], 64))
    try:
        return any(name.startswith(PREFIX) for name in row.get("Labels") or {})
    except MISSHAPEN:
        return True  # if it is so elsewhere, too, this container alone is left out


def _seen(row: Any) -> object:
    """Return what shows that a container has changed, also the health at the end of ``Up 2 minutes (healthy)``; ``None`` if it cannot be read."""
    with suppress(*MISSHAPEN):
        status = row.get("Status") or ""
        networks = (row.get("NetworkSettings") or {}).get("Networks") or {}
        health = status[status.rfind("(") :] if status.endswith(")") else ""
        addresses = {name: its.get("IPAddress") for name, its in networks.items() if its}
        return row["State"], health, row.get("Names"), addresses, row.get("Ports")
    return None


docker = DockerProvider()

"""Follows the containers of a daemon, and writes their rules."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from txmux.errors import MuxError, printable
from txmux.interfaces import IProvider, ProvidedObject, RulesWriter
from txmux.providers.docker.api import DockerApi, NoDaemonError
from txmux.providers.docker.labels import Container, LabelRules, objects_of
from txmux.wire.jsontext import MISSHAPEN

_PERIOD = 30.0  # seconds of a stream of events: then all is looked at again, whatever was missed
_PAUSE = 0.5  # seconds between two looks
_LONGEST_PAUSE = 30.0  # seconds between two tries to reach the daemon
_AT_ONCE = 16  # questions
_log = Logger()


@implementer(IProvider)
class DockerProvider:
    """Writes the rules of containers with labels ``txmux.…``."""

    name = "docker"
    summary = "Docker's or Podman's containers, by their labels"

    def options(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--socket",
            metavar="ENDPOINT",
            default="unix:/var/run/docker.sock",
            help="where the daemon listens; by default %(default)s",
        )
        parser.add_argument(
            "--network",
            metavar="NAME",
            help="the network on which txmux reaches the containers; without it, their published ports are used",
        )
        parser.add_argument(
            "--allow-label",
            metavar="KEY",
            action="append",
            default=[],
            help="a key of [route] or [backend] that labels may set, too; may be repeated",
        )

    async def run(self, reactor: Any, arguments: Namespace, writer: RulesWriter) -> None:
        path = arguments.socket.removeprefix("unix:")
        if not path.startswith("/"):
            raise MuxError(
                f"--socket: {arguments.socket!r} is no UNIX socket; write for example unix:/var/run/docker.sock"
            )
        settings = LabelRules(arguments.network, frozenset(arguments.allow_label))
        await _Follower(reactor, DockerApi(reactor, path), settings, writer).run()


class _Follower:
    def __init__(
        self, reactor: Any, api: DockerApi, settings: LabelRules, writer: RulesWriter
    ) -> None:
        self._reactor = reactor
        self._api = api
        self._settings = settings
        self._writer = writer
        self._known: dict[str, tuple[object, Container | str]] = {}
        self._stopping: set[str] = set()
        self._looking: Deferred[None] | None = None
        self._is_due = False

    async def run(self) -> None:
        pause = 1.0
        while True:
            try:
                since = time.time()
                await self._look()
                pause = 1.0
                await self._follow(since)
            except NoDaemonError as problem:  # noqa: PERF203 - of seconds
                self._known.clear()
                self._writer.lost(str(problem))
                await deferLater(self._reactor, pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def _follow(self, since: float) -> None:
        begun = self._reactor.seconds()
        await self._api.events(since, _PERIOD, self._take)
        if self._looking is not None:
            await self._looking
        if self._reactor.seconds() - begun < _PAUSE:
            await deferLater(self._reactor, _PAUSE)

    def _take(self, event: Any) -> None:
        pass

    async def _look(self) -> None:
        rows = await self._api.get("/containers/json?all=1")
        try:
            listed = {
                str(row["Id"]): (row["State"], row["Status"].partition("(")[2])
                for row in rows
                if _is_labelled(row)
            }
        except MISSHAPEN:
            raise NoDaemonError("what answers is not Docker's API: no list of containers") from None
        self._known = {key: its for key, its in self._known.items() if its[0] == listed.get(key)}
        missing = [key for key in listed if key not in self._known]
        for at in range(0, len(missing), _AT_ONCE):
            asking = [
                Deferred.fromCoroutine(self._inspect(key, listed[key]))
                for key in missing[at : at + _AT_ONCE]
            ]
            await gatherResults(asking, consumeErrors=True)
        self._writer.write(self._objects)

    async def _inspect(self, key: str, seen: object) -> None:
        answer = await self._api.get(f"/containers/{key}/json")
        if answer is not None:  # else it has gone meanwhile
            try:
                self._known[key] = seen, Container.read(answer)
            except MISSHAPEN:
                self._known[key] = seen, "what the daemon reports of it cannot be read"

    def _objects(self, rules: Any) -> Sequence[ProvidedObject]:
        found = [its for _, its in self._known.values()]
        unread = [
            ProvidedObject(f"container {printable(key[:12])}", problem=its)
            for key, (_, its) in self._known.items()
            if isinstance(its, str)
        ]
        containers = [its for its in found if isinstance(its, Container)]
        listeners = {listener.name for listener in rules.listeners}
        return [*unread, *objects_of(containers, self._settings, listeners, self._stopping)]


def _is_labelled(row: Any) -> bool:
    return any(name.startswith("txmux.") for name in row["Labels"] or {})


docker = DockerProvider()

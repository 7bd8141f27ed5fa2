"""Starts containers that clients wait for, and stops those that nobody has used for a while."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from txmux.errors import MuxError, printable
from txmux.files import remove_own_socket
from txmux.net.sockets.reactorsockets import SharedUNIXPort
from txmux.net.sockets.unixpath import bind
from txmux.providers.docker.api import DockerApi
from txmux.providers.docker.labels import Container, LabelledRoute
from txmux.telemetry.formatting import duration
from txmux.wire.jsontext import MISSHAPEN

_PAUSE, _LONGEST = (
    1.0,
    10.0,
)  # seconds between two looks at the connections: a quarter of the sleep, or these
_MODE = 0o660
_BACKLOG = 64
_log = Logger()


@attrs.define(eq=False)
class _Sleeper:
    """A container that may be stopped."""

    container: Container
    used_at: float
    total: int = -1  # connections so far


class Sleepers:
    """Starts and stops the containers of one daemon.

    Args:
        ask: Asks the service, for its connections.
        changed: Called when `drained` has changed.

    Attributes:
        drained: The IDs of containers that are about to be stopped, and get no further clients.
        routes: Those in the rules.
    """

    def __init__(
        self,
        reactor: Any,
        api: DockerApi,
        ask: Callable[[str, str], Awaitable[Any]],
        changed: Callable[[], object],
    ) -> None:
        self._reactor = reactor
        self._api = api
        self._ask = ask
        self._changed = changed
        self._containers: list[Container] = []
        self._sleepers: dict[str, _Sleeper] = {}
        self._locks: dict[str, DeferredLock] = {}
        self.drained: set[str] = set()
        self.routes: Sequence[LabelledRoute] = ()

    def hold(self, containers: Iterable[Container]) -> None:
        """Take the containers that there are now."""
        self._containers = [*containers]
        now = self._reactor.seconds()
        before, self._sleepers = self._sleepers, {}
        for its in self._containers:
            if its.sleep and its.state == "running":
                self._sleepers[its.id] = sleeper = before.get(its.id) or _Sleeper(its, now)
                sleeper.container = its
        self.drained &= self._sleepers.keys()
        ids = {its.id for its in self._containers}
        self._locks = {key: lock for key, lock in self._locks.items() if key in ids}

    async def wake(self, word: str) -> bool:
        """Start the containers of a backend; return whether there are any that may be."""
        meant = [its for its in self._containers if its.wakes and its.word == word]
        problems: list[MuxError] = []
        for its in meant:
            self._unused(its.id)
            try:
                async with self._locks.setdefault(its.id, DeferredLock()):
                    await self._api.post(f"/containers/{its.id}/start")
            except MuxError as problem:  # others may serve
                problems.append(problem)
            else:
                _log.info("container {name}: started, since a client waits", name=its.name)
        if problems:
            raise problems[0]
        return bool(meant)

    def _unused(self, key: str) -> None:
        """Begin to count the time without a connection anew."""
        if key in self._sleepers:
            self._sleepers[key].used_at = self._reactor.seconds()
        if key in self.drained:
            self.drained.discard(key)
            self._changed()

    async def run(self) -> None:
        asked_at = 0.0
        while True:
            await deferLater(self._reactor, _PAUSE)
            now = self._reactor.seconds()
            shortest = min((its.container.sleep for its in self._sleepers.values()), default=0.0)
            if not shortest or (not self.drained and now - asked_at < min(shortest / 4, _LONGEST)):
                continue
            asked_at = now
            try:
                await self._judge(await self._ask("GET", "/api/backends"))
            except (MuxError, *MISSHAPEN) as problem:
                # Nobody knows who is connected.
                _log.debug("nothing is stopped: {why}", why=str(problem))
                for key in self._sleepers:
                    self._unused(key)

    async def _judge(self, backends: Any) -> None:
        rows = {
            (one["name"], its["server"]): (one, its) for one in backends for its in one["servers"]
        }
        used: dict[str, list[Any]] = {}
        for route in self.routes:
            used.setdefault(route.container.id, []).append(rows.get((route.name, route.server)))
        for key, sleeper in [*self._sleepers.items()]:
            # One that the service does not know may have connections by older rules.
            its, found = sleeper.container, used.get(key, [None])
            if None in found:
                self._unused(key)
                continue
            total = sum(server["total"] for _, server in found)
            busy = any(server["active"] or backend["held"] for backend, server in found)
            if busy or total != sleeper.total:
                sleeper.total = total
                self._unused(key)
            elif key in self.drained:
                if all(server["state"] == "disabled" for _, server in found):
                    await self._stop(its)
            elif self._reactor.seconds() - sleeper.used_at >= its.sleep:
                self.drained.add(key)
                self._changed()

    async def _stop(self, its: Container) -> None:
        async with self._locks.setdefault(its.id, DeferredLock()):
            if its.id not in self.drained:
                return
            try:
                await self._api.post(f"/containers/{its.id}/stop")
            except MuxError as problem:
                _log.warn(
                    "container {name}: cannot be stopped: {why}", name=its.name, why=str(problem)
                )
                self._unused(its.id)
            else:
                _log.info(
                    "container {name}: stopped, had no connection for {time}",
                    name=its.name,
                    time=duration(its.sleep),
                )


class _Bodiless(Request):
    """A request whose body goes nowhere: Twisted would write it to a file, however long it is."""

    def gotLength(self, length: int | None) -> None:  # noqa: ARG002 - Twisted's signature
        super().gotLength(0)

    def handleContentChunk(self, data: bytes) -> None:
        if self.channel is not None and data:
            self.channel.loseConnection()


class WakeSocket(Resource):
    """Listens on a UNIX socket for ``POST /NAME``, by which a service asks for the containers of a backend."""

    isLeaf = True

    def __init__(self, reactor: Any, path: str, sleepers: Sleepers) -> None:
        super().__init__()
        self._reactor = reactor
        self._path = Path(path)
        self._sleepers = sleepers
        self._port: Any = None
        self._problem = ""

    def start(self) -> None:
        """Listen, unless it does already and its file is there; a problem is logged, and tried again at the next call."""
        if self._port is not None:
            if self._path.exists():
                return
            self._port.stopListening()
            self._port = None
        with socket.socket(socket.AF_UNIX) as opened:
            try:
                bind(opened, self._path, _MODE)
                opened.listen(_BACKLOG)
            except OSError as error:
                if error.strerror != self._problem:
                    self._problem = str(error.strerror)
                    _log.warn(
                        "no container can be started for a client: cannot listen at {path}: {why}; name another socket by --wake",
                        path=self._path,
                        why=self._problem,
                    )
                return
            opened.setblocking(False)  # noqa: FBT003 - the socket module's signature
            self._port = SharedUNIXPort(opened, Site(self, requestFactory=_Bodiless), self._reactor)
        self._port.startListening()

    def stop(self) -> None:
        if self._port is not None:
            self._port.stopListening()
            with suppress(OSError):
                remove_own_socket(self._path)

    def render(self, request: Any) -> Any:
        if request.method != b"POST":
            request.setResponseCode(405)
            return b""
        answering = Deferred.fromCoroutine(self._answer(request))
        request.notifyFinish().addErrback(lambda _: answering.cancel())
        answering.addErrback(lambda failure: failure.trap(CancelledError))
        return NOT_DONE_YET

    async def _answer(self, request: Any) -> None:
        word = request.path.decode("ascii", "replace").removeprefix("/")
        try:
            status = 204 if await self._sleepers.wake(word) else 404
        except MuxError as problem:
            _log.warn(
                "{name}: cannot be started: {why}", name=printable(word, 80), why=str(problem)
            )
            status = 502
        request.setResponseCode(status)
        request.finish()

"""Starts containers that clients wait for, and stops those that no client has used for a while."""

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

from txmux.classes import define
from txmux.errors import MuxError, printable
from txmux.features.docker.api import DockerApi
from txmux.features.docker.labels import Container, LabelledRoute
from txmux.files import file_id, remove_own_socket
from txmux.net.sockets.poller import Poller
from txmux.net.sockets.port import SocketPort
from txmux.net.sockets.unixpath import open_listening
from txmux.telemetry.formatting import duration
from txmux.wire.jsontext import MISSHAPEN

# Seconds between two looks at the connections: a quarter of the sleep, or these.
_PAUSE, _LONGEST = 1.0, 10.0
_MODE = 0o660
_BACKLOG = 64
_log = Logger()


@define(eq=False)
class _Held:
    """A container, and what is known of it from one look to the next."""

    container: Container
    lock: DeferredLock = attrs.field(factory=DeferredLock)
    used_at: float = 0.0
    total: int = -1  # connections so far
    is_drained: bool = False

    @property
    def may_sleep(self) -> bool:
        return self.container.sleep > 0 and self.container.state == "running"


@define(eq=False)
class Sleepers:
    """Starts and stops the containers of one daemon.

    Args:
        ask: Asks the service, for its connections.
        changed: Called when `drained` has changed.

    Attributes:
        routes: Those in the rules.
    """

    _reactor: Any
    _api: DockerApi
    _ask: Callable[[str, str], Awaitable[Any]]
    _changed: Callable[[], object]
    _held: dict[str, _Held] = attrs.field(factory=dict, init=False)
    routes: Sequence[LabelledRoute] = attrs.field(default=(), init=False)

    @property
    def drained(self) -> set[str]:
        return {key for key, held in self._held.items() if held.is_drained}

    def hold(self, containers: Iterable[Container]) -> None:
        """Take the containers that there are now."""
        before, self._held = self._held, {}
        for its in containers:
            held = self._held[its.id] = before.get(its.id) or _Held(its)
            could_sleep, held.container = held.may_sleep, its
            if not (could_sleep and held.may_sleep):
                held.total, held.is_drained = -1, False

    def _sleeping(self) -> list[_Held]:
        return [held for held in self._held.values() if held.may_sleep]

    async def wake(self, word: str) -> bool:
        """Start the containers of a backend; return whether there are any that may be."""
        meant = [held for held in self._held.values() if held.container.wakes]
        meant = [held for held in meant if held.container.word == word]
        problems: list[MuxError] = []
        for held in meant:
            self._use(held)
            try:
                async with held.lock:
                    await self._api.post(f"/containers/{held.container.id}/start")
            except MuxError as problem:  # others may serve
                problems.append(problem)
            else:
                name = held.container.name
                _log.info("container {name}: started, since a client waits", name=name)
        if problems:
            raise problems[0]
        return bool(meant)

    def _use(self, held: _Held) -> None:
        """Begin to count the time without a connection anew."""
        held.used_at = self._reactor.seconds()
        if held.is_drained:
            held.is_drained = False
            self._changed()

    async def run(self) -> None:
        asked_at = 0.0
        while True:
            await deferLater(self._reactor, _PAUSE)
            now = self._reactor.seconds()
            shortest = min((held.container.sleep for held in self._sleeping()), default=0.0)
            if not shortest or (not self.drained and now - asked_at < min(shortest / 4, _LONGEST)):
                continue
            asked_at = now
            try:
                await self._judge(await self._ask("GET", "/api/backends"))
            except (MuxError, *MISSHAPEN) as problem:
                # It is unknown who is connected.
                _log.debug("nothing is stopped: {why}", why=str(problem))
                for held in self._sleeping():
                    self._use(held)

    async def _judge(self, backends: Any) -> None:
        rows = {
            (one["name"], its["server"]): (one, its) for one in backends for its in one["servers"]
        }
        used: dict[str, list[Any]] = {}
        for route in self.routes:
            row = rows.get((route.name, route.server)) if route.container.is_running else None
            used.setdefault(route.container.id, []).append(row)
        for held in self._sleeping():
            # One that the service does not know may have connections by older rules.
            found = used.get(held.container.id, [None])
            if None in found:
                self._use(held)
                continue
            total = sum(server["total"] for _, server in found)
            busy = any(server["active"] or backend["held"] for backend, server in found)
            if busy or total != held.total:
                held.total = total
                self._use(held)
            elif held.is_drained:
                if all(server["state"] == "disabled" for _, server in found):
                    await self._stop(held)
            elif self._reactor.seconds() - held.used_at >= held.container.sleep:
                held.is_drained = True
                self._changed()

    async def _stop(self, held: _Held) -> None:
        its = held.container
        async with held.lock:
            if its.id not in self.drained:
                return
            try:
                await self._api.post(f"/containers/{its.id}/stop")
            except MuxError as why:
                _log.warn("container {name}: cannot be stopped: {why}", name=its.name, why=why)
                self._use(held)
            else:
                done = "container {name}: stopped, had no connection for {time}"
                _log.info(done, name=its.name, time=duration(its.sleep))


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
        self._file = (0, 0)
        self._problem = ""

    def start(self) -> None:
        """Listen, unless it does already and its file is there; a problem is logged, and tried again at the next call."""
        if self._port is not None:
            if self._path.exists():
                return
            self._port.stopListening()
            self._port = None
        try:
            opened = open_listening(self._path, _MODE, _BACKLOG)
        except OSError as error:
            if error.strerror != self._problem:
                self._problem = str(error.strerror)
                message = "no container can be started for a client: cannot listen at {path}: {why}; name another socket by --wake"
                _log.warn(message, path=self._path, why=self._problem)
            return
        self._file = file_id(self._path)
        site = Site(self, requestFactory=_Bodiless)
        self._port = SocketPort(Poller.for_reactor(self._reactor), opened, site)
        self._port.startListening()

    def stop(self) -> None:
        if self._port is not None:
            self._port.stopListening()
            with suppress(OSError):
                remove_own_socket(self._path, self._file)

    def render(self, request: Any) -> Any:
        answering = Deferred.fromCoroutine(self._answer(request))
        request.notifyFinish().addErrback(lambda _: answering.cancel())
        answering.addErrback(lambda failure: failure.trap(CancelledError))
        return NOT_DONE_YET

    async def _answer(self, request: Any) -> None:
        word = request.path.decode("ascii", "replace").removeprefix("/")
        status = 405
        try:
            if request.method == b"POST":
                status = 204 if await self._sleepers.wake(word) else 404
        except MuxError as why:
            _log.warn("{name}: cannot be started: {why}", name=printable(word, 80), why=why)
            status = 502
        request.setResponseCode(status)
        request.finish()

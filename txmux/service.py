"""The service: the listeners of a rules file, from start to drained."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.logger import Logger

from txmux.errors import ListenError
from txmux.frontend.addresses import text_of
from txmux.frontend.endpoints import check_servers, server_endpoint, why_not
from txmux.frontend.listener import MuxFactory, Tally
from txmux.observe.access_log import open_log
from txmux.rules.lint import lint
from txmux.rules.parser import load
from txmux.signals import SignalWatch

if TYPE_CHECKING:
    from twisted.internet.interfaces import IListeningPort
    from twisted.python.failure import Failure

    from txmux.observe.access_log import AccessLog
    from txmux.rules.model import Listener, Rules

__all__ = ["MuxService"]


class MuxService(Service):
    """Runs what a rules file says.

    Args:
        rules: As `txmux.rules.parser.load` gives them, or made in Python.
        reactor: Listens, connects and tells the time; the process's own if not given.

    Attributes:
        ports: The listening ports, once started.
        factories: What stands behind the listeners, in the order of the rules.
    """

    _log = Logger()

    def __init__(self, rules: Rules, *, reactor: Any = None) -> None:
        if reactor is None:
            from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it
        self._reactor = reactor
        self.rules = rules
        self.ports: list[IListeningPort] = []
        self.factories: list[MuxFactory] = []
        self._access_log: AccessLog | None = None
        self._hang_up = SignalWatch(reactor, self.reopen_logs, signal.SIGHUP)
        self._listening = False

    @classmethod
    def from_file(cls, path: str | Path, *, reactor: Any = None) -> MuxService:
        """Read a rules file.

        Raises:
            RulesError: It has errors; all are named.
        """
        return cls(load(Path(path)), reactor=reactor)

    def privilegedStartService(self) -> None:
        """Listen, while there still is the privilege to; see `startService` for what it raises."""
        self._listen()
        super().privilegedStartService()

    def startService(self) -> None:
        """Listen, if that has not been done yet, and serve.

        Raises:
            ListenError: A socket cannot be opened; none is left open.
            AccessLogError: The access log's file cannot be opened.
        """
        self._listen()
        super().startService()
        self._hang_up.start()

    def stopService(self) -> Deferred[None]:
        """Stop accepting, let connections finish, and end those that take longer than ``drain_timeout``."""
        super().stopService()
        return Deferred.fromCoroutine(self._drain())

    async def _drain(self) -> None:
        # The deadline and the watch are there before anything is waited for.
        deadline = self._reactor.callLater(self.rules.settings.drain_timeout, self._end_all)
        impatience = SignalWatch(self._reactor, self._end_all, signal.SIGTERM, signal.SIGINT)
        impatience.start()
        await gatherResults([maybeDeferred(port.stopListening) for port in self.ports])
        self.ports.clear()
        open_connections = sum(len(factory.connections) for factory in self.factories)
        if open_connections:
            self._log.info(
                "open connections: {count}; they have {seconds:g} s to finish, a second signal ends them at once",
                count=open_connections,
                seconds=self.rules.settings.drain_timeout,
            )
        await gatherResults([factory.emptied() for factory in self.factories])
        impatience.stop()
        if deadline.active():
            deadline.cancel()
        self._tell_of_dry_runs()
        self.factories.clear()
        self._listening = False
        self._hang_up.stop()
        if self._access_log is not None:
            self._access_log.close()

    def _tell_of_dry_runs(self) -> None:
        for factory in self.factories:
            for name, count in factory.detector.would_have_taken.items():
                self._log.info(
                    "[route {name}] would have taken {count} connections of [listen {listener}]",
                    name=name,
                    count=count,
                    listener=factory.settings.name,
                )

    def _end_all(self) -> None:
        for factory in self.factories:
            factory.abort("drained")

    def reopen_logs(self) -> None:
        """Open the access log's file again, after it was moved away."""
        if self._access_log is not None:
            self._access_log.reopen()

    def _listen(self) -> None:
        if self._listening:
            return
        for warning in lint(self.rules):
            self._log.warn("{warning}", warning=str(warning))
        settings = self.rules.settings
        check_servers(self._reactor, self.rules.servers())
        self._access_log = open_log(settings)
        tally = Tally(settings.max_connections)
        for listener in self.rules.listeners:
            factory = MuxFactory(
                self.rules.routes_of(listener),
                listener,
                access_log=self._access_log,
                tally=tally,
                reactor=self._reactor,
            )
            self.factories.append(factory)
            for text in listener.endpoints:
                self._open(listener, text, factory)
        self._listening = True

    def _open(self, listener: Listener, text: str, factory: MuxFactory) -> None:
        def listen() -> Deferred[IListeningPort]:
            return server_endpoint(self._reactor, text, listener.backlog).listen(factory)

        failures: list[Failure] = []

        def fail_late(_: None) -> None:
            if failures:
                self._failed_late(failures[0], listener, text)

        opening = maybeDeferred(listen).addCallback(self._opened, listener)
        opening.addErrback(failures.append)
        if failures:
            self._close_ports()
            raise _listen_error(listener, text, failures[0]) from failures[0].value
        # An endpoint may take its time; one that fails then must not leave a service that only seems to run.
        opening.addCallback(fail_late)

    def _opened(self, port: IListeningPort, listener: Listener) -> None:
        self.ports.append(port)
        self._log.info(
            "listening on {address} for [listen {name}]",
            address=text_of(port.getHost()),
            name=listener.name,
        )

    def _failed_late(self, failure: Failure, listener: Listener, text: str) -> None:
        self._log.critical("{error}; stopping", error=_listen_error(listener, text, failure))
        self._reactor.stop()

    def _close_ports(self) -> None:
        for port in self.ports:
            port.stopListening()
        self.ports.clear()
        self.factories.clear()
        if self._access_log is not None:
            self._access_log.close()


def _listen_error(listener: Listener, text: str, failure: Failure) -> ListenError:
    return ListenError(
        f"[listen {listener.name}] endpoint {text}: cannot listen: {why_not(failure)}"
    )

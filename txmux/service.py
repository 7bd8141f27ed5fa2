"""The service: the listeners of a rules file, from start to drained."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

from txmux.errors import MuxError
from txmux.frontend.addresses import text_of
from txmux.frontend.limits.admission import Admission, Tally
from txmux.observe.access_log import open_log
from txmux.processes.account import account_of
from txmux.processes.parent import Parent
from txmux.processes.signals import SignalWatch, StopSignals
from txmux.rules.lint.warnings import lint
from txmux.rules.reading.parser import load
from txmux.serving.endpoints import check_servers, listen_error, server_endpoint
from txmux.serving.places import places_of
from txmux.serving.serving import Serving
from txmux.serving.store import ListeningSockets
from txmux.sockets.poller import after_turn

if TYPE_CHECKING:
    from twisted.internet.interfaces import IListeningPort
    from twisted.python.failure import Failure

    from txmux.frontend.listener import MuxFactory
    from txmux.processes.account import Account
    from txmux.rules.model import Listener, Rules

__all__ = ["MuxService"]


class MuxService(Service):
    """Runs what a rules file says.

    Args:
        rules: As `txmux.rules.parser.load` gives them, or made in Python. With several workers they have to
            come from a file, and the reactor has to be the process's own.
        reactor: Listens, connects and tells the time; the process's own if not given.

    Attributes:
        ports: The listening ports, once started; none with several workers, which have them.
        factories: What serves the listeners, in the order of the rules; none with several workers.
        failure: Why it stopped the reactor, if it did.
    """

    _log = Logger()

    def __init__(self, rules: Rules, *, reactor: Any = None) -> None:
        if reactor is None:
            from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it
        self._reactor = reactor
        self.rules = rules
        self.ports: list[IListeningPort] = []
        self.factories: list[MuxFactory] = []
        self.failure: MuxError | None = None
        self._account: Account | None = None
        self._sockets = ListeningSockets(reactor)
        self._opened: Serving | Parent | None = None
        self._stop_signals = StopSignals(reactor)
        self._on_hangup = SignalWatch(reactor, self.reopen_files, signal.SIGHUP)

    @classmethod
    def from_file(cls, path: str | Path, *, reactor: Any = None) -> MuxService:
        """Read a rules file.

        Raises:
            RulesError: It has errors; all are named.
        """
        return cls(load(Path(path)), reactor=reactor)

    def privilegedStartService(self) -> None:
        """Listen, while there still is the privilege to; see `startService` for what it raises."""
        self._open()
        super().privilegedStartService()

    def startService(self) -> None:
        """Listen, if that has not been done yet, become the user that the rules name, and serve.

        Raises:
            AccountError: The process cannot become that user.
            ListenError: A socket cannot be opened; none is left open.
            AccessLogError: The access log's file cannot be opened.
            WorkersError: The rules cannot be handed to workers.
        """
        opened = self._open()
        if isinstance(opened, Parent):
            opened.start()  # each worker changes its user by itself, when it has read its files
        if self._account is not None and self._account.become():
            self._log.info("the process is user {user} from now on", user=self._account.user)
        super().startService()
        self._stop_signals.start()
        self._on_hangup.start()

    def stopService(self) -> Deferred[None]:
        """Stop accepting, let connections finish, and end those that take longer than ``drain_timeout``."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        opened = self._opened
        if opened is not None:
            self._stop_signals.hurry = opened.end_all
            self._sockets.close()
            draining = Deferred.fromCoroutine(opened.drain())
            if self._stop_signals.is_urgent:
                opened.end_all()
            await draining
            self._opened = None
        self._stop_signals.stop()
        self._on_hangup.stop()

    def reopen_files(self) -> None:
        """Open the access log's file again, after it was moved away, and read all certificates again."""
        if self._opened is not None:
            self._opened.reopen_files()

    def _open(self) -> Serving | Parent:
        if self._opened is None:
            for warning in lint(self.rules):
                self._log.warn("{warning}", warning=str(warning))
            self._account = account_of(self.rules)
            check_servers(self._reactor, self.rules.servers())
            alone = self.rules.settings.workers == 1
            self._opened = self._serving() if alone else self._parent()
        return self._opened

    def _parent(self) -> Parent:
        parent = Parent(self.rules, self._reactor, self._sockets, self._fail)
        parent.open(self._account.owner if self._account else None)
        return parent

    def _serving(self) -> Serving:
        settings = self.rules.settings
        access_log = open_log(
            settings, after_turn(self._reactor), self._account.owner if self._account else None
        )
        serving = Serving(self.rules, access_log, self._reactor)
        self.ports, self.factories = serving.ports, serving.factories
        try:
            self._sockets.open(self.rules.listeners)
        except MuxError:
            serving.give_up()
            raise
        sockets = self._sockets.sockets()
        tally = Tally(settings.max_connections)
        for listener in self.rules.listeners:
            admission = Admission(listener, self._reactor.seconds, service=tally)
            factory = serving.add(listener, admission)
            for place in places_of(listener):
                if place.is_plain:
                    serving.listen(factory, sockets[place.key])
                else:
                    self._listen(serving, listener, place.text, factory)
        return serving

    def _listen(self, serving: Serving, listener: Listener, text: str, factory: MuxFactory) -> None:
        def listen() -> Deferred[IListeningPort]:
            return server_endpoint(self._reactor, text, listener.backlog).listen(factory)

        def listening(port: IListeningPort) -> None:
            factory.engine.gate(port)
            serving.ports.append(port)
            self._log.info(
                "listening on {address} for [listen {name}]",
                address=text_of(port.getHost()),
                name=listener.name,
            )

        failures: list[Failure] = []

        def fail_late(_: None) -> None:
            if failures:
                self._fail(listen_error(listener, text, failures[0].value))

        opening = maybeDeferred(listen).addCallback(listening)
        opening.addErrback(failures.append)
        if failures:
            serving.give_up()
            self._sockets.close()
            raise listen_error(listener, text, failures[0].value) from failures[0].value
        # An endpoint may take its time; one that fails then must not leave a service that only seems to run.
        opening.addCallback(fail_late)

    def _fail(self, error: MuxError) -> None:
        self.failure = error
        self._log.critical("{error}; stopping", error=error)
        with suppress(ReactorNotRunning):  # it may be about to stop for another reason
            self._reactor.stop()

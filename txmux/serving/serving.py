"""The listeners of rules in one process, from the first client to the last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import gatherResults
from twisted.logger import Logger

from txmux.backends.upstream import Upstreams
from txmux.frontend.engine import Engine
from txmux.frontend.listener import MuxFactory
from txmux.serving.endpoints import stop_listening
from txmux.tls.termination import Terminations

if TYPE_CHECKING:
    import socket

    from twisted.internet.interfaces import IListeningPort

    from txmux.frontend.hops import Hops
    from txmux.frontend.limits.admission import Admission
    from txmux.observe.access_log import AccessLog
    from txmux.rules.model import Listener, Rules

__all__ = ["Serving"]


class Serving:
    """Serves what comes in by the ports it is given.

    Args:
        rules: What is done with the clients.
        access_log: Is told of each connection when it has ended.
        reactor: Connects and tells the time.
        checking: Whether servers are checked here; otherwise `check_found` is told of what another process finds.
        accepting: Whether clients are accepted from the first moment, and not only after `accept`.
        hops: Shared with other processes that serve the same rules, if there are any.

    Raises:
        MuxError: A backend cannot be used, or files for TLS: one is missing, say.

    Attributes:
        ports: Where clients come in; whoever opens one adds it.
        factories: What serves the listeners, in the order in which they were added.
    """

    _log = Logger()

    def __init__(
        self,
        rules: Rules,
        access_log: AccessLog | None,
        reactor: Any,
        *,
        checking: bool = True,
        accepting: bool = True,
        hops: Hops | None = None,
    ) -> None:
        self._rules = rules
        self._access_log = access_log
        self._reactor = reactor
        self._engine = engine = Engine(
            reactor, rules.settings.relay, hops, shared=rules.settings.workers > 1
        )
        self._upstreams = Upstreams(reactor, engine.clock, engine.dial, checking=checking)
        self._upstreams.add(rules)
        self._terminations = Terminations(reactor)
        self._terminations.add(rules)
        self._accepting = accepting
        self.ports: list[IListeningPort] = []
        self.factories: list[MuxFactory] = []

    def add(self, listener: Listener, admission: Admission) -> MuxFactory:
        """Make what serves a listener.

        Args:
            listener: One of the rules.
            admission: Decides who may come in by it.
        """
        factory = MuxFactory(
            self._rules.routes,
            listener,
            access_log=self._access_log,
            admission=admission,
            engine=self._engine,
            upstreams=self._upstreams,
            terminations=self._terminations,
        )
        self.factories.append(factory)
        return factory

    def listen(self, factory: MuxFactory, opened: socket.socket) -> None:
        """Accept the clients of a socket, of which a duplicate is taken."""
        port: Any = factory.listen(opened)
        if not self._accepting:
            port.stopReading()
        self.ports.append(port)

    def accept(self) -> None:
        """Accept clients, after `pause`."""
        self._accepting = True
        ports: list[Any] = self.ports
        for port in ports:
            port.startReading()

    def pause(self) -> None:
        """Leave new clients in the queues of the sockets, for another process or until `accept`."""
        self._accepting = False
        ports: list[Any] = self.ports
        for port in ports:
            port.stopReading()

    async def drain(self) -> None:
        """Stop accepting, let connections finish, and end those that take longer than ``drain_timeout``."""
        seconds = self._rules.settings.drain_timeout
        # The deadline is there before anything is waited for.
        deadline = self._reactor.callLater(seconds, self.end_all)
        await gatherResults(map(stop_listening, self.ports))
        self.ports.clear()
        open_connections = sum(len(factory.connections) for factory in self.factories)
        if open_connections:
            self._log.info(
                "open connections: {count}; they have {seconds:g} s to finish, a second signal ends them at once",
                count=open_connections,
                seconds=seconds,
            )
        await gatherResults([factory.emptied() for factory in self.factories])
        await gatherResults([factory.stopped() for factory in self.factories])
        if deadline.active():
            deadline.cancel()
        self._tell_of_dry_runs()
        self.factories.clear()
        if self._access_log is not None:
            self._access_log.close()

    def _tell_of_dry_runs(self) -> None:
        for generation in (factory.generation for factory in self.factories):
            for name, count in generation.dry_runs:
                self._log.info(
                    "[route {name}] would have taken {count} connections of [listen {listener}]",
                    name=name,
                    count=count,
                    listener=generation.settings.name,
                )

    def end_all(self) -> None:
        """End every connection."""
        for factory in self.factories:
            factory.abort("drained")

    def give_up(self) -> None:
        """Close all ports: one of them could not be opened."""
        for port in self.ports:
            port.stopListening()
        self.ports.clear()
        self.factories.clear()
        if self._access_log is not None:
            self._access_log.close()

    def check_found(self, backend: str, key: str, *, ok: bool, why: str) -> None:
        """Take in what a check of another process has found; see `Upstreams.apply`."""
        self._upstreams.apply(backend, key, ok=ok, why=why)

    def reopen_files(self) -> None:
        """Open the access log's file again, after it was moved away, and read all certificates again."""
        self._terminations.reread()
        if self._access_log is not None:
            self._access_log.reopen()

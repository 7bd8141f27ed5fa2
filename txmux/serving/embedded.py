"""A Twisted service that serves rules in this process, for programs with protocols or rules of their own."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from txmux.access.admission import Admission, Counter, Tally
from txmux.access.per_source import PerSource, SourceLimits
from txmux.client.active_listener import ActiveListener
from txmux.client.parts import Parts, ServiceContext, ServicePart
from txmux.errors import ListenError
from txmux.rules.changes import changes, described_untaken, unchangeable
from txmux.rules.embedding import rules_from_python
from txmux.rules.model import Listener, Rules
from txmux.rules.problems import RulesError
from txmux.serving.endpoints import check_servers
from txmux.serving.listen_addresses import listen_addresses
from txmux.serving.serving import Serving, open_access_log
from txmux.serving.store import ListeningSockets

__all__ = ["EmbeddedService"]


class EmbeddedService(Service):
    """Serves the listeners of rules in this process: no supervisor, no workers, no admin endpoint and no upgrade.

    Its backends may be protocols of this process (`txmux.rules.model.InProcess`). Endpoints have to be plain: a TCP or UDP
    address, ``unix:`` or ``systemd:``. For any other, give a `txmux.MuxFactory` to the endpoint.

    Args:
        rules: Made in Python, or as `txmux.load` gives them.
        reactor: The reactor to use; the process's own if not given.

    Attributes:
        rules: The rules in force.
        serving: The listeners, while the service runs.
    """

    _log = Logger()

    def __init__(self, rules: Rules, *, reactor: Any = None) -> None:
        if reactor is None:
            from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it
        self.rules = rules_from_python(rules)
        self.serving: Serving | None = None
        self._reactor = reactor
        self._sockets = ListeningSockets(reactor)
        context = ServiceContext(
            reactor, None, self._send_to_part, per_source=lambda: self._sources
        )
        self._parts = Parts[ServicePart](lambda feature: feature.part(context))
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor
        self._counters: dict[str, Counter] = {}
        self._sources: dict[str, PerSource | None] = {}

    @property
    def ports(self) -> list[IListeningPort]:
        return [] if self.serving is None else self.serving.listening_ports.ports

    @property
    def listeners(self) -> list[ActiveListener]:
        return [] if self.serving is None else self.serving.listeners

    def privilegedStartService(self) -> None:
        """Listen, while there still is the privilege to; see `startService` for what it raises."""
        self._open()
        super().privilegedStartService()

    def startService(self) -> None:
        """Listen and serve.

        Raises:
            ListenError: A socket cannot be opened; none is left open.
            AccessLogError: The access log's file cannot be opened.
            MuxError: A backend cannot be used, or files for TLS.
        """
        self._open()
        super().startService()

    def _open(self) -> None:
        if self.serving is not None:
            return
        rules = self.rules
        self._check(rules)
        serving = Serving(rules, open_access_log(rules.settings, self._reactor), self._reactor)
        try:
            self._sockets.open(rules.listeners)
            serving.listen_all(rules, self._sockets.sockets(), {}, self._admission(rules))
        except Exception:
            serving.give_up()
            self._sockets.close()
            raise
        self.serving = serving
        self._use_parts(rules)

    def _use_parts(self, rules: Rules) -> None:
        self._parts.commit(rules)
        if self._parts and not self._looking.running:
            self._looking.start(1.0, now=False)

    def _look(self) -> None:
        for part in self._parts.values():
            part.look()

    def _send_to_part(self, feature: str, values: Any) -> Deferred[Any]:
        received = None if self.serving is None else self.serving.receive(feature, values)
        return received if isinstance(received, Deferred) else succeed(received)

    def _check(self, rules: Rules) -> None:
        for line in described_untaken(rules):
            self._log.error("{line}", line=line)
        self._parts.prepare(rules)
        check_servers(self._reactor, rules.servers())
        for listener in rules.listeners:
            for address in listen_addresses(listener):
                if not address.is_socket:
                    raise ListenError(
                        f"[listen {listener.name}] endpoint {address.text}: an embedded service cannot open it; "
                        "give a MuxFactory to that endpoint"
                    )

    def _admission(self, rules: Rules) -> Callable[[Listener], Admission]:
        """Return a function that makes admissions, which continue the counts of the previous rules."""

        def tally(limit: int, name: str) -> Tally:
            return Tally(limit, self._counters.setdefault(name, Counter()))

        def admission(listener: Listener) -> Admission:
            limits = SourceLimits.for_listener(listener)
            before = self._sources.get(listener.name)
            table = None if before is None else before.source_table
            seconds = self._reactor.seconds
            per_source = None if limits is None else PerSource(limits, seconds, table)
            self._sources[listener.name] = per_source or before
            whole = tally(rules.settings.max_connections, "")
            own = tally(listener.max_connections, listener.name)
            return Admission(listener, seconds, service=whole, listener=own, per_source=per_source)

        return admission

    def reload(self, rules: Rules) -> int:
        """Serve other rules from now on. Existing connections keep their rules.

        Args:
            rules: The new rules.

        Returns:
            The number of connections that keep older rules.

        Raises:
            MuxError: They cannot be served, or have another `relay`; nothing has changed.
        """
        rules, serving = rules_from_python(rules), self.serving
        if serving is None:
            self.rules = rules
            return 0
        problems = unchangeable(self.rules.settings, rules.settings, ["relay"])
        if problems:
            raise RulesError(problems)
        self._check(rules)
        left = serving.listening_ports.left()  # the new rules may have such a port again
        for key, port in left.items():
            self._sockets.adopt(key, port.duplicate())
        try:
            sockets = self._sockets.prepare(rules.listeners)
            with ExitStack() as undo:
                undo.callback(sockets.abandon)
                prepared = serving.prepare(rules, sockets.sockets, self._admission(rules))
                undo.callback(serving.abandon, prepared)
                sockets.listen()
                undo.pop_all()
            sockets.commit()
            serving.commit(prepared)
            self._sockets.close_unused()
        finally:
            for key in left:
                self._sockets.give_up(key)
        different = changes(self.rules, rules)
        self.rules = rules
        self._use_parts(rules)
        if rules.settings.drain_removed:
            serving.end_removed(different.routes.gone, different.backends.gone)
        return len(serving.older())

    def stopService(self) -> Deferred[None]:
        """Stop accepting, let connections finish, and end those that take longer than ``drain_timeout``."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        serving, self.serving = self.serving, None
        if self._looking.running:
            self._looking.stop()
            await gatherResults(filter(None, [part.stop() for part in self._parts.values()]))
        if serving is not None:
            self._sockets.close()
            await serving.drain(heeds_signals=False)

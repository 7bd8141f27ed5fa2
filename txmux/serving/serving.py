"""The listeners of rules in one process, from the first client to the last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from txmux.backends.upstream import Upstreams
from txmux.errors import MuxError
from txmux.frontend.engine import Engine
from txmux.frontend.generation import Generation
from txmux.frontend.limits.admission import Admission
from txmux.frontend.listener import MuxFactory
from txmux.rules.model import Listener
from txmux.serving.door import Door
from txmux.serving.endpoints import accept_waiting, stop_listening
from txmux.serving.places import places_of
from txmux.serving.prepared import Prepared
from txmux.tls.termination import Terminations

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Collection, Mapping

    from twisted.internet.interfaces import IDelayedCall, IListeningPort

    from txmux.frontend.connection import MuxProtocol
    from txmux.frontend.hops import Hops
    from txmux.observe.access_log import AccessLog
    from txmux.rules.model import Rules
    from txmux.serving.door import Forwarding

__all__ = ["Serving"]

_STEPS = 100
"""The most moments at which connections are ended when their time is over."""


class Serving:
    """Serves what comes in by the ports it is given, under rules that may change.

    Args:
        rules: What is done with the clients.
        access_log: Is told of each connection when it has ended.
        reactor: Connects and tells the time.
        checking: Whether servers are checked here; otherwise `check_found` is told of what another process finds.
        accepting: Whether clients are accepted from the first moment, and not only after `accept`.
        shared: Whether other processes accept from the same sockets.
        hops: Shared with other processes that serve the same rules, if there are any.

    Raises:
        MuxError: A backend cannot be used, or files for TLS: one is missing, say.

    Attributes:
        ports: Where clients come in.
        factories: What serves the listeners, in the order in which they were added.
        number: Of the version of the rules, counted from 1.
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
        shared: bool = False,
        hops: Hops | None = None,
    ) -> None:
        self._rules = rules
        self._access_log = access_log
        self._reactor = reactor
        self._engine = engine = Engine(reactor, rules.settings.relay, hops, shared=shared)
        self._upstreams = Upstreams(reactor, engine.clock, engine.dial, checking=checking)
        self._upstreams.add(rules)
        self._terminations = Terminations(reactor)
        self._terminations.add(rules)
        self._accepting = accepting
        self._doors: dict[str, Door] = {}
        self._retiring: list[MuxFactory] = []
        self._later: set[IDelayedCall] = set()
        self.ports: list[IListeningPort] = []
        self.factories: list[MuxFactory] = []
        self.number = 1

    def add(self, listener: Listener, admission: Admission) -> MuxFactory:
        """Make what serves a listener.

        Args:
            listener: One of the rules.
            admission: Decides who may come in by it.
        """
        factory = self._make(self._rules, listener, admission, self.number)
        factory.log_to(self._access_log)
        self.factories.append(factory)
        return factory

    def _make(
        self, rules: Rules, listener: Listener, admission: Admission, number: int
    ) -> MuxFactory:
        factory = MuxFactory(
            rules.routes,
            listener,
            admission=admission,
            engine=self._engine,
            upstreams=self._upstreams,
            terminations=self._terminations,
        )
        factory.generation = attrs.evolve(factory.generation, number=number)
        return factory

    def listen(self, factory: MuxFactory, key: str, opened: socket.socket) -> None:
        """Accept the clients of a socket, of which a duplicate is taken.

        Args:
            factory: Serves them.
            key: The socket's among those of the service.
            opened: Listens already.
        """
        self._enter(
            key, Door(factory.listen(opened), factory, factory.generation.settings.keepalive)
        )

    def enter(self, key: str, port: IListeningPort, forwarding: Forwarding) -> None:
        """Have a port that Twisted has opened.

        Args:
            key: Its own among those of the service.
            port: Accepts clients.
            forwarding: Leads them to a listener.
        """
        assert forwarding.to is not None  # noqa: S101 - whoever opens it says so
        self._engine.gate(port)
        self._enter(key, Door(port, forwarding.to, keepalive=None, forwarding=forwarding))

    def has(self, key: str) -> bool:
        """Tell whether there is a port of this key."""
        return key in self._doors

    def _enter(self, key: str, door: Door) -> None:
        if not self._accepting:
            door.port.stopReading()
        self._doors[key] = door
        self.ports.append(door.port)

    def factory_of(self, listener: str) -> MuxFactory:
        """Give what serves a listener; where there is none of that name any more, what keeps its old connections."""
        for factory in self._all():
            if factory.generation.settings.name == listener:
                return factory
        gone = Listener(listener)
        return self.add(gone, Admission(gone, self._reactor.seconds))

    def connections(self) -> list[MuxProtocol]:
        """Give all that are not over."""
        return [one for factory in self._all() for one in factory.connections]

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

    # Other rules.

    def prepare(
        self,
        rules: Rules,
        sockets: Mapping[str, socket.socket],
        admission: Callable[[Listener], Admission],
        access_log: AccessLog | None,
        *,
        afresh: bool = True,
    ) -> Prepared:
        """Get ready to accept the next clients under other rules; nothing that there is changes before `commit`.

        Args:
            rules: The others.
            sockets: All that the rules need, but for those that Twisted opens, by the keys of their places.
            admission: Makes what decides who may come in by a listener.
            access_log: Is told of each connection that ends from then on; the one before is closed.
            afresh: Whether the rules are others at all; otherwise only files are read again.

        Raises:
            MuxError: All that cannot be used, one line each.
        """
        upstreams = self._upstreams.prepare(rules)
        terminations = self._terminations.prepare(rules)
        number = self.number + afresh
        prepared = Prepared(self, rules, number, sockets, access_log, upstreams, terminations)
        problems = [*upstreams.problems, *map(str, terminations.problems)]
        if problems:
            prepared.abandon()
            raise MuxError("\n".join(problems))
        try:
            self._prepare_listeners(prepared, admission, afresh=afresh)
        except OSError as problem:
            prepared.abandon()
            raise MuxError(f"a socket cannot be handed on: {problem.strerror}") from problem
        except MuxError:
            prepared.abandon()
            raise
        return prepared

    def _prepare_listeners(
        self, prepared: Prepared, admission: Callable[[Listener], Admission], *, afresh: bool
    ) -> None:
        rules, sockets = prepared.rules, prepared.sockets
        known = {factory.generation.settings.name: factory for factory in self.factories}
        for listener in rules.listeners:
            factory = known.get(listener.name)
            if factory is None:
                factory = self._make(rules, listener, admission(listener), prepared.number)
            elif afresh:
                prepared.generations[factory] = Generation.make(
                    rules.routes,
                    listener,
                    admission(listener),
                    self._engine,
                    self._upstreams,
                    self._terminations,
                    prepared.number,
                )
            prepared.factories.append(factory)
            for place in places_of(listener):
                prepared.places[place.key] = factory
                if place.is_plain and self._is_other(place.key, factory, listener):
                    # There will be a descriptor for it.
                    prepared.reserved[place.key] = sockets[place.key].dup()

    def _is_other(self, key: str, factory: MuxFactory, listener: Listener) -> bool:
        door = self._doors.get(key)
        return door is None or door.factory is not factory or door.keepalive != listener.keepalive

    def commit(self, prepared: Prepared) -> None:
        """See `Prepared.commit`."""
        prepared.upstreams.commit()
        prepared.terminations.commit()
        self._rules, self.number = prepared.rules, prepared.number
        for factory, generation in prepared.generations.items():
            self._tell_of_dry_runs(factory)
            factory.change(generation)
        gone = [factory for factory in self.factories if factory not in prepared.factories]
        self.factories[:] = prepared.factories
        self._retiring = [*filter(lambda one: one.connections, self._retiring), *gone]
        for factory in (*self.factories, *self._retiring):
            factory.log_to(prepared.access_log)
        self._change_doors(prepared)
        for factory in gone:
            self._tell_of_dry_runs(factory)
        access_log, self._access_log = self._access_log, prepared.access_log
        if access_log is not None and access_log is not prepared.access_log:
            access_log.close()

    def _change_doors(self, prepared: Prepared) -> None:
        before, self._doors = self._doors, {}
        self.ports.clear()
        for key, factory in prepared.places.items():
            door = before.get(key)
            if key in prepared.reserved:
                prepared.reserved.pop(key).close()
                self.listen(factory, key, prepared.sockets[key])
            elif door is not None:
                if door.forwarding is not None:
                    door.forwarding.lead(factory)
                    door.factory = factory
                self._enter(key, before.pop(key))
        for key, door in before.items():
            if key not in prepared.places and self._accepting:
                accept_waiting(door.port)
            stop_listening(door.port)

    def abandon(self, prepared: Prepared) -> None:
        """See `Prepared.abandon`."""
        prepared.upstreams.abandon()
        prepared.terminations.abandon()
        for reserved in prepared.reserved.values():
            reserved.close()

    def older(self) -> list[MuxProtocol]:
        """Give the connections that were accepted under older rules."""
        return [one for one in self.connections() if one.generation.number < self.number]

    def end_removed(self, routes: Collection[str], backends: Collection[str]) -> None:
        """End the connections that there are of routes and backends that are no more, after ``drain_timeout``."""
        number = self.number

        def end() -> None:
            self._later.discard(call)
            # What has come back in the meantime is not removed.
            gone = set(routes) - {route.name for route in self._rules.routes}
            gone_backends = set(backends) - {*self._rules.backends}
            for factory in (*self.factories, *self._retiring):
                for one in [*factory.connections]:
                    record = one.record
                    if one.generation.number < number and (
                        record.route in gone or record.backend in gone_backends
                    ):
                        factory.end(one, "drained")

        call = self._reactor.callLater(self._rules.settings.drain_timeout, end)
        self._later.add(call)

    # The end.

    def _all(self) -> list[MuxFactory]:
        return [*self.factories, *self._retiring]

    def retire(self) -> Deferred[Any]:
        """Accept no more; what fires does so when all connections have ended, however long they take."""
        for port in self.ports:
            stop_listening(port)
        self.ports.clear()
        self._doors.clear()
        return gatherResults([factory.emptied() for factory in self._all()])

    async def status(self) -> dict[str, Any]:
        """Count the connections, for ``/api/status``."""
        connections = self.connections()
        return {
            "generation": self.number,
            "active": len(connections),
            "undecided": sum(one.record.detect_ms is None for one in connections),
            "older": len(self.older()),
        }

    async def drain(self) -> None:
        """Stop accepting, let connections finish, and end those that take longer than ``drain_timeout``.

        In its second half they are ended one after another, so that not all of them come back at once.
        """
        seconds = self._rules.settings.drain_timeout
        # The deadline is there before anything is waited for.
        self._later.add(self._reactor.callLater(seconds / 2, self._end_by_and_by, seconds / 2))
        self._later.add(self._reactor.callLater(seconds, self.end_all))
        await gatherResults(map(stop_listening, self.ports))
        self.ports.clear()
        self._doors.clear()
        open_connections = len(self.connections())
        if open_connections:
            self._log.info(
                "open connections: {count}; they have {seconds:g} s to finish, a second signal ends them at once",
                count=open_connections,
                seconds=seconds,
            )
        await gatherResults([factory.emptied() for factory in self._all()])
        await gatherResults([factory.stopped() for factory in self._all()])
        for call in self._later:
            if call.active():
                call.cancel()
        self._later.clear()
        for factory in self.factories:
            self._tell_of_dry_runs(factory)
        self.factories.clear()
        self._retiring.clear()
        if self._access_log is not None:
            self._access_log.close()

    def _end_by_and_by(self, seconds: float) -> None:
        """End connections at even distances; the last after so many seconds."""
        left = [(factory, one) for factory in self._all() for one in factory.connections]
        steps = min(len(left), _STEPS)

        def end(step: int) -> None:
            for factory, one in left[step::steps]:
                if one in factory.connections:
                    factory.end(one, "drained")

        for step in range(steps):
            call = self._reactor.callLater(seconds * (step + 1) / steps, end, step)
            self._later.add(call)

    def _tell_of_dry_runs(self, factory: MuxFactory) -> None:
        generation = factory.generation
        for name, count in generation.dry_runs:
            self._log.info(
                "[route {name}] would have taken {count} connections of [listen {listener}]",
                name=name,
                count=count,
                listener=generation.settings.name,
            )

    @staticmethod
    def answers() -> bool:
        """Tell that this process does its work, as whoever hears this knows."""
        return True

    def end_all(self) -> None:
        """End every connection."""
        for factory in self._all():
            factory.abort("drained")

    def give_up(self) -> None:
        """Close all ports: one of them could not be opened."""
        for port in self.ports:
            port.stopListening()
        self.ports.clear()
        self._doors.clear()
        self.factories.clear()
        if self._access_log is not None:
            self._access_log.close()

    def down(self) -> list[dict[str, Any]]:
        """Give what another process has to know of servers; see `Upstreams.down`."""
        return self._upstreams.down()

    def check_found(self, backend: str, key: str, *, ok: bool, why: str) -> None:
        """Take in what a check of another process has found; see `Upstreams.apply`."""
        self._upstreams.apply(backend, key, ok=ok, why=why)

    def reopen_files(self) -> None:
        """Open the access log's file again, after it was moved away, and read all certificates again."""
        self._terminations.reread()
        self.reopen_log()

    def reopen_log(self) -> None:
        """Open the access log's file again."""
        if self._access_log is not None:
            self._access_log.reopen()

"""Having one process serve all that rules name."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from txmux.frontend.addresses import text_of
from txmux.observe.access_log import open_log
from txmux.observe.counting.counters import OWN
from txmux.serving.door import Forwarding
from txmux.serving.endpoints import listen_error, server_endpoint, stop_listening
from txmux.serving.places import places_of
from txmux.serving.serving import Serving
from txmux.serving.store import close_socket
from txmux.sockets.poller import after_turn

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from twisted.internet.interfaces import IListeningPort
    from twisted.python.failure import Failure

    from txmux.errors import MuxError
    from txmux.frontend.limits.admission import Admission
    from txmux.frontend.listener import MuxFactory
    from txmux.observe.counting.counters import Counters
    from txmux.rules.model import Listener, Rules
    from txmux.serving.places import Place
    from txmux.serving.store import ListeningSockets

__all__ = ["Opening"]


class Opening:
    """Makes what serves, and opens what is not a plain socket.

    Args:
        reactor: Opens ports.
        sockets: Those of the service.
        admissions: Gives, for some rules, what makes the admission of a listener.
        counters: Those of all processes.
        fail: Is told of a port that cannot be opened when it is too late to raise.

    Attributes:
        reactor: As above.
        counters: As above.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        sockets: ListeningSockets,
        admissions: Callable[[Rules], Callable[[Listener], Admission]],
        counters: Counters,
        fail: Callable[[MuxError], object],
    ) -> None:
        self.reactor = reactor
        self.counters = counters
        self._sockets = sockets
        self._admissions = admissions
        self._fail = fail

    def make(
        self, rules: Rules, owner: tuple[int, int] | None, *, accepting: bool = True
    ) -> Serving:
        """Make what serves rules, without a port yet."""
        access_log = open_log(rules.settings, after_turn(self.reactor), owner)
        serving = Serving(
            rules,
            access_log,
            self.reactor,
            accepting=accepting,
            column=self.counters.column(OWN),
        )
        serving.admission = self._admissions(rules)
        return serving

    def listen_all(
        self,
        serving: Serving,
        rules: Rules,
        sockets: Mapping[str, socket.socket],
        others: Mapping[str, tuple[IListeningPort, Forwarding]],
    ) -> None:
        """Accept the clients of all endpoints; those that Twisted opens may be open already."""
        admission = self._admissions(rules)
        for listener in rules.listeners:
            factory = serving.add(listener, admission(listener))
            for place in places_of(listener):
                if place.is_plain:
                    serving.listen(factory, place.key, sockets[place.key])
                elif place.key in others:
                    port, forwarding = others[place.key]
                    forwarding.lead(factory)
                    serving.enter(place.key, port, forwarding)
                else:
                    self._listen(serving, listener, place, factory)

    def _listen(
        self, serving: Serving, listener: Listener, place: Place, factory: MuxFactory
    ) -> None:
        text = place.text
        forwarding = Forwarding()
        forwarding.lead(factory)

        def listen() -> Deferred[IListeningPort]:
            return server_endpoint(self.reactor, text, listener.backlog).listen(forwarding)

        def listening(port: IListeningPort) -> None:
            serving.enter(place.key, port, forwarding)
            self._log.info(
                "listening on {address} for [listen {name}]",
                address=text_of(port.getHost()),
                name=listener.name,
            )

        failures: list[Failure] = []

        def fail_late(_: None) -> None:
            if failures:
                self._fail(listen_error(place, failures[0].value))

        opening = maybeDeferred(listen).addCallback(listening)
        opening.addErrback(failures.append)
        if failures:
            serving.give_up()
            self._sockets.close()
            raise listen_error(place, failures[0].value) from failures[0].value
        # An endpoint may take its time; one that fails then must not leave a service that only seems to run.
        opening.addCallback(fail_late)

    async def open_others(
        self,
        serving: Serving,
        rules: Rules,
        others: dict[str, tuple[IListeningPort, Forwarding]],
    ) -> None:
        """Open the ports that are for Twisted to open, and are new."""
        for listener in rules.listeners:
            for place in places_of(listener):
                if place.is_plain or serving.has(place.key):
                    continue
                forwarding = Forwarding()
                try:
                    endpoint = server_endpoint(self.reactor, place.text, listener.backlog)
                    others[place.key] = (await endpoint.listen(forwarding), forwarding)
                except Exception as problem:
                    for port, _ in others.values():
                        await stop_listening(port)
                    raise listen_error(place, problem) from problem

    async def change(
        self, serving: Serving, rules: Rules, owner: tuple[int, int] | None, *, afresh: bool
    ) -> int:
        """Have this process serve other rules, and give the number of connections that keep the older ones.

        Raises:
            MuxError: It cannot; nothing has changed.
        """
        settings = rules.settings
        others: dict[str, tuple[IListeningPort, Forwarding]] = {}
        with ExitStack() as undo:
            for key, left in serving.doors.left().items():
                # A listener that comes back gets the socket that its flows still have.
                if self._sockets.has(key):
                    left.close()
                else:
                    self._sockets.adopt(key, left)
                    undo.callback(self._sockets.give_up, key)
            sockets = self._sockets.prepare(rules.listeners)
            undo.callback(sockets.abandon)
            access_log = open_log(settings, after_turn(self.reactor), owner)
            if access_log is not None:
                undo.callback(access_log.close)
            prepared = serving.prepare(
                rules,
                sockets.sockets,
                self._admissions(rules),
                access_log,
                afresh=afresh,
            )
            undo.callback(prepared.abandon)
            await self.open_others(serving, rules, others)
            undo.pop_all()
        unused = sockets.commit()
        for key, (port, forwarding) in others.items():
            forwarding.lead(prepared.places[key])
            serving.enter(key, port, forwarding)
        prepared.commit()
        for key, opened in unused.items():
            close_socket(key, opened)
        return len(serving.older())

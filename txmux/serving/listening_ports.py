"""The listening ports of a process, and which of them accept clients."""

import os
import socket
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, ClassVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort

from txmux.classes import define
from txmux.client.active_listener import ActiveListener
from txmux.client.socket_options import socket_options
from txmux.net.sockets.descriptors import cannot_accept
from txmux.net.sockets.plainsocket import SocketOption
from txmux.rules.model import Listener
from txmux.serving import endpoints


@define
class ListeningPort:
    """A TCP port.

    Attributes:
        options: All options of its socket; if a reload changes one, the port is replaced.
        forwarding: Passes clients to the listener, if Twisted has opened the port.
        is_open: Whether it accepts clients, and does not leave them in the queue.
    """

    is_for_datagrams: ClassVar[bool] = False

    port: Any
    listener: ActiveListener
    options: Sequence[SocketOption] = ()
    forwarding: endpoints.ForwardingFactory | None = None
    is_open: bool = True

    def can_serve(self, listener: ActiveListener, settings: Listener) -> bool:
        return self.listener is listener and self.options == socket_options(settings)

    def forward_to(self, listener: ActiveListener) -> None:
        """Pass the next clients to a listener that it can serve."""
        if self.forwarding is not None:
            self.forwarding.forward_to(listener)
            self.listener = listener

    def duplicate(self) -> socket.socket:
        duplicate = socket.socket(fileno=os.dup(self.port.fileno()))
        duplicate.setblocking(False)  # noqa: FBT003 - the socket module's signature
        return duplicate

    def close_port(self, *, is_left: bool = False) -> Deferred[None]:  # noqa: ARG002 - connections have sockets of their own
        return endpoints.stop_listening(self.port)

    def empty_queue(self, accept: Callable[[IListeningPort], None]) -> None:
        """Accept the clients that wait, by `endpoints.accept_waiting` or `endpoints.accept_last`."""
        accept(self.port)

    def admit_new(self, *, is_admitted: bool) -> None: ...

    def listen_again(self, listener: ActiveListener) -> bool:  # noqa: ARG002 - as for `close_port`
        """Reopen the port after `close_port`, if it still has flows; return whether it does."""
        return False

    def await_flows(self, *, on: bool) -> None:
        """Set whether flows of unknown clients may arrive from another process."""


class ListeningPorts:
    """The ports by the keys of their addresses.

    Args:
        datagrams: Whether datagrams are read at once, and not only after `take_datagrams`.

    Attributes:
        awaited: The number of calls of `await_flows`.
    """

    def __init__(self, *, accepting: bool, datagrams: bool = True) -> None:
        self.accepting = accepting
        self._datagrams = datagrams
        self._awaits_flows = self._is_ending = self._gave_flows = False
        self.awaited = 0
        self._arrived: Deferred[None] | None = None
        self.ports: list[IListeningPort] = []
        self._shut: frozenset[str] = frozenset()
        self._by_key: dict[str, ListeningPort] = {}
        self._left: dict[str, ListeningPort] = {}

    def get(self, key: str) -> ListeningPort | None:
        return self._by_key.get(key)

    def keys(self) -> frozenset[str]:
        return frozenset(self._by_key)

    def enter(self, key: str, port: ListeningPort) -> None:
        self._gave_flows = False
        self._by_key[key] = port
        self.ports.append(port.port)
        if port.is_for_datagrams:
            port.port.place = key
        if self._awaits_flows:
            port.await_flows(on=True)
        self._apply(port)

    def reader_at(self, key: str) -> ListeningPort | None:
        """Return the UDP port of an address; ``None`` if another process reads its datagrams."""
        port = self._by_key.get(key)
        return port if port is not None and port.is_for_datagrams and self._datagrams else None

    def take_all(self) -> dict[str, ListeningPort]:
        taken, self._by_key = self._by_key, {}
        self.ports.clear()
        return taken

    def close(self, key: str, port: ListeningPort, *, is_left: bool = False) -> None:
        """Close a port, but a UDP port after its last flow. `is_left` means that another process has the same socket."""
        port.close_port(is_left=is_left)
        if port.is_for_datagrams:
            self._left[key] = port

    def give_up(self, keys: Iterable[str], removed: Collection[str] = ()) -> None:
        """Accept the clients that wait at these addresses, and close the ports; refuse others at those of `removed`."""
        for key in keys:
            port = self._by_key.pop(key, None)
            if port is not None:
                self.ports.remove(port.port)
                is_last = key in removed
                port.empty_queue(endpoints.accept_last if is_last else endpoints.accept_waiting)
                self.close(key, port)

    def left(self) -> dict[str, ListeningPort]:
        """Return the closed ports that still have flows."""
        self._left = {key: port for key, port in self._left.items() if port.port.flows}
        return {**self._left}

    def returned(self, key: str, listener: ActiveListener) -> ListeningPort | None:
        """Reopen a closed port that still has flows, for this listener."""
        port = self._left.pop(key, None)
        return port if port is not None and port.listen_again(listener) else None

    def close_all(self) -> list[Deferred[Any]]:
        return [endpoints.stop_listening(port.port) for port in self.take_all().values()]

    def accept(self) -> None:
        self.accepting = True
        self._apply_all()

    def take_datagrams(self) -> None:
        """Read datagrams; only one of the processes that share the sockets may."""
        self._datagrams, self._gave_flows = True, False
        self._apply_all()

    def keep_flows(self) -> None:
        # Datagrams of flows are read after `pause`, too, since this process ends with them.
        self._is_ending = True

    def leave_datagrams(self) -> None:
        self._datagrams = False
        self._apply_all()

    @property
    def owns_flows(self) -> bool:
        """Whether this process has all flows: it reads datagrams, or has retired, and has not handed its flows over."""
        return self._datagrams and not self._gave_flows

    @property
    def reads_datagrams(self) -> bool:
        return self._datagrams

    def flows_handed_over(self) -> None:
        self._gave_flows = True

    def await_flows(self) -> None:
        """Hold datagrams of unknown clients, whose flows may come from another process."""
        self._awaits_flows = True
        self.awaited += 1
        for port in self._by_key.values():
            port.await_flows(on=True)

    def arrived(self) -> Deferred[None]:
        """Wait for the awaited flows, if there are ports for them."""
        if not self._awaits_flows or not any(
            port.is_for_datagrams for port in self._by_key.values()
        ):
            return succeed(None)
        if self._arrived is None:
            self._arrived = Deferred()
        return self._arrived

    def flows_are_here(self, awaited: int | None = None) -> None:
        """Start flows of unknown clients again; not if flows of a later `await_flows` than `awaited` are yet to come."""
        if awaited not in {None, self.awaited}:
            return
        self._awaits_flows = False
        if self._arrived is not None:
            arrived, self._arrived = self._arrived, None
            arrived.callback(None)
        for port in self._by_key.values():
            port.await_flows(on=False)

    def pause(self) -> None:
        """Leave new clients in the queues, for another process or until `accept`."""
        self.accepting = False
        self._apply_all()

    def shut(self, listeners: Iterable[str]) -> None:
        """Leave the clients of these listeners in the queues, and no others."""
        self._shut = frozenset(listeners)
        self._apply_all()

    def accepted(self) -> set[str]:
        open_now = [port for port in self._by_key.values() if self._has_clients(port)]
        return {port.listener.configuration.settings.name for port in open_now}

    def held_up(self) -> dict[str, tuple[str, float]]:
        """Return the listeners that cannot accept clients: why, and since when, in seconds since 1970."""
        found, held_up = cannot_accept(), {}
        for port in self._by_key.values() if found else ():
            trouble = None if port.is_for_datagrams else found.get(port.port.fileno())
            if trouble is not None and self._has_clients(port):
                held_up[port.listener.configuration.settings.name] = trouble
        return held_up

    def _has_clients(self, port: ListeningPort) -> bool:
        return self.accepting and port.listener.configuration.settings.name not in self._shut

    def _apply_all(self) -> None:
        for port in self._by_key.values():
            self._apply(port)

    def _apply(self, port: ListeningPort) -> None:
        # A port that is open already is not started: that would end its wait for free descriptors.
        open_now = self._has_clients(port)
        if port.is_for_datagrams:
            port.admit_new(is_admitted=open_now)
            open_now = (self.accepting or self._is_ending) and self._datagrams
        if open_now != port.is_open:
            port.is_open = open_now
            (port.port.startReading if open_now else port.port.stopReading)()

"""The listening ports of a process, and which of them accept clients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort

from txmux.client.active_listener import ActiveListener
from txmux.serving.endpoints import accept_waiting, stop_listening
from txmux.serving.listening_port import ListeningPort


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

    def enter(self, key: str, port: ListeningPort) -> None:
        """Add a port, which listens already."""
        self._gave_flows = False
        self._by_key[key] = port
        self.ports.append(port.port)
        if port.is_for_datagrams:
            port.port.place = key
        if self._awaits_flows:
            port.await_flows(on=True)
        self._apply(port)

    def reader_at(self, key: str) -> ListeningPort | None:
        """Return the port for datagrams of an address; ``None`` if another process reads them."""
        port = self._by_key.get(key)
        return port if port is not None and port.is_for_datagrams and self._datagrams else None

    def take_all(self) -> dict[str, ListeningPort]:
        """Remove all ports, and return them by their keys."""
        taken, self._by_key = self._by_key, {}
        self.ports.clear()
        return taken

    def close(self, key: str, port: ListeningPort, *, is_left: bool = False) -> None:
        """Close a port; one for datagrams is closed when its last flow has ended.

        `is_left` means that another process has the same socket.
        """
        port.close_port(is_left=is_left)
        if port.is_for_datagrams:
            self._left[key] = port

    def give_up(self, keys: Iterable[str]) -> None:
        """Accept who waits at these addresses, and close their ports."""
        for key in keys:
            port = self._by_key.pop(key, None)
            if port is not None:
                self.ports.remove(port.port)
                accept_waiting(port.port)
                self.close(key, port)

    def left(self) -> dict[str, ListeningPort]:
        """Return the closed ports that still have flows, by the keys of their addresses."""
        self._left = {key: port for key, port in self._left.items() if port.port.flows}
        return {**self._left}

    def returned(self, key: str, listener: ActiveListener) -> ListeningPort | None:
        """Return a closing port that still has flows; it belongs to this listener now."""
        port = self._left.pop(key, None)
        return port if port is not None and port.listen_again(listener) else None

    def close_all(self) -> list[Deferred[Any]]:
        return [stop_listening(port.port) for port in self.take_all().values()]

    def accept(self) -> None:
        self.accepting = True
        self._apply_all()

    def take_datagrams(self) -> None:
        """Read datagrams from now on; one of the processes that share the sockets does."""
        self._datagrams, self._gave_flows = True, False
        self._apply_all()

    def keep_flows(self) -> None:
        """Read the datagrams of flows after `pause`, too, since this process ends with them."""
        self._is_ending = True

    def leave_datagrams(self) -> None:
        self._datagrams = False
        self._apply_all()

    @property
    def owns_flows(self) -> bool:
        """Whether this process has all flows: it reads datagrams, or did until it retired, and has not handed its flows over."""
        return self._datagrams and not self._gave_flows

    @property
    def reads_datagrams(self) -> bool:
        return self._datagrams

    def flows_handed_over(self) -> None:
        self._gave_flows = True

    def await_flows(self) -> None:
        """Hold datagrams of unknown clients, since their flows may be on their way from another process."""
        self._awaits_flows = True
        self.awaited += 1
        for port in self._by_key.values():
            port.await_flows(on=True)

    def arrived(self) -> Deferred[None]:
        """Wait until the flows that are awaited are here, if there are ports for them."""
        if not self._awaits_flows or not any(
            port.is_for_datagrams for port in self._by_key.values()
        ):
            return succeed(None)
        if self._arrived is None:
            self._arrived = Deferred()
        return self._arrived

    def flows_are_here(self, awaited: int | None = None) -> None:
        """Start flows of unknown clients again, unless others than the `awaited` are awaited by now."""
        if awaited not in {None, self.awaited}:
            return
        self._awaits_flows = False
        if self._arrived is not None:
            arrived, self._arrived = self._arrived, None
            arrived.callback(None)
        for port in self._by_key.values():
            port.await_flows(on=False)

    def pause(self) -> None:
        """Leave new clients in the queues of the sockets, for another process or until `accept`."""
        self.accepting = False
        self._apply_all()

    def shut(self, listeners: Iterable[str]) -> None:
        """Leave the clients of these listeners in the queues, and accept those of all others."""
        self._shut = frozenset(listeners)
        self._apply_all()

    def accepted(self) -> set[str]:
        """Return the names of the listeners whose clients are accepted."""
        open_now = [port for port in self._by_key.values() if self._has_clients(port)]
        return {port.listener.configuration.settings.name for port in open_now}

    def _has_clients(self, port: ListeningPort) -> bool:
        return self.accepting and port.listener.configuration.settings.name not in self._shut

    def _apply_all(self) -> None:
        for port in self._by_key.values():
            self._apply(port)

    def _apply(self, port: ListeningPort) -> None:
        """Start or stop the port if needed; starting one that waits for room would end its wait."""
        open_now = self._has_clients(port)
        if port.is_for_datagrams:
            port.admit_new(is_admitted=open_now)
            open_now = (self.accepting or self._is_ending) and self._datagrams
        if open_now != port.is_open:
            port.is_open = open_now
            (port.port.startReading if open_now else port.port.stopReading)()

"""A UDP listening port and the listener it belongs to."""

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort
from typing_extensions import override

import txmux.udp.handover  # by the time it is needed, a newer version may be installed
import txmux.udp.listener  # noqa: F401 - the same
from txmux.client.active_listener import ActiveListener
from txmux.rules.model import Listener
from txmux.serving.endpoints import stop_listening
from txmux.serving.listening_ports import ListeningPort


class UDPListeningPort(ListeningPort):
    """A UDP port. Reloads never replace it, since its flows send their answers from it."""

    is_for_datagrams = True

    @override
    def can_serve(self, listener: ActiveListener, settings: Listener) -> bool:
        return True

    @override
    def empty_queue(self, accept: Callable[[IListeningPort], None]) -> None:
        if self.is_open:  # otherwise another process reads all datagrams, and has their flows
            super().empty_queue(accept)

    @override
    def admit_new(self, *, is_admitted: bool) -> None:
        self.port.lets_in = is_admitted

    @override
    def listen_again(self, listener: ActiveListener) -> bool:
        if not self.port.listen_again(listener):
            return False
        self.listener, self.is_open = listener, True
        return True

    @override
    def await_flows(self, *, on: bool) -> None:
        (self.port.await_flows if on else self.port.await_no_more)()

    @override
    def close_port(self, *, is_left: bool = False) -> Deferred[None]:
        if is_left:
            self.port.stopReading()
        return stop_listening(self.port)

    @override
    def forward_to(self, listener: ActiveListener) -> None:
        self.port.lead(listener)
        self.listener = listener

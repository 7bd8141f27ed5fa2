"""A UDP listening port and the listener it belongs to."""

from twisted.internet.defer import Deferred
from typing_extensions import override

import txmux.udp.handover  # noqa: F401 - when it is needed, a newer version may have been installed
from txmux.rules.model import Listener
from txmux.serving.endpoints import stop_listening
from txmux.serving.listening_port import ListeningPort
from txmux.tcp.listener import MuxFactory
from txmux.udp.listener import flows_of


class UDPListeningPort(ListeningPort):
    """A port for datagrams. Reloads never replace it, since its flows send their answers from it."""

    is_for_datagrams = True

    @override
    def can_serve(self, factory: MuxFactory, listener: Listener) -> bool:
        return True

    @override
    def admit_new(self, *, is_admitted: bool) -> None:
        self.port.lets_in = is_admitted

    @override
    def listen_again(self, factory: MuxFactory) -> bool:
        if not self.port.listen_again(flows_of(factory)):
            return False
        self.factory, self.is_open = factory, True
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
    def forward_to(self, factory: MuxFactory) -> None:
        self.port.lead(flows_of(factory))
        self.factory = factory

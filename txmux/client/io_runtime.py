"""What all connections of a process share: its clock, its poller, and which ports, transports and relays it uses."""

import contextlib
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal

from twisted.internet.defer import gatherResults
from twisted.internet.interfaces import IListeningPort, IProtocolFactory

from txmux.access.bans import Banned
from txmux.access.dynamic_networks import Lists, dynamic_networks_in
from txmux.access.loops import LoopDetector
from txmux.access.per_source import Handshakes
from txmux.backends.connect.dial import Dialler
from txmux.client.client_table import ClientTable
from txmux.client.handovers import Handovers
from txmux.client.parts import Parts, ServingContext, ServingPart
from txmux.errors import MuxError
from txmux.net.relay.interface import RelayResult, Timeouts
from txmux.net.relay.kernel import KernelSide
from txmux.net.relay.paced import RelayRates
from txmux.net.relay.peers import IRelayTransport, Peer
from txmux.net.relay.relay import Relay
from txmux.net.sockets.descriptors import DESCRIPTORS
from txmux.net.sockets.plainsocket import SocketOption, set_options
from txmux.net.sockets.poller import Poller, ReactorPoller
from txmux.net.sockets.port import SocketPort
from txmux.net.sockets.timers import Timers
from txmux.net.sockets.transport import SocketTransport, address_of
from txmux.rules.model import Keepalive, Rules
from txmux.rules.model.backend import backends_of
from txmux.rules.replacement import Replacement
from txmux.telemetry.counting.process_counters import ProcessCounters
from txmux.telemetry.events import Events
from txmux.telemetry.recent import BadEnds

_NOWHERE: dict[int, Any] = {
    socket.AF_INET: ("0.0.0.0", 0),  # noqa: S104 - nothing listens there
    socket.AF_INET6: ("::", 0),
    socket.AF_UNIX: "",
}
_AT_ONCE = 64  # connections accepted before others have their turn
_SHARED_AT_ONCE = 4  # the rest is for whichever process is free


class IORuntime:
    """A process's clock, connector, counters and lists, which all its listeners share.

    Args:
        relay: ``portable`` to have the reactor watch each plain socket; otherwise one epoll object does, where there is one.
        shared: Whether other processes accept from the same sockets.

    Attributes:
        lists: The networks of address lists, which change without a reload.
        banned: Clients that an operator has banned.
        context: What it lends its `parts` of features.
    """

    def __init__(
        self,
        reactor: Any,
        relay: Literal["auto", "portable", "kernel"] = "auto",
        loop_detector: LoopDetector | None = None,
        *,
        shared: bool = False,
        counters: ProcessCounters | None = None,
    ) -> None:
        self.reactor = reactor
        self.counters = counters or ProcessCounters()
        self.loop_detector = loop_detector or LoopDetector()
        self.bad_ends = BadEnds(reactor)
        self.lists = Lists()
        self.banned = Banned()
        self._shared = shared
        self.clock = Timers(reactor)
        self.context = context = ServingContext(reactor)
        self.parts = Parts[ServingPart](lambda feature: feature.serving_part(context))
        self.handshakes = Handshakes(self.clock.seconds)
        self.clients = ClientTable(self.clock.seconds)
        self.handovers = Handovers()
        self.events = Events(reactor)
        self.descriptors = DESCRIPTORS
        is_portable = relay == "portable"
        self.poller = ReactorPoller(reactor) if is_portable else Poller.for_reactor(reactor)
        self.descriptors.most = self.poller.most
        self.dialler = Dialler(reactor, self.clock, self.poller)

    def listen(
        self, opened: socket.socket, factory: IProtocolFactory, options: Sequence[SocketOption]
    ) -> IListeningPort:
        """Accept the connections of a listening socket; the port works on a duplicate, so the caller closes this one."""
        if opened.family in {socket.AF_INET, socket.AF_INET6}:
            host, port = opened.getsockname()[:2]
            self.loop_detector.ports.add(port)
            self.loop_detector.add_address(host, port)
        port = SocketPort(
            self.poller,
            opened.dup(),
            factory,
            options=options,
            batch_size=_SHARED_AT_ONCE if self._shared else _AT_ONCE,
            descriptors=self.descriptors,
        )
        port.startListening()
        return port

    def prepare(
        self, rules: Rules, replacement: Replacement | None = None, *, may_lack: bool = False
    ) -> None:
        """Keep the networks of rules up to date from now on; for a bad database, see `Lists.prepare`."""
        new = None
        if replacement is not None and not replacement.is_whole:
            used = backends_of(replacement.used())
            new = dynamic_networks_in(replacement.new_routes, replacement.listeners, used)
        self.lists.prepare(rules, new, may_lack=may_lack)
        self.parts.prepare(rules)

    def commit(self, rules: Rules) -> None:
        self.parts.commit(rules)

    async def stop(self) -> None:
        await gatherResults(filter(None, [part.stop() for part in self.parts.values()]))

    def check_handing_off(self) -> None:
        """Raise `MuxError` if this process cannot hand over sockets of clients."""
        if sys.platform != "linux":
            raise MuxError("sockets can be handed over on Linux alone")

    def transport(self, connected: socket.socket) -> SocketTransport:
        """Make a transport on a socket that another process has connected; from now on ours."""
        try:
            peer = connected.getpeername()
        except OSError:  # it has been reset, which the next read reports
            peer = _NOWHERE[connected.family]
        connected.setblocking(False)  # noqa: FBT003 - the socket module's signature
        family = int(connected.family)
        return SocketTransport(self.poller, connected, family, address_of(family, peer))

    @staticmethod
    def set_options(transport: IRelayTransport, options: Sequence[SocketOption]) -> None:
        """Set the options of a socket, whether a client's or a server's, that does not have them from its port."""
        if not isinstance(transport, SocketTransport) and hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(enabled=True)
            below: Any = transport  # TLS passes on what it does not have
            with contextlib.suppress(OSError):  # it is gone already
                set_options(below.socket, options)

    def relay(
        self,
        client: Peer,
        server: Peer,
        timeouts: Timeouts,
        on_over: Callable[[RelayResult], None],
        rates: RelayRates | None = None,
        keepalive: Keepalive | None = None,
    ) -> Relay:
        """Make a relay for two ends, and for how fast they may be."""
        sides = of_client, of_server = (
            KernelSide(client, self.poller),
            KernelSide(server, self.poller),
        )
        relay = Relay(self.clock, timeouts, on_over, sides, keepalive)
        client.receiver, server.receiver = sides
        if rates is not None:
            of_client.limit_rate(rates.download)
            of_server.limit_rate(rates.upload)
        return relay

"""The fast path of a listener's connections, which have neither a transport nor stage objects until something unusual happens.

Theory of operation. Most connections last a millisecond and exchange a few messages. A transport, two protocols, and a stage
object with a timer for each stage would cost more than all their system calls. So the usual states of `txmux.tcp.states.STATES` are
functions, which use the socket directly. ``enter`` comes first: it returns an outcome, which `TRANSITIONS` handles
as it does a stage's, or has the poller call another function. Where a transport is needed, as for a refusal, an answer, a failed
server or a full buffer, it is made then, and a stage object where ``make_stage`` makes one, to which epoll reports an event again.

There are no timers, either, but for the moment after a client's reset. A `Sweep` checks all connections of a listener once a second:
`MARGIN` before they are ``due_at``, it sets an exact timer, or attaches a stage object, which has one. For shorter times it is set at once.
"""

from __future__ import annotations

import socket
from typing import Any, Protocol

from twisted.internet.interfaces import IAddress

from txmux.client.configuration import Configuration, RuleLayer
from txmux.client.io_runtime import IORuntime
from txmux.client.session import CountedSession
from txmux.client.socket_options import listener_keepalive
from txmux.net.relay.interface import MARGIN
from txmux.net.relay.peer_state import lost_after
from txmux.net.sockets.plainsocket import EAGER
from txmux.rules.model import Listener
from txmux.tcp.sweep import Sweep
from txmux.tcp.transitions import Finished

DONT_WAIT = int(socket.MSG_DONTWAIT)  # until there is a transport, the client's socket blocks
CLIENT_GONE = Finished("client-gone")
ROUNDING = 1e-6  # seconds


class ConnectionOwner(Protocol):
    """The listener that a connection belongs to."""

    runtime: IORuntime
    sweep: Sweep

    def opened(self, connection: CountedSession, /) -> None: ...

    def closed(self, connection: CountedSession, /) -> None:
        """Log a connection that has ended, even one for which `opened` was not called."""


class FastLayer:
    """How the clients of a layer are detected; one that says nothing has `silent_timeout` at least."""

    def __init__(self, layer: RuleLayer, settings: Listener) -> None:
        detect_timeout = settings.detect_timeout
        self.layer, self.detector = layer, layer.detector
        self.decides_at_once = not layer.server_first and layer.detector.takes_any_client
        times = [silent.after or detect_timeout for silent in layer.silent]
        times += [route.silent_after(settings) for route in layer.silent_routes.items]
        self.silent_timeout = min([detect_timeout, *times])


class FastPath:
    """What all connections of a listener have in common under one configuration."""

    def __init__(self, owner: ConnectionOwner, configuration: Configuration) -> None:
        settings, top = configuration.settings, configuration.top
        self.owner, self.configuration, self.runtime = owner, configuration, owner.runtime
        self.poller: Any = owner.runtime.poller
        self.seconds = owner.runtime.clock.seconds
        self.top, self.top_layer = top, FastLayer(top, settings)
        self._layers = {id(top): self.top_layer}
        self.detect_timeout = settings.detect_timeout
        self.peer_check_interval = lost_after(settings.keepalive)
        # Keepalive does nothing while a connection is young, and most do not grow old.
        keepalive = settings.keepalive
        is_late = keepalive is None or keepalive.idle > MARGIN
        self.late_options = listener_keepalive(settings) if is_late else ()
        rest = [option for option in configuration.options if option not in self.late_options]
        self.early_options = (*EAGER, *rest)
        self.watch_error: OSError | None = None  # that a socket could not be watched
        self.host: IAddress | None = None  # of the last client
        self.host_text = ""
        # Otherwise a client that is not decided when it is accepted may need a timer from then on.
        left = self.top_layer.silent_timeout
        if settings.accept_proxy_from is not None:
            left = min(left - settings.proxy_timeout, settings.proxy_timeout)
        self.can_wait = left > MARGIN
        # Whether its clients have a transport from the beginning.
        self.needs_transport = settings.mptcp or configuration.hands_over
        self.openings = configuration.openings  # of inner hellos

    def inside(self, layer: RuleLayer) -> FastLayer:
        """Return how clients are detected inside of TLS, too; a configuration keeps its layers."""
        fast_layer = self._layers.get(id(layer))
        if fast_layer is None:
            fast_layer = self._layers[id(layer)] = FastLayer(layer, self.configuration.settings)
            self.can_wait = self.can_wait and fast_layer.silent_timeout > MARGIN
        return fast_layer

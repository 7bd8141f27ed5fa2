"""What usual connections share: the decisions about them that are made when their listener's configuration is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.interfaces import IAddress

from txmux.backends.upstream import MARGIN
from txmux.net.relay.peer import patience
from txmux.net.sockets.plainsocket import listener_keepalive
from txmux.tcp.configuration import Configuration
from txmux.tcp.connection import ConnectionOwner, MuxProtocol
from txmux.tcp.served import Counted
from txmux.tcp.sweep import Sweep

if TYPE_CHECKING:
    from txmux.tcp.io_runtime import IORuntime


class LeanOwner(ConnectionOwner, Protocol):
    """The listener that usual connections belong to."""

    runtime: IORuntime
    sweep: Sweep

    def replace(self, lean: Counted, full: MuxProtocol, /) -> None: ...


class LeanPath:
    """What all usual connections of a listener have in common under one configuration.

    Attributes:
        is_open: Whether the listener may have any.
    """

    def __init__(self, owner: LeanOwner, configuration: Configuration) -> None:
        settings, top = configuration.settings, configuration.top
        self.owner, self.configuration, self.runtime = owner, configuration, owner.runtime
        self.poller: Any = owner.runtime.poller
        self.seconds = owner.runtime.clock.seconds
        self.detector, self.asks_who = top.detector, top.depends_on_client
        self.detect_timeout = settings.detect_timeout
        self.patience = patience(settings.keepalive)
        # Keepalive does nothing while a connection is young, and most do not grow old.
        keepalive = settings.keepalive
        is_late = keepalive is None or keepalive.idle > MARGIN
        self.late_options = listener_keepalive(settings) if is_late else ()
        self.early_options = tuple(
            option for option in configuration.options if option not in self.late_options
        )
        self.trouble: OSError | None = None  # that a socket could not be watched
        self.host: IAddress | None = None  # of the last client
        self.host_text = ""
        # Otherwise a client that is not decided when it is accepted has timers from then on, or one that has sent nothing.
        self.can_wait = settings.detect_timeout > MARGIN
        self.can_be_silent = (
            self.can_wait and not top.race and all(silent.after is None for silent in top.silent)
        )
        self.is_open = (
            self.poller is not None
            and settings.accept_proxy_from is None
            and not (configuration.hands_over or settings.mptcp)
            and not top.server_first
            and top.detector.decides_always
        )

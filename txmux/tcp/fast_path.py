"""The fast path of a listener: what is decided for all its plain sockets when its configuration is loaded."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Protocol

from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime

from txmux.client.configuration import Configuration
from txmux.client.io_runtime import IORuntime
from txmux.client.socket_options import listener_keepalive
from txmux.net.relay.peer_state import lost_after
from txmux.net.sockets.plainsocket import EAGER
from txmux.rules.reading import sections
from txmux.rules.reading.values import MARGIN, is_all_plain
from txmux.tcp.connection import ConnectionOwner

_PERIOD = MARGIN / 2
"""Seconds between two checks of a connection, which gets a stage, with its own timers, `MARGIN` before a deadline."""
_AT_ONCE = 1000  # connections that are checked in one turn of the reactor


class Sweep:
    """Checks each of these connections once a second, as long as there are any.

    Args:
        on_idle: Called when there are none left.
    """

    def __init__(
        self, clock: IReactorTime, connections: Collection[Any], on_idle: Callable[[], object]
    ) -> None:
        self._clock, self._connections, self._on_idle = clock, connections, on_idle
        self.timer: IDelayedCall | None = None

    def begin(self) -> None:
        self.timer = self._clock.callLater(_PERIOD, self._check, [])

    def stop(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _check(self, left: list[Any]) -> None:
        left = left or [each for each in self._connections if each.transport is None]
        these, left = left[:_AT_ONCE], left[_AT_ONCE:]
        self.timer = None
        if not self._connections:
            self._on_idle()
            return
        self.timer = self._clock.callLater(0 if left else _PERIOD, self._check, left)
        now = self._clock.seconds()
        for connection in these:
            connection.check(now)


class FastPathOwner(ConnectionOwner, Protocol):
    """The listener that socket connections belong to."""

    runtime: IORuntime
    sweep: Sweep


class FastPath:
    """What all socket connections of a listener have in common under one configuration.

    Attributes:
        is_open: Whether its clients can be served without a transport at all: by all keys of the listener, and by all its outcomes.
        decides_at_once: Whether they can be detected without a stage.
        openings: Those that speak TLS cannot if there are any.
    """

    def __init__(self, owner: FastPathOwner, configuration: Configuration) -> None:
        settings, top = configuration.settings, configuration.top
        self.owner, self.configuration, self.runtime = owner, configuration, owner.runtime
        self.poller: Any = owner.runtime.poller
        self.seconds = owner.runtime.clock.seconds
        self.top, self.detector, self.needs_address = top, top.detector, top.depends_on_client
        self.detect_timeout = settings.detect_timeout
        self.header_timeout = min(settings.proxy_timeout, settings.detect_timeout)
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
        # Otherwise a client that is not decided when it is accepted has timers from then on, or one that has sent nothing.
        self.can_wait = settings.detect_timeout > MARGIN
        self.can_be_silent = self.can_wait and all(silent.after is None for silent in top.silent)
        self.is_open = (
            is_all_plain(settings, sections.TABLES["listen"]) and not configuration.hands_over
        )
        self.decides_at_once = not top.server_first and top.detector.takes_any_client
        self.openings = configuration.openings

"""A stage: both ends are connected, and a relay carries the bytes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
from typing_extensions import override

from txmux.net.relay.interface import Moved
from txmux.tcp.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from txmux.backends.connect.client import ProxyClient
    from txmux.backends.pool.member import Member
    from txmux.backends.upstream import Upstream
    from txmux.net.relay.ends import End
    from txmux.net.relay.interface import RelayResult
    from txmux.net.relay.relay import Relay
    from txmux.tcp.moving import GiveBack, MovedConnection, Sockets
    from txmux.tcp.preconnection import Held
    from txmux.telemetry.reasons import AbortReason
    from txmux.telemetry.states import ConnectionState


@attrs.define(eq=False)
class _BothEnds(Stage):
    """A relay carries the bytes, and is told itself what happens at both ends.

    Args:
        end: The client's, for the relay.
        server: The server's end.
    """

    state: ClassVar[ConnectionState] = "relaying"

    _end: End
    _server: ProxyClient
    relay: Relay = attrs.field(init=False)

    @override
    def abort(self, reason: AbortReason) -> None:
        self.relay.abort(reason)

    @override
    def moved(self) -> Moved:
        record, moved = self._client.record, self.relay.moved()
        return Moved(
            record.bytes_in + moved.bytes_in, record.bytes_out + moved.bytes_out, moved.last_at
        )

    def _over(self, result: RelayResult) -> None:
        record = self._client.record
        record.bytes_in += result.bytes_in
        record.bytes_out += result.bytes_out
        self._client.over(result.reason)

    @override
    def leave(self) -> None:
        super().leave()
        self.release()

    def release(self) -> None:
        """Release the server's slot in the pool."""

    @property
    def keeps_place(self) -> bool:
        """Whether its server has a limit, for which it counts wherever it goes on."""
        return False

    def move_away(self) -> GiveBack:
        """Go on in another process, where the server's limit counts it still; what this gives is told of its end."""
        raise NotImplementedError

    @property
    def sockets(self) -> Sockets:
        """Those of both ends."""
        client: Any = self._end.transport.getHandle()
        server: Any = self._server.transport.getHandle()
        return client, server


@attrs.define(eq=False)
class Relaying(_BothEnds):
    """The server has just been connected.

    Args:
        upstream: Whose server it is.
        member: The server.
        held: What the server has said already; ``None`` is nothing.
    """

    _upstream: Upstream
    _member: Member
    _held: Held | None = None
    _has_moved: bool = attrs.field(default=False, init=False)

    @override
    def begin(self) -> None:
        client, end, server, upstream = self._client, self._end, self._server, self._upstream
        keepalive = client.configuration.settings.keepalive
        self.relay = relay = client.runtime.relay(
            end, server, upstream.timeouts, self._over, upstream.rates, keepalive
        )
        received, client.received = client.received, b""
        relay.start(received, client_finished=client.has_finished)
        if self._held is not None and not relay.ending:
            self._held.pass_to(server.receiver)
        self._held = None

    @override
    def release(self) -> None:
        if not self._has_moved:
            self._upstream.pool.released(self._member)

    @property
    @override
    def keeps_place(self) -> bool:
        return self._upstream.pool.is_limited

    @override
    def move_away(self) -> GiveBack:
        self._has_moved = True
        self._upstream.pool.moved_away(self._member)
        return partial(self._upstream.pool.give_back, self._member)


@attrs.define(eq=False)
class Adopted(_BothEnds):
    """Another process has relayed the connection until now.

    Args:
        led_to: Whose server it is and the server, if these rules have such.
        moved: What the other process has told.
        elsewhere: Gives back its place in that process, where others may wait for it; ``None`` if it has none.
    """

    _led_to: tuple[Upstream, Member] | None
    _moved: MovedConnection
    _elsewhere: GiveBack | None = None
    _has_moved: bool = attrs.field(default=False, init=False)

    @override
    def begin(self) -> None:
        end, server, moved = self._end, self._server, self._moved
        self.relay = self._client.runtime.relay(end, server, moved.timeouts, self._over)
        self.relay.adopt(moved.relay)

    @override
    def release(self) -> None:
        if self._has_moved:
            return
        if self._elsewhere is not None:
            # Those who wait there have come before those who wait here.
            self._elsewhere(partial(self._moved_away(), _nothing))
        elif self._led_to is not None:
            upstream, member = self._led_to
            upstream.pool.released(member)

    @property
    @override
    def keeps_place(self) -> bool:
        is_limited = self._led_to is not None and self._led_to[0].pool.is_limited
        return is_limited or self._elsewhere is not None

    @override
    def move_away(self) -> GiveBack:
        self._has_moved = True
        elsewhere, give_back = self._elsewhere, self._moved_away()
        if elsewhere is None:
            return give_back
        return lambda free: give_back(partial(elsewhere, free))

    def _moved_away(self) -> GiveBack:
        if self._led_to is None:
            return _call
        upstream, member = self._led_to
        upstream.pool.moved_away(member)
        return partial(upstream.pool.give_back, member)


def _call(what: Callable[[], None]) -> None:
    what()


def _nothing() -> None:
    pass

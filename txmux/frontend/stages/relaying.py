"""A stage: both ends are connected, and a relay carries the bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from typing_extensions import override

from txmux.frontend.stage import Stage

if TYPE_CHECKING:
    from txmux.backends.connect.client import ProxyClient
    from txmux.backends.pool.member import Member
    from txmux.backends.upstream import Upstream
    from txmux.frontend.moving import MovedConnection, Sockets
    from txmux.frontend.race import Held
    from txmux.observe.reasons import AbortReason
    from txmux.relay.ends import End
    from txmux.relay.interface import RelayResult
    from txmux.relay.relay import Relay


@attrs.define(eq=False)
class _BothEnds(Stage):
    """A relay carries the bytes, and is told itself what happens at both ends.

    Args:
        end: The client's, for the relay.
        server: The server's end.
    """

    _end: End
    _server: ProxyClient
    relay: Relay = attrs.field(init=False)

    @override
    def abort(self, reason: AbortReason) -> None:
        self.relay.abort(reason)

    def _over(self, result: RelayResult) -> None:
        record = self._client.record
        record.bytes_in += result.bytes_in
        record.bytes_out += result.bytes_out
        self.release()
        self._client.over(result.reason)

    def release(self) -> None:
        """Tell the pool that the server has a connection less."""

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

    @override
    def begin(self) -> None:
        client, end, server, upstream = self._client, self._end, self._server, self._upstream
        self.relay = relay = client.engine.relay(
            end, server, upstream.timeouts, self._over, upstream.rates
        )
        said, client.said = client.said, b""
        relay.start(end, server, said, client_finished=client.has_finished)
        if self._held is not None and not relay.ending:
            self._held.pass_to(server.receiver)
        self._held = None

    @override
    def release(self) -> None:
        self._upstream.pool.released(self._member)


@attrs.define(eq=False)
class Adopted(_BothEnds):
    """Another process has relayed the connection until now.

    Args:
        led_to: Whose server it is and the server, if these rules have such.
        moved: What the other process has told.
    """

    _led_to: tuple[Upstream, Member] | None
    _moved: MovedConnection

    @override
    def begin(self) -> None:
        end, server, moved = self._end, self._server, self._moved
        self.relay = self._client.engine.relay(end, server, moved.timeouts, self._over)
        self.relay.adopt(end, server, moved.relay)

    @override
    def release(self) -> None:
        if self._led_to is not None:
            upstream, member = self._led_to
            upstream.pool.released(member)

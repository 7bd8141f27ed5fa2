"""A stage: both ends are connected, and a relay carries the bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from typing_extensions import override

from txmux.frontend.stage import Stage

if TYPE_CHECKING:
    from txmux.backends.connect.client import ProxyClient
    from txmux.backends.pool.member import Member
    from txmux.backends.upstream import Upstream
    from txmux.observe.reasons import AbortReason
    from txmux.relay.ends import End
    from txmux.relay.interface import RelayResult

__all__ = ["Relaying"]


@attrs.define(eq=False, slots=False)
class Relaying(Stage):
    """Waits for the relay, which is told itself what happens at both ends.

    Args:
        end: The client's, for the relay.
        upstream: Whose server it is.
        member: The server.
        server: The server's end.
    """

    _end: End
    _upstream: Upstream
    _member: Member
    _server: ProxyClient

    @override
    def begin(self) -> None:
        client, end, server, upstream = self._client, self._end, self._server, self._upstream
        self._relay = relay = client.engine.relay(
            end, server, upstream.timeouts, self._over, upstream.rates
        )
        said, client.said = client.said, b""
        relay.start(end, server, said, client_finished=client.has_finished)

    @override
    def abort(self, reason: AbortReason) -> None:
        self._relay.abort(reason)

    def _over(self, result: RelayResult) -> None:
        record = self._client.record
        record.bytes_in += result.bytes_in
        record.bytes_out += result.bytes_out
        self._upstream.pool.released(self._member)
        self._client.over(result.reason)

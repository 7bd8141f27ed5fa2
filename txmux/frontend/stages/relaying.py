"""A stage: both ends are connected, and a relay carries the bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from txmux.frontend.stage import Client, Stage

if TYPE_CHECKING:
    from txmux.backends.connect.client import ProxyClient
    from txmux.backends.pool.member import Member
    from txmux.backends.upstream import Upstream
    from txmux.observe.reasons import AbortReason
    from txmux.relay.ends import End
    from txmux.relay.interface import RelayResult

__all__ = ["Relaying"]


class Relaying(Stage):
    """Waits for the relay, which is told itself what happens at both ends.

    Args:
        client: The client's connection.
        end: The same, for the relay.
        upstream: Whose server it is.
        member: The server.
        server: The server's end.
    """

    def __init__(
        self, client: Client, end: End, upstream: Upstream, member: Member, server: ProxyClient
    ) -> None:
        super().__init__(client)
        self._end = end
        self._server = server
        self._member = member
        self._pool = upstream.pool
        self._relay = client.engine.relay(
            end, server, upstream.timeouts, self._over, upstream.rates
        )

    @override
    def begin(self) -> None:
        client = self._client
        said, client.said = client.said, b""
        self._relay.start(self._end, self._server, said, client_finished=client.has_finished)

    @override
    def abort(self, reason: AbortReason) -> None:
        self._relay.abort(reason)

    def _over(self, result: RelayResult) -> None:
        record = self._client.record
        record.bytes_in += result.bytes_in
        record.bytes_out += result.bytes_out
        self._pool.released(self._member)
        self._client.over(result.reason)

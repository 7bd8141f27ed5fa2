"""A stage: it is known where a client of TLS is led, but not all that has to be told there."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import attrs
from typing_extensions import override

from txmux.tcp.stage import Stage
from txmux.wire.client_hello import parse_client_hello

if TYPE_CHECKING:
    from txmux.backends.upstream import Upstream
    from txmux.tcp.stage import Client
    from txmux.telemetry.states import ConnectionState

_HELLO = b"\x16"  # the first byte of a TLS record with a handshake message


def lacks_hello(client: Client, upstream: Upstream) -> bool:
    """Return whether a backend wants to know what is in a ClientHello that has begun, but has not come in full."""
    wanted = upstream.backend.proxy_tlvs
    if client.has_finished or client.ended_tls:
        return False
    settings, received = client.configuration.settings, client.received
    if {"authority", "alpn"}.isdisjoint(wanted) or not received.startswith(_HELLO):
        return False
    too_late = client.elapsed_ms() >= settings.detect_timeout * 1000
    if len(received) >= settings.peek_limit or too_late:
        return False
    reader = parse_client_hello(received, None)
    return not (reader.hello or reader.malformed)


@attrs.define(eq=False, slots=False)
class AwaitingHello(Stage):
    """Waits for the rest of the hello; otherwise what a backend is told would depend on how the network cut it.

    What is left of the client's `detect_timeout` is the limit, as it is for all that a client says before it is led anywhere.

    Args:
        upstream: Where the client is led.
    """

    state: ClassVar[ConnectionState] = "awaiting-hello"

    _upstream: Upstream

    @override
    def begin(self) -> None:
        client = self._client
        self._reader = parse_client_hello(client.received, None)
        left = client.configuration.settings.detect_timeout - client.elapsed_ms() / 1000
        self.wait(max(0.0, left), self._go_on)

    @override
    def on_data(self) -> None:
        received, limit = self._client.received, self._client.configuration.settings.peek_limit
        self._reader = reader = parse_client_hello(received[:limit], self._reader)
        if reader.hello or reader.malformed or len(received) >= limit:
            self._go_on()

    @override
    def on_finished(self) -> None:
        self._go_on()

    def _go_on(self) -> None:
        self._client.record.detect_ms = self._client.elapsed_ms()
        self._client.connect(self._upstream)

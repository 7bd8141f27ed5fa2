"""Read-only view of a flow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txmux.net.addresses import address_in
from txmux.net.relay.interface import Moved

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Protocol

    from txmux.net.sockets.descriptors import Descriptors
    from txmux.net.sockets.poller import Poller
    from txmux.rules.model import Logged
    from txmux.tcp.configuration import Configuration
    from txmux.telemetry.record import ConnectionRecord
    from txmux.udp.following import Following
    from txmux.udp.port import DatagramPort, Key
    from txmux.udp.table import FlowTable, TimeoutQueue
    from txmux.wire.proxyprotocol.header import Address

    class Owner(Protocol):
        """What has the flows of a listener, as a flow sees it."""

        table: FlowTable[Any]

        @property
        def configuration(self) -> Configuration:
            """The rules under which new flows begin."""

        runtime: Any
        poller: Poller
        buffer: memoryview
        seconds: Callable[[], float]

        def enter(
            self, flow: Any, seconds: float, /, *, is_spare: bool, is_final: bool = False
        ) -> None:
            """Move a flow to another timeout queue."""

        def rejoin(
            self, flow: Any, queue: TimeoutQueue, entered_at: float, heard_at: float, /
        ) -> None:
            """Insert a flow in a queue as if it had been there for a while."""

        def closed(self, flow: Any, /) -> None:
            """Report the end of a flow."""

        def following(
            self, flow: Any, port: DatagramPort, key: Key, first: bytes, /
        ) -> Following | None:
            """Make what has a flow follow its client, if its protocol can move."""

        def following_of(
            self,
            flow: Any,
            port: DatagramPort,
            key: Key,
            fields: Mapping[str, Any],
            port_of: Callable[[str], DatagramPort | None],
            /,
        ) -> Following | None:
            """Make what has a flow of another process follow its client."""


class FlowView:
    """What can be told of a flow from what it has."""

    __slots__ = ()

    _flows: Owner
    _client: Address
    _started_at: float
    record: ConnectionRecord
    held: tuple[bytes, ...]
    bytes_in: int
    bytes_out: int
    heard_at: float
    entered_at: float
    queue: TimeoutQueue | None
    datagrams_in: int
    datagrams_out: int
    logged: Logged
    _port: DatagramPort
    _key: Key

    @property
    def runtime(self) -> Any:
        return self._flows.runtime

    @property
    def address(self) -> Address | None:
        return self._client

    @property
    def received(self) -> bytes:
        """The first datagram, as long as it is held."""
        return self.held[0] if self.held else b""

    def elapsed_ms(self) -> float:
        return (self._flows.seconds() - self._started_at) * 1000

    def moved(self) -> Moved:
        """Return how much has gone each way."""
        counts = (self.datagrams_in, self.datagrams_out)
        return Moved(self.bytes_in, self.bytes_out, self.heard_at, counts)

    @property
    def newest_configuration(self) -> Configuration:
        return self._flows.configuration

    @property
    def client(self) -> Address:
        return self._client

    @property
    def local(self) -> Address | None:
        return address_in(self.record.local or "")

    @property
    def local_host(self) -> str:
        """The IP address that the client asked, a link-local one with its interface."""
        host = "" if self.local is None else str(self.local.host)
        asked = self._port.local_host(self._key[1])
        # A PROXY header may tell of another one, and of no interface.
        return asked if asked.partition("%")[0] == host else host

    @property
    def facts(self) -> Mapping[str, str]:
        return self.record.facts

    @property
    def descriptors(self) -> Descriptors:
        """Those of this process."""
        found: Descriptors = self.runtime.descriptors
        return found

    @property
    def poller(self) -> Poller:
        return self._flows.poller

    @property
    def buffer(self) -> memoryview:
        return self._flows.buffer

    @property
    def port(self) -> DatagramPort:
        return self._port

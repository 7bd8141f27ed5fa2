"""Handles requests about the connections and counters of a worker."""

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from heapq import nsmallest
from ipaddress import ip_address
from operator import itemgetter
from typing import Any

from txmux.client.client_table import Row
from txmux.client.session import ClientSession, has_ended
from txmux.control.documents import address_states, connection_document
from txmux.control.explaining import explain_bytes, explain_connection
from txmux.control.filters import Filters, connection_sort_key
from txmux.control.gauges import COUNT, measure
from txmux.detection.recognising import matcher_of
from txmux.interfaces import Transport
from txmux.net.channel import messages
from txmux.net.channel.message import Message
from txmux.net.collecting import UNCOLLECTED
from txmux.net.turns import Turns
from txmux.serving.serving import Serving
from txmux.telemetry.documents import ConnectionDocument, DecisionDocument, ReportedAddress


class WorkerAnswers:
    """Answers for the listeners of a worker."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def listen(self, sink: Callable[[dict[str, Any]], object] | None) -> None:
        events = self._serving.runtime.events
        events.listen(sink)
        self._serving.upstreams.tell = events.server

    @property
    def handlers(self) -> Mapping[Message, Callable[..., Any]]:
        """For the channel to the supervisor."""
        return {
            messages.CONNECTIONS: self.connections,
            messages.ADDRESSES: self.addresses,
            messages.CLOSE: self.close,
            messages.EXPLAIN_CONNECTION: self.explain_connection,
            messages.EXPLAIN: self.explain,
            messages.RECOGNISE: self.recognise,
            messages.CLOSE_SERVER: self.close_server,
            messages.APPLY_OVERRIDES: self._serving.apply_overrides,
            messages.BAN: self._serving.ban,
            messages.FEED: self._serving.feed,
            COUNT: self.count,
            messages.CLIENTS: self.clients,
        }

    async def connections(
        self,
        filters: Mapping[str, str],
        limit: int,
        after: str = "",
        id: str = "",  # noqa: A002
    ) -> list[ConnectionDocument]:
        """List at most `limit` connections after an ID, or the single one of an ID."""
        first = connection_sort_key(after)
        rows: list[ConnectionDocument] = []
        while True:
            keyed = [
                (sort_key, connection)
                async for connection in self._matching(Filters.read(filters))
                if (sort_key := connection_sort_key(connection.record.id)) > first
                and id in {"", connection.record.id}
            ]
            chosen = nsmallest(limit - len(rows), keyed, key=itemgetter(0))
            with UNCOLLECTED:
                live = Turns().each((connection for _, connection in chosen), has_ended)
                rows += [connection_document(connection) async for connection in live]
            if len(rows) == limit or len(chosen) == len(keyed):
                return rows
            first = chosen[-1][0]  # some have ended meanwhile, and others take their places

    async def addresses(self, backends: Collection[str] | None = None) -> list[ReportedAddress]:
        return await Turns().collect(address_states(self._serving.upstreams, backends))

    async def clients(self) -> list[Row]:
        serving = self._serving
        return await Turns().run(serving.runtime.clients.rows(serving.connections()))

    async def explain_connection(self, id: str) -> DecisionDocument | None:  # noqa: A002
        for connection in self._serving.connections():
            if connection.record.id == id:
                return explain_connection(connection)
        return None

    async def explain(
        self, data: str, listener: str | None, client: str | None
    ) -> list[dict[str, Any]]:
        host = None if client is None else ip_address(client)
        return await explain_bytes(self._serving.rules, bytes.fromhex(data), listener, host)

    def recognise(self, clients: Iterable[tuple[str, bool]]) -> list[str]:
        over = {False: Transport.TCP, True: Transport.UDP}
        return [matcher_of(bytes.fromhex(first), over[is_udp]) for first, is_udp in clients]

    async def close(self, filters: Mapping[str, str], id: str = "") -> int:  # noqa: A002
        chosen = [
            its async for its in self._matching(Filters.read(filters)) if id in {"", its.record.id}
        ]
        return await _end(chosen)

    async def close_server(self, backend: str, server: str) -> int:
        members = [
            member
            for upstream in self._serving.upstreams.all([backend])
            for member in upstream.pool.members
            if member.server.text == server
        ]

        def is_there(address: str) -> bool:
            return address == server or any(member.is_at(address) for member in members)

        of_backend = self._matching(Filters(backend=backend))
        return await _end([its async for its in of_backend if is_there(its.record.server or "")])

    async def count(self, *, gauges: bool = False) -> dict[str, Any]:
        """Count what connections have relayed until now, which they do not count themselves."""
        async for connection in Turns().each(self._serving.connections(), has_ended):
            connection.count_bytes()
        self._serving.count()
        return await measure(self._serving, everything=gauges)

    async def _matching(self, filters: Filters) -> AsyncIterator[ClientSession]:
        async for connection in Turns().each(self._serving.connections(), has_ended):
            if filters.fit(connection.record, connection.state, connection.elapsed_ms() / 1000):
                yield connection


async def _end(chosen: Iterable[ClientSession]) -> int:
    turns, count = Turns(), 0
    for connection in chosen:
        if not has_ended(connection):
            connection.end("killed")
            count += 1
        await turns.pause()
    return count

"""Accepted clients that wait to be served: one of each source in turn, so that a source that sends very many does not delay others."""

from __future__ import annotations

import socket
from collections import deque
from typing import Any, TypeAlias

from txmux.transport import source_of_host

WaitingClient: TypeAlias = tuple[socket.socket, Any]
"""A client's socket, and its address as ``accept()`` returns it."""


class ClientsInTurns:
    """Clients by source; see `source_of_host`. There are `count`."""

    def __init__(self) -> None:
        self._by_source: dict[str | bytes, deque[WaitingClient]] = {}
        self._order: deque[str | bytes] = deque()
        self.count = 0

    def add(self, client: WaitingClient) -> None:
        source = source_of_host(client[1][0])
        clients = self._by_source.get(source)
        if clients is None:
            clients = self._by_source[source] = deque()
            self._order.append(source)
        clients.append(client)
        self.count += 1

    def take(self) -> WaitingClient:
        """Remove and return the first client of the source whose turn it is."""
        source = self._order.popleft()
        clients = self._by_source[source]
        client = clients.popleft()
        if clients:
            self._order.append(source)
        else:
            del self._by_source[source]
        self.count -= 1
        return client

"""A service without sockets, made anew for each input, so that no input depends on those before it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from tests.convert.converting import matchers
from txmux.access.admission import Admission
from txmux.backends.names.resolve import NameResolver
from txmux.net.sockets import poller
from txmux.rules.reading.parser import parse
from txmux.serving.serving import Serving

TEXT = """\
[listen web]
endpoint = 127.0.0.1:443
max_connections_per_source = 5
connection_rate_per_source = 10/s
default = web

[listen quic]
endpoint = udp:127.0.0.1:443

[route ssh]
under = *
match = ssh
backend = ssh

[route tls]
under = *
match = tls sni=*.example.com
backend = web

[route quic]
under = *
match = quic
backend = udp:127.0.0.1:1

[backend ssh]
server = 127.0.0.1:22

[backend web]
server = 127.0.0.1:8001
    127.0.0.1:8002 weight=2
    127.0.0.1:8003 backup
max_connections = 10
queue = 5
"""
RULES = parse(TEXT, "/nonexistent/rules.ini", matchers())


class Reactor(MemoryReactorClock):
    """Watches nothing, and lets no time pass unless it is told to."""

    def callFromThread(self, *_: Any) -> None:
        """Do nothing, since there are no threads."""


@contextmanager
def serving() -> Iterator[tuple[Serving, Reactor]]:
    """Make what serves `RULES`, but for its sockets, and end it."""
    reactor = Reactor()
    made = Serving(RULES, None, reactor, names=NameResolver(reactor, is_active=False))
    for listener in RULES.listeners:
        made.add(listener, Admission(listener, reactor.seconds))
    try:
        yield made, reactor
    finally:
        end(made, reactor)


def end(made: Serving | None, reactor: Reactor) -> None:
    """End what serves, if anything does, and what there is in a reactor."""
    if made is not None:
        made.end_all()
        reactor.advance(0)
        made.listening_ports.close_all()
    for reader in reactor.getReaders():
        with suppress(Exception):  # what has ended already
            reader.connectionLost(Failure(ConnectionDone()))
    poller.POLLERS.pop(reactor, None)  # it would keep the reactor

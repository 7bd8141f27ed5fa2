"""The certificates that servers show clients whose TLS is passed on to them, for `txmux check --connect`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import attrs
from OpenSSL import SSL
from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults
from twisted.internet.interfaces import IHandshakeListener, IOpenSSLClientConnectionCreator
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from txmux.backends.connect.dial import dial
from txmux.backends.health.checking import with_header
from txmux.backends.upstream import Upstream
from txmux.backends.upstreams import Upstreams
from txmux.classes import frozen
from txmux.client.tls.contexts import names_of
from txmux.errors import MuxError
from txmux.features.misdirected.check import Names, names_of_listeners
from txmux.features.misdirected.places import Place
from txmux.rules.model import Backend, Rules
from txmux.rules.problems import Problem

_AT_ONCE = 50
_PATIENCE = 10.0  # seconds


@frozen
class _NameQuery:
    """A name that clients ask a server for."""

    names: Names
    name: str
    place: Place
    upstream: Upstream


async def shared_by_servers(rules: Rules, reactor: Any) -> list[Problem]:
    """Find servers that show a certificate with HTTP/2 that is for names of another place."""
    upstreams = Upstreams(reactor, reactor, partial(dial, reactor, clock=reactor), checking=False)
    upstreams.start()
    queries = [*_queries(rules, upstreams)]
    looked_up = upstreams.first_look_ups()
    if looked_up is not None:
        await looked_up
    some = DeferredSemaphore(_AT_ONCE)
    shown = await gatherResults([some.run(_shown_to, one, reactor) for one in queries])
    await upstreams.stop()
    found: dict[str, Problem] = {}
    for one, certificate in zip(queries, shown, strict=True):
        other = one.names.shared(one.place, certificate)
        route: Any = one.place.route
        if other and route.name not in found:
            message = f"for {one.name!r} the server shows a certificate, and offers HTTP/2, that is also for {other}: browsers send requests for that to this server, too; use a certificate for each there, turn HTTP/2 off, or have the server answer 421 for names of others"
            found[route.name] = attrs.evolve(
                route.section.problem(message, "backend"), warning=True
            )
    return [*map(rules.placed, found.values())]


def _queries(rules: Rules, upstreams: Upstreams) -> Iterator[_NameQuery]:
    for names in names_of_listeners(rules):
        for name, place in names.covered(names.patterns):
            backend = place.route and place.route.outcome
            if place.outer is None and isinstance(backend, Backend) and backend.tls is None:
                with suppress(MuxError):  # which trying it has reported
                    yield _NameQuery(names, name, place, upstreams.upstream_of(backend))


def _shown_to(query: _NameQuery, reactor: Any) -> Deferred[Sequence[str]]:
    """Ask the first server for a name; fires with the names in its certificate, and with none if it does not speak HTTP/2."""
    upstream, result = query.upstream, Deferred[Sequence[str]]()
    member = next((one for one in upstream.pool.members if not one.server.depends_on_client), None)
    if member is None:
        result.callback(())
        return result

    def report(names: Iterable[str] = ()) -> None:
        if not result.called:
            result.callback([*names])

    factory: Any = ClientFactory.forProtocol(partial(_Look, report))
    factory.noisy, factory.clientConnectionFailed = False, lambda *_: report()
    tls = TLSMemoryBIOFactory(_Creator(query.name), True, factory, reactor)  # noqa: FBT003 - Twisted's signature
    header = with_header(tls, upstream.backend.proxy_protocol)
    timeout = upstream.backend.connect_timeout
    upstream.dial(partial(dial, reactor, clock=reactor), member.target, header, timeout)
    return result.addTimeout(_PATIENCE, reactor, lambda *_: ())


@implementer(IOpenSSLClientConnectionCreator)
class _Creator:
    def __init__(self, name: str) -> None:
        self._name = name.encode("latin-1")

    def clientConnectionForTLS(self, _: object) -> SSL.Connection:
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_alpn_protos([b"h2", b"http/1.1"])
        connection = SSL.Connection(context, None)
        connection.set_tlsext_host_name(self._name)
        return connection


@implementer(IHandshakeListener)
class _Look(Protocol):
    transport: Any

    def __init__(self, report: Callable[..., None]) -> None:
        self._report = report

    def handshakeCompleted(self) -> None:
        connection = self.transport.getHandle()
        shown = connection.get_peer_certificate()
        is_http2 = connection.get_alpn_proto_negotiated() == b"h2"
        self._report(names_of(shown.to_cryptography()) if is_http2 and shown is not None else ())
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002
        self._report()

"""The certificates that servers show clients whose TLS is passed on to them, for `txmux check --connect`."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import attrs
from OpenSSL import SSL
from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from txmux.backends.connect.client import ProxyClient, ProxyClientFactory
from txmux.backends.connect.dial import Dialler
from txmux.backends.health.checking import header_of_check
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
    upstreams = Upstreams(reactor, reactor, Dialler.of(reactor), checking=False)
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

    def shown(server: ProxyClient) -> None:
        connection: Any = server.transport.getHandle()
        certificate = connection.get_peer_certificate()
        is_http2 = connection.get_alpn_proto_negotiated() == b"h2" and certificate is not None
        server.give_up()
        result.callback([*names_of(certificate.to_cryptography())] if is_http2 else ())

    attempt = ProxyClientFactory(shown, lambda _: result.callback(()))
    attempt.wrap = partial(TLSMemoryBIOFactory, _Creator(query.name), True)  # noqa: FBT003 - Twisted's signature
    attempt.header = header_of_check(upstream.backend.proxy_protocol)
    dialler = upstream.dialler(Dialler.of(reactor))
    attempt.connect(dialler, member.target, upstream.backend.connect_timeout)
    return result


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

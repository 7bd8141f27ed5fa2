"""Finds where one remembered client goes now, and would go by other rules. Workers do so, since it parses what clients sent. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import zip_longest

import attrs

from txmux.access.dynamic_networks import dynamic_networks_of
from txmux.classes import frozen
from txmux.errors import MuxError
from txmux.features.trial import REMEMBER
from txmux.interfaces import Transport
from txmux.net.addresses import address_in
from txmux.rules.model import FoundCertificate, Listener, Refusal, Route, Rules
from txmux.rules.tracing import TracedSample, Tracer, inner_listener, silence_of, traced_outcome
from txmux.serving.listen_addresses import listen_addresses, listen_lines, socket_address
from txmux.telemetry.formatting import plural
from txmux.transport import IPAddress, source_of_client, unmapped

_AT_PORTS = ("tcp", "udp")
_REFUSED = ("no-name", "name-denied", "address-denied")


class CannotTellError(MuxError):
    """What is remembered does not decide."""


@frozen
class RememberedClient:
    """A client whose destination has been decided.

    Attributes:
        time: When it came, in seconds since 1970.
        client: Its address, by a PROXY header if it had one, and `local`, where it connected to.
        layers: What routes saw of it: outermost, then inside what each route has opened. Of a flow the first datagrams.
        certificate: What its TLS that ended here has shown; ``None`` if it was not asked.
        granted: What its tunnel was granted for.
    """

    time: float
    client: str
    local: str
    is_flow: bool
    layers: tuple[bytes, ...]
    certificate: FoundCertificate | None
    granted: Mapping[str, str]

    @property
    def source(self) -> str:
        source = source_of_client(self.client)
        return source if isinstance(source, str) else source.hex()

    @property
    def host(self) -> IPAddress | None:
        address = address_in(self.client)
        return None if address is None else unmapped(address.host)


@frozen
class Destination:
    """Where a client goes.

    Attributes:
        text: As `txmux explain` says it.
        key: Equal for destinations of the same name, and for all that refuse.
        servers: Of a backend, and what the client has `asked` for, if that chooses among them.
        name: What the client asks for, for an example.
        ends: The routes that have opened something, outermost first.
        routes: The names of these and of the one that takes it.
        waits: Whether it was decided only since nothing further came.
        at_once: Whether no byte was waited for.
        excluded_by: The key by which rules shut it out from where it goes now, ``deny`` or ``not_from``.
    """

    text: str
    key: object = Refusal
    servers: frozenset[str] = frozenset()
    asked: str = ""
    name: str | None = None
    ends: Sequence[Route] = ()
    routes: Sequence[str | None] = ()
    waits: bool = False
    at_once: bool = False
    excluded_by: str | None = None

    def is_like(self, other: Destination) -> bool:
        """Return whether both are the same: by name with a server in common, or by all their servers."""
        same = self.servers == other.servers
        is_named_so = self.key == other.key and (same or self.servers & other.servers)
        return self.asked == other.asked and bool(is_named_so or (same and self.servers))


def _destination(tracer: Tracer, listener: Listener, client: RememberedClient) -> Destination:
    """Find where a client goes by some rules, as `txmux explain` does; raises `CannotTellError`."""
    datagrams = client.layers if client.is_flow else None
    sample = TracedSample(client.layers[0], client.host, now=client.time, datagrams=datagrams)
    trace, ends = tracer.trace(listener, sample), list[Route]()
    while (outcome := (traced := traced_outcome(sample, trace)).outcome) is None:
        end, opens = trace.found.decision.route, traced.opens
        if opens is None or end is None or traced.facts.get(opens.error):
            return Destination(str(traced))
        ends.append(end)
        if len(ends) < len(client.layers):
            sample = attrs.evolve(sample, data=client.layers[len(ends)])
        elif trace.inner is not None:
            sample = trace.inner[0]
        elif tracer.rules.routes_of(end):
            raise CannotTellError(f"what is inside {opens.inside} that route {end.name} opens")
        else:
            sample = attrs.evolve(sample, data=b"")
        listener = inner_listener(listener, end)
        trace = tracer.trace(listener, sample, end, client.certificate)
        trace.found.decision.facts.update(client.granted)
    routes = [*(end.name for end in ends), traced.route]
    if ends:
        path = " > ".join(filter(None, routes))
        traced = attrs.evolve(traced, by="route", route=path)
    at_once = silence_of(sample, trace) is None or trace.found.decided_at == 0
    found = Destination(
        str(traced),
        name=trace.facts.get("sni") or trace.facts.get("host"),
        ends=ends,
        routes=routes,
        waits=trace.found.decided_at is None and bool(sample.data) and not at_once,
        at_once=at_once,
    )
    if isinstance(outcome, Refusal) or traced.requested_name.endswith(_REFUSED):
        return found
    key, servers = (type(outcome), outcome.name), frozenset(traced.servers)
    return attrs.evolve(found, key=key, servers=servers, asked=traced.requested_name)


def _listener_in(rules: Rules, before: Listener, local: str) -> Listener | None:
    """Find which listener gets a client by other rules; ``None`` if it is gone."""
    its = [listener for listener in rules.listeners if listener.transport is before.transport]
    same = next((listener for listener in its if listener.name == before.name), None)
    if same and {*before.endpoints} <= {*same.endpoints}:
        return same
    if before.accept_proxy_from is not None:
        for one in its:
            if {*before.endpoints} <= {*one.endpoints}:
                return one
        raise CannotTellError("where its proxy connects to: the listener has other endpoints then")
    address = address_in(local)
    if address is None:
        return same
    where = unmapped(address.host)
    hosts = {"::", str(where), *(("", "0.0.0.0") if where.version == 4 else ())}  # noqa: S104 - nothing listens here
    by_port = rules.once("listeners by port", _listeners_by_port)
    here = by_port.get((before.transport, address.port), ())
    found = next((listener for host, listener in here if host in hosts), None)
    if found is None and same and any(line.kind not in _AT_PORTS for line in listen_lines(same)):
        return same  # systemd's sockets may be anywhere
    return found


def _listeners_by_port(rules: Rules) -> Mapping[tuple[Transport, int], list[tuple[str, Listener]]]:
    listeners = defaultdict[tuple[Transport, int], list[tuple[str, Listener]]](list)
    for listener in rules.listeners:
        for address in listen_addresses(listener):
            where = socket_address(address.text, 1)
            if where is not None:
                listeners[listener.transport, where.port].append((where.host, listener))
    return listeners


def compared(
    old: Tracer, new: Tracer, before: Listener, client: RememberedClient
) -> tuple[Destination, Destination]:
    """Return where a client goes now, and by other rules; raises `CannotTellError`."""
    now, after = _destination(old, before, client), _listener_in(new.rules, before, client.local)
    if after is None:
        return now, Destination("nobody listens there")
    if after.clients.excludes(client.host):
        return now, attrs.evolve(_destination(new, after, client), excluded_by="deny")
    if _reading(before) != _reading(after):
        raise CannotTellError("what it says first where the listener expects something else then")
    then = _destination(new, after, client)
    for end, now_end in zip_longest(then.ends, now.ends):
        if end and _certificate_request(end) not in (None, _certificate_request(now_end)):
            raise CannotTellError(f"the certificate that route {end.name} asks for")
    if then.waits and not now.waits:
        size = plural(len(client.layers[-1]), "byte")
        raise CannotTellError(f"more than the {size} remembered")
    if now.at_once and not then.at_once and not any(client.layers):
        raise CannotTellError("what it says first: it is served before that now")
    routes = new.rules.once(
        "routes by name", lambda its: {route.name: route for route in its.routes}
    )
    its = (routes[name] for name in now.routes if name in routes)
    is_excluded = any(route.clients.excludes(client.host) for route in its)
    return now, attrs.evolve(then, excluded_by="not_from" if is_excluded else None)


def _reading(listener: Listener) -> object:
    """Return what decides which bytes the routes of a listener see."""
    more = {name: value for name, value in listener.more.items() if name != REMEMBER}
    return more, listener.accept_proxy_from


def _certificate_request(route: Route | None) -> object:
    tls = route and route.terminate_tls
    return tls.verification if tls and tls.client_ca else None


def use_contents(present: Rules, rules: Rules) -> list[str]:
    """Let rules that were only read have the networks from other sources that those in force have; return the names of others."""
    contents = {networks.name: networks.contents for networks in dynamic_networks_of(present)}
    others = [networks for networks in dynamic_networks_of(rules) if networks.kind != "file"]
    for one in others:
        one.contents = contents.get(one.name, one.contents)
    return sorted({networks.name for networks in others} - contents.keys())

"""Routes: which listeners they are attached to, and the sections that this makes. Pure.

Source: Gateway API 1.5, ``ParentReference``, ``TLSRoute``, ``TCPRoute``, ``UDPRoute`` and the reasons of ``RouteConditionType``.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import attrs

from txmux.classes import define, frozen
from txmux.cli.labels import (
    KEYS,
    PREFIX,
    LabelError,
    all_that_labels_may_set,
    is_of_route,
    read_by_route,
    section,
)
from txmux.errors import MuxError, printable
from txmux.features.gateway.cluster import (
    GROUP,
    HOSTNAME,
    NOBODY,
    Cluster,
    Key,
    Reference,
    age_of,
    key_of,
    port_name,
    weighted,
)
from txmux.features.gateway.listeners import (
    SHARED_PORT,
    GatewayListener,
    GatewaySettings,
    named_authorities,
)
from txmux.features.gateway.policies import Policies, ServerTLSKeys, authorities_of_services
from txmux.rules.problems import RulesError
from txmux.rules.reading.parser import parse
from txmux.rules.reading.values import split_words
from txmux.wire.jsontext import MISSHAPEN
from txmux.wire.sizes import option_size

KINDS = ("TLSRoute", "TCPRoute", "UDPRoute")
_MATCH = re.compile(rf"{re.escape(PREFIX)}match(?:\..*)?")
_ANNOTATIONS = KEYS - {"backend", "server", "terminate_tls", "under"}
_MOST_OF_PATTERNS = 4096
"""Bytes of each client that the patterns of one namespace may look at; on a port, they cost all clients time."""
_OF_PATTERN = 256  # of one that says no other number
_MOST_NAMES = 64  # host names of a route; the specification has 16


@define(eq=False)
class Attached:
    """A route at one of its parents.

    Attributes:
        ref: The ``parentRef``.
        listeners: The accepted ones, each with the host names that the route has there.
        problem: Why it is not accepted: the reason, and the message.
        lost: Which older routes have what it wants, and which annotations do not count.
    """

    ref: Any
    listeners: list[tuple[GatewayListener, Sequence[str]]] = attrs.field(factory=list)
    problem: tuple[str, str] | None = None
    lost: str = ""


@frozen
class Share:
    """A ``backendRef``: its share of the clients, and the servers for it, each with whether it is drained."""

    weight: int
    title: str = ""
    servers: Mapping[str, bool] = attrs.field(factory=dict)
    tls: ServerTLSKeys = attrs.field(factory=ServerTLSKeys)


@define(eq=False)
class GatewayRoute:
    """A route with a parent of this controller.

    Attributes:
        thing: The object.
        parents: Those that are ours.
        reference: The first that does not resolve, or one that does.
        problem: Why nothing of it can be served: it keeps its host names, and refuses their clients.
        has_several_ports: Whether it is at listeners of more than one port, each of which needs backends of its own.
        route_keys: Of its ``[route]`` sections; with a problem, its match lines alone, or none if they are wrong.
        backend_keys: Of its ``[backend]`` sections, of all alike.
        shares: Of its clients.
        backends: The keys of its ``[backend]`` sections by their names; without a server, all clients are refused.
    """

    kind: str
    thing: Any
    parents: list[Attached]
    reference: Reference = attrs.field(factory=Reference)
    problem: str = ""
    has_several_ports: bool = False
    route_keys: dict[str, Sequence[str]] = attrs.field(factory=dict)
    backend_keys: dict[str, Sequence[str]] = attrs.field(factory=dict)
    shares: list[Share] = attrs.field(factory=list)
    backends: dict[str, Mapping[str, Sequence[str]]] = attrs.field(factory=dict)

    @property
    def title(self) -> str:
        return f"{self.kind} {'/'.join(key_of(self.thing))}"

    @property
    def udp(self) -> str:
        return "udp:" if self.kind == "UDPRoute" else ""

    @property
    def section(self) -> str:
        return "_".join((self.kind.removesuffix("Route").lower(), *key_of(self.thing)))

    def keys_at(self, listener: GatewayListener) -> Mapping[str, Sequence[str]]:
        """Return what its sections for a listener have of their own."""
        if not listener.is_served:
            return {}
        is_open = self.takes_some(listener)
        return {key: lines for key, lines in self.route_keys.items() if is_open or key != "match"}

    def takes_some(self, listener: GatewayListener) -> bool:
        """Return whether it wants the clients of its match lines alone, of which one with `any` would be all."""
        lines = self.route_keys.get("match")
        return listener.is_shared and lines is not None and ["any"] not in map(split_words, lines)

    def backend_for(self, listener: GatewayListener) -> str:
        """Return where clients of a listener go."""
        if self.problem or not listener.is_served:
            return listener.refusal
        name = self.backend_name(listener)
        return name if "server" in self.backends.get(name, ()) else "close"

    def backend_name(self, listener: GatewayListener) -> str:
        parts = [self.section]
        # TLS to servers is not for clients who speak it with them, and has the certificate of a Gateway.
        if any(share.tls.keys or share.tls.refusal for share in self.shares):
            if listener.passes_tls:
                parts.append("passthrough")
            elif listener.has_identity:
                parts += listener.gateway
        if self.has_several_ports:
            parts += "at", listener.section
        return "_".join(parts)


def read_routes(
    cluster: Cluster, listeners: Sequence[GatewayListener], policies: Policies
) -> list[GatewayRoute]:
    """Return the routes that name our Gateways, the oldest first, and count them at their listeners."""
    by_object: dict[tuple[str, Key], list[GatewayListener]] = defaultdict(list)
    for listener in listeners:
        by_object[listener.of].append(listener)
        by_object["Gateway", listener.gateway] += ()  # which may have none of its own
    routes: list[GatewayRoute] = []
    for kind in KINDS:
        for thing in cluster.all(kind):
            try:
                parents = [*_attach(cluster, kind, thing, by_object)]
            except MISSHAPEN:
                continue
            if parents:
                routes.append(GatewayRoute(kind, thing, parents))
    routes.sort(key=lambda its: age_of(its.thing))
    taken: dict[tuple[GatewayListener, str], GatewayRoute] = {}
    spent: dict[tuple[str, str], int] = defaultdict(int)
    for its in routes:
        _read(its, cluster, policies)
        _spend(its, spent)
        _claim(its, taken)
    return routes


def _attach(
    cluster: Cluster,
    kind: str,
    thing: Any,
    by_object: Mapping[tuple[str, Key], Sequence[GatewayListener]],
) -> Iterator[Attached]:
    namespace = key_of(thing)[0]
    names = _hostnames(thing)
    for ref in thing["spec"].get("parentRefs") or ():
        of = ref.get("kind") or "Gateway", (ref.get("namespace") or namespace, ref["name"])
        if (ref.get("group") or GROUP) != GROUP or of not in by_object:
            continue
        attached = Attached(ref)
        named = [
            its
            for its in by_object[of]
            if ref.get("sectionName") in {None, "", its.name}
            and ref.get("port") in {None, its.port}
        ]
        allowed = [
            its for its in named if kind in its.route_kinds and _lets_in(cluster, its, namespace)
        ]
        pairs = [(its, shared_names(its.hostname, names * (kind == "TLSRoute"))) for its in allowed]
        attached.listeners = [(its, mine) for its, mine in pairs if mine]
        if not named:
            attached.problem = "NoMatchingParent", "no listener has this name and port"
        elif not allowed:
            why = "no listener takes this kind of route from this namespace"
            attached.problem = "NotAllowedByListeners", why
        elif not attached.listeners:
            why = "no listener has one of these host names"
            attached.problem = "NoMatchingListenerHostname", why
        yield attached


def named_config_maps(cluster: Cluster, settings: GatewaySettings) -> set[Key]:
    """Return the keys of the ConfigMaps that policies for Services of routes, and our Gateways, name."""
    by_service = authorities_of_services(cluster)
    keys = set(named_authorities(cluster, settings))
    for kind in KINDS if by_service else ():
        for thing in cluster.all(kind):
            with suppress(*MISSHAPEN):
                home = key_of(thing)[0]
                for rule in thing["spec"]["rules"]:
                    for ref in rule.get("backendRefs") or ():
                        keys |= by_service.get((ref.get("namespace") or home, ref["name"]), set())
    return {key for key in keys if all(map(HOSTNAME.fullmatch, key))}


def _hostnames(thing: Any) -> list[str]:
    return [str(name).lower() for name in thing["spec"].get("hostnames") or ()]


def _lets_in(cluster: Cluster, listener: GatewayListener, namespace: str) -> bool:
    wanted = (listener.spec.get("allowedRoutes") or {}).get("namespaces")
    return cluster.may_come_from(wanted, listener.of[1][0], namespace)


def shared_names(hostname: str, names: Sequence[str]) -> list[str]:
    """Return the host names that a listener and a route have in common, the more exact of each two; without any, the name is empty."""
    if not names:
        return [hostname]
    pairs = [(hostname, name) for name in names]
    return [
        *dict.fromkeys(b if covers(a, b) else a for a, b in pairs if covers(a, b) or covers(b, a))
    ]


def covers(wide: str, name: str) -> bool:
    # A wildcard stands for any number of labels.
    return wide in {"", name} or (wide.startswith("*.") and name.endswith(wide[1:]))


def _read(its: GatewayRoute, cluster: Cluster, policies: Policies) -> None:
    """Read annotations and references; what is wrong stands in the route."""
    try:
        rules = its.thing["spec"]["rules"]
        if len(rules) != 1:
            raise LabelError("several rules are not supported: nothing tells their clients apart")
        names = _hostnames(its.thing)
        if len(names) > _MOST_NAMES or not all(map(HOSTNAME.fullmatch, names)):
            raise LabelError(
                f"hostnames: at most {_MOST_NAMES}, each a name such as a.example or *.a.example"
            )
        _read_annotations(its, its.thing, is_service=False)
        listeners = [listener for attached in its.parents for listener, _ in attached.listeners]
        its.has_several_ports = (
            len({listener.section for listener in listeners if listener.holds_place}) > 1
        )
        gateways = dict.fromkeys(listener.gateway for listener in listeners)
        for ref in rules[0].get("backendRefs") or ():
            policies.note((ref.get("namespace") or key_of(its.thing)[0], ref["name"]), gateways)
            reference, share = _share(its, cluster, policies, ref)
            its.shares.append(share)
            _unresolved(its, reference)
        _check_keys(its)
        for listener in listeners:
            name = its.backend_name(listener)
            if name not in its.backends:
                its.backends[name] = _backend_keys(its, listener)
    except (MuxError, *MISSHAPEN) as problem:
        why = str(problem) if isinstance(problem, MuxError) else "its spec cannot be read"
        its.problem = printable(why, 300)
        its.route_keys = _match_of(its)


def _match_of(its: GatewayRoute) -> dict[str, Sequence[str]]:
    """Return the match lines of a route in which other things are wrong; without a line if they are, too."""
    try:
        annotations = its.thing["metadata"].get("annotations") or {}
        names = [*filter(_MATCH.fullmatch, annotations)]
        if its.kind == "TLSRoute" or not names:
            return {}
        labels = {name.removeprefix(PREFIX): str(annotations[name]) for name in names}
        its.route_keys, its.backend_keys = {**read_by_route(labels, _ANNOTATIONS)[""]}, {}
        _check_keys(its)
    except (MuxError, *MISSHAPEN):
        return {"match": ()}
    return its.route_keys


def _check_keys(its: GatewayRoute) -> None:
    """Check what annotations say by itself; else a listener that names the route would be left out with it."""
    keys = {"match": ["any"], **its.route_keys, "backend": ["x"]}
    server = {**its.backend_keys, "server": [f"{its.udp}{NOBODY}"]}
    listen = section("listen", "x", {"endpoint": [f"{its.udp or ':'}2"]})
    if why := _problem_of(
        "\n".join((listen, section("route", "x", keys), section("backend", "x", server)))
    ):
        raise LabelError(why)


@lru_cache(1000)
def _problem_of(text: str) -> str:
    try:
        parse(text, "")
    except RulesError as error:
        first = error.problems[0]
        return f"txmux.{first.key}: {first.message}" if first.key else first.message
    return ""


def _unresolved(its: GatewayRoute, found: Reference) -> None:
    if found.reason and not its.reference.reason:
        its.reference = found


def _backend_keys(its: GatewayRoute, listener: GatewayListener) -> dict[str, Sequence[str]]:
    """Return the keys of a ``[backend]`` for clients of a listener. A share that needs other TLS than the first is refused."""
    tls: Mapping[str, Sequence[str]] | None = None
    shares = []
    for share in its.shares:
        servers, why = share.servers, share.tls.refusal
        if servers and share.weight > 0 and not listener.passes_tls:
            if share.tls.keys and its.udp:
                why = f"{share.title} has a BackendTLSPolicy, and there is no TLS over UDP"
            elif share.tls.keys and listener.identity_problem is not None:
                why = f"tls.backend.clientCertificateRef: {listener.identity_problem[1]}"
            elif not why and tls not in (None, share.tls.keys):
                why = f"{share.title} needs other TLS than a Service before it; write a route for each"
            if why:
                _unresolved(its, Reference("UnsupportedProtocol", why))
                servers = {}
            else:
                tls = share.tls.keys
        shares.append((share.weight, servers))
    keys = {**its.backend_keys, **(tls or {})}
    if tls and listener.identity:
        keys["tls_client_certificate"] = [listener.identity]
    lines = weighted(shares)
    is_shared = any(line.endswith("final") for line in lines)
    if is_shared and not keys.get("balance", ["-hash"])[0].endswith("-hash"):
        keys["balance"] = ["round-robin"]  # by other rules who is refused is idle
    if lines:
        keys["server"] = [its.udp + line for line in lines]
    return keys


def _share(
    its: GatewayRoute, cluster: Cluster, policies: Policies, ref: Any
) -> tuple[Reference, Share]:
    weight = 1 if ref.get("weight") is None else int(ref["weight"])
    found = cluster.resolve(ref, "Service", its.kind, key_of(its.thing)[0])
    if found.reason:
        reason = "BackendNotFound" if found.reason == "NotFound" else found.reason
        return attrs.evolve(found, reason=reason), Share(weight)
    service, title = found.found, f"Service {'/'.join(key_of(found.found))}"
    if service["spec"].get("type") == "ExternalName":
        why = f"{title} is only another name; name one with endpoints"
        return Reference("InvalidKind", why), Share(weight)
    transport = "UDP" if its.udp else "TCP"
    port = port_name(service, int(ref["port"]), transport)
    if port is None:
        why = f"{title} has no port {ref['port']} of {transport}"
        return Reference("BackendNotFound", why), Share(weight)
    _read_annotations(its, service, is_service=True)
    tls = policies.tls_to(key_of(service), port)
    return found, Share(weight, title, cluster.servers(service, port), tls)


def _read_annotations(its: GatewayRoute, thing: Any, *, is_service: bool) -> None:
    annotations = thing["metadata"].get("annotations") or {}
    labels = {
        n.removeprefix(PREFIX): str(text) for n, text in annotations.items() if n.startswith(PREFIX)
    }
    routes = read_by_route(labels, _ANNOTATIONS)
    if len(routes) > 1 or "" not in routes:
        name = next(filter(None, routes))
        raise LabelError(f"txmux.{name}: an annotation has no name of a route; write txmux.KEY")
    for key, values in routes[""].items():
        if key == "match" and its.kind != "TLSRoute" and not is_service:
            its.route_keys[key] = values
        elif only := all_that_labels_may_set(key, values, is_own_address=True):
            raise LabelError(f"txmux.{key}: annotations may set {only}")
        elif not is_of_route(key, ()):
            its.backend_keys.setdefault(key, values)
        elif is_service:
            raise LabelError(f"txmux.{key} is of a route; write it there")
        else:
            its.route_keys[key] = values


def _spend(its: GatewayRoute, spent: dict[tuple[str, str], int]) -> None:
    """Count what the patterns of a route cost each client of its ports; the older routes of a namespace come first."""
    cost = sum(map(_cost, its.route_keys.get("match", ())))
    namespace = key_of(its.thing)[0]
    ports = {
        listener.section: listener.port
        for attached in its.parents
        for listener, _ in attached.listeners
        if "match" in its.keys_at(listener)
    }
    for name, port in ports.items():
        before = spent[namespace, name]
        if before + cost > _MOST_OF_PATTERNS:
            its.problem = its.problem or (
                f"txmux.match: its patterns look at {cost} bytes of each client of port {port}, where those of older routes"
                f" of namespace {namespace} look at {before}; {_MOST_OF_PATTERNS} is the most in all: lower within=, or write fewer"
            )
            its.route_keys = {"match": ()}
            return
    for name in ports:
        spent[namespace, name] += cost


@lru_cache(1000)
def _cost(line: str) -> int:
    """Return how many bytes of a client the regular expressions of a valid line may look at."""
    words = split_words(line)
    options = dict(word.partition("=")[::2] for word in words)
    cost = _OF_PATTERN * sum(value.startswith("~") for value in options.values())
    if "regex" in words:
        cost += option_size(options, "within", _OF_PATTERN, range(1 << 17))
    return cost


def _claim(its: GatewayRoute, taken: dict[tuple[GatewayListener, str], GatewayRoute]) -> None:
    """Leave a route what no older one has: the host names of a listener, or all of its clients."""
    # One of them may be named twice, by its name and by its port.
    counted: set[GatewayListener] = set()
    for attached in its.parents:
        left: list[tuple[GatewayListener, Sequence[str]]] = []
        lost: list[str] = []
        unread: list[str] = []
        for listener, names in attached.listeners:
            free = []
            if "match" in its.route_keys and not listener.is_shared:
                of = f"Gateway {'/'.join(listener.gateway)}"
                unread.append(f'txmux.match counts only where {of} has {SHARED_PORT}: "yes"')
            # Names that are none are written nowhere.
            for name in [name for name in names if not name or HOSTNAME.fullmatch(name)][
                :_MOST_NAMES
            ]:
                # With match lines that count, a route takes no clients of others.
                takes_some = its.takes_some(listener)
                owner = its if takes_some else taken.setdefault((listener, name), its)
                if owner is its:
                    free += [name] * (not takes_some or bool(its.route_keys["match"]))
                else:
                    what = f"{name or 'all clients'} of listener {listener.name}"
                    lost.append(f"{owner.title} is older, and has {what}")
            if listener in counted:
                continue
            counted.add(listener)
            if free:
                left.append((listener, free))
            # All that are valid are accepted, of which the oldest has the clients.
            listener.routes += not its.problem
        attached.listeners, attached.lost = left, "; ".join(dict.fromkeys([*lost, *unread]))

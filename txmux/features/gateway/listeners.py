"""Gateways and their listeners: which are ours, which of them are served, and where. Pure.

Source: Gateway API 1.5, ``GatewaySpec``, ``ListenerSetSpec``, and the reasons of ``ListenerConditionType``.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations, groupby
from operator import attrgetter
from typing import Any

import attrs

from txmux.classes import define, frozen
from txmux.features.gateway.certificates import SecretFiles
from txmux.features.gateway.cluster import GROUP, HOSTNAME, Cluster, Key, age_of, key_of
from txmux.features.gateway.policies import find_authorities
from txmux.rules.reading.values import NAME
from txmux.wire.jsontext import MISSHAPEN

SHARED_PORT = "txmux.shared-port"
"""The annotation of a Gateway whose TLS listeners may have the port of a TCP listener."""
_KINDS = {
    ("TLS", "Passthrough"): ("TLSRoute",),
    ("TLS", "Terminate"): ("TLSRoute",),
    ("TCP", ""): ("TCPRoute",),
    ("UDP", ""): ("UDPRoute",),
}
_LAX = "AllowInsecureFallback"
_NO_AUTHORITY = "NoValidCACertificate"
_MOST_NAMESPACES = 16  # other ones, of whose Secrets the Gateways of one may use some
_SPOKEN = sorted({protocol for protocol, _ in _KINDS})


@frozen
class GatewaySettings:
    """What a provider was started with.

    Attributes:
        controller: The name of GatewayClasses that are ours.
        only: The name of the one class to serve; all of the controller if it is empty.
        ports: Where to listen for a port of a Gateway, if it is another one.
    """

    controller: str = "txmux/gateway"
    only: str = ""
    ports: Mapping[int, int] = attrs.field(factory=dict)


@define(eq=False)
class GatewayListener:
    """A listener of a Gateway, or of a ListenerSet that belongs to one.

    Attributes:
        of: The kind and the key of the object whose spec it is in.
        gateway: The key of the Gateway.
        spec: As it was written.
        route_kinds: Those of routes that it takes.
        certificates: The files of Secrets that can be used.
        authorities: The file by which clients' certificates are verified; empty if clients are not asked for one.
        identity: The file with its Gateway's certificate for servers; empty if there is none that can be used.
        identity_problem: Why there is none: the reason, and the message.
        problems: What is wrong, by the type of the condition: its reason, and the message.
        is_shared: Whether its Gateway lets TLS and TCP have one port.
        routes: How many are attached.
    """

    of: tuple[str, Key]
    gateway: Key
    spec: Any
    route_kinds: Sequence[str] = ()
    certificates: Sequence[str] = ()
    authorities: str = ""
    identity: str = ""
    identity_problem: tuple[str, str] | None = None
    problems: dict[str, tuple[str, str]] = attrs.field(factory=dict)
    is_shared: bool = False
    routes: int = 0

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def port(self) -> int:
        return int(self.spec["port"])

    @property
    def hostname(self) -> str:
        return str(self.spec.get("hostname") or "").lower() if self.protocol == "TLS" else ""

    @property
    def protocol(self) -> str:
        return str(self.spec["protocol"])

    @property
    def terminates(self) -> bool:
        return self.protocol == "TLS" and self._mode == "Terminate"

    @property
    def passes_tls(self) -> bool:
        return self.protocol == "TLS" and not self.terminates

    @property
    def has_identity(self) -> bool:
        return bool(self.identity or self.identity_problem)

    @property
    def certificate_refs(self) -> Sequence[Any]:
        return (self.spec.get("tls") or {}).get("certificateRefs") or () if self.terminates else ()

    @property
    def _mode(self) -> str:
        if self.protocol != "TLS":
            return ""
        return str((self.spec.get("tls") or {}).get("mode") or "Terminate")

    @property
    def supported(self) -> Sequence[str]:
        return _KINDS.get((self.protocol, self._mode), ())

    @property
    def holds_place(self) -> bool:
        """Whether its port and its host name are no one else's; if it cannot be served, its clients are refused."""
        refused, *_ = self.problems.get("Accepted", ("",))
        return "Conflicted" not in self.problems and refused in {"", _NO_AUTHORITY}

    @property
    def is_served(self) -> bool:
        """Whether clients are taken; without a usable certificate they cannot be."""
        is_accepted = self.holds_place and "Accepted" not in self.problems
        return is_accepted and (not self.terminates or bool(self.certificates))

    @property
    def refusal(self) -> str:
        return "reject" if self.protocol == "TLS" else "close"

    @property
    def section(self) -> str:
        return f"{'udp' if self.protocol == 'UDP' else 'tcp'}_{self.port}"

    @property
    def port_title(self) -> str:
        return f"port {self.section}"

    @property
    def word(self) -> str:
        """What tells its routes from those of others in a rules file."""
        (kind, (namespace, name)) = self.of
        of = f"set_{namespace}_{name}" if kind == "ListenerSet" else "_".join(self.gateway)
        return f"{of}_{self.name}"


_Holders = dict[str, dict[str, GatewayListener]]


def specificity(hostname: str) -> tuple[bool, bool, int]:
    # Exact names come first, then wildcards by their length, then none.
    return not hostname, hostname.startswith("*"), -len(hostname)


def our_classes(cluster: Cluster, settings: GatewaySettings) -> Iterator[tuple[Any, str]]:
    """Yield the GatewayClasses of the controller, each with why it is not accepted."""
    for gateway_class in cluster.all("GatewayClass"):
        if gateway_class["spec"].get("controllerName") == settings.controller:
            has_parameters = gateway_class["spec"].get("parametersRef")
            yield (
                gateway_class,
                "parametersRef is not supported; remove it" if has_parameters else "",
            )


def our_gateways(cluster: Cluster, settings: GatewaySettings) -> list[Any]:
    """Return the Gateways of accepted classes, the oldest first."""
    classes = {
        key_of(gateway_class)[1]
        for gateway_class, why in our_classes(cluster, settings)
        if not why and settings.only in {"", key_of(gateway_class)[1]}
    }
    return [
        gateway
        for gateway in cluster.all("Gateway")
        if gateway["spec"].get("gatewayClassName") in classes
    ]


def refusal(gateway: Any) -> str:
    """Return why nothing of a Gateway is served; empty if its listeners decide."""
    has_parameters = (gateway["spec"].get("infrastructure") or {}).get("parametersRef")
    return "infrastructure.parametersRef is not supported; remove it" if has_parameters else ""


def sets_of(
    cluster: Cluster, gateways: Collection[Key]
) -> list[tuple[Any, Key, tuple[str, str] | None]]:
    """Return the ListenerSets of these Gateways, the oldest first, each with its Gateway, and the reason and the message if that does not take it."""
    sets = []
    for listener_set in cluster.all("ListenerSet"):
        parent, namespace = listener_set["spec"]["parentRef"], key_of(listener_set)[0]
        key = parent.get("namespace") or namespace, parent["name"]
        if (parent.get("kind") or "Gateway") == "Gateway" and key in gateways:
            gateway = cluster.objects["Gateway"][key]
            allowed = (gateway["spec"].get("allowedListeners") or {}).get("namespaces")
            takes = cluster.may_come_from(allowed or {"from": "None"}, key[0], namespace)
            name = f"Gateway {'/'.join(key)}"
            problem = None
            if refused := refusal(gateway):
                problem = "ParentNotAccepted", f"{name}: {refused}"
            elif not takes:
                problem = "NotAllowed", f"{name} allows no ListenerSet of this namespace"
            sets.append((listener_set, key, problem))
    return sets


def read_listeners(
    cluster: Cluster, settings: GatewaySettings, files: SecretFiles
) -> list[GatewayListener]:
    """Return all listeners of our Gateways, in the order of their precedence. `files` says which certificates can be used."""
    gateways = {key_of(gateway): gateway for gateway in our_gateways(cluster, settings)}
    holders: list[tuple[Any, str, Any, Key]] = [
        ((age_of(gateway), False), "Gateway", gateway, key) for key, gateway in gateways.items()
    ]
    for holder, key, problem in sets_of(cluster, gateways.keys()):
        if not problem:  # it comes after its Gateway, also after one that was made anew
            age = age_of(holder)
            holders.append(
                ((max(age, age_of(gateways[key])), True, age), "ListenerSet", holder, key)
            )
    holders.sort(key=lambda its: its[0])
    listeners: list[GatewayListener] = []
    for _, kind, holder, key in holders:
        if not refusal(gateways[key]):
            annotations = gateways[key]["metadata"].get("annotations") or {}
            is_shared = annotations.get(SHARED_PORT) == "yes"
            listeners += _of(kind, holder, key, is_shared=is_shared)
    for listener in listeners:
        _find_route_kinds(listener)
        if listener.terminates:
            _find_certificates(listener, cluster, files)
            _find_validation(listener, cluster, files)
        _find_identity(listener, cluster, files)
    _find_conflicts(listeners, settings)
    return listeners


def secret_namespaces(cluster: Cluster, settings: GatewaySettings) -> dict[str, str]:
    """Return the namespaces of the Secrets that our Gateways name and may use, each with why it is not read; empty if it is."""
    gateways = our_gateways(cluster, settings)
    keys = [key_of(gateway) for gateway in gateways]
    sets = [
        ("ListenerSet", listener_set)
        for listener_set, _, problem in sets_of(cluster, keys)
        if not problem
    ]
    namespaces: dict[str, str] = {}
    of_others: dict[str, set[str]] = defaultdict(set)  # by the namespace that names them
    for kind, thing in [
        *(("Gateway", gateway) for gateway in gateways if not refusal(gateway)),
        *sets,
    ]:
        home = key_of(thing)[0]
        refs = [
            ref
            for its in _of(kind, thing, key_of(thing), is_shared=False)
            for ref in its.certificate_refs
        ]
        refs += filter(None, [_tls_of(thing, "backend").get("clientCertificateRef")])
        for ref in refs:
            reason = cluster.resolve(ref, "Secret", kind, home).reason
            where = ref.get("namespace") or home
            if reason in {"InvalidKind", "RefNotPermitted"}:
                continue
            others = of_others[home]
            if where == home or where in others or len(others) < _MOST_NAMESPACES:
                others |= {where} - {home}
                namespaces[where] = ""
            else:
                why = f"Gateways of {home} name Secrets of more than {_MOST_NAMESPACES} other namespaces"
                namespaces.setdefault(where, f"{why}: those of {where} are not read")
    return namespaces


def named_authorities(cluster: Cluster, settings: GatewaySettings) -> set[Key]:
    """Return the keys of the ConfigMaps that our Gateways name, as far as they may."""
    return {
        (ref.get("namespace") or key_of(gateway)[0], ref["name"])
        for gateway in our_gateways(cluster, settings)
        for validation in _validations(gateway).values()
        for ref in validation.get("caCertificateRefs") or ()
        if cluster.resolve(ref, "ConfigMap", "Gateway", key_of(gateway)[0]).reason
        in {"", "NotFound"}
    }


def admits_invalid_certificates(gateway: Any) -> bool:
    return any(validation.get("mode") == _LAX for validation in _validations(gateway).values())


def _tls_of(gateway: Any, side: str) -> Any:
    return (gateway["spec"].get("tls") or {}).get(side) or {}


def _validations(gateway: Any) -> dict[int, Any]:
    """Return how clients' certificates are verified, by ports; 0 is all others."""
    frontend = _tls_of(gateway, "frontend")
    by_port = {0: frontend.get("default")}
    by_port |= {port["port"]: port.get("tls") for port in frontend.get("perPort") or ()}
    return {port: (tls or {}).get("validation") or {} for port, tls in by_port.items()}


def _of(kind: str, thing: Any, gateway: Key, *, is_shared: bool) -> Iterator[GatewayListener]:
    for spec in thing["spec"].get("listeners") or ():
        listener = GatewayListener((kind, key_of(thing)), gateway, spec, is_shared=is_shared)
        try:
            is_valid = (
                NAME.fullmatch(listener.name) is not None
                and HOSTNAME.fullmatch(listener.hostname or "a") is not None
                and 0 < listener.port < 65536
            )
        except MISSHAPEN:
            is_valid = False
        if is_valid:  # else no server of the API would have taken it
            yield listener


def _find_route_kinds(listener: GatewayListener) -> None:
    supported = listener.supported
    if not supported:
        protocol = listener.protocol
        why = f"{protocol} is not served here, but {', '.join(_SPOKEN)}; let an HTTP gateway stand behind"
        listener.problems["Accepted"] = "UnsupportedProtocol", why
        return
    wanted = (listener.spec.get("allowedRoutes") or {}).get("kinds") or ()
    # Of another group, it has none of their names.
    names = {kind["kind"] if (kind.get("group") or GROUP) == GROUP else "" for kind in wanted}
    listener.route_kinds = [kind for kind in supported if not wanted or kind in names]
    if not names <= {*supported}:
        why = f"it can take {', '.join(supported)}"
        listener.problems["ResolvedRefs"] = "InvalidRouteKinds", why


def _find_certificates(listener: GatewayListener, cluster: Cluster, files: SecretFiles) -> None:
    kind, (namespace, _) = listener.of
    refs = listener.certificate_refs
    usable = []
    reason, why = "InvalidCertificateRef", "" if refs else "it names no certificate"
    for ref in refs:
        secret = cluster.resolve(ref, "Secret", kind, namespace)
        problem = secret.message or files.problem(secret.found)
        if problem:
            why = why or problem
            if secret.reason == "RefNotPermitted":
                reason, why = secret.reason, problem
        else:
            usable.append(files.certificate(secret.found))
    listener.certificates = usable
    if why:
        listener.problems["ResolvedRefs"] = reason, why


def _find_validation(listener: GatewayListener, cluster: Cluster, files: SecretFiles) -> None:
    gateway = cluster.objects["Gateway"][listener.gateway]
    by_port = _validations(gateway)
    wanted = by_port.get(listener.port, by_port[0])
    if not wanted or wanted.get("mode") == _LAX:
        return
    refs = wanted.get("caCertificateRefs") or ()
    listener.authorities, unresolved = find_authorities(refs, cluster, gateway, "Gateway", files)
    if unresolved is not None:
        reason, why = unresolved
        reason = "InvalidCACertificateKind" if reason == "InvalidKind" else reason
        listener.problems["ResolvedRefs"] = reason, why
    if not listener.authorities:
        why = unresolved[1] if unresolved else "tls.frontend names no certificate of an authority"
        listener.problems.setdefault("Accepted", (_NO_AUTHORITY, why))


def _find_identity(listener: GatewayListener, cluster: Cluster, files: SecretFiles) -> None:
    gateway = cluster.objects["Gateway"][listener.gateway]
    ref = _tls_of(gateway, "backend").get("clientCertificateRef")
    if not ref:
        return
    secret = cluster.resolve(ref, "Secret", "Gateway", listener.gateway[0])
    if problem := secret.message or files.problem(secret.found):
        is_denied = secret.reason == "RefNotPermitted"
        reason = secret.reason if is_denied else "InvalidClientCertificateRef"
        listener.identity_problem = reason, problem
    else:
        listener.identity = files.certificate(secret.found)


def _find_conflicts(listeners: Sequence[GatewayListener], settings: GatewaySettings) -> None:
    """Mark listeners that want what another one has: of two of one object, neither gets it."""
    # Those that have a port, by protocols and host names: there may be thousands.
    holders: dict[str, _Holders] = defaultdict(lambda: defaultdict(dict))
    ports: dict[tuple[bool, int], GatewayListener] = {}  # the first of each address
    for _, group in groupby(listeners, lambda its: its.of):
        own = [*group]
        for its in own:
            rivals = _rivals(its, holders[its.section])
            if rival := next((rival for rival in rivals if _conflict(rival, its)), None):
                _lose(its, rival)
        left = [its for its in own if its.holds_place]
        for one, other in combinations(left, 2):
            if _conflict(one, other):
                _lose(one, other)
                _lose(other, one)
        for its in filter(attrgetter("holds_place"), left):
            where = settings.ports.get(its.port, its.port)
            first = ports.setdefault((its.protocol == "UDP", where), its)
            if first.port != its.port:
                why = f"--port has it listen on {where}, as port {first.port} does; map it to another port"
                its.problems["Accepted"] = "PortUnavailable", why
            else:
                holders[its.section][its.protocol][its.hostname] = its


def _rivals(its: GatewayListener, others: _Holders) -> Iterator[GatewayListener]:
    """Yield those of a port that a listener may be in conflict with; of its own protocol, one alone has its host name."""
    if its.hostname in others.get(its.protocol, ()):
        yield others[its.protocol][its.hostname]
    for protocol, by_hostname in others.items():
        yield from by_hostname.values() if protocol != its.protocol else ()


def _lose(its: GatewayListener, other: GatewayListener) -> None:
    if its.holds_place and (reason := _conflict(other, its)):
        kind, key = other.of
        why = f"listener {other.name} of {kind} {'/'.join(key)} has port {other.port} {other.hostname}"
        its.problems["Conflicted"] = reason, why.rstrip()


def _conflict(one: GatewayListener, other: GatewayListener) -> str:
    """Return the reason why two listeners cannot have one port; empty if they can, or want others."""
    protocols = {one.protocol, other.protocol}
    if one.section != other.section:
        return ""
    if protocols == {"TLS"}:
        return "HostnameConflict" if one.hostname == other.hostname else ""
    if protocols == {"TLS", "TCP"} and one.is_shared and other.is_shared:
        return ""
    return "ProtocolConflict"

"""TLS to the servers of Services: which BackendTLSPolicy says how. Pure.

Source: Gateway API 1.5, ``BackendTLSPolicySpec``, ``LocalPolicyTargetReferenceWithSectionName``, and the reasons of ``PolicyConditionType``.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import attrs

from txmux.classes import define, frozen
from txmux.features.gateway.certificates import SecretFiles
from txmux.features.gateway.cluster import HOSTNAME, Cluster, Key, key_of
from txmux.wire.jsontext import MISSHAPEN

KIND = "BackendTLSPolicy"


@frozen
class ServerTLSKeys:
    """What a policy says of TLS to a port of a Service.

    Attributes:
        keys: Of a ``[backend]``; none without a policy.
        refusal: Why its clients are refused: a policy that cannot be served is no reason for plain text.
    """

    keys: Mapping[str, Sequence[str]] = attrs.field(factory=dict)
    refusal: str = ""


@define(eq=False)
class BackendPolicy:
    """A BackendTLSPolicy.

    Attributes:
        thing: The object.
        problem: Why it cannot be served: the reason, and the message.
        unresolved: Which of its references do not resolve.
        lost: Which target it has not.
        authorities: The file with their certificates; empty is those of the system.
        gateways: The Gateways with a route to a target, which its status names.
    """

    thing: Any
    problem: tuple[str, str] | None = None
    unresolved: tuple[str, str] | None = None
    lost: tuple[str, str] | None = None
    authorities: str = ""
    gateways: dict[Key, None] = attrs.field(factory=dict)

    @property
    def title(self) -> str:
        return f"{KIND} {'/'.join(key_of(self.thing))}"


class Policies:
    """The policies of a cluster, by their targets.

    Args:
        files: Says which ConfigMaps can be used, and where their certificates are.

    Attributes:
        all: The oldest first.
    """

    def __init__(self, cluster: Cluster, files: SecretFiles) -> None:
        self.all: list[BackendPolicy] = []
        self._named: dict[Key, list[BackendPolicy]] = defaultdict(list)
        self._owners: dict[tuple[Key, str], BackendPolicy] = {}
        self._astray: dict[Key, BackendPolicy] = {}  # by Services that have no such port
        for thing in cluster.all(KIND):
            its = BackendPolicy(thing)
            try:
                targets = [*_targets(thing)]
            except MISSHAPEN:
                continue
            try:
                _read(its, cluster, files)
            except MISSHAPEN:
                its.problem = "Invalid", "its spec cannot be read"
            self.all.append(its)
            for service, section in targets:
                self._attach(its, cluster, service, section)

    def _attach(self, its: BackendPolicy, cluster: Cluster, service: Key, section: str) -> None:
        self._named[service].append(its)
        title = f"Service {'/'.join(service)}"
        target = cluster.objects.get("Service", {}).get(service)
        if target is None:
            its.lost = "TargetNotFound", f"there is no {title}"
        elif section and section not in {
            port.get("name") for port in target["spec"].get("ports") or ()
        }:
            its.lost = "TargetNotFound", f"{title} has no port with the name {section}"
            self._astray.setdefault(service, its)
        elif (owner := self._owners.setdefault((service, section), its)) is not its:
            port = f"port {section} of {title}" if section else title
            its.lost = "Conflicted", f"{owner.title} is older, and has {port}"

    def note(self, service: Key, gateways: Mapping[Key, None]) -> None:
        """Remember that routes of Gateways lead to a Service, which may be missing."""
        for its in self._named.get(service, ()):
            its.gateways.update(gateways)

    def tls_to(self, service: Key, port: str) -> ServerTLSKeys:
        """Return what is said of a port with a name; the policy of a port goes before that of the whole Service."""
        owner = self._owners.get((service, port)) or self._owners.get((service, ""))
        astray = self._astray.get(service)
        if owner is None and astray is not None and astray.lost is not None:
            return ServerTLSKeys(refusal=f"{astray.title}: {astray.lost[1]}")
        if owner is None:
            return ServerTLSKeys()
        if owner.problem is not None:
            return ServerTLSKeys(refusal=f"{owner.title}: {owner.problem[1]}")
        keys = {"tls": ["yes"], "tls_name": [owner.thing["spec"]["validation"]["hostname"]]}
        if owner.authorities:
            keys["tls_ca"] = [owner.authorities]
        return ServerTLSKeys(keys)


def _targets(thing: Any) -> Iterator[tuple[Key, str]]:
    for ref in thing["spec"].get("targetRefs") or ():
        if (ref.get("group") or "", ref.get("kind")) == ("", "Service"):
            yield (key_of(thing)[0], str(ref["name"])), str(ref.get("sectionName") or "")


def _read(its: BackendPolicy, cluster: Cluster, files: SecretFiles) -> None:
    validation = its.thing["spec"]["validation"]
    hostname = validation["hostname"]
    authorities_name = validation.get("wellKnownCACertificates") or ""
    refs = _authority_refs(its.thing)
    its.authorities, its.unresolved = find_authorities(refs, cluster, its.thing, KIND, files)
    other_names = [
        name
        for one in validation.get("subjectAltNames") or ()
        if (name := one.get("hostname") or one.get("uri")) != hostname
    ]
    if hostname.startswith("*") or HOSTNAME.fullmatch(hostname) is None:
        its.problem = "Invalid", "validation.hostname: write a host name such as www.example.com"
    elif other_names:
        why = f"validation.subjectAltNames: {other_names[0]} is not validation.hostname, and no other name can be verified"
        its.problem = "Invalid", why
    elif not refs and authorities_name != "System":
        its.problem = (
            "Invalid",
            f"validation.wellKnownCACertificates: {authorities_name or 'nothing'} is not supported; write System",
        )
    elif refs and not its.authorities and its.unresolved is not None:
        its.problem = "NoValidCACertificate", its.unresolved[1]


def _authority_refs(thing: Any) -> Sequence[Any]:
    return thing["spec"]["validation"].get("caCertificateRefs") or ()


def find_authorities(
    refs: Sequence[Any], cluster: Cluster, of: Any, kind: str, files: SecretFiles
) -> tuple[str, tuple[str, str] | None]:
    """Return the file with the authorities of ConfigMaps, empty if none can be used; and the reason and the message if one cannot.

    `of` is the object of a kind that names them.
    """
    usable = []
    unresolved = None
    for ref in refs:
        config_map = cluster.resolve(ref, "ConfigMap", kind, key_of(of)[0])
        problem = config_map.message or files.authority_problem(config_map.found)
        if not problem:
            usable.append(config_map.found)
        elif unresolved is None:
            is_named = config_map.reason in {"InvalidKind", "RefNotPermitted"}
            unresolved = config_map.reason if is_named else "InvalidCACertificateRef", problem
    return files.bundle(usable) if usable else "", unresolved


def authorities_of_services(cluster: Cluster) -> dict[Key, set[Key]]:
    """Return the keys of the ConfigMaps that policies name, by the Services that these are for."""
    config_maps: dict[Key, set[Key]] = defaultdict(set)
    for thing in cluster.all(KIND):
        with suppress(*MISSHAPEN):
            named = {(key_of(thing)[0], str(ref["name"])) for ref in _authority_refs(thing)}
            for service, _ in _targets(thing):
                config_maps[service] |= named
    return config_maps

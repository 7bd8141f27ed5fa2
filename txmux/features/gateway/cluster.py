"""What is known of a cluster, and how its objects refer to each other. Pure.

Source: Gateway API 1.5 (gateway.networking.k8s.io/v1, ReferenceGrant v1beta1), EndpointSlice (discovery.k8s.io/v1).
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from functools import cached_property, lru_cache
from ipaddress import ip_address
from typing import Any

import attrs

from txmux.classes import frozen
from txmux.errors import printable
from txmux.transport import bracketed
from txmux.wire.jsontext import MISSHAPEN

GROUP = "gateway.networking.k8s.io"
NOBODY = "127.0.0.1:1"
"""Where nothing listens: the share of a reference without servers is refused there."""
HOSTNAME = re.compile(r"(?:\*\.)?[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")
"""A host name, or a wildcard in the place of its first labels."""
IP_TYPES = "IPv4", "IPv6"
"""The types of EndpointSlices whose endpoints can be servers."""
_HEAVIEST = 65535  # the weight of a server

Key = tuple[str, str]
"""The namespace and the name of an object; the namespace is empty where there is none."""


def key_of(thing: Any) -> Key:
    metadata = thing["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def age_of(thing: Any) -> Any:
    # Older objects come first, those of one second by their names, as Gateway API orders them.
    return thing["metadata"].get("creationTimestamp") or "", *key_of(thing)


def selects(selector: Any, labels: Mapping[str, str]) -> bool:
    """Return whether a LabelSelector is met; one without anything is by all."""
    for name, value in (selector.get("matchLabels") or {}).items():
        if labels.get(name) != value:
            return False
    for term in selector.get("matchExpressions") or ():
        name, operator, values = (term["key"], term["operator"], term.get("values") or ())
        is_met = {
            "In": labels.get(name) in values,
            "NotIn": labels.get(name) not in values,
            "Exists": name in labels,
            "DoesNotExist": name not in labels,
        }.get(operator, False)
        if not is_met:
            return False
    return True


@frozen
class Reference:
    """A ``backendRef`` or ``certificateRef``, as it was found.

    Attributes:
        reason: Why it does not resolve, as Gateway API calls it; empty if it does.
        message: The same for people.
        found: The object.
    """

    reason: str = ""
    message: str = ""
    found: Any = None


@frozen(eq=False, slots=False)  # for cached properties
class Cluster:
    """The objects of a cluster, by kind and key.

    Attributes:
        objects: Those that are known.
        unknown: Why others of a kind and a namespace are not known: the one with a name, or all if that is empty.
    """

    objects: Mapping[str, Mapping[Key, Any]]
    unknown: Mapping[tuple[str, str, str], str] = attrs.field(factory=dict)

    def all(self, kind: str) -> list[Any]:
        """Return all objects of a kind that can be read, the oldest first."""
        readable = []
        for thing in self.objects.get(kind, {}).values():
            try:
                readable.append((age_of(thing), thing))
            except MISSHAPEN:
                continue
        return [thing for _, thing in sorted(readable, key=lambda one: one[0])]

    @cached_property
    def _grants(self) -> Mapping[str, Sequence[Any]]:
        grants = defaultdict(list)
        for grant in self.all("ReferenceGrant"):
            grants[key_of(grant)[0]].append(grant["spec"])
        return grants

    @cached_property
    def _slices(self) -> Mapping[Key, Sequence[Any]]:
        slices = defaultdict(list)
        for piece in self.all("EndpointSlice"):
            service = (piece["metadata"].get("labels") or {}).get("kubernetes.io/service-name", "")
            slices[key_of(piece)[0], service].append(piece)
        return slices

    def namespace_labels(self, name: str) -> Mapping[str, str]:
        namespace = self.objects.get("Namespace", {}).get(("", name)) or {"metadata": {}}
        return namespace["metadata"].get("labels") or {}

    def may_come_from(self, namespaces: Any, home: str, namespace: str) -> bool:
        """Return whether `namespaces` of Gateway API, of an object of `home`, takes objects of a namespace."""
        where = (namespaces or {}).get("from") or "Same"
        if where == "Selector":
            return selects(namespaces.get("selector") or {}, self.namespace_labels(namespace))
        return where == "All" or (where == "Same" and namespace == home)

    def resolve(self, ref: Any, kind: str, of: str, namespace: str) -> Reference:
        """Find what an object of the kind `of`, in a namespace, refers to; only a kind of the core group is allowed."""
        given = str(ref.get("kind") or kind)
        if (ref.get("group") or "", given) != ("", kind):
            return Reference("InvalidKind", f"{given} is not supported; name a {kind}")
        where, name = ref.get("namespace") or namespace, ref["name"]
        if where != namespace and not self._is_granted(where, kind, name, of, namespace):
            why = f"no ReferenceGrant of {where} lets a {of} of {namespace} use {kind} {name}"
            return Reference("RefNotPermitted", why)
        target = self.objects.get(kind, {}).get((where, name))
        if target is None:
            all_of, its = self.unknown.get((kind, where, "")), f"{kind} {where}/{name}"
            unknown = all_of or self.unknown.get((kind, where, name))
            why = f"{its} is not known: {unknown}" if unknown else f"there is no {its}"
            return Reference("NotFound", why)
        return Reference(found=target)

    def _is_granted(self, where: str, kind: str, name: str, of: str, namespace: str) -> bool:
        return any(
            any(
                (source.get("group"), source.get("kind"), source.get("namespace"))
                == (GROUP, of, namespace)
                for source in grant.get("from") or ()
            )
            and any(
                (target.get("group") or "", target.get("kind")) == ("", kind)
                and target.get("name") in {None, "", name}
                for target in grant.get("to") or ()
            )
            for grant in self._grants.get(where, ())
        )

    def servers(self, service: Any, port: str) -> dict[str, bool]:
        """Return the endpoints behind a port of a Service, by its name, and whether each is drained.

        One that ends and still serves is drained, unless there are no others; one that is not ready is left out.
        """
        servers: dict[str, bool] = {}
        for piece in self._slices.get(key_of(service), ()):
            ports = [
                its["port"]
                for its in piece.get("ports") or ()
                if (its.get("name") or "") == port and its.get("port")
            ]
            for address, is_drained in _addresses(piece) if ports else ():
                text = f"{bracketed(address)}:{ports[0]}"
                servers[text] = servers.get(text, True) and is_drained
        are_ending = all(servers.values())
        return {server: ends and not are_ending for server, ends in sorted(servers.items())}


def _addresses(one: Any) -> Iterator[tuple[str, bool]]:
    if one.get("addressType") not in IP_TYPES:
        return
    for endpoint in one.get("endpoints") or ():
        conditions = endpoint.get("conditions") or {}
        ends = conditions.get("terminating") is True and conditions.get("serving") is True
        if ends or conditions.get("ready") is not False:
            for address in endpoint["addresses"][:1]:
                yield _normal(address), ends


def port_name(service: Any, port: int, transport: str) -> str | None:
    """Return the name of a port of a Service, which may be empty; ``None`` if it has no such port."""
    names = (
        its.get("name") or ""
        for its in service["spec"].get("ports") or ()
        if its["port"] == port and (its.get("protocol") or "TCP") == transport
    )
    return next(names, None)


@lru_cache(50_000)
def _normal(address: str) -> str:
    return str(ip_address(printable(address)))  # whose interface may be any text


def weighted(shares: Sequence[tuple[int, Mapping[str, bool]]]) -> list[str]:
    """Return the lines of ``server``, so that each reference has its share of the clients, and its servers have equal ones.

    The share of one without servers is refused; there are no lines if all are.
    """
    shares = [(weight, servers) for weight, servers in shares if weight > 0]
    if not any(servers for _, servers in shares):
        return []
    if len(shares) == 1:
        return [server + " down" * is_drained for server, is_drained in shares[0][1].items()]
    parts: dict[str, tuple[Fraction, bool]] = {}
    for weight, endpoints in shares:
        servers = endpoints or {NOBODY: False}
        active = sum(not is_drained for is_drained in servers.values())
        for server, is_drained in servers.items():
            before, was_drained = parts.get(server, (Fraction(0), True))
            parts[server] = before + Fraction(weight, active), was_drained and is_drained
    using = [share for share, is_drained in parts.values() if not is_drained]
    scale = Fraction(math.lcm(*(share.denominator for share in using)))
    scale /= math.gcd(*(int(share * scale) for share in using)) or 1
    heaviest = scale * max([*using, Fraction(0)])
    scale *= min(Fraction(1), _HEAVIEST / heaviest if heaviest else Fraction(1))
    lines = []
    for server, (share, is_drained) in parts.items():
        weight = max(1, round(share * scale))
        words = [f"weight={weight}"] * (weight > 1 and not is_drained) + ["down"] * is_drained
        words += ["final"] * (server == NOBODY)
        lines.append(" ".join([server, *words]))
    return lines

"""The status of objects, by the conditions and reasons of Gateway API. Pure.

Source: Gateway API 1.5, ``GatewayClassStatus``, ``GatewayStatus``, ``ListenerStatus`` and ``RouteParentStatus``.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from operator import methodcaller
from typing import Any

from txmux.classes import frozen
from txmux.errors import printable
from txmux.features.gateway.cluster import GROUP, Cluster, Key, key_of
from txmux.features.gateway.listeners import (
    GatewayListener,
    GatewaySettings,
    admits_invalid_certificates,
    our_classes,
    our_gateways,
    refusal,
    sets_of,
)
from txmux.features.gateway.policies import KIND as POLICY
from txmux.features.gateway.policies import BackendPolicy
from txmux.features.gateway.routes import KINDS, GatewayRoute

_ENTRIES = (("parents", "parentRef", 32), ("ancestors", "ancestorRef", 16))  # and the most of them
FEATURES = [
    {"name": name}
    for name in (
        "BackendTLSPolicy",
        "Gateway",
        "GatewayAddressEmpty",
        "GatewayBackendClientCertificate",
        "GatewayFrontendClientCertificateValidation",
        "GatewayFrontendClientCertificateValidationInsecureFallback",
        "GatewayStaticAddresses",
        "ListenerSet",
        "ReferenceGrant",
        "TCPRoute",
        "TLSRoute",
        "TLSRouteModeMixed",
        "TLSRouteModeTerminate",
        "UDPRoute",
    )
]
"""Those that `conformance.md` of the tests shows; of 1.5, and TCPRoute of 1.6."""
_LONGEST = 1024  # characters of a message; the specification has 32,768

_Condition = tuple[bool | None, str, str]
_Types = dict[str, _Condition]
_Target = tuple[str, Key]  # a kind and a key


@frozen
class Wanted:
    """What the status of an object should be.

    Attributes:
        kind: That of the object.
        key: Its namespace and name.
        status: What of it is ours: lists and conditions without times.
        others: The Gateways and ListenerSets of which another provider of the controller writes; see `GatewaySettings.only`.
    """

    kind: str
    key: Key
    status: Mapping[str, Any]
    others: Collection[_Target] = ()

    def has(self, entry: Any, ref: str, controller: str) -> bool:
        """Return whether an entry for a parent or an ancestor is ours."""
        its = entry.get(ref) or {}
        parent = its.get("namespace") or self.key[0], its.get("name")
        is_other = (its.get("kind") or "Gateway", parent) in self.others
        return entry.get("controllerName") == controller and not is_other


def conditions(thing: Any, types: Mapping[str, _Condition]) -> list[Any]:
    """Return conditions by their types: whether they are true, or unknown, the reason, and the message."""
    words = {True: "True", False: "False", None: "Unknown"}
    return [
        {
            "type": name,
            "status": words[is_true],
            "reason": reason,
            "message": printable(message, _LONGEST),
            "observedGeneration": thing["metadata"].get("generation", 0),
        }
        for name, (is_true, reason, message) in types.items()
    ]


def statuses(
    cluster: Cluster,
    settings: GatewaySettings,
    listeners: Sequence[GatewayListener],
    routes: Sequence[GatewayRoute],
    policies: Sequence[BackendPolicy],
    problems: Mapping[str, str],
    unserved: str,
    addresses: Sequence[Any] | None,
) -> Iterator[Wanted]:
    """Yield the status of all that is ours.

    Args:
        cluster: What they were read from.
        settings: Those of the provider.
        listeners: Of all Gateways.
        routes: Those with a Gateway of this controller.
        policies: For servers of any routes.
        problems: Why objects are left out, by their titles.
        unserved: Why the service may not have the newest rules; empty if it has.
        addresses: Where clients reach Gateways; ``None`` if that is not known yet.
    """
    yield from _of_classes(cluster, settings)
    gateways = our_gateways(cluster, settings)
    attached: Counter[Key] = Counter()
    for owner, parent, no in sets_of(cluster, [key_of(gateway) for gateway in gateways]):
        own = [its for its in listeners if its.of == ("ListenerSet", key_of(owner))]
        status = (
            _refused(owner, no[0], *no) if no else _of_gateway(owner, own, problems, unserved, {})
        )
        status["listeners"] = [_of_listener(owner, its, problems, unserved) for its in own]
        yield Wanted("ListenerSet", key_of(owner), status)
        attached[parent] += status["conditions"][0]["status"] == "True"
    for gateway in gateways:
        own = [its for its in listeners if its.of == ("Gateway", key_of(gateway))]
        if refused := refusal(gateway):
            status = _refused(gateway, "InvalidParameters", "Invalid", refused)
        else:
            more = _of_tls(gateway, own) | _of_addresses(gateway, addresses)
            status = _of_gateway(gateway, own, problems, unserved, more)
        status["listeners"] = [_of_listener(gateway, its, problems, unserved) for its in own]
        status["attachedListenerSets"] = attached[key_of(gateway)]
        if addresses is not None:
            status["addresses"] = _given(gateway, addresses)
        yield Wanted("Gateway", key_of(gateway), status)
    others = _of_others(cluster, settings)
    of_ports = {problems.get(its.port_title) for its in listeners}  # none of them is of a route
    for its in routes:
        problem = problems.get(its.title, "")
        problem = its.problem or problem * (problem not in of_ports)
        parents = [*_parents(its, settings, problem)]
        yield Wanted(its.kind, key_of(its.thing), {"parents": parents}, others)
    for policy in policies:
        if policy.gateways:
            ancestors = [*_ancestors(policy, settings)]
            yield Wanted(POLICY, key_of(policy.thing), {"ancestors": ancestors}, others)
    here = {(its.kind, key_of(its.thing)) for its in routes}
    here |= {(POLICY, key_of(policy.thing)) for policy in policies if policy.gateways}
    yield from _left(cluster, settings, here, others)


def _of_classes(cluster: Cluster, settings: GatewaySettings) -> Iterator[Wanted]:
    for gateway_class, why in our_classes(cluster, settings):
        if settings.only in {"", key_of(gateway_class)[1]}:
            accepted = (not why, "InvalidParameters" if why else "Accepted", why)
            status = {"conditions": conditions(gateway_class, {"Accepted": accepted})}
            yield Wanted(
                "GatewayClass", key_of(gateway_class), {"supportedFeatures": FEATURES, **status}
            )


def _left(
    cluster: Cluster,
    settings: GatewaySettings,
    here: Collection[_Target],
    others: Collection[_Target],
) -> Iterator[Wanted]:
    """Yield the status of what was of this provider, and is no longer here."""
    for kind in (*KINDS, POLICY):
        entries, ref, _ = _ENTRIES[kind == POLICY]
        for thing in cluster.all(kind):
            if (kind, key_of(thing)) not in here:
                left = Wanted(kind, key_of(thing), {entries: []}, others)
                before = (thing.get("status") or {}).get(entries) or ()
                if any(left.has(its, ref, settings.controller) for its in before):
                    yield left


def _of_others(cluster: Cluster, settings: GatewaySettings) -> Collection[_Target]:
    """Return the Gateways and ListenerSets of the controller's other classes."""
    classes = {key_of(one)[1] for one, _ in our_classes(cluster, settings)} - {settings.only}
    keys = [
        key_of(one)
        for one in (cluster.all("Gateway") if settings.only else ())
        if one["spec"].get("gatewayClassName") in classes
    ]
    sets = {("ListenerSet", key_of(one)) for one, *_ in sets_of(cluster, keys)}
    return sets | {("Gateway", key) for key in keys}


def _of_gateway(
    thing: Any,
    listeners: Sequence[GatewayListener],
    problems: Mapping[str, str],
    unserved: str,
    more: _Types,
) -> dict[str, Any]:
    served = [its for its in listeners if its.is_served and not problems.get(its.port_title)]
    bad = [its.name for its in listeners if its not in served or its.problems]
    why = f"see {', '.join(bad)}" if bad else ""
    reason = "ListenersNotValid" if bad else "Accepted"
    programmed = _programmed("" if served else "ListenersNotValid", "", unserved)
    accepted = (bool(served) or not bad, reason, why)
    types = {"Accepted": accepted, "Programmed": programmed, **more}
    return {"conditions": conditions(thing, types)}


def _refused(thing: Any, accepted: str, programmed: str, why: str) -> dict[str, Any]:
    types = {"Accepted": (False, accepted, why), "Programmed": (False, programmed, why)}
    return {"conditions": conditions(thing, types)}


def _programmed(reason: str, problem: str, unserved: str) -> _Condition:
    if reason or problem:
        return False, reason or "Invalid", problem or "see the other conditions"
    return (None, "Pending", unserved) if unserved else (True, "Programmed", "")


def _of_listener(
    thing: Any, its: GatewayListener, problems: Mapping[str, str], unserved: str
) -> dict[str, Any]:
    def of(name: str, reason: str, *, is_true: bool = True) -> _Condition:
        problem = its.problems.get(name)
        return (not is_true, *problem) if problem else (is_true, reason, "")

    conflict = its.problems.get("Conflicted")
    reason = conflict[0] if conflict else "" if its.is_served else "Invalid"
    problem = problems.get(its.port_title, "") if its.holds_place else ""
    accepted = (False, *conflict) if conflict else of("Accepted", "Accepted")
    if accepted[0] and problem.startswith("cannot listen"):
        accepted = (False, "PortUnavailable", problem)
    types = {
        "Accepted": accepted,
        "Conflicted": of("Conflicted", "NoConflicts", is_true=False),
        "ResolvedRefs": of("ResolvedRefs", "ResolvedRefs"),
        "Programmed": _programmed(reason, problem, unserved),
    }
    return {
        "name": its.name,
        "supportedKinds": [{"group": GROUP, "kind": kind} for kind in its.route_kinds],
        "attachedRoutes": its.routes,
        "conditions": conditions(thing, types),
    }


def _given(gateway: Any, addresses: Sequence[Any]) -> list[Any]:
    """Return those of the addresses that a Gateway asks for; all if it asks for none."""
    wanted = {address.get("value") for address in gateway["spec"].get("addresses") or ()} - {
        None,
        "",
    }
    return [address for address in addresses if not wanted or address["value"] in wanted]


def _of_addresses(gateway: Any, addresses: Sequence[Any] | None) -> _Types:
    types: _Types = {}
    before = (gateway.get("status") or {}).get("addresses") or ()
    ours = {address["value"] for address in (before if addresses is None else addresses)}
    for address in gateway["spec"].get("addresses") or ():
        kind, value = address.get("type") or "IPAddress", address.get("value")
        if kind not in {"IPAddress", "Hostname"}:
            why = f"addresses: {kind} is not supported; write IPAddress or Hostname"
            types["Accepted"] = (False, "UnsupportedAddress", why)
        elif value and value not in ours and addresses is None:
            types["Programmed"] = (None, "Pending", "it is not known yet which addresses there are")
        elif value and value not in ours:
            why = f"addresses: the Service before the pods does not have {value}"
            types["Programmed"] = (False, "AddressNotUsable", why)
    return types


def _of_tls(gateway: Any, listeners: Sequence[GatewayListener]) -> _Types:
    types: _Types = {}
    if any(its.has_identity for its in listeners):
        reason, why = listeners[0].identity_problem or ("ResolvedRefs", "")
        types["ResolvedRefs"] = (not why, reason, why)
    if admits_invalid_certificates(gateway):
        why = "tls.frontend lets clients in whose certificates are not valid"
        types["InsecureFrontendValidationMode"] = (True, "ConfigurationChanged", why)
    return types


def _ancestors(its: BackendPolicy, settings: GatewaySettings) -> Iterator[Any]:
    types: _Types = {}
    refused = its.problem or its.lost
    options = "spec.options are not read" if its.thing["spec"].get("options") else ""
    types["Accepted"] = (False, *refused) if refused else (True, "Accepted", options)
    types["ResolvedRefs"] = (not its.unresolved, *(its.unresolved or ("ResolvedRefs", "")))
    for namespace, name in its.gateways:
        ref = {"group": GROUP, "kind": "Gateway", "namespace": namespace, "name": name}
        yield {
            "ancestorRef": ref,
            "controllerName": settings.controller,
            "conditions": conditions(its.thing, types),
        }


def _parents(its: GatewayRoute, settings: GatewaySettings, problem: str) -> Iterator[Any]:
    for attached in its.parents:
        accepted = (
            (False, *attached.problem) if attached.problem else (True, "Accepted", attached.lost)
        )
        if problem:
            accepted = (False, "Invalid", problem)
        types: _Types = {"Accepted": accepted}
        ref = its.reference
        types["ResolvedRefs"] = (not ref.reason, ref.reason or "ResolvedRefs", ref.message)
        yield {
            "parentRef": attached.ref,
            "controllerName": settings.controller,
            "conditions": conditions(its.thing, types),
        }


def merged(thing: Any, desired: Wanted, controller: str, now: str) -> Mapping[str, Any] | None:
    """Return the status to write, with the times of conditions and what others have written; ``None`` if nothing changes."""
    before = thing.get("status") or {}
    status = dict(desired.status)
    for entries, ref, most in _ENTRIES:
        if entries not in status:
            continue
        written, key = before.get(entries) or (), partial(_ref, ref)
        own = _all_timed(status[entries], written, key, now)
        is_ours = partial(desired.has, ref=ref, controller=controller)
        status[entries] = _placed(own, written, key, is_ours)[:most]
    if "conditions" in status:
        written, kind = before.get("conditions") or (), methodcaller("get", "type")
        own = _timed(status["conditions"], written, now)
        # Types of other programs begin with their domain.
        status["conditions"] = _placed(own, written, kind, lambda one: "/" not in kind(one))
    if "listeners" in status:
        written, name = before.get("listeners") or (), methodcaller("get", "name")
        status["listeners"] = _all_timed(status["listeners"], written, name, now)
    is_new = any(value != (before.get(key) or type(value)()) for key, value in status.items())
    return status if is_new else None


def _placed(
    own: Iterable[Any],
    before: Iterable[Any],
    key: Callable[[Any], object],
    is_ours: Callable[[Any], bool],
) -> list[Any]:
    """Return what others have written and ours, each in its place, and new ones behind them: two writers that each put their own last would never end."""
    new = {key(entry): entry for entry in own}
    kept = [
        new.pop(key(entry), entry) for entry in before if key(entry) in new or not is_ours(entry)
    ]
    return [*kept, *new.values()]


def _ref(name: str, one: Any) -> object:
    ref = one.get(name) or {}
    return (
        one.get("controllerName"),
        *(ref.get(key) for key in ("kind", "namespace", "name", "sectionName", "port")),
    )


def _all_timed(
    own: Iterable[Any], before: Iterable[Any], key: Callable[[Any], object], now: str
) -> list[Any]:
    times = {key(entry): entry.get("conditions") for entry in before}
    return [
        {**entry, "conditions": _timed(entry["conditions"], times.get(key(entry)), now)}
        for entry in own
    ]


def _timed(own: Iterable[Any], before: Iterable[Any] | None, now: str) -> list[Any]:
    """Return conditions with the time of their last change."""
    earlier = {condition.get("type"): condition for condition in before or ()}
    timed = []
    for condition in own:
        old = earlier.get(condition["type"], {})
        is_same = old.get("status") == condition["status"]
        since = old.get("lastTransitionTime") if is_same else None
        timed.append({**condition, "lastTransitionTime": since or now})
    return timed

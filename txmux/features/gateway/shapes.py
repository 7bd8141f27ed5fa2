"""The types of what is read of objects. Pure.

The API's server checks most, and by the schemas of CRDs the rest, where these have them: what it has let pass concerns its
object alone.
"""

from collections.abc import Mapping
from types import FunctionType
from typing import Any

from txmux.features.gateway.cluster import IP_TYPES
from txmux.transport import is_address


def _is_address(value: Any) -> bool:
    return isinstance(value, str) and is_address(value)


# Of no use here, and most of an object: managedFields, and what `kubectl apply` remembers.
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_TEXTS = {"*": str}
_METADATA = {
    "name!": str,
    "namespace": str,
    "creationTimestamp": str,
    "resourceVersion": str,
    "generation": int,
    "labels": _TEXTS,
    "annotations": _TEXTS,
}
_REF = {"group": str, "kind": str, "namespace": str, "name!": str, "sectionName": str, "port": int}
_TERM = {"key!": str, "operator": str, "values": [str]}
_NAMESPACES = {"from": str, "selector": {"matchLabels": _TEXTS, "matchExpressions": [_TERM]}}
_LISTENER = {
    "name!": str,
    "port!": int,
    "protocol!": str,
    "hostname": str,
    "tls": {"mode": str, "certificateRefs": [_REF]},
    "allowedRoutes": {"namespaces": _NAMESPACES, "kinds": [{"group": str, "kind!": str}]},
}
_FRONTEND = {"validation": {"mode": str, "caCertificateRefs": [_REF]}}
_GATEWAY = {
    "gatewayClassName": str,
    "listeners": [_LISTENER],
    "allowedListeners": {"namespaces": _NAMESPACES},
    "infrastructure": {},
    "addresses": [{"type": str, "value": str}],
    "tls": {
        "backend": {"clientCertificateRef": _REF},
        "frontend": {"default": _FRONTEND, "perPort": [{"port!": int, "tls": _FRONTEND}]},
    },
}
# What else is wrong with a route or a policy is in its status: it keeps its names, and its servers get no plain text.
_ROUTE = {"parentRefs": [_REF], "hostnames": [str]}
_POLICY = {"targetRefs": [_REF]}
_GRANT = {
    "from": [{"group": str, "kind": str, "namespace": str}],
    "to": [{"group": str, "kind": str, "name": str}],
}
_SERVICE = {
    "type": str,
    "clusterIP": str,
    "selector": _TEXTS,
    "ports": [{"name": str, "port!": int, "protocol": str}],
}
_BALANCER = {"loadBalancer": {"ingress": [{"ip": str, "hostname": str}]}}
_SLICE = {"addressType": str, "ports": [{"name": str, "port": int}]}
_ENDPOINTS = {"endpoints": [{"addresses!": [_is_address], "conditions": {}}]}
_CONDITIONS = [{"type!": str, "status": str, "lastTransitionTime": str}]
_ENTRY = {"controllerName": str, "conditions": _CONDITIONS}
_STATUS: Any = {
    "conditions": _CONDITIONS,
    "addresses": [{"value!": str}],
    "listeners": [{"name!": str, "conditions": _CONDITIONS}],
    "parents": [{**_ENTRY, "parentRef": _REF}],
    "ancestors": [{**_ENTRY, "ancestorRef": _REF}],
}
_SPECS: Mapping[str, Any] = {
    "GatewayClass": {"controllerName": str},
    "Gateway": _GATEWAY,
    "ListenerSet": {"parentRef!": _REF, "listeners": [_LISTENER]},
    **dict.fromkeys(("TLSRoute", "TCPRoute", "UDPRoute"), _ROUTE),
    "BackendTLSPolicy": _POLICY,
    "ReferenceGrant": _GRANT,
    "Service": _SERVICE,
}
_NAMES: Mapping[Any, str] = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "a whole number",
    _is_address: "an IP address",
}


def readable(kind: str, thing: Any, before: Any = None) -> tuple[Any, str]:
    """Return what is of use of an object of a kind, and what of it is not as objects of the kind have it.

    Such an object stays as it was known `before`, if it was, and so does a status alone.
    """
    shape: dict[str, Any] = {"metadata!": _METADATA}
    if kind in _SPECS:
        shape["spec!"] = _SPECS[kind]
    elif kind == "EndpointSlice":
        shape |= _SLICE
        if isinstance(thing, dict) and thing.get("addressType") in IP_TYPES:
            shape |= _ENDPOINTS
    if fault := _fault(thing, shape, ""):
        return before, fault
    metadata = {k: v for k, v in thing["metadata"].items() if k != "managedFields"}
    if annotations := metadata.get("annotations"):
        metadata["annotations"] = {k: v for k, v in annotations.items() if k != _LAST_APPLIED}
    status = _BALANCER if kind == "Service" else _STATUS
    known = {**thing, "metadata": metadata}
    if fault := _fault(thing, {"status": status}, ""):
        known["status"] = before and before.get("status")
    return known, fault


def _fault(value: Any, shape: Any, path: str) -> str:
    is_test = isinstance(shape, FunctionType)
    expected: Any = shape if is_test or isinstance(shape, type) else type(shape)
    if not (expected(value) if is_test else type(value) is expected):
        return f"{path or 'it'} is not {_NAMES[expected]}"
    if isinstance(shape, list):
        parts = [(one, shape[0], f"{path}[{number}]") for number, one in enumerate(value)]
    elif isinstance(shape, dict) and "*" in shape:
        parts = [(one, shape["*"], f"{path}.{name}") for name, one in value.items()]
    elif isinstance(shape, dict):
        fields = [(key.removesuffix("!"), key[-1] == "!", its) for key, its in shape.items()]
        parts = [
            (value.get(name), its, f"{path}.{name}".removeprefix("."))
            for name, is_needed, its in fields
            if is_needed or value.get(name) is not None
        ]
    else:
        return ""
    return next(filter(None, (_fault(*part) for part in parts)), "")

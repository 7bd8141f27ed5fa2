"""Keeps what a cluster has of one kind: a list, and what a watch tells after it, with the types of what is read of objects.

The API's server checks most, and by the schemas of CRDs the rest, where these have them: what it has let pass concerns its
object alone.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from types import FunctionType
from typing import Any

import attrs
from twisted.internet.task import deferLater
from twisted.logger import Logger

from txmux.classes import define
from txmux.features.gateway.api import ABSENT, GONE, Kind, KubeApi, NoServerError
from txmux.features.gateway.cluster import GROUP, IP_TYPES, Key, key_of
from txmux.transport import is_address
from txmux.wire.jsontext import MISSHAPEN


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


_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds between two tries
_NAMELESS = "", "without a name"


@define(eq=False)
class Reflector:
    """Follows the objects of a kind.

    Args:
        reactor: The reactor.
        api: What is asked.
        kind: What is followed.
        changed: Called with the key of an object that is new, or ``None``, and with whether its status alone is; see `Kind`.
        namespace: The only one; all if it is empty.
        only: The name of the only one; all if it is empty.

    Attributes:
        objects: Those that can be read, or could, by their keys; ``None`` until they are known.
        faults: What of objects cannot be read, by their keys.
        version: The version of the kind that is served.
        why: Why they are not up to date; empty if they are.
        is_absent: Whether that is so because the cluster has no such kind, and never had objects of it.
    """

    _log = Logger()

    _reactor: Any
    _api: KubeApi
    kind: Kind
    _changed: Callable[..., object]
    _namespace: str
    _only: str
    _since: str = attrs.field(default="", init=False)
    objects: dict[Key, Any] | None = attrs.field(default=None, init=False)
    faults: dict[Key, str] = attrs.field(factory=dict, init=False)
    version: str = attrs.field(default="", init=False)
    why: str = attrs.field(default="", init=False)
    is_absent: bool = attrs.field(default=False, init=False)

    @property
    def name(self) -> str:
        words = [
            self.kind.plural,
            self._only,
            self._namespace and f"of namespace {self._namespace}",
        ]
        return " ".join(filter(None, words))

    @property
    def _query(self) -> dict[str, str]:
        selector = f"metadata.name={self._only}" if self._only else self.kind.only
        return {"fieldSelector": selector} if selector else {}

    async def run(self) -> None:
        """Follow them until this is cancelled."""
        pause = _SHORTEST_PAUSE
        while True:
            begun = self._reactor.seconds()
            why = ""
            try:
                await self._session()
            except NoServerError as problem:
                why = self._failed(problem)
            # A stream that is cut after a while is no server that is away.
            if not why or self._reactor.seconds() - begun > _SHORTEST_PAUSE:
                pause = _SHORTEST_PAUSE
            if why or self._reactor.seconds() - begun < _SHORTEST_PAUSE:
                await deferLater(self._reactor, pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def _session(self) -> None:
        if self._since and self.why:  # a watch says nothing as long as nothing changes
            answer = await self._api.get(self._path, limit=1, **self._query)
            if _is_before(answer, self._since):  # as after a restore: a watch would wait for it
                self._since = ""
            else:
                self._good()
        if not self._since:
            await self._find_version()
            items, since = await self._api.list(self._path, **self._query)
            known = {_key(item): item for item in items}
            if known.keys() == {_NAMELESS}:  # of which nothing is said of what was known
                raise NoServerError("what answers is not Kubernetes: a list of no objects")
            before, self.objects, self.faults = self.objects or {}, {}, {}
            for key, thing in known.items():
                self._know(self.objects, key, thing, before.get(key))
            self._since = since
            self._good()
        await self._api.watch(self._path, self._since, self._take, **self._query)

    @property
    def _path(self) -> str:
        return self.kind.path(self.version, self._namespace)

    async def _find_version(self) -> None:
        kind = self.kind
        if kind.group != GROUP:  # of all clusters
            self.version = kind.versions[0]
            return
        for version in kind.versions:
            try:
                answer = await self._api.get(f"/apis/{kind.group}/{version}")
                names = {resource["name"] for resource in answer["resources"]}
            except NoServerError as problem:
                if problem.status != ABSENT:
                    raise
                continue
            except MISSHAPEN:
                continue
            if kind.plural in names:
                self.version = version
                return
        raise NoServerError(f"the cluster has no such kind of {kind.group}", ABSENT)

    def _good(self) -> None:
        if self.why:
            self._log.info("{kind} can be read again", kind=self.name)
        self.why, self.is_absent = "", False
        self._changed(None, is_status=False)

    def _failed(self, problem: NoServerError) -> str:
        if problem.status in {GONE, ABSENT}:  # the version may be served no more
            self._since = ""
        if problem.status == GONE:
            return ""
        is_left_out = problem.status in self.kind.may_lack and not self.objects
        if is_left_out:  # what was known before stays: who may ask can be unknown for a while
            self.objects = {}
        self.is_absent = is_left_out and problem.status == ABSENT
        why = str(problem)
        if why != self.why:
            what = "they are left out" if is_left_out else "what was known stays in use"
            self._log.warn("{kind}: {why}; {what}", kind=self.name, why=why, what=what)
        self.why = why
        self._changed(None, is_status=False)
        return why

    def _take(self, event: Any) -> None:
        try:
            kind, thing = event["type"], event["object"]
            if kind == "ERROR":
                raise NoServerError(str(thing.get("message")), int(thing.get("code") or 0))
            self._since = str(thing["metadata"]["resourceVersion"])
            if kind == "BOOKMARK":
                return
        except MISSHAPEN:
            raise NoServerError("what answers is not Kubernetes: an event has no object") from None
        objects = self.objects
        if objects is None:
            return
        key = _key(thing)
        before, fault = objects.pop(key, None), self.faults.pop(key, None)
        if kind != "DELETED":
            self._know(objects, key, thing, before)
        after = objects.get(key)
        is_same = before is not None and after is not None and _bare(before) == _bare(after)
        is_same &= fault == self.faults.get(key)
        self._changed(key, is_status=is_same and not self.kind.status_counts)

    def _know(self, objects: dict[Key, Any], key: Key, thing: Any, before: Any) -> None:
        known, fault = readable(self.kind.name, thing, before)
        if known is not None:
            objects[key] = known
        if fault:
            self.faults[key] = fault


def _key(thing: Any) -> Key:
    try:
        key = key_of(thing)
    except MISSHAPEN:
        return _NAMELESS
    return key if all(isinstance(part, str) for part in key) else _NAMELESS


def _is_before(answer: Any, version: str) -> bool:
    with suppress(*MISSHAPEN):
        return int(answer["metadata"]["resourceVersion"]) < int(version)
    return False


def _bare(thing: Any) -> Any:
    metadata = {**thing["metadata"], "resourceVersion": ""}
    return {**thing, "metadata": metadata, "status": None}

"""Follows the Gateways of a cluster, writes their rules, and says in their status what is served."""

import socket
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from txmux.classes import define
from txmux.features.gateway.api import ABSENT, FORBIDDEN, Kind, KubeApi, NoServerError, find_access
from txmux.features.gateway.certificates import SecretFiles
from txmux.features.gateway.cluster import Cluster, Key, key_of, selects
from txmux.features.gateway.conditions import statuses
from txmux.features.gateway.listeners import (
    GatewayListener,
    GatewaySettings,
    read_listeners,
    secret_namespaces,
)
from txmux.features.gateway.policies import BackendPolicy, Policies
from txmux.features.gateway.reflector import Reflector
from txmux.features.gateway.routes import GatewayRoute, named_config_maps, read_routes
from txmux.features.gateway.sections import LISTEN_KEYS, make_sections
from txmux.features.gateway.status import StatusLease, StatusWriter
from txmux.interfaces import IProvider, ProvidedObject, RulesWriter
from txmux.wire.jsontext import MISSHAPEN

_MAY_LACK = ABSENT, FORBIDDEN
KINDS = {
    its.name: its
    for its in (
        Kind("GatewayClass", "gatewayclasses"),
        Kind("Gateway", "gateways"),
        Kind("ListenerSet", "listenersets", may_lack=_MAY_LACK),
        Kind("TLSRoute", "tlsroutes", versions=("v1", "v1alpha3", "v1alpha2"), may_lack=_MAY_LACK),
        Kind("TCPRoute", "tcproutes", versions=("v1", "v1alpha2"), may_lack=_MAY_LACK),
        Kind("UDPRoute", "udproutes", versions=("v1", "v1alpha2"), may_lack=_MAY_LACK),
        # Who may not read them would send plain text.
        Kind(
            "BackendTLSPolicy",
            "backendtlspolicies",
            versions=("v1", "v1alpha3"),
            may_lack=(ABSENT,),
        ),
        Kind("ReferenceGrant", "referencegrants", versions=("v1", "v1beta1"), may_lack=_MAY_LACK),
        Kind("Namespace", "namespaces", "", may_lack=_MAY_LACK),
        Kind("Service", "services", "", status_counts=True),
        Kind("EndpointSlice", "endpointslices", "discovery.k8s.io"),
    )
}
NAMED = {
    its.name: its
    for its in (
        Kind("Secret", "secrets", "", only="type=kubernetes.io/tls"),
        Kind("ConfigMap", "configmaps", ""),
    )
}
_MOST_CONFIG_MAPS = 64  # of a namespace
_SETTLE = 0.05  # seconds in which several changes are one
_LABELS_AGAIN, _LONGEST_PAUSE = 1.0, 60.0  # seconds between two tries
_STATUS_PAUSE = 0.5  # seconds between two looks whether a status is to be written
_MOST_ADDRESSES = 16  # as in the specification
_MOST_NAMED = 4  # kinds in a message
_MADE_OF = "# made of: "

_Named = tuple[str, str, str]  # a kind, the namespace, and the name; all of it without one
_Made = tuple[Cluster, Sequence[GatewayListener], Sequence[GatewayRoute], Sequence[BackendPolicy]]


@implementer(IProvider)
class GatewayProvider:
    """Writes the rules of Gateways, TLSRoutes, TCPRoutes and UDPRoutes."""

    name = "gateway"
    summary = "Kubernetes' Gateway API: Gateways with TLSRoutes, TCPRoutes and UDPRoutes"
    listen_keys = LISTEN_KEYS

    def options(self, parser: ArgumentParser) -> None:
        add = parser.add_argument
        own = GatewaySettings().controller
        own_help = "the controllerName of the GatewayClasses to serve; by default %(default)s"
        add("--controller", metavar="NAME", default=own, help=own_help)
        only_help = "serve this GatewayClass alone"
        add("--class", dest="only", metavar="NAME", default="", help=only_help)
        api_help = "where the API is; by default as a pod or the kubeconfig says"
        add("--api", metavar="URL", help=api_help)
        file_help = "how to reach the API outside of a cluster; by default $KUBECONFIG"
        add("--kubeconfig", metavar="FILE", help=file_help)
        port_help = "listen on another port than a Gateway says, such as 443=8443; may be repeated"
        add("--port", metavar="PORT=PORT", type=_ports, action="append", default=[], help=port_help)

    async def run(self, reactor: Any, arguments: Namespace, writer: RulesWriter) -> None:
        settings = GatewaySettings(arguments.controller, arguments.only, dict(arguments.port))
        api = KubeApi(reactor, find_access(arguments.api, arguments.kubeconfig))
        await ClusterFollower(reactor, api, settings, writer, arguments.write).run()


def _ports(text: str) -> tuple[int, int]:
    numbers = text.split("=")
    if len(numbers) != 2 or not all(
        number.isdecimal() and 0 < int(number) < 65536 for number in numbers
    ):
        raise ArgumentTypeError(f"{text!r} is not two ports; write for example 443=8443")
    return int(numbers[0]), int(numbers[1])


class ClusterFollower:
    """Keeps the rules and the status of a cluster's Gateways written."""

    def __init__(
        self, reactor: Any, api: KubeApi, settings: GatewaySettings, writer: RulesWriter, file: Path
    ) -> None:
        self._reactor = reactor
        self._api = api
        self._settings = settings
        self._writer = writer
        self._file = file
        self._certificates = SecretFiles(file.absolute().with_suffix(".certificates"))
        self._running: dict[object, Deferred[None]] = {}
        self._reflectors: dict[str, Reflector] = {}  # by kind
        self._named: dict[_Named, Reflector] = {}
        self._unread: dict[_Named, str] = {}  # why others are not followed
        self._holder = socket.gethostname()  # in a pod, its name
        lease = f"txmux-{settings.controller.replace('/', '-').lower()}"
        lease += f".{settings.only}" * bool(settings.only)
        self._lease = StatusLease(reactor, api, lease, self._holder, time.time)
        self._status = StatusWriter(reactor, api, settings.controller, self._find)
        self._own = OwnPod(reactor, api, self._holder, self._settle_soon)
        self._settling: Any = None
        self._made: _Made | None = None

    async def run(self) -> None:
        """Follow until this is cancelled."""
        self._start(self._lease)
        self._start(self._own)
        made_of = _kinds_of(self._file)
        for name, kind in KINDS.items():
            needed = attrs.evolve(kind, may_lack=()) if name in made_of else kind
            self._reflectors[name] = self._reflector(needed)
        try:
            while True:
                await deferLater(self._reactor, _STATUS_PAUSE)
                for running in self._running.values():
                    if running.called:  # which only a fault of this program does
                        await running
                if self._lease.is_held:
                    await self._status.write()
        finally:
            ending = [self._end(worker) for worker in [*self._running]]
            if self._settling is not None:
                self._settling.cancel()
            await DeferredList(ending)

    def _start(self, worker: Any) -> None:
        self._running[worker] = Deferred.fromCoroutine(worker.run())

    def _end(self, worker: object) -> Deferred[Any]:
        running = self._running.pop(worker)
        running.addErrback(lambda failure: failure.trap(CancelledError))
        running.cancel()
        return running

    def _reflector(self, kind: Kind, namespace: str = "", only: str = "") -> Reflector:
        def changed(key: Key | None, *, is_status: bool) -> None:
            self._status.touch(kind.name, key)
            if not is_status:
                self._settle_soon()

        its = Reflector(self._reactor, self._api, kind, changed, namespace, only)
        self._start(its)
        return its

    def _settle_soon(self) -> None:
        if self._settling is None:
            self._settling = self._reactor.callLater(_SETTLE, self._settle)

    def _settle(self) -> None:
        """Write the file if all is known."""
        self._settling = None
        everything = [*self._reflectors.values(), *self._named.values()]
        failing = [its for its in everything if its.why and not its.is_absent]
        unread = [its for its in self._reflectors.values() if its.objects is None]
        why = _joined(failing)
        if len(failing) == len(everything) or any(its.why for its in unread):
            self._writer.lost(why)
        elif not unread:
            self._follow_named()
            if all(its.objects is not None or its.why for its in self._named.values()):
                self._writer.write(self._objects, self._served, why)

    def _follow_named(self) -> None:
        """Follow the Secrets and ConfigMaps that are named and may be used, and no others."""
        cluster, followed = self._cluster(), Counter[str]()
        namespaces = secret_namespaces(cluster, self._settings)
        wanted: dict[_Named, str] = {("Secret", its, ""): why for its, why in namespaces.items()}
        for namespace, name in sorted(named_config_maps(cluster, self._settings)):
            followed[namespace] += 1
            is_few = followed[namespace] <= _MOST_CONFIG_MAPS
            why = f"more than {_MOST_CONFIG_MAPS} of namespace {namespace} are named"
            wanted["ConfigMap", namespace, name] = "" if is_few else why
        self._unread = {key: why for key, why in wanted.items() if why}
        for key in self._named.keys() - (wanted.keys() - self._unread.keys()):
            self._end(self._named.pop(key))
        for kind, namespace, name in wanted.keys() - self._unread.keys() - self._named.keys():
            its = self._reflector(NAMED[kind], namespace, name)
            self._named[kind, namespace, name] = its

    def _cluster(self) -> Cluster:
        objects = {name: its.objects or {} for name, its in self._reflectors.items()}
        unknown = {**self._unread}
        for key, its in self._named.items():
            found = its.objects
            if found is None:
                unknown[key] = its.why
                found = self._certificates.remembered(*key)
            objects.setdefault(key[0], {}).update(found)
        return Cluster(objects, unknown)

    def _objects(self, _: Any) -> Sequence[ProvidedObject]:
        cluster = self._cluster()
        listeners = read_listeners(cluster, self._settings, self._certificates)
        policies = Policies(cluster, self._certificates)
        routes = read_routes(cluster, listeners, policies)
        self._made = cluster, listeners, routes, policies.all
        served = [its for its in listeners if its.is_served]
        used = {path for its in served for path in (*its.certificates, its.identity)}
        used |= {its.authorities for its in served} | {its.authorities for its in policies.all}
        self._certificates.write(used - {""})
        made_of = [name for name, kind in KINDS.items() if kind.may_lack and cluster.objects[name]]
        return [
            *[ProvidedObject("Gateway API", _MADE_OF + ", ".join(made_of))] * bool(made_of),
            *self._faulty(),
            *make_sections(listeners, routes, self._settings),
        ]

    def _faulty(self) -> Iterator[ProvidedObject]:
        for its in (*self._reflectors.values(), *self._named.values()):
            for key, fault in its.faults.items():
                title = f"{its.kind.name} {'/'.join(filter(None, key))}"
                why = f"it cannot be read: {fault}"
                if key in (its.objects or {}):
                    yield ProvidedObject(title, warning=f"{why}; what was known of it stays")
                else:
                    yield ProvidedObject(title, problem=why)

    def _served(self, objects: Sequence[ProvidedObject], unserved: str) -> None:
        if self._made is None:
            return
        cluster, listeners, routes, policies = self._made
        ports = {its.port_title for its in listeners}
        problems: dict[str, str] = {}
        for thing in objects:
            # A port without its usual outcome, which a route has lost, is open.
            if thing.problem and not (thing.text and thing.name in ports):
                problems.setdefault(thing.name, thing.problem)
        if not unserved:
            self._certificates.remove_others()
        labels, home = self._own.labels, self._api.access.namespace
        addresses = None if labels is None else addresses_of(cluster, home, labels)
        wanted = statuses(
            cluster, self._settings, listeners, routes, policies, problems, unserved, addresses
        )
        self._status.want(wanted)

    def _find(self, kind: str, key: Key) -> tuple[str, Any]:
        """Return the path of an object's status, and the object as it is known; none if what others wrote in it may be unknown."""
        its = self._reflectors[kind]
        thing = None if key in its.faults else (its.objects or {}).get(key)
        return f"{KINDS[kind].path(its.version, *key)}/status", thing


@define(eq=False)
class OwnPod:
    """Finds the labels of the pod that this process runs in, by which the Service before it is found.

    Attributes:
        labels: ``None`` until they are known, which outside of a cluster they never are.
    """

    _log = Logger()

    _reactor: Any
    _api: KubeApi
    _name: str
    _changed: Callable[[], object]
    labels: Mapping[str, str] | None = attrs.field(default=None, init=False)

    async def run(self) -> None:
        """Ask until they are known."""
        last, pause = "", _LABELS_AGAIN
        while why := await self._find():
            if why != last:
                self._log.warn("the addresses of Gateways stay as they are: {why}", why=why)
            last = why
            await deferLater(self._reactor, pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        self._changed()

    async def _find(self) -> str:
        """Ask for them; returns why they are not known."""
        path = Kind("Pod", "pods", "").path("v1", self._api.access.namespace, self._name)
        try:
            metadata = (await self._api.get(path))["metadata"]
            self.labels = dict(metadata.get("labels") or {})
        except (NoServerError, *MISSHAPEN) as problem:
            return str(problem) or "it has no answer that can be read"
        return ""


def _kinds_of(file: Path) -> Collection[str]:
    """Return the kinds without which a file that is there would serve less."""
    with suppress(OSError):
        for line in file.read_text(errors="replace").split("\n"):
            if line.startswith(_MADE_OF):
                return line.removeprefix(_MADE_OF).split(", ")
    return ()


def _joined(failing: Sequence[Reflector]) -> str:
    """Return which reflectors fail, and why the first of them does."""
    if not failing:
        return ""
    names = ", ".join(its.name for its in failing[:_MOST_NAMED])
    more = f" and {len(failing) - _MOST_NAMED} more" if failing[_MOST_NAMED:] else ""
    return f"{names}{more}: {failing[0].why}"


def addresses_of(cluster: Cluster, namespace: str, labels: Mapping[str, str]) -> list[Any]:
    """Return the addresses of the Services that lead to a pod with these labels: those outside, else those of the cluster."""
    outside: list[Any] = []
    inside: list[Any] = []
    for service in cluster.all("Service"):
        spec = service["spec"]
        selector = spec.get("selector") or {}
        if (
            key_of(service)[0] == namespace
            and selector
            and selects({"matchLabels": selector}, labels)
        ):
            status = (service.get("status") or {}).get("loadBalancer") or {}
            for address in status.get("ingress") or ():
                kind = "IPAddress" if address.get("ip") else "Hostname"
                outside.append(
                    {"type": kind, "value": address.get("ip") or address.get("hostname")}
                )
            if spec.get("clusterIP") not in {None, "", "None"}:
                inside.append({"type": "IPAddress", "value": spec["clusterIP"]})
    return (outside or inside)[:_MOST_ADDRESSES]


gateway = GatewayProvider()

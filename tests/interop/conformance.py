"""The conformance suite of Gateway API: its objects from its own files, servers for its Services, and what it asserts of status; CONTRIBUTING.md has how it runs, and ``tests/features/gateway/conformance.md`` what of it."""

import base64
import contextlib
import copy
import json
import os
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ClassVar, ParamSpec
from unittest import SkipTest

import pytest
import yaml  # type: ignore[import-untyped]

from tests.interop.datagrams.program import Responder
from tests.interop.kubernetes_api import KubernetesApi, start_provider
from tests.support.kit import Identity, InteropTestCase, Namespace, ThreadServer, make_authority
from tests.support.secure import client_context

INFRA = "gateway-conformance-infra"
APP = "gateway-conformance-app-backend"
WEB = "gateway-conformance-web-backend"
CONTROLLER = "txmux/gateway"
_GROUP = "gateway.networking.k8s.io"
_MANIFESTS = Path(__file__).parents[2] / "examples/kubernetes/gateway"
_POD = "10.9.0.1"  # an API server takes no address of a loopback network for an endpoint
_PATIENCE = 60.0  # seconds, as there
_HANDSHAKE = b"\x16"
_P = ParamSpec("_P")
Names = Sequence[str]
Listeners = Mapping[str, tuple[int, str, Names]]
"""By name: the routes of a listener, their kinds, and its conditions."""
_PATHS = {
    "Namespace": "/api/v1/namespaces",
    "Service": "/api/v1/namespaces/{}/services",
    "Secret": "/api/v1/namespaces/{}/secrets",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Pod": "/api/v1/namespaces/{}/pods",
    "EndpointSlice": "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices",
    "GatewayClass": f"/apis/{_GROUP}/v1/gatewayclasses",
    "BackendTLSPolicy": f"/apis/{_GROUP}/v1/namespaces/{{}}/backendtlspolicies",
    **{
        kind: f"/apis/{_GROUP}/v1/namespaces/{{}}/{kind.lower()}s"
        for kind in ("Gateway", "ListenerSet", "ReferenceGrant", "HTTPRoute", "TLSRoute", "TCPRoute", "UDPRoute")
    },
}  # fmt: skip


def who_server(service: str, certificate: Path, *, datagrams: bool) -> ThreadServer | Responder:
    """Start what stands for the endpoints of a Service: it tells each client which Service it is, and how the client came."""

    def who(**how: object) -> bytes:
        return json.dumps({"service": service, **how}).encode()

    def serve(accepted: socket.socket) -> None:
        names: list[str | None] = []
        accepted.settimeout(60)
        if accepted.recv(1, socket.MSG_PEEK) != _HANDSHAKE:
            if accepted.recv(2**16):
                accepted.sendall(who(tls=False))
            return
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        context.load_verify_locations(certificate.with_name("authority.pem"))
        context.verify_mode = ssl.CERT_OPTIONAL
        context.sni_callback = lambda _, name, __: names.append(name)
        with context.wrap_socket(accepted, server_side=True) as client:
            if client.recv(2**16):
                client.sendall(who(tls=True, name=names[0], presented=bool(client.getpeercert())))

    return Responder(0, lambda _: who(), _POD) if datagrams else ThreadServer(serve, _POD)


def ask(
    address: tuple[str, int],
    name: str | None = None,
    trust: Path | None = None,
    certificate: Path | None = None,
) -> dict[str, Any]:
    """Return what the server behind a port says to a client, of TLS if it has a name; nothing if it is refused."""
    with contextlib.suppress(OSError, ValueError):
        raw = socket.create_connection(address, 10)
        with contextlib.ExitStack() as closing:
            client: socket.socket = closing.enter_context(raw)
            if name is not None:
                context = client_context(trust)
                if certificate is not None:
                    context.load_cert_chain(certificate)
                client = closing.enter_context(context.wrap_socket(raw, server_hostname=name))
            client.sendall(b"who\n")
            said: dict[str, Any] = json.loads(client.recv(2**16))
            return said
    return {}


def ask_datagram(address: tuple[str, int]) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError), socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(2)
        client.connect(address)
        client.send(b"who\n")
        said: dict[str, Any] = json.loads(client.recv(2**16))
        return said
    return {}


def with_tls(objects: Iterable[Any], mode: str = "Passthrough") -> list[Any]:
    """Translate what is for HTTP: a listener becomes one of TLS, and each rule of a route a TLSRoute.

    A listener of HTTP gets this mode, one of HTTPS ends TLS as before. A route without host names has all of `.com`; one of
    several rules, which differ by path, becomes a route each with the last part of its path as a host name.
    """
    return [one for each in objects for one in _with_tls(copy.deepcopy(each), mode)]


def _with_tls(one: Any, mode: str) -> Iterable[Any]:
    spec = one.get("spec") or {}
    for listener in spec.get("listeners", ()):
        _translate_listener(listener, mode)
    for source in spec.get("from", ()) if one["kind"] == "ReferenceGrant" else ():
        source["kind"] = source["kind"].replace("HTTPRoute", "TLSRoute")
    if one["kind"] != "HTTPRoute":
        yield one
        return
    one["kind"] = "TLSRoute"
    rules = spec.pop("rules")
    for rule in rules:
        made = copy.deepcopy(one)
        if len(rules) > 1:
            matches = rule.get("matches") or [{"path": {"value": one["metadata"]["name"]}}]
            path = made["metadata"]["name"] = matches[0]["path"]["value"].strip("/")
            made["spec"]["hostnames"] = [f"{path}.example.com"]
        made["spec"].setdefault("hostnames", ["*.com"])
        made["spec"]["rules"] = [{"backendRefs": rule["backendRefs"]}]
        yield made


def _translate_listener(listener: dict[str, Any], mode: str) -> None:
    if listener["protocol"] == "HTTP":
        listener["tls"] = {"mode": mode}
        if mode == "Terminate":
            listener["tls"]["certificateRefs"] = [{"name": "tls-validity-checks-certificate"}]
    if listener["protocol"] in {"HTTP", "HTTPS"}:
        listener["protocol"] = "TLS"
    for kind in (listener.get("allowedRoutes") or {}).get("kinds", ()):
        kind["kind"] = kind["kind"].replace("HTTPRoute", "TLSRoute")


def awaited(look: Callable[_P, str]) -> Callable[_P, None]:
    """Have a method wait until it finds nothing wrong any more."""

    @wraps(look)
    def wait(*arguments: _P.args, **named: _P.kwargs) -> None:
        deadline = time.monotonic() + _PATIENCE
        while wrong := look(*arguments, **named):
            if time.monotonic() > deadline:
                raise AssertionError(f"{look.__name__}{arguments[1:]}: {wrong}")
            time.sleep(0.1)

    return wait


@pytest.mark.long
class ConformanceCase(InteropTestCase):
    """One cluster for all tests of a class, with the suite's base, a txmux and a provider with the rights of the manifests."""

    api: ClassVar[KubernetesApi]
    suite: ClassVar[Path]
    authority: ClassVar[Path]
    _certificate: ClassVar[Path]
    _base: ClassVar[list[Any]]

    @classmethod
    def setUpClass(cls) -> None:
        folder = os.environ.get("TXMUX_GATEWAY_CONFORMANCE")
        if not folder or not os.environ.get("TXMUX_GATEWAY_CRDS"):
            raise SkipTest("TXMUX_GATEWAY_CONFORMANCE and TXMUX_GATEWAY_CRDS name no folders")
        super().setUpClass()
        cls.suite = Path(folder)
        network = Namespace(cls)
        network.ip(f"addr add {_POD}/32 dev lo")
        network.enter()
        cls.api = cls.share(KubernetesApi(cls.folder))
        cls.api.start()
        cls.api.define_gateways()
        cls.api.kubectl("apply", "-k", _MANIFESTS)
        cls._stand_before_pods()
        cls._base = cls.read(cls.suite / "base/manifests.yaml")
        authority = make_authority("conformance")
        cls.authority = authority.write(cls.folder / "authority.pem")
        cls._certificate = cls.folder / "server.pem"
        names = ("abc.example.com", "other.example.com", "spiffe://abc.example.com/test-identity")
        for one in (*cls._base, *cls._programmatic(authority, authority.issue(*names))):
            cls.addClassCleanup(cls._apply(one))
        account = "--serviceaccount=txmux:txmux"
        roles = ((INFRA, "certificates"), (WEB, "certificates"), (INFRA, "authorities"))
        for namespace, what in roles:
            rights = (f"--clusterrole=txmux-{what}", account, f"--namespace={namespace}")
            cls.api.kubectl("create", "rolebinding", f"txmux-{what}", *rights)
        settings = "grace = 0s\ndrain_timeout = 1s\n"
        for started in start_provider(cls.api, cls.folder, settings=settings):
            cls.share(started)

    def setUp(self) -> None:
        super().setUp()
        self._removes: list[Callable[[], object]] = []
        self.addCleanup(self.clean)

    @classmethod
    def _stand_before_pods(cls) -> None:
        """Make the provider's Pod, and give the Service before it an address."""
        name = socket.gethostname().lower()
        labels = {"app.kubernetes.io/name": "txmux"}
        container = {"name": "txmux", "image": "txmux"}
        pod = {"metadata": {"name": name, "namespace": "txmux", "labels": labels}}
        spec = {"serviceAccountName": "txmux", "containers": [container]}
        cls._apply({"apiVersion": "v1", "kind": "Pod", **pod, "spec": spec})
        status = {"loadBalancer": {"ingress": [{"ip": _POD}]}}
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "txmux"}}
        path = _PATHS["Service"].format("txmux") + "/txmux/status"
        cls.api.ask("PATCH", path, {**service, "status": status})

    @classmethod
    def _programmatic(cls, authority: Identity, server: Identity) -> Iterable[Any]:
        """Make the Secrets and ConfigMaps that the suite makes by itself."""
        server.write(cls._certificate, key=True)
        wide = authority.issue("*", "*.com", "*.org", "*.wildcard.org")
        for namespace, name, identity in (
            (WEB, "certificate", wide),
            (INFRA, "tls-validity-checks-certificate", wide),
            (INFRA, "tls-checks-certificate", server),
            (INFRA, "tls-passthrough-checks-certificate", server),
            (APP, "tls-passthrough-checks-certificate", server),
            (INFRA, "tls-terminate-checks-certificate", authority.issue("tls.example.com")),
            (INFRA, "tls-checks-client-certificate", authority.issue("client", usage=False)),
        ):
            data = {"tls.crt": identity.pem, "tls.key": identity.key_pem()}
            coded = {key: base64.b64encode(value).decode() for key, value in data.items()}
            its = {"type": "kubernetes.io/tls", "data": coded}
            yield {**_metadata("Secret", namespace, name), **its}
        trusted = [(INFRA, "tls-checks-ca-certificate", authority)]
        for which in ("", "per-port-"):
            own = make_authority(f"{which}clients")
            trusted.append((INFRA, f"tls-validity-checks-{which}ca-certificate", own))
            own.issue("client", usage=False).write(cls.folder / f"{which}client.pem", key=True)
        other = make_authority("other")
        trusted += [(INFRA, "mismatch-ca-certificate", other), (WEB, "web-backend-cm", other)]
        for namespace, name, identity in trusted:
            its = {"data": {"ca.crt": identity.pem.decode()}}
            yield {**_metadata("ConfigMap", namespace, name), **its}

    @classmethod
    def read(cls, file: Path) -> list[Any]:
        """Read what a file of the suite has, without that for which there are no nodes."""
        if not file.exists():
            raise SkipTest(f"{file} is not in this version of the suite")
        text = file.read_text().replace("{GATEWAY_CLASS_NAME}", "txmux")
        text = text.replace("{GATEWAY_CONTROLLER_NAME}", CONTROLLER)
        found = [one for one in yaml.safe_load_all(text) if one and one["kind"] in _PATHS]
        for one in found:
            if one["apiVersion"].startswith(_GROUP):
                one["apiVersion"] = f"{_GROUP}/v1"
        return found

    @classmethod
    def _path(cls, kind: str, key: str) -> str:
        """Return where an object is in the API, by `name` in the suite's first namespace, or `namespace/name`."""
        namespace, _, name = key.rpartition("/")
        return f"{_PATHS[kind].format(namespace or INFRA)}/{name}"

    @classmethod
    def _apply(cls, one: Any) -> Callable[[], object]:
        """Create or change an object, and what stands for its endpoints; return what removes all of it."""
        kind, metadata = one["kind"], one["metadata"]
        namespace = metadata.get("namespace", "")
        path = cls._path(kind, f"{namespace}/{metadata['name']}")
        cls.api.ask("PATCH", path, one)
        if kind == "Namespace":  # nobody would finish its removal
            return lambda: None
        ends: list[Callable[[], object]] = [lambda: cls.api.ask("DELETE", path)]
        if kind == "Service" and namespace != "txmux":
            ends += cls._serve(namespace, metadata["name"], one["spec"]["ports"])
        return lambda: [end() for end in reversed(ends)]

    @classmethod
    def _serve(cls, namespace: str, name: str, ports: Sequence[Any]) -> list[Callable[[], object]]:
        ends: list[Callable[[], object]] = []
        entries = []
        for port in ports:
            is_udp = port["protocol"] == "UDP"
            server = who_server(f"{namespace}/{name}", cls._certificate, datagrams=is_udp)
            ends.append(server.end)
            known = {"name": port.get("name", ""), "protocol": port["protocol"]}
            entries.append({**known, "port": server.port})
        endpoints = _metadata("EndpointSlice", namespace, name)
        endpoints["metadata"]["labels"] = {"kubernetes.io/service-name": name}
        endpoint = {"addresses": [_POD], "conditions": {"ready": True}}
        made = {**endpoints, "addressType": "IPv4", "ports": entries, "endpoints": [endpoint]}
        return [*ends, cls._apply(made)]

    def use(self, file: str, mode: str = "", gateways: Names = (), without: Names = ()) -> None:
        """Apply a file of the suite for one test: as it is, or translated to TLS with a mode for listeners of HTTP, and with it these Gateways of the suite's base."""
        objects = self.read(self.suite / f"tests/{file}.yaml")
        if mode:
            base = [one for one in self._base if one["kind"] == "Gateway"]
            base = [one for one in base if one["metadata"]["name"] in gateways]
            objects = with_tls([*base, *objects], mode)
            self._removes += [lambda its=one: self._apply(its) for one in base]  # type: ignore[misc]
        self.put(*(one for one in objects if one["metadata"]["name"] not in without))

    def put(self, *objects: Any) -> None:
        self._removes += [self._apply(one) for one in objects]

    def clean(self) -> None:
        while self._removes:
            self._removes.pop()()

    def change(self, kind: str, key: str, alter: Callable[[Any], object]) -> None:
        """Change the spec of an object, whose generation changes with it."""
        its = self.get(kind, key)
        before = its["metadata"]["generation"]
        alter(its["spec"])
        self.api.ask("PUT", self._path(kind, key), its)
        self.assertNotEqual(self.get(kind, key)["metadata"]["generation"], before)

    def remove(self, kind: str, key: str) -> None:
        self.api.ask("DELETE", self._path(kind, key))

    def get(self, kind: str, key: str) -> Any:
        return self.api.ask("GET", self._path(kind, key))

    def status(self, kind: str, key: str) -> tuple[Any, Any]:
        its = self.get(kind, key)
        return its, its.get("status") or {}

    @awaited
    def conditions(self, kind: str, key: str, *wanted: str) -> str:
        """Wait for conditions of an object, each ``[!]Type[:Reason]``, that are all of its last generation."""
        its, status = self.status(kind, key)
        return _missing(its, status.get("conditions"), wanted)

    @awaited
    def listeners(self, kind: str, key: str, wanted: Listeners) -> str:
        """Wait for the status of all listeners: the routes, the kinds of routes, and conditions."""
        its, status = self.status(kind, key)
        found = {one["name"]: one for one in status.get("listeners") or ()}
        wrong = _missing(its, status.get("conditions"), ())
        if wrong or found.keys() != wanted.keys():
            return wrong or f"listeners {[*found]}"
        for name, (routes, kinds, conditions) in wanted.items():
            one = found[name]
            those = " ".join(its["kind"] for its in one.get("supportedKinds") or ())
            if (one["attachedRoutes"], those) != (routes, kinds):
                wrong = f"listener {name}: {one['attachedRoutes']} routes, kinds {those!r}"
            wrong = wrong or _missing(its, one["conditions"], conditions)
        return wrong

    @awaited
    def listener(self, kind: str, key: str, name: str, *wanted: str) -> str:
        """Wait for conditions of one listener; of all without a name."""
        its, status = self.status(kind, key)
        those = [one for one in status.get("listeners") or () if name in {"", one["name"]}]
        whys = (_missing(its, one["conditions"], wanted) for one in those)
        return next(filter(None, whys), "") if those else f"no status of listener {name!r}"

    @awaited
    def no_routes(self, gateway: str) -> str:
        """Wait until a Gateway of one listener has no route attached."""
        found = self.status("Gateway", gateway)[1].get("listeners") or ()
        counts = [one["attachedRoutes"] for one in found]
        return f"routes attached: {counts}" if counts not in ([], [0]) else ""

    @awaited
    def sets(self, gateway: str, count: int) -> str:
        found = self.status("Gateway", gateway)[1].get("attachedListenerSets", 0)
        return f"{found} ListenerSets" if found != count else ""

    @awaited
    def route(self, kind: str, key: str, parent: str, *wanted: str) -> str:
        """Wait for conditions of a route at a parent, ``name`` or ``namespace/name``."""
        namespace, _, name = parent.rpartition("/")
        its, status = self.status(kind, key)
        parents = status.get("parents") or ()
        whys = [
            _missing(its, one["conditions"], wanted)
            for one in parents
            for ref in (one["parentRef"],)
            if (ref["name"], ref.get("namespace", INFRA)) == (name, namespace or INFRA)
        ]
        return min(whys, key=len, default=f"no status: {parents}")

    @awaited
    def not_accepted(self, kind: str, key: str) -> str:
        """Wait until a route has one parent at most, which has not accepted it."""
        its, status = self.status(kind, key)
        parents = status.get("parents") or ()
        whys = [_missing(its, one["conditions"], ("!Accepted",)) for one in parents]
        return "".join(whys) if len(parents) < 2 else f"{len(parents)} parents"

    @awaited
    def parents(
        self, kind: str, key: str, *parents: str, wanted: Sequence[str] = ("Accepted:Accepted",)
    ) -> str:
        """Wait for the parents of a route in its status, each ``Kind name`` or ``Kind namespace/name``, with group and kind."""
        own = key.rpartition("/")[0] or INFRA
        its, status = self.status(kind, key)
        good = set()
        for one in status.get("parents") or ():
            ref = one["parentRef"]
            if not _missing(its, one["conditions"], wanted):
                place = (ref.get("kind"), ref.get("namespace", own), ref["name"])
                good.add((one["controllerName"], ref.get("group"), *place))
        for parent in parents:
            what, _, which = parent.partition(" ")
            namespace, _, name = which.rpartition("/")
            if (CONTROLLER, _GROUP, what, namespace or INFRA, name) not in good:
                return f"no {parent} with {wanted}: {status}"
        return ""

    def accepted(self, parent: str, kind: str, *routes: str) -> None:
        """Wait until a Gateway has an address, its routes are accepted, and all its listeners programmed; so for ``ListenerSet name``."""
        what, _, name = parent.rpartition(" ")
        if not what:
            self.address(name)
        for route in routes:
            self.parents(kind, route, f"{what or 'Gateway'} {name}")
        good = ("ResolvedRefs", "Accepted", "Programmed")
        self.listener(what or "Gateway", name, "", *good)

    def resolved(self, gateway: str, kind: str, *routes: str) -> None:
        """Wait until that is so, and all is found that its routes name."""
        self.accepted(gateway, kind, *routes)
        for route in routes:
            self.route(kind, route, gateway, "ResolvedRefs")

    def address(self, gateway: str, listener: str = "") -> tuple[str, int]:
        """Wait for a Gateway's address; return it with the port of a listener, of the first by default."""
        self.addressed(gateway)
        its = self.get("Gateway", gateway)
        listeners = its["spec"]["listeners"]
        port = next(one["port"] for one in listeners if listener in {"", one["name"]})
        return its["status"]["addresses"][0]["value"], port

    @awaited
    def addressed(self, gateway: str) -> str:
        its, status = self.status("Gateway", gateway)
        wrong = _missing(its, status.get("conditions"), ())
        return wrong or ("" if status.get("addresses") else "no address")

    @awaited
    def reaches(
        self,
        address: tuple[str, int],
        host: str | None,
        *services: str,
        trust: Path | None = None,
        certificate: Path | None = None,
        **how: object,
    ) -> str:
        """Wait until a client reaches one of these Services, of the suite's first namespace unless it is said; refused without any."""
        wanted = {one if "/" in one else f"{INFRA}/{one}" for one in services}
        said = ask(address, host, trust, certificate)
        good = {key: said.get(key) for key in how} == how
        good = good and ((said.get("service") in wanted) if wanted else not said)
        return "" if good else f"reaches {said}, not {wanted} {how}"

    def reach(self, address: tuple[str, int], services: Mapping[str, str], **how: object) -> None:
        """Have each host reach one of these Services; nobody where there is none."""
        for host, names in services.items():
            self.reaches(address, host, *names.split(), **how)  # type: ignore[arg-type]

    @awaited
    def policy(self, key: str, gateway: str, *wanted: str) -> str:
        its, status = self.status("BackendTLSPolicy", key)
        found = status.get("ancestors") or ()
        those = [one for one in found if one["ancestorRef"]["name"] == gateway]
        return _missing(its, those[-1]["conditions"], wanted) if those else f"no status: {found}"

    @awaited
    def shares(self, send: Callable[[], dict[str, Any]], wanted: dict[str, float]) -> str:
        """Have many clients served, of which each Service gets its share, within 5 %; it is tried ten times, as there."""
        counts = dict.fromkeys(wanted, 0)
        for _ in range(500):
            service = str(send().get("service", "")).removeprefix(f"{INFRA}/")
            if service not in counts:
                return f"reached {service!r}"
            counts[service] += 1
        off = {name: counts[name] / 500 - share for name, share in wanted.items()}
        zero = [name for name, share in wanted.items() if not share and counts[name]]
        return f"shares {counts}" if zero or max(map(abs, off.values())) > 0.05 else ""


def _metadata(kind: str, namespace: str, name: str) -> Any:
    version = "discovery.k8s.io/v1" if kind == "EndpointSlice" else "v1"
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": namespace}}


def _missing(its: Any, conditions: Iterable[Any] | None, wanted: Sequence[str]) -> str:
    """Return what is wrong with conditions: one that is not of the last generation, or not as wanted."""
    shown = {}
    for one in conditions or ():
        if one.get("observedGeneration", 0) != its["metadata"].get("generation", 0):
            return f"{one['type']} is of an older generation: {one}"
        sign = {"True": "", "False": "!"}.get(one["status"], "?")
        shown[one["type"]] = f"{sign}{one['reason']}"
    for text in wanted:
        name, _, reason = text.removeprefix("!").partition(":")
        right = text[: text.startswith("!")] + (reason or "[^!?].*")
        if not re.fullmatch(right, shown.get(name, "")):
            return f"wanted {text}, not {shown}"
    return ""

"""The conformance tests of Gateway, ListenerSet and BackendTLSPolicy beside a real API server."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.interop.conformance import INFRA, ConformanceCase, Listeners, Names, with_tls

_GOOD = ("Accepted", "ResolvedRefs")
_SERVED = ("Accepted", "ResolvedRefs", "Programmed")
_NOT_PERMITTED = "!ResolvedRefs:RefNotPermitted"
_UNSUPPORTED = "!Accepted:UnsupportedProtocol"
_INVALID_KINDS = "!ResolvedRefs:InvalidRouteKinds"
_MOST = "gateway-name-maximum-length-"
_SERVICES = ("infra-backend-v1", "infra-backend-v2")
_SECRETS = ("nonexistent-secret", "unsupported-group", "unsupported-kind", "malformed-secret")

_GATEWAYS: tuple[tuple[str, str, str, Names | None, Listeners], ...] = (
    ("gateway-invalid-parameters-ref", "", "gateway-invalid-parameters-ref", ("!Accepted:InvalidParameters",), {}),
    ("gateway-name-maximum-length", "", _MOST + "a" * (253 - len(_MOST)), ("!Accepted",), {}),
    # As it is, without a protocol that is supported; then with TLS for HTTP.
    ("gateway-invalid-listeners-unsupported-protocol", "", "gateway-supported-and-unsupported-protocols", ("!Accepted:ListenersNotValid",), {}),
    ("gateway-invalid-listeners-unsupported-protocol", "", "gateway-only-unsupported-protocols", ("!Accepted:ListenersNotValid",),
     {"invalid": (0, "", (_UNSUPPORTED,))}),
    ("gateway-invalid-listeners-unsupported-protocol", "Passthrough", "gateway-supported-and-unsupported-protocols", ("Accepted:ListenersNotValid",),
     {"http": (0, "TLSRoute", ("Accepted:Accepted",)), "invalid": (0, "", (_UNSUPPORTED,))}),
    ("gateway-invalid-route-kind", "Passthrough", "gateway-only-invalid-route-kind", None, {"http": (0, "", (_INVALID_KINDS,))}),
    ("gateway-invalid-route-kind", "Passthrough", "gateway-supported-and-invalid-route-kind", None, {"http": (0, "TLSRoute", (_INVALID_KINDS,))}),
    ("tlsroute-listener-passthrough-supported-kinds", "", "gateway-tlsroute-passthrough-supported-kind", None,
     {"tls-passthrough": (0, "TLSRoute", (_INVALID_KINDS,))}),
    ("tlsroute-listener-terminate-supported-kinds", "", "gateway-tlsroute-terminate-supported", None, {"tls-terminate": (0, "TLSRoute", ("Accepted:Accepted",))}),
    *(("gateway-invalid-tls-configuration", "Passthrough", f"gateway-certificate-{why}", None,
       {"https": (0, "TLSRoute", ("!ResolvedRefs:InvalidCertificateRef",))}) for why in _SECRETS),
    *((f"gateway-secret-{grant}-reference-grant", "Passthrough", f"gateway-secret-{grant}-reference-grant", None,
       {"https": (0, "TLSRoute", (_NOT_PERMITTED,))}) for grant in ("missing", "invalid")),
    *((f"gateway-secret-reference-grant-{grant}", "Passthrough", f"gateway-secret-reference-grant-{grant}", None,
       {"https": (0, "TLSRoute", ("Programmed:Programmed", "ResolvedRefs"))}) for grant in ("specific", "all-in-namespace")),
    ("gateway-with-attached-routes-with-port-8080", "Passthrough", "gateway-with-two-listeners-and-one-attached-route", None,
     {"http-unattached": (0, "TLSRoute", _GOOD), "http": (1, "TLSRoute", _GOOD)}),
    # Nothing is made in the cluster that labels could be passed on to, which is said in no condition there.
    ("gateway-infrastructure", "Passthrough", "gateway-with-infrastructure-metadata", ("Accepted",), {}),
)  # fmt: skip
"""By file: the mode of listeners that are translated, a Gateway, its conditions, and for each of its listeners the routes, their kinds, and conditions."""


_Alter = Callable[[Any], object]


def _listener(name: str, host: str, **more: object) -> dict[str, object]:
    own = {"name": name, "port": 80, "protocol": "TLS", "hostname": host}
    return {**own, "tls": {"mode": "Passthrough"}, **more}


class GatewayTests(ConformanceCase):
    def test_http_is_refused(self) -> None:
        """What is for HTTP alone, as it is in the suite: no listener of it is accepted, and no route is answered."""
        refused = "!Accepted:UnsupportedProtocol"
        for gateway in ("same-namespace", "all-namespaces", "backend-namespaces"):
            self.listeners("Gateway", gateway, {"http": (0, "", (refused, "!Programmed"))})
            self.conditions("Gateway", gateway, "!Accepted:ListenersNotValid")
        self.listener("Gateway", "same-namespace-with-https-listener", "", refused)

    def test_claimed_features(self) -> None:
        """Each test whose features a GatewayClass claims passes, by the table of cases."""
        self.conditions("GatewayClass", "txmux", "Accepted")
        features = self.get("GatewayClass", "txmux")["status"]["supportedFeatures"]
        claimed = {one["name"] for one in features}
        lines = (Path(__file__).parents[1] / "features/gateway/conformance.md").read_text()
        rows = [line.split(" | ") for line in lines.splitlines() if line.startswith("| ")]
        verdicts = {row[0].strip("| "): row[-1] for row in rows}
        texts = (file.read_text() for file in (self.suite / "tests").glob("*.go"))
        for text in (part for each in texts for part in each.split("ConformanceTest{")[1:]):
            named = re.search(r'ShortName:\s+"(\w+)"', text)
            wants = {*re.findall(r"features\.Support(\w+),", text.partition("Test:")[0])}
            if named and wants and wants <= claimed:
                verdict = verdicts.get(named[1], "not in the table")
                self.assertTrue(verdict.startswith(("passes", "asserts nothing")), named[1])

    def test_gateways(self) -> None:
        for file, mode, gateway, conditions, listeners in _GATEWAYS:
            self.use(file, mode)
            if conditions is not None:
                self.conditions("Gateway", gateway, *conditions)
            if listeners:
                self.listeners("Gateway", gateway, listeners)
            self.clean()

    def test_tlsroute_listener_not_supported(self) -> None:
        """Ending TLS is supported, and both modes are, so that these assert nothing there."""
        for which, gateway, listeners in (
            ("mixed-termination", "mixed-termination-not-supported", ("tls-terminate", "tls-passthrough")),
            ("terminate", "terminate-unsupported", ("tls-terminate",)),
        ):  # fmt: skip
            self.use(f"tlsroute-listener-{which}-not-supported")
            for name in listeners:
                self.listener("Gateway", f"gateway-tlsroute-{gateway}", name, *_SERVED)
            self.clean()

    def test_gateway_modify_listeners(self) -> None:
        """Its two Gateways have the same host name on the same port: here, one after the other has them."""
        names = ("gateway-add-listener", "gateway-remove-listener")
        good = (1, "TLSRoute", _GOOD)
        more = _listener("http", "data.test.com", allowedRoutes={"namespaces": {"from": "All"}})
        alters: tuple[_Alter, ...] = (
            lambda its: its["listeners"].append(more),
            lambda its: its["listeners"].pop(0),
        )
        wanted = ({"https": good, "http": good}, {"http": good})
        for name, other, alter, listeners in zip(names, names[::-1], alters, wanted, strict=True):
            self.use("gateway-modify-listeners", "Passthrough", without=[other])
            self.conditions("Gateway", name, "Accepted")
            self.change("Gateway", name, alter)
            self.listeners("Gateway", name, listeners)
            self.clean()

    def test_observed_generation_bump(self) -> None:
        """GatewayObservedGenerationBump, GatewayClassObservedGenerationBump."""
        more = _listener("alternate", "foo.com")
        name = "gateway-observed-generation-bump"
        self.use(name, "Passthrough")
        self.conditions("Gateway", name)
        self.change("Gateway", name, lambda its: its["listeners"].append(more))
        self.conditions("Gateway", name, "Accepted", "Programmed")
        self.clean()
        name = "gatewayclass-observed-generation-bump"
        self.use(name, "")
        self.conditions("GatewayClass", name, "Accepted")
        self.change("GatewayClass", name, lambda its: its.update(description="new"))
        self.conditions("GatewayClass", name, "Accepted")

    def test_gateway_with_attached_routes(self) -> None:
        """A route without a host name becomes one with the listener's."""
        self.use("gateway-with-attached-routes", "Passthrough")
        one, two = "gateway-with-one-attached-route", "gateway-with-two-attached-routes"
        for gateway, count in ((one, 1), (two, 2)):
            self.listeners("Gateway", gateway, {"http": (count, "TLSRoute", _GOOD)})
        wrong = "!Accepted:NoMatchingListenerHostname"
        self.route("TLSRoute", "http-route-not-accepted", two, wrong)
        unresolved = "unresolved-gateway-with-one-attached-unresolved-route"
        wanted = {"tls": (1, "TLSRoute", ("!Programmed", "!ResolvedRefs"))}
        self.listeners("Gateway", unresolved, wanted)
        self.route("TLSRoute", "http-route-4", unresolved, "!ResolvedRefs")

    def test_gateway_http_listener_isolation(self) -> None:
        """Each path there is of one route, so that the route that a host name reaches shows the same."""
        # By listener, the Service that its route leads to, in place of the one of all there, and the host name that reaches it.
        services = ("infra-backend-v1", "infra-backend-v2", "infra-backend-v3", "tls-backend")
        wide = ("empty-hostname", "wildcard-example-com")
        listeners = (*wide, "wildcard-foo-example-com", "abc-foo-example-com")
        hosts = ("bar.com", "bar.example.com", "bar.foo.example.com", "abc.foo.example.com")
        file = "gateway-http-listener-isolation"
        for suffix in ("", "-with-hostname-intersection"):
            objects = with_tls(self.read(self.suite / f"tests/{file}{suffix}.yaml"))
            names = [f"attaches-to-{one}{suffix}" for one in listeners]
            ports = {"tls-backend": 443}
            for one in objects:
                if one["kind"] == "TLSRoute":
                    service = services[names.index(one["metadata"]["name"])]
                    ref = {"name": service, "port": ports.get(service, 8080)}
                    one["spec"]["rules"] = [{"backendRefs": [ref]}]
            self.put(*objects)
            gateway = f"http-listener-isolation{suffix}"
            self.accepted(gateway, "TLSRoute", *names)
            address = self.address(gateway)
            for name, service, host in zip(names, services, hosts, strict=True):
                self.route("TLSRoute", name, gateway, "ResolvedRefs")
                self.reaches(address, host, service)
            self.clean()

    def test_gateway_addresses(self) -> None:
        """GatewayOptionalAddressValue, GatewayStaticAddresses."""
        self.use("gateway-optional-address-value", "Passthrough")
        self.address("gateway-without-address-value")
        self.clean()
        name = "gateway-static-addresses"
        objects = with_tls(self.read(self.suite / f"tests/{name}.yaml"))
        (gateway,) = objects
        gateway["spec"]["addresses"][1]["value"] = "192.0.2.9"
        gateway["spec"]["addresses"][2]["value"] = "10.9.0.1"
        self.put(gateway)
        self.conditions("Gateway", name, "!Accepted:UnsupportedAddress")
        self.change("Gateway", name, lambda its: its["addresses"].pop(0))
        self.conditions("Gateway", name, "Accepted:Accepted", "!Programmed:AddressNotUsable")
        self.change("Gateway", name, lambda its: its["addresses"].pop(0))
        self.conditions("Gateway", name, "Accepted:Accepted", "Programmed:Programmed")
        self.listeners("Gateway", name, {"http": (0, "TLSRoute", _GOOD)})
        addresses = self.get("Gateway", name)["status"]["addresses"]
        self.assertEqual([one["value"] for one in addresses], ["10.9.0.1"])


class FrontendTests(ConformanceCase):
    """Certificates of clients, at listeners of TLS in place of HTTPS."""

    def test_gateway_with_clientcertificate_validation(self) -> None:
        """With the insecure fallback, all are let in. HTTPRoute `…-no-hostname` becomes a route for `*.org`, as the listener's host name."""
        certificates = (self.folder / "client.pem", self.folder / "per-port-client.pem")
        its = {"https": "example.org", "https-with-hostname": "second-example.org"}
        for mode in ("default", "insecure-fallback"):
            gateway, is_open = f"client-validation-{mode}", mode != "default"
            file = f"gateway-with-clientcertificate-validation{f'-{mode}' if is_open else ''}"
            objects = with_tls(self.read(self.suite / f"tests/{file}.yaml"))
            routes = [one for one in objects if one["kind"] == "TLSRoute"]
            for one in routes:
                hosts = one["spec"]["hostnames"]
                one["spec"]["hostnames"] = ["*.org"] if hosts == ["*.com"] else hosts
            self.put(*objects)
            self.accepted(gateway, "TLSRoute", *(one["metadata"]["name"] for one in routes))
            orders = (certificates, certificates[::-1])
            for (listener, host), one, (mine, other) in zip(
                its.items(), _SERVICES, orders, strict=True
            ):
                address = self.address(gateway, listener)
                self.reaches(address, host, one, certificate=mine)
                self.reaches(address, host, *([one] if is_open else []), certificate=other)
            if is_open:
                wanted = "InsecureFrontendValidationMode:ConfigurationChanged"
                self.conditions("Gateway", gateway, wanted)
                for listener, host in its.items():
                    self.reaches(self.address(gateway, listener), host, *_SERVICES)
            self.clean()

    def test_gateway_with_invalid_clientcertificate_validation(self) -> None:
        gateway = "gateway-with-invalid-client-cert-validation"
        self.use("gateway-with-invalid-clientcertificate-validation", "Passthrough")
        self.listener("Gateway", gateway, "https", "ResolvedRefs", "Accepted", "Programmed")
        reasons = {"unresolved": "InvalidCACertificateRef", "grant-missing": "RefNotPermitted"}
        reasons["invalid-kind"] = "InvalidCACertificateKind"
        for listener, reason in reasons.items():
            wanted = (f"!ResolvedRefs:{reason}", "!Accepted:NoValidCACertificate", "!Programmed")
            self.listener("Gateway", gateway, f"https-{listener}", *wanted)

    def test_gateway_invalid_default_frontend_client_certificate_validation(self) -> None:
        """The listener of HTTP becomes one of TLS that ends nowhere here, so that it needs no certificate either."""
        self.use("gateway-invalid-default-frontend-client-certificate-validation", "Passthrough")
        gateway = "invalid-default-client-validation-config"
        self.listener("Gateway", gateway, "http", "ResolvedRefs", "Accepted", "Programmed")
        wanted = ("!ResolvedRefs:InvalidCACertificateRef", "!Accepted:NoValidCACertificate")
        self.listener("Gateway", gateway, "https", *wanted, "!Programmed")
        address, _ = self.address(gateway)
        self.reaches((address, 80), "example.org", "infra-backend-v1")
        self.reaches((address, 443), "example.org")


class ListenerSetTests(ConformanceCase):
    def begin(self, file: str, gateway: str, sets: int) -> None:
        """Apply a file, whose Gateway is accepted, and this many ListenerSets with it."""
        self.use(f"listenerset-{file}", "Passthrough")
        self.conditions("Gateway", gateway, "Accepted")
        self.sets(gateway, sets)

    def refused(self, key: str, reason: str) -> None:
        self.conditions("ListenerSet", key, f"!Accepted:{reason}", f"!Programmed:{reason}")

    def test_listenerset_allowed_namespace(self) -> None:
        """ListenerSetAllowedNamespaceNone, …Same, …Selector, ListenerSetDefaultNotAllowed."""
        for file, gateway, served, others in (
            ("allowed-namespace-none", "does-not-allow-listenerset", "", ("listenerset-not-allowed",)),
            ("default-not-allowed", "default-does-not-allow-listenerset", "", ("listenerset-default-not-allowed",)),
            ("allowed-namespace-same", "allows-listenerset-in-same-namespace", "listenerset-in-same-namespace",
             ("gateway-api-listenerset-not-allowed-ns/listenerset-in-different-namespace",)),
            ("allowed-namespace-selector", "allows-listenerset-in-selected-namespace",
             "gateway-api-listenerset-selector-allowed-ns/listenerset-in-selected-namespace",
             ("gateway-api-listenerset-selector-not-allowed-ns/listenerset-not-in-selected-namespace",)),
        ):  # fmt: skip
            self.begin(file, f"gateway-{gateway}", int(bool(served)))
            if served:
                self.conditions("ListenerSet", served, "Accepted:Accepted", "Programmed:Programmed")
                self.listener("ListenerSet", served, "", *_SERVED)
            for one in others:
                self.refused(one, "NotAllowed")
            self.clean()

    def test_listenerset_allowed_routes_namespaces(self) -> None:
        """Routes of one host name differ by path there: here, the oldest has the clients."""
        gateway = "gateway-with-listener-sets-test-allowed-routes"
        prefix = "listener-set-listener-allowed-routes"
        self.begin("allowed-routes-namespaces", gateway, 2)
        name = "listenerset-test-allowed-routes-namespaces"
        others = ("allowed-ns/route-in-selected", "not-allowed-ns/route-not-in-selected")
        far = (f"gateway-api-routes-{other}-namespace" for other in others)
        self.accepted(f"ListenerSet {name}", "TLSRoute", "route-in-same-namespace", *far)
        counts = {"all": 3, "same": 1, "selector": 1}
        wanted = {f"{prefix}-{one}": (count, "TLSRoute", _SERVED) for one, count in counts.items()}
        self.listeners("ListenerSet", name, wanted)
        address = self.address(gateway)
        v1, v2, v3 = (f"infra-backend-v{number}" for number in (1, 2, 3))
        hosts = {"all": f"{v1} {v2} {v3}", "same": v1, "selector": v2}
        self.reach(address, {f"{prefix}-{one}.com": names for one, names in hosts.items()})
        name = "gateway-api-ls-cross-ns/listenerset-test-allowed-routes-cross-ns"
        inside = "gateway-api-ls-cross-ns/route-in-listenerset-namespace"
        self.accepted(f"ListenerSet {name}", "TLSRoute", inside)
        wrong = "!Accepted:NotAllowedByListeners"
        self.route("TLSRoute", "route-in-gateway-namespace", name, wrong)
        self.listeners("ListenerSet", name, {f"{prefix}-cross-ns-same": (1, "TLSRoute", _SERVED)})
        self.reaches(address, f"{prefix}-cross-ns-same.com", v1)

    def test_listenerset_allowed_routes_supported_kinds(self) -> None:
        """The Gateway's own listener is of HTTP there, and of TLS here; the ListenerSet's of TLS with HTTPRoutes is as it is."""
        objects = self.read(self.suite / "tests/listenerset-allowed-routes-supported-kinds.yaml")
        self.put(*(with_tls([one])[0] if one["kind"] == "Gateway" else one for one in objects))
        gateway = "gateway-with-listener-sets-test-supported-route-kinds"
        self.conditions("Gateway", gateway, "Accepted")
        name = "listenerset-test-allowed-routes-supported-kinds"
        self.listener("ListenerSet", name, "", "!ResolvedRefs:InvalidRouteKinds")

    def test_listenerset_dual_parentref_independence(self) -> None:
        gateway, name = "gateway-dual-parentref", "ls-dual-parentref"
        one = "route-dual-parentref-one"
        self.begin("dual-parentref-independence", gateway, 1)
        wanted = {"ls-dual-parentref-listener": (2, "TLSRoute", _SERVED)}
        self.listeners("ListenerSet", name, wanted)
        address = self.address(gateway)
        for parent in (gateway, name):
            self.route("TLSRoute", "route-dual-parentref-both", parent, "Accepted")
        self.reaches(address, "gw-dual.com", "infra-backend-v1")
        self.route("TLSRoute", one, gateway, "!Accepted:NoMatchingParent")
        self.route("TLSRoute", one, name, "Accepted")
        self.accepted(f"ListenerSet {name}", "TLSRoute", one)
        self.reaches(address, "ls-dual.com", "infra-backend-v1", "infra-backend-v2")
        self.remove("TLSRoute", "route-dual-parentref-both")
        self.reach(address, {"ls-dual.com": "infra-backend-v2", "gw-dual.com": ""})

    def test_listenerset_gateway_parent_section_name_not_found(self) -> None:
        gateway = "gateway-section-name"
        self.begin("gateway-parent-section-name-not-found", gateway, 1)
        self.accepted("ListenerSet listenerset-section-name", "TLSRoute", "route-via-listenerset")
        self.route("TLSRoute", "route-via-gateway", gateway, "!Accepted:NoMatchingParent")
        address = self.address(gateway)
        self.reach(address, {"ls-section-name.com": "infra-backend-v1", "gw-section.com": ""})

    def test_listenerset_conflict(self) -> None:
        """ListenerSetHostnameConflict and ListenerSetProtocolConflict, which differ by their names alone."""
        for kind in ("hostname", "protocol"):
            gateway = f"gateway-with-listenerset-{kind}-conflict"
            own = f"{kind}-conflict-with-gateway-listener"
            others = f"{kind}-conflict-with-listener-set-listener"
            reason = f"{kind.title()}Conflict"
            conflict = (f"!Accepted:{reason}", f"!Programmed:{reason}", f"Conflicted:{reason}")
            self.begin(f"{kind}-conflict", gateway, 2)
            for name in ("gateway-listener", own):
                self.listener("Gateway", gateway, name, *_SERVED)
            for number, where, wanted in (
                (1, "gateway", {"listener-set-1-listener": _SERVED, own: conflict, others: _SERVED}),
                (2, "gateway", {own: conflict}),
                (1, "listener-set", {"listener-set-2-listener": _SERVED, others: conflict}),
                (2, "listener-set", {others: conflict}),
            ):  # fmt: skip
                name = f"listenerset-with-{kind}-conflict-with-{where}-{number}"
                if number == 1:
                    self.conditions("ListenerSet", name, "Accepted", "Programmed:Programmed")
                else:
                    self.refused(name, "ListenersNotValid")
                for listener, conditions in wanted.items():
                    self.listener("ListenerSet", name, listener, *conditions)
            self.clean()

    def test_listenerset_http_routing(self) -> None:
        """Routes of one host name differ by path there: here, the oldest has the clients, and after it the next."""
        self.use("listenerset-http-routing", "Passthrough")
        gateway = "gateway-with-listener-sets-http-routing"
        sets = ("listener-set-http-routing-1", "listener-set-http-routing-2")
        every = "attaches-to-all-listeners"
        self.accepted(gateway, "TLSRoute", every, "gateway-route", "gateway-section-route")
        self.sets(gateway, 2)
        one, two = sets
        own = (f"{one}-route", f"{one}-section-route")
        self.accepted(f"ListenerSet {one}", "TLSRoute", every, *own)
        good = (2, "TLSRoute", _SERVED)
        wanted = {f"{one}-listener-1": (3, "TLSRoute", _SERVED), f"{one}-listener-2": good}
        self.listeners("ListenerSet", one, wanted)
        self.accepted(f"ListenerSet {two}", "TLSRoute", every, f"{two}-route")
        self.listeners("ListenerSet", two, {f"{two}-listener-1": good, f"{two}-listener-2": good})
        address = self.address(gateway)
        v1, v2, v3 = (f"infra-backend-v{number}" for number in (1, 2, 3))
        hosts = {
            "gateway-listener-1.com": (v2, v3), "gateway-listener-2.com": (v2,),
            f"{one}-listener-1.com": (v2, v3), f"{one}-listener-2.com": (v2,),
            f"{two}-listener-1.com": (v2,), f"{two}-listener-2.com": (v2,),
        }  # fmt: skip
        for host, services in hosts.items():
            self.reaches(address, host, v1, *services)
        self.remove("TLSRoute", every)
        for host, services in hosts.items():
            self.reaches(address, host, *services)
        for name in ("gateway-route", f"{one}-route", f"{two}-route"):
            self.remove("TLSRoute", name)
        for host, services in hosts.items():
            self.reaches(address, host, *services[1:])

    def test_listenerset_reference_grant(self) -> None:
        self.use("listenerset-reference-grant", "Passthrough")
        self.conditions("Gateway", "gateway-with-listener-sets-test-reference-grant", "Accepted")
        granted = "listenerset-with-reference-grant"
        self.conditions("ListenerSet", granted, "Accepted", "Programmed")
        self.listener("ListenerSet", granted, "", "ResolvedRefs")
        namespace = "gateway-api-listener-sets-test-reference-grant-ns"
        refused = f"{namespace}/listenerset-without-reference-grant"
        self.refused(refused, "ListenersNotValid")
        self.listener("ListenerSet", refused, "", _NOT_PERMITTED)

    def test_listenerset_route_status_scoped_to_parentref(self) -> None:
        self.begin("route-status-scoped-to-parentref", "gateway-parentref", 1)
        wanted = {"listenerset-parentref-listener": (1, "TLSRoute", _SERVED)}
        self.listeners("ListenerSet", "listenerset-parentref", wanted)
        parents = {"gw": "Gateway gateway-parentref", "ls": "ListenerSet listenerset-parentref"}
        for of, parent in parents.items():
            self.parents("TLSRoute", f"route-parentref-{of}only", parent)
            found = self.get("TLSRoute", f"route-parentref-{of}only")["status"]["parents"]
            self.assertEqual(len(found), 1)


class BackendTlsPolicyTests(ConformanceCase):
    """Their HTTP listeners end TLS here, since plain clients are not routed by name."""

    GATEWAYS = ("same-namespace", "same-namespace-with-https-listener")

    def apply(self, file: str) -> tuple[str, int]:
        self.use(file, "Terminate", self.GATEWAYS)
        return self.address("same-namespace")

    def test_backendtlspolicy_tlsroute_terminate(self) -> None:
        self.use("backendtlspolicy-tlsroute-terminate")
        gateway, policy = "gateway-btls-tlsroute-terminate", "btls-tlsroute-terminate-test"
        self.accepted(gateway, "TLSRoute", "backendtlspolicy-tlsroute-terminate")
        self.policy(policy, gateway, "Accepted:Accepted", "ResolvedRefs:ResolvedRefs")
        how: Any = {"tls": True, "name": "abc.example.com"}
        # Its own Service leads to the pods of `tcp-backend`, which there is the name in the answer.
        service = "btls-terminate-tls-backend"
        self.reaches(self.address(gateway), "tls.example.com", service, trust=self.authority, **how)

    def test_backendtlspolicy(self) -> None:
        address = self.apply("backendtlspolicy")
        for policy in ("normative-test", "host-mismatch", "cert-mismatch"):
            wanted = ("Accepted:Accepted", "ResolvedRefs:ResolvedRefs")
            self.policy(policy, "same-namespace", *wanted)
        how: Any = {"tls": True, "name": "abc.example.com"}
        self.reaches(address, "backendtlspolicy.example.com", "backendtlspolicy-test", **how)
        https = self.address("same-namespace-with-https-listener")
        self.policy("normative-test", "same-namespace-with-https-listener", "Accepted:Accepted")
        self.reaches(https, "https-listener.org", "backendtlspolicy-test", **how)
        for which in ("host", "cert"):
            self.reaches(address, f"backendtlspolicy-{which}-mismatch.example.com")
        # The authority's certificate comes, goes, and comes back.
        policy, reconciled = "reconcile-test", "tls-checks-ca-certificate-reconcile-test"
        good = ("Accepted:Accepted", "ResolvedRefs:ResolvedRefs")
        bad = ("!Accepted:NoValidCACertificate", "!ResolvedRefs:InvalidCACertificateRef")
        self.policy(policy, "same-namespace", *good)
        trusting = {"caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": reconciled}]}
        self.change("BackendTLSPolicy", policy, lambda its: its["validation"].update(trusting))
        self.policy(policy, "same-namespace", *bad)
        metadata = {"name": reconciled, "namespace": INFRA}
        trust = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
        pem = self.authority.read_text()
        for text, wanted in ((pem, good), ("", bad), (pem, good)):
            self.put({**trust, "data": {"ca.crt": text}})
            self.policy(policy, "same-namespace", *wanted)

    def test_backendtlspolicy_conflict_resolution(self) -> None:
        address = self.apply("backendtlspolicy-conflict-resolution")
        for which in ("with", "without"):
            first, second = (f"conflicted-{which}-section-name-{number}" for number in (1, 2))
            for good in (first, f"not-conflicted-{which}-section-name"):
                self.policy(good, "same-namespace", "Accepted:Accepted")
            self.policy(second, "same-namespace", "!Accepted:Conflicted")
        for its, leads, name in (
            ("conflicted-without-section-name", "conflicted-without-section-name-test", "other"),
            ("conflicted-with-section-name", "conflicted-with-section-name-test", "other"),
            ("not-conflicted-with-section-name", "not-conflicted-test", "other"),
            ("not-conflicted-without-section-name", "not-conflicted-test", "abc"),
        ):
            how: Any = {"tls": True, "name": f"{name}.example.com"}
            host, service = f"backendtlspolicy-{its}.example.com", f"backendtlspolicy-{leads}"
            self.reaches(address, host, service, **how)

    def test_backendtlspolicy_invalid(self) -> None:
        """BackendTLSPolicyInvalidCACertificateRef, BackendTLSPolicyInvalidKind."""
        for what, reason, policies in (
            ("ca-certificate-ref", "InvalidCACertificateRef", {
                name: f"backendtlspolicy-{name}" for name in ("nonexistent-ca-certificate-ref", "malformed-ca-certificate-ref")
            }),
            ("kind", "InvalidKind", {"invalid-kind": "abc"}),
        ):  # fmt: skip
            address = self.apply(f"backendtlspolicy-invalid-{what}")
            wrong = ("!Accepted:NoValidCACertificate", f"!ResolvedRefs:{reason}")
            for policy, host in policies.items():
                self.policy(policy, "same-namespace", *wrong)
                self.reaches(address, f"{host}.example.com")
            self.clean()

    def test_backendtlspolicy_observed_generation_bump(self) -> None:
        self.apply("backendtlspolicy-observed-generation-bump")
        name = "observed-generation-bump"
        self.policy(name, "same-namespace")
        other = {"hostname": "foo.example.com"}
        self.change("BackendTLSPolicy", name, lambda its: its["validation"].update(other))
        self.policy(name, "same-namespace", "Accepted")

    def test_backendtlspolicy_san(self) -> None:
        """No name but `validation.hostname` can be verified: a policy with others is refused, and its clients with it."""
        address = self.apply("backendtlspolicy-san")
        self.policy("san-dns", "same-namespace", "Accepted:Accepted")
        service = "backendtlspolicy-san-dns-test"
        self.reaches(address, "backendtlspolicy-san-dns.example.com", service, tls=True)
        more = ("multiple-sans", "multiple-mismatch-sans")
        for name in ("san-dns-mismatch", "san-uri", "san-uri-mismatch", *more):
            self.policy(name, "same-namespace", "!Accepted:Invalid")
            self.reaches(address, f"backendtlspolicy-{name}.example.com")

    def test_gateway_tls_backend_client_certificate(self) -> None:
        name = "gateway-tls-backend-client-certificate"
        self.use(name, "Terminate")
        self.resolved(name, "TLSRoute", name)
        self.policy(f"{name}-test", name, "Accepted")
        self.conditions("Gateway", name, "ResolvedRefs:ResolvedRefs")
        how: Any = {"tls": True, "name": "abc.example.com", "presented": True}
        service = "tls-backend-with-client-cert-validation"
        self.reaches(self.address(name), "abc.example.com", service, **how)

    def test_gateway_invalid_tls_backend_configuration(self) -> None:
        """Its five Gateways have the same port without a host name: here, one after another has it."""
        file = "gateway-invalid-tls-backend-configuration"
        reasons = dict.fromkeys(_SECRETS, "InvalidClientCertificateRef")
        reasons["missing-reference-grant"] = "RefNotPermitted"
        names = {f"gateway-client-certificate-{name}": why for name, why in reasons.items()}
        for name, reason in names.items():
            self.use(file, "Terminate", without=[*{*names} - {name}])
            self.conditions("Gateway", name, f"!ResolvedRefs:{reason}", "Accepted:Accepted")
            self.clean()

"""The conformance tests of routes beside a real API server; those of HTTPRoute that are about parents, host names and references have TLSRoutes at listeners of TLS."""

import time
from collections.abc import Sequence
from itertools import product
from typing import Any

from tests.interop.conformance import APP, INFRA, WEB, ConformanceCase, ask, ask_datagram, awaited

_GOOD = ("Accepted", "ResolvedRefs")
_NOT_FOUND = "!ResolvedRefs:BackendNotFound"
_NOT_PERMITTED = "!ResolvedRefs:RefNotPermitted"
_INVALID_KIND = "!ResolvedRefs:InvalidKind"
_NOT_ALLOWED = "!Accepted:NotAllowedByListeners"
_NO_PARENT = "!Accepted:NoMatchingParent"
_NO_HOST = "!Accepted:NoMatchingListenerHostname"
_TEST_ROUTE = "gateway-conformance-infra-test"
_SAME = "same-namespace"
_NO_PORT = "gateway-with-one-not-matching-port-and-section-name-route"
_TYPES = ("manual-endpointslices", "headless", "headless-manual-endpointslices")

_ROUTES: tuple[tuple[str, tuple[str, ...] | None, str, str, tuple[str, ...], str, dict[str, str]], ...] = (
    ("tlsroute-invalid-backendref-nonexistent", None, "invalid-backend-ref-nonexistent",
     "gateway-tlsroute-invalid-backend-ref-nonexistent", (_NOT_FOUND,), "accepted", {"example.com": ""}),
    ("tlsroute-invalid-backendref-unknown-kind", None, "invalid-backend-ref-unknown-kind",
     "gateway-tlsroute-invalid-backend-ref-unknown-kind", (_INVALID_KIND,), "accepted", {"example.com": ""}),
    ("tlsroute-invalid-no-matching-listener-hostname", None, "tlsroute-hostname-mismatch-1", "gateway-tls-exact-hostname", (_NO_HOST,), "refused", {}),
    ("tlsroute-invalid-no-matching-listener-hostname", None, "tlsroute-hostname-mismatch-2", "gateway-tls-wildcard-hostname", (_NO_HOST,), "refused", {}),
    ("tlsroute-invalid-no-matching-listener", None, "tlsroute-not-allowed-protocol-http", "gateway-tlsroute-http-only", (_NOT_ALLOWED,), "refused", {}),
    ("tlsroute-invalid-no-matching-listener", None, "tlsroute-not-allowed-protocol-https", "gateway-tlsroute-https-only", (_NOT_ALLOWED,), "refused", {}),
    ("tlsroute-invalid-no-matching-listener", None, "tlsroute-no-matching-section-name", "gateway-tlsroute-tls-passthrough-only",
     (_NO_PARENT,), "refused", {}),
    ("tlsroute-invalid-reference-grant", None, _TEST_ROUTE, "gateway-tlsroute-referencegrant", (_NOT_PERMITTED,), "accepted", {}),
    ("tcproute-invalid-backendref-nonexistent", None, "tcp-route-invalid-backend-ref-nonexistent", "tcp-gateway-invalid-backend", (_NOT_FOUND,), "", {}),
    ("tcproute-invalid-cross-namespace-backend-ref", None, "tcp-invalid-cross-namespace-backend-ref",
     "tcp-invalid-cross-namespace-backend-ref-gateway", (_NOT_PERMITTED,), "accepted", {}),
    ("tcproute-invalid-non-tcp-listener", None, "tcp-route", "tcp-mixed-protocol-gateway", (_NOT_ALLOWED,), "none", {}),
    ("udproute-invalid-backendref-nonexistent", None, "udp-route-invalid-backend-ref-nonexistent", "udp-gateway-invalid-backend", (_NOT_FOUND,), "", {}),
    # The Service is not there either, as in the suite.
    ("udproute-invalid-cross-namespace-backend-ref", None, "udp-route-invalid-cross-namespace-backend-ref",
     "udp-gateway-invalid-cross-namespace-backend-ref", (_NOT_PERMITTED,), "accepted", {}),
    ("udproute-not-allowed-by-listeners", None, "udproute-not-allowed-by-listeners", "udproute-tls-only-gateway", (_NOT_ALLOWED,), "none", {}),
    ("httproute-simple-same-namespace", (_SAME,), _TEST_ROUTE, _SAME, (), "accepted", {"a.com": "infra-backend-v1"}),
    ("httproute-cross-namespace", ("backend-namespaces",), f"{WEB}/cross-namespace", "backend-namespaces", ("ResolvedRefs",), "accepted",
     {"a.com": f"{WEB}/web-backend"}),
    ("httproute-invalid-cross-namespace-parent-ref", (_SAME,), f"{WEB}/invalid-cross-namespace-parent-ref", _SAME,
     (_NOT_ALLOWED, "ResolvedRefs"), "refused", {"a.com": ""}),
    ("httproute-invalid-parentref-not-matching-listener-port", (_SAME,), "httproute-listener-not-matching-route-port", _SAME, (_NO_PARENT,), "refused", {}),
    ("httproute-invalid-parentref-not-matching-section-name", (_SAME,), "httproute-listener-not-matching-section-name", _SAME, (_NO_PARENT,), "refused", {}),
    ("httproute-invalid-parentref-section-name-not-matching-port", (), "httproute-listener-section-name-not-matching-port", _NO_PORT,
     (_NO_PARENT,), "refused", {}),
    ("httproute-invalid-nonexistent-backendref", (_SAME,), "invalid-nonexistent-backend-ref", _SAME, (_NOT_FOUND,), "accepted", {"a.com": ""}),
    ("httproute-invalid-backendref-unknown-kind", (_SAME,), "invalid-backend-ref-unknown-kind", _SAME, (_INVALID_KIND,), "accepted", {"a.com": ""}),
    ("httproute-invalid-cross-namespace-backend-ref", (_SAME,), "invalid-cross-namespace-backend-ref", _SAME, (_NOT_PERMITTED,), "accepted",
     {"a.com": ""}),
    ("httproute-invalid-reference-grant", (_SAME,), "reference-grant", _SAME, (_NOT_PERMITTED,), "accepted", {"a.com": ""}),
    # Of its two rules, here of a route each, one may not use its Service.
    ("httproute-partially-invalid-via-invalid-reference-grant", (_SAME,), "v2 invalid-reference-grant", _SAME, (_NOT_PERMITTED,), "accepted",
     {"v2.example.com": "", "invalid-reference-grant.example.com": f"{APP}/app-backend-v1"}),
    # With EndpointSlices that a controller makes, and those that a user does; with an address of the Service, and without.
    ("httproute-service-types", (_SAME,), " ".join(_TYPES), _SAME, (), "accepted", {f"{name}.example.com": name for name in _TYPES}),
)  # fmt: skip
"""By file: which Gateways of the suite's base are translated to TLS with it, routes, their Gateway, conditions of the first one there, and whom clients reach.

A route that is ``refused`` has one parent at most, which has not accepted it, and the Gateway has no route then, nor with ``none``.
"""


class RouteTests(ConformanceCase):
    def test_routes(self) -> None:
        self.use("udproute-simple")
        self.accepted("udp-gateway", "UDPRoute", "udp-coredns")
        self.served("udp", self.address("udp-gateway"), f"{INFRA}/coredns")
        self.clean()
        for file, base, routes, gateway, wanted, verdict, reached in _ROUTES:
            kind = {"tc": "TCPRoute", "ud": "UDPRoute"}.get(file[:2], "TLSRoute")
            self.use(file, "" if base is None else "Passthrough", base or ())
            name, *_ = names = routes.split()
            if verdict == "accepted":
                self.accepted(gateway, kind, *names)
            if wanted:
                self.route(kind, name, gateway, *wanted)
            if verdict == "refused":
                self.not_accepted(kind, name)
            if verdict in {"refused", "none"}:
                self.no_routes(gateway)
            if reached:
                self.reach(self.address(gateway), reached)
            self.clean()

    def start(self, file: str, *gateways: str) -> tuple[str, int]:
        """Apply a file of HTTPRoutes, and those Gateways of the suite's base that it uses; return the first one's address."""
        self.use(f"httproute-{file}", "Passthrough", gateways)
        return self.address(gateways[0]) if gateways else ("", 0)

    def served(self, protocol: str, address: tuple[str, int], *services: str) -> None:
        """Wait until a client is answered by one of these; by nobody without any."""
        if protocol == "tcp":
            self.reaches(address, None, *services)
        else:
            self.answered(address, services)

    @awaited
    def answered(self, address: tuple[str, int], services: Sequence[str]) -> str:
        service = ask_datagram(address).get("service", "")
        good = service in services if services else not service
        return "" if good else f"{address} is answered by {service!r}, not {services}"

    def test_tlsroute_hostname_intersection(self) -> None:
        self.use("tlsroute-hostname-intersection")
        both = {"abc.example.com": "tls-backend", "other.example.com": "tls-backend-2"}
        for which, routes, reached, refused in (
            ("exact-hostname-x-1", ("more-specific-wc-hostname-x-1",), {"abc.example.com": "tls-backend"}, "non.matching.com"),
            ("more-specific-wc-hostname-x-2", ("exact-hostname-x-2", "less-specific-wc-hostname-x-2"), both, "non.matching.com"),
            ("less-specific-wc-hostname-x-3", ("exact-hostname-x-3", "more-specific-wc-hostname-x-3"), both, "non.matching.com"),
            ("empty-hostname-x-4", ("exact-hostname-x-4", "less-specific-wc-hostname-x-4"), both, "non.matching.org"),
        ):  # fmt: skip
            gateway = f"gw-tlsroute-{which}"
            names = [f"tlsroute-{one}" for one in routes]
            self.resolved(gateway, "TLSRoute", *names)
            address = self.address(gateway)
            self.reach(address, reached, trust=self.authority)
            self.reaches(address, refused)

    def test_tlsroute_termination(self) -> None:
        """TLSRouteSimpleSameNamespace, …TerminateSimpleSameNamespace, …MixedTerminationSameNamespace."""
        name, ended = "abc.example.com", "tls.example.com"
        passed: dict[str, Any] = {"tls": True, "name": name}
        mixed = "gateway-conformance-mixed"
        for file, gateway, routes, hosts in (
            ("simple", "gateway-tlsroute", (_TEST_ROUTE,), {name: passed}),
            ("terminate-simple", "gateway-tlsroute-terminate", ("tlsroute-terminated-test",), {ended: {"tls": False}}),
            ("mixed-termination", "gateway-tlsroute-mixed-termination", (f"{mixed}-passthroughroute", f"{mixed}-terminateroute"),
             {ended: {"tls": False}, name: passed}),
        ):  # fmt: skip
            self.use(f"tlsroute-{file}-same-namespace")
            self.accepted(gateway, "TLSRoute", *routes)
            if len(routes) > 1:
                good = (1, "TLSRoute", ("Accepted:Accepted",))
                self.listeners("Gateway", gateway, {"tls-terminate": good, "tls-passthrough": good})
            for host, how in hosts.items():
                address = self.address(gateway)
                self.reaches(address, host, "tcp-backend", trust=self.authority, **how)
            self.clean()

    def test_multiple_routes_attachment(self) -> None:
        """TCPRouteMultipleRoutesAttachment, UDPRouteMultipleRoutesAttachment: of two at one listener, the older has the clients."""
        for protocol, port, look in (("tcp", 3000, ask), ("udp", 8080, ask_datagram)):
            kind, gateway = f"{protocol.upper()}Route", f"{protocol}-multi-route-attach-gateway"
            older, newer = (f"{protocol}route-attach-{age}" for age in ("older", "newer"))
            self.use(f"{protocol}route-multiple-routes-attachment")
            self.accepted(gateway, kind, older)
            time.sleep(1)  # creationTimestamp has seconds
            self.put(_route(kind, newer, gateway, protocol, f"{protocol}-attach-backend-2", port))
            for name in (older, newer):
                self.route(kind, name, gateway, "Accepted:Accepted")
            self.listeners("Gateway", gateway, {protocol: (2, kind, ("Accepted:Accepted",))})
            address, its = self.address(gateway), f"{INFRA}/{protocol}-attach-backend-1"
            self.served(protocol, address, its)
            for _ in range(50):
                self.assertEqual(look(address)["service"], its)
            self.clean()

    def test_parentref_attach_all(self) -> None:
        """TCPRouteParentRefAttachAll, UDPRouteParentRefAttachAllListeners."""
        for protocol, file, gateway, names in (
            ("tcp", "", "tcp-attach-all-gateway", ("one", "two", "three", "four")),
            ("udp", "-listeners", "udp-attach-all-listeners-gateway", ("udp-1", "udp-2", "udp-3")),
        ):
            kind = f"{protocol.upper()}Route"
            self.use(f"{protocol}route-parentref-attach-all{file}")
            self.parents(kind, f"{protocol}-route-attach-all", f"Gateway {gateway}")
            if protocol == "udp":
                self.listeners("Gateway", gateway, dict.fromkeys(names, (1, kind, _GOOD)))
            for name in names:
                address = self.address(gateway, name)
                self.served(protocol, address, f"{INFRA}/{protocol}-echo-attach-all")
            self.clean()

    def test_parentref_port_and_section_name(self) -> None:
        """TCPRouteParentRefPortAndSectionName, UDPRouteParentRefPortAndSectionName."""
        own = {"tcp": ("one", "two", "three")}
        own["udp"] = ("by-port", "by-section", "by-section-and-port")
        for protocol, listeners in own.items():
            self.use(f"{protocol}route-parentref-port-and-section-name")
            gateway = f"{protocol}-multi-listener-gateway"
            for by, listener in zip(("port", "section", "section-and-port"), listeners, strict=True):  # fmt: skip
                route = f"{protocol}-route-by-{by}"
                self.parents(f"{protocol.upper()}Route", route, f"Gateway {gateway}")
                address = self.address(gateway, listener)
                self.served(protocol, address, f"{INFRA}/{protocol}-echo-{listener}")
            self.clean()

    def test_reference_grant(self) -> None:
        """TCPRouteReferenceGrant, UDPRouteReferenceGrant, HTTPRouteReferenceGrant: clients are refused once it is gone."""
        for protocol, gateway, route, grant, service in (
            ("tcp", "tcp-reference-grant-gateway", "tcp-reference-grant", f"{WEB}/tcp-reference-grant", f"{WEB}/tcp-reference-grant-backend"),
            ("udp", "udp-gateway-reference-grant", "udp-route-reference-grant", f"{APP}/udp-reference-grant", f"{APP}/udp-echo-reference-grant"),
        ):  # fmt: skip
            kind = f"{protocol.upper()}Route"
            self.use(f"{protocol}route-reference-grant")
            self.accepted(gateway, kind, route)
            self.route(kind, route, gateway, "ResolvedRefs:ResolvedRefs")
            self.served(protocol, self.address(gateway), service)
            self.remove("ReferenceGrant", grant)
            self.route(kind, route, gateway, _NOT_PERMITTED)
            self.served(protocol, self.address(gateway))
            self.clean()
        address = self.start("reference-grant", _SAME)
        self.resolved(_SAME, "TLSRoute", "reference-grant")
        self.reaches(address, "a.com", f"{WEB}/web-backend")
        self.remove("ReferenceGrant", f"{WEB}/reference-grant")
        self.reaches(address, "a.com")

    def test_weighted_routing(self) -> None:
        """TCPRouteWeightedRouting, UDPRouteWeightedRouting, HTTPRouteWeight."""
        shares = dict(zip(("v1", "v2", "v3"), (0.7, 0.3, 0), strict=True))
        for protocol, look in (("tcp", ask), ("udp", ask_datagram)):
            self.use(f"{protocol}route-weighted-routing")
            gateway = f"{protocol}-weighted-gateway"
            self.accepted(gateway, f"{protocol.upper()}Route", f"{protocol}-weighted-route")
            wanted = {f"{protocol}-backend-{name}": share for name, share in shares.items()}
            address = self.address(gateway)
            self.shares(lambda look=look, address=address: look(address), wanted)  # type: ignore[misc]
            self.clean()
        address = self.start("weight", _SAME)
        self.accepted(_SAME, "TLSRoute", "weighted-backends")
        wanted = {f"infra-backend-{name}": share for name, share in shares.items()}
        self.shares(lambda: ask(address, "a.com"), wanted)

    def test_httproute_hostname_intersection(self) -> None:
        self.start("hostname-intersection")
        gateway, v1, v2 = "httproute-hostname-intersection", "infra-backend-v1", "infra-backend-v2"
        kinds = product(("specific", "wildcard"), repeat=2)
        names = ["{}-host-matches-listener-{}-host".format(*kind) for kind in kinds]
        self.resolved(gateway, "TLSRoute", *names)
        address = self.address(gateway)
        wildcards = ("foo.{}.io", "bar.{}.io", "foo.bar.{}.io")
        refused = (
            "non.matching.com", "foo.nonmatchingwildcard.io", "wildcard.io", "foo.specific.com", "anotherwildcard.io",
            "specific.but.wrong.com",
        )  # fmt: skip
        own = {"very.specific.com": v1, **{one.format("wildcard"): v2 for one in wildcards}}
        another = {one.format("anotherwildcard"): v1 for one in wildcards}
        self.reach(address, {**own, **another, **dict.fromkeys(refused, "")})
        wrong = ("!Accepted:NoMatchingListenerHostname",)
        self.parents("TLSRoute", "no-intersecting-hosts", f"Gateway {gateway}", wanted=wrong)
        counts = {"listener-1": 2, "listener-2": 1, "listener-3": 1}
        wanted = {name: (count, "TLSRoute", _GOOD) for name, count in counts.items()}
        self.listeners("Gateway", gateway, wanted)
        # Of the younger route for the same name, once the older one is gone.
        self.remove("TLSRoute", names[0])
        self.reaches(address, "very.specific.com", "infra-backend-v3")
        self.accepted(f"{gateway}-all", "TLSRoute", f"{gateway}-all")
        served = dict.fromkeys(("first.com", "sub.first.com", "second.com", "sub.second.com"), v2)
        self.reach(address, {**served, "third.com": "", "sub.third.com": ""})

    def test_httproute_listener_hostname_and_port_matching(self) -> None:
        """HTTPRouteListenerHostnameMatching, HTTPRouteListenerPortMatching."""
        backend, names = "infra-backend-v{}".format, [f"backend-v{number}" for number in (1, 2, 3)]
        self.start("listener-hostname-matching")
        gateway = "httproute-listener-hostname-matching"
        self.resolved(gateway, "TLSRoute", *names)
        prefixes = ("multiple.prefixes.bar.com", "multiple.prefixes.foo.com")
        hosts = {"bar.com": backend(1), "foo.bar.com": backend(2)}
        hosts |= dict.fromkeys(("baz.bar.com", "boo.bar.com", *prefixes), backend(3))
        hosts |= dict.fromkeys(("foo.com", "no.matching.host"), "")
        self.reach(self.address(gateway), hosts)
        self.clean()
        self.start("listener-port-matching")
        gateway = "httproute-listener-port-matching"
        self.accepted(gateway, "TLSRoute", *names)
        address, _ = self.address(gateway)
        for host, port, number in (
            ("foo.com", 80, 1), ("foo.com", 8080, 2), ("bar.com", 8080, 2), ("foo.com", 8090, 3),
        ):  # fmt: skip
            self.reaches((address, port), host, backend(number))
        self.reaches((address, 8090), "bar.com")

    def test_httproute_https_listener(self) -> None:
        gateway = "same-namespace-with-https-listener"
        address = self.start("https-listener", gateway)
        names = ("httproute-https-test", "httproute-https-test-no-hostname")
        # Without a host name, it has none of `.org` here.
        self.change("TLSRoute", names[1], lambda its: its.update(hostnames=["*.org"]))
        self.resolved(gateway, "TLSRoute", *names)
        served = {"example.org": "infra-backend-v1", "second-example.org": "infra-backend-v2"}
        self.reach(address, served, tls=False)
        self.reaches(address, "unknown-example.org")

    def test_httproute_observed_generation_bump(self) -> None:
        self.start("observed-generation-bump", "same-namespace")
        name = "observed-generation-bump"
        self.route("TLSRoute", name, "same-namespace")
        v2 = {"name": "infra-backend-v2"}
        self.change("TLSRoute", name, lambda its: its["rules"][0]["backendRefs"][0].update(v2))
        self.route("TLSRoute", name, "same-namespace", "Accepted", "ResolvedRefs")


def _route(kind: str, name: str, gateway: str, section: str, service: str, port: int) -> Any:
    parent, backend = {"name": gateway, "sectionName": section}, {"name": service, "port": port}
    spec = {"parentRefs": [parent], "rules": [{"backendRefs": [backend]}]}
    made = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "spec": spec}
    return {**made, "metadata": {"name": name, "namespace": INFRA}}

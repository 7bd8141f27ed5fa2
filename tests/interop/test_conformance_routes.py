"""The conformance tests of TLSRoute, TCPRoute and UDPRoute beside a real API server: each has the name that it has there.

Runs with ``TXMUX_LONG=1``; ``TXMUX_GATEWAY_CONFORMANCE`` and ``TXMUX_GATEWAY_CRDS`` name folders of a checkout of
kubernetes-sigs/gateway-api. The table of ``tests/features/gateway/conformance.md`` says what becomes of each test.
"""

import time
from typing import Any

from tests.interop.conformance import APP, INFRA, WEB, ConformanceTestCase, ask, ask_datagram

_GOOD = ("Accepted", "ResolvedRefs")
_SERVED = ("Accepted", "ResolvedRefs", "Programmed")
_NOT_FOUND = "!ResolvedRefs:BackendNotFound"
_NOT_PERMITTED = "!ResolvedRefs:RefNotPermitted"
_TEST_ROUTE = "gateway-conformance-infra-test"


class TlsRouteTests(ConformanceTestCase):
    def test_tlsroute_hostname_intersection(self) -> None:
        self.use("tlsroute-hostname-intersection")
        for which, routes, reached, refused in (
            ("exact-hostname-x-1", ("more-specific-wc-hostname-x-1",), {"abc.example.com": "tls-backend"}, "non.matching.com"),
            ("more-specific-wc-hostname-x-2", ("exact-hostname-x-2", "less-specific-wc-hostname-x-2"),
             {"abc.example.com": "tls-backend", "other.example.com": "tls-backend-2"}, "non.matching.com"),
            ("less-specific-wc-hostname-x-3", ("exact-hostname-x-3", "more-specific-wc-hostname-x-3"),
             {"abc.example.com": "tls-backend", "other.example.com": "tls-backend-2"}, "non.matching.com"),
            ("empty-hostname-x-4", ("exact-hostname-x-4", "less-specific-wc-hostname-x-4"),
             {"abc.example.com": "tls-backend", "other.example.com": "tls-backend-2"}, "non.matching.org"),
        ):  # fmt: skip
            gateway = f"gw-tlsroute-{which}"
            names = [f"tlsroute-{one}" for one in routes]
            self.accepted(gateway, "TLSRoute", *names)
            for name in names:
                self.route("TLSRoute", name, gateway, "ResolvedRefs")
            address = self.address(gateway)
            for host, service in reached.items():
                self.reaches(address, host, service, trust=self.authority)
            self.reaches(address, refused)

    def unresolved(self, why: str, condition: str) -> None:
        self.use(f"tlsroute-invalid-backendref-{why}")
        name = f"invalid-backend-ref-{why}"
        gateway = f"gateway-tlsroute-{name}"
        self.accepted(gateway, "TLSRoute", name)
        self.route("TLSRoute", name, gateway, condition)
        self.reaches(self.address(gateway), "example.com")

    def test_tlsroute_invalid_backendref_nonexistent(self) -> None:
        self.unresolved("nonexistent", _NOT_FOUND)

    def test_tlsroute_invalid_backendref_unknown_kind(self) -> None:
        self.unresolved("unknown-kind", "!ResolvedRefs:InvalidKind")

    def test_tlsroute_invalid_no_matching_listener_hostname(self) -> None:
        self.use("tlsroute-invalid-no-matching-listener-hostname")
        for name, gateway in (
            ("tlsroute-hostname-mismatch-1", "gateway-tls-exact-hostname"),
            ("tlsroute-hostname-mismatch-2", "gateway-tls-wildcard-hostname"),
        ):
            self.route("TLSRoute", name, gateway, "!Accepted:NoMatchingListenerHostname")
            self.not_accepted("TLSRoute", name)
            self.no_routes(gateway)

    def test_tlsroute_invalid_no_matching_listener(self) -> None:
        self.use("tlsroute-invalid-no-matching-listener")
        for name, gateway, reason in (
            ("not-allowed-protocol-http", "http-only", "NotAllowedByListeners"),
            ("not-allowed-protocol-https", "https-only", "NotAllowedByListeners"),
            ("no-matching-section-name", "tls-passthrough-only", "NoMatchingParent"),
        ):
            its, at = f"tlsroute-{name}", f"gateway-tlsroute-{gateway}"
            self.route("TLSRoute", its, at, f"!Accepted:{reason}")
            self.not_accepted("TLSRoute", its)
            self.no_routes(at)

    def test_tlsroute_invalid_reference_grant(self) -> None:
        self.use("tlsroute-invalid-reference-grant")
        gateway = "gateway-tlsroute-referencegrant"
        self.accepted(gateway, "TLSRoute", _TEST_ROUTE)
        self.route("TLSRoute", _TEST_ROUTE, gateway, _NOT_PERMITTED)

    def test_tlsroute_listener_mixed_termination_not_supported(self) -> None:
        """Both modes are supported, so that this asserts nothing there."""
        self.use("tlsroute-listener-mixed-termination-not-supported")
        gateway = "gateway-tlsroute-mixed-termination-not-supported"
        self.listener("Gateway", gateway, "tls-terminate", *_SERVED)
        self.listener("Gateway", gateway, "tls-passthrough", *_SERVED)

    def test_tlsroute_listener_passthrough_supported_kinds(self) -> None:
        self.use("tlsroute-listener-passthrough-supported-kinds")
        wanted = {"tls-passthrough": (0, "TLSRoute", ("!ResolvedRefs:InvalidRouteKinds",))}
        self.listeners("Gateway", "gateway-tlsroute-passthrough-supported-kind", wanted)

    def test_tlsroute_listener_terminate_not_supported(self) -> None:
        """Ending TLS is supported, so that this asserts nothing there."""
        self.use("tlsroute-listener-terminate-not-supported")
        gateway = "gateway-tlsroute-terminate-unsupported"
        self.listener("Gateway", gateway, "tls-terminate", *_SERVED)

    def test_tlsroute_listener_terminate_supported_kinds(self) -> None:
        self.use("tlsroute-listener-terminate-supported-kinds")
        wanted = {"tls-terminate": (0, "TLSRoute", ("Accepted:Accepted",))}
        self.listeners("Gateway", "gateway-tlsroute-terminate-supported", wanted)

    def test_tlsroute_mixed_termination_same_namespace(self) -> None:
        self.use("tlsroute-mixed-termination-same-namespace")
        gateway = "gateway-tlsroute-mixed-termination"
        self.accepted(gateway, "TLSRoute", "gateway-conformance-mixed-passthroughroute")
        good = (1, "TLSRoute", ("Accepted:Accepted",))
        self.listeners("Gateway", gateway, {"tls-terminate": good, "tls-passthrough": good})
        self.accepted(gateway, "TLSRoute", "gateway-conformance-mixed-terminateroute")
        address = self.address(gateway)
        trust = self.authority
        self.reaches(address, "tls.example.com", "tcp-backend", trust=trust, tls=False)
        passed: Any = {"tls": True, "name": "abc.example.com"}
        self.reaches(address, "abc.example.com", "tcp-backend", trust=trust, **passed)

    def test_tlsroute_simple_same_namespace(self) -> None:
        self.use("tlsroute-simple-same-namespace")
        self.accepted("gateway-tlsroute", "TLSRoute", _TEST_ROUTE)
        address, name = self.address("gateway-tlsroute"), "abc.example.com"
        self.reaches(address, name, "tcp-backend", trust=self.authority, tls=True, name=name)

    def test_tlsroute_terminate_simple_same_namespace(self) -> None:
        self.use("tlsroute-terminate-simple-same-namespace")
        self.accepted("gateway-tlsroute-terminate", "TLSRoute", "tlsroute-terminated-test")
        address = self.address("gateway-tlsroute-terminate")
        self.reaches(address, "tls.example.com", "tcp-backend", trust=self.authority, tls=False)


class TcpRouteTests(ConformanceTestCase):
    def test_tcproute_invalid_backendref_nonexistent(self) -> None:
        self.use("tcproute-invalid-backendref-nonexistent")
        name = "tcp-route-invalid-backend-ref-nonexistent"
        self.route("TCPRoute", name, "tcp-gateway-invalid-backend", _NOT_FOUND)

    def test_tcproute_invalid_cross_namespace_backend_ref(self) -> None:
        self.use("tcproute-invalid-cross-namespace-backend-ref")
        name = "tcp-invalid-cross-namespace-backend-ref"
        self.accepted(f"{name}-gateway", "TCPRoute", name)
        self.route("TCPRoute", name, f"{name}-gateway", _NOT_PERMITTED)

    def test_tcproute_invalid_non_tcp_listener(self) -> None:
        self.use("tcproute-invalid-non-tcp-listener")
        gateway = "tcp-mixed-protocol-gateway"
        self.route("TCPRoute", "tcp-route", gateway, "!Accepted:NotAllowedByListeners")
        self.no_routes(gateway)

    def test_tcproute_multiple_routes_attachment(self) -> None:
        address = _attach_two(self, "tcp", 3000)
        self.reaches(address, None, "tcp-attach-backend-1")
        for _ in range(100):
            self.assertEqual(ask(address)["service"], f"{INFRA}/tcp-attach-backend-1")

    def test_tcproute_parentref_attach_all(self) -> None:
        self.use("tcproute-parentref-attach-all")
        gateway = "tcp-attach-all-gateway"
        self.parents("TCPRoute", "tcp-route-attach-all", f"Gateway {gateway}")
        for listener in ("one", "two", "three", "four"):
            self.reaches(self.address(gateway, listener), None, "tcp-echo-attach-all")

    def test_tcproute_parentref_port_and_section_name(self) -> None:
        self.use("tcproute-parentref-port-and-section-name")
        gateway = "tcp-multi-listener-gateway"
        for route, listener in (("port", "one"), ("section", "two"), ("section-and-port", "three")):
            self.parents("TCPRoute", f"tcp-route-by-{route}", f"Gateway {gateway}")
            self.reaches(self.address(gateway, listener), None, f"tcp-echo-{listener}")

    def test_tcproute_reference_grant(self) -> None:
        self.use("tcproute-reference-grant")
        gateway = "tcp-reference-grant-gateway"
        self.accepted(gateway, "TCPRoute", "tcp-reference-grant")
        self.reaches(self.address(gateway), None, f"{WEB}/tcp-reference-grant-backend")
        self.remove("ReferenceGrant", f"{WEB}/tcp-reference-grant")
        self.route("TCPRoute", "tcp-reference-grant", gateway, _NOT_PERMITTED)
        self.reaches(self.address(gateway), None)

    def test_tcproute_weighted_routing(self) -> None:
        self.use("tcproute-weighted-routing")
        self.accepted("tcp-weighted-gateway", "TCPRoute", "tcp-weighted-route")
        address = self.address("tcp-weighted-gateway")
        wanted = {"tcp-backend-v1": 0.7, "tcp-backend-v2": 0.3, "tcp-backend-v3": 0}
        self.shares(lambda: ask(address), wanted)


class UdpRouteTests(ConformanceTestCase):
    def answers(self, address: tuple[str, int], *services: str) -> None:
        """Wait until a datagram is answered by one of these; by nobody without any."""

        def look() -> str:
            service = ask_datagram(address).get("service", "")
            good = service in services if services else not service
            return "" if good else f"{address} is answered by {service!r}, not {services}"

        self.until(look)

    def test_udproute_simple(self) -> None:
        self.use("udproute-simple")
        self.accepted("udp-gateway", "UDPRoute", "udp-coredns")
        self.answers(self.address("udp-gateway"), f"{INFRA}/coredns")

    def test_udproute_invalid_backendref_nonexistent(self) -> None:
        self.use("udproute-invalid-backendref-nonexistent")
        name = "udp-route-invalid-backend-ref-nonexistent"
        self.route("UDPRoute", name, "udp-gateway-invalid-backend", _NOT_FOUND)

    def test_udproute_invalid_cross_namespace_backend_ref(self) -> None:
        self.use("udproute-invalid-cross-namespace-backend-ref")
        gateway = "udp-gateway-invalid-cross-namespace-backend-ref"
        name = "udp-route-invalid-cross-namespace-backend-ref"
        self.accepted(gateway, "UDPRoute", name)
        # The Service is not there either, as in the suite.
        self.route("UDPRoute", name, gateway, _NOT_PERMITTED)

    def test_udproute_multiple_routes_attachment(self) -> None:
        address = _attach_two(self, "udp", 8080)
        self.answers(address, f"{INFRA}/udp-attach-backend-1")
        for _ in range(20):
            self.assertEqual(ask_datagram(address)["service"], f"{INFRA}/udp-attach-backend-1")

    def test_udproute_not_allowed_by_listeners(self) -> None:
        self.use("udproute-not-allowed-by-listeners")
        gateway = "udproute-tls-only-gateway"
        name = "udproute-not-allowed-by-listeners"
        self.route("UDPRoute", name, gateway, "!Accepted:NotAllowedByListeners")
        self.no_routes(gateway)

    def test_udproute_parentref_attach_all_listeners(self) -> None:
        self.use("udproute-parentref-attach-all-listeners")
        gateway = "udp-attach-all-listeners-gateway"
        self.parents("UDPRoute", "udp-route-attach-all", f"Gateway {gateway}")
        names = ("udp-1", "udp-2", "udp-3")
        self.listeners("Gateway", gateway, dict.fromkeys(names, (1, "UDPRoute", _GOOD)))
        for name in names:
            self.answers(self.address(gateway, name), f"{INFRA}/udp-echo-attach-all")

    def test_udproute_parentref_port_and_section_name(self) -> None:
        self.use("udproute-parentref-port-and-section-name")
        gateway = "udp-multi-listener-gateway"
        for by in ("by-port", "by-section", "by-section-and-port"):
            self.parents("UDPRoute", f"udp-route-{by}", f"Gateway {gateway}")
            self.answers(self.address(gateway, by), f"{INFRA}/udp-echo-{by}")

    def test_udproute_reference_grant(self) -> None:
        self.use("udproute-reference-grant")
        name, gateway = "udp-route-reference-grant", "udp-gateway-reference-grant"
        self.accepted(gateway, "UDPRoute", name)
        self.route("UDPRoute", name, gateway, "ResolvedRefs:ResolvedRefs")
        self.answers(self.address(gateway), f"{APP}/udp-echo-reference-grant")
        self.remove("ReferenceGrant", f"{APP}/udp-reference-grant")
        self.route("UDPRoute", name, gateway, _NOT_PERMITTED)
        self.answers(self.address(gateway))

    def test_udproute_weighted_routing(self) -> None:
        self.use("udproute-weighted-routing")
        self.accepted("udp-weighted-gateway", "UDPRoute", "udp-weighted-route")
        address = self.address("udp-weighted-gateway")
        wanted = {"udp-backend-v1": 0.7, "udp-backend-v2": 0.3, "udp-backend-v3": 0}
        self.shares(lambda: ask_datagram(address), wanted)


def _attach_two(test: ConformanceTestCase, protocol: str, port: int) -> tuple[str, int]:
    """Attach a route, and one that is newer, to the same listener; return its address."""
    kind, gateway = f"{protocol.upper()}Route", f"{protocol}-multi-route-attach-gateway"
    older, newer = (f"{protocol}route-attach-{age}" for age in ("older", "newer"))
    test.use(f"{protocol}route-multiple-routes-attachment")
    test.accepted(gateway, kind, older)
    time.sleep(1)  # creationTimestamp has seconds
    test.put(_route(kind, newer, gateway, protocol, f"{protocol}-attach-backend-2", port))
    for name in (older, newer):
        test.route(kind, name, gateway, "Accepted:Accepted")
    test.listeners("Gateway", gateway, {protocol: (2, kind, ("Accepted:Accepted",))})
    return test.address(gateway)


def _route(kind: str, name: str, gateway: str, section: str, service: str, port: int) -> Any:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": INFRA},
        "spec": {
            "parentRefs": [{"name": gateway, "sectionName": section}],
            "rules": [{"backendRefs": [{"name": service, "port": port}]}],
        },
    }

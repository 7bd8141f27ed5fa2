"""The conformance tests of BackendTLSPolicy, and of HTTPRoute as TLSRoutes, beside a real API server: each has the name that it has there.

Runs with ``TXMUX_LONG=1``; ``TXMUX_GATEWAY_CONFORMANCE`` and ``TXMUX_GATEWAY_CRDS`` name folders of a checkout of
kubernetes-sigs/gateway-api. The table of ``tests/features/gateway/conformance.md`` says what becomes of each test.
"""

from typing import Any

from tests.interop.conformance import APP, INFRA, WEB, ConformanceTestCase, ask

_GOOD = ("Accepted", "ResolvedRefs")
_NOT_FOUND = "!ResolvedRefs:BackendNotFound"
_NOT_PERMITTED = "!ResolvedRefs:RefNotPermitted"
_TEST_ROUTE = "gateway-conformance-infra-test"


class BackendTlsPolicyTests(ConformanceTestCase):
    """Their HTTP listeners end TLS here, since plain clients are not routed by name."""

    GATEWAYS = ("same-namespace", "same-namespace-with-https-listener")

    def apply(self, file: str) -> tuple[str, int]:
        self.use(file, "Terminate", self.GATEWAYS)
        return self.address("same-namespace")

    def good(self, *policies: str) -> None:
        for name in policies:
            self.policy(name, "same-namespace", "Accepted:Accepted")

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
        self.reaches(address, "backendtlspolicy-host-mismatch.example.com")
        self.reaches(address, "backendtlspolicy-cert-mismatch.example.com")
        # The authority's certificate comes, goes, and comes back.
        policy, reconciled = "reconcile-test", "tls-checks-ca-certificate-reconcile-test"
        good = ("Accepted:Accepted", "ResolvedRefs:ResolvedRefs")
        bad = ("!Accepted:NoValidCACertificate", "!ResolvedRefs:InvalidCACertificateRef")
        self.policy(policy, "same-namespace", *good)
        ref = {"group": "", "kind": "ConfigMap", "name": reconciled}
        self.change(
            "BackendTLSPolicy",
            policy,
            lambda its: its["validation"].update(caCertificateRefs=[ref]),
        )
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
            self.good(f"conflicted-{which}-section-name-1", f"not-conflicted-{which}-section-name")
            self.policy(
                f"conflicted-{which}-section-name-2", "same-namespace", "!Accepted:Conflicted"
            )
        for host, service, name in (
            ("conflicted-without-section-name", "conflicted-without-section-name-test", "other"),
            ("conflicted-with-section-name", "conflicted-with-section-name-test", "other"),
            ("not-conflicted-with-section-name", "not-conflicted-test", "other"),
            ("not-conflicted-without-section-name", "not-conflicted-test", "abc"),
        ):
            how: Any = {"tls": True, "name": f"{name}.example.com"}
            self.reaches(
                address,
                f"backendtlspolicy-{host}.example.com",
                f"backendtlspolicy-{service}",
                **how,
            )

    def test_backendtlspolicy_invalid_ca_certificate_ref(self) -> None:
        address = self.apply("backendtlspolicy-invalid-ca-certificate-ref")
        for name in ("nonexistent-ca-certificate-ref", "malformed-ca-certificate-ref"):
            wrong = ("!Accepted:NoValidCACertificate", "!ResolvedRefs:InvalidCACertificateRef")
            self.policy(name, "same-namespace", *wrong)
            self.reaches(address, f"backendtlspolicy-{name}.example.com")

    def test_backendtlspolicy_invalid_kind(self) -> None:
        address = self.apply("backendtlspolicy-invalid-kind")
        wrong = ("!Accepted:NoValidCACertificate", "!ResolvedRefs:InvalidKind")
        self.policy("invalid-kind", "same-namespace", *wrong)
        self.reaches(address, "abc.example.com")

    def test_backendtlspolicy_observed_generation_bump(self) -> None:
        self.apply("backendtlspolicy-observed-generation-bump")
        name = "observed-generation-bump"
        self.policy(name, "same-namespace")
        self.change(
            "BackendTLSPolicy",
            name,
            lambda its: its["validation"].update(hostname="foo.example.com"),
        )
        self.policy(name, "same-namespace", "Accepted")

    def test_backendtlspolicy_san(self) -> None:
        """No name but `validation.hostname` can be verified: a policy with others is refused, and its clients with it."""
        address = self.apply("backendtlspolicy-san")
        self.policy("san-dns", "same-namespace", "Accepted:Accepted")
        service = "backendtlspolicy-san-dns-test"
        self.reaches(address, "backendtlspolicy-san-dns.example.com", service, tls=True)
        for name in (
            "san-dns-mismatch",
            "san-uri",
            "san-uri-mismatch",
            "multiple-sans",
            "multiple-mismatch-sans",
        ):
            self.policy(name, "same-namespace", "!Accepted:Invalid")
            self.reaches(address, f"backendtlspolicy-{name}.example.com")

    def test_gateway_tls_backend_client_certificate(self) -> None:
        name = "gateway-tls-backend-client-certificate"
        self.use(name, "Terminate")
        self.accepted(name, "TLSRoute", name)
        self.route("TLSRoute", name, name, "ResolvedRefs")
        self.policy(f"{name}-test", name, "Accepted")
        self.conditions("Gateway", name, "ResolvedRefs:ResolvedRefs")
        how: Any = {"tls": True, "name": "abc.example.com", "presented": True}
        service = "tls-backend-with-client-cert-validation"
        self.reaches(self.address(name), "abc.example.com", service, **how)

    def test_gateway_invalid_tls_backend_configuration(self) -> None:
        """Its five Gateways have the same port without a host name: here, one after another has it."""
        file = "gateway-invalid-tls-backend-configuration"
        names = {
            f"gateway-client-certificate-{name}": "InvalidClientCertificateRef"
            for name in (
                "nonexistent-secret",
                "unsupported-group",
                "unsupported-kind",
                "malformed-secret",
            )
        }
        names["gateway-client-certificate-missing-reference-grant"] = "RefNotPermitted"
        for name, reason in names.items():
            self.use(file, "Terminate", without=[*{*names} - {name}])
            self.conditions("Gateway", name, f"!ResolvedRefs:{reason}", "Accepted:Accepted")
            self.clean()


class HttpRouteTests(ConformanceTestCase):
    """Those of HTTPRoutes that are about parents, host names and references, with TLSRoutes at listeners of TLS."""

    def start(self, file: str, *gateways: str, mode: str = "Passthrough") -> tuple[str, int]:
        """Apply a file, and those Gateways of the suite's base that it uses; return the first one's address."""
        self.use(f"httproute-{file}", mode, gateways)
        return self.address(gateways[0]) if gateways else ("", 0)

    def test_httproute_simple_same_namespace(self) -> None:
        address = self.start("simple-same-namespace", "same-namespace")
        self.accepted("same-namespace", "TLSRoute", _TEST_ROUTE)
        self.reaches(address, "a.com", "infra-backend-v1")

    def test_httproute_cross_namespace(self) -> None:
        address = self.start("cross-namespace", "backend-namespaces")
        self.accepted("backend-namespaces", "TLSRoute", f"{WEB}/cross-namespace")
        self.route("TLSRoute", f"{WEB}/cross-namespace", "backend-namespaces", "ResolvedRefs")
        self.reaches(address, "a.com", f"{WEB}/web-backend")

    def test_httproute_invalid_cross_namespace_parent_ref(self) -> None:
        name = f"{WEB}/invalid-cross-namespace-parent-ref"
        address = self.start("invalid-cross-namespace-parent-ref", "same-namespace")
        wanted = ("!Accepted:NotAllowedByListeners", "ResolvedRefs")
        self.route("TLSRoute", name, "same-namespace", *wanted)
        self.not_accepted("TLSRoute", name)
        self.no_routes("same-namespace")
        self.reaches(address, "a.com")

    def test_httproute_invalid_parentref(self) -> None:
        """HTTPRouteInvalidParentRefNotMatchingListenerPort, …NotMatchingSectionName, …SectionNameNotMatchingPort."""
        for file, name, gateways in (
            ("not-matching-listener-port", "listener-not-matching-route-port", ("same-namespace",)),
            (
                "not-matching-section-name",
                "listener-not-matching-section-name",
                ("same-namespace",),
            ),
            ("section-name-not-matching-port", "listener-section-name-not-matching-port", ()),
        ):
            self.start(f"invalid-parentref-{file}", *gateways)
            gateway = "gateway-with-one-not-matching-port-and-section-name-route"
            gateway = gateways[0] if gateways else gateway
            self.route("TLSRoute", f"httproute-{name}", gateway, "!Accepted:NoMatchingParent")
            self.not_accepted("TLSRoute", f"httproute-{name}")
            self.no_routes(gateway)
            self.clean()

    def test_httproute_invalid_references(self) -> None:
        """HTTPRouteInvalidNonExistentBackendRef, …InvalidBackendRefUnknownKind, …InvalidCrossNamespaceBackendRef, …InvalidReferenceGrant."""
        for file, name, wanted in (
            ("nonexistent-backendref", "invalid-nonexistent-backend-ref", _NOT_FOUND),
            (
                "backendref-unknown-kind",
                "invalid-backend-ref-unknown-kind",
                "!ResolvedRefs:InvalidKind",
            ),
            ("cross-namespace-backend-ref", "invalid-cross-namespace-backend-ref", _NOT_PERMITTED),
            ("reference-grant", "reference-grant", _NOT_PERMITTED),
        ):
            address = self.start(f"invalid-{file}", "same-namespace")
            self.accepted("same-namespace", "TLSRoute", name)
            self.route("TLSRoute", name, "same-namespace", wanted)
            self.reaches(address, "a.com")
            self.clean()

    def test_httproute_partially_invalid_via_invalid_reference_grant(self) -> None:
        """Of its two rules, here of a route each, one may not use its Service."""
        address = self.start("partially-invalid-via-invalid-reference-grant", "same-namespace")
        self.accepted("same-namespace", "TLSRoute", "v2", "invalid-reference-grant")
        self.route("TLSRoute", "v2", "same-namespace", _NOT_PERMITTED)
        self.reaches(address, "v2.example.com")
        self.reaches(address, "invalid-reference-grant.example.com", f"{APP}/app-backend-v1")

    def test_httproute_reference_grant(self) -> None:
        address = self.start("reference-grant", "same-namespace")
        self.accepted("same-namespace", "TLSRoute", "reference-grant")
        self.route("TLSRoute", "reference-grant", "same-namespace", "ResolvedRefs")
        self.reaches(address, "a.com", f"{WEB}/web-backend")
        self.remove("ReferenceGrant", f"{WEB}/reference-grant")
        self.reaches(address, "a.com")

    def test_httproute_hostname_intersection(self) -> None:
        self.start("hostname-intersection")
        gateway, v1, v2 = "httproute-hostname-intersection", "infra-backend-v1", "infra-backend-v2"
        names = [
            f"{route}-host-matches-listener-{listener}-host"
            for route in ("specific", "wildcard")
            for listener in ("specific", "wildcard")
        ]
        self.accepted(gateway, "TLSRoute", *names)
        for name in names:
            self.route("TLSRoute", name, gateway, "ResolvedRefs")
        address = self.address(gateway)
        self.reaches(address, "very.specific.com", v1)
        for host in ("foo.wildcard.io", "bar.wildcard.io", "foo.bar.wildcard.io"):
            self.reaches(address, host, v2)
        for host in (
            "foo.anotherwildcard.io",
            "bar.anotherwildcard.io",
            "foo.bar.anotherwildcard.io",
        ):
            self.reaches(address, host, v1)
        refused = (
            "non.matching.com", "foo.nonmatchingwildcard.io", "wildcard.io", "foo.specific.com", "anotherwildcard.io",
            "specific.but.wrong.com",
        )  # fmt: skip
        for host in refused:
            self.reaches(address, host)
        wrong = ("!Accepted:NoMatchingListenerHostname",)
        self.parents("TLSRoute", "no-intersecting-hosts", f"Gateway {gateway}", wanted=wrong)
        counts = {"listener-1": 2, "listener-2": 1, "listener-3": 1}
        wanted = {name: (count, "TLSRoute", _GOOD) for name, count in counts.items()}
        self.listeners("Gateway", gateway, wanted)
        # Of the younger route for the same name, once the older one is gone.
        self.remove("TLSRoute", names[0])
        self.reaches(address, "very.specific.com", "infra-backend-v3")
        self.accepted(f"{gateway}-all", "TLSRoute", f"{gateway}-all")
        for host in ("first.com", "sub.first.com", "second.com", "sub.second.com"):
            self.reaches(address, host, v2)
        for host in ("third.com", "sub.third.com"):
            self.reaches(address, host)

    def test_httproute_listener_hostname_matching(self) -> None:
        self.start("listener-hostname-matching")
        gateway = "httproute-listener-hostname-matching"
        names = [f"backend-v{number}" for number in (1, 2, 3)]
        self.accepted(gateway, "TLSRoute", *names)
        for name in names:
            self.route("TLSRoute", name, gateway, "ResolvedRefs")
        address = self.address(gateway)
        for host, number in {
            "bar.com": 1, "foo.bar.com": 2, "baz.bar.com": 3, "boo.bar.com": 3, "multiple.prefixes.bar.com": 3,
            "multiple.prefixes.foo.com": 3,
        }.items():  # fmt: skip
            self.reaches(address, host, f"infra-backend-v{number}")
        for host in ("foo.com", "no.matching.host"):
            self.reaches(address, host)

    def test_httproute_listener_port_matching(self) -> None:
        self.start("listener-port-matching")
        gateway = "httproute-listener-port-matching"
        self.accepted(gateway, "TLSRoute", *(f"backend-v{number}" for number in (1, 2, 3)))
        address, _ = self.address(gateway)
        for host, port, number in (
            ("foo.com", 80, 1), ("foo.com", 8080, 2), ("bar.com", 8080, 2), ("foo.com", 8090, 3),
        ):  # fmt: skip
            self.reaches((address, port), host, f"infra-backend-v{number}")
        self.reaches((address, 8090), "bar.com")

    def test_httproute_https_listener(self) -> None:
        gateway = "same-namespace-with-https-listener"
        address = self.start("https-listener", gateway)
        names = ("httproute-https-test", "httproute-https-test-no-hostname")
        # Without a host name, it has none of `.org` here.
        self.change("TLSRoute", names[1], lambda its: its.update(hostnames=["*.org"]))
        self.accepted(gateway, "TLSRoute", *names)
        for name in names:
            self.route("TLSRoute", name, gateway, "ResolvedRefs")
        self.reaches(address, "example.org", "infra-backend-v1", tls=False)
        self.reaches(address, "second-example.org", "infra-backend-v2", tls=False)
        self.reaches(address, "unknown-example.org")

    def test_httproute_observed_generation_bump(self) -> None:
        self.start("observed-generation-bump", "same-namespace")
        name = "observed-generation-bump"
        self.route("TLSRoute", name, "same-namespace")

        def alter(spec: Any) -> None:
            spec["rules"][0]["backendRefs"][0]["name"] = "infra-backend-v2"

        self.change("TLSRoute", name, alter)
        self.route("TLSRoute", name, "same-namespace", "Accepted", "ResolvedRefs")

    def test_httproute_service_types(self) -> None:
        """With EndpointSlices that a controller makes, and those that a user does; with an address of the Service, and without."""
        address = self.start("service-types", "same-namespace")
        names = ("manual-endpointslices", "headless", "headless-manual-endpointslices")
        self.accepted("same-namespace", "TLSRoute", *names)
        for name in names:
            self.reaches(address, f"{name}.example.com", name)

    def test_httproute_weight(self) -> None:
        address = self.start("weight", "same-namespace")
        self.accepted("same-namespace", "TLSRoute", "weighted-backends")
        wanted = {"infra-backend-v1": 0.7, "infra-backend-v2": 0.3, "infra-backend-v3": 0}
        self.shares(lambda: ask(address, "a.com"), wanted)

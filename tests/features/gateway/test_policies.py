from twisted.trial.unittest import SynchronousTestCase

from tests.features.gateway.objects import authority, gateway, policy, route
from tests.features.gateway.test_rules import SERVED, TCP, TLS, Made, reasons

_CERT = "---\nkind: Secret\nmetadata: {name: cert}\ntype: kubernetes.io/tls\n"
_END = "name: end, port: 443, protocol: TLS, tls: {certificateRefs: [{name: cert}]}"

_KEYS = ["tls = yes", "tls_name = db.example", "tls_ca = /pem/ca.pem"]


def _reasons_of(made: Made, name: str) -> dict[str, str]:
    (ancestor,) = made.status["BackendTLSPolicy", name]["ancestors"]
    return reasons(ancestor["conditions"])


class PolicyTests(SynchronousTestCase):
    def test_a_policy(self) -> None:
        """BackendTLSPolicyTLSRouteTermination, and the same for a TCPRoute."""
        text = gateway(TCP, _END) + _CERT + policy("over") + authority()
        text += route("TCPRoute", "db") + route("TLSRoute", "db")
        made = Made(text)
        for kind in ("tcp", "tls"):
            lines = made.sections()[f"backend {kind}_shop_db"]
            self.assertEqual((lines[:3], lines[3]), (_KEYS, "server = 10.0.0.1:15432"))
        (ancestor,) = made.status["BackendTLSPolicy", "over"]["ancestors"]
        self.assertEqual({one["observedGeneration"] for one in ancestor["conditions"]}, {1})
        ref = {"group": "gateway.networking.k8s.io", "kind": "Gateway"}
        self.assertEqual(ancestor["ancestorRef"], {**ref, "namespace": "shop", "name": "edge"})
        self.assertEqual(_reasons_of(made, "over"), SERVED)
        system = "hostname: db.example, wellKnownCACertificates: System"
        made = Made(gateway(TCP) + policy("over", validation=system) + route("TCPRoute", "db"))
        self.assertEqual(made.sections()["backend tcp_shop_db"][:2], _KEYS[:2])
        self.assertNotIn("tls_ca", made.text)
        made.rules()
        # One of two authorities is there, the hostname is the only other name (BackendTLSPolicySANValidation), or annotations say something else.
        both = policy("over").replace("name: ca}", "name: gone}, {kind: ConfigMap, name: ca}")
        same = "hostname: db.example, wellKnownCACertificates: System, subjectAltNames: [{type: Hostname, hostname: db.example}]"
        no_tls = ', annotations: {txmux.tls: "no"}'
        for text, more, keys, resolved in (
            (both + authority(), "", _KEYS, "!InvalidCACertificateRef"),
            (policy("over", validation=same), "", _KEYS[:2], "ResolvedRefs"),
            (policy("over") + authority(), no_tls, _KEYS, "ResolvedRefs"),
        ):
            made = Made(gateway(TCP) + text + route("TCPRoute", "db", more=more))
            self.assertEqual(made.sections()["backend tcp_shop_db"][: len(keys)], keys)
            self.assertEqual(_reasons_of(made, "over"), {**SERVED, "ResolvedRefs": resolved})

    def test_clients_that_speak_tls_with_the_server(self) -> None:
        """Of one route, some clients may pass through, and others be served here."""
        text = gateway(TLS.replace("443", "444"), _END) + _CERT + policy("over") + authority()
        sections = Made(text + route("TLSRoute", "db")).sections()
        for listener, name, lines in (
            ("tls", "tls_shop_db_passthrough_at_tcp_444", ["server = 10.0.0.1:15432"]),
            ("end", "tls_shop_db_at_tcp_443", _KEYS),
        ):
            self.assertEqual(sections[f"backend {name}"][: len(lines)], lines)
            self.assertIn(f"backend = {name}", sections[f"route tls_shop_db_shop_edge_{listener}"])

    def test_which_policy_has_the_target(self) -> None:
        """BackendTLSPolicyConflictResolution: of one for a port and one for the whole service, neither is in conflict."""
        other = "hostname: other.example, wellKnownCACertificates: System"
        text = gateway(TCP) + policy("all") + policy("one", "db, sectionName: sql", other)
        made = Made(text + authority() + route("TCPRoute", "db"))
        self.assertEqual(made.sections()["backend tcp_shop_db"][1], "tls_name = other.example")
        for name in ("all", "one"):
            self.assertEqual(_reasons_of(made, name), SERVED)
        for target in ("db", "db, sectionName: sql"):
            text = gateway(TCP) + policy("old", target) + policy("new", target, other)
            made = Made(text + authority() + route("TCPRoute", "db"))
            self.assertEqual(made.sections()["backend tcp_shop_db"][:3], _KEYS)
            self.assertEqual(_reasons_of(made, "old"), SERVED)
            self.assertEqual(_reasons_of(made, "new")["Accepted"], "!Conflicted")
        text = gateway(TCP) + policy("web", "web") + policy("far", more=", namespace: far")
        made = Made(text + authority() + route("TCPRoute", "db"))
        self.assertNotIn("tls", made.text)
        self.assertNotIn("BackendTLSPolicy", [kind for kind, _ in made.status])

    # Clients of what cannot be served are refused: never is it plain text.
    def refused(self, text: str) -> Made:
        made = Made(gateway(TCP) + text + route("TCPRoute", "db"))
        self.assertNotIn("10.0.0.1", made.text)
        self.assertIn("default = close", made.text)
        made.rules()
        refused = {"Accepted": "Accepted", "ResolvedRefs": "!UnsupportedProtocol"}
        self.assertEqual(made.of_route("TCPRoute", "db"), refused)
        return made

    def test_authorities_that_cannot_be_used_and_what_is_not_supported(self) -> None:
        """BackendTLSPolicyInvalidCACertificateRef, BackendTLSPolicyInvalidKind."""
        over = policy("over")
        for text, reason in (
            (over, "!InvalidCACertificateRef"),
            (over.replace("name: ca}", "name: bad}") + authority(name="bad"), "!InvalidCACertificateRef"),
            (over.replace("kind: ConfigMap", "kind: InvalidKind"), "!InvalidKind"),
        ):  # fmt: skip
            expected = {"Accepted": "!NoValidCACertificate", "ResolvedRefs": reason}
            self.assertEqual(_reasons_of(self.refused(text), "over"), expected)
        only = "validation.wellKnownCACertificates: {} is not supported; write System".format
        system = "wellKnownCACertificates: System"
        for validation, why in (
            ("hostname: db.example, wellKnownCACertificates: example.com/own", only("example.com/own")),
            ("hostname: db.example", only("nothing")), (f'hostname: "*.example", {system}', ""),
            (f'hostname: "a\\ntls_ca = /etc/x", {system}', ""), (f"hostname: 7, {system}", ""), (system, ""),
            (f"hostname: db.example, {system}, subjectAltNames: [{{type: Hostname, hostname: x.example}}]", ""),
            (f"hostname: db.example, {system}, subjectAltNames: [{{type: URI, uri: 'spiffe://x'}}]", ""),
        ):  # fmt: skip
            made = self.refused(policy("over", validation=validation))
            self.assertEqual(_reasons_of(made, "over")["Accepted"], "!Invalid", validation)
            if why:
                self.assertEqual(made.message("BackendTLSPolicy", "over"), why)
        made = self.refused(policy("over", "db, sectionName: sqll") + authority())
        self.assertEqual(_reasons_of(made, "over")["Accepted"], "!TargetNotFound")
        good = "hostname: x, wellKnownCACertificates: System"
        self.refused(policy("over") + policy("new", validation=good))
        text = gateway("name: udp, port: 53, protocol: UDP") + policy("over") + authority()
        made = Made(text + route("UDPRoute", "db", "{name: db, port: 53}"))
        self.assertEqual(made.of_route("UDPRoute", "db")["ResolvedRefs"], "!UnsupportedProtocol")
        self.assertIn("default = close", made.text)
        refs = "{name: web, port: 443, weight: 3}, {name: db, port: 5432}"
        made = Made(gateway(TCP) + policy("over") + authority() + route("TCPRoute", "db", refs))
        self.assertEqual(made.sections()["backend tcp_shop_db"][-1], "127.0.0.1:1 final")
        self.assertNotIn("tls", made.text)
        self.assertEqual(made.of_route("TCPRoute", "db")["ResolvedRefs"], "!UnsupportedProtocol")
        both = policy("over") + policy("too", "web")
        made = Made(gateway(TCP) + both + authority() + route("TCPRoute", "db", refs))
        self.assertEqual(made.sections()["backend tcp_shop_db"][:3], _KEYS)
        self.assertEqual(made.of_route("TCPRoute", "db")["ResolvedRefs"], "ResolvedRefs")


class GatewayTests(SynchronousTestCase):
    def text(self, tls: str, more: str = "") -> str:
        its = gateway(TCP, _END).replace("  listeners", f"  tls: {tls}\n  listeners")
        return its + _CERT + policy("over") + authority() + route("TCPRoute", "db") + more

    def test_a_certificate_for_servers(self) -> None:
        """GatewayTLSBackendClientCertificate."""
        made = Made(self.text("{backend: {clientCertificateRef: {name: cert}}}"))
        lines = made.sections()["backend tcp_shop_db_shop_edge"]
        self.assertEqual(lines[:3], _KEYS)
        self.assertEqual(lines[3], "tls_client_certificate = /pem/shop_cert.pem")
        self.assertEqual(made.of_gateway()["ResolvedRefs"], "ResolvedRefs")
        # GatewayInvalidTLSBackendConfiguration.
        bad = "---\nkind: Secret\nmetadata: {name: bad}\n"
        far = "---\nkind: Secret\nmetadata: {name: far, namespace: far}\n"
        for ref, reason in (
            ("{name: gone}", "!InvalidClientCertificateRef"),
            ("{name: bad}", "!InvalidClientCertificateRef"),
            ("{name: cert, group: x.example}", "!InvalidClientCertificateRef"),
            ("{name: cert, kind: ConfigMap}", "!InvalidClientCertificateRef"),
            ("{name: far, namespace: far}", "!RefNotPermitted"),
        ):
            made = Made(self.text(f"{{backend: {{clientCertificateRef: {ref}}}}}", bad + far))
            got = made.of_gateway()
            self.assertEqual((got["Accepted"], got["ResolvedRefs"]), ("Accepted", reason))
            self.assertNotIn("10.0.0.1", made.text)

    def test_certificates_of_clients(self) -> None:
        """GatewayFrontendClientCertificateValidation, with TLS in the place of HTTPS, and its InsecureFallback."""
        tls = "{frontend: {default: {validation: {caCertificateRefs: [{kind: ConfigMap, name: ca}]}}}}"
        made = Made(self.text(tls) + route("TLSRoute", "db"))
        lines = made.sections()["route tls_shop_db_shop_edge_end"][-2:]
        expected = ["terminate_tls = /pem/shop_cert.pem", "tls_client_ca = /pem/ca.pem"]
        self.assertEqual(lines, expected)
        self.assertEqual(made.of_listener("end")["ResolvedRefs"], "ResolvedRefs")
        self.assertNotIn("InsecureFrontendValidationMode", made.of_gateway())
        tls = "{frontend: {default: {validation: {caCertificateRefs: [{kind: ConfigMap, name: gone}]}}, perPort: [{port: 443, tls: {}}]}}"
        made = Made(self.text(tls) + route("TLSRoute", "db"))
        self.assertNotIn("tls_client_ca", made.text)
        self.assertEqual(made.of_listener("end")["Programmed"], "Programmed")
        tls = "{frontend: {default: {validation: {mode: AllowInsecureFallback, caCertificateRefs: [{kind: ConfigMap, name: ca}]}}}}"
        made = Made(self.text(tls) + route("TLSRoute", "db"))
        self.assertNotIn("tls_client_ca", made.text)
        mode = made.of_gateway()["InsecureFrontendValidationMode"]
        self.assertEqual(mode, "ConfigurationChanged")
        # GatewayInvalidFrontendClientCertificateValidation, GatewayFrontendInvalidDefaultClientCertificateValidation.
        far = authority(name="far").replace("name: far", "name: far\n  namespace: far")
        for ref, reason in (
            ("{kind: ConfigMap, name: gone}", "!InvalidCACertificateRef"),
            ("{kind: Service, name: db}", "!InvalidCACertificateKind"),
            ("{kind: ConfigMap, name: far, namespace: far}", "!RefNotPermitted"),
        ):
            tls = f"{{frontend: {{default: {{validation: {{caCertificateRefs: [{ref}]}}}}}}}}"
            made = Made(self.text(tls, far) + route("TLSRoute", "web"))
            its = made.of_listener("end")
            found = (its["Accepted"], its["ResolvedRefs"], its["Programmed"])
            self.assertEqual(found, ("!NoValidCACertificate", reason, "!Invalid"))
            self.assertNotIn("terminate_tls", made.text)
            self.assertEqual(made.of_listener("tcp")["Programmed"], "Programmed")

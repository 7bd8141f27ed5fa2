"""What the conformance tests of Gateway API 1.6 expect of status, by their names.

Source: ``conformance/tests`` of kubernetes-sigs/gateway-api. There, each Gateway has an address of its own; here, those of one
pod share its ports where names and protocols allow it, so each case has its Gateway alone. Where clients go is in `test_rules` and `tests/interop/test_gateway`.
"""

import re
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.features.gateway import test_policies, test_rules
from tests.features.gateway.objects import SET, TAKES, gateway, route, things
from tests.features.gateway.test_rules import TCP, TLS, VALID, Made
from txmux.features.gateway.conditions import FEATURES, Wanted, merged
from txmux.features.gateway.listeners import GatewaySettings

_UDP = "name: udp, port: 53, protocol: UDP"
_HTTP = "name: http, port: 80, protocol: HTTP"
_HTTPS = "name: https, port: 443, protocol: HTTPS"
_AWAY = "---\nkind: Service\nmetadata: {name: far, namespace: far}\nspec: {ports: [{port: 1}, {port: 2, protocol: UDP}]}\n"
_GRANT = """---
kind: ReferenceGrant
metadata: {name: x, namespace: far}
spec: {from: [{group: gateway.networking.k8s.io, kind: KIND, namespace: shop}], to: [{group: "", kind: Service}]}
"""
_OTHER_GRANT = _GRANT.replace("namespace: shop", "namespace: other")
_FAR = "{name: far, namespace: far, port: 1}"
_FAR_UDP = "{name: far, namespace: far, port: 2}"
_GONE = "{name: gone, port: 1}"
_NAMES = "hostnames: [b.example]"
_NO_MATCH, _NOT_ALLOWED = "!NoMatchingParent", "!NotAllowedByListeners"

ROUTES = {
    "TCPRouteInvalidBackendRefNonexistent": ("TCPRoute", TCP, _GONE, "", "", ("Accepted", "!BackendNotFound")),
    "TCPRouteInvalidCrossNamespaceBackendRef": ("TCPRoute", TCP, _FAR, "", _AWAY, ("Accepted", "!RefNotPermitted")),
    "TCPRouteInvalidNonTCPListener": ("TCPRoute", TLS, "", "", "", (_NOT_ALLOWED, "ResolvedRefs")),
    "TCPRouteReferenceGrant": ("TCPRoute", TCP, _FAR, "", _AWAY + _GRANT, ("Accepted", "ResolvedRefs")),
    "UDPRouteInvalidBackendRefNonexistent": ("UDPRoute", _UDP, _GONE, "", "", ("Accepted", "!BackendNotFound")),
    "UDPRouteInvalidCrossNamespaceBackendRef": ("UDPRoute", _UDP, _FAR, "", _AWAY, ("Accepted", "!RefNotPermitted")),
    "UDPRouteNotAllowedByListeners": ("UDPRoute", TLS, "{name: db, port: 53}", "", "", (_NOT_ALLOWED, "ResolvedRefs")),
    "UDPRouteReferenceGrant": ("UDPRoute", _UDP, _FAR_UDP, "", _AWAY + _GRANT, ("Accepted", "ResolvedRefs")),
    "UDPRouteSimple": ("UDPRoute", _UDP, "{name: db, port: 53}", "", "", ("Accepted", "ResolvedRefs")),
    "TLSRouteInvalidBackendRefNonexistent": ("TLSRoute", TLS, _GONE, _NAMES, "", ("Accepted", "!BackendNotFound")),
    "TLSRouteInvalidBackendRefUnknownKind": ("TLSRoute", TLS, "{name: db, kind: X, group: y.example, port: 1}", _NAMES, "", ("Accepted", "!InvalidKind")),
    "TLSRouteInvalidNoMatchingListenerHostname": ("TLSRoute", f"{TLS}, hostname: a.example", "", _NAMES, "", ("!NoMatchingListenerHostname", "ResolvedRefs")),
    "TLSRouteInvalidNoMatchingListener": ("TLSRoute", _HTTP, "", _NAMES, "", (_NOT_ALLOWED, "ResolvedRefs")),
    "TLSRouteInvalidNoMatchingListener (HTTPS)": ("TLSRoute", _HTTPS, "", _NAMES, "", (_NOT_ALLOWED, "ResolvedRefs")),
    "TLSRouteInvalidReferenceGrant": ("TLSRoute", TLS, _FAR, _NAMES, _AWAY + _OTHER_GRANT, ("Accepted", "!RefNotPermitted")),
    "TLSRouteSimpleSameNamespace": ("TLSRoute", TLS, "", _NAMES, "", ("Accepted", "ResolvedRefs")),
}  # fmt: skip
"""By case: the kind of the route, the listener, its backend, what its spec has, more objects, and the reasons of Accepted and ResolvedRefs."""


class GatewayTests(SynchronousTestCase):
    def test_listeners(self) -> None:
        """GatewayListenerUnsupportedProtocol, GatewayInvalidRouteKind, TLSRouteListener…SupportedKinds."""
        for listeners, name, accepted, resolved, kinds in (
            ((_HTTP,), "http", "!UnsupportedProtocol", "ResolvedRefs", []),
            ((TLS,), "tls", "Accepted", "ResolvedRefs", ["TLSRoute"]),
            ((f"{TLS}, allowedRoutes: {{kinds: [{{kind: Odd}}]}}",), "tls", "Accepted",
             "!InvalidRouteKinds", []),
            ((f"{TLS}, allowedRoutes: {{kinds: [{{kind: Odd}}, {{kind: TLSRoute}}]}}",), "tls",
             "Accepted", "!InvalidRouteKinds", ["TLSRoute"]),
            *(((f"name: end, port: 443, protocol: TLS{tls}",), "end", "Accepted",
               "!InvalidCertificateRef", ["TLSRoute"]) for tls in ("", ", tls: {certificateRefs: []}")),
        ):  # fmt: skip
            made = Made(gateway(*listeners))
            its = made.of_listener(name)
            self.assertEqual((its["Accepted"], its["ResolvedRefs"]), (accepted, resolved))
            self.assertNotIn("terminate_tls", made.text)
            told = made.status["Gateway", "edge"]["listeners"][0]["supportedKinds"]
            self.assertEqual([one["kind"] for one in told], kinds)
        self.assertEqual(Made(gateway(_HTTP, TCP)).of_gateway()["Accepted"], "ListenersNotValid")
        self.assertEqual(Made(gateway(_HTTP)).of_gateway()["Accepted"], "!ListenersNotValid")

    def test_listener_sets(self) -> None:
        """ListenerSetDefaultNotAllowed, …AllowedNamespaceNone, …AllowedNamespaceSame, …HostnameConflict, …ProtocolConflict."""
        none, taken = TAKES.replace("Same", "None"), "name: x, port: 443, protocol: TCP"
        for takes, listener, accepted, programmed, conflict in (
            ("", TCP, "!NotAllowed", "!NotAllowed", ""), (none, TCP, "!NotAllowed", "!NotAllowed", ""),
            (TAKES, TCP, "Accepted", "Programmed", ""),
            (TAKES, taken, "!ListenersNotValid", "!ListenersNotValid", "ProtocolConflict"),
            (TAKES, f"{TCP}}}, {{{taken}", "ListenersNotValid", "Programmed", "ProtocolConflict"),
            (TAKES, TLS.replace("tls,", "x,"), "!ListenersNotValid", "!ListenersNotValid", "HostnameConflict"),
        ):  # fmt: skip
            made = Made(gateway(TLS) + takes + SET % ("set", f"{{{listener}}}"))
            self.assertEqual(made.of_gateway(), VALID)
            its = made.of("ListenerSet", "set")
            self.assertEqual((its["Accepted"], its["Programmed"]), (accepted, programmed))
            self.assertEqual("[listen tcp_5432]" in made.text, programmed == "Programmed")
            made.rules()
            if conflict:
                its = made.of_listener("x", "set", "ListenerSet")
                told = [its[one] for one in ("Accepted", "Programmed", "Conflicted")]
                self.assertEqual(told, [f"!{conflict}", f"!{conflict}", conflict])
        # ListenerSetAllowedNamespaceSelector.
        chosen = "{from: Selector, selector: {matchLabels: {tier: one}}}"
        edge = gateway(TLS) + f"  allowedListeners: {{namespaces: {chosen}}}\n"
        far = SET % ("set, namespace: far", f"{{{TCP}}}")
        far = far.replace("{name: edge}", "{name: edge, namespace: shop}")
        for tier, accepted in (("one", "Accepted"), ("two", "!NotAllowed")):
            named = f"---\nkind: Namespace\nmetadata: {{name: far, labels: {{tier: {tier}}}}}\n"
            made = Made(edge + named + far)
            self.assertEqual(made.of("ListenerSet", "set")["Accepted"], accepted)

    def test_routes_of_a_listener_set(self) -> None:
        """ListenerSetAllowedRoutesNamespaces, ListenerSetAllowedRoutesSupportedKinds."""
        for allowed, accepted, resolved in (
            ("namespaces: {from: Same}", _NOT_ALLOWED, "ResolvedRefs"),
            ("namespaces: {from: All}", "Accepted", "ResolvedRefs"),
            ("namespaces: {from: All}, kinds: [{kind: UDPRoute}]", _NOT_ALLOWED, "!InvalidRouteKinds"),
            ("namespaces: {from: All}, kinds: [{kind: TCPRoute}]", "Accepted", "ResolvedRefs"),
        ):  # fmt: skip
            text = gateway(TLS) + TAKES + SET % ("set", f"{{{TCP}, allowedRoutes: {{{allowed}}}}}")
            of_set = ", namespace: shop, kind: ListenerSet"
            text += route("TCPRoute", "db", more=", namespace: far", parent=of_set)
            made = Made(text.replace("{name: edge, namespace", "{name: set, namespace"))
            self.assertEqual(made.of_route("TCPRoute", "db")["Accepted"], accepted, allowed)
            its = made.of_listener("tcp", "set", "ListenerSet")
            count = int(accepted == "Accepted")
            self.assertEqual((its["ResolvedRefs"], its["routes"]), (resolved, count), allowed)
        # GatewayListenerSetAttached: those that the Gateway takes, and that have a listener that can be served.
        sets = SET % ("one", f"{{{TCP}}}") + SET % ("two", f"{{{_HTTP}}}")
        for takes, count in (("", 0), (TAKES, 1)):
            status = Made(gateway(TLS) + takes + sets).status
            self.assertEqual(status["Gateway", "edge"]["attachedListenerSets"], count)

    def test_modified_listeners(self) -> None:
        """GatewayModifyListeners: the status has the listeners of now, and a condition that stays keeps its time."""
        (before,) = things(gateway(TCP, TLS))

        def merge(when: str, *listeners: str) -> Any:
            status = Made(gateway(*listeners)).status["Gateway", "edge"]
            wanted = Wanted("Gateway", ("shop", "edge"), status)
            return merged(before, wanted, "txmux/gateway", when)

        before["status"] = merge("then", TCP, TLS)
        for listeners in ((TCP,), (TCP, TLS, _UDP)):
            all_conditions = [one["conditions"] for one in merge("now", *listeners)["listeners"]]
            times = [{one["lastTransitionTime"] for one in its} for its in all_conditions]
            self.assertEqual(times, [{"then"}, {"then"}, {"now"}][: len(listeners)])

    def test_generations_parameters_and_the_longest_name(self) -> None:
        """GatewayNameMaximumLength."""
        made = Made(gateway(TCP, name="a" * 63) + route("TCPRoute", "db").replace("edge", "a" * 63))
        made.rules()
        self.assertEqual(made.of_gateway("a" * 63)["Programmed"], "Programmed")
        self.assertEqual(made.of_listener("tcp", "a" * 63)["routes"], 1)
        # GatewayClassObservedGenerationBump, GatewayObservedGenerationBump; the same for routes and ListenerSets.
        text = gateway(TCP) + TAKES + SET % ("set", f"{{{TLS}}}") + route("TCPRoute", "db")
        text += "---\nkind: GatewayClass\nmetadata: {name: txmux}\nspec: {controllerName: txmux/gateway}\n"
        status = Made(text.replace("metadata: {", "metadata: {generation: 7, ")).status
        told = str(status)
        self.assertEqual(len(status), 4)
        self.assertEqual(told.count("'observedGeneration': 7"), told.count("'observedGeneration'"))
        # GatewayInvalidParametersRef; its ListenerSets are not served either, and another Gateway may have its port.
        edge = gateway(TCP) + TAKES
        edge += "  infrastructure: {parametersRef: {group: x, kind: X, name: x}}\n"
        more = SET % ("set", f"{{{TLS}}}") + gateway(TCP, name="late")
        made = Made(edge + more + route("TCPRoute", "db"))
        no = {"Accepted": "!InvalidParameters", "Programmed": "!Invalid"}
        self.assertEqual(made.of_gateway(), no)
        self.assertEqual(made.of("ListenerSet", "set")["Accepted"], "!ParentNotAccepted")
        self.assertEqual(made.of_listener("tcp", "late")["Programmed"], "Programmed")
        self.assertNotIn("shop_edge", made.text)
        self.assertNotIn(("TCPRoute", "db"), made.status)

    def test_two_modes_on_one_port(self) -> None:
        """TLSRouteMixedTerminationSameNamespace, TLSRouteTerminateSimpleSameNamespace: each name has the mode of its listener."""
        end = "name: end, port: 443, protocol: TLS, hostname: end.example, tls: {certificateRefs: [{name: cert}]}"
        secret = "---\nkind: Secret\nmetadata: {name: cert}\n"
        text = secret + gateway(f"{TLS}, hostname: pass.example", end)
        for name in ("end", "pass"):
            text += route("TLSRoute", name, spec=f"hostnames: [{name}.example]")
        made = Made(text)
        for name in ("tls", "end"):
            its = made.of_listener(name)
            self.assertEqual((its["Accepted"], its["routes"]), ("Accepted", 1), name)
        ended = {name: its for name, its in made.sections().items() if "terminate_tls" in str(its)}
        [(name, lines)] = ended.items()
        self.assertEqual(name, "route tls_shop_end_shop_edge_end_end.example")
        self.assertEqual(lines[0], "match = tls sni=end.example")
        self.assertEqual(lines[-1], "terminate_tls = /pem/shop_cert.pem")
        made.rules()

    def test_parents_of_a_listener_set(self) -> None:
        """ListenerSetDualParentRefIndependence, …GatewayParentSectionNameNotFound, …RouteStatusScopedToParentRef."""
        edge = gateway(TCP) + TAKES + SET % ("set", "{name: own, port: 2, protocol: TCP}")
        of_set = "{kind: ListenerSet, name: set}"
        for parents, accepted, counts in (
            ("{name: edge}, " + of_set, ["Accepted", "Accepted"], (1, 1)),
            ("{name: edge, sectionName: own}", [_NO_MATCH], (0, 0)),
            ("{name: edge, sectionName: own}, " + of_set, [_NO_MATCH, "Accepted"], (0, 1)),
            ("{name: edge}", ["Accepted"], (1, 0)),
            (of_set, ["Accepted"], (0, 1)),
        ):
            made = Made(edge + route("TCPRoute", "db").replace("{name: edge}", parents))
            told = made.status["TCPRoute", "db"]["parents"]
            got = [made.of_route("TCPRoute", "db", at)["Accepted"] for at in range(len(told))]
            self.assertEqual(got, accepted, parents)
            own = made.of_listener("own", "set", "ListenerSet")
            self.assertEqual((made.of_listener("tcp")["routes"], own["routes"]), counts, parents)

    def test_certificates_of_elsewhere(self) -> None:
        """GatewaySecretMissingReferenceGrant, …InvalidReferenceGrant, …ReferenceGrantAllInNamespace, …Specific, ListenerSetReferenceGrant."""
        end = "name: end, port: 443, protocol: TLS, tls: {certificateRefs: [{name: cert, namespace: far}]}"
        secret = "---\nkind: Secret\nmetadata: {name: cert, namespace: far}\n"
        for kind in ("Gateway", "ListenerSet"):
            of_kind = _GRANT.replace("KIND", kind).replace("Service", "Secret")
            for grant, resolved in (
                ("", "!RefNotPermitted"),
                (of_kind.replace("namespace: shop", "namespace: other"), "!RefNotPermitted"),
                (of_kind.replace("kind: Secret", "kind: Secret, name: other"), "!RefNotPermitted"),
                (of_kind.replace('group: ""', "group: apps"), "!RefNotPermitted"),
                (of_kind, "ResolvedRefs"),
                (of_kind.replace("kind: Secret", "kind: Secret, name: cert"), "ResolvedRefs"),
            ):
                edge = gateway(end if kind == "Gateway" else TCP) + TAKES
                made = Made(edge + SET % ("set", f"{{{end}}}") + secret + grant)
                its = made.of_listener("end", "edge" if kind == "Gateway" else "set", kind)
                self.assertEqual(its["ResolvedRefs"], resolved, (kind, grant))
                is_served = resolved == "ResolvedRefs"
                self.assertEqual(its["Programmed"], "Programmed" if is_served else "!Invalid")

    def test_addresses(self) -> None:
        """GatewayStaticAddresses, GatewayOptionalAddressValue."""
        usable, other = ({"type": "IPAddress", "value": f"192.0.2.{n}"} for n in (1, 2))
        for asked, accepted, programmed, given in (
            ("{type: test/fake, value: x}, {value: 192.0.2.9}, {value: 192.0.2.1}",
             "!UnsupportedAddress", "!AddressNotUsable", [usable]),
            ("{value: 192.0.2.9}, {value: 192.0.2.1}", "Accepted", "!AddressNotUsable", [usable]),
            ("{value: 192.0.2.1}", "Accepted", "Programmed", [usable]),
            ("{type: IPAddress}", "Accepted", "Programmed", [usable, other]),
            ("", "Accepted", "Programmed", [usable, other]),
        ):  # fmt: skip
            made = Made(gateway(TCP) + f"  addresses: [{asked}]\n", addresses=[usable, other])
            got = made.of_gateway()
            self.assertEqual((got["Accepted"], got["Programmed"]), (accepted, programmed), asked)
            self.assertEqual(made.status["Gateway", "edge"]["addresses"], given)
        text = gateway(TCP) + "  addresses: [{value: 10.0.0.9}]\n"
        made = Made(text, addresses=None)
        self.assertNotIn("addresses", made.status["Gateway", "edge"])
        self.assertEqual(made.of_gateway()["Programmed"], "!Pending")
        has_some = text + "status: {addresses: [{type: IPAddress, value: 10.0.0.9}]}\n"
        self.assertEqual(Made(has_some, addresses=None).of_gateway()["Programmed"], "Programmed")

    def test_what_a_class_can(self) -> None:
        told = Made("").status["GatewayClass", "txmux"]["supportedFeatures"]
        names = [one["name"] for one in FEATURES]
        self.assertEqual((told, names), (FEATURES, sorted(names)))
        self.assertNotIn(("GatewayClass", "txmux"), Made("", GatewaySettings(only="other")).status)

    def test_each_case_has_its_tests_or_a_reason(self) -> None:
        lines = Path(__file__).with_name("conformance.md").read_text().splitlines()
        rows = [[*map(str.strip, line[1:-1].split("|"))] for line in lines if line[:1] == "|"][2:]
        files = (__file__, test_rules.__file__, test_policies.__file__)
        quick = "".join(Path(file).read_text() for file in files)
        others = (Path(__file__).parents[2] / "interop").glob("test_conformance_*.py")
        beside = {
            name for file in others for name in re.findall(r"def (test_\w+)", file.read_text())
        }
        by_table = {case.split()[0].replace("UDPRouteSimple", "UDPRoute") for case in ROUTES}
        for case, test, long, verdict in rows:
            self.assertEqual(test == "`test_conditions_of_routes`", case in by_table, case)
            self.assertIn(f"def {test.strip('`')}" if test else "", quick, case)
            self.assertTrue(long or verdict.startswith("refused"), case)
            words = ("passes", "refused", "not claimed", "asserts nothing")
            self.assertTrue(verdict.startswith(words), case)
        named = {long.strip("`") for _, _, long, _ in rows} - {""}
        self.assertEqual(named | {"test_claimed_features", "test_http_is_refused"}, beside)

    def test_conditions_of_routes(self) -> None:
        for case, (kind, listener, refs, spec, more, expected) in ROUTES.items():
            its = route(kind, "db", refs or "{name: db, port: 5432}", spec)
            made = Made(gateway(listener) + more.replace("KIND", kind) + its)
            got = made.of_route(kind, "db")
            self.assertEqual((got["Accepted"], got["ResolvedRefs"]), expected, case)
            name = listener.split(",")[0].removeprefix("name: ")
            self.assertEqual(made.of_listener(name)["routes"], int(expected[0] == "Accepted"), case)

    def test_parents_of_routes(self) -> None:
        """TCPRouteParentRefPortAndSectionName, UDPRouteParentRefPortAndSectionName, …AttachAll…, TLSRouteInvalidNoMatchingListener."""
        listeners = gateway(
            TCP, TCP.replace("tcp", "more").replace("5432", "2"),
            _UDP.replace("53", "5432"), _UDP.replace("udp", "also").replace("53", "2"),
        )  # fmt: skip
        for parent, counts in (
            ("", (1, 1)), (", sectionName: more", (0, 1)), (", port: 5432", (1, 0)), (", port: 2, sectionName: more", (0, 1)),
            (", port: 2, sectionName: tcp", _NO_MATCH), (", sectionName: none", _NO_MATCH),
        ):  # fmt: skip
            for kind, names in (("TCPRoute", ("tcp", "more")), ("UDPRoute", ("udp", "also"))):
                of = parent.replace("tcp", names[0]).replace("more", names[1])
                made = Made(listeners + route(kind, "db", parent=of))
                accepted = made.of_route(kind, "db")["Accepted"]
                routes = tuple(made.of_listener(name)["routes"] for name in names)
                self.assertEqual(accepted if isinstance(counts, str) else routes, counts, of)
        # TCPRouteMultipleRoutesAttachment, UDPRouteMultipleRoutesAttachment, and TLSRoutes for one name: both are accepted, the older has the clients.
        for kind, listener, spec in (
            ("TCPRoute", TCP, ""), ("UDPRoute", _UDP, ""), ("TLSRoute", TLS, _NAMES),
        ):  # fmt: skip
            refs = "{name: db, port: %s}" % ("53" if kind == "UDPRoute" else "5432")
            both = (route(kind, name, refs, spec) for name in ("old", "new"))
            made = Made(gateway(listener) + "".join(both))
            for name in ("old", "new"):
                self.assertEqual(made.of_route(kind, name)["Accepted"], "Accepted")
            self.assertEqual(made.of_listener(kind[:3].lower())["routes"], 2)
            self.assertNotIn("_new", made.text)

    def merge(self, before: Any, wanted: Wanted) -> Any:
        return merged({"metadata": {}, "status": before}, wanted, "txmux/gateway", "now")

    def test_entries_and_conditions_of_others_stay(self) -> None:
        """Else two writers that each put their own last would never end."""
        other, ours = (
            dict[str, Any](controllerName=name) | {"parentRef": {"name": "edge"}, "conditions": []}
            for name in ("other", "txmux/gateway")
        )
        wanted = Wanted("TCPRoute", ("shop", "db"), {"parents": [ours]})
        for before, after in (
            ([], [ours]), ([other], [other, ours]), ([other, ours], None), ([ours, other], None),
            ([ours, ours, other], [ours, other]),
        ):  # fmt: skip
            made = self.merge({"parents": before}, wanted)
            self.assertEqual(made and made["parents"], after, before)
        entry = {"controllerName": "txmux/gateway", "parentRef": {"name": "b"}}
        for others, after in (((), []), ([("Gateway", ("shop", "b"))], None)):
            wanted = Wanted("TCPRoute", ("shop", "db"), {"parents": []}, others)
            made = self.merge({"parents": [entry]}, wanted)
            self.assertEqual(made and made["parents"], after)
        theirs, old, ours = (
            {"type": its, "status": "True"} for its in ("example.com/Seen", "Gone", "Accepted")
        )
        status = {"conditions": [ours], "attachedListenerSets": 0}
        wanted = Wanted("Gateway", ("shop", "edge"), status)
        made = self.merge({"conditions": [theirs, old]}, wanted)
        self.assertEqual(made["conditions"][0], theirs)
        self.assertEqual([one["type"] for one in made["conditions"][1:]], ["Accepted"])
        self.assertIsNone(self.merge({"conditions": made["conditions"]}, wanted))

from copy import deepcopy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.features.gateway.objects import SERVICES, authority, gateway, policy, route, things
from tests.features.gateway.test_rules import TCP, TLS, Made
from txmux.features.gateway.cluster import Cluster, key_of
from txmux.features.gateway.conditions import merged
from txmux.features.gateway.listeners import GatewaySettings, secret_namespaces
from txmux.features.gateway.provider import addresses_of
from txmux.features.gateway.reflector import readable
from txmux.features.gateway.routes import named_config_maps

_OTHERS = gateway("name: x, port: 7, protocol: TCP", name="theirs", more=", namespace: far")
_OTHERS += """
  allowedListeners: {namespaces: {from: Selector, selector: {matchExpressions: [{key: a, operator: Exists}]}}}
---
kind: TCPRoute
metadata: {name: theirs, namespace: far}
spec: {parentRefs: [{name: theirs}], rules: [{backendRefs: [{name: one, port: 1}]}]}
---
kind: Service
metadata: {name: one, namespace: far}
spec: {ports: [{port: 1}]}
---
kind: EndpointSlice
metadata: {name: one, namespace: far, labels: {kubernetes.io/service-name: one}}
addressType: IPv4
ports: [{name: "", port: 1}]
endpoints: [{addresses: [10.0.0.77]}]
"""
_REF = "{group: '', kind: Secret, name: cert}"
_FRONTEND = "{validation: {mode: x, caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]}}"
_OWN = f"""
{gateway(TCP, f"{TLS}, hostname: a.example, allowedRoutes: {{namespaces: {{from: All}}, kinds: [{{kind: TLSRoute}}]}}")}
  addresses: [{{type: IPAddress, value: 10.0.0.1}}]
  infrastructure: {{labels: {{}}}}
  allowedListeners: {{namespaces: {{from: Selector, selector: {{matchLabels: {{a: b}}}}}}}}
  tls: {{backend: {{clientCertificateRef: {_REF}}}, frontend: {{default: {_FRONTEND}, perPort: [{{port: 443, tls: {_FRONTEND}}}]}}}}
status: {{addresses: [{{value: 10.0.0.1}}], conditions: [{{type: Accepted, status: "True"}}]}}
---
kind: ListenerSet
metadata: {{name: set, namespace: far}}
spec: {{parentRef: {{name: edge, namespace: shop}}, listeners: [{{name: end, port: 444, protocol: TLS, tls: {{certificateRefs: [{_REF}]}}}}]}}
---
kind: Namespace
metadata: {{name: far, labels: {{a: b}}}}
---
kind: ReferenceGrant
metadata: {{name: grant}}
spec: {{from: [{{group: g, kind: k, namespace: n}}], to: [{{group: '', kind: Service, name: n}}]}}
---
kind: Service
metadata: {{name: self}}
spec: {{selector: {{app: db}}, clusterIP: 10.0.0.9, ports: [{{port: 1}}]}}
status: {{loadBalancer: {{ingress: [{{ip: 10.0.0.1}}]}}}}
---
kind: Secret
metadata: {{name: cert}}
{route("TCPRoute", "db", more=", annotations: {txmux.check: tcp}")}
status: {{parents: [{{controllerName: x, parentRef: {{name: edge}}, conditions: [{{type: x}}]}}]}}
{route("TLSRoute", "web", "{name: web, port: 443, weight: 2}", "hostnames: [a.example]")}
{policy("over")}
status: {{ancestors: [{{controllerName: x, ancestorRef: {{name: edge}}}}]}}
{authority()}
"""
_MORE = """
kind: EndpointSlice
metadata: {name: db-2, namespace: shop, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{name: sql, port: 15432}]
endpoints: [{addresses: [10.0.0.9]}]
"""
_MISSING = object()
_ODD = [None, 7, -1, True, "x", "", [], {}, [7], [None], {"a": 7}, float("inf"), 10**400, _MISSING]


def _places(value: Any) -> list[tuple[Any, ...]]:
    items = [*value.items()] if isinstance(value, dict) else []
    items = [*enumerate(value)] if isinstance(value, list) else items
    return [(), *((key, *rest) for key, its in items for rest in _places(its))]


_OBJECTS = things(SERVICES + _OTHERS + _OWN)
_PLACES = [
    (number, place)
    for number, its in enumerate(_OBJECTS)
    if key_of(its) not in {("far", "theirs"), ("far", "one")} and its["kind"] != "GatewayClass"
    for place in _places(its)
    if place not in {(), ("kind",), ("metadata",), ("metadata", "name"), ("metadata", "namespace")}
]


class OddObjectTests(SynchronousTestCase):
    """What another server of the API than Kubernetes', or a CRD without a schema, lets pass."""

    @given(place=st.sampled_from(_PLACES), odd=st.sampled_from(_ODD))
    def test_others_are_served(self, place: tuple[int, tuple[Any, ...]], odd: Any) -> None:
        number, (*path, last) = place
        objects = deepcopy(_OBJECTS)
        inner: Any = objects[number]
        for key in path:
            inner = inner[key]
        inner[last] = odd
        if odd is _MISSING:
            del inner[last]
        known: dict[str, dict[tuple[str, str], Any]] = {}
        for one in objects:
            thing, fault = readable(one["kind"], one)
            pattern = r"^(|(metadata|spec|ports|endpoints|addressType|status)\b.* is not an? .+)$"
            self.assertRegex(fault, pattern)
            if thing is not None:
                known.setdefault(one["kind"], {})[key_of(one)] = thing
        its = Cluster(known)
        secret_namespaces(its, GatewaySettings())
        named_config_maps(its, GatewaySettings())
        made = Made(its, addresses=addresses_of(its, "shop", {"app": "db"}))
        for wanted in made.wanted:
            merged(known[wanted.kind][wanted.key], wanted, "txmux/gateway", "now")
        self.assertIn("server = 10.0.0.77:1", made.text)
        self.assertIn(("Gateway", "theirs"), made.status)

    def test_other_endpoints_of_a_service_are_served(self) -> None:
        """Those of a slice without sense are not known, and its Service serves by its other slices."""
        (piece,) = things(_MORE)
        for key, odd, fault in (
            ("endpoints", [{"addresses": ["x"]}], "endpoints[0].addresses[0] is not an IP address"),
            ("endpoints", [{"addresses": ["10.0.0.9 down"]}], "endpoints[0].addresses[0] is not an IP address"),
            ("ports", [{"name": "sql", "port": "1"}], "ports[0].port is not a whole number"),
            ("endpoints", [{"addresses": []}], ""),
            ("addressType", "FQDN", ""),
        ):  # fmt: skip
            changed = {**piece, key: odd}
            self.assertEqual(readable("EndpointSlice", changed, piece)[1], fault)
            known: dict[str, dict[tuple[str, str], Any]] = {}
            for one in [*things(SERVICES + gateway(TCP) + route("TCPRoute", "db")), changed]:
                if (thing := readable(one["kind"], one)[0]) is not None:
                    known.setdefault(one["kind"], {})[key_of(one)] = thing
            made = Made(Cluster(known))
            self.assertEqual(made.problems, {})
            self.assertIn("server = 10.0.0.1:15432", made.text)
        names = {**piece, "addressType": "FQDN", "endpoints": [{"addresses": ["a.example"]}]}
        self.assertEqual(readable("EndpointSlice", names), (names, ""))

"""Objects of a cluster, as short as their specifications allow."""

from typing import Any

import yaml  # type: ignore[import-untyped]

from txmux.features.gateway.cluster import Cluster, key_of

GROUP = "gateway.networking.k8s.io/v1"
SERVICES = """
kind: GatewayClass
metadata: {name: txmux}
spec: {controllerName: txmux/gateway}
---
kind: Service
metadata: {name: db, namespace: shop}
spec: {ports: [{name: sql, port: 5432, protocol: TCP}, {name: dns, port: 53, protocol: UDP}]}
---
kind: EndpointSlice
metadata: {name: db-1, namespace: shop, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{name: sql, port: 15432}, {name: dns, port: 1053}]
endpoints:
- {addresses: [10.0.0.1], conditions: {ready: true}}
- {addresses: [10.0.0.2], conditions: {ready: false, serving: true, terminating: true}}
- {addresses: [10.0.0.3], conditions: {ready: false}}
---
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{port: 443}]}
---
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv6
ports: [{name: "", port: 8443}]
endpoints:
- {addresses: ["fd00::1"]}
- {addresses: ["fd00::2"]}
- {addresses: ["fd00::3"]}
"""


TAKES = "  allowedListeners: {namespaces: {from: Same}}\n"
"""Behind a Gateway, it has ListenerSets of its namespace."""
SET = "---\nkind: ListenerSet\nmetadata: {name: %s}\nspec: {parentRef: {name: edge}, listeners: [%s]}\n"


def things(text: str) -> list[dict[str, Any]]:
    """Read objects of YAML, of which each is older than the next; without a namespace, they are of `shop`."""
    found = [one for one in yaml.safe_load_all(text) if one]
    for number, one in enumerate(found):
        metadata = one["metadata"]
        if one["kind"] not in {"GatewayClass", "Namespace"}:
            metadata.setdefault("namespace", "shop")
        created = f"2026-01-01T00:{number // 60:02}:{number % 60:02}Z"
        metadata.setdefault("creationTimestamp", created)
        metadata.setdefault("generation", 1)
    return found


def cluster(text: str) -> Cluster:
    objects: dict[str, dict[tuple[str, str], Any]] = {}
    for one in things(SERVICES) + things(text):
        objects.setdefault(one["kind"], {})[key_of(one)] = one
    return Cluster(objects)


def gateway(*listeners: str, name: str = "edge", more: str = "") -> str:
    lines = "".join(f"\n  - {{{one}}}" for one in listeners)
    metadata = f"{{name: {name}{more}}}"
    return f"---\nkind: Gateway\nmetadata: {metadata}\nspec:\n  gatewayClassName: txmux\n  listeners:{lines}\n"


def route(
    kind: str,
    name: str,
    refs: str = "{name: db, port: 5432}",
    spec: str = "",
    more: str = "",
    parent: str = "",
) -> str:
    spec = f", {spec}" if spec else ""
    parents = f"[{{name: edge{parent}}}]"
    return f"---\nkind: {kind}\nmetadata: {{name: {name}{more}}}\nspec: {{parentRefs: {parents}, rules: [{{backendRefs: [{refs}]}}]{spec}}}\n"


def policy(
    name: str,
    target: str = "db",
    validation: str = "hostname: db.example, caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]",
    more: str = "",
) -> str:
    ref = f"{{group: '', kind: Service, name: {target}}}"
    return f"---\nkind: BackendTLSPolicy\nmetadata: {{name: {name}{more}}}\nspec: {{targetRefs: [{ref}], validation: {{{validation}}}}}\n"


def authority(pem: str = "", name: str = "ca") -> str:
    return f"---\n{yaml.safe_dump({'kind': 'ConfigMap', 'metadata': {'name': name}, 'data': {'ca.crt': pem}})}"

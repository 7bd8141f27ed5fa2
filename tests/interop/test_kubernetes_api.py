"""The provider for Gateway API beside a real API server, as CONTRIBUTING.md has it: rights, status, lost history, an outage."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.features.gateway.objects import GROUP, SERVICES, gateway, route, things
from tests.interop.children import InteropTestCase, answered, eventually, listens, output_of
from tests.interop.kubernetes_api import KubernetesApi, start_provider
from tests.support.kit import EchoServer, Namespace, free_port, make_certificate
from txmux.features.gateway.conditions import FEATURES

_MANIFESTS = Path(__file__).parents[2] / "examples/kubernetes/gateway"
_POD = "10.9.0.1"  # an API server takes no address of a loopback network for an endpoint
_VERSIONS = {"Service": "v1", "EndpointSlice": "discovery.k8s.io/v1"}
_TCP = "name: tcp, port: 5432, protocol: TCP"
_TLS = "name: tls, port: 443, protocol: TLS, hostname: a.example, tls: {mode: Terminate, certificateRefs: [{name: its}]}"


@pytest.mark.long
class RealApiTests(InteropTestCase):
    """One cluster, with the rights that the manifests give the provider and no others."""

    def setUp(self) -> None:
        super().setUp()
        network = Namespace(self)
        network.ip(f"addr add {_POD}/32 dev lo")
        network.enter()
        self.api = self.own(KubernetesApi(self.folder))
        self.api.start()
        self.api.define_gateways()
        self.api.kubectl("apply", "-k", _MANIFESTS)
        self.api.kubectl("create", "namespace", "shop")
        self.api.kubectl("apply", "--dry-run=server", "-f", _MANIFESTS / "routes.yaml")
        rights = ("--clusterrole=txmux-certificates", "--serviceaccount=txmux:txmux")
        self.api.kubectl("create", "rolebinding", "txmux", *rights, "--namespace=shop")
        self.echo = self.own(EchoServer(_POD))
        self.ports = {5432: free_port(), 443: free_port()}
        ports = (f"--port={port}={own}" for port, own in self.ports.items())
        self.service, self.provider = map(self.own, start_provider(self.api, self.folder, *ports))

    def apply(self, text: str) -> None:
        """Create or change objects that are written as short as those of the other tests."""
        objects = things(text)
        for one in objects:
            one["apiVersion"] = _VERSIONS.get(one["kind"], GROUP)
            for key in ("creationTimestamp", "generation"):
                del one["metadata"][key]
            if one["kind"] == "EndpointSlice":
                one["endpoints"] = [{"addresses": [_POD], "conditions": {"ready": True}}]
                one["ports"] = [{"name": "sql", "port": self.echo.port}]
        self.api.apply(yaml.safe_dump_all(objects))

    def status(self, kind: str, name: str) -> Any:
        found = json.loads(self.api.kubectl("get", kind, name, "-n", "shop", "-o", "json"))
        return found.get("status") or {}

    def conditions(self, kind: str, name: str) -> dict[str, str]:
        parents = self.status(kind, name).get("parents") or [{"conditions": []}]
        return {one["type"]: one["reason"] for one in parents[0]["conditions"]}

    def connect(self) -> socket.socket:
        return self.enterContext(socket.create_connection(("127.0.0.1", self.ports[5432]), 60))

    def assert_echo(self, client: socket.socket) -> None:
        client.sendall(b"x")
        self.assertEqual(client.recv(1), b"x")

    def is_served(self) -> bool:
        """Return whether a new client is answered; a listener without a route refuses it."""
        return answered(("127.0.0.1", self.ports[5432])) == "x"

    def test_serves(self) -> None:
        database = SERVICES.split("---\nkind: Service\nmetadata: {name: web")[0]
        self.apply(database + gateway(_TCP) + route("TCPRoute", "db"))
        eventually(self.is_served, "the Gateway serves")
        client = self.connect()
        self.assert_echo(client)
        good = {"Accepted": "Accepted", "ResolvedRefs": "ResolvedRefs"}
        eventually(lambda: self.conditions("tcproute", "db") == good, "the route's status")
        programmed = ("--for=condition=Programmed", "gateway/edge", "--timeout=30s")
        self.api.kubectl("wait", *programmed, "-n", "shop")
        self.apply(route("TCPRoute", "lost", "{name: gone, port: 1}"))
        lost = {"Accepted": "Accepted", "ResolvedRefs": "BackendNotFound"}
        eventually(lambda: self.conditions("tcproute", "lost") == lost, "the wrong route's status")
        self.api.kubectl("delete", "tcproute", "lost", "-n", "shop")

        self.assertNotIn("orbidden", self.provider.output)

        # An outage, after which no watch can go on where it was.
        self.api.stop()
        self.provider.wait_for("stays as it is")
        self.assert_echo(client)
        self.assert_echo(self.connect())
        self.api.start()
        self.api.kubectl("delete", "tcproute", "db", "-n", "shop")
        self.api.forget_history()
        eventually(lambda: not self.is_served(), "new clients are refused without a route")
        self.assert_echo(client)

        # A certificate of a Secret.
        made = make_certificate(self.folder, "a.example")
        files = (f"--cert={made.chain}", f"--key={made.key}")
        self.api.kubectl("create", "secret", "tls", "its", *files, "-n", "shop")
        self.apply(gateway(_TLS) + route("TLSRoute", "site", spec="hostnames: [a.example]"))
        eventually(lambda: listens(self.ports[443]), "the Gateway listens for TLS")
        ask = ("-connect", f"127.0.0.1:{self.ports[443]}", "-servername", "a.example", "-brief")
        trust = ("-CAfile", made.chain, "-verify_return_error")
        self.assertNotIn(b"error", output_of("openssl", "s_client", *ask, *trust, stdin=b"x"))
        self.assert_echo(client)

        # The end: a Lease that another one may take at once, and a status that the API has taken whole.
        found = json.loads(self.api.kubectl("get", "gatewayclass", "txmux", "-o", "json"))
        self.assertEqual(found["status"]["supportedFeatures"], FEATURES)
        self.assertEqual(self.status("gateway", "edge")["attachedListenerSets"], 0)
        self.provider.end()
        lease = "lease", "txmux-txmux-gateway", "-n", "txmux", "-o", "json"
        spec = json.loads(self.api.kubectl("get", *lease))["spec"]
        self.assertEqual((spec["holderIdentity"], spec["leaseTransitions"]), ("", 1))
        for word in ("critical", "Traceback", "Unhandled"):
            self.assertNotIn(word, self.provider.output + self.service.output)

import base64
import json
import re
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.cli.provider.running import PlayedProvider
from tests.features.gateway import objects
from tests.features.gateway.objects import SERVICES, authority, gateway, policy, route, things
from tests.features.gateway.test_rules import SERVED, SHARED, TCP, VALID, reasons
from tests.support.kit import Identity, change_constants, make_authority, reactor
from tests.support.kubernetes import GATEWAY, KubernetesPlayed
from txmux.features.gateway import api, provider, reflector, status
from txmux.features.gateway.provider import gateway as gateway_provider

_EXAMPLES = Path(__file__).parents[3] / "examples/kubernetes/gateway"
END = "name: end, port: 443, protocol: TLS, tls: {certificateRefs: [{name: cert}]}"
_GRANT = """
kind: ReferenceGrant
metadata: {name: g, namespace: %s}
spec:
  from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: shop}]
  to: [{group: "", kind: Secret}]
"""


@pytest.mark.by_turns(each=True)
class GatewayTests(TestCase):
    def setUp(self) -> None:
        self.provided = provided = PlayedProvider(self, gateway_provider)
        self.folder, self.file, self.text = provided.folder, provided.file, provided.text
        self.until, self.written, self.logged = provided.until, provided.written, provided.logged
        provided.ask = self.ask
        self.kube = KubernetesPlayed(self)
        change_constants(self, reflector, _SHORTEST_PAUSE=0.05)
        change_constants(self, provider, _STATUS_PAUSE=0.05)
        change_constants(self, status, _RENEWED_EVERY=0.05, _TRIED_EVERY=0.05, _EVERY=0.3)
        self.reloads: list[str] = []
        self.host_name = socket.gethostname()
        self.patch(socket, "gethostname", lambda: self.host_name)

    async def ask(self, method: str, path: str, _: object = None) -> Any:
        self.reloads.append(f"{method} {path}")

    def put(self, text: str) -> None:
        for one in things(text):
            self.kube.put(one)

    def begin(self, text: str = gateway(TCP) + route("TCPRoute", "db")) -> Callable[[], Any]:
        self.put(SERVICES + text)
        return self.run_provider()

    def failing(self) -> str:
        return str(json.loads((self.folder / f".{self.file.name}.state").read_text())["why"])

    def run_provider(self, *more: str) -> Callable[[], Deferred[Any]]:
        return self.provided.start("--api", self.kube.url, *more)

    def put_secret(self, namespace: str = "shop", key: bytes | None = None) -> Identity:
        made = make_authority().issue("a.example")
        pems = {"tls.crt": made.pem, "tls.key": key or made.key_pem()}
        data = {name: base64.b64encode(pem).decode() for name, pem in pems.items()}
        metadata = {"name": "cert", "namespace": namespace}
        kind = {"kind": "Secret", "type": "kubernetes.io/tls"}
        self.kube.put({**kind, "metadata": metadata, "data": data})
        return made

    def of_route(self, name: str) -> dict[str, str]:
        parents = self.kube.get("TCPRoute", "shop", name).get("status", {}).get("parents") or [{}]
        return reasons(parents[-1].get("conditions", ()))

    def edge(self) -> Any:
        return self.kube.get("Gateway", "shop", "edge")

    async def said_of_edge(self, words: str) -> None:
        await self.until(lambda: words in str(self.edge()))

    async def test_routes_come_and_go(self) -> None:
        self.kube.page = 1
        bad = route("TCPRoute", "bad", more=', annotations: {txmux.server: "x"}')
        self.begin(gateway(TCP) + route("TCPRoute", "db") + bad)
        await self.written("default = tcp_shop_db")
        await self.until(lambda: self.of_route("bad") and self.of_route("db"))
        found = (self.of_route("db"), self.of_route("bad")["Accepted"])
        self.assertEqual(found, (SERVED, "!Invalid"))
        await self.until(lambda: "status" in self.edge())
        edge = self.edge()["status"]
        self.assertEqual(reasons(edge["conditions"]), VALID)
        self.assertEqual(edge["listeners"][0]["attachedRoutes"], 1)
        more = route("TCPRoute", "late", parent=", sectionName: more")
        self.put(gateway(TCP, "name: more, port: 2, protocol: TCP") + more)
        await self.written("default = tcp_shop_late")
        self.kube.remove("TCPRoute", "shop", "db")
        await self.written("default = tcp_shop_late", gone="tcp_shop_db")
        self.assertIn("10.0.0.2:15432 down", self.text())
        its = self.kube.get("EndpointSlice", "shop", "db-1")
        endpoints = [{"addresses": ["10.0.0.9"], "conditions": {"ready": True}}]
        self.kube.put({**its, "metadata": {**its["metadata"]}, "endpoints": endpoints})
        await self.written("server = 10.0.0.9:15432\n", gone="10.0.0.2")
        self.kube.remove("Gateway", "shop", "edge")
        await self.written("", gone="[")
        self.assertGreaterEqual(len(self.reloads), 4)
        self.assertNotIn("\n", self.logged().replace("gateway.provided", "").partition("rning")[2])

    async def test_a_server_that_is_none(self) -> None:
        """Its route alone is refused, with its names, as the API lets a port of an EndpointSlice be any number."""
        names = "hostnames: [a.example]", 'hostnames: ["*.example"]'
        tls = "name: tls, port: 443, protocol: TLS, tls: {mode: Passthrough}"
        parents = ", sectionName: tls", ", sectionName: tls", ", sectionName: tcp"
        refs = "{name: db, port: 5432}", "{name: web, port: 443}", "{name: db, port: 5432}"
        kinds = "TLSRoute", "TLSRoute", "TCPRoute"
        made = zip(kinds, ("db", "web", "rest"), refs, (*names, ""), parents, strict=True)
        routes = "".join(route(k, n, ref, spec, parent=to) for k, n, ref, spec, to in made)
        shared = gateway(tls, "name: tcp, port: 443, protocol: TCP", more=SHARED)
        self.begin(shared + routes)
        await self.written("default = tcp_shop_rest")
        its = self.kube.get("EndpointSlice", "shop", "db-1")
        good = {**its, "metadata": {**its["metadata"]}}
        wrong = [{"name": "sql", "port": 70000}]
        self.kube.put({**its, "metadata": {**its["metadata"]}, "ports": wrong})
        await self.written("default = close")
        for name, outcome in (("a.example", "reject"), ("*.example", "tls_shop_web")):
            keys = self.text().partition(f"match = tls sni={name}\n")[2].split("\n")
            self.assertEqual(keys[:2], ["under = tcp_443", f"backend = {outcome}"])
        await self.until(lambda: self.of_route("rest").get("Accepted") == "!Invalid")
        self.assertEqual(reasons(self.edge()["status"]["conditions"]), VALID)
        self.kube.put(good)
        await self.written("default = tcp_shop_rest", gone="left out")

    async def test_certificates(self) -> None:
        made = self.put_secret()
        self.begin(gateway(END) + route("TLSRoute", "web", "{name: web, port: 443}"))
        folder = self.folder / "gateway.certificates"
        await self.written(f"terminate_tls = {folder}/shop_cert_")
        (path,) = folder.iterdir()
        modes = [one.stat().st_mode & 0o777 for one in (path, path.parent)]
        self.assertEqual(modes, [0o600, 0o700])
        self.assertEqual(path.read_bytes(), made.pem + b"\n" + made.key_pem())
        self.put_secret()  # the service reads a renewed one, as it has another name
        await self.written(f"terminate_tls = {folder}/shop_cert_", gone=str(path))
        await self.until(lambda: not path.exists())
        (path,) = folder.iterdir()
        self.assertIn(str(path), self.text())
        self.put_secret(key=b"rubbish")
        await self.written("backend = reject", gone="terminate_tls")
        await self.until(lambda: not path.exists())
        await self.said_of_edge("Invalid")
        listener = self.edge()["status"]["listeners"][0]
        self.assertEqual(reasons(listener["conditions"])["ResolvedRefs"], "!InvalidCertificateRef")

    async def test_secrets_that_are_denied_at_a_restart_are_those_of_before(self) -> None:
        self.put_secret()
        text = gateway(END, TCP) + route("TLSRoute", "web", "{name: web, port: 443}")
        ref = "{{group: '', kind: ConfigMap, name: {}}}".format
        both = f"hostname: db.example, caCertificateRefs: [{ref('ca')}, {ref('more')}]"
        text += policy("over", "web", both)
        for name in ("ca", "more"):
            text += authority(make_authority().pem.decode(), name)
        end = self.begin(text)
        await self.written("terminate_tls = ")
        await end()
        is_file = lambda line: line.startswith(("terminate_tls", "tls_ca"))  # noqa: E731
        before = [*filter(is_file, self.text().split("\n"))]
        self.assertEqual(len(before), 2)
        self.deny("secrets", "configmaps")
        self.put(route("TCPRoute", "db"))
        end = self.run_provider()
        await self.written("tcp_shop_db")
        self.assertEqual([*filter(is_file, self.text().split("\n"))], before)
        denied = {
            f"{name} of namespace shop" for name in ("secrets", "configmaps ca", "configmaps more")
        }
        await self.until(lambda: {*self.failing().partition(": ")[0].split(", ")} == denied)
        await end()
        for path in (self.folder / "gateway.certificates").iterdir():
            path.unlink()
        self.run_provider()
        await self.said_of_edge("Secret shop/cert is not known: the API at")
        for name in ("secrets", "configmaps ca"):  # in two programs
            self.assertEqual(self.logged().count(f"{name} of namespace shop: "), 2)

    async def test_secrets_are_asked_for_as_far_as_they_are_permitted(self) -> None:
        refs = [f"{{name: c{n}, namespace: n{n}}}" for n in range(60)]
        lines = [
            f"name: l{n}, port: {1000 + n}, protocol: TLS, tls: {{certificateRefs: [{', '.join(refs)}]}}"
            for n in range(40)
        ]
        last = f"name: last, port: 2, protocol: TLS, tls: {{certificateRefs: [{refs[19]}]}}"
        self.begin(gateway(*lines, last, TCP) + route("TCPRoute", "db"))
        await self.written("tcp_shop_db")
        self.assertNotIn("secrets", str(self.kube.asked))
        self.put("---\n".join(_GRANT % f"n{n}" for n in range(2, 20)))
        secrets = "/api/v1/secrets"
        of = lambda: sorted(where for path, where in self.kube.watched if path == secrets)  # noqa: E731
        await self.until(lambda: len(of()) == 16)
        await self.said_of_edge("Secrets of more than 16 other namespaces: those of n19 are not")
        self.kube.remove("ReferenceGrant", "n2", "g")
        await self.until(lambda: "n2" not in of() and len(of()) == 16)
        self.kube.remove("Gateway", "shop", "edge")
        await self.until(lambda: not of())

    async def test_older_versions(self) -> None:
        new, old = (f"{GATEWAY}/{version}/tcproutes" for version in ("v1", "v1alpha2"))
        self.put(SERVICES + gateway(TCP) + route("TCPRoute", "db"))
        self.kube.objects[old] = self.kube.objects.pop(new)
        self.run_provider()
        await self.written("default = tcp_shop_db")
        asked = f"PATCH {old.replace('tcp', 'namespaces/shop/tcp')}/db/status"
        await self.until(lambda: asked in self.kube.asked)

    async def test_only_config_maps_that_are_named_are_asked_for(self) -> None:
        """Of Services of routes, and by names that can be asked for: an odd one must not stop all others."""
        odd = policy("over").replace("name: ca}", 'name: "ca,metadata.namespace=far"}')
        far = policy("web", "web", more=", namespace: far")
        self.begin(gateway(TCP) + route("TCPRoute", "db") + far + odd)
        await self.written("default = close")
        self.assertNotIn("configmaps", str(self.kube.asked))
        self.put(policy("over") + authority(make_authority().pem.decode()))
        await self.written("tls_ca = ")
        asked = {one for one in self.kube.asked if "configmaps" in one}
        path = "/api/v1/namespaces/shop/configmaps"
        self.assertEqual(asked - {f"WATCH {path}"}, {f"GET {path}"})

    async def test_the_example_gives_the_rights_that_are_used_and_no_others(self) -> None:
        self.put_secret()
        text = (
            gateway(TCP, END, "name: dns, port: 53, protocol: UDP")
            + objects.TAKES
            + objects.SET % ("more", "")
        )
        for kind, port in (("TCPRoute", "db"), ("TLSRoute", "web"), ("UDPRoute", "dns")):
            text += route(kind, port)
        self.begin(text + policy("over") + authority(make_authority().pem.decode()))
        kinds = *provider.KINDS.values(), *provider.NAMED.values(), status.LEASES
        plurals = {"pods": "", **{kind.plural: kind.group for kind in kinds}}
        asked: set[tuple[str, str, str]] = set()
        verbs = {"POST": "create", "PUT": "update", "PATCH": "patch", "WATCH": "watch"}

        def is_all() -> bool:
            for one in self.kube.asked:
                method, path = one.split(" ")
                its = next((part for part in reversed(path.split("/")) if part in plurals), None)
                if its is None:  # which versions there are: everybody may ask
                    continue
                verb = verbs.get(method, "list" if path.endswith(f"/{its}") else "get")
                asked.add((verb, plurals[its], its + "/status" * path.endswith("/status")))
            return asked >= allowed

        allowed = {
            (verb, group, its)
            for one in yaml.safe_load_all((_EXAMPLES / "rbac.yaml").read_text())
            for rule in one.get("rules", ())
            for verb in rule["verbs"]
            for group in rule["apiGroups"]
            for its in rule["resources"]
        }
        await self.until(is_all)
        self.assertEqual(asked, allowed)

    async def test_a_server_that_is_away_at_the_start_and_later(self) -> None:
        self.put(SERVICES + gateway(TCP) + route("TCPRoute", "db"))
        await self.kube.leave()
        self.run_provider()
        await self.until(lambda: "nothing is written until it answers" in self.logged())
        self.assertFalse(self.file.exists())
        self.kube.listen()
        await self.written("tcp_shop_db")
        await self.kube.leave()
        await self.until(lambda: "stays as it is until it answers" in self.logged())
        await deferLater(reactor, 0.3)
        said = Counter(re.findall("tcproutes: .*", self.logged()))
        self.assertLessEqual(max(said.values()), 2, said)  # refused, before and after
        self.assertEqual(self.logged().count("can be read again"), len(provider.KINDS))
        self.kube.listen()
        self.kube.remove("TCPRoute", "shop", "db")
        await self.written("[listen", gone="tcp_shop_db")

    async def test_watches_that_end_badly(self) -> None:
        self.begin()
        await self.written("tcp_shop_db")
        change_constants(self, api, _LONGEST_EVENT=4000)
        gone = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}
        lines = b"cut", b'{"type": "X"}\n', b"no json\n", b"%b\n" % json.dumps(gone).encode()
        for port, line in enumerate((*lines, b"x" * 5000, b"too old"), 1000):
            self.kube.oldest = (1 << 30) * (line == b"too old")
            self.kube.tell(line) if line not in {b"cut", b"too old"} else self.kube.cut()
            self.put(gateway(TCP, f"name: more, port: {port}, protocol: TCP"))
            await self.written(f"endpoint = :{port}\n")

    async def test_a_server_that_is_restored_from_a_backup(self) -> None:
        """It reaches the versions of before only later; until then watches from there say nothing."""
        self.begin()
        await self.written("tcp_shop_db")
        await self.kube.leave()
        await self.until(lambda: "stays as it is until it answers" in self.logged())
        self.kube.restore()
        self.kube.remove("TCPRoute", "shop", "db")
        self.kube.listen()
        await self.written("[listen", gone="tcp_shop_db")
        self.put(route("TCPRoute", "db"))
        await self.written("tcp_shop_db")

    async def test_answers_that_are_none(self) -> None:
        change_constants(self, api, _PATIENCE=0.1, _MOST=4000)
        answers = (
            (500, b"{}"), (200, b"[]"), (200, b"no json"), (200, b" " * 5000), (401, b"{}"),
            "silent", (200, b'{"items": 1, "metadata": {}}'),
            (200, b'{"items": [null], "metadata": {"resourceVersion": "1"}}'),
            (200, b'{"items": [{"metadata": {"name": []}}], "metadata": {"resourceVersion": "1"}}'),
        )  # fmt: skip
        wrong: list[Any] = [*answers]
        self.kube.wrong = lambda _, path: wrong[0] if path.endswith("tcproutes") and wrong else None
        self.begin()
        for _ in answers:
            await self.until(lambda: f"{GATEWAY}/v1/tcproutes" in str(self.kube.asked))
            self.kube.asked.clear()
            self.assertFalse(self.file.exists())
            wrong.pop(0)
        await self.written("tcp_shop_db")

    def deny(self, *plurals: str) -> None:
        self.kube.wrong = lambda _, path: (
            (403, b'{"message": "forbidden"}') if {*plurals} & {*path.split("/")} else None
        )

    async def test_a_kind_that_is_denied_is_left_out(self) -> None:
        """Once there is a file: it is not written without those that it would be made of."""
        del self.kube.objects[f"{GATEWAY}/v1/tlsroutes"]
        self.deny("services", "udproutes", "listenersets", "leases")
        self.begin()
        await self.until(lambda: "nothing is written until it answers" in self.logged())
        self.assertIn("services: ", self.failing())
        self.assertFalse(self.file.exists())
        self.deny("udproutes", "listenersets", "leases")
        await self.written("tcp_shop_db")
        self.assertIn("tlsroutes: the cluster has no such kind", self.logged())
        await deferLater(reactor, 0.3)
        self.assertEqual(self.logged().count("udproutes: "), 1)
        self.assertIn("forbidden; they are left out", self.logged())
        self.assertEqual(self.logged().count("no status is written"), 1)
        self.assertRegex(self.failing(), "^listenersets, udproutes: the API .* forbidden$")
        self.deny("tcproutes", "gateways", "services", "endpointslices", "udproutes")
        self.kube.oldest = 1 << 30
        self.kube.cut()
        await self.until(lambda: "what was known stays in use" in self.logged())
        self.assertIn("tcp_shop_db", self.text())
        await self.until(lambda: re.match(r"gateways, \w+, \w+, \w+ and 1 more: ", self.failing()))
        self.kube.oldest = 0
        self.deny()
        await self.until(lambda: not self.failing())

    async def test_a_kind_that_is_denied_at_a_restart_leaves_the_file_as_it_is(self) -> None:
        """Those that the file was made of, and those without which nothing is known."""
        text = gateway(TCP) + objects.TAKES.replace("Same", "All") + route("TCPRoute", "db")
        text += objects.SET % ("more", "{name: x, port: 2, protocol: TCP}")
        self.put("kind: Namespace\nmetadata: {name: shop}\n")
        end = self.begin(text)
        await self.written("endpoint = :2\n")
        await self.until(lambda: self.of_route("db"))
        await end()
        before = self.text()
        for plural in (
            "gatewayclasses", "gateways", "services", "endpointslices",
            "tcproutes", "listenersets", "namespaces",
        ):  # fmt: skip
            self.deny(plural)
            end = self.run_provider()
            await self.until(lambda: self.failing().startswith(f"{plural}: "))  # noqa: B023
            await deferLater(reactor, 0.2)
            self.assertEqual(self.text(), before, plural)
            self.assertRegex(self.logged(), f"{plural}: .*; .* stays as it is until it answers")
            self.assertEqual(self.of_route("db")["Accepted"], "Accepted")
            self.deny()
            await self.until(lambda: not self.failing())
            await end()
        self.deny("udproutes", "tlsroutes")  # of which there were none
        self.run_provider()
        self.kube.remove("TCPRoute", "shop", "db")
        await self.written("[listen", gone="tcp_shop_db")

    async def test_odd_objects_are_left_out_and_known_ones_that_become_so_stay(self) -> None:
        self.put(SERVICES + gateway(TCP) + route("TCPRoute", "db"))
        self.put(gateway(TCP, name="odd").replace("listeners:", "listeners: 7\n  was:"))
        self.put("---\nkind: ListenerSet\nmetadata: {name: bare}\n")
        (db,) = things(route("TCPRoute", "db"))
        other = {"controllerName": "example/other", "parentRef": {"name": "edge"}}
        self.kube.put({**db, "status": {"parents": [other, {"parentRef": 7}]}})
        routes = self.kube.objects[f"{GATEWAY}/v1/tcproutes"]
        routes["shop", ""] = {"metadata": {}}
        self.run_provider()
        await self.written("default = tcp_shop_db")
        told = self.logged()
        for title, what in (
            ("Gateway shop/odd", "spec.listeners is not a list"),
            ("ListenerSet shop/bare", "spec is not an object"),
            ("TCPRoute without a name", "metadata.name is not a text"),
        ):
            self.assertIn(f"{title} is left out: it cannot be read: {what}", told)
        self.assertIn("db: it cannot be read: status.parents[1].parentRef is not an object", told)
        data = b'{"type": "ADDED", "object": {"metadata": {"resourceVersion": "9", "name": []}}}\n'
        self.kube.tell(data)
        for number, is_cut in ((1, False), (2, True)):
            if is_cut:
                del routes["shop", ""]
                self.kube.oldest = 1 << 30
                self.kube.cut()
            self.kube.put({**db, "spec": {**db["spec"], "hostnames": number}})
            self.put(gateway(TCP, f"name: more, port: {1000 + number}, protocol: TCP"))
            await self.written(f"endpoint = :{1000 + number}\n")
            self.kube.oldest = 0
            self.assertIn("default = tcp_shop_db", self.text())
            said = "shop/db: it cannot be read: spec.hostnames is not a list; what was known"
            self.assertEqual(self.logged().count(said), 1)
        self.assertEqual(self.patches("db"), 0)
        self.put(route("TCPRoute", "db") + gateway("name: tcp, port: 2, protocol: TCP", name="odd"))
        await self.until(lambda: self.of_route("db").get("Accepted") == "Accepted")
        await self.written("endpoint = :2\n", gone="shop/odd")

    async def test_a_kind_that_is_not_known_for_a_while(self) -> None:
        """An API server that starts may not know yet what is defined."""
        self.begin()
        await self.written("tcp_shop_db")
        self.kube.wrong = lambda _method, path: (404, b"{}") if path == f"{GATEWAY}/v1" else None
        self.kube.oldest = 1 << 30
        self.kube.cut()
        await self.until(lambda: "tcproutes: the cluster has no such kind" in self.logged())
        (said,) = re.findall("tcproutes: the cluster.*", self.logged())
        self.assertIn("what was known stays in use", said)
        self.assertIn("tcp_shop_db", self.text())
        self.kube.wrong = lambda *_: None
        self.kube.oldest = 0
        await self.until(lambda: "tcproutes can be read again" in self.logged())

    def patches(self, name: str) -> int:
        return sum(asked.startswith("PATCH") and f"/{name}/" in asked for asked in self.kube.asked)

    async def test_conditions_of_others_stay_and_nothing_is_written_twice(self) -> None:
        other = {"controllerName": "example/other", "parentRef": {"name": "edge"}, "conditions": []}
        self.put(SERVICES + gateway(TCP))
        (db,) = things(route("TCPRoute", "db"))
        self.kube.put({**db, "status": {"parents": [other]}})
        self.run_provider()
        await self.until(lambda: self.of_route("db"))
        parents = self.kube.get("TCPRoute", "shop", "db")["status"]["parents"]
        self.assertEqual((parents[0], parents[1]["controllerName"]), (other, "txmux/gateway"))
        since = parents[1]["conditions"][0]["lastTransitionTime"]
        await deferLater(reactor, 0.8)
        self.assertEqual(self.patches("db"), 1)
        (changed,) = things(route("TCPRoute", "db", "{name: gone, port: 1}"))
        self.kube.put({**changed, "status": {"parents": parents}})
        await self.until(lambda: self.of_route("db").get("ResolvedRefs") == "!BackendNotFound")
        condition = self.kube.get("TCPRoute", "shop", "db")["status"]["parents"][1]["conditions"][0]
        self.assertEqual(condition["lastTransitionTime"], since)

    async def test_changes_that_flap_are_few_writes(self) -> None:
        self.begin()
        await self.until(lambda: self.of_route("db"))
        refs = ("{name: gone, port: 1}", "{name: db, port: 5432}")
        begun = reactor.seconds()
        for number in range(40):
            self.put(route("TCPRoute", "db", refs[number % 2]))
            await deferLater(reactor, 0.02)
        await self.until(lambda: self.of_route("db").get("ResolvedRefs") == "ResolvedRefs")
        self.assertLessEqual(self.patches("db"), 3 + (reactor.seconds() - begun) / 0.3)

    async def test_addresses_stay_until_others_are_known(self) -> None:
        """A restart, another writer of status, and a pod that cannot be read for a while."""
        change_constants(self, provider, _LABELS_AGAIN=0.1)
        self.host_name = "mux-1"
        metadata = {"name": "mux-1", "namespace": "default", "labels": {"app": "mux"}}
        spec = {"selector": {"app": "mux"}, "clusterIP": "10.1.1.1", "ports": []}
        for kind in ({"kind": "Service", "spec": spec}, {"kind": "Pod"}):
            self.kube.put({**kind, "metadata": {**metadata}})
        before = {"type": "IPAddress", "value": "10.9.9.9"}
        (edge,) = things(gateway(TCP))
        self.kube.put({**edge, "status": {"addresses": [before]}})
        seen = []
        wrong: list[Any] = [(503, b"{}"), (403, b"{}"), (404, b"{}"), (200, b"[]")]

        def answer(_: str, path: str) -> Any:
            seen.append(self.edge().get("status", {}).get("addresses"))
            return wrong.pop(0) if path.endswith("pods/mux-1") and wrong else None

        self.kube.wrong = answer
        self.put(SERVICES)
        await self.kube.leave()
        self.run_provider()
        await self.until(lambda: "nothing is written until it answers" in self.logged())
        self.kube.listen()
        known = [{"type": "IPAddress", "value": "10.1.1.1"}]
        await self.until(lambda: self.edge()["status"]["addresses"] == known)
        self.assertEqual((wrong, [one for one in seen if one not in ([before], known)]), ([], []))
        stay = "the addresses of Gateways stay as they are"
        self.assertGreaterEqual(self.logged().count(stay), 4)

    async def test_a_status_that_is_denied_is_said_once(self) -> None:
        change_constants(self, status, _EVERY=0.05)
        denied = 403, b'{"message": "forbidden"}'
        self.kube.wrong = lambda method, path: (
            denied if method == "PATCH" and "gatewayclasses" in path else None
        )
        self.begin()
        await self.until(lambda: self.patches("txmux") > 2)
        self.assertEqual(self.logged().count("the status of a GatewayClass is not written"), 1)

    async def test_one_of_two_writes_and_the_other_takes_over(self) -> None:
        change_constants(self, status, _DURATION=0.3)
        self.host_name = "one"
        end_first = self.begin()
        await self.until(lambda: self.of_route("db"))
        self.host_name = "two"
        self.run_provider()
        lease_now = lambda: self.kube.get("Lease", "default", "txmux-txmux-gateway")["spec"]  # noqa: E731
        await deferLater(reactor, 0.6)
        self.assertEqual((lease_now()["holderIdentity"], self.patches("db")), ("one", 1))
        change_constants(self, status, _DURATION=60.0)
        await self.until(lambda: lease_now()["leaseDurationSeconds"] == 60)
        await end_first()  # which gives it back
        self.kube.put(things(route("TCPRoute", "db", "{name: gone, port: 1}"))[0])
        await self.until(lambda: self.of_route("db").get("ResolvedRefs") == "!BackendNotFound")
        last = lease_now()
        self.assertEqual((last["holderIdentity"], last["leaseTransitions"]), ("two", 2))

    async def test_a_lease_that_cannot_be_given_back(self) -> None:
        change_constants(self, status, _RELEASE=0.1)
        self.begin()
        await self.until(lambda: self.of_route("db"))
        end = self.run_provider("--class", "other", "--controller", "x/y")
        await self.until(lambda: ("default", "txmux-x-y.other") in self.leases)
        self.kube.wrong = lambda method, path: (
            "silent" if (method, "leases" in path) == ("PUT", True) else None
        )
        await end()
        self.assertEqual(self.leases["default", "txmux-x-y.other"]["leaseTransitions"], 1)

    async def test_a_lease_that_cannot_be_read(self) -> None:
        """It is not held, and the provider goes on, and ends, without an error of its own."""
        named = {"name": "txmux-txmux-gateway", "namespace": "default"}
        self.kube.put({"kind": "Lease", "metadata": named})
        lease = self.kube.get("Lease", "default", "txmux-txmux-gateway")
        answers: list[object] = [None, [], 7, {}, {"spec": None}, {"spec": {}}]
        specs: Any = {"holderIdentity": []}, {"leaseTransitions": "x"}, {"leaseTransitions": []}
        asked = 0

        def wrong(method: str, path: str) -> tuple[int, bytes] | None:
            nonlocal asked
            if "leases" not in path:
                return None
            asked += method == "GET"
            if method == "PUT":
                return 200, json.dumps(answers[asked % len(answers)]).encode()
            spec = specs[asked % 3] if asked % 2 else {}
            return 200, json.dumps({**lease, "spec": spec}).encode()

        self.kube.wrong = wrong
        end = self.begin()
        await self.until(lambda: asked > 2 * len(answers) * len(specs))
        self.assertEqual(self.of_route("db"), {})
        await end()
        self.kube.wrong = lambda *_: None
        self.run_provider()
        await self.until(lambda: self.of_route("db"))

    @property
    def leases(self) -> dict[tuple[str, str], Any]:
        path = "/apis/coordination.k8s.io/v1/leases"
        return {key: one["spec"] for key, one in self.kube.objects[path].items()}

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.features.gateway.objects import cluster, gateway, policy, route
from txmux.features.gateway.certificates import SecretFiles
from txmux.features.gateway.cluster import Cluster, key_of
from txmux.features.gateway.conditions import statuses
from txmux.features.gateway.listeners import GatewaySettings, read_listeners
from txmux.features.gateway.policies import Policies
from txmux.features.gateway.routes import read_routes
from txmux.features.gateway.sections import make_sections
from txmux.rules.lint.warnings import lint
from txmux.rules.model.rules import Rules
from txmux.rules.reading.parser import parse

_DEFAULT = GatewaySettings()
TLS = "name: tls, port: 443, protocol: TLS, tls: {mode: Passthrough}"
TCP = "name: tcp, port: 5432, protocol: TCP"
WEB = "{name: web, port: 443}"
SERVED = {"Accepted": "Accepted", "ResolvedRefs": "ResolvedRefs"}
VALID = {"Accepted": "Accepted", "Programmed": "Programmed"}
INVALID = {"Accepted": "!ListenersNotValid", "Programmed": "!ListenersNotValid"}
SHARED = ', annotations: {txmux.shared-port: "yes"}'


class NamedFiles(SecretFiles):
    """Files whose content nobody reads, of which some are bad by their names."""

    def problem(self, secret: Any) -> str:
        return "bad" * ("bad" in secret["metadata"]["name"])

    def authority_problem(self, config_map: Any) -> str:
        return self.problem(config_map)

    def certificate(self, secret: Any) -> str:
        return f"/pem/{'_'.join(key_of(secret))}.pem"

    def bundle(self, config_maps: Sequence[Any]) -> str:
        return f"/pem/{'_'.join(one['metadata']['name'] for one in config_maps)}.pem"


class Made:
    """What is made of objects, all of which are served, but for units that are not taken, each for a reason."""

    def __init__(
        self,
        text: str | Cluster,
        settings: GatewaySettings = _DEFAULT,
        unserved: str = "",
        addresses: Sequence[Any] | None = (),
        untaken: Mapping[str, str] = {},
    ) -> None:
        known = text if isinstance(text, Cluster) else cluster(text)
        files = NamedFiles(Path("/pem"))
        listeners = read_listeners(known, settings, files)
        policies = Policies(known, files)
        routes = read_routes(known, listeners, policies)
        objects = [*make_sections(listeners, routes, settings)]
        self.problems: dict[str, str] = {}
        for one in objects:
            if problem := one.problem or untaken.get(one.unit, ""):
                self.problems.setdefault(one.name, problem)
        self.units: dict[str, str] = defaultdict(str)
        for one in objects:
            self.units[one.unit] += one.text
        self.text = "\n".join(one.text for one in objects)
        self.refusing = "\n".join(one.refusing for one in objects)
        made = listeners, routes, policies.all
        self.wanted = [*statuses(known, settings, *made, self.problems, unserved, addresses)]
        self.status = {(its.kind, its.key[1]): its.status for its in self.wanted}

    def rules(self) -> Rules:
        for unit in self.units.values():  # none needs another one
            if unit:
                parse(unit, "x")
        return parse(self.text, "x")

    def sections(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for block in self.text.strip().split("\n["):
            header, *lines = block.split("\n")
            found[header.strip("[]")] = [line.strip() for line in lines if line.strip()]
        return found

    def of_route(self, kind: str, name: str, number: int = 0) -> dict[str, str]:
        return reasons(self.status[kind, name]["parents"][number]["conditions"])

    def message(self, kind: str, name: str) -> str:
        """Return what is said of a route, or of a policy, at first."""
        (parent,) = next(iter(self.status[kind, name].values()))
        return str(parent["conditions"][0]["message"])

    def of(self, kind: str, name: str) -> dict[str, str]:
        return reasons(self.status[kind, name]["conditions"])

    def of_gateway(self, name: str = "edge") -> dict[str, str]:
        return self.of("Gateway", name)

    def of_listener(
        self, listener: str, name: str = "edge", kind: str = "Gateway"
    ) -> dict[str, Any]:
        its = next(one for one in self.status[kind, name]["listeners"] if one["name"] == listener)
        return {**reasons(its["conditions"]), "routes": its["attachedRoutes"]}


def reasons(conditions: Any) -> dict[str, str]:
    """Return the reasons of conditions, with a ``!`` for those that are not true."""
    return {one["type"]: "!" * (one["status"] != "True") + one["reason"] for one in conditions}


class RulesTests(SynchronousTestCase):
    def test_the_oldest_route_has_the_port(self) -> None:
        made = Made(gateway(TCP) + route("TCPRoute", "db"))
        self.assertEqual(made.sections(), {
            "listen tcp_5432": ["endpoint = :5432", "default = tcp_shop_db", "first = server"],
            "backend tcp_shop_db": ["server = 10.0.0.1:15432", "10.0.0.2:15432 down"],
        })  # fmt: skip
        made.rules()
        self.assertEqual(made.of_gateway(), VALID)
        (listener,) = made.status["Gateway", "edge"]["listeners"]
        self.assertEqual(reasons(listener["conditions"]), {
            "Accepted": "Accepted", "Conflicted": "!NoConflicts", "ResolvedRefs": "ResolvedRefs", "Programmed": "Programmed",
        })  # fmt: skip
        kind = {"group": "gateway.networking.k8s.io", "kind": "TCPRoute"}
        self.assertEqual((listener["attachedRoutes"], listener["supportedKinds"]), (1, [kind]))
        self.assertEqual(made.of_route("TCPRoute", "db"), SERVED)
        text = gateway("name: dns, port: 53, protocol: UDP")
        text += route("UDPRoute", "dns", "{name: db, port: 53}")
        made = Made(text, GatewaySettings(ports={53: 1053}))
        self.assertEqual(made.sections(), {
            "listen udp_53": ["endpoint = udp:1053", "default = udp_shop_dns"],
            "backend udp_shop_dns": ["server = udp:10.0.0.1:1053", "udp:10.0.0.2:1053 down"],
        })  # fmt: skip
        made.rules()
        made = Made(gateway(TCP) + route("TCPRoute", "db") + route("TCPRoute", "late"))
        self.assertNotIn("late", made.text)
        self.assertEqual(made.of_route("TCPRoute", "late")["Accepted"], "Accepted")
        why = "TCPRoute shop/db is older, and has all clients of listener tcp"
        self.assertEqual(made.message("TCPRoute", "late"), why)
        self.assertEqual(made.of_listener("tcp")["routes"], 2)
        more = ', annotations: {txmux.from: "10.0.0.0/8", txmux.check: tcp, other: x}'
        made = Made(gateway(TCP) + route("TCPRoute", "db", more=more))
        self.assertEqual(made.sections(), {
            "listen tcp_5432": ["endpoint = :5432", "default = close"],
            "route tcp_shop_db_shop_edge_tcp": ["match = any", "from = 10.0.0.0/8", "under = tcp_5432", "backend = tcp_shop_db"],
            "backend tcp_shop_db": ["check = tcp", "server = 10.0.0.1:15432", "10.0.0.2:15432 down"],
        })  # fmt: skip
        made.rules()

    def test_exact_before_wildcard_longer_before_shorter_older_before_younger(self) -> None:
        text = gateway(TLS)
        for name, hosts in (
            ("all", ""), ("wide", '"*.example"'), ("narrow", '"*.a.example"'),
            ("one", "b.a.example"), ("two", 'b.a.example, "*.b.example"'),
        ):  # fmt: skip
            text += route("TLSRoute", name, WEB, f"hostnames: [{hosts}]" if hosts else "")
        made = Made(text)
        sections = made.sections()
        matches = [lines[0] for name, lines in sections.items() if name.startswith("route ")]
        names = [" sni=b.a.example", " sni=*.a.example", " sni=*.b.example", " sni=*.example"]
        self.assertEqual(matches, [f"match = tls{name}" for name in (*names, "")])
        its = sections["route tls_shop_one_shop_edge_tls_b.a.example"]
        self.assertIn("backend = tls_shop_one", its)
        self.assertEqual(made.of_route("TLSRoute", "two")["Accepted"], "Accepted")
        made.rules()
        text = gateway(f"{TLS}, allowedRoutes: {{namespaces: {{from: All}}}}")
        text += route("TLSRoute", "mine", WEB, "hostnames: [a.example]")
        evil = ", namespace: evil", ", namespace: shop"
        text += route("TLSRoute", "theirs", WEB, "hostnames: [a.example]", *evil)
        made = Made(text)
        self.assertNotIn("theirs", made.text)
        why = "TLSRoute shop/mine is older, and has a.example of listener tls"
        self.assertEqual(made.message("TLSRoute", "theirs"), why)

    def test_names_of_listener_and_route_are_intersected(self) -> None:
        one = TLS.replace("tls,", "one,") + ", hostname: a.example"
        text = gateway(f'{TLS}, hostname: "*.example"', one)
        text += route("TLSRoute", "web", WEB, 'hostnames: [b.example, "*.a.example", other.test]')
        text += route("TLSRoute", "none", WEB, "hostnames: [example]")
        made = Made(text)
        sections = made.sections()
        # Clients of a.example are of its own listener, which has no route.
        self.assertEqual([*sections], [
            "listen tcp_443", "route shop_edge_one_rest",
            "route tls_shop_web_shop_edge_tls_b.example", "backend tls_shop_web",
            "route tls_shop_web_shop_edge_tls_.a.example", "route shop_edge_tls_rest",
        ])  # fmt: skip
        its = sections["route shop_edge_one_rest"]
        self.assertEqual((its[0], its[-1]), ("match = tls sni=a.example", "backend = reject"))
        self.assertEqual([made.of_listener(name)["routes"] for name in ("tls", "one")], [1, 0])
        made.rules()

    def made(self, refs: str, more: str = "") -> Made:
        return Made(gateway(TCP) + more + route("TCPRoute", "db", refs))

    def servers(self, refs: str, more: str = "") -> list[str]:
        lines = self.made(refs, more).sections()["backend tcp_shop_db"]
        return " ".join(lines).partition("server = ")[2].split(" ")

    def test_weights_are_shares_of_services(self) -> None:
        web = [f"[fd00::{n}]:8443" for n in (1, 2, 3)]
        for weights, first in (
            ((3, 1), ["10.0.0.1:15432", "weight=9", "10.0.0.2:15432", "down"]),
            ((1000000, 1), ["10.0.0.1:15432", "weight=65535", "10.0.0.2:15432", "down"]),
            ((0, 1), []),
        ):
            refs = "{name: db, port: 5432, weight: %d}, {name: web, port: 443, weight: %d}"
            self.assertEqual(self.servers(refs % weights), [*first, *web])
        made = self.made("{name: db, port: 5432, weight: 0}")
        its = ["endpoint = :5432", "default = close", "first = server"]
        self.assertEqual(made.sections()["listen tcp_5432"], its)
        made.rules()

    def test_what_does_not_resolve_or_has_no_endpoints_takes_its_share(self) -> None:
        other = "---\nkind: Service\nmetadata: {name: far, namespace: %s}\nspec: {type: %s, ports: [{port: 1}]}\n"
        for ref, more, reason in (
            ("{name: gone, port: 1}", "", "BackendNotFound"),
            ("{name: db, port: 1}", "", "BackendNotFound"),
            ("{name: db, port: 53}", "", "BackendNotFound"),
            ("{name: db, kind: Bucket, port: 1}", "", "InvalidKind"),
            ("{name: far, namespace: far, port: 1}", other % ("far", "ClusterIP"),
             "RefNotPermitted"),
            ("{name: far, port: 1}", other % ("shop", "ExternalName"), "InvalidKind"),
        ):  # fmt: skip
            made = self.made(f"{{name: db, port: 5432, weight: 2}}, {ref}", more)
            expected = {"Accepted": "Accepted", "ResolvedRefs": f"!{reason}"}
            self.assertEqual(made.of_route("TCPRoute", "db"), expected, ref)
            lines = made.sections()["backend tcp_shop_db"]
            self.assertEqual(lines[0], "server = 10.0.0.1:15432 weight=2")
            self.assertEqual(lines[1:], ["10.0.0.2:15432 down", "127.0.0.1:1 final"])
            made.rules()
        idle = "---\nkind: Service\nmetadata: {name: idle}\nspec: {ports: [{port: 1}]}\n"
        refs = "{name: idle, port: 1, weight: 1}, {name: web, port: 443, weight: 4}"
        made = self.made(refs, idle)
        self.assertEqual(made.of_route("TCPRoute", "db"), SERVED)
        served = [f"[fd00::{n}]:8443 weight=4" for n in (1, 2, 3)]
        lines = ["server = 127.0.0.1:1 weight=3 final", *served]
        self.assertEqual(made.sections()["backend tcp_shop_db"], lines)
        made.rules()
        made = self.made("{name: idle, port: 1}, {name: gone, port: 1}", idle)
        self.assertIn("default = close", made.text)
        for balance, used in (("least-connections", "round-robin"), ("source-hash", "source-hash")):
            more = f", annotations: {{txmux.balance: {balance}}}"
            made = Made(gateway(TCP) + idle + route("TCPRoute", "db", refs, more=more))
            self.assertEqual(made.sections()["backend tcp_shop_db"][0], f"balance = {used}")
        its = "---\nkind: EndpointSlice\nmetadata: {name: db-1, labels: {kubernetes.io/service-name: db}}\naddressType: IPv4\nports: [{name: sql, port: 1}]\nendpoints:\n- {addresses: [10.0.0.1], conditions: {ready: false, serving: true, terminating: true}}\n- {addresses: [10.0.0.2], conditions: {ready: false, serving: false, terminating: true}}\n"
        self.assertEqual(self.servers("{name: db, port: 5432}", its), ["10.0.0.1:1"])
        more = "---\nkind: Service\nmetadata: {name: db, annotations: {txmux.check: tcp, txmux.balance: first}}\nspec: {ports: [{name: sql, port: 5432}]}\n"
        lines = self.made("{name: db, port: 5432}", more).sections()["backend tcp_shop_db"]
        self.assertEqual(lines[:2], ["balance = first", "check = tcp"])

    def problem(self, more: str, kind: str = "TCPRoute", spec: str = "") -> str:
        text = gateway(TCP if kind == "TCPRoute" else TLS) + route(kind, "db", spec=spec, more=more)
        made = Made(text + route(kind, "good", spec="hostnames: [good.example]"))
        self.assertEqual(made.of_route(kind, "db")["Accepted"], "!Invalid")
        self.assertEqual(made.of_route(kind, "good")["Accepted"], "Accepted")
        self.assertEqual("_shop_good" in made.text, kind == "TLSRoute")  # db is older
        self.assertIn("default = close", made.text)
        made.rules()
        return made.problems[f"{kind} shop/db"]

    def test_what_would_open_more(self) -> None:
        for key, value in (
            ("server", "{sni}:443"), ("from", "@/etc/passwd"), ("tls_ca", "/etc/ssl/x"), ("under", "other"), ("backend", "other"),
            ("terminate_tls", "/etc/ssl/x"), ("fallback", "127.0.0.1:22"), ("source", "client"), ("x.match", "any"), ("nothing", "1"),
            ("check", "nonsense"), ("check", "tcp\\n[backend x]"),
        ):  # fmt: skip
            why = self.problem(f', annotations: {{txmux.{key}: "{value}"}}')
            self.assertIn(f"txmux.{key.partition('.')[0]}", why)
        # The routes that name it are refused, and those of other Services are not.
        for key, value in (
            ("server", "{sni}:443"), ("from", "@/etc/passwd"), ("tls_ca", "/etc/ssl/x"), ("under", "other"), ("match", "any"),
            ("via", "socks5://h:1"), ("fallback", "127.0.0.1:22"), ("source", "client"), ("check", "tcp\\n[backend x]"),
        ):  # fmt: skip
            text = gateway(TCP, TLS) + route("TCPRoute", "db")
            text += route("TLSRoute", "web", WEB, "hostnames: [a.example]")
            text += f'---\nkind: Service\nmetadata: {{name: db, annotations: {{txmux.{key}: "{value}"}}}}\n'
            made = Made(f"{text}spec: {{ports: [{{name: sql, port: 5432}}]}}\n")
            self.assertEqual(made.of_route("TCPRoute", "db")["Accepted"], "!Invalid", key)
            self.assertIn(f"txmux.{key}: ", made.problems["TCPRoute shop/db"])
            self.assertEqual(made.of_route("TLSRoute", "web")["Accepted"], "Accepted", key)
            made.rules()
        for name in ("a example", "*", "a,b", "a\\n[route x]", "~.*"):
            self.assertIn("hostnames", self.problem("", "TLSRoute", f'hostnames: ["{name}"]'))
        for listener in ('name: "x y", port: 1', "name: b, port: 70000"):
            self.assertEqual(Made(gateway(f"{listener}, protocol: TCP")).text, "")
        wrong = 'name: a, port: 443, protocol: TLS, hostname: "a b"'
        self.assertEqual(Made(gateway(wrong)).text, "")
        text = gateway(TCP) + route("TCPRoute", "db").replace("rules: [", "rules: [{}, ")
        self.assertIn("several rules", Made(text).problems["TCPRoute shop/db"])

    def test_a_route_that_names_a_listener_twice(self) -> None:
        """By its name, and by its port: it is attached once, and both references say so."""
        for listener, name, port in ((TCP, "tcp", 5432), (TLS, "tls", 443)):
            kind, twice = (
                f"{name.upper()}Route",
                f", sectionName: {name}}}, {{name: edge, port: {port}",
            )
            one, both = (
                Made(gateway(listener) + route(kind, "db", parent=parent)) for parent in ("", twice)
            )
            self.assertEqual(both.text, one.text)
            both.rules()
            self.assertEqual(both.of_listener(name)["routes"], 1)
            self.assertEqual([both.of_route(kind, "db", number) for number in (0, 1)], [SERVED] * 2)

    def test_no_route_is_written_that_no_client_reaches(self) -> None:
        """The log of the service would warn of it at each reload."""
        exact, wide, inner = (
            TLS.replace("tls,", f"{name},") + f", hostname: '{host}'"
            for name, host in (
                ("exact", "a.example"),
                ("wide", "*.example"),
                ("inner", "*.b.example"),
            )
        )
        names = "hostnames: [a.example, x.b.example, c.example, '*.example']"
        made = Made(gateway(exact, wide, inner) + route("TLSRoute", "web", WEB, names))
        self.assertEqual([name for name in made.sections() if name.startswith("route")], [
            "route tls_shop_web_shop_edge_exact_a.example",
            "route tls_shop_web_shop_edge_inner_x.b.example", "route tls_shop_web_shop_edge_inner_.b.example",
            "route tls_shop_web_shop_edge_wide_c.example", "route tls_shop_web_shop_edge_wide_.example",
        ])  # fmt: skip
        self.assertEqual([one for one in lint(made.rules()) if "never reached" in one.message], [])
        # Clients from elsewhere are of no listener with a wider name.
        more = ', annotations: {txmux.from: "10.0.0.0/8"}'
        text = gateway(exact, wide) + route("TLSRoute", "web", WEB, "hostnames: [a.example]", more)
        made = Made(text)
        self.assertIn("route shop_edge_exact_rest", made.sections())
        # In a file that is too large, it stays.
        self.assertIn("[route shop_edge_exact_rest]", made.refusing)
        self.assertEqual([one for one in lint(made.rules()) if "never reached" in one.message], [])

    def test_which_routes_a_listener_takes(self) -> None:
        """By where they are, and of which kind; by name and port, see `test_parents_of_routes` of conformance."""
        away, theirs = ", namespace: away", ", namespace: shop"
        named = "---\nkind: Namespace\nmetadata: {name: away, labels: {tier: %s}}\n"
        chosen = f"{TCP}, allowedRoutes: {{namespaces: {{from: Selector, selector: {{matchLabels: {{tier: one}}}}}}}}"
        for listener, more, parent, extra, reason in (
            (TCP, away, theirs, "", "!NotAllowedByListeners"),
            (f"{TCP}, allowedRoutes: {{namespaces: {{from: All}}}}", away, theirs, "", "Accepted"),
            (chosen, away, theirs, "", "!NotAllowedByListeners"),
            (chosen, away, theirs, named % "two", "!NotAllowedByListeners"),
            (chosen, away, theirs, named % "one", "Accepted"),
            (f"{TCP}, allowedRoutes: {{kinds: [{{kind: UDPRoute}}]}}", "", "", "", "!NotAllowedByListeners"),
        ):  # fmt: skip
            text = gateway(listener) + extra + route("TCPRoute", "db", more=more, parent=parent)
            accepted = Made(text).of_route("TCPRoute", "db")["Accepted"]
            self.assertEqual(accepted, reason, (listener, extra))
        for kinds, reason in (
            ("{kind: TCPRoute}, {kind: TCPRoute}", "ResolvedRefs"),
            ("{kind: X}, {kind: TCPRoute}", "!InvalidRouteKinds"),
        ):
            made = Made(gateway(f"{TCP}, allowedRoutes: {{kinds: [{kinds}]}}"))
            self.assertEqual(made.of_listener("tcp")["ResolvedRefs"], reason, kinds)
        text = gateway(TCP) + route("TCPRoute", "db", parent=", kind: Service")
        self.assertNotIn(("TCPRoute", "db"), Made(text).status)
        text = "---\nkind: GatewayClass\nmetadata: {name: odd}\nspec: {controllerName: txmux/gateway, parametersRef: {name: x}}\n"
        made = Made(text + gateway(TCP).replace("gatewayClassName: txmux", "gatewayClassName: odd"))
        self.assertEqual(made.of("GatewayClass", "odd"), {"Accepted": "!InvalidParameters"})
        self.assertNotIn(("Gateway", "edge"), made.status)
        self.assertEqual(Made(gateway(TCP), GatewaySettings(only="other")).text, "")
        made = Made(gateway(TCP), unserved="no service")
        self.assertEqual(made.of_gateway(), {"Accepted": "Accepted", "Programmed": "!Pending"})
        was = "status: {%s: [{controllerName: txmux/gateway}]}\nmetadata"
        for kind, text, entries in (
            ("TCPRoute", route("TCPRoute", "db"), "parents"),
            ("BackendTLSPolicy", policy("db"), "ancestors"),
        ):
            made = Made(text.replace("metadata", was % entries, 1))
            self.assertEqual(made.status[kind, "db"], {entries: []})


class SharedPortTests(SynchronousTestCase):
    BOTH = (TLS, "name: rest, port: 443, protocol: TCP")

    def test_neither_of_two_is_served_for_the_same(self) -> None:
        """Without the annotation, or for the same names."""
        again = TLS, TLS.replace("tls,", "rest,")
        for listeners, why in ((self.BOTH, "ProtocolConflict"), (again, "HostnameConflict")):
            made = Made(gateway(*listeners) + route("TCPRoute", "db"))
            for name in ("tls", "rest"):
                self.assertEqual(made.of_listener(name)["Conflicted"], why)
            self.assertEqual((made.text, made.of_gateway()), ("", INVALID))

    def test_tls_by_name_others_by_match_and_the_older_gateway(self) -> None:
        text = gateway(*self.BOTH, more=SHARED)
        text += route("TLSRoute", "web", WEB, "hostnames: [a.example]") + route("TCPRoute", "db")
        more = ", annotations: {txmux.match: ssh, txmux.match.2: telnet}"
        made = Made(text + route("TCPRoute", "ssh", more=more))
        sections = made.sections()
        self.assertEqual([*sections], [
            "listen tcp_443", "backend tcp_shop_db",
            "route tls_shop_web_shop_edge_tls_a.example", "backend tls_shop_web", "route shop_edge_tls_rest",
            "route tcp_shop_ssh_shop_edge_rest", "backend tcp_shop_ssh",
        ])  # fmt: skip
        its = ["endpoint = :443", "default = tcp_shop_db", "silent = tcp_shop_db"]
        self.assertEqual(sections["listen tcp_443"], its)
        its = sections["route tcp_shop_ssh_shop_edge_rest"]
        self.assertEqual(its[:2], ["match = ssh", "telnet"])
        self.assertEqual(made.of_route("TCPRoute", "ssh")["Accepted"], "Accepted")
        made.rules()
        made = Made(gateway(TCP) + gateway(TCP.replace("tcp,", "other,"), name="late"))
        self.assertEqual(made.of_listener("other", "late")["Accepted"], "!ProtocolConflict")
        self.assertEqual(made.of_listener("tcp")["Programmed"], "Programmed")
        # A port is shared only if both owners say so.
        old = gateway("name: tcp, port: 443, protocol: TCP", name="old")
        made = Made(old + gateway(TLS, more=SHARED))
        self.assertEqual(made.of_listener("tls")["Accepted"], "!ProtocolConflict")
        self.assertEqual(made.of_listener("tcp", "old")["Programmed"], "Programmed")


class PatternTests(SynchronousTestCase):
    """Regular expressions cost all clients of a port time, so each namespace has a part of it."""

    def routes(self, count: int, match: str, more: str = "", parent: str = "") -> str:
        notes = f', annotations: {{txmux.match: "{match}"}}{more}'
        names = (f"r{number:03}" for number in range(count))
        return "".join(route("TCPRoute", name, more=notes, parent=parent) for name in names)

    def accepted(self, made: Made) -> list[str]:
        names = sorted(name for kind, name in made.status if kind == "TCPRoute")
        return [name for name in names if made.of_route("TCPRoute", name)["Accepted"] == "Accepted"]

    def test_the_oldest_have_theirs_and_others_their_own(self) -> None:
        for match, count in (
            ("regex pattern=[ab]*x", 16), ("regex pattern=[ab]*x within=1KiB", 4),
            ("not regex within=100 pattern=x", 40), ("http host=~a+[.]example path=~b", 8),
            ("payload text=x", 50),
        ):  # fmt: skip
            made = Made(gateway(TCP, more=SHARED) + self.routes(50, match))
            self.assertEqual(self.accepted(made), [f"r{n:03}" for n in range(count)], match)
            self.assertEqual(made.text.count("[route"), count)
            made.rules()
        made = Made(gateway(TCP, more=SHARED) + self.routes(17, "regex pattern=x"))
        self.assertEqual(
            made.problems["TCPRoute shop/r016"],
            "txmux.match: its patterns look at 256 bytes of each client of port 5432, where those of older routes of namespace"
            " shop look at 4096; 4096 is the most in all: lower within=, or write fewer",
        )
        # Another namespace, and another port of the same one.
        every = ", allowedRoutes: {namespaces: {from: All}}"
        listeners = f"{TCP}{every}", f"name: more, port: 2, protocol: TCP{every}"
        heavy = "regex pattern=[ab]*x within=4KiB"
        text = gateway(*listeners, more=SHARED) + self.routes(2, heavy, parent=", sectionName: tcp")
        text += self.routes(1, heavy, parent=", sectionName: more").replace("r000", "s000")
        text += self.routes(1, heavy, ", namespace: far", ", namespace: shop").replace("r0", "t0")
        self.assertEqual(self.accepted(Made(text)), ["r000", "s000", "t000"])

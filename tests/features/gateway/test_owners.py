"""Gateways and routes of several owners: what fails or comes later changes nobody else's clients."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.features.gateway.objects import SET, TAKES, cluster, gateway, route
from tests.features.gateway.test_rules import INVALID, SHARED, TCP, TLS, VALID, Made, NamedFiles
from tests.wire.hello_builder import client_hello, records, server_name
from txmux.detection.explain import explain
from txmux.features.gateway.listeners import GatewaySettings, read_listeners
from txmux.testing.predicates import calls_in


def destination(made: Made, sent: bytes, listen: str = "tcp_443") -> str:
    rules = made.rules()
    (listener,) = (one for one in rules.listeners if one.name == listen)
    found = explain(rules.routes_over(listener, listener.transport), sent).decision.route
    outcome = found.outcome if found else listener.default
    return str(getattr(outcome, "name", outcome)).rpartition(".")[2].lower()


def hello(name: str) -> bytes:
    return records(client_hello(server_name(name)))


class PlaceTests(SynchronousTestCase):
    """What is recognised and cannot be served keeps its place, and refuses its clients; losers hold nothing."""

    WRONG = ', annotations: {txmux.check: "nonsense"}'

    def outcomes(self, made: Made) -> dict[str, str]:
        made.rules()
        found: dict[str, str] = {}
        for name, lines in made.sections().items():
            keys = dict(line.partition(" = ")[::2] for line in lines if " = " in line)
            if name.startswith("route "):
                found.setdefault(keys["match"], keys["backend"])
            elif name.startswith("listen "):
                found["default"] = keys["default"]
        return found

    def test_a_listener_without_its_certificate(self) -> None:
        """Its name goes to no wildcard of somebody else, also if the authorities of its clients are missing."""
        end = 'name: end, port: 443, protocol: TLS, hostname: "*.a.example", tls: {certificateRefs: [{name: %s}]}'
        secrets = "---\nkind: Secret\nmetadata: {name: %s}\n"
        authorities = "  tls: {frontend: {default: {validation: {caCertificateRefs: [{group: '', kind: ConfigMap, name: gone}]}}}}\n"
        wide = gateway(f'{TLS}, hostname: "*.example"', name="wide")
        theirs = route("TLSRoute", "theirs", "{name: web, port: 443}").replace("edge", "wide")
        mine = route("TLSRoute", "mine", spec="hostnames: [b.a.example]")
        for name, more, resolved, accepted in (
            ("gone", "", "!InvalidCertificateRef", "Accepted"),
            ("bad", "", "!InvalidCertificateRef", "Accepted"),
            ("cert, kind: ConfigMap", "", "!InvalidCertificateRef", "Accepted"),
            ("cert, namespace: far", "", "!RefNotPermitted", "Accepted"),
            ("cert", authorities, "!InvalidCACertificateRef", "!NoValidCACertificate"),
        ):
            text = gateway(end % name) + more + wide + theirs + mine
            made_too = (secrets % it for it in ("bad", "cert", "cert, namespace: far"))
            made = Made("".join([text, *made_too]))
            its = made.of_listener("end")
            self.assertEqual((its["ResolvedRefs"], its["Accepted"]), (resolved, accepted))
            self.assertEqual(its["Programmed"], "!Invalid")
            self.assertEqual([*self.outcomes(made).items()], [
                ("default", "close"), ("tls sni=b.a.example", "reject"),
                ("tls sni=*.a.example", "reject"), ("tls sni=*.example", "tls_shop_theirs"),
            ])  # fmt: skip
            self.assertNotIn("backend tls_shop_mine", made.text)
            self.assertNotIn("terminate_tls", made.text)
            self.assertEqual(made.of_gateway("wide")["Programmed"], "Programmed")

    def test_an_invalid_route_keeps_its_names_and_its_port(self) -> None:
        service = "---\nkind: Service\nmetadata: {name: odd, annotations: {txmux.from: x}}\nspec: {ports: [{port: 1}]}\n"
        for refs, more in (("{name: db, port: 5432}", self.WRONG), ("{name: odd, port: 1}", "")):
            text = gateway(TLS) + service
            text += route("TLSRoute", "old", refs, "hostnames: [a.example]", more)
            text += route("TLSRoute", "new", spec='hostnames: [a.example, "*.example"]')
            made = Made(text)
            self.assertEqual(made.of_route("TLSRoute", "old")["Accepted"], "!Invalid")
            self.assertEqual(self.outcomes(made), {
                "default": "close", "tls sni=a.example": "reject", "tls sni=*.example": "tls_shop_new", "tls": "reject",
            })  # fmt: skip
            lines = made.sections()["route tls_shop_old_shop_edge_tls_a.example"]
            self.assertEqual([one.split()[0] for one in lines], ["match", "under", "backend"])
            self.assertEqual(made.of_listener("tls")["routes"], 1)
        # Also its part of a shared one: that of its match lines, if these are right; the others have theirs.
        for more in (self.WRONG, f'{self.WRONG[:-1]}, txmux.from: "10.0.0.0/8"}}'):
            text = gateway(TCP) + route("TCPRoute", "old", more=more)
            made = Made(text + route("TCPRoute", "new"))
            self.assertEqual(self.outcomes(made), {"default": "close"})
        more = f"{self.WRONG[:-1]}, txmux.match: regex pattern=x within=4KiB}}"
        text = "".join(route("TCPRoute", name, more=more) for name in ("old", "new"))
        self.assertEqual(Made(gateway(TCP, more=SHARED) + text).text.count("regex"), 1)
        text = gateway(TCP, more=SHARED)
        text += route("TCPRoute", "old", more=f"{self.WRONG[:-1]}, txmux.match: ssh}}")
        text += route("TCPRoute", "odd", more=", annotations: {txmux.match: nonsense}")
        text += route("TCPRoute", "late", more=", annotations: {txmux.match: ssh}")
        made = Made(text + route("TCPRoute", "rest"))
        self.assertEqual(destination(made, b"SSH-2.0-x\r\n", "tcp_5432"), "close")
        self.assertEqual(destination(made, b"?" * 100, "tcp_5432"), "tcp_shop_rest")
        self.assertNotIn("odd", made.text)

    def test_match_counts_on_a_shared_port_alone_and_any_is_no_match_line(self) -> None:
        """A younger route takes all clients of a shared port as little as one without match lines."""
        text = gateway(TCP, more=SHARED)
        old = route("TCPRoute", "old")
        for match in ("txmux.match: any", "txmux.match: ssh, txmux.match.2: any"):
            late = route("TCPRoute", "late", more=f", annotations: {{{match}}}")
            self.assertEqual(Made(text + old + late).text, Made(text + old).text)
        more = ", annotations: {txmux.match: any}"
        text = route("TCPRoute", "old") + route("TCPRoute", "new", more=more)
        made = Made(gateway(TCP) + text)
        its = ["endpoint = :5432", "default = tcp_shop_old", "first = server"]
        self.assertEqual(made.sections()["listen tcp_5432"], its)
        self.assertNotIn("new", made.text)
        why = 'txmux.match counts only where Gateway shop/edge has txmux.shared-port: "yes"'
        self.assertIn(why, made.message("TCPRoute", "new"))
        text = route("TCPRoute", "ssh", more=more) + route("TCPRoute", "db")
        self.assertEqual(self.outcomes(Made(gateway(TCP) + text)), {"default": "tcp_shop_ssh"})

    def test_losers_make_no_others_lose(self) -> None:
        one, two = (f"{TLS.replace('tls,', f'{n},')}, hostname: {n}.example" for n in "ab")
        tcp = "name: x, port: 443, protocol: TCP"
        text = gateway(one) + TAKES
        text += SET % ("first", f"{{{tcp}}}, {{{two}}}")  # its TCP loses to the Gateway's
        text += SET % ("second", f"{{{two.replace('b,', 'c,')}}}, {{{TLS}}}")
        made = Made(text)
        for name, of, accepted in (
            ("x", "first", "!ProtocolConflict"), ("b", "first", "Accepted"),
            ("c", "second", "!HostnameConflict"), ("tls", "second", "Accepted"),
        ):  # fmt: skip
            self.assertEqual(made.of_listener(name, of, "ListenerSet")["Accepted"], accepted, name)
        self.assertEqual(made.of_listener("a")["Programmed"], "Programmed")
        other = TLS.replace("tls,", "other,").replace("443", "8443")
        made = Made(gateway(TLS) + gateway(other, name="late"), GatewaySettings(ports={443: 8443}))
        self.assertEqual(made.of_listener("other", "late")["Accepted"], "!PortUnavailable")
        (its,) = made.status["Gateway", "late"]["listeners"]
        why = "--port has it listen on 8443, as port 443 does; map it to another port"
        self.assertEqual(its["conditions"][0]["message"], why)
        self.assertEqual(made.of_listener("tls")["Programmed"], "Programmed")
        self.assertEqual(made.text.count("[listen"), 1)
        names = 'hostnames: ["*.a.example", any.a.example]'
        found = self.outcomes(Made(gateway(TLS) + route("TLSRoute", "web", spec=names)))
        self.assertEqual(found["tls sni=any.a.example"], "tls_shop_web")
        self.assertEqual(found["tls sni=*.a.example"], "tls_shop_web")


class UnitTests(SynchronousTestCase):
    """Each port is a unit, of whichever Gateways its listeners are."""

    LATE = gateway(f"{TLS}, hostname: b.example", name="late")

    def test_gateways_on_one_port(self) -> None:
        text = gateway(f"{TLS}, hostname: a.example") + self.LATE
        text += route("TLSRoute", "one") + route("TLSRoute", "two").replace("edge", "late")
        made = Made(text)
        self.assertEqual(made.text.count("[listen"), 1)
        for name, host, its in (("edge", "a.example", "one"), ("late", "b.example", "two")):
            self.assertEqual(made.of_gateway(name)["Programmed"], "Programmed")
            lines = made.sections()[f"route tls_shop_{its}_shop_{name}_tls_{host}"]
            self.assertIn(f"match = tls sni={host}", lines)
        made.rules()
        self.assertEqual(destination(made, hello("b.example")), "tls_shop_two")
        # The port stays the same without the older one.
        late = Made(self.LATE + route("TLSRoute", "two").replace("edge", "late")).sections()
        self.assertEqual({**made.sections(), **late}, made.sections())
        # TLSRouteHostnameIntersection, with one address for all.
        text = ""
        for number, host, names in (
            (1, "abc.example.com", ("*.example.com",)),
            (2, "*.example.com", ("abc.example.com", "*.com")),
            (3, "*.com", ("abc.example.com", "*.example.com")),
            (4, "", ("abc.example.com", "*.com")),
        ):
            text += gateway(f'{TLS}, hostname: "{host}"' if host else TLS, name=f"g{number}")
            for at, name in enumerate(names):
                its = route("TLSRoute", f"r{number}{at}", spec=f'hostnames: ["{name}"]')
                text += its.replace("edge", f"g{number}")
        made = Made(text)
        for number in range(1, 5):
            self.assertEqual(made.of_gateway(f"g{number}")["Programmed"], "Programmed")
        for name, where in (
            ("abc.example.com", "tls_shop_r10"), ("other.example.com", "tls_shop_r21"),
            ("non.matching.com", "reject"), ("non.matching.org", "reject"),
        ):  # fmt: skip
            self.assertEqual(destination(made, hello(name)), where)

    def test_many_listeners_of_one_port(self) -> None:
        """Twice as many cost twice as much."""

        def make(count: int, protocol: str) -> Callable[[], object]:
            named = f"{TLS.replace('TLS', '{}').replace('{mode', '{{mode').replace('h}', 'h}}')}, hostname: {{}}.example"
            texts = (gateway(named.format("TLS", n), name=f"g{n}") for n in range(count))
            others = (gateway(named.format(protocol, n), name=f"h{n}") for n in range(count))
            known = cluster("".join([*texts, *others]))
            files = NamedFiles(Path("/pem"))
            return partial(read_listeners, known, GatewaySettings(ports={443: 8443}), files)

        for protocol in ("TLS", "TCP"):
            few, many = (calls_in(make(count, protocol)) for count in (40, 80))
            self.assertLess(many, 2.5 * few, protocol)

    def test_a_set_is_younger_than_gateways_before_it(self) -> None:
        """The one made last takes no port from a Gateway that was there, also if its own Gateway is older."""
        own = SET % ("more", f"{{{TCP}}}")
        for text, served in (
            (gateway(TLS) + TAKES + gateway(TCP, name="late") + own, "Gateway"),
            (gateway(TLS) + TAKES + own + gateway(TCP, name="late"), "ListenerSet"),
        ):
            made = Made(text)
            for name, kind in (("late", "Gateway"), ("more", "ListenerSet")):
                accepted = made.of_listener("tcp", name, kind)["Accepted"]
                self.assertEqual(accepted, "Accepted" if kind == served else "!ProtocolConflict")

    def test_a_route_at_two_ports_and_one_that_cannot_be_opened(self) -> None:
        ports = TCP, TCP.replace("tcp", "more").replace("5432", "2")
        made = Made(gateway(*ports) + route("TCPRoute", "db"))
        self.assertEqual([*made.units], ["tcp_5432", "tcp_2"])
        for unit, text in made.units.items():
            self.assertIn(f"default = tcp_shop_db_at_{unit}\n", text)
            self.assertIn(f"[backend tcp_shop_db_at_{unit}]", text)
        made.rules()
        why = "cannot listen at tcp:443: Permission denied"
        text = gateway(f"{TLS}, hostname: a.example", TCP) + self.LATE
        made = Made(text + route("TLSRoute", "web"), untaken={"tcp_443": why})
        for name in ("edge", "late"):
            its = made.of_listener("tls", name)
            self.assertEqual((its["Accepted"], its["Programmed"]), ("!PortUnavailable", "!Invalid"))
        self.assertEqual(made.of_listener("tcp")["Programmed"], "Programmed")
        self.assertEqual(made.of_gateway(), {**VALID, "Accepted": "ListenersNotValid"})
        self.assertEqual(made.of_gateway("late"), INVALID)
        self.assertEqual(made.of_route("TLSRoute", "web")["Accepted"], "Accepted")

"""The TCP routers of an entry point: which clients go to which service."""

from __future__ import annotations

import re

import attrs

from txmux_convert.decision_list import DecidedCase, DecisionList
from txmux_convert.routes import CLOSE, RouteWriter
from txmux_convert.terms import ALWAYS, Condition, InexpressibleError, Term, conjunction
from txmux_convert.traefik.reader import Node
from txmux_convert.traefik.rules import network, read_rule
from txmux_convert.traefik.services import Services, duration
from txmux_convert.writer import DraftSection

_ADDRESS = re.compile(r"(?P<host>.*):(?P<port>[0-9]+)(?:/(?P<kind>tcp|udp))?")
_EVERYTHING = re.compile(r"HostSNI\([`\"]\*[`\"]\)", re.IGNORECASE)
WITHOUT_EFFECT = {"preferserverciphersuites": "Traefik does nothing with it either"}
_READ = frozenset({"alpnprotocols", "clientauth", *WITHOUT_EFFECT})
_USUAL = {  # the versions that txmux speaks
    ("maxversion", "VersionTLS13"),
    ("minversion", "VersionTLS12"),
    ("minversion", "VersionTLS13"),
}
_WHY = {
    "ciphersuites": "txmux chooses the ciphers",
    "curvepreferences": "txmux chooses the curves",
    "maxversion": "TLS 1.3 is always spoken",
    "minversion": "TLS 1.2 and 1.3 are spoken",
    "snistrict": "clients of names without a certificate get the first one; name those that are served in match = tls sni=",
}
_PROTOCOLS = "h2, http/1.1"
"""Traefik's default for ALPN."""


@attrs.frozen
class EntryPoint:
    """Where Traefik listens."""

    name: str
    node: Node

    @property
    def _address(self) -> re.Match[str] | None:
        return _ADDRESS.fullmatch(self.node.get("address").text)

    @property
    def is_udp(self) -> bool:
        return self._address is not None and self._address["kind"] == "udp"

    @property
    def endpoint(self) -> str:
        """The address as it is written in rules; empty if it is not one."""
        place = self._address
        if place is None:
            return ""
        if not self.is_udp:
            return f"{place['host']}:{place['port']}"
        return "udp:" + (f"{place['host']}:" if place["host"] else "") + place["port"]


@attrs.frozen
class Router:
    """A TCP router; routers with a higher priority come first."""

    name: str
    node: Node
    points: tuple[str, ...]
    priority: int
    tls: Node | None

    @classmethod
    def read(cls, name: str, node: Node, usual: list[str]) -> Router:
        rule, written = node.get("rule").text, node.get("priority").text
        points = tuple(node.get("entryPoints").texts() or usual)
        length = -1 if _EVERYTHING.fullmatch(rule.strip()) else len(rule)
        priority = int(written) if re.fullmatch("-?[0-9]+", written) and int(written) else length
        has_tls = isinstance(node.value, dict) and "tls" in node.value
        tls = node.get("tls")
        is_on = has_tls and (tls.is_set or not tls.text)  # a null, as of `tls:`, is on
        return cls(name, node, points, priority, tls if is_on else None)

    @property
    def is_tls(self) -> bool:
        return self.tls is not None

    @property
    def passes(self) -> bool:
        return self.tls is not None and self.tls.get("passthrough").is_set


_VERIFYING = ("RequireAndVerifyClientCert", "VerifyClientCertIfGiven")
_UNVERIFIED = ("RequestClientCert", "RequireAnyClientCert")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@attrs.frozen
class Routing:
    """Writes the routes of routers."""

    routes: RouteWriter
    services: Services
    middlewares: dict[str, Node]
    options: dict[str, Node]
    certificates: list[Node]
    points: frozenset[str]
    resolver: str = ""  # the name of the one whose authority is 'acme' in [txmux]

    def convert(self, point: EntryPoint, routers: list[Router], *, with_http: bool) -> None:
        draft, address = self.routes.draft, point.node.get("address")
        if not point.endpoint or point.is_udp:
            why = "is a UDP address, not TCP" if point.is_udp else "is not an address"
            message = f"entryPoints.{point.name}: is left out; {address.text!r} {why}"
            draft.flag(point.node.line, message)
            return
        section = draft.section("listen", point.name, point.node.line)
        self.routes.listeners.append(section)
        section.add("endpoint", point.endpoint, address.line)
        if point.node.get("http3").is_set:
            message = (
                "http3: is left out; txmux passes QUIC on by a [listen] with endpoint = udp:PORT"
            )
            section.flag(point.node.get("http3").line, message)
        self._proxied(section, point.node.get("proxyProtocol"))
        if with_http:
            message = f"entryPoints.{point.name}: has http.routers, too, which are left out; their clients are closed"
            section.flag(point.node.line, message)
        ordered = sorted(routers, key=lambda router: -router.priority)
        secure = [router for router in ordered if router.is_tls]
        plain = [router for router in ordered if not router.is_tls]
        if secure:
            timeout = point.node.get("transport", "respondingTimeouts", "readTimeout")
            section.add("detect_timeout", duration(timeout.text or "60s"), timeout.line)
        for router in secure:
            for condition, outcome in self._cases(router, section):
                self._secure(section, router, condition, outcome)
        if plain and secure and not _EVERYTHING.fullmatch(secure[-1].node.get("rule").text.strip()):
            self.routes.route(section, (Term("tls"),), CLOSE, point.node.line)
        self.routes.write(section, self._plain(plain, section), waits=bool(secure))

    def _plain(self, routers: list[Router], section: DraftSection) -> DecisionList[str]:
        cases: list[DecidedCase[str]] = []
        for router in routers:
            for condition, outcome in self._cases(router, section):
                if condition == ALWAYS:
                    return DecisionList(tuple(cases), outcome, router.node.line)
                cases.append(DecidedCase(condition, outcome, router.node.line))
        return DecisionList(tuple(cases), CLOSE, section.line)

    def _cases(self, router: Router, section: DraftSection) -> list[tuple[Condition, str]]:
        """Return the cases of a router: first the clients that its middlewares admit."""
        line = router.node.line
        try:
            condition = read_rule(router.node.get("rule").text, tls=router.is_tls)
        except InexpressibleError as error:
            section.flag(line, f"router {router.name}: is left out: {error}")
            router.node.leave_out()
            return []
        try:
            outcome = self.services.outcome(router.node.get("service").text)
            allowed = self._allowed(router, section)
            let_in = conjunction(condition, allowed)
        except InexpressibleError as error:
            section.flag(line, f"router {router.name}: its clients are closed: {error}")
            return [(condition, CLOSE)]
        if not condition:
            message = f"router {router.name}: is left out: without TLS, no client sends a name"
            section.flag(line, message)
            return []
        return [(let_in, outcome)] if allowed == ALWAYS else [(let_in, outcome), (condition, CLOSE)]

    def _allowed(self, router: Router, section: DraftSection) -> Condition:
        allowed = ALWAYS
        for name in router.node.get("middlewares").texts():
            node = self.middlewares.get(name.partition("@")[0].lower())
            if node is None:
                raise InexpressibleError(f"there is no middleware {name!r} in the files")
            for kind, settings in node.items():
                if kind.lower() in {"ipallowlist", "ipwhitelist"}:
                    networks = frozenset(map(network, settings.get("sourceRange").texts()))
                    allowed = conjunction(allowed, (Term(allowed=networks),))
                else:
                    message = f"middleware {name}: {kind} has no counterpart; see max_connections_per_source"
                    section.flag(node.line, message)
        return allowed

    def _secure(
        self, section: DraftSection, router: Router, condition: Condition, outcome: str
    ) -> None:
        line = router.node.line
        if router.tls is None or router.passes or outcome == CLOSE:
            self.routes.route(section, condition, outcome, line)
            return
        resolver = router.tls.get("certResolver")
        name = router.tls.get("options").text or "default"
        options = self.options.get(name.partition("@")[0].lower())
        at, names, why = line, list[str](), _broken(name, options)
        if not why and resolver.text and resolver.text == self.resolver:
            at, names = resolver.line, _acme_names(router.tls, condition)
            if not all(map(_HOST.fullmatch, names)):
                why = "terminate_tls = acme needs names, and no pattern; name them, or the files of another client"
        elif not (why or self.certificates):
            why = "there is no certificate in the files; name one in terminate_tls of a route"
        if why:
            section.flag(at, f"router {router.name}: its clients are closed: {why}")
            self.routes.route(section, condition, CLOSE, line)
            return
        # A route that ends TLS has no listener's name.
        route_name = f"{outcome}-tls" if outcome in self.points else ""
        for route in self.routes.route(section, condition, outcome, line, route_name):
            if names:
                route.add("terminate_tls", f"acme {', '.join(names)}", at)
            else:
                self.services.add_pairs(route, "terminate_tls", self.certificates)
            self._options(route, options, condition)

    def _options(self, route: DraftSection, options: Node | None, condition: Condition) -> None:
        protocols = options.get("alpnProtocols").texts() if options else []
        route.add("alpn", ", ".join(p for p in protocols if p != "acme-tls/1") or _PROTOCOLS)
        if options is None:
            return
        if options.get("minVersion").text == "VersionTLS13":
            route.add("tls_minimum", "1.3", options.get("minVersion").line)
        kind, authorities = _client_auth(options)
        line = options.get("clientAuth", "clientAuthType").line
        if kind in _VERIFYING:
            self.services.add_files(route, "tls_client_ca", authorities)
            if kind == "VerifyClientCertIfGiven":
                route.add("tls_client", "optional", line)
                message = "VerifyClientCertIfGiven: Traefik refuses a certificate that is not valid, and txmux takes it for none"
                route.warn(line, message)
        elif kind in _UNVERIFIED:
            message = (
                f"{kind}: txmux asks for a certificate only where it has to be shown and verified"
            )
            route.flag(line, message)
        for name, node in options.items():
            key = name.lower()
            if key in _READ or not node.is_set or (key, node.text) in _USUAL:
                continue
            message = (
                f"{name}: has no counterpart; {_WHY.get(key, 'txmux has fixed settings of TLS')}"
            )
            named = all("sni" in dict(term.options) for term in condition)
            (route.flag if key == "snistrict" and not named else route.warn)(node.line, message)

    def _proxied(self, section: DraftSection, node: Node) -> None:
        if not node.is_set:
            return
        trusted = node.get("trustedIPs").texts()
        if node.get("insecure").is_set:
            trusted = ["0.0.0.0/0", "::/0"]
        section.add_each("accept_proxy_from", trusted, node.line)
        message = (
            "proxyProtocol: for Traefik these may begin with a PROXY header, for txmux they must"
        )
        section.warn(node.line, message)


def _client_auth(options: Node) -> tuple[str, list[Node]]:
    """Return how Traefik treats certificates of clients, and the files of their authorities."""
    authorities = options.get("clientAuth", "caFiles").each()
    kind = options.get("clientAuth", "clientAuthType").text
    return kind or ("RequireAndVerifyClientCert" if authorities else "NoClientCert"), authorities


def _broken(name: str, options: Node | None) -> str:
    """Return why Traefik closes all clients of a router with these options; empty if it does not."""
    if options is None:
        return "" if name == "default" else f"there are no tls.options {name!r} in the files"
    kind, authorities = _client_auth(options)
    if kind in _VERIFYING and not authorities:
        return f"clientAuthType {kind} needs caFiles"
    is_known = kind in {"NoClientCert", *_VERIFYING, *_UNVERIFIED}
    return "" if is_known else f"{kind!r} is no clientAuthType"


def _acme_names(tls: Node, condition: Condition) -> list[str]:
    """Return the names that Traefik gets a certificate for, by ACME."""
    domains = tls.get("domains").each()
    names = [name for d in domains for name in (d.get("main").text, *d.get("sans").texts())]
    asked = [dict(term.options).get("sni", "").split(",") for term in condition]
    return [*dict.fromkeys(names or [name for patterns in asked for name in patterns])]

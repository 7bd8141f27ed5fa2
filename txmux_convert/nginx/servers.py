"""The blocks ``server``: where they listen, which clients they admit, and where these go."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePath

import attrs

from txmux.transport import bracketed
from txmux_convert.decision_list import DecidedCase, DecisionList, always
from txmux_convert.nginx.backends import Backends
from txmux_convert.nginx.lookups import tls
from txmux_convert.nginx.maps import admission
from txmux_convert.nginx.reader import Directive
from txmux_convert.nginx.values import DirectiveScope, Value, plain
from txmux_convert.nginx.variables import ListenContext, Variables
from txmux_convert.patterns import written
from txmux_convert.routes import CLOSE, RouteWriter
from txmux_convert.terms import InexpressibleError, Term
from txmux_convert.writer import Draft, DraftSection

_CUT_HELLO = (
    "nginx closes a client whose hello is longer than preread_buffer_size (16k), or not whole by preread_timeout; "
    "txmux sends it to default"
)
_EVERYBODY = "0.0.0.0/0, ::/0"
_BY_CLIENT = frozenset({"$binary_remote_addr", "$remote_addr"})


@attrs.frozen
class NginxConversion:
    """The result so far; `zones` has what each zone of ``limit_conn_zone`` counts; `splits` is whether ports of a range may differ."""

    draft: Draft
    variables: Variables
    backends: Backends
    zones: Mapping[str, str]
    routes: RouteWriter
    splits: bool


@attrs.frozen
class ServerBlock:
    """Converts one server."""

    _directive: Directive
    _scope: DirectiveScope
    _made: NginxConversion

    @property
    def _draft(self) -> Draft:
        return self._made.draft

    def convert(self) -> None:
        listens = self._scope.all("listen")
        split = self._made.splits or names_port(self._directive.block or ())
        endpoints = endpoints_of(listens, self._draft, split=split)
        if not endpoints:
            if not listens:
                self._draft.flag(self._directive.number, "server: is left out: it listens nowhere")
            return
        self._made.variables.set(self._scope.all("set"))
        groups: dict[tuple[Endpoint, DecisionList[str]], list[Endpoint]] = {}
        for endpoint in endpoints:
            # Endpoints that differ in their addresses only are one listener.
            kind = attrs.evolve(endpoint, host="", port="", path="")
            groups.setdefault((kind, self._decided(endpoint)), []).append(endpoint)
        for (_, decided), several in groups.items():
            self._listener(several, decided)

    def _decided(self, endpoint: Endpoint) -> DecisionList[str]:
        """Return the destination of clients: the name of a backend, or ``close``."""
        directive = self._scope.get("proxy_pass") or self._scope.get("pass")
        if directive is None:
            returned = self._scope.get("return")
            if returned is None:
                message = "server: has no destination; its clients are closed"
                self._draft.flag(self._directive.number, message)
            elif returned.value:
                self._draft.flag(returned, "txmux says nothing itself; these clients are closed")
            return always(CLOSE, self._directive.number)
        place = ListenContext(endpoint.host, endpoint.port, self._preread(endpoint), endpoint.ended)
        by_name = "$" in directive.value
        try:
            values = self._made.variables.decide(directive.value, directive.number, place)
        except InexpressibleError as error:
            self._draft.flag(directive, f"{error}; its clients are closed")
            return always(CLOSE, directive.number)

        def backend_of(value: Value, line: int) -> DecisionList[str]:
            named = self._made.backends.named(value)
            if named:
                routes = [(tls(sni=written(name)), backend_of((name,), line)) for name in named]
                cases = [DecidedCase((term,), to.otherwise, line) for term, to in routes]
                return DecisionList(tuple(cases), CLOSE, line)
            try:
                name = self._made.backends.outcome(
                    value, self._scope, line, by_name=by_name, is_udp=endpoint.datagrams
                )
            except InexpressibleError as error:
                self._draft.flag(line, f"{directive}: {error}; these clients are closed")
                name = CLOSE
            is_named = plain(value) is None and not self._made.variables.shares(value)
            if is_named and name != CLOSE and not endpoint.ended:
                # Without TLS there is no name, and a route waits for it.
                return DecisionList((DecidedCase((tls(),), name, line),), CLOSE, line)
            return always(name, line)

        return values.then(backend_of, self._draft.flag).simplified()

    def _preread(self, endpoint: Endpoint) -> bool:
        return self._scope.is_on("ssl_preread") and not (endpoint.ended or endpoint.datagrams)

    def _listener(self, endpoints: list[Endpoint], decided: DecisionList[str]) -> None:
        first = endpoints[0]
        kind = "udp" if first.datagrams else "port"
        name = f"{kind}-{first.port}" if first.port else PurePath(first.path).stem
        section = self._draft.section("listen", name, first.line)
        self._made.routes.listeners.append(section)
        for endpoint in endpoints:
            section.add("endpoint", str(endpoint), endpoint.line)
        self._patience(section, first, decided)
        if first.proxied:
            self._proxied(section)
        self._admission(section, proxied=first.proxied)
        counted = "max_flows" if first.datagrams else "max_connections"
        self._limits(section, counted, shared=len(endpoints) > 1)
        section.add_set(first.line, keepalive=first.keepalive, mptcp=first.mptcp)
        if self._scope.text("access_log") == "off" and self._scope.own:
            section.add("log", "no", self._scope.line("access_log"))
        if first.ended:
            self._ended(section, decided)
        else:
            self._made.routes.write(section, decided, waits=self._preread(first))

    def _patience(
        self, section: DraftSection, endpoint: Endpoint, decided: DecisionList[str]
    ) -> None:
        """Write how long the client's first bytes are waited for."""
        if endpoint.ended:
            self._scope.add(section, "detect_timeout", "ssl_handshake_timeout", "60s")
            if self._scope.is_on("ssl_preread"):
                message = "looks inside TLS that ends here, which has no counterpart"
                section.flag(self._scope.line("ssl_preread"), f"ssl_preread: {message}")
        elif not decided.cases and decided.otherwise == CLOSE:
            section.add("detect_timeout", "1ms", decided.line)
        elif self._preread(endpoint):
            self._scope.add(section, "detect_timeout", "preread_timeout", "30s")
            self._scope.add(section, "peek_limit", "preread_buffer_size", "", sized=True)
            terms = [term for case in decided.cases for term in case.condition]
            if not any(term.matcher for term in terms):
                section.add("silent", CLOSE, self._scope.line("ssl_preread"))
            if decided.otherwise != CLOSE:
                section.notes.append(_CUT_HELLO)

    def _ended(self, listener: DraftSection, decided: DecisionList[str]) -> None:
        others = DecidedCase((Term("tls"),), decided.otherwise, decided.line)
        for case in (*decided.cases, others):
            terms = [attrs.evolve(term, matcher=term.matcher or "tls") for term in case.condition]
            for section in self._made.routes.route(listener, terms, case.result, case.line):
                if case.result != CLOSE:
                    self._certificates(section)

    def _certificates(self, section: DraftSection) -> None:
        scope = self._scope
        for name in ("ssl_certificate", "ssl_certificate_key"):
            for directive in scope.all(name):
                if "$" in directive.value or directive.value.startswith(("data:", "engine:")):
                    section.flag(directive, "is left out: it is not a file")
                else:
                    section.add_path("terminate_tls", directive.value, directive)
        if "terminate_tls" not in section.entries:
            section.dropped = True
            message = "server: has no certificate; its clients are closed"
            self._draft.flag(self._directive.number, message)
        alpn = scope.get("ssl_alpn")
        if alpn:
            section.add("alpn", ", ".join(alpn.parameters), alpn)
        self._client_certificates(section)
        protocols = scope.get("ssl_protocols")
        if protocols:
            _add_minimum(section, protocols)

    def _client_certificates(self, section: DraftSection) -> None:
        scope = self._scope
        verify = scope.text("ssl_verify_client", "off").lower()
        if verify == "off":
            return
        # nginx trusts both, and names only the former to clients.
        files = [
            *filter(None, map(scope.get, ("ssl_client_certificate", "ssl_trusted_certificate")))
        ]
        asks = bool(files)
        for file in files[:1]:
            section.add_path("tls_client_ca", file.value, file)
            scope.add_files(section, "tls_client_crl", "ssl_crl")
        for file in files[1:]:
            section.flag(file, "is left out: tls_client_ca is one file, which has to have both")
        if verify == "on" and not asks:
            section.flag(
                scope.line("ssl_verify_client"), "ssl_verify_client: there is no authority"
            )
        if verify != "on":
            if asks:
                section.add("tls_client", "optional", scope.line("ssl_verify_client"))
            message = f"ssl_verify_client {verify}: a certificate that is not valid is none for txmux, and its client is served"
            section.warn(scope.line("ssl_verify_client"), message)

    def _proxied(self, section: DraftSection) -> None:
        trusted = self._scope.all("set_real_ip_from")
        self._scope.add(section, "proxy_timeout", "proxy_protocol_timeout", "30s")
        if not trusted:
            section.add("accept_proxy_from", _EVERYBODY, section.line)
            message = (
                "listen ... proxy_protocol without set_real_ip_from: for nginx the client's address is still that of "
                "the proxy; for txmux it is what the header says, for all that depends on it"
            )
            section.warn(section.line, message)
            return
        for directive in trusted:
            section.add("accept_proxy_from", directive.value.removesuffix(":"), directive)
        message = (
            "set_real_ip_from: for nginx the others begin with a PROXY header, too, which it does not believe; for "
            "txmux they are plain clients: see to it that only these reach the port"
        )
        section.flag(trusted[0].number, message)

    def _admission(self, section: DraftSection, *, proxied: bool) -> None:
        rules = self._scope.all("allow", "deny")
        if not rules:
            return
        if proxied and not self._scope.all("set_real_ip_from"):
            message = "allow, deny: are left out: they ask for the proxy's address, and txmux for the client's"
            section.flag(rules[0].number, message)
            return

        def lost(rule: Directive, why: str) -> None:
            if rule.value != "unix:" or rule.name == "deny":
                section.flag(rule, f"is left out: {rule.value} {why}")

        try:
            allowed, denied = admission(rules, lost)
        except InexpressibleError as error:
            section.flag(rules[0].number, f"allow, deny: are left out: {error}")
            return
        section.add_each("allow", allowed, rules[0])
        section.add_each("deny", denied, rules[0])

    def _limits(self, section: DraftSection, key: str, *, shared: bool) -> None:
        for directive in self._scope.all("limit_conn"):
            counted = self._made.zones.get(directive.value, "")
            most = directive.words[-1]
            zone = counted or "a zone that is not there"
            if self._scope.is_on("limit_conn_dry_run"):
                section.warn(directive, "is left out: limit_conn_dry_run only counts")
            elif counted in _BY_CLIENT:
                section.add(f"{key}_per_source", most, directive)
                message = (
                    "of IPv6, a source is a network of 64 bits; each [listen] counts for itself"
                )
                section.warn(directive, message)
            elif counted == "$server_port" or (counted == "$server_addr" and not shared):
                section.add(key, most, directive)
            else:
                section.flag(directive, f"is left out: it counts by {zone}")


def _add_minimum(section: DraftSection, protocols: Directive) -> None:
    spoken = set(protocols.parameters)
    if spoken == {"TLSv1.3"}:
        section.add("tls_minimum", "1.3", protocols)
    elif not spoken & {"TLSv1.2", "TLSv1.3"}:
        section.flag(protocols, "txmux speaks TLS 1.2 and 1.3 only")
    elif spoken != {"TLSv1.2", "TLSv1.3"}:
        section.warn(protocols, "txmux speaks TLS 1.2 and 1.3")


def names_port(directives: Iterable[Directive]) -> bool:
    """Return whether something depends on the port that a client comes to, other than the port of its server."""
    return any(
        any("server_port" in word.removesuffix(":$server_port") for word in one.words)
        or names_port(one.block or ())
        for one in directives
    )


_PORTS = re.compile(
    r"(?:(?P<host>\[[^\]]*\]|[^:]*):)?(?P<ports>(?P<first>[0-9]+)(?:-(?P<last>[0-9]+))?)"
)
_MOST_PORTS = 256
WITHOUT_EFFECT = {
    "bind": "txmux opens a socket for each endpoint",
    "default_server": "chooses among servers at one address, which are reported",
    "deferred": "a client that says nothing is not accepted; by txmux it is, and waits",
    "reuseport": "the workers of txmux share a port anyway",
    "tcp": "it is, unless udp is there",
}
"""Parameters of ``listen`` that have no counterpart and no report, and why they need none."""

_TUNING = frozenset({"accept_filter", "backlog", "fastopen", "rcvbuf", "sndbuf"})
_READ = frozenset({"ipv6only", "multipath", "proxy_protocol", "so_keepalive", "ssl", "udp"})
_EVERY = frozenset({"", "*", "0.0.0.0"})  # noqa: S104 - it is read


@attrs.frozen
class Endpoint:
    """One address and port, or one path.

    Attributes:
        host: Empty for every address of IPv4 and IPv6.
        port: One port, or several as ``5000-5002``; empty for a UNIX socket.
        ended: Whether TLS ends there.
        proxied: Whether clients begin with a PROXY protocol header.
    """

    host: str = ""
    port: str = ""
    path: str = ""
    line: int = attrs.field(default=0, eq=False)
    ended: bool = False
    proxied: bool = False
    keepalive: str = ""
    datagrams: bool = False
    mptcp: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        if self.datagrams and not self.host:
            return f"udp:{self.port}"
        return f"{'udp:' * self.datagrams}{bracketed(self.host)}:{self.port}"


def endpoints_of(directives: Iterable[Directive], draft: Draft, *, split: bool) -> list[Endpoint]:
    """Read ``listen``; `split` a range of ports into an endpoint for each."""
    endpoints: list[Endpoint] = []
    for directive in directives:
        endpoints += _endpoints(directive, draft, split=split)
    # A pair of sockets for IPv4 and IPv6 is one endpoint in txmux.
    for of_ipv6 in [e for e in endpoints if e.host == "::"]:
        other = attrs.evolve(of_ipv6, host="0.0.0.0")  # noqa: S104 - it is compared
        if other in endpoints:
            endpoints[endpoints.index(other)] = attrs.evolve(other, host="")
            endpoints.remove(of_ipv6)
    return list(dict.fromkeys(endpoints))


def _endpoints(directive: Directive, draft: Draft, *, split: bool) -> Iterable[Endpoint]:
    flags = dict(word.partition("=")[::2] for word in directive.parameters[1:])
    unknown = [name for name in flags if name not in {*WITHOUT_EFFECT, *_TUNING, *_READ}]
    if unknown:
        draft.flag(directive, f"no counterpart of {', '.join(unknown)}")
    tuning = [name for name in flags if name in _TUNING]
    if tuning:
        draft.warn(directive, f"no counterpart of {', '.join(tuning)}")
    common = Endpoint(
        line=directive.number,
        ended="ssl" in flags,
        proxied="proxy_protocol" in flags,
        keepalive=_keepalive(flags, directive, draft),
        datagrams="udp" in flags,
        mptcp="yes" if "multipath" in flags else "",
    )
    if directive.value.startswith("unix:"):
        yield attrs.evolve(common, path=directive.value.removeprefix("unix:"))
        return
    match = _PORTS.fullmatch(directive.value)
    if match is None:
        draft.flag(directive, f"is left out: {directive.value} is not an address and port")
        return
    first, last = int(match["first"]), int(match["last"] or match["first"])
    if split and last - first >= _MOST_PORTS:
        draft.flag(directive, f"is left out: it has more than {_MOST_PORTS} ports")
        return
    host = (match["host"] or "").strip("[]")
    if host in _EVERY:
        host = "0.0.0.0"  # noqa: S104 - it is written, not opened
    elif host == "::" and flags.get("ipv6only") == "off":
        host = ""
    ports = [str(port) for port in range(first, last + 1)] if split else [match["ports"]]
    for port in ports:
        yield attrs.evolve(common, host=host, port=port)


def _keepalive(flags: Mapping[str, str], directive: Directive, draft: Draft) -> str:
    text = flags.get("so_keepalive", "")
    if text in {"", "on", "off"}:
        return {"": "", "on": "yes", "off": "no"}[text]
    parts = [*text.split(":"), "", ""][:3]
    words: list[str] = []
    for name, part in zip(("idle", "interval", "count"), parts, strict=True):
        unit = "s" if name != "count" and part.isdecimal() else ""
        words += [f"{name}={part}{unit}"] * bool(part)
    if ":" not in text:
        draft.flag(directive, f"{text} is left out")
        return ""
    return " ".join(words)

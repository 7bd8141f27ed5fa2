"""The frontends of an ``haproxy.cfg``: where they listen, and where clients go."""

import re
from collections.abc import Iterable

import attrs

from txmux_convert.haproxy.binds import (
    Bind,
    BindContext,
    Secured,
    SideFiles,
    bind_context,
    listen,
    lost,
    read_binds,
)
from txmux_convert.haproxy.decisions import CLOSE, ClientDecisions, RouteChoice, read_acls, regions
from txmux_convert.haproxy.limits import admitted, as_lists
from txmux_convert.haproxy.lines import Proxy, duration
from txmux_convert.haproxy.routes import DECIDING, OPEN, FrontendRoutes, HAProxyConversion, refuses
from txmux_convert.haproxy.settings import LIMIT_CLOSES
from txmux_convert.matching import match_line
from txmux_convert.routes import RouteWriter, texts_of
from txmux_convert.terms import (
    ALWAYS,
    SILENT,
    VERIFIED,
    Condition,
    Hello,
    InexpressibleError,
    conjunction,
    negated,
)
from txmux_convert.writer import ConfigLine, DraftSection

_EVERYBODY = ["0.0.0.0/0", "::/0", "unix"]
_PLACE = re.compile(r"\bdst(_port)?\b")
_KEEPALIVE = {"clitcpka-idle": "idle", "clitcpka-intvl": "interval", "clitcpka-cnt": "count"}
_TARGET_DIRECTIVES = ("use_backend", "default_backend")
_LAYERS = ("connection", "session")


@attrs.define
class Frontend(FrontendRoutes):
    """A frontend while it is converted."""

    several: bool

    def convert(self) -> None:
        refused, decisions = self.decisions().distinct().turned_away()
        self._listener_keys(decisions)
        self._admission(refused)
        if self.bind.secured:
            self._end_tls(self.bind.secured, decisions)
        else:
            self._silence(decisions)
            self._routes(decisions)

    def _end_tls(self, secured: Secured, decisions: ClientDecisions) -> None:
        """Write the routes that terminate TLS, and those below them."""
        try:
            split = regions(decisions, secured.alpn)
        except InexpressibleError as error:
            split = [((), ClientDecisions())]
            for line in dict.fromkeys(choice.line for choice in decisions.choices):
                self.lost(line, f"{error}; all clients are closed")
        for hello, inside in split:
            if inside.are_of_networks():
                for networks, outcome in inside.silence():
                    section = self._secure(secured, hello, outcome)
                    section.add_each("from", texts_of(networks))
                continue
            section = self._secure(secured, hello, inside.otherwise)
            if inside.silence() != [(None, inside.otherwise)]:
                line = inside.choices[0].line
                self.listeners[0].flag(
                    line,
                    "for clients that are silent inside TLS, the route's backend alone decides",
                )
            self._routes(inside, section.name)

    def _secure(self, secured: Secured, hello: Hello, outcome: str) -> DraftSection:
        section = self.made.draft.section("route", f"{self.proxy.name}-tls", self.listeners[0].line)
        section.add("match", match_line("tls", hello))
        if self.several:
            for listener in self.listeners:
                section.add("under", listener.name)
        section.add("terminate_tls", ", ".join(secured.certificates))
        section.add_set(
            alpn=", ".join(secured.alpn),
            tls_client_ca=secured.client_ca,
            tls_client_crl=secured.client_crl,
            tls_client=secured.client,
            tls_minimum=secured.minimum,
        )
        section.add("backend", outcome)
        return section

    def _listener_keys(self, decisions: ClientDecisions) -> None:
        if line := self.proxy.value("maxconn"):
            self.made.used.add(line.number)
            for listener in self.listeners:
                listener.add_default("max_connections", line.value, line)
                listener.warn(line, LIMIT_CLOSES)
        self._options()
        targets = {line.value for word in _TARGET_DIRECTIVES for line in self.proxy.all(word)}
        proxies = [self.proxy, *(p for name, p in self.made.proxies.items() if name in targets)]
        delays = [line for p in proxies if (line := p.value("tcp-request", "inspect-delay"))]
        self.made.used.update(line.number for line in delays)
        silent = [c.line for c in decisions.choices for t in c.condition if t.matcher == SILENT]
        if silent and not delays:
            why = "without inspect-delay, HAProxy sends every client there whose first bytes do not arrive with its connection"
            self.listeners[0].flag(silent[0], why)
        for listener in self.listeners:
            if decisions.are_of_networks():
                continue  # does not wait for the client's first byte
            if delays:
                listener.add("detect_timeout", duration(delays[0].words[2]), delays[0])
            else:
                listener.notes.append(
                    "without inspect-delay, HAProxy decides by what has come at once; txmux waits for detect_timeout"
                )

    def _options(self) -> None:
        for line in self.proxy.all("option", "dontlog-normal"):
            self.made.used.add(line.number)
            for listener in self.listeners:
                listener.entries.pop("log", None)
                listener.add("log", "errors", line)
        words = []
        for name, option in _KEEPALIVE.items():
            setting = self.proxy.value(name)
            if setting:
                self.made.used.add(setting.number)
                text = setting.value
                if option != "count":
                    text = f"{text}s" if text.isdecimal() else duration(text)
                words.append(f"{option}={text}")
        for listener in self.listeners if words else ():
            listener.add_default("keepalive", " ".join(words))

    def _admission(self, refused: Iterable[RouteChoice]) -> None:
        layers = [(layer, *self._admitted(layer)) for layer in _LAYERS]
        layers += [("content", negated(c.condition), [c.line]) for c in refused]
        for listener in self.listeners:
            self._let_in(listener, [layer for layer in layers if layer[2]])

    def _admitted(self, layer: str) -> tuple[Condition, list[ConfigLine]]:
        """Read which clients the rules of a layer admit, and the lines of these rules."""
        acls = read_acls(self.proxy.all("acl"), self.bind)
        rules: list[tuple[bool, Condition]] = []
        lines: list[ConfigLine] = []
        for line in self.proxy.all("tcp-request", layer):
            action = "".join(line.words[2:3])
            if action not in {*DECIDING, "expect-proxy"} or self.limits(line, self.proxy):
                continue
            question = self.question(line, 4 if action == "expect-proxy" else 3, acls)
            try:
                condition = question.networks() if question else None
            except InexpressibleError as error:
                condition = None
                self.lost(line, str(error), OPEN if refuses(line) else "")
            if condition is None:
                continue
            if action == "expect-proxy":
                self._expect_proxy(line, condition)
            else:
                rules.append((action == "accept", condition))
                lines.append(line)
        try:
            return admitted(rules), lines
        except InexpressibleError as error:
            self._all_lost(lines, str(error))
            return ALWAYS, []

    def _all_lost(self, lines: Iterable[ConfigLine], why: str) -> None:
        for line in lines:
            self.lost(line, why, OPEN)

    def _expect_proxy(self, line: ConfigLine, condition: Condition) -> None:
        try:
            networks, excluded = (_EVERYBODY, []) if condition == ALWAYS else as_lists(condition)
        except InexpressibleError as error:
            self.lost(line, str(error))
            return
        if excluded or not networks:
            self.lost(line, "accept_proxy_from has a list of networks only")
            return
        for listener in self.listeners:
            listener.add_each("accept_proxy_from", networks, line)

    def _let_in(
        self, listener: DraftSection, layers: Iterable[tuple[str, Condition, list[ConfigLine]]]
    ) -> None:
        admitted = ALWAYS
        expressible: list[ConfigLine] = []
        for layer, condition, lines in layers:
            if layer == "connection" and "accept_proxy_from" in listener.entries:
                why = "it asks for the proxy's address, and allow and deny for the client's"
                self._all_lost(lines, why)
                continue
            try:
                admitted = conjunction(admitted, condition)
                expressible += lines
            except InexpressibleError as error:
                self._all_lost(lines, str(error))
        try:
            allow, deny = as_lists(admitted)
        except InexpressibleError as error:
            self._all_lost(expressible, str(error))
            return
        for line in expressible[-1:]:
            listener.add_each("allow", allow, line)
            listener.add_each("deny", deny, line)

    def _silence(self, decisions: ClientDecisions) -> None:
        lines: list[str] = []
        # No byte is needed where networks alone decide, or where there is no route at all.
        after = " after=1ms" if decisions.are_of_networks() else ""
        try:
            for networks, outcome in decisions.silence():
                if networks is None:
                    lines.append(outcome)
                    break
                if networks:
                    lines.append(f"{outcome} from={','.join(texts_of(networks))}{after}")
        except InexpressibleError as error:
            lines = [CLOSE]
            line = next(
                c.line for c in decisions.choices for t in c.condition if t.matcher in {"", SILENT}
            )
            self.listeners[0].flag(
                line,
                f"the destination of silent clients has no counterpart: {error}; they are closed; "
                "name in silent where they may go",
            )
        while len(lines) > 1 and lines[-2].split()[0] == lines[-1]:
            del lines[-2]
        for listener in self.listeners:
            listener.add_each("silent", lines if lines != [CLOSE] and decisions.choices else ())
            if decisions.otherwise != CLOSE:
                listener.add("default", decisions.otherwise)

    def _invalid(self, certificate: frozenset[str]) -> str:
        """Return why no route is for just these certificates, or nothing."""
        is_lenient = self.bind.secured is not None and self.bind.secured.lenient
        if not (is_lenient and certificate) or (VERIFIED in certificate and len(certificate) > 1):
            return ""
        return "clients whose certificate is not valid cannot be told from those without one; ask for both ssl_c_used and ssl_c_verify 0"

    def _routes(self, decisions: ClientDecisions, under: str = "") -> None:
        choices = list(decisions.choices)
        # A condition that HAProxy only waits for needs no route.
        while (
            choices
            and choices[-1].outcome == decisions.otherwise
            and choices[-1].line.begins("tcp-request")
        ):
            choices.pop()
        writer, first = RouteWriter(self.made.draft), self.listeners[0]
        above = [under] if under else [s.name for s in self.listeners if self.several]
        for choice in choices:
            consequence = OPEN if choice.outcome == CLOSE else ""
            terms = []
            for term in choice.condition:
                if why := self._invalid(term.certificate):
                    message = f"match = {term} is left out: {why}{consequence}"
                    first.flag(choice.line, message)
                elif term.matcher != SILENT:
                    terms.append(term)
            writer.route(first, terms, choice.outcome, choice.line, "", above, consequence)


def convert_frontend(
    proxy: Proxy, made: HAProxyConversion, files: SideFiles, *, several: bool
) -> None:
    """Write the listeners and routes of a frontend, for each group of alike bind lines."""
    places: dict[BindContext, list[Bind]] = {}
    lines = proxy.all("bind")
    made.used.update(line.number for line in lines)
    asks = any(_PLACE.search(word) for line in proxy.lines for word in line.words)
    for bind in read_binds(lines, split=asks):
        why = lost(bind)
        try:
            place = bind_context(bind, files)
        except InexpressibleError as error:
            why = [str(error)]
        if why:
            made.draft.flag(bind.line, f"is left out; {'; '.join(why)}")
            continue
        if not asks:
            place = attrs.evolve(place, host="", port="")
        places.setdefault(place, []).append(bind)
    fronts: list[Frontend] = []
    for place, binds in places.items():
        listeners: list[DraftSection] = []
        for bind in binds:
            listen(bind, proxy.name, listeners, made.draft)
        fronts.append(Frontend(proxy, made, place, listeners, several or len(places) > 1))
        fronts[-1].convert()
    for line in set.intersection(*(front.unreached() for front in fronts)) if fronts else ():
        fronts[0].listeners[0].warn(line, "is never reached: no client is left for it")
    if not places:
        made.draft.flag(proxy.number, f"{proxy.kind} {proxy.name}: is left out; it listens nowhere")
        for word in ("acl", "use_backend", "default_backend", "tcp-request"):
            made.used.update(line.number for line in proxy.all(word))

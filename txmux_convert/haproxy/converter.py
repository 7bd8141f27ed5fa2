"""The TCP part of an ``haproxy.cfg``, of HAProxy 1.5 to 3.x, as rules."""

import re
from collections.abc import Iterable, Mapping, Sequence

from txmux_convert.haproxy.backends import fill_backend
from txmux_convert.haproxy.binds import SideFiles
from txmux_convert.haproxy.frontends import convert_frontend
from txmux_convert.haproxy.lines import Config, Proxy, read_haproxy
from txmux_convert.haproxy.routes import HAProxyConversion
from txmux_convert.haproxy.servers import PLACES, BackendDraft
from txmux_convert.haproxy.settings import add_process, with_references
from txmux_convert.matching import LUA
from txmux_convert.writer import ConfigLine, ConvertError, Draft, DraftSection

TAKEN = ("mode", "disabled", "enabled", "acl")
"""Directives that rules come from, beside those whose lines are noted as used."""

WITHOUT_EFFECT = {
    "backlog": "txmux asks for the system's longest queue",
    **dict.fromkeys(("description", "id"), "something for the statistics"),
    "hash-type": "hashes are always consistent",
    "no option": "what HAProxy does anyway, unless an earlier line is taken back",
    "option contstats": "counters are always up to date",
    "option redispatch": "txmux tries another server anyway",
    **dict.fromkeys(
        ("option clitcpka", "option srvtcpka", "option tcpka"),
        "keepalive of [listen] is on anyway, for both sides",
    ),
    **dict.fromkeys(
        ("option splice-auto", "option splice-request", "option splice-response"),
        "txmux has the kernel relay where it can",
    ),
    **dict.fromkeys(
        ("option tcp-smart-accept", "option tcp-smart-connect"),
        "when the kernel acknowledges; the bytes are the same",
    ),
    "timeout queue": "clients wait for connect_timeout, which is reported where servers have a maxconn",
}
"""Directives of a proxy that have no counterpart and no report, and why they need none; any other is reported."""

_LOOK = (
    *("filter", "force-persist", "ignore-persist", "monitor-net", "option http_proxy"),
    *("option transparent", "persist", "rate-limit", "server", "server-template", "stick match"),
    *("stick on", "stick store", "tcp-response content", "use-server"),
)
"""Directives that change which clients are served, and by which server."""

_LOOK_IN_HTTP = (
    *("appsession", "block", "cookie", "http-request", "http-response", "redirect", "reqallow"),
    *("reqdel", "reqdeny", "reqiallow", "reqidel", "reqideny", "reqipass", "reqirep"),
    *("reqitarpit", "reqpass", "reqrep", "reqtarpit", "rspdeny", "rspideny"),
)
"""The same in what speaks HTTP; elsewhere HAProxy itself ignores it."""

_TELLING_ONLY = (
    *("capture", "sc-", "send-spoe", "set-log", "set-mark", "set-nice", "set-tos", "set-var"),
    *("track-sc", "unset-var"),
)
"""Actions of ``tcp-request`` and its like that do not affect the destination of a client."""

_ADDING_ONLY = ("add-header", "set-header", "del-header", "replace-header", "replace-value")
"""Of these, those of ``http-response``: their clients are served already."""

_SERVING = ("use_backend", "default_backend", "monitor-uri", "redirect", *PLACES)
"""Without any of these, what speaks HTTP serves nothing but HAProxy's own pages."""

_ASIDE = re.compile(
    r"chroot|daemon|errorfile|log.*|master-worker|pidfile|spread-checks|stats|tune\..*|ulimit-n|\.(alert|diag|notice|warning)"
    r"|option (abortonclose|dontlog.*|forwardfor|http-.*|https?log|log.*|tcplog)|timeout http-.*"
)
"""What is about the process, its log and its pages, and what HAProxy does with HTTP alone."""

_HINTS = {
    "log": "access_log in [txmux]",
    "log-format": "access_log_format in [txmux]",
    "option dontlognull": "log = errors in [listen]",
    "option httplog": "access_log_format in [txmux]",
    "option tcplog": "access_log_format in [txmux]",
    "pidfile": "--pidfile of 'txmux run'",
    "stats": "admin in [txmux], 'txmux status'",
}
_REASONS = {
    "stick-table": "no state of clients is stored",
    "cookie": "a client that comes again may get another server; see balance in [backend]",
    "http-request": "txmux relays HTTP as it is, and answers none of it itself",
    "http-response": "txmux relays HTTP as it is",
    "redirect": "txmux relays HTTP as it is, and answers none of it itself",
}


def convert_haproxy(data: bytes, draft: Draft) -> None:
    _Haproxy(read_haproxy(data, draft.path), draft).convert()


class _Haproxy:
    def __init__(self, config: Config, draft: Draft) -> None:
        self._config = with_references(config)
        self._draft = draft
        self._made = HAProxyConversion(draft)

    def convert(self) -> None:
        self._other_sections()
        fronts = [p for p in self._config.proxies if p.kind != "backend" and self._is_tcp(p)]
        if not fronts:
            raise ConvertError(
                f"{self._draft.path}: nothing in it can be converted: there is no frontend or listen in mode tcp"
            )
        add_process(
            self._config.settings, self._draft, lambda line: self._no_counterpart(line, None)
        )
        for line, message in self._config.changing.items():
            self._draft.flag(line, message)
        clients = _clients(fronts)
        # A backend has the protocol of its frontends, whatever its own mode.
        listed = [
            proxy
            for proxy in self._config.proxies
            if proxy.kind == "backend"
            and ((proxy.name in clients and not proxy.is_disabled) or self._is_served(proxy))
        ]
        listed += [front for front in fronts if any(map(front.all, PLACES))]
        for proxy in listed:
            self._made.proxies[proxy.name] = proxy
            self._made.backends[proxy.name] = self._draft.section(
                "backend", proxy.name, proxy.number
            )
        for proxy in listed:
            section, theirs = self._made.backends[proxy.name], _clients_of(proxy, clients)
            fill_backend(BackendDraft(proxy, section, theirs, self._made.used))
        self._made.tables.update((proxy.name, proxy) for proxy in self._config.proxies)
        files = SideFiles(self._draft)
        for front in fronts:
            convert_frontend(front, self._made, files, several=len(fronts) > 1)
        for number, message in files.notes:
            self._draft.flag(number, message)
        for name in dict.fromkeys(files.read):
            message = f"is written into the rules as it is now; when {name} changes, convert again"
            self._draft.warn(self._draft.line_in(name, 1), message)
        self._rest([*fronts, *(proxy for proxy in listed if proxy not in fronts)])

    def _other_sections(self) -> None:
        for header, lines in self._config.others.items():
            if header.name != "resolvers":
                self._draft.warn(header, "the section has no counterpart")
                continue
            # Name servers are written, or reported, with the servers that they are for.
            for line in lines:
                if line.name != "nameserver":
                    why = "has no counterpart; names are looked up again as their records say"
                    self._draft.warn(line, why)

    def _is_served(self, proxy: Proxy) -> bool:
        """Return whether a backend may be needed; one that only has a table of clients is not."""
        return self._is_tcp(proxy) and (any(map(proxy.all, PLACES)) or not proxy.all("stick-table"))

    def _is_tcp(self, proxy: Proxy) -> bool:
        if proxy.mode == "tcp" and not proxy.is_disabled:
            return True
        if proxy.is_disabled or proxy.kind == "backend":
            why = "it is disabled" if proxy.is_disabled else f"mode {proxy.mode}"
            self._draft.warn(proxy.number, f"{proxy.kind} {proxy.name}: is left out; {why}")
        elif _is_own_pages(proxy):
            hint = "metrics in [txmux], and 'txmux top'"
            self._draft.set_aside(proxy.number, f"{proxy.kind} {proxy.name}", hint)
        else:
            message = f"{proxy.kind} {proxy.name}: is left out; mode {proxy.mode}, which txmux cannot serve{_ONCE if proxy.mode == 'http' else ''}"
            self._draft.flag(proxy.number, message)
        return False

    def _rest(self, proxies: Sequence[Proxy]) -> None:
        defaults = {line.number for line in self._config.defaults}
        for proxy in proxies:
            section = self._made.backends.get(proxy.name) if proxy.kind != "frontend" else None
            for line in proxy.lines:
                name = _name(line)
                if line.number not in self._made.used and name not in {*TAKEN, *WITHOUT_EFFECT}:
                    place = None if line.number in defaults else section
                    self._no_counterpart(line, place, proxy.mode)

    def _no_counterpart(
        self, line: ConfigLine, section: DraftSection | None, mode: str = "tcp"
    ) -> None:
        if line in self._config.changing:
            return  # it has been reported
        name = _name(line)
        if _ASIDE.fullmatch(name):
            self._draft.set_aside(line, name, _HINTS.get(name, ""))
            return
        reason = _REASONS.get(line.name) or _REASONS.get(" ".join(line.words[:2]), "")
        if any(word.startswith("lua.") for word in line.words):
            reason = "it answers clients itself" if "use-service" in line.words else LUA
        report = self._draft.flag if _decides(line, mode) else self._draft.warn
        report(line, f"has no counterpart{reason and f'; {reason}'}", section)


def _name(line: ConfigLine) -> str:
    """Return the name of a directive, which may have two words."""
    return " ".join(line.words[:2]) if line.name in {"no", "option", "timeout"} else line.name


_ONCE = (
    ": it chooses a server once for each connection, not for each request; "
    "if that is enough, write 'mode tcp' (rules by hdr(host) and path stay) and convert again"
)


def _is_own_pages(proxy: Proxy) -> bool:
    """Return whether what speaks HTTP shows HAProxy's statistics and nothing else."""
    exporter = proxy.all("http-request", "use-service", "prometheus-exporter")
    answering = [*proxy.all("http-request", "return"), *proxy.all("http-request", "redirect")]
    serves = answering or any(proxy.all(word) for word in _SERVING)
    return not serves and bool(proxy.all("stats") or exporter)


def _decides(line: ConfigLine, mode: str) -> bool:
    if any(line.begins(*words.split()) for words in _LOOK):
        return True
    if mode == "http" and line.name in _LOOK_IN_HTTP:
        adding = _ADDING_ONLY if "response" in line.name else ("add-header",)
        return not " ".join(line.words[1:]).startswith((*_TELLING_ONLY, *adding))
    telling = len(line.words) > 2 and line.words[2].startswith(_TELLING_ONLY)
    return line.name == "tcp-request" and line.value != "inspect-delay" and not telling


def _clients(fronts: Iterable[Proxy]) -> dict[str, list[Proxy]]:
    by_backend: dict[str, list[Proxy]] = {}
    for front in fronts:
        lines = [*front.all("use_backend"), *front.all("default_backend")]
        for name in dict.fromkeys(line.value for line in lines):
            by_backend.setdefault(name, []).append(front)
    return by_backend


def _clients_of(proxy: Proxy, clients: Mapping[str, Sequence[Proxy]]) -> Sequence[Proxy]:
    """Return the frontends that forward clients to one; a `listen` section is one itself."""
    fronts = clients.get(proxy.name, ())
    return fronts if proxy.kind == "backend" or proxy in fronts else (proxy, *fronts)

"""The TCP part of an ``haproxy.cfg``, of HAProxy 1.5 to 3.x, as rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.convert.haproxy.backends import fill_backend
from txmux.convert.haproxy.frontends import Frontend, Made
from txmux.convert.haproxy.lines import read_haproxy
from txmux.convert.writer import ConvertError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from txmux.convert.haproxy.lines import Config, Line, Proxy
    from txmux.convert.writer import Draft, Section
    from txmux.interfaces import IProtocolMatcher

_UNDERSTOOD = (
    "mode",
    "disabled",
    "enabled",
    "acl",
    "description",
    "option splice-",
    "option redispatch",
    "option tcpka",
    "option clitcpka",
    "option srvtcpka",
    "option tcp-smart-",
    "option contstats",
)
_LOOK = (
    "dispatch",
    "filter",
    "force-persist",
    "ignore-persist",
    "monitor-net",
    "option http_proxy",
    "option transparent",
    "persist",
    "rate-limit",
    "server",
    "server-template",
    "stick match",
    "stick on",
    "stick store",
    "tcp-response content",
    "use-server",
)
"""What changes who is served, and by whom."""

_TELLING_ONLY = (
    "capture",
    "sc-",
    "send-spoe",
    "set-log",
    "set-mark",
    "set-nice",
    "set-tos",
    "set-var",
    "track-sc",
    "unset-var",
)
"""Actions of ``tcp-request`` after which everything goes on as before."""

_REASONS = {
    "daemon": "see 'Run as a service'",
    "user": "the service manager chooses the user; see 'Run as a service'",
    "group": "the service manager chooses the group; see 'Run as a service'",
    "option dontlognull": "log = no in [route] keeps a route out of the access log",
    "option httplog": "access_log_format in [txmux] says how it is written",
    "option tcplog": "access_log_format in [txmux] says how it is written",
    "log": "access_log and access_log_format in [txmux] say where the log goes",
    "pidfile": "'twist' writes none; see 'Run as a service'",
    "stick-table": "nothing is remembered of a client",
    "http-request": "txmux does not look into HTTP beyond the first request",
}


def convert_haproxy(
    data: bytes, path: str, draft: Draft, matchers: Mapping[str, IProtocolMatcher]
) -> None:
    """Make rules of an ``haproxy.cfg`` for `txmux.convert.formats.convert`.

    Raises:
        ConvertError: No frontend speaks TCP.
    """
    _Haproxy(read_haproxy(data, path), path, draft, matchers).convert()


class _Haproxy:
    def __init__(
        self, config: Config, path: str, draft: Draft, matchers: Mapping[str, IProtocolMatcher]
    ) -> None:
        self._config = config
        self._path = path
        self._draft = draft
        self._made = Made(draft, matchers)

    def convert(self) -> None:
        for line in self._config.others:
            self._draft.warn(line.number, f"{line}: the section has no counterpart")
        fronts = [p for p in self._config.proxies if p.kind != "backend" and self._is_tcp(p)]
        if not fronts:
            raise ConvertError(
                f"{self._path}: nothing in it can be converted: there is no frontend or listen in mode tcp"
            )
        self._global()
        for line in self._config.changing:
            message = f"{line}: what it says depends on the environment; write what is meant"
            self._draft.look(line.number, message)
        wanted = {name for front in fronts for name in _leads_to(front)}
        # A backend speaks what leads there, whatever its own mode.
        listed = [
            p
            for p in self._config.proxies
            if p.kind == "backend" and ((p.name in wanted and not p.is_disabled) or self._is_tcp(p))
        ]
        listed += [front for front in fronts if front.all("server")]
        for proxy in listed:
            self._made.proxies[proxy.name] = proxy
            self._made.backends[proxy.name] = self._draft.section(
                "backend", proxy.name, proxy.number
            )
        for proxy in listed:
            clients = [f for f in fronts if proxy.name in {f.name, *_leads_to(f)}]
            fill_backend(
                proxy, self._made.backends[proxy.name], clients, self._draft, self._made.used
            )
        for front in fronts:
            Frontend(front, self._made, len(fronts) > 1).convert()
        self._rest([*fronts, *(proxy for proxy in listed if proxy not in fronts)])

    def _is_tcp(self, proxy: Proxy) -> bool:
        if proxy.mode == "tcp" and not proxy.is_disabled:
            return True
        if proxy.is_disabled or proxy.kind == "backend":
            why = "it is disabled" if proxy.is_disabled else f"mode {proxy.mode}"
            self._draft.warn(proxy.number, f"{proxy.kind} {proxy.name}: is left out; {why}")
        else:
            message = f"{proxy.kind} {proxy.name}: is left out; mode {proxy.mode}, which txmux cannot serve"
            self._draft.look(proxy.number, message)
        return False

    def _global(self) -> None:
        for line in self._config.settings:
            if line.begins("maxconn") and len(line.words) > 1:
                section = self._draft.section("txmux", line=line.number)
                section.add("max_connections", line.words[1])
                message = f"{line}: HAProxy lets further clients wait, and txmux closes them"
                self._draft.warn(line.number, message, section)
            else:
                self._no_counterpart(line, None)

    def _rest(self, proxies: Sequence[Proxy]) -> None:
        defaults = {line.number for line in self._config.defaults}
        for proxy in proxies:
            section = self._made.backends.get(proxy.name) if proxy.kind != "frontend" else None
            for line in proxy.lines:
                understood = str(line).startswith(_UNDERSTOOD) or line in self._config.changing
                if line.number not in self._made.used and not understood:
                    self._no_counterpart(line, None if line.number in defaults else section)

    def _no_counterpart(self, line: Line, section: Section | None) -> None:
        reason = _REASONS.get(line.words[0]) or _REASONS.get(" ".join(line.words[:2]), "")
        tell = self._draft.look if _decides(line) else self._draft.warn
        tell(line.number, f"{line}: has no counterpart{reason and f'; {reason}'}", section)


def _decides(line: Line) -> bool:
    if any(line.begins(*words.split()) for words in _LOOK):
        return True
    telling = len(line.words) > 2 and line.words[2].startswith(_TELLING_ONLY)
    return line.words[0] == "tcp-request" and line.words[1:2] != ("inspect-delay",) and not telling


def _leads_to(front: Proxy) -> list[str]:
    lines = [*front.all("use_backend"), *front.all("default_backend")]
    return [line.words[1] for line in lines if len(line.words) > 1]
